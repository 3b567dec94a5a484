"""Arrow files for what one task writes and others read soon: no encoding, and locally no copy either.

Writing takes a third of the time of Parquet, and a batch of a local file is memory-mapped: it costs what is used of it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from recsys_dask.arrow import whole
from recsys_dask.errors import StoreError
from recsys_dask.store.files import Folder, os_errors, reason

if TYPE_CHECKING:
    import pyarrow as pa


def write(folder: Folder, path: str, tables: Sequence[pa.Table | pa.RecordBatch]) -> None:
    """One or more tables of one schema as the batches of one file, put in place whole."""
    import pyarrow as pa

    batches = [table if isinstance(table, pa.RecordBatch) else one_batch(table) for table in tables]
    schema = batches[0].schema
    # Of its final length at once: a buffer that grows, or many small writes, would take as long again.
    n_bytes = sum(map(pa.ipc.get_record_batch_size, batches)) + 2 * schema.serialize().size + 64 * len(batches) + 1024
    whole_file = pa.allocate_buffer(n_bytes)
    with pa.FixedSizeBufferWriter(whole_file) as sink:
        with pa.ipc.new_file(sink, schema) as writer:
            for batch in batches:
                writer.write_batch(batch)
        n_bytes = sink.tell()
    folder.write(path, memoryview(whole_file)[:n_bytes])


def one_batch(table: pa.Table) -> pa.RecordBatch:
    """A table in one piece."""
    import pyarrow as pa

    return pa.record_batch([whole(column) for column in table.columns], schema=table.schema)


@contextlib.contextmanager
def opened(folder: Folder, path: str) -> Iterator[Any]:
    """A `pyarrow.ipc.RecordBatchFileReader`. The batches of a local file hold its memory map as long as they live.

    Raises `StoreError` naming the file for one that is missing or cut short.
    """
    import pyarrow as pa

    try:
        with os_errors(), contextlib.ExitStack() as closing:
            if folder.is_local:
                source = pa.memory_map(folder.path(path))
            else:
                # Small batches come with one request; the default would fetch 50 MB beyond what is asked for.
                source = closing.enter_context(folder.fs.open(folder.path(path), "rb", block_size=1 << 20))
            yield pa.ipc.open_file(source)
    except (pa.ArrowException, OSError) as error:
        why = "is missing" if isinstance(error, FileNotFoundError) else f"cannot be read ({reason(error).rstrip('.')})"
        raise StoreError(f"{folder.full(path)}: {why}; remove {folder.full('scratch')}, then run again") from None


def read(folder: Folder, path: str, number: int = 0) -> pa.RecordBatch:
    """One batch of a file."""
    with opened(folder, path) as file:
        return file.get_batch(number)
