"""A store's training playlists as a store of their own, and its test playlists beside them.

count:  a partition's training entries -> a tally of its items, in ranges of codes, which are added up
rank:   all items that are left, in their final order -> what they were and what their code is now, in scratch
write:  the vocabularies; each partition's playlists and rows with the new codes
"""

from __future__ import annotations

import functools
import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys_dask import params
from recsys_dask.arrow import bools, int32, int64, values
from recsys_dask.errors import StoreError
from recsys_dask.formats.parts import SCRATCH
from recsys_dask.formats.vocabulary import keys, order, words_for
from recsys_dask.holdout.split import test_playlists
from recsys_dask.holdout.tally import Tally, combine, count, split, together
from recsys_dask.runtime.clusters import Cluster, tree
from recsys_dask.store import tables
from recsys_dask.store.files import Folder
from recsys_dask.store.manifest import FileEntry, StageReport, TableEntry, command_for
from recsys_dask.store.tables import Store

KINDS = ("artists", "tracks")
OUT, TRAIN, TEST = 0, 1, 2
RANGE = 1 << 18
"""Codes of a range of a tally, and rows of a file of a vocabulary, as an ingest writes them."""

BYTES_PER_ROW, BYTES_PER_RANGE, BYTES_PER_ID = 120, 120_000_000, 190
"""Memory: a row of a partition while it is counted or written; adding up a range; an id while all are ranked."""

Roles = NDArray[np.uint8]
"""What becomes of each playlist: OUT, TRAIN or TEST."""


