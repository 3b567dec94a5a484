"""How this package compiles: one numba decorator, one cache a user and version, compiled before workers start.

Numba stores what it compiles. Two processes that fill one cache at once have crashed, and a half-written index
raises `EOFError` for ever after; so a cache is filled by one process and thrown away when it cannot be read.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib
import itertools
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import recsys_dask

VARIABLE = "NUMBA_CACHE_DIR"

MODULES = (
    "recsys_dask.formats.coding",
    "recsys_dask.formats.gathering",
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
"""Where kernels are; each module has a `warm()` that runs its own with the types that the stages use."""

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
    for name in sorted(["recsys_dask.kernels", *INLINED, *MODULES]):
        seen.update(package.joinpath(*name.split(".")[1:]).with_suffix(".py").read_bytes())
    python = f"py{sys.version_info.major}.{sys.version_info.minor}"
    return base / f"numba-{recsys_dask.__version__}-{python}-{seen.hexdigest()}"


def kernel(function: Callable[..., Any] | None = None, **options: Any) -> Callable[..., Any]:
    """`function` compiled by numba at its first call, without the interpreter's lock, and kept for the next process.

    options: more of `numba.njit`'s, as in `@kernel(error_model="numpy")`
    """
    if function is None:
        return functools.partial(kernel, **options)
    import numba

    config: Any = numba.config
    others = config.CACHE_DIR
    config.CACHE_DIR = str(cache_folder())
    try:
        return numba.njit(cache=True, nogil=True, **options)(function)
    finally:
        config.CACHE_DIR = others


def float_kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """A `kernel` whose sums may be taken in another order, and so in vectors; a NaN stays one, 1 / 0 is infinite."""
    return kernel(function, fastmath={"reassoc", "contract", "arcp", "nsz"}, error_model="numpy")


def stamp() -> Path:
    """The file that says that everything is compiled, for this processor and for this installation: numba's cache
    tells files apart by path and time, though another one has the same text."""
    package = Path(recsys_dask.__file__).parent
    files = [package.joinpath(*name.split(".")[1:]).with_suffix(".py") for name in MODULES]
    seen = _processor() + "".join(f"{path}{path.stat().st_mtime_ns}" for path in files)
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
    """Run every kernel once on next to nothing. A cache that cannot be read is thrown away first."""
    try:
        load()
    except Exception:
        for folder in cache_folder().glob("*/"):  # numba's; the lock file stays
            shutil.rmtree(folder, ignore_errors=True)
        load()
    stamp().parent.mkdir(parents=True, exist_ok=True)
    stamp().touch()


def load(*parts: str) -> None:
    """Have kernels ready in this process, those of some parts of the package or all: from the cache where they are
    compiled, which takes half a second."""
    for name in MODULES:
        if not parts or name.split(".")[1] in parts:
            importlib.import_module(name).warm()


if __name__ == "__main__":
    compile_all()
