"""The reader of tables (playlist, item[, name]), Parquet or CSV, for users who have no JSON slices.

A playlist's rows may lie anywhere in any file, and playlists that go by texts get their pids by rank among all of them:
such a table means something as a whole only. One task reads it, batch by batch, with temporary files between its
passes, so that its memory depends on the number of playlists but not on the number of rows:

check: each file's rows are looked at; what is wrong; which playlists there are, of how many rows
deal:  every row goes to the range of pids that its playlist belongs to
part:  each range by pid, a playlist's rows in the order of the input
"""

from __future__ import annotations

import os
import tempfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from recsys_dask.arrow import int32, int64, values, whole
from recsys_dask.errors import BudgetError, Fault, StoreError
from recsys_dask.formats.base import Part
from recsys_dask.formats.coding import tally
from recsys_dask.formats.columns import (
    MAX_ITEM_BYTES,
    Integers,
    Wrong,
    batches,
    ids_of_column,
    names_of_column,
    one_line,
)

COPIES, BYTES_PER_ROW = 4, 64
"""Memory of a part: copies of its texts, and for each row its numbers."""

BYTES_PER_PLAYLIST = 64
"""Memory of a playlist beside its id, while they are counted, sorted and looked up."""


def read(
    paths: Sequence[str],
    part_bytes: int,
    *,
    spare_bytes: int | None = None,
    playlist_column: str | None = None,
    item_column: str | None = None,
    name_column: str | None = None,
) -> Iterator[Part | Fault]:
    """A `Reader` as `formats.base` describes it, of all files of an input at once.

    spare_bytes: the memory that the task may take (default: what goes with `part_bytes`). Raises `BudgetError` where
    that is too little for the playlists, or for one of them; `StoreError` where temporary files find no room.
    """
    asked = {"playlist": playlist_column, "item": item_column, "name": name_column}
    spare_bytes = spare_bytes or 12 * part_bytes
    with tempfile.TemporaryDirectory(prefix="recsys-dask-") as folder:
        files: list[_File] = []
        counts = {kind: _Counts(spare_bytes) for kind in (pa.int64(), pa.string())}
        for number, path in enumerate(paths):
            try:
                file = _checked(path, asked, Spill(Path(folder, f"file-{number}")), spare_bytes)
            except Wrong as wrong:
                yield Fault(path, wrong.where, wrong.message)
                continue
            files.append(file)
            if not file.doubtful:
                counts[file.playlists.schema.field("id").type].add(file.playlists)
                file.playlists = file.playlists.slice(0, 0)
        files, faults = _numbers(files)
        yield from faults
        for file in files:
            counts[file.playlists.schema.field("id").type].add(file.playlists)
        if sum(file.rows.rows for file in files):
            playlists = _all_playlists(files, counts.values(), spare_bytes)
            yield from _parts(files, playlists, Path(folder), part_bytes, spare_bytes)


# ------------------------------------------------------------------------------------------------------------ spill


@dataclass
class Spill:
    """Rows in a temporary file, appended and read back in order; `rows` and `bytes` tell how much went in."""

    path: Path
    rows: int = 0
    bytes: int = 0

    def append(self, table: pa.Table) -> None:
        """Raises `StoreError` where there is no room."""
        try:
            with self.path.open("ab") as file, pa.ipc.new_stream(file, table.schema) as stream:
                stream.write_table(table)
        except OSError as error:
            raise StoreError(
                f"{self.path}: temporary file cannot be written: {error.strerror or error}; make room there, or set "
                "TMPDIR to another folder"
            ) from None
        self.rows += table.num_rows
        self.bytes += table.nbytes

    def tables(self) -> Iterator[pa.Table]:
        if not self.rows:
            return
        size = self.path.stat().st_size
        with pa.OSFile(str(self.path)) as file:
            while file.tell() < size:
                yield pa.ipc.open_stream(file).read_all()

    def whole(self) -> pa.Table:
        table = pa.concat_tables(self.tables())
        os.unlink(self.path)
        return table


# ------------------------------------------------------------------------------------------------------------ check


@dataclass
class _File:
    """A file whose rows are in order: its rows in a spill, its playlists with their numbers of rows."""

    path: str
    names: dict[str, str | None]
    rows: Spill
    playlists: pa.Table
    integers: dict[str, Integers]

    @property
    def doubtful(self) -> bool:
        """Whether it is wrong if other files have nothing but integers too."""
        return any(one.wrong for one in self.integers.values())


