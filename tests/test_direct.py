"""Files read past the page cache: the same bytes, or left to the ordinary way."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from recsys_dask.errors import Fault
from recsys_dask.formats import direct, mpd

SIZES = (1, 4_095, 4_096, 4_097, 1_000_000)


def uncached(path: Path, content: bytes) -> Path:
    """A file that is on the disk only, as far as the system goes along."""
    path.write_bytes(content)
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return path


@pytest.mark.parametrize("size", SIZES)
def test_the_bytes_are_those_of_the_file(tmp_path: Path, size: int) -> None:
    content = np.random.default_rng(size).bytes(size)
    path = uncached(tmp_path / "file", content)
    buffer = direct.aligned(size)
    assert buffer.ctypes.data % direct.BLOCK == 0
    n = direct.read_past_the_cache(str(path), buffer, size)
    if n is None:
        pytest.skip("this file system keeps what it is told to forget, or reads through its cache only")
    assert n == size and buffer[:size].tobytes() == content


@pytest.mark.parametrize("case", ["cached", "too large", "empty", "in memory"])
def test_what_is_left_to_the_ordinary_way(tmp_path: Path, case: str) -> None:
    content = bytes(10_000)
    buffer = direct.aligned(10_000)
    path, most = tmp_path / "file", 10_000
    if case == "cached":
        path.write_bytes(content)
        path.read_bytes()
    elif case == "too large":
        uncached(path, content)
        most = 9_999
    elif case == "empty":
        uncached(path, b"")
    else:  # a file system that lives in the cache
        if not os.access("/dev/shm", os.W_OK):
            pytest.skip("no /dev/shm")
        path = Path(f"/dev/shm/recsys_dask-{os.getpid()}")
        uncached(path, content)
    try:
        assert direct.read_past_the_cache(str(path), buffer, most) is None
    finally:
        path.unlink()


def test_a_file_that_is_not_there() -> None:
    with pytest.raises(FileNotFoundError):
        direct.read_past_the_cache("/nowhere/at/all", direct.aligned(1), 1)


def test_a_fault_of_a_file_fetched_ahead_is_its_own(tmp_path: Path) -> None:
    """The second of three files is gone: it is named, and the others are read."""
    text = b'{"playlists":[{"pid":%d,"num_tracks":0,"tracks":[]}]}'
    paths = [str(uncached(tmp_path / f"{pid}.json", text % pid)) for pid in range(3)]
    os.unlink(paths[1])
    found = list(mpd.read(paths, 10_000))
    (fault,) = [one for one in found if isinstance(one, Fault)]
    assert fault.file == paths[1] and "No such file" in fault.message
    (part,) = [one for one in found if not isinstance(one, Fault)]
    assert part.playlists["pid"].to_pylist() == [0, 2]