def holdout(
    cluster: Cluster, store: Store, child: Folder, options: params.Split, token: str
) -> tuple[dict[str, TableEntry], StageReport]:
    """The tables of a child store, written but not yet committed.

    `playlists`, `rows`, `artists`, `tracks`: what an ingest of the training playlists alone would give, items that none
    of these holds left out, codes by falling n_mentions and then id; but names, albums and durations are the store's.
    `test_playlists`, `test_rows`: the test playlists, with codes of the child's, −1 for what it does not know.
    Near-duplicates are in neither, unless they are to be kept.

    Raises `StoreError` where nothing is left to train on or to test, or the store's near-duplicates are not known;
    `BudgetError`.
    """
    from dask import delayed

    both = list(zip(store.entry("playlists").files, store.entry("rows").files, strict=True))
    projected = _check_memory(cluster, store)
    with cluster.measured() as so_far:
        roles = _roles(store, options)
        counted = [
            delayed(count_partition)(store.folder, rows.path, _sizes(store), mine, dask_key_name=f"count-{n}-{token}")
            for n, ((_, rows), mine) in enumerate(zip(both, roles, strict=True))
            if (mine[1] == TRAIN).any()
        ]
        ranked = {kind: _ranked(store, child, kind, counted, token) for kind in KINDS}
        n_items = dict(zip(KINDS, cluster.compute("hold-out counts", list(ranked.values())), strict=True))
        work = [
            delayed(write_vocabulary)(
                _paths(store, kind), store.folder, child, kind, number, n_items, token,
                dask_key_name=f"write-{kind}-{number}-{token}",
            )
            for kind in KINDS
            for number in range(max(1, -(-n_items[kind] // RANGE)))
        ]  # fmt: skip
        for role, prefix in ((TRAIN, ""), (TEST, "test_")):
            left = [(files, mine) for files, mine in zip(both, roles, strict=True) if (mine[1] == role).any()]
            work += [
                delayed(write_partition)(
                    store.folder, child, (lists.path, rows.path), prefix, number, mine[0][mine[1] == role], token,
                    dask_key_name=f"write-{prefix}rows-{number}-{token}",
                )
                for number, ((lists, rows), mine) in enumerate(left)
            ]  # fmt: skip
        written = cluster.compute("hold-out", work, lambda files: files[-1].rows, "rows")
        cluster.everywhere(forget_codes)
        seconds, peak = so_far()
    entries = _entries(written)
    n_of = np.bincount(np.concatenate([mine for _, mine in roles]), minlength=3).tolist()
    facts = {"playlists": n_of[TRAIN], "test_playlists": n_of[TEST], "near_duplicates": n_of[OUT]}
    size = sum(entry.bytes for entry in entries.values())
    n_files = len(entries["rows"].files)
    return entries, StageReport(entries["rows"].rows, size, n_files, seconds, peak, projected, facts)


def _entries(written: list[list[FileEntry]]) -> dict[str, TableEntry]:
    found: dict[str, list[FileEntry]] = {}
    for file in (file for files in written for file in files):
        found.setdefault(file.path.split("/")[1], []).append(file)
    return {name: TableEntry(files) for name, files in found.items()}


def _check_memory(cluster: Cluster, store: Store) -> int:
    n_ids = sum(_sizes(store))
    rows = max((file.rows for file in store.entry("rows").files), default=0)
    needed = max(rows * BYTES_PER_ROW + n_ids * 4, min(n_ids, RANGE) * BYTES_PER_RANGE // RANGE, n_ids * BYTES_PER_ID)
    return cluster.budget.check(f"hold-out of {n_ids:,} ids", needed, "")


def _sizes(store: Store) -> tuple[int, int]:
    """How many artists and tracks the store has."""
    artists, tracks = (store.entry(kind).rows for kind in KINDS)
    return artists, tracks


def _paths(store: Store, kind: str) -> list[str]:
    return [file.path for file in store.entry(kind).files]


def _roles(store: Store, options: params.Split) -> list[tuple[NDArray[np.int64], Roles]]:
    """A partition's pids and their roles."""
    near = np.zeros(0, np.int64)
    if not options.keep_near_duplicates:
        near = values(store.table(near_duplicates_of(store), ["pid"])["pid"])
    parts = [(values(one["pid"]), values(one["n_entries"])) for one in store.parts("playlists", ["pid", "n_entries"])]
    pid, n_entries = (np.concatenate([np.zeros(0, np.int64), *columns]) for columns in zip(*parts, strict=True))
    role = np.full(len(pid), OUT, np.uint8)
    left = np.flatnonzero(~np.isin(pid, near))
    chosen = test_playlists(pid[left], options.test_share, options.most_test, options.split_seed)
    role[left] = np.where(chosen, TEST, TRAIN)
    share = f"{params.spelled('test_share')} is {options.test_share}"
    if not chosen.any():
        raise StoreError(f"{store.folder.url}: none of {len(left):,} playlists is left to test; {share}: give more")
    if not n_entries[role == TRAIN].any():
        raise StoreError(
            f"{store.folder.url}: none of {len(left):,} playlists is left to train on; {share}: give less, or ingest "
            "more playlists"
        )
    cuts = np.cumsum([len(one) for one, _ in parts])[:-1]
    return list(zip(np.split(pid, cuts), np.split(role, cuts), strict=True))


def near_duplicates_of(store: Store) -> str:
    """The name of the table of near-duplicates. Raises `StoreError` where it is missing or of other rows."""
    name = "near_duplicates"
    store.entry(name)
    if store.manifest.is_outdated(name):
        command = command_for(name, store.folder.url)
        raise StoreError(f"{store.folder.url}: has near-duplicates of an earlier input; first run: {command}")
    return name


# ----------------------------------------------------------------------------------------------------------- vocabulary


def _ranked(store: Store, child: Folder, kind: str, counted: list[Any], token: str) -> Any:
    """The number of a kind's items that are left, delayed: their order is then in scratch."""
    from dask import delayed

    n_ranges = max(1, -(-store.entry(kind).rows // RANGE))
    place = KINDS.index(kind)
    ranges = [
        tree(
            [
                delayed(range_of)(one, place, number, dask_key_name=f"range-{kind}-{number}-{at}-{token}")
                for at, one in enumerate(counted)
            ],
            combine,
            f"combine-{kind}-{number}-{token}",
        )
        for number in range(n_ranges)
    ]
    key = f"rank-{kind}-{token}"
    return delayed(rank)(store.folder, child, _paths(store, kind), kind, ranges, token, dask_key_name=key)


def count_partition(
    folder: Folder, rows: str, sizes: tuple[int, int], mine: tuple[NDArray[np.int64], Roles]
) -> list[list[Tally]]:
    """The task: a partition's training entries as tallies of artists and tracks, in ranges."""
    table = tables.read_file(folder, rows, ["pid", "artist", "track"])
    pid, artist, track = (values(column) for column in table.columns)
    keep = np.isin(pid, mine[0][mine[1] == TRAIN])
    found = [count(codes[keep], pid[keep], artist[keep]) for codes in (artist, track)]
    return [split(one, RANGE, size) for one, size in zip(found, sizes, strict=True)]


def range_of(counted: list[list[Tally]], kind: int, number: int) -> Tally:
    """The task: one range of a partition's tally."""
    return counted[kind][number]


def rank(folder: Folder, child: Folder, vocabulary: list[str], kind: str, ranges: list[Tally], token: str) -> int:
    """The task: the items that are left by falling mentions, ties by id, in scratch: the row is the new code.

    folder, vocabulary: the store's files of this kind. Returns how many are left.
    """
    import pyarrow as pa

    tally = together(ranges)
    ids = pa.concat_tables([tables.read_file(folder, path, [f"{kind[:-1]}_id"]) for path in vocabulary])
    ids = ids.combine_chunks().column(0).take(int64(tally.codes))
    by_rank = order(keys(ids, words_for(ids)), tally.n_mentions)
    columns = {
        "code": int32(tally.codes[by_rank]),
        "n_mentions": int64(tally.n_mentions[by_rank]),
        "n_playlists": int64(tally.n_playlists[by_rank]),
        "artist": int32(tally.artist[by_rank]),
    }
    tables.write_file(child, _ranked_path(kind, token), pa.table(columns), row_group=RANGE, **tables.NO_DICTIONARY)
    return len(by_rank)


def _ranked_path(kind: str, token: str) -> str:
    return f"{SCRATCH}/ranked-{token}-{kind}.parquet"


_loading = threading.Lock()


@functools.lru_cache(maxsize=2)
def _load_codes(child: Folder, kind: str, token: str) -> NDArray[np.int32]:
    code = values(tables.read_file(child, _ranked_path(kind, token), ["code"])["code"])
    out = np.full(int(code.max(initial=-1)) + 1, -1, np.int32)
    out[code] = np.arange(len(code), dtype=np.int32)
    return out


def new_codes(child: Folder, kind: str, token: str, codes: NDArray[np.int32]) -> NDArray[np.int32]:
    """The child's codes of a store's, −1 for what is left out; read once a worker and kept until the stage ends."""
    with _loading:
        known = _load_codes(child, kind, token)
    out = np.full(len(codes), -1, np.int32)
    inside = codes < len(known)
    out[inside] = known[codes[inside]]
    return out


def forget_codes() -> None:
    """Give the memory of `new_codes` back."""
    _load_codes.cache_clear()


# ---------------------------------------------------------------------------------------------------------------- write


def write_vocabulary(
    vocabulary: list[str], folder: Folder, child: Folder, kind: str, number: int, n_items: dict[str, int], token: str
) -> list[FileEntry]:
    """The task: a file of the child's `artists` or `tracks`. folder, vocabulary: the store's files of this kind."""
    import pyarrow as pa

    start, end = number * RANGE, min((number + 1) * RANGE, n_items[kind])
    mine = tables.read_span(child, _ranked_path(kind, token), start, end)
    wanted = values(mine["code"])
    by_code = np.argsort(wanted)
    found = []
    first = 0
    for path in vocabulary:
        table = tables.read_file(folder, path)
        low, high = np.searchsorted(wanted[by_code], (first, first + table.num_rows)).tolist()
        found.append(table.take(int64(wanted[by_code[low:high]] - first)))
        first += table.num_rows
    back = np.empty(len(wanted), np.int64)
    back[by_code] = np.arange(len(wanted))
    out = pa.concat_tables(found).take(int64(back))
    columns = {kind[:-1]: int32(np.arange(start, end, dtype=np.int32))}
    columns |= {name: mine[name] for name in ("n_mentions", "n_playlists")}
    if kind == "tracks":
        columns["artist"] = int32(new_codes(child, "artists", token, values(mine["artist"])))
    for name, column in columns.items():
        out = out.set_column(out.schema.get_field_index(name), name, column)
    return [tables.write_part(child, kind, token, number, out, compression="zstd", use_dictionary=False)]


def write_partition(
    folder: Folder, child: Folder, paths: tuple[str, str], prefix: str, number: int, pid: NDArray[np.int64], token: str
) -> list[FileEntry]:
    """The task: of a partition's playlists and rows those of some pids, with the child's codes, as a partition."""
    lists, rows = (tables.read_file(folder, path) for path in paths)
    lists, rows = (one.filter(bools(np.isin(values(one["pid"]), pid))) for one in (lists, rows))
    for kind in KINDS:
        name = kind[:-1]
        codes = int32(new_codes(child, kind, token, values(rows[name])))
        rows = rows.set_column(rows.schema.get_field_index(name), name, codes)
    return [
        tables.write_part(child, f"{prefix}playlists", token, number, lists, compression="zstd"),
        tables.write_part(child, f"{prefix}rows", token, number, rows, compression="zstd", use_dictionary=["pid"]),
    ]
