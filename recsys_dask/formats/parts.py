"""Parts in scratch: what a reader delivered, with codes of its own, until the ingest has merged them.

A part's vocabularies lie by hash bucket. A group of files is decoded when its commit file is there.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recsys_dask.arrow import int32, values
from recsys_dask.errors import Fault
from recsys_dask.formats.base import Part, Reader
from recsys_dask.formats.gathering import Rows, gathered
from recsys_dask.formats.vocabulary import bucket_of, hashes, keys, words_for
from recsys_dask.store import scratch
from recsys_dask.store.files import Folder
from recsys_dask.store.manifest import InputFile, fingerprint

SCRATCH = "scratch/ingest"
SKETCH = 256
"""How many of the smallest hashes a part keeps."""


class PartInfo(msgspec.Struct, frozen=True):
    """A part in scratch. `buckets`: of artists and tracks, where each hash bucket starts, and the end.

    cuts: of each of its files, where its pieces start; those of artists and tracks are the buckets
    smallest: of artists and tracks, the smallest hashes, from which `n_distinct` tells how many ids all parts have.
    """

    name: str
    files: tuple[str, ...]
    n_playlists: int
    n_rows: int
    first_pid: int
    last_pid: int
    words: dict[str, int]
    buckets: dict[str, list[int]]
    cuts: dict[str, list[int]]
    smallest: dict[str, list[int]]

    def path(self, table: str) -> str:
        return f"{SCRATCH}/{self.name}-{table}.arrow"

    @property
    def paths(self) -> list[str]:
        return [self.path(table) for table in ("artists", "tracks", "playlists", "rows")]


class Decoded(msgspec.Struct):
    """What a decoding task did, as its commit file in scratch says too. reader: which one, with which settings and of
    which version; n_strictly: how many files the strict one had to read."""

    commit: str
    reader: str
    files: list[InputFile]
    parts: list[PartInfo]
    faults: list[tuple[str, str, str]]
    bytes: int
    n_strictly: int = 0

    @property
    def names(self) -> list[str]:
        """Its files in scratch."""
        return [self.commit, *(path for part in self.parts for path in part.paths)]


def n_distinct(parts: Sequence[PartInfo], kind: str) -> int:
    """About how many ids the parts have together, from their smallest hashes; the error is some 6 %.

    The k-th smallest of n hashes stands near k/n of their range. Bar-Yossef et al., Counting distinct elements in a
    data stream, RANDOM 2002.
    """
    seen = np.unique(np.array([one for part in parts for one in part.smallest[kind]], np.uint64))[:SKETCH]
    if len(seen) < SKETCH:
        return len(seen)
    return int((SKETCH - 1) * 2.0**64 / float(seen[-1]))


def group_key(group: Sequence[InputFile], n_buckets: int, reader: str, part_bytes: int) -> str:
    """What a group's parts and commit file are named by: equal names, equal bytes. A task of a killed run may still be
    writing its own on a cluster."""
    return fingerprint(list(group), n_buckets, reader, part_bytes)


def finished(
    folder: Folder, n_buckets: int, reader: str, inputs: Sequence[InputFile], whole: bool = False
) -> list[Decoded]:
    """What decoding tasks of interrupted runs committed of some files, each once, whatever groups it was in.

    whole: only what was made from all of the files together.
    """
    known = set(inputs)
    found: list[Decoded] = []
    taken: set[InputFile] = set()
    there = set(folder.names(SCRATCH))
    for name in sorted(there):
        if name.endswith(f".{n_buckets}.json"):
            try:
                one = msgspec.json.decode(folder.read(name), type=Decoded)
            except (msgspec.MsgspecError, OSError):
                continue  # of another version, or cut short: its files are decoded again
            fits = known == set(one.files) if whole else known.issuperset(one.files)
            if one.reader == reader and fits and there.issuperset(one.names) and taken.isdisjoint(one.files):
                found.append(one)
                taken.update(one.files)
    return found


def decode_group(
    group: Sequence[InputFile], reader: Reader, name: str, folder: Folder, part_bytes: int, n_buckets: int
) -> Decoded:
    """The task: some slices to parts in scratch, and a commit file that names them. name: of the reader, with its
    settings."""
    key = group_key(group, n_buckets, name, part_bytes)
    commit = f"{SCRATCH}/{key}.{n_buckets}.json"
    parts: list[PartInfo] = []
    faults: list[Fault] = []
    strictly: set[str] = set()
    for found in reader([file.path for file in group], part_bytes):
        if isinstance(found, Fault):
            faults.append(found)
            parts = [part for part in parts if part.files != (found.file,)]
        else:
            strictly.update(found.files if found.strictly else ())
            parts.append(write_part(found, folder, f"{key}-{len(parts):03d}", n_buckets))
    wrong = {fault.file for fault in faults}
    good = [file for file in group if file.path not in wrong]
    wrong_ones = [(fault.file, fault.where, fault.message) for fault in faults]
    n_strictly = len(strictly - wrong)
    decoded = Decoded(commit, name, good, parts, wrong_ones, sum(file.bytes for file in group), n_strictly)
    if good:
        folder.write(commit, msgspec.json.encode(decoded))
    return decoded


def write_list(folder: Folder, token: str, parts: Sequence[PartInfo]) -> None:
    """For `listed`: what tasks need of all parts lies in scratch, so that none has to run where a first one did."""
    lean = [msgspec.structs.replace(part, smallest={}) for part in parts]
    folder.write(_list_path(token), msgspec.json.encode(lean))


@functools.lru_cache(maxsize=1)
def listed(folder: Folder, token: str) -> list[PartInfo]:
    """All parts of an ingest, read once a worker. token: of this run's own."""
    return msgspec.json.decode(folder.read(_list_path(token)), type=list[PartInfo])


