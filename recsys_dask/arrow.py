"""Between numpy and Arrow, buffer to buffer.

`pa.array`, `to_numpy` of a column and their like import pandas at their first call, which takes longer than reading a
slice; these do not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pyarrow as pa


def whole(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    """A column in one piece."""
    import pyarrow as pa

    if not isinstance(column, pa.ChunkedArray):
        return column
    if column.num_chunks == 1:
        return column.chunk(0)
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.nulls(0, column.type)


def aligned(table: pa.Table) -> pa.Table:
    """The same table in memory of its own. That of one which came from another process may begin at an odd address,
    about which Arrow's joins and groupings complain on stderr."""
    import pyarrow as pa

    return pa.concat_tables([table, table.slice(0, 0)]).combine_chunks()  # a copy: of two chunks


def values(column: pa.Array | pa.ChunkedArray) -> NDArray[Any]:
    """A numeric column without nulls as a numpy array, read-only."""
    column = whole(column)
    dtype = np.dtype(column.type.to_pandas_dtype())
    data = column.buffers()[1]
    if data is None:
        return np.zeros(0, dtype)
    return np.frombuffer(data, dtype)[column.offset : column.offset + len(column)]


def columns(table: pa.Table | pa.RecordBatch) -> dict[str, NDArray[Any]]:
    """The numeric columns of a table by name, as `values`."""
    return {name: values(column) for name, column in zip(table.schema.names, table.columns, strict=True)}


def vectors(column: pa.ChunkedArray) -> NDArray[np.float32]:
    """A column of equally long vectors as (n, k) float32, read-only; (0, 0) for an empty one."""
    numbers: NDArray[np.float32] = values(column.combine_chunks().flatten())
    return numbers.reshape(len(column), len(numbers) // max(len(column), 1))


def int32(numbers: NDArray[np.integer]) -> pa.Array:
    """An Arrow array over numbers. (`pa.array` imports pandas at its first call, which takes 0.4 s a process.)"""
    return _numbers(numbers, np.int32)


def int64(values: NDArray[np.integer], valid: NDArray[np.bool_] | None = None) -> pa.Array:
    """As `int32`, of 64 bits; null where not `valid`."""
    return _numbers(values, np.int64, valid)


def float64(values: NDArray[np.floating]) -> pa.Array:
    """As `int32`, of floating-point numbers."""
    return _numbers(values, np.float64)


def float32(values: NDArray[np.floating]) -> pa.Array:
    """As `int32`, of short floating-point numbers."""
    return _numbers(values, np.float32)


def _numbers(values: NDArray[Any], dtype: type, valid: NDArray[np.bool_] | None = None) -> pa.Array:
    return numbers(np.ascontiguousarray(values, dtype), valid)


def numbers(values: NDArray[Any], valid: NDArray[np.bool_] | None = None) -> pa.Array:
    """An Arrow array over contiguous numbers, of their type; null where not `valid`."""
    import pyarrow as pa

    kind = pa.from_numpy_dtype(values.dtype)
    return pa.Array.from_buffers(kind, len(values), [_bitmap(valid), pa.py_buffer(values)])


def strings(offsets: NDArray[np.int32], data: NDArray[np.uint8], valid: NDArray[np.bool_] | None = None) -> pa.Array:
    """An Arrow string array over n + 1 offsets and the bytes; null where not `valid`."""
    import pyarrow as pa

    buffers = [_bitmap(valid), pa.py_buffer(offsets), pa.py_buffer(data)]
    return pa.Array.from_buffers(pa.string(), len(offsets) - 1, buffers)


def text_buffers(column: pa.Array) -> tuple[NDArray[np.int32], NDArray[np.uint8]]:
    """The n + 1 offsets of a string column in its bytes, and these."""
    _, offsets, data = column.buffers()
    text = np.zeros(0, np.uint8) if data is None else np.frombuffer(data, np.uint8)
    if not len(column):
        return np.zeros(1, np.int32), text
    return np.frombuffer(offsets, np.int32)[column.offset : column.offset + len(column) + 1], text


def valid_of(column: pa.Array) -> NDArray[np.bool_]:
    """Which values of a column are not null, (n,)."""
    bitmap = column.buffers()[0]
    if bitmap is None:
        return np.full(len(column), not column.null_count)
    bits = np.unpackbits(np.frombuffer(bitmap, np.uint8), bitorder="little")
    return bits[column.offset : column.offset + len(column)].astype(np.bool_)


def read_only(values: NDArray[Any]) -> NDArray[Any]:
    """A view that cannot be written: whether Arrow's buffers can be differs from place to place, and numba compiles a
    kernel for either kind."""
    view = values.view()
    view.flags.writeable = False
    return view


def bools(values: NDArray[np.bool_], valid: NDArray[np.bool_] | None = None) -> pa.Array:
    """An Arrow array over truth values; null where not `valid`."""
    import pyarrow as pa

    return pa.Array.from_buffers(pa.bool_(), len(values), [_bitmap(valid), _bits(values)])


def fixed(raw: NDArray[np.uint8], valid: NDArray[np.bool_] | None = None) -> pa.Array:
    """Texts of one length, `raw` (n, length) of bytes, as an Arrow string array."""
    n, length = raw.shape
    offsets = np.arange(n + 1, dtype=np.int32) * np.int32(length)
    return strings(offsets, np.ascontiguousarray(raw), valid)


def texts(values: Sequence[str | None]) -> pa.Array:
    """Texts, or None, as an Arrow string array."""
    import pyarrow as pa

    valid = _valid(values)
    plain: Sequence[Any] = values if valid is None else [value or "" for value in values]
    joined = "".join(plain)
    lengths = map(len, plain) if joined.isascii() else map(len, map(str.encode, plain))
    offsets = np.zeros(len(plain) + 1, np.int32)
    np.cumsum(np.fromiter(lengths, np.int32, len(plain)), out=offsets[1:])
    buffers = [_bitmap(valid), pa.py_buffer(offsets), pa.py_buffer(joined.encode())]
    return pa.Array.from_buffers(pa.string(), len(plain), buffers)


def optional(values: Sequence[int | None]) -> pa.Array:
    """Integers, or None, as an Arrow int64 array."""
    import pyarrow as pa

    valid = _valid(values)
    plain: Sequence[Any] = values if valid is None else [value or 0 for value in values]
    data = np.fromiter(plain, np.int64, len(plain))
    return pa.Array.from_buffers(pa.int64(), len(data), [_bitmap(valid), pa.py_buffer(data)])


def _valid(values: Sequence[Any]) -> NDArray[np.bool_] | None:
    """Which values are not None; nothing where all are."""
    if None not in values:
        return None
    return np.fromiter((value is not None for value in values), np.bool_, len(values))


def _bits(values: NDArray[np.bool_]) -> pa.Buffer:
    import pyarrow as pa

    return pa.py_buffer(np.packbits(values, bitorder="little"))


def _bitmap(valid: NDArray[np.bool_] | None) -> pa.Buffer | None:
    """Arrow's validity bitmap; none at all where everything is valid."""
    return None if valid is None or valid.all() else _bits(valid)
