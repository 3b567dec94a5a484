"""What a reader delivers: parts, each with codes of its own, that the ingest merges."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from recsys_dask.errors import Fault

if TYPE_CHECKING:
    import pyarrow as pa


class Part(NamedTuple):
    """Some whole playlists as four Arrow tables; artists and tracks go by their row in this part's own tables.

    files: the paths that the playlists came from
    playlists: as in the store, by pid, and `file` (int32), the place of its path in `files`
    rows: pid, pos, artist, track, by pid and pos
    artists: id, name, n_mentions, n_playlists, first_pid
    tracks: id, name, artist_id, album_id, duration_ms, n_mentions, n_playlists, first_pid
    The other attributes of an artist or track are those of its first entry by (pid, pos); `first_pid` is its pid.
    """

    files: tuple[str, ...]
    playlists: pa.Table
    rows: pa.Table
    artists: pa.Table
    tracks: pa.Table


Reader = Callable[[Sequence[str], int], Iterator[Part | Fault]]
"""`reader(paths, part_bytes)`: the playlists of some files, in parts of about `part_bytes` of input.

A file that is wrong is wrong as a whole and gives a `Fault`. Files that fit share a part; a larger one has parts of
its own, and if its fault comes after some of them, those are void.
"""


def int32(values: NDArray[np.integer]) -> pa.Array:
    """An Arrow array over numbers. (`pa.array` imports pandas at its first call, which takes 0.4 s a process.)"""
    return _numbers(values, np.int32)


def int64(values: NDArray[np.integer]) -> pa.Array:
    return _numbers(values, np.int64)


def float64(values: NDArray[np.floating]) -> pa.Array:
    return _numbers(values, np.float64)


def _numbers(values: NDArray[Any], dtype: type) -> pa.Array:
    import pyarrow as pa

    data: NDArray[Any] = np.ascontiguousarray(values, dtype)
    kind = pa.from_numpy_dtype(data.dtype)
    return pa.Array.from_buffers(kind, len(data), [None, pa.py_buffer(data)])


def bools(values: NDArray[np.bool_], valid: NDArray[np.bool_] | None = None) -> pa.Array:
    import pyarrow as pa

    return pa.Array.from_buffers(pa.bool_(), len(values), [_bitmap(valid), _bits(values)])


def fixed(raw: NDArray[np.uint8], valid: NDArray[np.bool_] | None = None) -> pa.Array:
    """Texts of one length, `raw` (n, length) of bytes, as an Arrow string array."""
    import pyarrow as pa

    n, length = raw.shape
    offsets = np.arange(n + 1, dtype=np.int32) * np.int32(length)
    data = pa.py_buffer(np.ascontiguousarray(raw))
    return pa.Array.from_buffers(pa.string(), n, [_bitmap(valid), pa.py_buffer(offsets), data])


def texts(values: Sequence[str | None]) -> pa.Array:
    """Texts, or None, as an Arrow string array."""
    import pyarrow as pa

    valid = np.fromiter((value is not None for value in values), np.bool_, len(values))
    plain = [value or "" for value in values]
    joined = "".join(plain)
    if not joined.isascii():
        plain = [value.encode() for value in plain]  # type: ignore[misc]
    offsets = np.zeros(len(plain) + 1, np.int32)
    np.cumsum(np.fromiter(map(len, plain), np.int32, len(plain)), out=offsets[1:])
    buffers = [_bitmap(valid), pa.py_buffer(offsets), pa.py_buffer(joined.encode())]
    return pa.Array.from_buffers(pa.string(), len(plain), buffers)


def optional(values: Sequence[int | None]) -> pa.Array:
    """Integers, or None, as an Arrow int64 array."""
    import pyarrow as pa

    valid = np.fromiter((value is not None for value in values), np.bool_, len(values))
    data = np.fromiter((value or 0 for value in values), np.int64, len(values))
    return pa.Array.from_buffers(pa.int64(), len(data), [_bitmap(valid), pa.py_buffer(data)])


def _bits(values: NDArray[np.bool_]) -> pa.Buffer:
    import pyarrow as pa

    return pa.py_buffer(np.packbits(values, bitorder="little"))


def _bitmap(valid: NDArray[np.bool_] | None) -> pa.Buffer | None:
    """Arrow's validity bitmap; none at all where everything is valid."""
    return None if valid is None or valid.all() else _bits(valid)