def _checked(path: str, asked: dict[str, str | None], spill: Spill, spare_bytes: int) -> _File:
    """One file, looked at from front to back. Raises `Wrong` for the first thing that is wrong with it."""
    counts = _Counts(spare_bytes)
    integers = {"playlist": Integers(), "item": Integers()}
    names: dict[str, str | None] = {}
    row = 1
    try:
        for names, batch in batches(path, asked):
            playlist = ids_of_column(batch["playlist"], names["playlist"], row, None)
            item = ids_of_column(batch["item"], names["item"], row, MAX_ITEM_BYTES)
            for kind, column in (("playlist", playlist), ("item", item)):
                if len(column) and pa.types.is_string(column.type):
                    if path.endswith(".parquet"):
                        integers[kind] = Integers(all=False)
                    else:
                        integers[kind].look(column, row, largest=kind == "playlist")
            columns = {
                "playlist": playlist,
                "item": item.cast(pa.string()),
                "name": names_of_column(batch.get("name"), names["name"], row, len(item)),
            }
            counted = pc.value_counts(playlist)
            counts.add(pa.table({"id": counted.field(0), "n": counted.field(1)}))
            spill.append(pa.table(columns))
            row += len(item)
    except EOFError:
        raise Wrong("", "the compressed file ends early") from None
    except (OSError, zlib.error, pa.ArrowException) as error:
        raise Wrong("", f"cannot be read: {getattr(error, 'strerror', None) or one_line(error)}") from None
    return _File(path, names, spill, counts.table(), integers)


class _Counts:
    """The distinct ids of tables (id, n) that come one after another, each with its sum."""

    def __init__(self, spare_bytes: int):
        self._spare_bytes = spare_bytes
        self._pieces: list[pa.Table] = []
        self._waiting = 0
        self._merged = 0

    def add(self, table: pa.Table) -> None:
        self._pieces.append(table)
        self._waiting += table.num_rows
        if self._waiting > max(self._merged, 1 << 18):
            self.table()

    def table(self) -> pa.Table:
        """id, n: in no order. Raises `BudgetError` for more than fit."""
        summed = pa.concat_tables(self._pieces).group_by("id", use_threads=False).aggregate([("n", "sum")])
        merged = summed.rename_columns({"n_sum": "n"}).select(["id", "n"])
        needed = COPIES * merged["id"].nbytes + BYTES_PER_PLAYLIST * merged.num_rows
        if needed > self._spare_bytes:
            raise BudgetError(
                f"ingest of a table: {merged.num_rows:,} playlists or more need {needed / 1e6:,.0f} MB beside the "
                f"worker's own, more than the {self._spare_bytes / 1e6:,.0f} MB there are: give a higher "
                "--memory-limit"
            )
        self._pieces, self._waiting, self._merged = [merged], 0, merged.num_rows
        return merged

    @property
    def empty(self) -> bool:
        return not self._pieces


def _numbers(files: Sequence[_File]) -> tuple[list[_File], list[Fault]]:
    """The files without those in which a number is none of ours: -1 is a name among names, and wrong among numbers."""
    faults = []
    for kind in ("playlist", "item"):
        if all(file.integers[kind].all for file in files):
            for file in files:
                if wrong := file.integers[kind].wrong:
                    faults.append(Fault(file.path, f"row {wrong[0]:,}, column {file.names[kind]}", wrong[1]))
    bad = {fault.file for fault in faults}
    left = [file for file in files if file.path not in bad]
    return left, [next(fault for fault in faults if fault.file == path) for path in sorted(bad)]


# ------------------------------------------------------------------------------------------------------------- deal


@dataclass
class _Playlists:
    """All playlists by pid: `n_rows` of each, and what they go by, int64 or texts; a text's place is its pid."""

    ids: pa.Array
    n_rows: NDArray[np.int64]

    @property
    def texts(self) -> bool:
        return bool(pa.types.is_string(self.ids.type))

    def pids(self, places: slice | NDArray[np.int64]) -> NDArray[np.int64]:
        return np.arange(len(self.ids))[places] if self.texts else values(self.ids)[places]

    def pid_of(self, column: pa.Array) -> NDArray[np.int64]:
        """The pid of each id."""
        if not self.texts:
            return values(column.cast(pa.int64()))
        return values(pc.index_in(column.cast(pa.string()), value_set=self.ids)).astype(np.int64)


def _all_playlists(files: Sequence[_File], counts: Iterable[_Counts], spare_bytes: int) -> _Playlists:
    """Integers if all files have nothing else, else texts."""
    kind = pa.int64() if all(file.integers["playlist"].all for file in files) else pa.string()
    together = _Counts(spare_bytes)
    for one in counts:
        if not one.empty:
            table = one.table()
            together.add(table.set_column(0, "id", table["id"].cast(kind)))
    table = together.table()
    table = table.take(pc.sort_indices(table["id"]))  # texts by their bytes
    return _Playlists(whole(table["id"]), values(table["n"]))


