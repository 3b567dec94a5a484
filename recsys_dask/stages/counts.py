"""The most mentioned artists and tracks: `popular_artist` and `popular_track`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from recsys_dask import params
from recsys_dask.arrow import int64, values
from recsys_dask.formats.vocabulary import keys, order, words_for
from recsys_dask.runtime.clusters import Cluster
from recsys_dask.store import tables
from recsys_dask.store.files import Folder
from recsys_dask.store.manifest import FileEntry, StageReport, TableEntry
from recsys_dask.store.tables import Store

if TYPE_CHECKING:
    import pyarrow as pa


BYTES_PER_ROW = 400
"""Of a vocabulary's rows while its top is found: the table, its keys and the result."""

BASE_BYTES = 20_000_000
VOCABULARY_ROWS = 1 << 18
"""As the ingest writes them."""


def counts(
    cluster: Cluster, store: Store, options: params.Counts, token: str
) -> tuple[dict[str, TableEntry], StageReport]:
    """The top of both vocabularies by mentions, ties by id."""
    from dask import delayed

    largest = max(file.rows for item in params.ITEMS for file in store.entry(f"{item}s").files)
    projected = cluster.budget.check("counts", task_bytes(largest, options.top), ", or a lower --top")
    with cluster.measured() as so_far:
        work = [
            delayed(write_popular)(
                store.folder, item, [file.path for file in store.entry(f"{item}s").files], options.top, token,
                dask_key_name=f"popular-{item}-{token}",
            )
            for item in params.ITEMS
        ]  # fmt: skip
        files = cluster.compute("counts", work, lambda file: file.rows, "items")
        seconds, peak = so_far()
    entries = {f"popular_{item}": TableEntry([file]) for item, file in zip(params.ITEMS, files, strict=True)}
    report = StageReport(
        sum(file.rows for file in files), sum(file.bytes for file in files), len(files), seconds, peak, projected
    )
    return entries, report


def task_bytes(largest: int, top: int) -> int:
    """What a task needs: a file of the vocabulary (at most `VOCABULARY_ROWS` rows) and twice the top."""
    return (min(largest, VOCABULARY_ROWS) + 2 * top) * BYTES_PER_ROW + BASE_BYTES


def write_popular(folder: Folder, item: str, paths: list[str], top: int, token: str) -> FileEntry:
    """The task: the `top` most mentioned of a vocabulary, read a file at a time."""
    import pyarrow as pa

    best: pa.Table | None = None
    for path in paths:
        table = tables.read_file(folder, path)
        if best is not None:
            table = pa.concat_tables([best, table])
        ids = table[f"{item}_id"]
        best = table.take(int64(order(keys(ids, words_for(ids)), values(table["n_mentions"]))[:top]))
    return tables.write_part(folder, f"popular_{item}", token, 0, best, compression="zstd")
