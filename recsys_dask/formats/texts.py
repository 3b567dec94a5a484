"""Files as JSON texts in memory: whole where they fit a part, else cut between playlists; zero bytes behind each."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import IO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from recsys_dask.errors import Fault
from recsys_dask.formats.direct import aligned, read_past_the_cache
from recsys_dask.formats.inputs import local_path, open_plain
from recsys_dask.formats.splitting import Around, Twice, segments

PAD = 64
"""Zero bytes behind a text, so that readers need not look for its end at every byte."""

TWO_LISTS = "the root object has `playlists` twice"

_PACKED_STEP = 1 << 20
"""gzip makes a copy of what it is asked for."""


class Text(NamedTuple):
    """JSON in the first `size` bytes of `padded`, which is used again for the next one.

    file: its place among the paths; whole: all of the file; else a list of playlists or, if `around`, all the rest of
    the file. moved: a place in the text, and how many bytes of the file are missing there.
    """

    file: int
    padded: NDArray[np.uint8]
    size: int
    whole: bool
    around: bool = False
    moved: tuple[int, int] = (0, 0)

    @property
    def data(self) -> memoryview:
        """The text without its padding."""
        return self.padded.data[: self.size]


class Wrong(Exception):
    """A fault on its way to the caller; `file` is its place among the paths that are read."""

    def __init__(self, file: int, where: str, message: str):
        self.file, self.where, self.message = file, where, message

    def fault(self, paths: Sequence[str]) -> Fault:
        return Fault(paths[self.file], self.where, self.message)


class Texts:
    """The texts of some files, in a `with`. What the page cache lacks is fetched while the file before is worked on."""

    def __init__(self, paths: Sequence[str], part_bytes: int):
        self._paths, self._part_bytes = paths, part_bytes
        self._plain = [None if path.endswith(".gz") else local_path(path) for path in paths]
        # Two, in turn. Memory that no file needs is not taken from the system. numpy asks for huge pages: to get a
        # slice's worth of small ones takes as long as to scan it.
        self._buffers = [aligned(part_bytes + 1 + PAD) for _ in range(min(len(paths), 2))]
        self._thread = ThreadPoolExecutor(1)
        self._fetched: dict[int, Future[int | None]] = {}

    def __enter__(self) -> Texts:
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown()

    def of(self, file: int) -> Iterator[Text]:
        """The texts of a file: of each, in turn, from the first on. Raises `Wrong` where it cannot be read or has two
        lists of playlists."""
        path, buffer, part_bytes = self._paths[file], self._buffer(file), self._part_bytes
        try:
            size = self._fetched.pop(file).result() if file in self._fetched else self._fetch(file)
            if file + 1 < len(self._paths) and self._plain[file + 1]:
                self._fetched[file + 1] = self._thread.submit(self._fetch, file + 1)
            if size is not None:
                buffer[size : size + PAD] = 0
                yield Text(file, buffer, size, whole=True)
                return
            with open_plain(path) as stream:
                size = _fill(buffer, stream, part_bytes + 1, _PACKED_STEP if path.endswith(".gz") else part_bytes + 1)
                if size <= part_bytes:
                    yield Text(file, buffer, size, whole=True)
                    return
                for found in segments(stream, buffer[:size].tobytes(), part_bytes):
                    if isinstance(found, Around):
                        moved = (found.moved_at, found.moved)
                        yield Text(file, _padded(found.text), len(found.text), False, around=True, moved=moved)
                    else:
                        size = len(found.text) + 2
                        yield Text(file, _padded(b"[", found.text, b"]"), size, False, moved=(0, found.start - 1))
        except Twice:
            raise Wrong(file, "", TWO_LISTS) from None
        except EOFError:
            raise Wrong(file, "", "the compressed file ends early") from None
        except (OSError, zlib.error) as error:
            raise Wrong(file, "", f"cannot be read: {getattr(error, 'strerror', None) or error}") from None

    def _buffer(self, file: int) -> NDArray[np.uint8]:
        return self._buffers[file % 2]

    def _fetch(self, file: int) -> int | None:
        """Read a file past the page cache, where that can be done: its size."""
        path = self._plain[file]
        return read_past_the_cache(path, self._buffer(file), self._part_bytes) if path else None


def _fill(buffer: NDArray[np.uint8], stream: IO[bytes], most: int, step: int) -> int:
    """Read up to `most` bytes, `step` of them at a time: how many there were."""
    size = 0
    while size < most:
        n = stream.readinto(buffer.data[size : min(most, size + step)])  # type: ignore[attr-defined]
        if not n:
            break
        size += n
    buffer[size : size + PAD] = 0
    return size


def _padded(*pieces: bytes) -> NDArray[np.uint8]:
    return np.concatenate([np.frombuffer(piece, np.uint8) for piece in (*pieces, bytes(PAD))])
