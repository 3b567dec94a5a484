"""How often two items share a playlist: `pairs_<item>_<view>` and `pair_items_<item>_<view>`.

view:  each partition's rows -> playlists of distinct items of the view, kept on the workers (four bytes an entry)
chunk: some partitions, one range of items -> a counter
tree:  the counters of a range -> one; there are as many ranges as the memory asks for, and no task holds more
       than a range of the pairs
write: a range's counter -> one file of the table
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from recsys_dask import params
from recsys_dask.arrow import int32, int64, values
from recsys_dask.cooccurrence.chunk import BYTES_PER_PAIR, Counter, count_pairs, most_pairs
from recsys_dask.cooccurrence.combine import combine, totals
from recsys_dask.cooccurrence.view import Diagonal, Playlists, add_diagonals, clean, diagonal, joined
from recsys_dask.runtime.clusters import SPLIT_EVERY, Cluster, tree
from recsys_dask.store import tables
from recsys_dask.store.files import Folder
from recsys_dask.store.manifest import FileEntry, StageReport, TableEntry
from recsys_dask.store.tables import Store

BYTES_PER_ROW = 24
"""Of a counting task, for each of its playlists' items: the item, its place and its owner, and copies."""

TABLE_BYTES_PER_PAIR = 48
"""Of a writing task: the table's columns, and what is being written."""

VIEW_MARGIN = 1.5
BASE_BYTES = 40_000_000
"""A partition of `rows` being read, and what else does not grow with the pairs."""

MOST_RANGES = 2_000


@dataclass(frozen=True)
class Plan:
    """How a count is cut: groups of partitions, and ranges of items given by their bounds."""

    groups: int
    bounds: tuple[int, ...]

    @property
    def spans(self) -> list[tuple[int, int]]:
        return list(zip(self.bounds, self.bounds[1:], strict=False))


def pairs(
    cluster: Cluster,
    store: Store,
    options: params.Pairs,
    view: str,
    token: str,
    plan: Plan | None = None,
) -> tuple[dict[str, TableEntry], StageReport]:
    """Both tables of one view. `plan` overrides the one that the memory asks for."""
    from dask import delayed

    item, folder, weighted = options.item, store.folder, view == "full"
    with cluster.measured() as so_far:
        items = Items(
            folder, tuple(_item_paths(store, item, view)), item, view, _threshold(store, options), options.min_playlists
        )
        codes = delayed(view_items)(items, dask_key_name=f"view_items-{token}")
        partitions = cluster.persist(pair_rows(store, options, items, token))
        diagonals = [
            delayed(_diagonal)(one, items, dask_key_name=f"diagonal-{number}-{token}")
            for number, one in enumerate(partitions)
        ]
        whole = tree(diagonals, add_diagonals, f"add_diagonals-{token}")
        known, codes = cluster.compute(f"{view} view", [whole, codes])
        plan = plan or _plan(cluster, known, len(partitions), weighted)
        projected = cluster.budget.projected(task_bytes(plan, known, weighted) + view_bytes(known, cluster.n_threads))
        work = [
            delayed(write_range)(counted, items, number, token, dask_key_name=f"write-{number}-{token}")
            for number, counted in enumerate(pair_counts(partitions, plan, len(codes), weighted, token))
        ]
        written = cluster.compute(f"{view} pairs", work, lambda one: one[0].rows, "pairs")
        pair_total = np.sum([sums for _, sums in written], 0) if written else np.zeros(len(codes), np.int64)
        files = [file for file, _ in written]
        entry = _write_items(folder, f"pair_items_{item}_{view}", codes, known, pair_total, weighted, token)
        del partitions, diagonals, whole
        seconds, peak = so_far()
    report = StageReport(
        sum(file.rows for file in files),
        sum(file.bytes for file in files) + entry.bytes,
        len(files),
        seconds,
        peak,
        projected,
        facts={"playlists": known.playlists, "items": len(codes)},
    )
    return {
        f"pairs_{item}_{view}": TableEntry(files),
        f"pair_items_{item}_{view}": TableEntry([entry]),
    }, report


# ------------------------------------------------------------------------------------------------------------ view


def _threshold(store: Store, options: params.Pairs) -> int:
    """Mentions that an item of the `article` view must exceed."""
    if options.mentions_over is not None:
        return options.mentions_over
    return options.mentions_per_million * store.entry("playlists").rows // 1_000_000


