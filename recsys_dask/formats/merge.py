"""The parts' vocabularies as one: distinct ids with their sums, and the order in which the place is the code."""

from __future__ import annotations

import functools
import itertools
import threading
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recsys_dask import schemas
from recsys_dask.arrow import int32, int64, values
from recsys_dask.formats.parts import GROUP_ROWS, SCRATCH, PartInfo, read_bucket
from recsys_dask.formats.vocabulary import Index, keys, order, words_for
from recsys_dask.store import tables
from recsys_dask.store.files import Folder
from recsys_dask.store.manifest import FileEntry

TWICE = "is there twice"


class Merged(msgspec.Struct, frozen=True):
    """One bucket's distinct ids in scratch, in their final order."""

    path: str
    rows: int


def merge_bucket(folder: Folder, token: str, kind: str, bucket: int, parts: Sequence[PartInfo], words: int) -> Merged:
    """The task: one hash bucket of all parts' vocabularies -> its distinct ids, their sums and first attributes.

    token: of this run's own, since tasks of a killed one may still write.
    """

    index = Index(words)
    sums = np.zeros((0, 2), np.int64)  # mentions, playlists
    first = np.zeros((0, 3), np.int64)  # pid, part, row of the first entry
    for number, part in enumerate(parts):
        found = read_bucket(folder, part, kind, bucket, ["id", "n_mentions", "n_playlists", "first_pid"])
        if found is None:
            continue
        places = index.add(keys(found["id"], words))
        sums = _grown(sums, index.n, 0)
        first = _grown(first, index.n, np.iinfo(np.int64).max)
        sums[places, 0] += values(found["n_mentions"])  # an id is in a part once: no place repeats
        sums[places, 1] += values(found["n_playlists"])
        pid = values(found["first_pid"])
        nobody = first[places, 1] == np.iinfo(np.int64).max  # has it yet; a pid may be as high as that too
        earlier = np.flatnonzero((pid < first[places, 0]) | nobody)
        first[places[earlier]] = np.stack([pid[earlier], np.full(len(earlier), number), earlier], 1)

    pieces, owners = [], []
    by_part = np.lexsort((first[: index.n, 2], first[: index.n, 1]))
    starts = np.searchsorted(first[by_part, 1], np.arange(len(parts) + 1))
    for number, part in enumerate(parts):
        mine = by_part[starts[number] : starts[number + 1]]
        if len(mine):
            found = read_bucket(folder, part, kind, bucket, None)
            assert found is not None
            pieces.append(found.drop_columns(["n_mentions", "n_playlists"]).take(int64(first[mine, 2])))
            owners.append(mine)
    path = f"{SCRATCH}/merged-{token}-{kind}-{bucket:04d}.parquet"
    if not pieces:
        return Merged(path, 0)
    owner = np.concatenate(owners)
    final = order(index.keys[owner], sums[owner, 0])
    table = pa.concat_tables(pieces).take(int64(final))
    table = table.append_column("n_mentions", int64(sums[owner[final], 0]))
    table = table.append_column("n_playlists", int64(sums[owner[final], 1]))
    tables.write_file(folder, path, table, row_group=GROUP_ROWS, **tables.NO_DICTIONARY)
    return Merged(path, table.num_rows)


def _grown(array: NDArray[np.int64], n: int, fill: int) -> NDArray[np.int64]:
    """`array` with room for n rows (and some more, so that growing is rare); new ones hold `fill`."""
    if n <= len(array):
        return array
    grown = np.full((max(n, int(len(array) * 1.5)), array.shape[1]), fill, np.int64)
    grown[: len(array)] = array
    return grown


