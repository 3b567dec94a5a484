"""JSON slices to the tables `playlists`, `rows`, `artists` and `tracks`. The JSON is read once.

decode: a group of slices -> parts with codes of their own, in scratch; the unit of resuming
merge:  the parts' vocabularies, in hash buckets -> distinct ids with their sums
rank:   all ids in their final order: the place is the code
recode: each part's rows and playlists with the final codes -> the tables
"""

from __future__ import annotations

import functools
import itertools
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from recsys_dask import params
from recsys_dask.arrow import int32, int64, values
from recsys_dask.errors import Fault, bad_input
from recsys_dask.formats import mpd
from recsys_dask.formats.base import Part
from recsys_dask.formats.vocabulary import Index, bucket_of, keys, order, words_for
from recsys_dask.runtime.clusters import Cluster
from recsys_dask.store import tables
from recsys_dask.store.files import Folder
from recsys_dask.store.manifest import FileEntry, InputFile, StageReport, TableEntry, fingerprint

if TYPE_CHECKING:
    import pyarrow as pa

SCRATCH = "scratch/ingest"
KINDS = ("artists", "tracks")
BUCKET_BYTES = 2_000_000_000
"""Bytes of JSON a hash bucket of the vocabularies."""

GZIP_RATIO = 8
"""How much a compressed slice is taken to grow, for sharing out the work."""

PARTITION_ROWS = 1 << 19
"""Rows of a partition of the final tables, at most (a playlist is never split)."""

VOCABULARY_ROWS = 1 << 18
"""Rows of a partition of `artists` and `tracks`."""

GROUP_ROWS = 1 << 16
"""Rows a row group of what is read back in pieces."""


class PartInfo(msgspec.Struct, frozen=True):
    """A part in scratch. `buckets`: of artists and tracks, where each hash bucket starts, and the end."""

    name: str
    files: tuple[str, ...]
    n_playlists: int
    n_rows: int
    first_pid: int
    last_pid: int
    words: dict[str, int]
    buckets: dict[str, list[int]]

    def path(self, table: str) -> str:
        return f"{SCRATCH}/{self.name}-{table}.parquet"


class Decoded(msgspec.Struct):
    """What a decoding task did, as its commit file in scratch says too."""

    files: list[InputFile]
    parts: list[PartInfo]
    faults: list[tuple[str, str, str]]
    bytes: int


class Merged(msgspec.Struct, frozen=True):
    """One bucket's distinct ids in scratch, in their final order."""

    path: str
    rows: int


def ingest(
    cluster: Cluster, folder: Folder, inputs: Sequence[InputFile], options: params.Ingest, token: str
) -> tuple[dict[str, TableEntry], StageReport, list[str]]:
    """All tables of the input, written but not yet committed; and the files that were set aside."""
    with cluster.measured() as so_far:
        parts, faults = _decode(cluster, folder, inputs)
        if faults and options.on_bad_file == "stop":
            raise bad_input(faults, "mend or remove the file, or run with --on-bad-file skip")
        merged, codes, cuts = _merge(cluster, folder, parts)
        entries = _finish(cluster, folder, token, parts, merged, codes, cuts)
        folder.remove(*folder.names(SCRATCH))
        seconds, peak = so_far()
    report = StageReport(
        rows=entries["rows"].rows,
        bytes=sum(entry.bytes for entry in entries.values()),
        partitions=len(entries["rows"].files),
        seconds=seconds,
        peak_bytes=peak,
        notes=[f"set aside: {fault}" for fault in faults],
    )
    return entries, report, [fault.file for fault in faults]


# ---------------------------------------------------------------------------------------------------------- decode


def _decode(cluster: Cluster, folder: Folder, inputs: Sequence[InputFile]) -> tuple[list[PartInfo], list[Fault]]:
    """The parts of all inputs, those of an interrupted run among them, and what was wrong."""
    from dask import delayed

    n_buckets = _n_buckets(inputs)
    known = set(inputs)
    done = [found for found in _finished(folder, n_buckets) if known.issuperset(found.files)]
    left = sorted(known - {file for found in done for file in found.files})
    groups = _groups(left, cluster.budget.part_bytes, cluster.n_threads)
    work = [
        delayed(decode_group)(
            group, folder, cluster.budget.part_bytes, n_buckets, dask_key_name=f"decode-{_key(group, n_buckets)}"
        )
        for group in groups
    ]
    if done:
        cluster.progress.say(f"decode: {len(inputs) - len(left)} of {len(inputs)} files are done already")
    results = cluster.compute("decode", work, lambda one: one.bytes, "bytes") if work else []
    faults = [Fault(*fault) for one in results for fault in one.faults]
    parts = [part for one in [*done, *results] for part in one.parts if part.n_playlists]
    return sorted(parts, key=lambda part: (part.first_pid, part.name)), faults


