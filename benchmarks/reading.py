"""How fast the same files can be read at all: from the disk, and from the page cache."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor


def forget(paths: Sequence[str]) -> None:
    """Have the system drop the files from its page cache."""
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)  # what is not on the disk yet would stay
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


def read_seconds(paths: Sequence[str], threads: int) -> float:
    """Wall seconds of reading all files and doing nothing with them; each thread reads whole files."""
    started = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(_read, [paths[number::threads] for number in range(threads)]))
    return time.perf_counter() - started


def _read(paths: Sequence[str]) -> None:
    buffer = bytearray(1 << 24)
    for path in paths:
        with open(path, "rb", buffering=0) as file:
            while file.readinto(buffer):
                pass


def speeds(paths: Sequence[str], threads: int) -> str:
    """Both speeds in a line."""
    size = sum(os.path.getsize(path) for path in paths)
    forget(paths)
    disk = read_seconds(paths, threads)
    cache = min(read_seconds(paths, threads) for _ in range(3))
    return (
        f"Reading the same bytes alone, {threads} threads: {disk:.2f} s from the disk ({size / disk / 1e6:,.0f} MB/s), "
        f"{cache:.2f} s from the page cache ({size / cache / 1e6:,.0f} MB/s)."
    )
