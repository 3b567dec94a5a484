"""Rows of record batches put together in another order, each byte copied once.

As `take` of concatenated tables, which copies twice and imports `pyarrow.compute` (0.1 s a process).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recsys_dask.arrow import numbers, read_only, strings, text_buffers, valid_of, values
from recsys_dask.formats.copying import copy_bytes
from recsys_dask.kernels import kernel


class Rows(NamedTuple):
    """Some rows of a batch, and the rows of the result that they become, (m,) int64 each."""

    batch: pa.RecordBatch
    rows: NDArray[np.int64]
    to: NDArray[np.int64]


class Gathering:
    """A batch of n rows that is filled from others. `lengths`: of every string in it, by column, (n,) each."""

    def __init__(self, schema: pa.Schema, n: int, lengths: dict[str, NDArray[np.int32]]):
        self.schema = schema
        self._out: dict[str, NDArray[Any]] = {}
        self._offsets: dict[str, NDArray[np.int32]] = {}
        self._valid: dict[str, NDArray[np.bool_]] = {}
        for field in schema:
            if field.name in lengths:
                offsets = self._offsets[field.name] = np.zeros(n + 1, np.int32)
                np.cumsum(lengths[field.name], out=offsets[1:])
                self._out[field.name] = np.empty(offsets[-1], np.uint8)
            else:
                self._out[field.name] = np.empty(n, field.type.to_pandas_dtype())
        self._n = n

    def put(self, batch: pa.RecordBatch, rows: NDArray[np.int64], to: NDArray[np.int64]) -> None:
        """`rows` of a batch become the rows `to`."""
        for name, out in self._out.items():
            column = batch[name]
            if column.null_count:
                self._valid.setdefault(name, np.ones(self._n, np.bool_))[to] = valid_of(column)[rows]
            if name in self._offsets:
                offsets, data = text_buffers(column)
                _copy(read_only(offsets), read_only(data), rows, to, self._offsets[name], out)
            else:
                out[to] = values(column)[rows]

    def batch(self) -> pa.RecordBatch:
        """The result, once every row is put."""
        columns = []
        for name, out in self._out.items():
            valid = self._valid.get(name)
            offsets = self._offsets.get(name)
            columns.append(numbers(out, valid) if offsets is None else strings(offsets, out, valid))
        return pa.record_batch(columns, schema=self.schema)


def text_lengths(batch: pa.RecordBatch) -> dict[str, NDArray[np.int32]]:
    """The bytes of each string of a batch, by column."""
    return {
        field.name: np.diff(text_buffers(batch[field.name])[0])
        for field in batch.schema
        if field.type.equals(pa.string())
    }


def gathered(schema: pa.Schema, n: int, pieces: Callable[[], Iterable[Rows]]) -> pa.RecordBatch:
    """The columns of `schema`, which all batches have, of some rows of them: n together.

    pieces: called twice, so that no batch has to stay in memory
    """
    lengths: dict[str, NDArray[np.int32]] = {
        field.name: np.zeros(n, np.int32) for field in schema if field.type.equals(pa.string())
    }
    for piece in pieces():
        for name, found in text_lengths(piece.batch).items():
            if name in lengths:
                lengths[name][piece.to] = found[piece.rows]
    made = Gathering(schema, n, lengths)
    for piece in pieces():
        made.put(*piece)
    return made.batch()


@kernel
def _copy(offsets, data, rows, to, starts, out):  # type: ignore[no-untyped-def]
    """Strings `rows` of one column to the places `to` of another, which start at `starts`."""
    for k in range(len(rows)):
        at = np.int64(offsets[rows[k]])
        copy_bytes(out, np.int64(starts[to[k]]), data, at, offsets[rows[k] + 1] - at)


def warm() -> None:
    """Compile the kernel."""
    row = np.zeros(1, np.int64)
    some = pa.record_batch([strings(np.array([0, 1], np.int32), np.ones(1, np.uint8))], ["id"])
    gathered(some.schema, 1, lambda: [Rows(some, row, row)])
