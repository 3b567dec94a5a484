"""Credentials that came with a URL, lent to the workers of a running cluster while it works for us.

A local cluster needs none of this: its processes inherit them. What goes over the wire is as safe as the connection:
tls:// encrypts it.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from recsys_dask.credentials import CREDENTIALS

if TYPE_CHECKING:
    from distributed import Client


@contextlib.contextmanager
def lent(client: Client) -> Iterator[None]:
    """Every worker, also one that joins meanwhile, knows the credentials of this process's URLs; then no longer."""
    known = os.environ.get(CREDENTIALS)
    if not known:
        yield
        return
    name = f"recsys_dask-credentials-{secrets.token_hex(8)}"
    client.register_plugin(_lending(name, known), name)
    try:
        yield
    finally:
        if client.status == "running":
            with contextlib.suppress(Exception):
                client.unregister_worker_plugin(name)


def _lending(plugin_name: str, known: str) -> Any:
    from distributed import WorkerPlugin

    variable = CREDENTIALS

    class Lending(WorkerPlugin):
        """Defined here so that it is pickled with its code: a worker may lack the package, which is checked later."""

        name = plugin_name

        def setup(self, worker: Any) -> None:
            import os

            self.before = os.environ.get(variable)
            os.environ[variable] = known

        def teardown(self, worker: Any) -> None:
            import os

            os.environ.pop(variable, None)
            if self.before is not None:
                os.environ[variable] = self.before

    return Lending()
