"""Before work on a cluster that we did not start: are the scheduler and every worker fit, those that join later too?

The client checks the workers that are there by `client.run`, whose results are data, and registers a plugin that
checks the others as they join. Plugin and probe files are gone when the work is done; nothing else was changed.
"""

from __future__ import annotations

import contextlib
import secrets
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import recsys_dask
from recsys_dask.errors import ClusterError
from recsys_dask.runtime.clusters import workers_of
from recsys_dask.runtime.progress import Progress

if TYPE_CHECKING:
    from distributed import Client

STRICT = ("dask", "distributed", "pyarrow")
"""Packages of which major and minor version must be the client's: what they send to each other changes with these."""

PRESENT = ("fsspec", "msgspec", "numba", "numpy")


class Writable(Protocol):
    """What a probe is written to: `store.files.Folder` is one."""

    def full(self, name: str) -> str: ...
    def write(self, name: str, data: bytes) -> Any: ...
    def remove(self, *names: str) -> None: ...


@dataclass(frozen=True)
class Reach:
    """What workers must get at, by what it is called in messages: files to read, and folders to write to."""

    reads: Mapping[str, str] = field(default_factory=dict)
    writes: Mapping[str, Writable] = field(default_factory=dict)


@contextlib.contextmanager
def fit_workers(client: Client, reach: Reach, progress: Progress) -> Iterator[None]:
    """Check every worker, compile kernels where they are not, and hold the check up for workers that join meanwhile.

    Raises `ClusterError` with a line for each machine that is unfit. Leaves the cluster as it was.
    """
    from recsys_dask.runtime.fitness import Fitness, redacted

    token = secrets.token_hex(8)
    name = f"recsys_dask-preflight-{token}"
    with contextlib.ExitStack() as undo:
        # In the folder itself, since an ingest clears its scratch while later workers still look for the probe.
        probe, text = f".probe-{token}", secrets.token_hex(16)
        for folder in reach.writes.values():
            undo.callback(_quietly, folder.remove, probe)
            folder.write(probe, text.encode())
        wanted = {
            **software(),
            "reads": dict(reach.reads),
            "writes": {what: (redacted(folder.full("")), probe, text) for what, folder in reach.writes.items()},
        }
        known = sorted(workers_of(client))
        undo.callback(_unregister, client, name)
        client.register_plugin(Fitness(name, wanted, known, client.id), name)
        _raise(_scheduler_faults(client, wanted) | _worker_faults(client, wanted, known))
        _raise(_compile(client, known, progress))
        yield


def software() -> dict[str, Any]:
    """What the client runs on, for the others to compare with; plain data."""
    from recsys_dask.runtime.fitness import sources_of, version_of

    return {
        "package": recsys_dask.__version__,
        "sources": sources_of(recsys_dask),
        "python": f"{sys.version_info[0]}.{sys.version_info[1]}",
        "versions": {name: version_of(name) for name in (*STRICT, *PRESENT)},
        "strict": STRICT,
    }


def _scheduler_faults(client: Client, wanted: dict[str, Any]) -> dict[str, list[str]]:
    """The scheduler reads graphs, which name our functions: it needs the package as well."""
    from recsys_dask.runtime.fitness import Shipped

    address = f"scheduler {client.scheduler.address}"  # type: ignore[union-attr]
    try:
        return {address: client.run_on_scheduler(Shipped("version_faults"), wanted)}
    except Exception as error:
        return {address: [_no_answer(error)]}


def _worker_faults(client: Client, wanted: dict[str, Any], known: list[str]) -> dict[str, list[str]]:
    from recsys_dask.runtime.fitness import Shipped

    answers = client.run(Shipped("faults_here"), wanted, workers=known, on_error="return")
    return _by_worker(client, known, answers)


def _compile(client: Client, known: list[str], progress: Progress) -> dict[str, list[str]]:
    """Numba's cache is filled by one process a machine before any task needs it."""
    from recsys_dask.runtime.fitness import compile_kernels

    if not all(client.run(_compiled, workers=known, on_error="ignore").values()):
        progress.say("compiling kernels on the workers, once a machine for this version")
    return _by_worker(client, known, client.run(compile_kernels, workers=known, on_error="return"))


def _compiled() -> bool:
    from recsys_dask import kernels

    return kernels.stamp().exists()


def _by_worker(client: Client, known: list[str], answers: Mapping[str, Any]) -> dict[str, list[str]]:
    """What workers answered, as lists of faults; one that left in the meantime has none."""
    faults: dict[str, list[str]] = {}
    silent = {address for address in known if isinstance(answers.get(address), BaseException)}
    there = set(workers_of(client)) if silent else set()
    for address, answer in answers.items():
        if address in silent:
            faults[address] = [_no_answer(answer)] if address in there else []
        else:
            faults[address] = [answer] if isinstance(answer, str) and answer else list(answer)
    return faults


def _no_answer(error: BaseException) -> str:
    from recsys_dask.runtime.fitness import redacted

    text = redacted(" ".join(str(error).split()))
    return f"cannot be checked: {type(error).__name__}: {text} (look at its log)"


def _raise(faults: Mapping[str, list[str]]) -> None:
    lines = [f"{address}: {'; '.join(found)}" for address, found in sorted(faults.items()) if found]
    if lines:
        raise ClusterError("\n".join(lines))


def _unregister(client: Client, name: str) -> None:
    """Take the plugin off scheduler and workers, as far as there still is a connection."""
    if client.status == "running":
        _quietly(client.unregister_worker_plugin, name)


def _quietly(undo: Any, *arguments: Any) -> None:
    """Undo something without hiding the error that led here."""
    with contextlib.suppress(Exception):
        undo(*arguments)