def _item_paths(store: Store, item: str, view: str) -> list[str]:
    name = f"{item}s" if item == "track" and view == "full" else f"popular_{item}"
    return [file.path for file in store.entry(name).files]


class Items(NamedTuple):
    """Which items a view has, in words: the files of a vocabulary or of its top, and the thresholds."""

    folder: Folder
    paths: tuple[str, ...]
    item: str
    view: str
    mentions_over: int
    min_playlists: int


@lru_cache(maxsize=2)
def view_items(items: Items) -> NDArray[np.int32]:
    """The codes of a view's items, rising, int32 (N,), read once a worker. Article: popular ones of enough mentions.
    Full: popular artists; tracks in enough playlists."""
    folder, paths, item, view, mentions_over, min_playlists = items
    found = []
    for path in paths:
        table = tables.read_file(folder, path, [item, "n_mentions", "n_playlists"])
        codes = values(table[item])
        if view == "article":
            codes = codes[values(table["n_mentions"]) > mentions_over]
        elif item == "track":
            codes = codes[values(table["n_playlists"]) >= min_playlists]
        found.append(codes)
    return np.sort(np.concatenate(found)).astype(np.int32)


def pair_rows(store: Store, options: params.Pairs, items: Items, token: str) -> list[Any]:
    """The lift: each partition's playlists of a view as delayed objects."""
    from dask import delayed

    both = zip(store.entry("playlists").files, store.entry("rows").files, strict=True)
    return [
        delayed(view_partition)(playlists.path, rows.path, options, items, dask_key_name=f"view-{number}-{token}")
        for number, (playlists, rows) in enumerate(both)
    ]


def view_partition(playlists: str, rows: str, options: params.Pairs, items: Items) -> Playlists:
    """The task: one partition of `rows`, cleaned."""
    lists = tables.read_file(items.folder, playlists, ["num_tracks", "n_entries"])
    codes = values(tables.read_file(items.folder, rows, [options.item])[options.item])
    n_entries = values(lists["n_entries"])
    if items.view == "full":
        return clean(codes, n_entries, np.ones(len(n_entries), bool), view_items(items))
    keep = values(lists["num_tracks"]) > options.min_tracks
    return clean(codes, n_entries, keep, view_items(items), (options.rows_low, options.rows_high))


def _diagonal(playlists: Playlists, items: Items) -> Diagonal:
    return diagonal(playlists, len(view_items(items)))


# ----------------------------------------------------------------------------------------------------------- count


