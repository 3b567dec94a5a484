"""Playlists that nearly repeat an earlier one, by their distinct artists: `near_duplicates`.

The lists are read by a task a partition; the join goes from the lowest pid to the highest, in one process.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from recsys_dask import params
from recsys_dask.arrow import float64, int64, values
from recsys_dask.errors import BudgetError
from recsys_dask.holdout.lists import Lists, distinct, joined
from recsys_dask.holdout.near_duplicates import near_duplicates as join
from recsys_dask.runtime.clusters import Cluster
from recsys_dask.store import tables
from recsys_dask.store.files import Folder
from recsys_dask.store.manifest import StageReport, TableEntry
from recsys_dask.store.tables import Store

NAME = "near_duplicates"
READ_BYTES_PER_ROW = 60
"""Of a partition, while its entries are sorted."""

JOIN_BYTES_PER_ROW = 50
"""Of all rows, in the process that joins: the lists twice, as ranks, and the postings of their prefixes."""

BASE_BYTES = 20_000_000

Part = tuple[NDArray[np.int64], Lists]
"""The pids of some playlists, (n,) int64, and the distinct artists of each."""


def near_duplicates(
    cluster: Cluster, store: Store, options: params.NearDuplicates, token: str
) -> tuple[dict[str, TableEntry], StageReport]:
    """The table `near_duplicates`: of two playlists of which one nearly repeats the other, that of the lower pid stays.

    Raises `BudgetError` where the playlists do not fit the memory.
    """
    import pyarrow as pa
    from dask import delayed

    both = list(zip(store.entry("playlists").files, store.entry("rows").files, strict=True))
    reading = READ_BYTES_PER_ROW * max((rows.rows for _, rows in both), default=0) + BASE_BYTES
    projected = cluster.budget.check("near duplicates", reading, "")
    joining = JOIN_BYTES_PER_ROW * store.entry("rows").rows
    _fits(joining)
    with cluster.measured() as so_far:
        parts = [
            delayed(artists_of)(store.folder, lists.path, rows.path, dask_key_name=f"artists-{number}-{token}")
            for number, (lists, rows) in enumerate(both)
        ]
        pid, of, jaccard, n = cluster.alone("near duplicates", joined_by_pid, parts, options.near_limit, where="client")
        table = pa.table({"pid": int64(pid), "of": int64(of), "jaccard": float64(jaccard)})
        entry = tables.write_part(store.folder, NAME, token, 0, table, compression="zstd")
        seconds, peak = so_far()
    facts = {"playlists": n, "near_duplicates": entry.rows}
    report = StageReport(entry.rows, entry.bytes, 1, seconds, peak, projected + joining, facts)
    return {NAME: TableEntry([entry])}, report


def artists_of(folder: Folder, playlists: str, rows: str) -> Part:
    """The task: the playlists of a partition."""
    lists = tables.read_file(folder, playlists, ["pid", "n_entries"])
    codes = values(tables.read_file(folder, rows, ["artist"])["artist"])
    return values(lists["pid"]), distinct(codes, values(lists["n_entries"]))


def joined_by_pid(
    parts: list[Part], limit: float, tell: Callable[[str], None]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64], int]:
    """The pids of near-duplicates, rising, those of the playlists that they repeat, their Jaccard; and how many
    playlists were looked at."""
    pid = np.concatenate([np.zeros(0, np.int64), *(pid for pid, _ in parts)])
    lists = joined([lists for _, lists in parts])
    if (pid[1:] < pid[:-1]).any():  # of slices that were appended
        order = np.argsort(pid)
        pid, lists = pid[order], lists.take(order)
    found = join(lists, limit)
    near = np.flatnonzero(found.of >= 0)
    return pid[near], pid[found.of[near]], found.jaccard[near], len(pid)


def _fits(needed: int) -> None:
    import psutil

    free = psutil.virtual_memory().available
    if needed > free:
        raise BudgetError(
            f"near duplicates: the artists of all playlists need {needed / 1e6:,.0f} MB in one process, and "
            f"{free / 1e6:,.0f} MB are free: use a machine of more memory, or --files for fewer slices"
        )
