"""What workers and the scheduler answer before a run: do they have what it takes?

This module travels as its own source text (`Shipped`): the machine that it is to check may lack the package, or run
another Python, on which pickled bytecode crashes. So it imports nothing but the standard library, distributed and
fsspec, and is written for older Pythons too. Faults are returned, never raised: Dask prints a traceback for those.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import inspect
import logging
import pickle
import re
import secrets
import sys
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

from distributed.core import Status
from distributed.diagnostics.plugin import WorkerPlugin

log = logging.getLogger("distributed.worker")

PATIENCE_S = 60
"""How long the input and the store may take to answer."""


def redacted(text: str) -> str:
    """A URL, or a message with URLs, fit to be printed: without users, passwords, queries and signatures."""
    return re.sub(r"\?\S*", "", re.sub(r"://[^/\s]*@", "://", text)) if "://" in text else text


class Shipped:
    """A name of this module that is pickled as source text and unpickled as the function or object itself.

    args: what it is called with on arrival, plain data; none: it is not called.
    """

    def __init__(self, name: str, *args: Any) -> None:
        self.name, self.args = name, args

    def __reduce__(self) -> tuple[Any, ...]:
        source = inspect.getsource(sys.modules[__name__])
        call = f"(*{self.args!r})" if self.args else ""
        text = f"(lambda space: (exec({source!r}, space), space[{self.name!r}]{call})[1])({{'__name__': {__name__!r}}})"
        return eval, (text,)


class Text:
    """An expression that is pickled as text and unpickled as its value."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __reduce__(self) -> tuple[Any, ...]:
        return eval, (self.text,)


# ------------------------------------------------------------------------------------------------------- the checks


def version_faults(wanted: dict[str, Any]) -> list[str]:
    """What a machine lacks of the client's software. wanted: what `preflight.software` says of the client."""
    faults = []
    here, package = f"{sys.version_info[0]}.{sys.version_info[1]}", wanted["package"]
    if here != wanted["python"]:
        faults.append(f"runs Python {here}, the client {wanted['python']} (take the same)")
    try:
        import recsys_dask

        found = recsys_dask.__version__
        if found != package:
            faults.append(f"has recsys_dask {found}, the client {package} (install the client's wheel)")
        elif sources_of(recsys_dask) != wanted["sources"]:
            faults.append(f"has a recsys_dask {found} of other sources than the client's (install the client's wheel)")
    except Exception:
        faults.append(f"lacks recsys_dask {package} (install the client's wheel)")
    for name, version in wanted["versions"].items():
        found = version_of(name)
        if found is None:
            faults.append(f"lacks {name} (install {version})")
        elif name in wanted["strict"] and found.split(".")[:2] != version.split(".")[:2]:
            faults.append(f"has {name} {found}, the client {version} (install the same)")
    return faults