def _plan(cluster: Cluster, known: Diagonal, n_partitions: int, weighted: bool) -> Plan:
    """Few groups, since adding counters up costs more than counting; as many ranges as fit, of equal work.

    Raises `BudgetError` where even one item's pairs do not fit.
    """
    spare = cluster.budget.spare_bytes - view_bytes(known, cluster.n_threads) - BASE_BYTES
    n_items = len(known.emissions)
    most = most_pairs(known.emissions, n_items)
    groups = min(n_partitions, max(1, -(-rows_bytes(known, 1) // max(spare // 2, 1))))
    pair_bytes = bytes_per_pair(groups, weighted)
    room = (spare - rows_bytes(known, groups)) // pair_bytes
    fewer = ", or have fewer items (--top, --min-playlists)"
    if int(most.max(initial=0)) > room:
        cluster.budget.check(
            f"pairs: {int(most.max()):,} of one item", cluster.budget.spare_bytes + int(most.max()) * pair_bytes, fewer
        )
    n_ranges = max(min(cluster.n_threads, n_items), -(-int(most.sum()) // max(room, 1)), 1)
    if n_ranges > MOST_RANGES:
        cluster.budget.check(
            f"pairs: up to {int(most.sum()):,} in {n_ranges:,} ranges of items",
            int(most.sum()) * pair_bytes // MOST_RANGES + cluster.budget.spare_bytes,
            fewer,
        )
    return Plan(groups, _bounds(most, known.emissions, room, n_ranges))


def view_bytes(known: Diagonal, n_threads: int) -> int:
    """What the kept playlists take of a worker, for each of its threads: shared out, with some unevenness."""
    return int((known.n_playlists.sum() * 4 + known.playlists * 8) * VIEW_MARGIN / n_threads)


def rows_bytes(known: Diagonal, groups: int) -> int:
    """What a group's playlists take in a counting task."""
    return int(known.n_playlists.sum()) * BYTES_PER_ROW // groups


def bytes_per_pair(groups: int, weighted: bool) -> int:
    """Memory a pair: a node of the tree holds its inputs, those laid end to end, and their sum; then the table."""
    copies = 1 if groups == 1 else 2 * min(groups, SPLIT_EVERY) + 1
    return BYTES_PER_PAIR[weighted] * copies + TABLE_BYTES_PER_PAIR


def task_bytes(plan: Plan, known: Diagonal, weighted: bool) -> int:
    """What the largest task of a plan needs at most."""
    most = most_pairs(known.emissions, len(known.emissions))
    before = np.concatenate([[0], np.cumsum(most)])
    largest = max((int(before[high] - before[low]) for low, high in plan.spans), default=0)
    return largest * bytes_per_pair(plan.groups, weighted) + rows_bytes(known, plan.groups) + BASE_BYTES


def _bounds(most: NDArray[np.int64], emissions: NDArray[np.int64], room: int, n_ranges: int) -> tuple[int, ...]:
    """Ranges of about equal work, none with more pairs than `room`."""
    fair = max(1, -(-int(emissions.sum()) // n_ranges))
    bounds, held, worked = [0], 0, 0
    for item, (pairs_, work) in enumerate(zip(most.tolist(), emissions.tolist(), strict=True)):
        if item > bounds[-1] and (held + pairs_ > room or worked + work / 2 > fair):
            bounds.append(item)
            held = worked = 0
        held, worked = held + pairs_, worked + work
    return (*bounds, len(most))


def pair_counts(partitions: Sequence[Any], plan: Plan, n_items: int, weighted: bool, token: str) -> list[Any]:
    """The lift: the counters of a plan's ranges as delayed objects, each the root of a tree of its own."""
    from dask import delayed

    groups = np.array_split(np.arange(len(partitions)), plan.groups)
    roots = []
    for number, span in enumerate(plan.spans):
        chunks = [
            delayed(count_group)(
                [partitions[place] for place in group], n_items, span, weighted,
                dask_key_name=f"count-{number}-{at}-{token}",
            )
            for at, group in enumerate(groups)
        ]  # fmt: skip
        roots.append(tree(chunks, partial(combine, n_items=n_items), f"combine-{number}-{token}"))
    return roots


def count_group(partitions: list[Playlists], n_items: int, span: tuple[int, int], weighted: bool) -> Counter:
    """The task: the pairs of a range of items in some partitions."""
    return count_pairs(joined(partitions), n_items, span, weighted)


# ----------------------------------------------------------------------------------------------------------- write


def write_range(counter: Counter, items: Items, number: int, token: str) -> tuple[FileEntry, NDArray[np.int64]]:
    """The task: one file of the pairs, and what it adds to each item's total."""
    import pyarrow as pa

    codes = view_items(items)
    lengths = np.diff(counter.starts)
    columns = {
        "item1": int32(np.repeat(codes[counter.low : counter.low + len(lengths)], lengths)),
        "item2": int32(codes[counter.other]),
        "n_playlists": int64(counter.n_playlists),
    }
    if items.view == "full":
        columns |= {"weight": int64(counter.weights[:, 0]), "idf_weight": int64(counter.weights[:, 1])}
    table = pa.table(columns)
    entry = tables.write_part(
        items.folder, f"pairs_{items.item}_{items.view}", token, number, table, **tables.NO_DICTIONARY
    )
    return entry, totals(counter, len(codes))


def _write_items(
    folder: Folder,
    name: str,
    codes: NDArray[np.int32],
    known: Diagonal,
    pair_total: NDArray[np.int64],
    weighted: bool,
    token: str,
) -> FileEntry:
    import pyarrow as pa

    columns = {"item": int32(codes), "n_playlists": int64(known.n_playlists), "pair_total": int64(pair_total)}
    if weighted:
        columns |= {"weight": int64(known.weights[:, 0]), "idf_weight": int64(known.weights[:, 1])}
    return tables.write_part(folder, name, token, 0, pa.table(columns), compression="zstd")
