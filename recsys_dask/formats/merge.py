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
from recsys_dask.arrow import int32, int64, numbers, values
from recsys_dask.formats.gathering import Gathering, text_lengths
from recsys_dask.formats.parts import SCRATCH, PartInfo, listed, read_bucket, read_part
from recsys_dask.formats.vocabulary import Index, Merger, grown, index_of, keys, order
from recsys_dask.store import scratch, tables
from recsys_dask.store.files import Folder
from recsys_dask.store.manifest import FileEntry

TWICE = "is there twice"


class Merged(msgspec.Struct, frozen=True):
    """One bucket's distinct ids in scratch, in their final order.

    cuts: where the pieces of its places start, one a part: the row in it of each of the part's ids of that bucket
    """

    path: str
    rows: int
    cuts: list[int]

    @property
    def places(self) -> str:
        return _places(self.path)


def merge_bucket(folder: Folder, token: str, kind: str, bucket: int, words: int, n_ids: int) -> Merged:
    """The task: one hash bucket of all parts' vocabularies -> its distinct ids, their sums and first attributes.

    token: of this run's own, since tasks of a killed one may still write; n_ids: about how many the bucket has.
    """
    parts = listed(folder, token)
    n_entries = sum(part.buckets[kind][bucket + 1] - part.buckets[kind][bucket] for part in parts)
    merger = Merger(words, min(n_ids, n_entries))
    places = []
    lengths: dict[str, NDArray[np.int32]] = {}
    for number, part in enumerate(parts):
        places.append(np.zeros(0, np.int32))
        found = read_bucket(folder, part, kind, bucket)
        if found is None:
            continue
        sums = (values(found[name]) for name in ("n_mentions", "n_playlists", "first_pid"))
        places[-1], first_here = merger.add(keys(found["id"], words), number, *sums)
        for name, here in text_lengths(found).items():
            known = lengths.get(name, here[:0])
            lengths[name] = grown(known, len(known), merger.n)
            lengths[name][places[-1][first_here]] = here[first_here]
    path, n, cuts = f"{SCRATCH}/merged-{token}-{kind}-{bucket:04d}.arrow", merger.n, []
    if n:
        mentions, playlists, first = merger.numbers()
        final = order(merger.keys, mentions)
        del merger
        row = np.empty(len(final), np.int64)
        row[final] = np.arange(len(final))
        for number, mine in enumerate(places):
            places[number] = row[mine].astype(np.int32)
        cuts = scratch.write(folder, _places(path), [pa.table({"row": int32(mine)}) for mine in places])
        del places
        lengths = {name: of_ids[final] for name, of_ids in lengths.items()}
        made = _attributes(folder, kind, bucket, parts, first, row, lengths)
        made = made.append_column("n_mentions", int64(mentions[final]))
        scratch.write(folder, path, [made.append_column("n_playlists", int64(playlists[final]))])
    return Merged(path, n, cuts)


def _places(path: str) -> str:
    return path.replace("/merged-", "/places-")


def _attributes(
    folder: Folder,
    kind: str,
    bucket: int,
    parts: Sequence[PartInfo],
    first: NDArray[np.int64],
    row: NDArray[np.int64],
    lengths: dict[str, NDArray[np.int32]],
) -> pa.RecordBatch:
    """What the first entry of each id says of it, at its `row`. first: the entry's part times 2³² and its row there;
    lengths: of the texts, by column."""
    by_part = np.argsort(first)
    part_of, row_of = first[by_part] >> 32, first[by_part] & 0xFFFFFFFF
    starts = np.searchsorted(part_of, np.arange(len(parts) + 1))
    made = None
    for number in np.flatnonzero(np.diff(starts)).tolist():
        found = read_bucket(folder, parts[number], kind, bucket)
        assert found is not None
        if made is None:
            schema = pa.schema([field for field in found.schema if field.name not in ("n_mentions", "n_playlists")])
            made = Gathering(schema, len(row), lengths)
        mine = slice(starts[number], starts[number + 1])
        made.put(found, row_of[mine], row[by_part[mine]])
    assert made is not None
    return made.batch()