def check_pids(
    folder: Folder, parts: Sequence[PartInfo], partition_rows: int, known: Sequence[FileEntry] = ()
) -> tuple[list[tuple[str, str, str]], list[int]]:
    """The task: pids in two files as faults, and the pids at which partitions of some `partition_rows` start.

    known: files of `playlists` whose pids are taken already.

    Where the parts' pids do not overlap, partitions start where parts do, and every part is read once.
    """
    found = [tables.read_file(folder, part.path("playlists"), ["pid", "n_entries", "file"]) for part in parts]
    pid = np.concatenate([values(table["pid"]) for table in found] or [np.zeros(0, np.int64)])
    rows = np.concatenate([values(table["n_entries"]) for table in found] or [np.zeros(0, np.int64)])
    by_pid = np.argsort(pid, kind="stable")
    faults = []
    taken = np.concatenate([np.zeros(0, np.int64), *(_pids(folder, file.path) for file in known)])
    starts = np.cumsum([0, *(part.n_playlists for part in parts)])
    for again in np.flatnonzero(np.diff(pid[by_pid]) == 0):
        names = []
        for place in by_pid[again : again + 2]:
            number = int(np.searchsorted(starts, place, side="right")) - 1
            names.append(parts[number].files[found[number]["file"][int(place - starts[number])].as_py()])
        first, second = sorted(names)
        message = TWICE if first == second else f"{TWICE}, first in {first}"
        faults.append((second, f"pid {pid[by_pid[again]]}", message))

    for place in np.flatnonzero(np.isin(pid, taken)).tolist():
        number = int(np.searchsorted(starts, place, side="right")) - 1
        name = parts[number].files[values(found[number]["file"])[place - starts[number]]]
        faults.append((name, f"pid {pid[place]}", "is in the store already"))

    apart = all(a.last_pid < b.first_pid for a, b in itertools.pairwise(parts))
    begins = starts[:-1] if apart else np.arange(len(pid))
    before = np.concatenate([[0], np.cumsum(rows[by_pid])])
    cuts: list[int] = []
    filled = -partition_rows
    for place in begins.tolist():
        if before[place] - filled >= partition_rows:
            cuts.append(int(pid[by_pid[place]]))
            filled = before[place]
    return faults, cuts


def _pids(folder: Folder, path: str) -> NDArray[np.int64]:
    return values(tables.read_file(folder, path, ["pid"])["pid"])


def rank(folder: Folder, token: str, kind: str, merged: Sequence[Merged], words: int) -> list[NDArray[np.int32]]:
    """The task: the order over all buckets. Writes the ids in it, so that an id's row is its code; returns, a
    bucket, the codes of its rows, which rise, since a bucket is in the same order."""

    found = [tables.read_file(folder, one.path, ["id", "n_mentions"]) for one in merged if one.rows]
    if found:
        both = pa.concat_tables(found).combine_chunks()
        by_rank = order(keys(both["id"], words), values(both["n_mentions"]))
        ids = both.select(["id"]).take(int64(by_rank))
    else:
        by_rank = np.zeros(0, np.int64)
        ids = pa.schema([("id", pa.string())]).empty_table()
    write_codes(folder, token, kind, ids)
    codes = np.empty(len(by_rank), np.int32)
    codes[by_rank] = np.arange(len(by_rank), dtype=np.int32)
    return np.split(codes, np.cumsum([one.rows for one in merged])[:-1])


def write_codes(folder: Folder, token: str, kind: str, ids: pa.Table) -> None:
    """The ids of a kind in the order of their codes, for `codes_of`."""
    tables.write_file(folder, _codes_path(token, kind), ids, **tables.NO_DICTIONARY)


def _codes_path(token: str, kind: str) -> str:
    return f"{SCRATCH}/codes-{token}-{kind}.parquet"


_loading = threading.Lock()


@functools.lru_cache(maxsize=2)
def _load_codes(folder: Folder, kind: str, token: str) -> Index:
    ids = tables.read_file(folder, _codes_path(token, kind))["id"]
    index = Index(words_for(ids))
    index.add(keys(ids, index.words))
    return index


def codes_of(folder: Folder, kind: str, token: str) -> Index:
    """Every id of a kind with its code as place: read once a worker, and kept there until the stage ends.

    `token` tells one ingest's codes from another's.
    """
    with _loading:
        return _load_codes(folder, kind, token)


def forget_codes() -> None:
    """Give the memory of `codes_of` back."""
    _load_codes.cache_clear()


def vocabulary_table(folder: Folder, token: str, kind: str, merged: pa.Table, codes: NDArray[np.int32]) -> pa.Table:
    """Merged ids as rows of `artists` or `tracks`; `codes` are theirs."""
    item = kind[:-1]
    columns: dict[str, Any] = {item: int32(codes), f"{item}_id": merged["id"], f"{item}_name": merged["name"]}
    if kind == "tracks":
        artists = codes_of(folder, "artists", token)
        columns["artist"] = int32(artists.find(keys(merged["artist_id"], artists.words)))
        columns |= {name: merged[name] for name in ("album_id", "duration_ms")}
    columns |= {name: merged[name] for name in ("n_mentions", "n_playlists")}
    return pa.table(columns, schema=schemas.of(kind).arrow())
