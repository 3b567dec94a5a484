"""What playlists of a title hold: `titles_<item>`, for playlists of which nothing but the title is known.

count: a partition's playlists -> playlists of each title that hold each item, in buckets by title
best:  each bucket added up, the best items of each title kept; the buckets' tables in the titles' order
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from recsys_dask.arrow import aligned, bools, int32, int64, values
from recsys_dask.recommending.inputs import place_of
from recsys_dask.recommending.titles import normalised
from recsys_dask.runtime.clusters import Cluster, tree
from recsys_dask.store import tables
from recsys_dask.store.files import Folder
from recsys_dask.store.manifest import StageReport, TableEntry
from recsys_dask.store.tables import Store

if TYPE_CHECKING:
    import pyarrow as pa

BUCKETS = 16
LEAST_PLAYLISTS = 2
"""Of a title, to say anything."""

BEST = 500
"""Items kept a title: as many as a playlist of the challenge is to be given."""

BYTES_PER_ROW, BASE_BYTES = 200, 30_000_000
ROW_GROUP = 1 << 14


def titles(cluster: Cluster, store: Store, item: str, token: str) -> tuple[dict[str, TableEntry], StageReport]:
    """The table `titles_<item>`. Raises `BudgetError`."""
    import pyarrow as pa
    from dask import delayed

    both = list(zip(store.entry("playlists").files, store.entry("rows").files, strict=True))
    items = store.entry(f"pair_items_{item}_full").files[0].path
    largest = max((rows.rows for _, rows in both), default=0)
    projected = cluster.budget.check("titles", BYTES_PER_ROW * largest + BASE_BYTES, "")
    with cluster.measured() as so_far:
        counted = [
            delayed(count_titles)(store.folder, one.path, rows.path, item, items, dask_key_name=f"count-{n}-{token}")
            for n, (one, rows) in enumerate(both)
        ]
        best = [
            delayed(best_of)(
                tree(
                    [delayed(bucket_of)(one, number, dask_key_name=f"pick-{number}-{n}-{token}")
                     for n, one in enumerate(counted)],
                    added,
                    f"added-{number}-{token}",
                ),
                dask_key_name=f"best-{number}-{token}",
            )
            for number in range(BUCKETS)
        ]  # fmt: skip
        found = cluster.compute("titles", best, lambda table: table.num_rows, "rows")
        table = pa.concat_tables(found).sort_by(
            [("title", "ascending"), ("n_playlists", "descending"), ("item", "ascending")]
        )
        name = f"titles_{item}"
        file = tables.write_part(store.folder, name, token, 0, table, compression="zstd", row_group=ROW_GROUP)
        seconds, peak = so_far()
    return {name: TableEntry([file])}, StageReport(file.rows, file.bytes, 1, seconds, peak, projected)


def count_titles(folder: Folder, playlists: str, rows: str, item: str, items: str) -> list[pa.Table]:
    """The task: title, item, n_playlists of a partition, a table a bucket; item −1: all playlists of the title."""
    import zlib

    lists = tables.read_file(folder, playlists, ["name", "n_entries"])
    names = [normalised(name or "") for name in lists["name"].to_pylist()]
    distinct = sorted(set(names) - {""})
    place = {name: at for at, name in enumerate(distinct)}
    title = np.array([place.get(name, -1) for name in names], np.int64)
    known = values(tables.read_file(folder, items, ["item"])["item"])
    codes = values(tables.read_file(folder, rows, [item])[item])
    of_row = np.repeat(title, values(lists["n_entries"]))
    holder = np.repeat(np.arange(len(names)), values(lists["n_entries"]))
    kept = (of_row >= 0) & (place_of(known, codes) >= 0)
    pairs = np.unique(holder[kept] << 32 | codes[kept])
    held, n_held = np.unique(title[pairs >> 32] << 32 | (pairs & 0xFFFFFFFF), return_counts=True)
    every = np.bincount(title[title >= 0], minlength=len(distinct))
    at = np.concatenate([np.arange(len(distinct)), held >> 32])
    code = np.concatenate([np.full(len(distinct), -1), held & 0xFFFFFFFF])
    n = np.concatenate([every, n_held])
    bucket = np.array([zlib.crc32(name.encode()) % BUCKETS for name in distinct], np.int64)[at]
    return [_table(distinct, at[mine], code[mine], n[mine]) for mine in (bucket == b for b in range(BUCKETS))]


def _table(distinct: list[str], at: NDArray[Any], code: NDArray[Any], n: NDArray[Any]) -> pa.Table:
    import pyarrow as pa

    title = pa.array(distinct, pa.string()).take(int64(at))
    return pa.table({"title": title, "item": int32(code), "n_playlists": int64(n)})


def bucket_of(counted: list[pa.Table], number: int) -> pa.Table:
    """The task: one bucket of a partition."""
    return counted[number]


def added(parts: list[pa.Table]) -> pa.Table:
    """A node of the tree: several partitions' counts as one."""
    import pyarrow as pa

    table = aligned(pa.concat_tables(parts)).group_by(["title", "item"]).aggregate([("n_playlists", "sum")])
    return table.select(["title", "item", "n_playlists_sum"]).rename_columns(["title", "item", "n_playlists"])


def best_of(table: pa.Table) -> pa.Table:
    """The task: the best items of the titles of several playlists."""
    import pyarrow as pa
    import pyarrow.compute as pc

    every = table.filter(pc.less(table["item"], 0))
    often = every.filter(pc.greater_equal(every["n_playlists"], LEAST_PLAYLISTS))["title"]
    table = table.filter(pc.and_(pc.greater_equal(table["item"], 0), pc.is_in(table["title"], often.combine_chunks())))
    table = table.sort_by([("title", "ascending"), ("n_playlists", "descending"), ("item", "ascending")])
    if not table.num_rows:
        return table
    codes = table["title"].combine_chunks().dictionary_encode()
    number = values(codes.indices)
    first = np.flatnonzero(np.diff(number, prepend=-1))
    rank = np.arange(len(number)) - np.repeat(first, np.diff([*first.tolist(), len(number)]))
    return pa.table(table.filter(bools(rank < BEST)))