def _cuts(playlists: _Playlists, row_bytes: int, part_bytes: int, spare_bytes: int) -> list[int]:
    """The places of the playlists at which parts start. Raises `BudgetError` for a playlist that fits into none."""
    most = int(np.argmax(playlists.n_rows))
    needed = int(playlists.n_rows[most]) * row_bytes
    if needed > spare_bytes:
        raise BudgetError(
            f"ingest of a table: playlist {playlists.ids[most].as_py()} has {playlists.n_rows[most]:,} rows; they need "
            f"{needed / 1e6:,.0f} MB beside the worker's own, more than the {spare_bytes / 1e6:,.0f} MB there are: "
            "give a higher --memory-limit"
        )
    room = max(1, 5 * part_bytes // row_bytes)
    behind = np.cumsum(playlists.n_rows)
    cuts, before = [0], 0
    while before + room < behind[-1]:
        place = max(int(np.searchsorted(behind, before + room, side="right")), cuts[-1] + 1)
        if place == len(behind):
            break
        cuts.append(place)
        before = int(behind[place - 1])
    return cuts


def _parts(
    files: Sequence[_File], playlists: _Playlists, folder: Path, part_bytes: int, spare_bytes: int
) -> Iterator[Part]:
    """The good files' rows in parts. A playlist is in one of them; which one depends on the playlists alone."""
    n_rows = sum(file.rows.rows for file in files)
    row_bytes = COPIES * (sum(file.rows.bytes for file in files) // n_rows) + BYTES_PER_ROW
    cuts = _cuts(playlists, row_bytes, part_bytes, spare_bytes)
    starts = playlists.pids(np.array(cuts))
    ranges = [Spill(folder / f"range-{number}") for number in range(len(cuts))]
    for file in files:
        for table in _larger(file.rows.tables(), spare_bytes // 16):
            pid = playlists.pid_of(whole(table["playlist"]))
            table = table.set_column(0, "pid", int64(pid))
            number = np.searchsorted(starts, pid, side="right") - 1
            if (number[1:] < number[:-1]).any():
                by_range = np.argsort(number, kind="stable")
                table, number = table.take(int64(by_range)), number[by_range]
            ends = np.searchsorted(number, np.arange(len(cuts)), side="right")
            begins = np.concatenate([[0], ends[:-1]])
            for one in np.flatnonzero(ends > begins).tolist():
                ranges[one].append(table.slice(begins[one], ends[one] - begins[one]).combine_chunks())
        file.rows.path.unlink(missing_ok=True)
    paths = tuple(file.path for file in files)
    for start, end, spill in zip(cuts, [*cuts[1:], len(playlists.ids)], ranges, strict=True):
        titles = playlists.ids.slice(start, end - start) if playlists.texts else pa.nulls(end - start, pa.string())
        yield _part(spill.whole(), titles, paths)


def _larger(tables: Iterable[pa.Table], least_bytes: int) -> Iterator[pa.Table]:
    """Tables laid end to end to have some `least_bytes` each: looking texts up pays for many at once only."""
    waiting: list[pa.Table] = []
    for table in tables:
        waiting.append(table)
        if sum(one.nbytes for one in waiting) >= least_bytes:
            yield pa.concat_tables(waiting)
            waiting = []
    if waiting:
        yield pa.concat_tables(waiting)


# ------------------------------------------------------------------------------------------------------------- part


def _part(table: pa.Table, titles: pa.Array, paths: tuple[str, ...]) -> Part:
    """Rows (pid, item, name) in the order of the input as a part. titles: the playlists' names, by pid."""
    pid = values(table["pid"])
    if (pid[1:] < pid[:-1]).any():
        table = table.take(int64(np.argsort(pid, kind="stable")))
        pid = values(table["pid"])
    starts = np.flatnonzero(np.diff(pid, prepend=-1))
    ends = np.append(starts[1:], len(pid))
    n_entries = ends - starts
    items = whole(table["item"]).dictionary_encode()
    ids, codes = items.dictionary, values(items.indices)
    mentions, in_playlists, first = tally(codes, ends, len(ids))
    names = pc.coalesce(whole(table["name"]).take(int64(first)), ids)
    counted = {
        "n_mentions": int64(mentions),
        "n_playlists": int64(in_playlists),
        "first_pid": int64(pid[first]),
    }
    n, nothing = len(starts), pa.nulls
    return Part(
        paths,
        pa.table(
            {
                "pid": int64(pid[starts]),
                "name": titles,
                "num_tracks": int64(n_entries),
                "n_entries": int64(n_entries),
                "n_followers": nothing(n, pa.int64()),
                "modified_at": nothing(n, pa.int64()),
                "collaborative": nothing(n, pa.bool_()),
                "file": int32(np.zeros(n, np.int32)),
            }
        ),
        pa.table(
            {
                "pid": int64(pid),
                "pos": int64(np.arange(len(pid)) - np.repeat(starts, n_entries)),
                "artist": int32(codes),
                "track": int32(codes),
            }
        ),
        pa.table({"id": ids, "name": names, **counted}),
        pa.table(
            {
                "id": ids,
                "name": names,
                "artist_id": ids,
                "album_id": nothing(len(ids), pa.string()),
                "duration_ms": nothing(len(ids), pa.int64()),
                **counted,
            }
        ),
    )