def sources_of(package: Any) -> str:
    """A hash of a package's Python files: two builds of one version may differ."""
    root = Path(package.__file__).parent
    digest = hashlib.blake2b(digest_size=8)
    for path in sorted(root.glob("**/*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()


def version_of(name: str) -> Any:
    """The installed version of a package, or None."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        pass
    try:
        return import_module(name).__version__
    except Exception:
        return None


def reach_faults(wanted: dict[str, Any], as_package: bool) -> list[str]:
    """What a machine cannot read or write. wanted: reads, of what -> URL; writes, of what -> (folder, probe, its text).

    The client wrote the probe: who cannot read it there has another folder, or none, at the same path. as_package:
    open places as the stages do; else, where the package is missing, by fsspec alone.
    """
    package = "recsys_dask.store.files" if as_package else "fsspec.core"
    filesystem = getattr(import_module(package), "filesystem" if as_package else "url_to_fs")

    faults = []
    mount = "mount it there at the same path, or name it by a URL that all workers reach"
    for what, url in wanted["reads"].items():
        try:
            fs, path = filesystem(url)
            with fs.open(path, "rb") as file:
                file.read(1)
        except Exception as error:
            faults.append(f"cannot read the {what} {redacted(url)}: {reason(error)} ({mount})")
    for what, (url, probe, text) in wanted["writes"].items():
        does, advice = "does not see", mount
        try:
            fs, path = filesystem(url)
            fs.invalidate_cache()
            place = f"{path.rstrip('/')}/{probe}"
            if fs.cat_file(place) != text.encode():
                raise OSError("it has other files there than the client")
            does, advice = "cannot write to", "give the worker's user the right to write and remove files there"
            own = f"{place}-{secrets.token_hex(4)}"
            fs.pipe_file(own, b"")
            fs.rm_file(own)
        except Exception as error:
            faults.append(f"{does} the {what} {redacted(url)}: {reason(error)} ({advice})")
    return faults


def reason(error: BaseException) -> str:
    """An error in one line."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return redacted(text.splitlines()[0])


async def faults_here(wanted: dict[str, Any]) -> list[str]:
    """All that is wrong with the machine that this runs on, within `PATIENCE_S` and beside its other work."""
    faults = version_faults(wanted)
    try:
        found = await asyncio.wait_for(asyncio.to_thread(reach_faults, wanted, not faults), PATIENCE_S)
    except asyncio.TimeoutError:  # noqa: UP041, another error before Python 3.11
        found = [f"has had no answer from the input or the store for {PATIENCE_S} s (look at its network)"]
    except Exception as error:
        found = [f"cannot be checked: {reason(error)} (look at its log)"]
    return faults + found


async def compile_kernels() -> str:
    """Compile once a machine, beside the worker's other work; returns what went wrong, or nothing."""
    from recsys_dask import kernels

    return await asyncio.to_thread(kernels.compile_once)


# ------------------------------------------------------------------------------------------------------- the plugin


class Fitness(WorkerPlugin):
    """Checks the workers that join while it is registered; one that is unfit leaves before it is given any work.

    name: of the plugin. wanted: what the checks need. known: addresses of the workers that the client checks itself.
    client: the id of the Dask client. A client that was killed leaves its plugin behind; the next worker removes it.
    """

    def __init__(self, name: str, wanted: dict[str, Any], known: list[str], client: str) -> None:
        self.name, self.wanted, self.known, self.client = name, wanted, known, client

    def __reduce__(self) -> tuple[Any, ...]:
        return Shipped("Fitness", self.name, self.wanted, self.known, self.client).__reduce__()

    async def setup(self, worker: Any) -> None:
        """Called before a joining worker starts to work. A worker that is paused is given no tasks."""
        if worker.address in self.known:
            return
        worker.status = Status.paused
        if not await self.has_client(worker):
            worker.loop.add_callback(worker.scheduler.unregister_worker_plugin, name=self.name)
            worker.status = Status.running
            return
        faults = await faults_here(self.wanted)
        if not faults:
            faults = [fault for fault in [await compile_kernels()] if fault]
        if not faults:
            worker.status = Status.running
            return
        log.error("recsys_dask: %s cannot take part in the run and stops: it %s", worker.address, "; it ".join(faults))
        worker.status = Status.closing_gracefully
        worker.loop.add_callback(self.leave, worker)

    async def has_client(self, worker: Any) -> bool:
        """Whether the client that started the run is still connected to the scheduler."""
        asked = Text(f"lambda dask_scheduler: {self.client!r} in dask_scheduler.clients")
        try:
            answer = await worker.scheduler.run_function(
                function=pickle.dumps(asked), args=pickle.dumps(()), kwargs=pickle.dumps({})
            )
            return bool(answer["status"] != "OK" or answer["result"])
        except Exception:
            return True

    async def leave(self, worker: Any) -> None:
        """Go in good order: what it was given is done elsewhere, and its nanny does not start it again."""
        with contextlib.suppress(Exception):
            await worker.scheduler.retire_workers(
                workers=[worker.address], close_workers=False, remove=True, stimulus_id="recsys_dask-unfit"
            )
        await worker.close(nanny=True, reason="recsys_dask-unfit")