def _n_buckets(inputs: Sequence[InputFile]) -> int:
    return max(1, -(-_size(inputs) // BUCKET_BYTES))


def _size(files: Sequence[InputFile]) -> int:
    return sum(file.bytes * (GZIP_RATIO if file.path.endswith(".gz") else 1) for file in files)


def _groups(files: Sequence[InputFile], part_bytes: int, n_threads: int) -> list[list[InputFile]]:
    """Files in groups of about a part each; smaller where there would be too few to share out evenly."""
    aim = min(part_bytes, -(-_size(files) // (4 * n_threads)))
    groups: list[list[InputFile]] = []
    size = aim
    for file in files:
        if size + _size([file]) / 2 > aim:
            groups.append([])
            size = 0
        groups[-1].append(file)
        size += _size([file])
    return groups


def _key(group: Sequence[InputFile], n_buckets: int) -> str:
    return fingerprint(list(group), n_buckets)


def _finished(folder: Folder, n_buckets: int) -> list[Decoded]:
    """What decoding tasks of an interrupted run committed."""
    found = []
    for name in folder.names(SCRATCH):
        if name.endswith(f".{n_buckets}.json"):
            try:
                found.append(msgspec.json.decode(folder.read(name), type=Decoded))
            except msgspec.MsgspecError:
                continue  # of another version: its files are decoded again
    return found


def decode_group(group: Sequence[InputFile], folder: Folder, part_bytes: int, n_buckets: int) -> Decoded:
    """The task: some slices to parts in scratch, and a commit file that names them."""
    key = _key(group, n_buckets)
    parts: list[PartInfo] = []
    faults: list[Fault] = []
    for found in mpd.read([file.path for file in group], part_bytes):
        if isinstance(found, Fault):
            faults.append(found)
            parts = [part for part in parts if part.files != (found.file,)]
        else:
            parts.append(_write_part(found, folder, f"{key}-{len(parts):03d}", n_buckets))
    wrong = {fault.file for fault in faults}
    good = [file for file in group if file.path not in wrong]
    decoded = Decoded(
        good, parts, [(fault.file, fault.where, fault.message) for fault in faults], sum(f.bytes for f in group)
    )
    if good:
        folder.write(f"{SCRATCH}/{key}.{n_buckets}.json", msgspec.json.encode(decoded))
    return decoded


def _write_part(part: Part, folder: Folder, name: str, n_buckets: int) -> PartInfo:
    words, buckets = {}, {}
    rows = part.rows
    for kind, column in (("artists", 2), ("tracks", 3)):
        vocabulary: pa.Table = getattr(part, kind)
        words[kind] = words_for(vocabulary["id"])
        bucket = bucket_of(keys(vocabulary["id"], words[kind]), n_buckets)
        buckets[kind] = np.concatenate([[0], np.cumsum(np.bincount(bucket, minlength=n_buckets))]).tolist()
        if n_buckets > 1:
            by_bucket = np.argsort(bucket, kind="stable")
            vocabulary = vocabulary.take(int64(by_bucket))
            place = np.empty(len(by_bucket), np.int32)
            place[by_bucket] = np.arange(len(by_bucket), dtype=np.int32)
            rows = rows.set_column(column, rows.column_names[column], int32(place[values(rows[column])]))
        _write_groups(folder, f"{SCRATCH}/{name}-{kind}.parquet", vocabulary, buckets[kind])
    tables.write_file(folder, f"{SCRATCH}/{name}-playlists.parquet", part.playlists, **tables.NO_DICTIONARY)
    tables.write_file(
        folder,
        f"{SCRATCH}/{name}-rows.parquet",
        rows,
        row_group=GROUP_ROWS,
        **tables.NO_DICTIONARY | {"write_statistics": ["pid"]},
    )
    pid = values(part.playlists["pid"])
    return PartInfo(
        name,
        part.files,
        len(pid),
        rows.num_rows,
        int(pid[0]) if len(pid) else 0,
        int(pid[-1]) if len(pid) else 0,
        words,
        buckets,
    )


def _write_groups(folder: Folder, path: str, table: pa.Table, starts: Sequence[int]) -> None:
    """A table with one row group a bucket, empty ones left out."""
    groups = [table.slice(start, end - start) for start, end in itertools.pairwise(starts) if end > start]
    tables.write_groups(folder, path, groups or [table], **tables.NO_DICTIONARY)


# ----------------------------------------------------------------------------------------------------------- merge


def _merge(
    cluster: Cluster, folder: Folder, parts: Sequence[PartInfo]
) -> tuple[dict[str, list[Merged]], dict[str, list[Any]], list[int]]:
    """Per kind the merged buckets and, a bucket, its ids' codes (kept on the workers); and the pids at which the
    final partitions start. Raises `InputError` for a pid in two files."""
    from dask import delayed

    words = {kind: max((part.words[kind] for part in parts), default=1) for kind in KINDS}
    n_buckets = len(parts[0].buckets["artists"]) - 1 if parts else 1
    shared = delayed(list(parts), name=f"parts-{fingerprint([part.name for part in parts])}", pure=True)
    name = fingerprint([part.name for part in parts])
    work = [
        delayed(merge_bucket)(folder, kind, bucket, shared, words[kind], dask_key_name=f"merge-{kind}-{bucket}-{name}")
        for kind in KINDS
        for bucket in range(n_buckets)
    ]
    check = delayed(check_pids)(
        folder, shared, _partition_rows(parts, cluster.n_threads), dask_key_name=f"check_pids-{name}"
    )
    *merged, (twice, cuts) = cluster.compute("merge", [*work, check])
    if twice:
        raise bad_input([Fault(*one) for one in twice], "remove one of the two files")
    by_kind = {"artists": merged[:n_buckets], "tracks": merged[n_buckets:]}
    codes = {
        kind: delayed(rank, nout=n_buckets)(
            folder, kind, by_kind[kind], words[kind], dask_key_name=f"rank-{kind}-{name}"
        )
        for kind in KINDS
    }
    return by_kind, codes, cuts


def merge_bucket(folder: Folder, kind: str, bucket: int, parts: Sequence[PartInfo], words: int) -> Merged:
    """The task: one hash bucket of all parts' vocabularies -> its distinct ids, their sums and first attributes."""
    import pyarrow as pa

    index = Index(words)
    sums = np.zeros((0, 2), np.int64)  # mentions, playlists
    first = np.zeros((0, 3), np.int64)  # pid, part, row of the first entry
    for number, part in enumerate(parts):
        found = _bucket(folder, part, kind, bucket, ["id", "n_mentions", "n_playlists", "first_pid"])
        if found is None:
            continue
        places = index.add(keys(found["id"], words))
        sums = _grown(sums, index.n, 0)
        first = _grown(first, index.n, np.iinfo(np.int64).max)
        sums[places, 0] += values(found["n_mentions"])  # an id is in a part once: no place repeats
        sums[places, 1] += values(found["n_playlists"])
        pid = values(found["first_pid"])
        earlier = np.flatnonzero(pid < first[places, 0])
        first[places[earlier]] = np.stack([pid[earlier], np.full(len(earlier), number), earlier], 1)

    pieces, owners = [], []
    by_part = np.lexsort((first[: index.n, 2], first[: index.n, 1]))
    starts = np.searchsorted(first[by_part, 1], np.arange(len(parts) + 1))
    for number, part in enumerate(parts):
        mine = by_part[starts[number] : starts[number + 1]]
        if len(mine):
            found = _bucket(folder, part, kind, bucket, None)
            assert found is not None
            pieces.append(found.drop_columns(["n_mentions", "n_playlists", "first_pid"]).take(int64(first[mine, 2])))
            owners.append(mine)
    path = f"{SCRATCH}/merged-{kind}-{bucket:04d}.parquet"
    if not pieces:
        return Merged(path, 0)
    owner = np.concatenate(owners)
    final = order(index.keys[owner], sums[owner, 0])
    table = pa.concat_tables(pieces).take(int64(final))
    table = table.append_column("n_mentions", int64(sums[owner[final], 0]))
    table = table.append_column("n_playlists", int64(sums[owner[final], 1]))
    tables.write_file(folder, path, table, row_group=GROUP_ROWS, **tables.NO_DICTIONARY)
    return Merged(path, table.num_rows)


def _bucket(folder: Folder, part: PartInfo, kind: str, bucket: int, columns: list[str] | None) -> pa.Table | None:
    starts = part.buckets[kind]
    if starts[bucket] == starts[bucket + 1]:
        return None
    group = sum(starts[b] < starts[b + 1] for b in range(bucket))
    with tables.open_parquet(folder, part.path(kind)) as file:
        return file.read_row_group(group, columns=columns, use_threads=False)


def _grown(array: NDArray[np.int64], n: int, fill: int) -> NDArray[np.int64]:
    """`array` with room for n rows (and some more, so that growing is rare); new ones hold `fill`."""
    if n <= len(array):
        return array
    grown = np.full((max(n, int(len(array) * 1.5)), array.shape[1]), fill, np.int64)
    grown[: len(array)] = array
    return grown


def check_pids(
    folder: Folder, parts: Sequence[PartInfo], partition_rows: int
) -> tuple[list[tuple[str, str, str]], list[int]]:
    """The task: pids in two files as faults, and the pids at which partitions of some `partition_rows` start.

    Where the parts' pids do not overlap, partitions start where parts do, and every part is read once.
    """
    found = [tables.read_file(folder, part.path("playlists"), ["pid", "n_entries", "file"]) for part in parts]
    pid = np.concatenate([values(table["pid"]) for table in found] or [np.zeros(0, np.int64)])
    rows = np.concatenate([values(table["n_entries"]) for table in found] or [np.zeros(0, np.int64)])
    by_pid = np.argsort(pid, kind="stable")
    faults = []
    starts = np.cumsum([0, *(part.n_playlists for part in parts)])
    for again in np.flatnonzero(np.diff(pid[by_pid]) == 0):
        names = []
        for place in by_pid[again : again + 2]:
            number = int(np.searchsorted(starts, place, side="right")) - 1
            names.append(parts[number].files[found[number]["file"][int(place - starts[number])].as_py()])
        first, second = sorted(names)
        faults.append((second, f"pid {pid[by_pid[again]]}", f"is there twice, first in {first}"))

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


def _partition_rows(parts: Sequence[PartInfo], n_threads: int) -> int:
    total = sum(part.n_rows for part in parts)
    return max(1, min(PARTITION_ROWS, total // (2 * n_threads)))


def rank(folder: Folder, kind: str, merged: Sequence[Merged], words: int) -> list[NDArray[np.int32]]:
    """The task: the order over all buckets. Writes the ids in it, so that an id's row is its code; returns, a
    bucket, the codes of its rows, which rise, since a bucket is in the same order."""
    import pyarrow as pa

    found = [tables.read_file(folder, one.path, ["id", "n_mentions"]) for one in merged if one.rows]
    if found:
        both = pa.concat_tables(found).combine_chunks()
        by_rank = order(keys(both["id"], words), values(both["n_mentions"]))
        ids = both.select(["id"]).take(int64(by_rank))
    else:
        by_rank = np.zeros(0, np.int64)
        ids = pa.schema([("id", pa.string())]).empty_table()
    tables.write_file(folder, _codes_path(kind), ids, **tables.NO_DICTIONARY)
    codes = np.empty(len(by_rank), np.int32)
    codes[by_rank] = np.arange(len(by_rank), dtype=np.int32)
    return np.split(codes, np.cumsum([one.rows for one in merged])[:-1])


def _codes_path(kind: str) -> str:
    return f"{SCRATCH}/codes-{kind}.parquet"


_loading = threading.Lock()


@functools.lru_cache(maxsize=2)
def _load_codes(folder: Folder, kind: str, name: str) -> Index:
    ids = tables.read_file(folder, _codes_path(kind))["id"]
    index = Index(words_for(ids))
    index.add(keys(ids, index.words))
    return index


def codes_of(folder: Folder, kind: str, name: str) -> Index:
    """Every id of a kind with its code as place: read once a worker, and kept there until the stage ends.

    `name` tells one ingest's codes from another's.
    """
    with _loading:
        return _load_codes(folder, kind, name)


def forget_codes() -> None:
    _load_codes.cache_clear()


# ---------------------------------------------------------------------------------------------------------- finish


def _finish(
    cluster: Cluster,
    folder: Folder,
    token: str,
    parts: Sequence[PartInfo],
    merged: dict[str, list[Merged]],
    codes: dict[str, Any],
    cuts: Sequence[int],
) -> dict[str, TableEntry]:
    from dask import delayed

    work = []
    for kind in KINDS:
        n = sum(one.rows for one in merged[kind])
        for number, start in enumerate(range(0, max(n, 1), VOCABULARY_ROWS)):
            work.append(
                delayed(write_vocabulary)(
                    folder,
                    token,
                    kind,
                    number,
                    (start, min(start + VOCABULARY_ROWS, n)),
                    merged[kind],
                    codes[kind],
                    codes["artists"],
                    dask_key_name=f"write-{kind}-{number}-{token}",
                )
            )
    n_vocabulary = len(work)
    ends = [*cuts[1:], None]
    for number, (start, end) in enumerate(zip(cuts or [0], ends, strict=False)):
        mine = [part for part in parts if part.last_pid >= start and (end is None or part.first_pid < end)]
        work.append(
            delayed(recode)(
                folder, token, number, start, end, mine, list(codes.values()), dask_key_name=f"recode-{number}-{token}"
            )
        )
    results = cluster.compute("recode", work, lambda files: files[-1].rows, "rows")
    cluster.client.run(forget_codes)
    vocabulary = [files[0] for files in results[:n_vocabulary]]
    return {
        "artists": TableEntry([file for file in vocabulary if file.path.startswith("tables/artists/")]),
        "tracks": TableEntry([file for file in vocabulary if file.path.startswith("tables/tracks/")]),
        "playlists": TableEntry([files[0] for files in results[n_vocabulary:]]),
        "rows": TableEntry([files[1] for files in results[n_vocabulary:]]),
    }


def write_vocabulary(
    folder: Folder,
    token: str,
    kind: str,
    number: int,
    span: tuple[int, int],
    merged: Sequence[Merged],
    codes: Sequence[NDArray[np.int32]],
    artists_ranked: Any,
) -> list[FileEntry]:
    """The task: the rows of `artists` or `tracks` whose codes are in `span`. `artists_ranked` is only waited for."""
    import pyarrow as pa

    pieces, places = [], []
    for one, of_bucket in zip(merged, codes, strict=True):
        start, end = np.searchsorted(of_bucket, span).tolist()
        if start < end:
            pieces.append(tables.read_span(folder, one.path, start, end))
            places.append(of_bucket[start:end])
    item = kind[:-1]
    if not pieces:
        from recsys_dask.schemas import of

        return [tables.write_part(folder, kind, token, number, of(kind).arrow().empty_table())]
    place = np.concatenate(places)
    by_code = np.argsort(place)
    table = pa.concat_tables(pieces).take(int64(by_code))
    columns: dict[str, Any] = {item: int32(place[by_code])}
    columns |= {f"{item}_id": table["id"], f"{item}_name": table["name"]}
    if kind == "tracks":
        artists = codes_of(folder, "artists", token)
        columns["artist"] = int32(artists.find(keys(table["artist_id"], artists.words)))
        columns |= {name: table[name] for name in ("album_id", "duration_ms")}
    columns |= {name: table[name] for name in ("n_mentions", "n_playlists")}
    entry = tables.write_part(folder, kind, token, number, pa.table(columns), compression="zstd", use_dictionary=False)
    return [entry]


def recode(
    folder: Folder,
    token: str,
    number: int,
    start: int,
    end: int | None,
    parts: Sequence[PartInfo],
    ranked: Any,
) -> list[FileEntry]:
    """The task: playlists and rows with start ≤ pid < end, by pid, with final codes. `ranked` is only waited for."""
    import pyarrow as pa

    from recsys_dask.schemas import of

    index = {kind: codes_of(folder, kind, token) for kind in KINDS}
    found: dict[str, list[pa.Table]] = {"playlists": [of("playlists").arrow().empty_table()], "rows": []}
    for part in parts:
        playlists = _with_pids(tables.read_file(folder, part.path("playlists")), start, end)
        rows = tables.read_where(folder, part.path("rows"), "pid", start, end)
        rows = _with_pids(rows, start, end)
        for place, kind in ((2, "artists"), (3, "tracks")):
            ids = tables.read_file(folder, part.path(kind), ["id"])["id"]
            code = index[kind].find(keys(ids, index[kind].words))
            rows = rows.set_column(place, kind[:-1], int32(code[values(rows[place])]))
        found["playlists"].append(playlists.drop_columns(["file"]))
        found["rows"].append(rows)
    entries = []
    for name, pieces in found.items():
        table = pa.concat_tables(pieces or [of(name).arrow().empty_table()])
        pid = values(table["pid"])
        if (pid[1:] < pid[:-1]).any():
            table = table.take(int64(np.argsort(pid, kind="stable")))
        options: dict[str, Any] = (
            {"compression": "zstd", "use_dictionary": ["pid"]} if name == "rows" else {"compression": "zstd"}
        )
        entries.append(tables.write_part(folder, name, token, number, table, **options))
    return entries


def _with_pids(table: pa.Table, start: int, end: int | None) -> pa.Table:
    """The rows of a table sorted by pid with start ≤ pid < end."""
    pid = values(table["pid"])
    low = int(np.searchsorted(pid, start))
    high = len(pid) if end is None else int(np.searchsorted(pid, end))
    return table.slice(low, high - low)
