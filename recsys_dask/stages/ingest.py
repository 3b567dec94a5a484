"""JSON slices to the tables `playlists`, `rows`, `artists` and `tracks`. The JSON is read once.

decode: a group of slices -> parts with codes of their own, in scratch; the unit of resuming
merge:  the parts' vocabularies, in hash buckets -> distinct ids with their sums
rank:   all ids in their final order: the place is the code
recode: each part's rows and playlists with the final codes -> the tables

Where each id of a part is in its bucket, a merge leaves in scratch: recoding looks places up, not ids.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import recsys_dask
from recsys_dask import params
from recsys_dask.errors import Fault, bad_input
from recsys_dask.formats.append import first_pids, rank_onto, update_vocabulary
from recsys_dask.formats.finish import KINDS, recode, write_vocabulary
from recsys_dask.formats.inputs import by_number, format_of
from recsys_dask.formats.memory import DISTINCT_MARGIN, append_bytes, decode_bytes, merge_bytes
from recsys_dask.formats.merge import (
    TWICE,
    Merged,
    check_pids,
    forget_codes,
    merge_bucket,
    rank,
)
from recsys_dask.formats.parts import Decoded, PartInfo, decode_group, finished, group_key, n_distinct, write_list
from recsys_dask.runtime.clusters import Cluster
from recsys_dask.store import tables
from recsys_dask.store.files import Folder
from recsys_dask.store.manifest import FileEntry, InputFile, StageReport, TableEntry, fingerprint

TABLES = ("playlists", "rows", *KINDS)
BUCKET_BYTES = 1_000_000_000
"""Bytes of JSON for which the vocabularies have two hash buckets; four times as many have four. (Of more, the ids
repeat; and every bucket is looked for in every part.)"""

PARTITION_ROWS = 1 << 19
"""Rows of a partition of the final tables, at most (a playlist is never split)."""

VOCABULARY_ROWS = 1 << 18
"""Rows of a partition of `artists` and `tracks`."""


def ingest(
    cluster: Cluster,
    folder: Folder,
    inputs: Sequence[InputFile],
    options: params.Ingest,
    token: str,
    known: dict[str, TableEntry] | None = None,
) -> tuple[dict[str, TableEntry], StageReport, list[str]]:
    """All tables of the input, written but not yet committed; and the files that were set aside.

    known: the tables of a store to which this input is appended.
    """
    with cluster.measured() as so_far:
        parts, faults, decoding, n_strictly = _decode(cluster, folder, inputs, options, token)
        if faults and options.on_bad_file == "stop":
            raise bad_input(faults, "mend or remove the file, or run with --on-bad-file skip")
        merging = _check_memory(cluster, parts, known)
        parts, cuts = _check_pids(cluster, folder, parts, faults, options, token, known)
        if parts or not known:
            merged, codes = _merge(cluster, folder, token, parts, known)
            entries = _finish(cluster, folder, token, parts, merged, codes, cuts, known)
        else:
            entries = {name: known[name] for name in TABLES}
        seconds, peak = so_far()
    report = StageReport(
        rows=entries["rows"].rows,
        bytes=sum(entry.bytes for entry in entries.values()),
        partitions=len(entries["rows"].files),
        seconds=seconds,
        peak_bytes=peak,
        projected_bytes=max(decoding, merging),
        facts={"playlists": entries["playlists"].rows, "strictly_read": n_strictly},
        notes=[f"set aside: {fault}" for fault in sorted(faults)] + _handed_over(n_strictly, len(inputs), options),
    )
    return entries, report, sorted({fault.file for fault in faults})


# ---------------------------------------------------------------------------------------------------------- decode


def _decode(
    cluster: Cluster, folder: Folder, inputs: Sequence[InputFile], options: params.Ingest, token: str
) -> tuple[list[PartInfo], list[Fault], int, int]:
    """The parts of all inputs, those of an interrupted run among them; what was wrong; the projected memory; how many
    files the strict reader had to read."""
    from dask import delayed

    n_buckets = n_buckets_for(inputs)
    form = format_of(inputs)
    reader = form.reader(form.settings(options), cluster.budget.spare_bytes)
    name = _reader_name(inputs, options)
    done = decoded_before(folder, inputs, options)
    left = sorted(set(inputs) - {file for found in done for file in found.files}, key=by_number)
    groups = groups_of(left, cluster.budget.part_bytes, cluster.n_threads)
    work = [
        delayed(decode_group)(
            group,
            reader,
            name,
            folder,
            cluster.budget.part_bytes,
            n_buckets,
            dask_key_name=f"decode-{group_key(group, n_buckets, name, cluster.budget.part_bytes)}-{token}",
        )
        for group in groups
    ]
    if done:
        cluster.progress.say(f"decode: {len(inputs) - len(left)} of {len(inputs)} files are done already")
    results = cluster.compute("decode", work, lambda one: one.bytes, "bytes") if work else []
    faults = [Fault(*fault) for one in results for fault in one.faults]
    parts = [part for one in [*done, *results] for part in one.parts if part.n_playlists]
    budget = cluster.budget
    projected = budget.projected(decode_bytes(max(map(size_of, groups), default=0), budget.part_bytes))
    n_strictly = sum(one.n_strictly for one in [*done, *results])
    return sorted(parts, key=lambda part: (part.first_pid, part.name)), faults, projected, n_strictly


def _handed_over(n_strictly: int, n_files: int, options: params.Ingest) -> list[str]:
    """What the user is told where the scanner left files to the strict reader."""
    if not n_strictly or options.reader == "strict":
        return []
    return [f"{n_strictly:,} of {n_files:,} files have what only the strict reader knows, which is slower"]


def decoded_before(folder: Folder, inputs: Sequence[InputFile], options: params.Ingest) -> list[Decoded]:
    """What interrupted runs decoded of these inputs, in scratch."""
    whole = format_of(inputs).whole
    return finished(folder, n_buckets_for(inputs), _reader_name(inputs, options), inputs, whole)


def _reader_name(inputs: Sequence[InputFile], options: params.Ingest) -> str:
    """Tells parts that another reader, other settings or another version made."""
    form = format_of(inputs)
    return fingerprint(form.name, form.settings(options), recsys_dask.__version__)


def _check_memory(cluster: Cluster, parts: Sequence[PartInfo], known: dict[str, TableEntry] | None) -> int:
    """The projected memory of merging and recoding. Raises `BudgetError` where it does not fit."""
    ids = {kind: int(n_distinct(parts, kind) * DISTINCT_MARGIN) + (known[kind].rows if known else 0) for kind in KINDS}
    n_buckets = len(parts[0].buckets["tracks"]) - 1 if parts else 1
    n_rows = [part.n_rows for part in parts]
    rows = min(max(n_rows, default=0) + PARTITION_ROWS, sum(n_rows))
    playlists = sum(part.n_playlists for part in parts) + (known["playlists"].rows if known else 0)
    needed = merge_bytes(ids, n_buckets, rows, playlists, VOCABULARY_ROWS)
    if known:
        needed = max(needed, append_bytes(ids))
    return cluster.budget.check(f"ingest of {sum(ids.values()):,} ids", needed, "")


def n_buckets_for(inputs: Sequence[InputFile]) -> int:
    """How many hash buckets the vocabularies of an input have."""
    share = size_of(inputs) / BUCKET_BYTES
    return 2 * math.ceil(math.sqrt(share)) if share > 1 / 8 else 1


def size_of(files: Sequence[InputFile]) -> int:
    """About the bytes of JSON that slices of the same content would have."""
    return sum(file.bytes * format_of([file]).growth(file.path) for file in files)


def groups_of(files: Sequence[InputFile], part_bytes: int, n_threads: int) -> list[list[InputFile]]:
    """Files in groups of about two parts each, since only a group's first file is waited for; smaller where there would
    be too few to share out evenly. Those of a format that reads them as a whole make one group."""
    if files and format_of(files).whole:
        return [list(files)]
    aim = min(2 * part_bytes, -(-size_of(files) // (8 * n_threads)))
    groups: list[list[InputFile]] = []
    size = aim
    for file in files:
        if not groups or size + size_of([file]) / 2 > aim:
            groups.append([])
            size = 0
        groups[-1].append(file)
        size += size_of([file])
    return groups


# ----------------------------------------------------------------------------------------------------------- merge


def _merge(
    cluster: Cluster, folder: Folder, token: str, parts: Sequence[PartInfo], known: dict[str, TableEntry] | None
) -> tuple[dict[str, list[Merged]], dict[str, list[Any]]]:
    """Per kind the merged buckets and, a bucket, its ids' codes (kept on the workers)."""
    from dask import delayed

    words = {kind: max((part.words[kind] for part in parts), default=1) for kind in KINDS}
    n_buckets = len(parts[0].buckets["artists"]) - 1 if parts else 1
    n_ids = {kind: int(n_distinct(parts, kind) * DISTINCT_MARGIN) // n_buckets for kind in KINDS}
    write_list(folder, token, parts)
    longest_first = [(kind, bucket) for kind in reversed(KINDS) for bucket in range(n_buckets)]
    work = [
        delayed(merge_bucket)(
            folder,
            token,
            kind,
            bucket,
            words[kind],
            n_ids[kind],
            dask_key_name=f"merge-{kind}-{bucket}-{token}",
        )
        for kind, bucket in longest_first
    ]
    merged = dict(zip(longest_first, cluster.compute("merge", work), strict=True))
    by_kind = {kind: [merged[kind, bucket] for bucket in range(n_buckets)] for kind in KINDS}
    codes = {}
    for kind in KINDS:
        key = f"rank-{kind}-{token}"
        if known:
            work = [delayed(rank_onto)(folder, token, kind, by_kind[kind], known[kind].files, dask_key_name=key)]
            (codes[kind],) = cluster.persist(work)
        else:
            codes[kind] = delayed(rank)(folder, token, kind, by_kind[kind], words[kind], dask_key_name=key)
    return by_kind, codes


def _check_pids(
    cluster: Cluster,
    folder: Folder,
    parts: list[PartInfo],
    faults: list[Fault],
    options: params.Ingest,
    token: str,
    known: dict[str, TableEntry] | None,
) -> tuple[list[PartInfo], list[int]]:
    """The parts to go on with, and the pids at which the final partitions start; `faults` gets those set aside.

    A pid twice in one file is that file's fault. Raises `InputError` for a pid in two files: which one is wrong, only
    the user knows.
    """
    from dask import delayed

    while True:
        names = [part.name for part in parts]
        check = delayed(check_pids)(
            folder,
            delayed(parts, traverse=False),
            _partition_rows(parts, cluster.n_threads),
            known["playlists"].files if known else [],
            dask_key_name=f"check_pids-{fingerprint(names)}-{token}",
        )
        ((twice, cuts),) = cluster.compute("pids", [check])
        if not twice:
            return parts, cuts
        found = [Fault(*one) for one in twice]
        alone = {fault.file for fault in found if fault.message == TWICE}
        if options.on_bad_file == "stop" or not alone:
            raise bad_input(found, "take one of them away")
        faults += [fault for fault in found if fault.file in alone]
        parts = [part for part in parts if alone.isdisjoint(part.files)]


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
    known: dict[str, TableEntry] | None,
) -> dict[str, TableEntry]:
    from dask import delayed

    work = []
    for kind in KINDS:
        if known:
            work += _updates(cluster, folder, token, kind, parts, merged[kind], codes, known)
            continue
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
    buckets = delayed(merged, traverse=False, name=f"merged-{token}")
    for number, (start, end) in enumerate(zip(cuts or [0], ends, strict=False)):
        mine = [
            (place, part)
            for place, part in enumerate(parts)
            if part.last_pid >= start and (end is None or part.first_pid < end)
        ]
        work.append(
            delayed(recode)(
                folder, token, number, start, end, mine, buckets, codes, dask_key_name=f"recode-{number}-{token}"
            )
        )
    results = cluster.compute("recode", work, lambda files: files[-1].rows, "rows")
    cluster.everywhere(forget_codes)
    vocabulary = [files[0] for files in results[:n_vocabulary]]
    before: dict[str, list[FileEntry]] = {name: known[name].files if known else [] for name in ("playlists", "rows")}
    return {
        "artists": TableEntry([file for file in vocabulary if file.path.startswith("tables/artists/")]),
        "tracks": TableEntry([file for file in vocabulary if file.path.startswith("tables/tracks/")]),
        "playlists": TableEntry(before["playlists"] + [files[0] for files in results[n_vocabulary:]]),
        "rows": TableEntry(before["rows"] + [files[1] for files in results[n_vocabulary:]]),
    }


def _updates(
    cluster: Cluster,
    folder: Folder,
    token: str,
    kind: str,
    parts: Sequence[PartInfo],
    merged: Sequence[Merged],
    codes: dict[str, Any],
    known: dict[str, TableEntry],
) -> list[Any]:
    """The tasks that bring a vocabulary up to date, one a partition of it."""
    from dask import delayed

    (of_bucket,) = cluster.compute("append", [codes[kind]])
    n_known = known[kind].rows
    n = max([n_known - 1, *(int(one.max()) for one in of_bucket if len(one))]) + 1
    last = max(int(tables.column_range(folder, file.path, "pid")[1]) for file in known["playlists"].files if file.rows)
    first = None
    if min(part.first_pid for part in parts) < last:
        first = delayed(first_pids)(folder, kind, known["rows"].files, n_known, dask_key_name=f"first-{kind}-{token}")
    return [
        delayed(update_vocabulary)(
            folder,
            token,
            kind,
            number,
            (start, min(start + VOCABULARY_ROWS, n)),
            known[kind].files,
            merged,
            codes[kind],
            codes["artists"],
            first,
            dask_key_name=f"write-{kind}-{number}-{token}",
        )
        for number, start in enumerate(range(0, n, VOCABULARY_ROWS))
    ]
