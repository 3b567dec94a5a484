"""The tasks of a count of pairs: a partition cleaned, a range counted, a file written; and those of an update."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recsys_dask import params
from recsys_dask.arrow import int32, int64, values
from recsys_dask.cooccurrence.chunk import Counter, count_pairs
from recsys_dask.cooccurrence.combine import combine, totals
from recsys_dask.cooccurrence.update import affected, cleaned_within, counter_of, negated
from recsys_dask.cooccurrence.view import N_WEIGHTS, Diagonal, Playlists, clean, diagonal, joined
from recsys_dask.store import tables
from recsys_dask.store.files import Folder
from recsys_dask.store.manifest import FileEntry


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


class Scope(NamedTuple):
    """What an update counts over: the items of the view before and now, and all of them; codes, rising, int32."""

    before: NDArray[np.int32]
    now: NDArray[np.int32]
    union: NDArray[np.int32]

    @property
    def moved(self) -> NDArray[np.int32]:
        """The items that came into the view or left it."""
        return np.setxor1d(self.before, self.now)


def _rows(
    playlists: str, rows: str, options: params.Pairs, items: Items
) -> tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.bool_], tuple[int, int] | None]:
    """A partition's item codes, its playlists' lengths, which of them the view takes, and its row range."""
    lists = tables.read_file(items.folder, playlists, ["num_tracks", "n_entries"])
    codes = values(tables.read_file(items.folder, rows, [options.item])[options.item])
    n_entries = values(lists["n_entries"])
    if items.view == "full":
        return codes, n_entries, np.ones(len(n_entries), bool), None
    return codes, n_entries, values(lists["num_tracks"]) > options.min_tracks, (options.rows_low, options.rows_high)


def view_partition(playlists: str, rows: str, options: params.Pairs, items: Items) -> Playlists:
    """The task: one partition of `rows`, cleaned."""
    codes, n_entries, keep, span = _rows(playlists, rows, options, items)
    return clean(codes, n_entries, keep, view_items(items), span)


def new_partition(playlists: str, rows: str, options: params.Pairs, items: Items, scope: Scope) -> Playlists:
    """The task of an update: one new partition, cleaned as the view is now, in places of the union."""
    codes, n_entries, keep, span = _rows(playlists, rows, options, items)
    return cleaned_within(codes, n_entries, keep, scope.now, scope.union, span)


def changed_partition(
    playlists: str, rows: str, options: params.Pairs, items: Items, scope: Scope
) -> tuple[Playlists, Playlists]:
    """The task of an update: the playlists of an old partition that hold an item that moved, as they were cleaned
    before and as they are now, in places of the union."""
    codes, n_entries, keep, span = _rows(playlists, rows, options, items)
    keep = keep & affected(codes, n_entries, scope.moved)
    before, now = (cleaned_within(codes, n_entries, keep, one, scope.union, span) for one in (scope.before, scope.now))
    return before, now


def diagonal_of(playlists: Playlists, n_items: int, n_view: int) -> Diagonal:
    """The task: what a partition's playlists say of each item."""
    return diagonal(playlists, n_items, n_view)


def count_group(
    partitions: list[Playlists], n_items: int, n_view: int, span: tuple[int, int], weighted: bool
) -> Counter:
    """The task: the pairs of a range of items in some partitions."""
    return count_pairs(joined(partitions), n_items, span, weighted, n_view)


def pair_lengths(folder: Folder, paths: list[str], scope: Scope) -> NDArray[np.int64]:
    """The task of an update: how many pairs each item of the union has with later ones, (items,) int64."""
    out = np.zeros(len(scope.union), np.int64)
    for path in paths:
        item1 = values(tables.read_file(folder, path, ["item1"])["item1"])
        out += np.bincount(np.searchsorted(scope.union, item1), minlength=len(out))
    return out


def add_to_earlier(folder: Folder, paths: list[str], added: Counter, removed: Counter | None, scope: Scope) -> Counter:
    """The task of an update: a range of the earlier pairs, and what came and went since."""
    low, high = added.low, added.low + len(added.starts) - 1
    first, last = (int(scope.union[low]), int(scope.union[high - 1])) if high > low else (0, -1)
    found = [
        tables.read_where(folder, path, "item1", lambda least, greatest: least <= last and first <= greatest)
        for path in paths
    ]
    table = pa.concat_tables(found)
    item1 = values(table["item1"])
    mine = slice(*np.searchsorted(item1, [first, last + 1]).tolist())
    names = [name for name in ("weight", "idf_weight") if name in table.column_names]
    sums = np.stack([values(table[name])[mine] for name in names], 1) if names else np.zeros((0, N_WEIGHTS), np.int64)
    item2, n_playlists = (values(table[name])[mine] for name in ("item2", "n_playlists"))
    earlier = counter_of((low, high), scope.union, item1[mine], item2, n_playlists, sums)
    return combine([earlier, added, *([negated(removed)] if removed else [])], len(scope.union))


def write_range(
    counter: Counter, items: Items, number: int, token: str, scope: Scope | None = None
) -> tuple[FileEntry, NDArray[np.int64]]:
    """The task: one file of the pairs, and what it adds to each item's total."""
    codes = scope.union if scope else view_items(items)
    lengths = np.diff(counter.starts)
    columns = {
        "item1": int32(np.repeat(codes[counter.low : counter.low + len(lengths)], lengths)),
        "item2": int32(codes[counter.other]),
        "n_playlists": int64(counter.n_playlists),
    }
    if items.view == "full":
        columns |= {"weight": int64(counter.weights[:, 0]), "idf_weight": int64(counter.weights[:, 1])}
    table = pa.table(columns)
    # Statistics for reading a range of items back; differences, since most are small: a third of the bytes.
    packed = dict.fromkeys(columns, "DELTA_BINARY_PACKED")
    options = tables.NO_DICTIONARY | {"write_statistics": ["item1"], "column_encoding": packed}
    entry = tables.write_part(items.folder, f"pairs_{items.item}_{items.view}", token, number, table, **options)
    return entry, totals(counter, len(codes))


def write_items(
    folder: Folder,
    name: str,
    codes: NDArray[np.int32],
    known: Diagonal,
    pair_total: NDArray[np.int64],
    weighted: bool,
    token: str,
) -> FileEntry:
    """The table of the view's items: the diagonal, and the sums of their pair counts."""
    columns = {"item": int32(codes), "n_playlists": int64(known.n_playlists), "pair_total": int64(pair_total)}
    if weighted:
        columns |= {"weight": int64(known.weights[:, 0]), "idf_weight": int64(known.weights[:, 1])}
    return tables.write_part(folder, name, token, 0, pa.table(columns), compression="zstd")
