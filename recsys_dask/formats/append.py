"""Slices appended to a store: codes never change, new ids follow, sums grow, and names stay those of the lowest pid."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recsys_dask import schemas
from recsys_dask.arrow import int64, values
from recsys_dask.formats.merge import Merged, vocabulary_table, write_codes, write_vocabulary_part
from recsys_dask.formats.vocabulary import index_of, keys, order, words_for
from recsys_dask.store import scratch, tables
from recsys_dask.store.files import Folder
from recsys_dask.store.manifest import FileEntry


def rank_onto(
    folder: Folder, token: str, kind: str, merged: Sequence[Merged], known: Sequence[FileEntry]
) -> list[NDArray[np.int32]]:
    """The task: as `merge.rank`, behind the ids of the table's files `known`, which keep their codes."""
    before = pa.concat_tables([tables.read_file(folder, file.path, [f"{kind[:-1]}_id"]) for file in known])
    found = [pa.Table.from_batches([scratch.read(folder, one.path)]) for one in merged if one.rows]
    new = pa.concat_tables([one.select(["id", "n_mentions"]) for one in found]).combine_chunks() if found else None
    ids = before[f"{kind[:-1]}_id"]
    words = max(words_for(ids), words_for(new["id"]) if new else 1)
    index = index_of(keys(ids, words))
    codes = np.zeros(0, np.int32)
    if new:
        key = keys(new["id"], words)
        codes = index.find(key)
        unknown = np.flatnonzero(codes < 0)
        by_rank = unknown[order(key[unknown], values(new["n_mentions"])[unknown])]
        codes[by_rank] = index.add(key[by_rank])
    if kind == "artists":
        write_codes(folder, token, index.keys)
    return np.split(codes, np.cumsum([one.rows for one in merged])[:-1])


def first_pids(folder: Folder, kind: str, rows: Sequence[FileEntry], n: int) -> NDArray[np.int64]:
    """The task: the lowest pid that holds each of n items, (n,) int64, from the files of `rows`."""
    out = np.full(n, np.iinfo(np.int64).max)
    for file in rows:
        table = tables.read_file(folder, file.path, ["pid", kind[:-1]])
        code, first = np.unique(values(table[kind[:-1]]), return_index=True)
        out[code] = np.minimum(out[code], values(table["pid"])[first])
    return out


def update_vocabulary(
    folder: Folder,
    token: str,
    kind: str,
    number: int,
    span: tuple[int, int],
    known: Sequence[FileEntry],
    merged: Sequence[Merged],
    codes: Sequence[NDArray[np.int32]],
    artists_ranked: Any,
    first: NDArray[np.int64] | None,
) -> list[FileEntry]:
    """The task: the rows of `artists` or `tracks` with codes in `span`, brought up to date.

    known: the table's files; first: the lowest pid of each known id, or None where all appended pids are higher.
    `artists_ranked` is only waited for.
    """
    old = _known_rows(folder, kind, known, span)
    item = kind[:-1]
    pieces, places = [old], [values(old[item])]
    pids = [first[span[0] : span[0] + old.num_rows] if first is not None else np.full(old.num_rows, -1)]
    for one, of_bucket in zip(merged, codes, strict=True):
        mine = np.flatnonzero((of_bucket >= span[0]) & (of_bucket < span[1]))
        if len(mine):
            new = pa.Table.from_batches([scratch.read(folder, one.path)]).take(int64(mine))
            pieces.append(vocabulary_table(folder, token, kind, new, of_bucket[mine]))
            places.append(of_bucket[mine])
            pids.append(values(new["first_pid"]))
    table, place, pid = pa.concat_tables(pieces), np.concatenate(places) - span[0], np.concatenate(pids)
    n = span[1] - span[0]
    best = np.lexsort((pid, place))  # of the old and the new row of an id, the one of the lower pid comes first
    chosen = best[np.searchsorted(place[best], np.arange(n))]
    out = table.take(int64(chosen))
    for name in ("n_mentions", "n_playlists"):
        total = np.zeros(n, np.int64)
        np.add.at(total, place, values(table[name]))
        out = out.set_column(out.schema.get_field_index(name), name, int64(total))
    return [write_vocabulary_part(folder, kind, token, number, out)]


def _known_rows(folder: Folder, kind: str, known: Sequence[FileEntry], span: tuple[int, int]) -> pa.Table:
    """The table's rows with codes in `span`; row = code over all files."""
    pieces = [schemas.of(kind).arrow().empty_table()]
    start = 0
    for file in known:
        low, high = max(span[0], start), min(span[1], start + file.rows)
        if low < high:
            pieces.append(tables.read_span(folder, file.path, low - start, high - start))
        start += file.rows
    return pa.concat_tables(pieces)
