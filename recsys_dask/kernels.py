"""How this package compiles: one numba decorator, one cache a user and version, compiled before workers start.

Numba stores what it compiles. Two processes that fill one cache at once have crashed, and a half-written index
raises `EOFError` for ever after; so a cache is filled by one process and thrown away when it cannot be read.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import recsys_dask

VARIABLE = "NUMBA_CACHE_DIR"

MODULES = (
    "recsys_dask.formats.coding",
    "recsys_dask.formats.splitting",
    "recsys_dask.formats.vocabulary",
    "recsys_dask.cooccurrence.view",
    "recsys_dask.cooccurrence.chunk",
    "recsys_dask.cooccurrence.combine",
    "recsys_dask.cooccurrence.best",
)
"""Where kernels are; each module has a `warm()` that runs its own with the types that the stages use."""


def cache_folder() -> Path:
    """Where compiled kernels live: the user's own `NUMBA_CACHE_DIR`, else a folder of this version and Python."""
    if os.environ.get(VARIABLE):
        return Path(os.environ[VARIABLE])
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    python = f"py{sys.version_info.major}.{sys.version_info.minor}"
    return Path(home) / "recsys_dask" / f"numba-{recsys_dask.__version__}-{python}"


def kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` compiled by numba at its first call, without the interpreter's lock, and kept for the next process."""
    os.environ.setdefault(VARIABLE, str(cache_folder()))
    import numba

    numba.config.CACHE_DIR = os.environ[VARIABLE]  # type: ignore[attr-defined]
    return numba.njit(cache=True, nogil=True)(function)


def stamp() -> Path:
    """The file that says that everything is compiled for the sources as they are now."""
    sources = sorted(Path(recsys_dask.__file__).parent.glob("*/*.py"))
    seen = "".join(f"{path.name}{path.stat().st_mtime_ns}{path.stat().st_size}" for path in sources)
    return cache_folder() / f"compiled-{hashlib.blake2b(seen.encode(), digest_size=8).hexdigest()}"


def compile_all() -> None:
    """Run every kernel once on next to nothing. A cache that cannot be read is thrown away first."""
    try:
        _run_once()
    except Exception:
        shutil.rmtree(cache_folder(), ignore_errors=True)
        _run_once()
    stamp().parent.mkdir(parents=True, exist_ok=True)
    stamp().touch()


def _run_once() -> None:
    for name in MODULES:
        importlib.import_module(name).warm()


if __name__ == "__main__":
    compile_all()
