"""JSON slices to the tables `playlists`, `rows`, `artists` and `tracks`. The JSON is read once.

decode: a group of slices -> parts with codes of their own, in scratch; the unit of resuming
merge:  the parts' vocabularies, in hash buckets -> distinct ids with their sums
rank:   all ids in their final order: the place is the code
recode: each part's rows and playlists with the final codes -> the tables
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from recsys_dask import params
from recsys_dask.arrow import int32, int64, values
from recsys_dask.errors import Fault, bad_input
from recsys_dask.formats import mpd
from recsys_dask.formats.merge import Merged, check_pids, codes_of, forget_codes, merge_bucket, rank
from recsys_dask.formats.parts import SCRATCH, PartInfo, decode_group, finished, group_key, n_distinct
from recsys_dask.formats.vocabulary import keys
from recsys_dask.runtime.budget import DECODE_EXPANSION
from recsys_dask.runtime.clusters import Cluster
from recsys_dask.store import tables
from recsys_dask.store.files import Folder
from recsys_dask.store.manifest import FileEntry, InputFile, StageReport, TableEntry, fingerprint

if TYPE_CHECKING:
    import pyarrow as pa

KINDS = ("artists", "tracks")
BUCKET_BYTES = 1_000_000_000
"""Bytes of JSON a hash bucket of the vocabularies."""

DISTINCT_MARGIN = 1.2
"""Above the estimated number of ids."""

MERGE_BYTES_PER_ID, RANK_BYTES_PER_ID, CODE_BYTES_PER_ID = 450, 170, 110
"""Memory an id: of a bucket's table with its attributes, in both orders; of all ids while they are ranked; of the
index that recoding looks them up in."""

RECODE_BYTES_PER_ROW = 90
MERGE_BASE_BYTES = 40_000_000
"""Row groups, metadata and what else does not grow with the input."""

GZIP_RATIO = 8
"""How much a compressed slice is taken to grow, for sharing out the work."""

PARTITION_ROWS = 1 << 19
"""Rows of a partition of the final tables, at most (a playlist is never split)."""

VOCABULARY_ROWS = 1 << 18
"""Rows of a partition of `artists` and `tracks`."""


def ingest(
    cluster: Cluster, folder: Folder, inputs: Sequence[InputFile], options: params.Ingest, token: str
) -> tuple[dict[str, TableEntry], StageReport, list[str]]:
    """All tables of the input, written but not yet committed; and the files that were set aside."""
    with cluster.measured() as so_far:
        parts, faults, decoding = _decode(cluster, folder, inputs)
        if faults and options.on_bad_file == "stop":
            raise bad_input(faults, "mend or remove the file, or run with --on-bad-file skip")
        merging = _check_memory(cluster, parts)
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
        projected_bytes=max(decoding, merging),
        facts={"playlists": entries["playlists"].rows},
        notes=[f"set aside: {fault}" for fault in faults],
    )
    return entries, report, [fault.file for fault in faults]


# ---------------------------------------------------------------------------------------------------------- decode


def _decode(cluster: Cluster, folder: Folder, inputs: Sequence[InputFile]) -> tuple[list[PartInfo], list[Fault], int]:
    """The parts of all inputs, those of an interrupted run among them; what was wrong; the projected memory."""
    from dask import delayed

    n_buckets = _n_buckets(inputs)
    known = set(inputs)
    done = [found for found in finished(folder, n_buckets) if known.issuperset(found.files)]
    left = sorted(known - {file for found in done for file in found.files})
    groups = _groups(left, cluster.budget.part_bytes, cluster.n_threads)
    work = [
        delayed(decode_group)(
            group,
            mpd.read,
            folder,
            cluster.budget.part_bytes,
            n_buckets,
            dask_key_name=f"decode-{group_key(group, n_buckets)}",
        )
        for group in groups
    ]
    if done:
        cluster.progress.say(f"decode: {len(inputs) - len(left)} of {len(inputs)} files are done already")
    results = cluster.compute("decode", work, lambda one: one.bytes, "bytes") if work else []
    faults = [Fault(*fault) for one in results for fault in one.faults]
    parts = [part for one in [*done, *results] for part in one.parts if part.n_playlists]
    budget = cluster.budget
    projected = budget.projected(decode_bytes(groups, budget.part_bytes))
    return sorted(parts, key=lambda part: (part.first_pid, part.name)), faults, projected


def decode_bytes(groups: Sequence[Sequence[InputFile]], part_bytes: int) -> int:
    """What a decoding task needs at most: a part, and the file that made it full."""
    return DECODE_EXPANSION * min(max(map(_size, groups), default=0), 2 * part_bytes)


def _check_memory(cluster: Cluster, parts: Sequence[PartInfo]) -> int:
    """The projected memory of merging and recoding. Raises `BudgetError` where it does not fit."""
    ids = {kind: n_distinct(parts, kind) * DISTINCT_MARGIN for kind in KINDS}
    n_buckets = len(parts[0].buckets["tracks"]) - 1 if parts else 1
    largest = max((part.n_rows for part in parts), default=0)
    merge = ids["tracks"] / n_buckets * MERGE_BYTES_PER_ID
    rank_ = ids["tracks"] * RANK_BYTES_PER_ID
    recode_ = (
        sum(ids.values()) * CODE_BYTES_PER_ID
        + min(largest + PARTITION_ROWS, sum(part.n_rows for part in parts)) * RECODE_BYTES_PER_ROW
    )
    needed = (
        int(max(merge, rank_, recode_, min(ids["tracks"], VOCABULARY_ROWS) * MERGE_BYTES_PER_ID)) + MERGE_BASE_BYTES
    )
    return cluster.budget.check(f"ingest of {sum(ids.values()):,.0f} ids", needed, "")


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


def _partition_rows(parts: Sequence[PartInfo], n_threads: int) -> int:
    total = sum(part.n_rows for part in parts)
    return max(1, min(PARTITION_ROWS, total // (2 * n_threads)))


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