def check_pids(
    folder: Folder, parts: Sequence[PartInfo], partition_rows: int, known: Sequence[FileEntry] = ()
) -> tuple[list[tuple[str, str, str]], list[int]]:
    """The task: pids in two files as faults, and the pids at which partitions of some `partition_rows` start.

    known: files of `playlists` whose pids are taken already.

    Where the parts' pids do not overlap, partitions start where parts do, and every part is read once.
    """
    columns: list[list[NDArray[Any]]] = [[np.zeros(0, np.int64)] for _ in range(3)]
    for part in parts:
        found = read_part(folder, part, "playlists")
        for column, name in zip(columns, ("pid", "n_entries", "file"), strict=True):
            column.append(values(found[name]).copy())  # and not hold every part's memory map
    pid, rows, file = map(np.concatenate, columns)
    by_pid = np.argsort(pid, kind="stable")
    faults = []
    taken = np.concatenate([np.zeros(0, np.int64), *(_pids(folder, one.path) for one in known)])
    starts = np.cumsum([0, *(part.n_playlists for part in parts)])
    for again in np.flatnonzero(np.diff(pid[by_pid]) == 0):
        names = []
        for place in by_pid[again : again + 2]:
            number = int(np.searchsorted(starts, place, side="right")) - 1
            names.append(parts[number].files[file[place]])
        first, second = sorted(names)
        message = TWICE if first == second else f"{TWICE}, first in {first}"
        faults.append((second, f"pid {pid[by_pid[again]]}", message))

    for place in np.flatnonzero(np.isin(pid, taken)).tolist():
        number = int(np.searchsorted(starts, place, side="right")) - 1
        faults.append((parts[number].files[file[place]], f"pid {pid[place]}", "is in the store already"))

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
    """The task: the order over all buckets. Returns, a bucket, the codes of its rows, which rise, since a bucket is in
    the same order. Writes the artists' ids, which those of tracks are looked up among."""
    n = sum(one.rows for one in merged)
    key, mentions = np.empty((n, words), np.uint64), np.empty(n, np.int64)
    start = 0
    for one in merged:
        if one.rows:
            found = scratch.read(folder, one.path)
            key[start : start + one.rows] = keys(found["id"], words)
            mentions[start : start + one.rows] = values(found["n_mentions"])
            start += one.rows
    by_rank = order(key, mentions)
    if kind == "artists":
        write_codes(folder, token, key[by_rank])
    codes = np.empty(n, np.int32)
    codes[by_rank] = np.arange(n, dtype=np.int32)
    return np.split(codes, np.cumsum([one.rows for one in merged])[:-1])


def write_codes(folder: Folder, token: str, key: NDArray[np.uint64]) -> None:
    """The artists' keys (n, words) in the order of their codes, for `artist_codes`."""
    words = {f"word{k}": numbers(np.ascontiguousarray(key[:, k])) for k in range(key.shape[1])}
    scratch.write(folder, _codes_path(token), [pa.table(words)])


def _codes_path(token: str) -> str:
    return f"{SCRATCH}/codes-{token}-artists.arrow"


_loading = threading.Lock()


@functools.lru_cache(maxsize=1)
def _load_codes(folder: Folder, token: str) -> Index:
    words = scratch.read(folder, _codes_path(token))
    return index_of(np.stack([values(column) for column in words.columns], 1))


def artist_codes(folder: Folder, token: str) -> Index:
    """Every artist with its code as place: read once a worker, and kept there until the stage ends.

    `token` tells one ingest's codes from another's.
    """
    with _loading:
        return _load_codes(folder, token)


def forget_codes() -> None:
    """Give the memory of `artist_codes` back."""
    _load_codes.cache_clear()


def vocabulary_table(
    folder: Folder, token: str, kind: str, merged: pa.Table | pa.RecordBatch, codes: NDArray[np.int32]
) -> pa.Table:
    """Merged ids as rows of `artists` or `tracks`; `codes` are theirs."""
    item = kind[:-1]
    columns: dict[str, Any] = {item: int32(codes), f"{item}_id": merged["id"], f"{item}_name": merged["name"]}
    if kind == "tracks":
        artists = artist_codes(folder, token)
        columns["artist"] = int32(artists.find(keys(merged["artist_id"], artists.words)))
        columns |= {name: merged[name] for name in ("album_id", "duration_ms")}
    columns |= {name: merged[name] for name in ("n_mentions", "n_playlists")}
    return pa.table(columns, schema=schemas.of(kind).arrow())


def write_vocabulary_part(folder: Folder, kind: str, token: str, number: int, table: pa.Table) -> FileEntry:
    """A partition of `artists` or `tracks`, each column in the way that was measured to take least time and room.

    Ids are random letters: zstd would save a quarter of them, in as much time as all the rest takes.
    """
    names = table.schema.names
    encodings = {name: "DELTA_BINARY_PACKED" for name in ("artist", "track", "duration_ms") if name in names}
    sums = ["n_mentions", "n_playlists"]
    squeezed = {name: "zstd" if name.endswith("_name") or name in sums else "none" for name in names}
    return tables.write_part(
        folder, kind, token, number, table, compression=squeezed, use_dictionary=sums, column_encoding=encodings
    )