def _list_path(token: str) -> str:
    return f"{SCRATCH}/parts-{token}.list"


def write_part(part: Part, folder: Folder, name: str, n_buckets: int) -> PartInfo:
    """A part to scratch, its vocabularies by hash bucket and its codes by the order that this gives them."""
    words, buckets, smallest, cuts, codes = {}, {}, {}, {}, {}
    for kind in ("artists", "tracks"):
        vocabulary = scratch.one_batch(getattr(part, kind))
        words[kind] = words_for(vocabulary["id"])
        key = keys(vocabulary["id"], words[kind])
        smallest[kind] = _smallest(hashes(key)).tolist()
        bucket = bucket_of(key, n_buckets)
        buckets[kind] = np.concatenate([[0], np.cumsum(np.bincount(bucket, minlength=n_buckets))]).tolist()
        codes[kind] = part.rows[kind[:-1]]
        if n_buckets > 1:
            by_bucket = np.argsort(bucket, kind="stable")
            place = np.empty(len(by_bucket), np.int32)
            place[by_bucket] = np.arange(len(by_bucket), dtype=np.int32)
            rows = [Rows(vocabulary, by_bucket, np.arange(len(place)))]
            vocabulary = gathered(vocabulary.schema, len(place), rows.copy)
            codes[kind] = int32(place[values(codes[kind])])
        pieces = [vocabulary.slice(start, end - start) for start, end in itertools.pairwise(buckets[kind])]
        cuts[kind] = scratch.write(folder, f"{SCRATCH}/{name}-{kind}.arrow", pieces)
    cuts["playlists"] = scratch.write(folder, f"{SCRATCH}/{name}-playlists.arrow", [part.playlists])
    # The pids of the rows are told by the playlists' `n_entries`.
    coded = pa.table({"pos": part.rows["pos"], "artist": codes["artists"], "track": codes["tracks"]})
    cuts["rows"] = scratch.write(folder, f"{SCRATCH}/{name}-rows.arrow", [coded])
    pid = values(part.playlists["pid"])
    return PartInfo(
        name,
        part.files,
        len(pid),
        coded.num_rows,
        int(pid[0]) if len(pid) else 0,
        int(pid[-1]) if len(pid) else 0,
        words,
        buckets,
        cuts,
        smallest,
    )


def _smallest(hashed: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The `SKETCH` smallest hashes."""
    return np.sort(np.partition(hashed, SKETCH)[:SKETCH] if len(hashed) > SKETCH else hashed)


def read_bucket(folder: Folder, part: PartInfo, kind: str, bucket: int) -> pa.RecordBatch | None:
    """The rows of one hash bucket of a part's vocabulary; None where it has none."""
    starts = part.buckets[kind]
    return read_part(folder, part, kind, bucket) if starts[bucket] < starts[bucket + 1] else None


def read_part(folder: Folder, part: PartInfo, table: str, number: int = 0) -> pa.RecordBatch:
    """A piece of one of a part's files: of `playlists` and `rows`, all."""
    return scratch.read(folder, part.path(table), part.cuts[table], number)
