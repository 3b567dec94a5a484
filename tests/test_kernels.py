"""Kept kernels: damaged files heal by themselves, whoever meets them and whenever."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from recsys_dask import kernels
from recsys_dask.kernel_files import KernelFiles

USE = """
import numpy as np
from recsys_dask import sums
matrix, starts, items = np.eye(3, dtype=np.float32), np.array([0, 2, 3]), np.array([0, 2, 1], np.int32)
assert sums.row_sums(matrix, starts, items).tolist() == [[1, 0, 1], [0, 1, 0]]
stats = sums.sum_rows.stats
print(sum(stats.cache_hits.values()), sum(stats.cache_misses.values()))
"""
"""One kernel is used; from the cache, or compiled?"""

FROM_CACHE, COMPILED = "1 0", "0 1"


def use(home: Path) -> str:
    environment = {**os.environ, kernels.VARIABLE: str(home)}
    done = subprocess.run([sys.executable, "-c", USE], capture_output=True, text=True, env=environment)
    assert not done.returncode, done.stderr
    return done.stdout.strip()


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def garbage(path: Path) -> None:
    path.write_bytes(bytes(range(256)) * 40)


def altered(path: Path) -> None:
    """A byte of the machine code: read as it is, it would end the process."""
    text = bytearray(path.read_bytes())
    text[len(text) // 2] ^= 255
    path.write_bytes(bytes(text))


def unreadable(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)  # a loop: root can read everything else


DAMAGES: tuple[Callable[[Path], Any], ...] = (cut, empty, garbage, altered, unreadable, Path.unlink)


def test_damaged_kernels_are_compiled_again(tmp_path: Path) -> None:
    assert use(tmp_path) == COMPILED and use(tmp_path) == FROM_CACHE
    for damage in DAMAGES:
        (file,) = tmp_path.rglob("sums.sum_rows-*.nbc")
        damage(file)
        assert use(tmp_path) == COMPILED, damage.__name__
        assert use(tmp_path) == FROM_CACHE, damage.__name__
    assert not list(tmp_path.rglob("*.tmp"))


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_counts_as_none(damage: Callable[[Path], Any], tmp_path: Path) -> None:
    files = KernelFiles(str(tmp_path), "kernel", ("source", 1))
    files.save("int64", {"code": b"\x90" * 100})
    files.save("float64", {"code": b"\x91" * 100})
    damage(files._path("int64"))
    assert files.load("int64") is None
    assert files.load("float64") == {"code": b"\x91" * 100}
    files.save("int64", {"code": b"\x90"})
    assert files.load("int64") == {"code": b"\x90"}


def test_every_length_of_a_file_that_was_cut_short(tmp_path: Path) -> None:
    files = KernelFiles(str(tmp_path), "kernel", "source")
    files.save("key", "data")
    path = files._path("key")
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        assert files.load("key") is None
    path.write_bytes(whole)
    assert files.load("key") == "data"


def test_of_another_source_or_signature(tmp_path: Path) -> None:
    one, other = (KernelFiles(str(tmp_path), "kernel", source) for source in ("source", "another"))
    one.save("key", "data")
    assert other.load("key") is None and one.load("no key") is None
    os.replace(one._path("key"), one._path("no key"))
    assert one.load("no key") is None
    one.flush()
    assert not list(tmp_path.iterdir())


def test_where_nothing_can_be_written(tmp_path: Path) -> None:
    files = KernelFiles(str(tmp_path / "none"), "kernel", "source")
    files.save("key", "data")
    assert files.load("key") is None


def test_killed_half_way(tmp_path: Path) -> None:
    """Some files are there, no stamp: what is whole is used, the rest compiled."""
    environment = {**os.environ, kernels.VARIABLE: str(tmp_path)}
    command = [sys.executable, "-m", "recsys_dask.kernels"]
    with subprocess.Popen(command, env=environment, start_new_session=True, stderr=subprocess.DEVNULL) as compiling:
        limit = time.monotonic() + 60
        while not list(tmp_path.rglob("*.nbc")) and time.monotonic() < limit:
            time.sleep(0.01)
        os.killpg(compiling.pid, signal.SIGKILL)
    assert list(tmp_path.rglob("*.nbc")) and not list(tmp_path.rglob("compiled-*"))
    assert use(tmp_path) in (COMPILED, FROM_CACHE) and use(tmp_path) == FROM_CACHE
