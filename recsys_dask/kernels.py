"""How this package compiles: one numba decorator, one cache a user and version, compiled before workers start.

What is compiled is kept in files that are whole or count as none (`kernel_files`): a process that meets a damaged one
compiles that kernel again, whatever was compiled before.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib
import itertools
import multiprocessing
import os
import platform
import subprocess
import sys
import threading
import types
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import recsys_dask
from recsys_dask.cores import cores

VARIABLE = "NUMBA_CACHE_DIR"

MODULES = (
    "recsys_dask.formats.coding",
    "recsys_dask.formats.gathering",
    "recsys_dask.formats.scanner",
    "recsys_dask.formats.splitting",
    "recsys_dask.formats.vocabulary",
    "recsys_dask.cooccurrence.view",
    "recsys_dask.cooccurrence.chunk",
    "recsys_dask.cooccurrence.combine",
    "recsys_dask.cooccurrence.best",
    "recsys_dask.nearest.exact",
    "recsys_dask.training.negatives",
    "recsys_dask.training.row_adam",
    "recsys_dask.training.dot",
    "recsys_dask.models.gram",
    "recsys_dask.models.solving",
    "recsys_dask.sums",
    "recsys_dask.training.playlists",
    "recsys_dask.training.sigmoid",
    "recsys_dask.holdout.near_duplicates",
)
"""Where kernels are; each module, or package, has a `warm()` that runs its own with the types that the stages use."""

MOST_COMPILERS = 4
"""Processes that compile: half the work is in four modules."""

INLINED = ("recsys_dask.formats.copying", "recsys_dask.training.prefetch")
"""What those kernels have inside them, and no kernel of its own."""


@functools.cache
def cache_folder() -> Path:
    """Where compiled kernels live, below the user's `NUMBA_CACHE_DIR` or cache folder: one of these very sources and
    this Python. (numba does not notice that a kernel changed which a kernel of another file calls.)"""
    home = os.environ.get(VARIABLE)
    base = Path(home) if home else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "recsys_dask"
    package = Path(recsys_dask.__file__).parent
    seen = hashlib.blake2b(digest_size=6)
    for path in _sources(package):
        seen.update(path.read_bytes())
    python = f"py{sys.version_info.major}.{sys.version_info.minor}"
    return base / f"numba-{recsys_dask.__version__}-{python}-{seen.hexdigest()}"


def _sources(package: Path) -> list[Path]:
    """The files that kernels are in, and those that say how they are kept."""
    found = [Path(__file__), package / "kernel_files.py"]
    for name in (*MODULES, *INLINED):
        place = package.joinpath(*name.split(".")[1:])
        found += place.glob("*.py") if place.is_dir() else [place.with_suffix(".py")]
    return sorted(found)


def kernel(function: Callable[..., Any] | None = None, **options: Any) -> Callable[..., Any]:
    """`function` compiled by numba at its first call, without the interpreter's lock, and kept for the next process.

    options: more of `numba.njit`'s, as in `@kernel(error_model="numpy")`
    """
    if function is None:
        return functools.partial(kernel, **options)
    numba = _numba()
    from recsys_dask.kernel_files import KernelCache

    made = numba.njit(nogil=True, **options)(function)
    config: Any = numba.config
    others = config.CACHE_DIR
    config.CACHE_DIR = str(cache_folder())
    try:
        if made is not function:  # NUMBA_DISABLE_JIT
            made._cache = KernelCache(function)
    finally:
        config.CACHE_DIR = others
    return made


@functools.cache
def _numba() -> Any:
    """numba, which imports scipy.linalg to learn that it is there: a quarter of a second, though no kernel of ours asks
    for linear algebra. Meanwhile an empty module stands for it; code that does ask gets the real one."""
    named = "scipy.linalg.cython_blas"
    alone = threading.current_thread() is threading.main_thread()  # in a worker others may import it at this moment
    if alone and named not in sys.modules:
        sys.modules[named] = types.ModuleType(named)
        try:
            importlib.import_module("numba.np.arraymath")
        finally:
            del sys.modules[named]
    return importlib.import_module("numba")


def float_kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """A `kernel` whose sums may be taken in another order, and so in vectors; a NaN stays one, 1 / 0 is infinite."""
    return kernel(function, fastmath={"reassoc", "contract", "arcp", "nsz"}, error_model="numpy")


def stamp() -> Path:
    """The file that says that everything is compiled, for this processor and for this installation: numba's cache
    tells files apart by path and time, though another one has the same text."""
    package = Path(recsys_dask.__file__).parent
    seen = _processor() + "".join(f"{path}{path.stat().st_mtime_ns}" for path in _sources(package))
    return cache_folder() / f"compiled-{hashlib.blake2b(seen.encode(), digest_size=8).hexdigest()}"


def _processor() -> str:
    """What numba compiles for: machines that share a home folder may differ in it."""
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
        first = itertools.takewhile(str.strip, file)
        return "".join(line for line in first if line.startswith(("model name", "flags", "CPU part", "Features")))
    return platform.machine() + platform.processor()


def compile_once() -> str:
    """Have everything compiled by a process of its own, unless that is done; other processes of the machine wait.

    Returns what went wrong, or nothing: a worker's faults travel as data.
    """
    import fcntl

    folder = cache_folder()
    try:
        if stamp().exists():
            return ""
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # until the file is closed
            if stamp().exists():
                return ""
            # The modules that this process finds, in the order in which it does: -P, nothing of the working folder.
            place = {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
            done = subprocess.run(
                [sys.executable, "-P", "-m", "recsys_dask.kernels"],
                env={**os.environ, **place},
                capture_output=True,
                text=True,
            )
    except OSError as error:
        return f"no kernels can be kept in {folder} ({error.strerror}): set {VARIABLE} to a folder that may be written"
    if done.returncode:
        return f"compiling kernels into {folder} failed: {''.join(done.stderr.strip().splitlines()[-1:])}"
    return ""


def compile_all() -> None:
    """Run every kernel once on next to nothing, a module a process at a time on several cores."""
    processes = min(cores(), MOST_COMPILERS)
    if processes == 1:
        load()
    else:
        with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
            list(pool.map(_warm, MODULES))
    stamp().parent.mkdir(parents=True, exist_ok=True)
    stamp().touch()


def _warm(name: str) -> None:
    importlib.import_module(name).warm()


def load(*parts: str) -> None:
    """Have kernels ready in this process, those of some parts of the package or all: from the cache where they are
    compiled, which takes half a second."""
    for name in MODULES:
        if not parts or name.split(".")[1] in parts:
            _warm(name)


if __name__ == "__main__":
    compile_all()
