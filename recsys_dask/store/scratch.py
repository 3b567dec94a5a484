"""Files for what one task writes and others read soon: Arrow streams of one batch, end to end.

Writing takes a third of the time of Parquet. Who knows where a piece starts has it with one request, or, of a local
file, with a memory map: it costs what is used of it.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

from recsys_dask.arrow import whole
from recsys_dask.errors import StoreError
from recsys_dask.store.files import Folder, os_errors, reason

if TYPE_CHECKING:
    import pyarrow as pa

ALIGNMENT = 64


def write(folder: Folder, path: str, tables: Sequence[pa.Table | pa.RecordBatch]) -> list[int]:
    """Tables of one schema as the pieces of one file, put in place whole. Returns where each starts, and the end."""
    import pyarrow as pa

    batches = [table if isinstance(table, pa.RecordBatch) else one_batch(table) for table in tables]
    schema = batches[0].schema
    # Of its final length at once: a buffer that grows, or many small writes, would take as long again.
    around = schema.serialize().size + 2 * ALIGNMENT
    made = pa.allocate_buffer(sum(pa.ipc.get_record_batch_size(batch) + around for batch in batches))
    cuts = [0]
    with pa.FixedSizeBufferWriter(made) as sink:
        for batch in batches:
            with pa.ipc.new_stream(sink, schema) as stream:
                stream.write_batch(batch)
            sink.write(bytes(-sink.tell() % ALIGNMENT))
            cuts.append(sink.tell())
    folder.write(path, memoryview(made)[: cuts[-1]])
    return cuts


def one_batch(table: pa.Table) -> pa.RecordBatch:
    """A table in one piece."""
    import pyarrow as pa

    return pa.record_batch([whole(column) for column in table.columns], schema=table.schema)


def read(folder: Folder, path: str, cuts: Sequence[int] | None = None, number: int = 0) -> pa.RecordBatch:
    """A piece of a file, with what `write` returned; without, the only one. Raises as `read_some`."""
    return read_some(folder, path, cuts or [0, 0], number, number + 1)[0]


def read_some(folder: Folder, path: str, cuts: Sequence[int], first: int, end: int) -> list[pa.RecordBatch]:
    """Pieces [first, end) of a file. Those of a local one hold its memory map as long as they live.

    Raises `StoreError` naming the file for one that is missing or cut short.
    """
    import pyarrow as pa

    try:
        with os_errors():
            if folder.is_local:
                with pa.memory_map(folder.path(path)) as file:
                    file.seek(cuts[first])
                    data = file.read_buffer(cuts[end] - cuts[first] or None)
            else:
                data = pa.py_buffer(folder.read(path, cuts[first], cuts[end] or None))
            starts = [cut - cuts[first] for cut in cuts[first : end + 1]]
            spans = [(start, (stop - start) or len(data)) for start, stop in itertools.pairwise(starts)]
            return [pa.ipc.open_stream(data.slice(*span)).read_next_batch() for span in spans]
    except (pa.ArrowException, OSError, StopIteration, EOFError) as error:
        why = "is missing" if isinstance(error, FileNotFoundError) else f"cannot be read ({reason(error).rstrip('.')})"
        raise StoreError(f"{folder.full(path)}: {why}; remove {folder.full('scratch')}, then run again") from None
