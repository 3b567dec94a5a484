"""The reader of tables (playlist, item[, name]), Parquet or CSV, for users who have no JSON slices.

A playlist's rows may lie anywhere in any file, and playlists that go by texts get their pids by rank among all of them:
such a table means something as a whole only. One task reads it, batch by batch, with temporary files between its
passes, so that its memory depends on the number of playlists but not on the number of rows:

check: each file's rows are looked at; what is wrong; which playlists there are, of how many rows
deal:  every row goes to the range of pids that its playlist belongs to
part:  each range by pid, a playlist's rows in the order of the input
"""

from __future__ import annotations

import csv
import io
import os
import tempfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from recsys_dask.arrow import int32, int64, values, whole
from recsys_dask.errors import BudgetError, Fault, StoreError
from recsys_dask.formats.base import Part
from recsys_dask.formats.coding import tally
from recsys_dask.formats.inputs import open_plain

COLUMNS = {
    "playlist": ("playlist", "pid", "user", "user_id"),
    "item": ("item", "artist", "artist_id", "item_id", "track_id"),
    "name": ("name", "artist_name", "item_name"),
}
"""What a column is for, and its names: the first of these that a file has is taken, unless the user names one."""

MAX_ITEM_BYTES = 64
LARGEST_PID = 2**63 - 1
BATCH_ROWS = 1 << 16
CSV_BLOCK_BYTES = 1 << 20
"""What pyarrow parses at once; it reads up to 32 of these ahead."""

COPIES, BYTES_PER_ROW = 4, 64
"""Memory of a part: copies of its texts, and for each row its numbers."""

BYTES_PER_PLAYLIST = 64
"""Memory of a playlist beside its id, while they are counted, sorted and looked up."""


class Wrong(Exception):
    """What is wrong with a file, and where."""

    def __init__(self, where: str, message: str):
        self.where, self.message = where, message


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
        for number, path in enumerate(paths):
            try:
                files.append(_checked(path, asked, Spill(Path(folder, f"file-{number}")), spare_bytes))
            except Wrong as wrong:
                yield Fault(path, wrong.where, wrong.message)
        files, faults = _numbers(files)
        yield from faults
        if files:
            yield from _parts(files, Path(folder), part_bytes, spare_bytes)


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
class _Integers:
    """Whether a column holds whole numbers only, as far as its file tells (CSV knows no types: all its texts look like
    it); the first that none of ours may be, and its row."""

    all: bool = True
    wrong: tuple[int, str] | None = None

    def look(self, column: pa.Array, first_row: int, largest: bool) -> None:
        if not self.all:
            return
        if not pc.all(pc.match_substring_regex(column, r"^(0|-?[1-9][0-9]*)$")).as_py():
            self.all, self.wrong = False, None
            return
        if self.wrong is None:
            tests = [(pc.starts_with(column, "-"), "is negative")]
            if largest:
                length, most = pc.binary_length(column), str(LARGEST_PID)
                same = pc.and_(pc.equal(length, len(most)), pc.greater(column, most))
                tests.append((pc.or_(pc.greater(length, len(most)), same), "is above 2⁶³−1"))
            found = _first(tests)
            if found:
                self.wrong = first_row + found[0], f"{found[1]}: {column[found[0]].as_py()}"


@dataclass
class _File:
    """A file whose rows are in order: its rows in a spill, its playlists with their numbers of rows."""

    path: str
    names: dict[str, str | None]
    rows: Spill
    playlists: pa.Table
    integers: dict[str, _Integers]


def _checked(path: str, asked: dict[str, str | None], spill: Spill, spare_bytes: int) -> _File:
    """One file, looked at from front to back. Raises `Wrong` for the first thing that is wrong with it."""
    counts = _Counts(spare_bytes)
    integers = {"playlist": _Integers(), "item": _Integers()}
    names: dict[str, str | None] = {}
    row = 1
    try:
        for names, batch in _batches(path, asked):
            playlist = _ids(batch["playlist"], names["playlist"], row, None)
            item = _ids(batch["item"], names["item"], row, MAX_ITEM_BYTES)
            for kind, column in (("playlist", playlist), ("item", item)):
                if len(column) and pa.types.is_string(column.type):
                    if path.endswith(".parquet"):
                        integers[kind] = _Integers(all=False)
                    else:
                        integers[kind].look(column, row, largest=kind == "playlist")
            columns = {
                "playlist": playlist,
                "item": item.cast(pa.string()),
                "name": _names(batch.get("name"), names["name"], row, len(item)),
            }
            counts.add(playlist)
            spill.append(pa.table(columns))
            row += len(item)
    except EOFError:
        raise Wrong("", "the compressed file ends early") from None
    except (OSError, zlib.error, pa.ArrowException) as error:
        raise Wrong("", f"cannot be read: {getattr(error, 'strerror', None) or _one_line(error)}") from None
    return _File(path, names, spill, counts.table(), integers)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _batches(path: str, asked: dict[str, str | None]) -> Iterator[tuple[dict[str, str | None], dict[str, pa.Array]]]:
    """What each column is called, and the columns of some rows, as they stand in the file; at least one batch."""
    if path.endswith(".parquet"):
        yield from _parquet_batches(path, asked)
    else:
        yield from _csv_batches(path, asked)


def _parquet_batches(
    path: str, asked: dict[str, str | None]
) -> Iterator[tuple[dict[str, str | None], dict[str, pa.Array]]]:
    import pyarrow.parquet as pq

    # A local file is read as it goes. Of a remote one, where every read is a request, a row group is fetched at once.
    how: dict[str, Any] = {"pre_buffer": True} if "://" in path else {"buffer_size": 1 << 20, "pre_buffer": False}
    with open_plain(path) as stream, pq.ParquetFile(stream, **how) as file:
        names = _chosen(file.schema_arrow.names, asked)
        wanted = {kind: name for kind, name in names.items() if name is not None}
        for kind, name in wanted.items():
            _check_type(file.schema_arrow.field(name).type, kind, name)
        yield names, {kind: pa.nulls(0, file.schema_arrow.field(name).type) for kind, name in wanted.items()}
        columns = sorted(set(wanted.values()))
        for group in range(file.num_row_groups):
            for batch in file.iter_batches(BATCH_ROWS, row_groups=[group], columns=columns, use_threads=False):
                yield names, {kind: batch.column(name) for kind, name in wanted.items()}


def _csv_batches(
    path: str, asked: dict[str, str | None]
) -> Iterator[tuple[dict[str, str | None], dict[str, pa.Array]]]:
    import pyarrow.csv as pcsv

    with open_plain(path, ahead=True) as stream:
        try:
            text = io.TextIOWrapper(stream, "utf-8-sig", "surrogateescape", newline="")
            header = next(csv.reader(text), None)
            "".join(header or []).encode()
        except UnicodeEncodeError:
            raise Wrong("header", "is not UTF-8") from None
        except csv.Error as error:
            raise Wrong("header", f"not CSV: {error}") from None
    if not header:
        raise Wrong("", "is empty: a CSV file starts with the names of its columns")
    names = _chosen(header, asked)
    wanted = {kind: name for kind, name in names.items() if name is not None}
    yield names, {kind: pa.nulls(0, pa.string()) for kind in wanted}
    ragged: list[Wrong] = []

    def refuse(row: Any) -> str:
        message = f"has {row.actual_columns} columns, expected {row.expected_columns}: {row.text[:60]!r}"
        ragged.append(Wrong(f"row {row.number - 1:,}", message))  # pyarrow counts the header
        return "error"

    row = 1
    with open_plain(path, ahead=True) as stream:
        try:
            for batch in pcsv.open_csv(
                stream,
                pcsv.ReadOptions(use_threads=False, block_size=CSV_BLOCK_BYTES),
                pcsv.ParseOptions(newlines_in_values=True, invalid_row_handler=refuse),
                pcsv.ConvertOptions(
                    include_columns=sorted(set(wanted.values())),
                    column_types={name: pa.string() for name in wanted.values()},
                    check_utf8=False,  # `_plain` does, and can tell the row
                ),
            ):
                row += batch.num_rows
                yield names, {kind: batch.column(name) for kind, name in wanted.items()}
        except pa.ArrowInvalid as error:
            raise ragged[0] if ragged else Wrong(f"behind row {row - 1:,}", _one_line(error)) from None


def _chosen(there: Sequence[str], asked: dict[str, str | None]) -> dict[str, str | None]:
    """The file's column of each kind, by the user's word or by its name. Raises `Wrong` for one that it lacks."""
    chosen: dict[str, str | None] = {}
    for kind, usual in COLUMNS.items():
        given = asked[kind]
        name = given if given is not None else next((one for one in usual if one in there), None)
        columns = ", ".join(there) or "none"
        if given is not None and given not in there:
            raise Wrong("", f"has no column {given}; its columns are {columns}")
        if name is None and kind != "name":
            known = f"{', '.join(usual[:-1])} or {usual[-1]}"
            raise Wrong("", f"has no column {known}: name it with --{kind}-column; its columns are {columns}")
        if name is not None and list(there).count(name) > 1:
            raise Wrong("", f"has the column {name} {list(there).count(name)} times; its columns are {columns}")
        chosen[kind] = name
    return chosen


def _check_type(kind_of: pa.DataType, kind: str, name: str) -> None:
    if pa.types.is_dictionary(kind_of):
        kind_of = kind_of.value_type
    text = pa.types.is_string(kind_of) or pa.types.is_large_string(kind_of) or pa.types.is_string_view(kind_of)
    if text or pa.types.is_integer(kind_of) or pa.types.is_null(kind_of):
        return
    hint = " (pandas turns integers with gaps into floats)" if pa.types.is_floating(kind_of) else ""
    raise Wrong(f"column {name}", f"holds {kind_of}: give text or integers{hint}")


def _plain(column: pa.Array, name: str | None, first_row: int) -> pa.Array:
    """A column as string or int64. Raises `Wrong` for texts that are none and numbers that do not fit."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_integer(column.type):
        if pa.types.is_uint64(column.type):
            _refuse(
                [(pc.greater(column, pa.scalar(LARGEST_PID, pa.uint64())), "is above 2⁶³−1")], column, name, first_row
            )
        return column.cast(pa.int64())
    column = column.cast(pa.string())
    try:
        column.validate(full=True)
    except pa.ArrowInvalid:
        for place in range(len(column)):
            try:
                column[place].as_py()
            except UnicodeDecodeError:
                raise Wrong(f"row {first_row + place:,}, column {name}", "is not UTF-8") from None
        raise
    return column


def _ids(column: pa.Array, name: str | None, first_row: int, longest: int | None) -> pa.Array:
    """Playlists or items, each of them there and in order. Raises `Wrong` for the first that is not."""
    _refuse([(pc.is_null(column), "is null")], column, name, first_row, show=False)
    column = _plain(column, name, first_row)
    if pa.types.is_integer(column.type):
        _refuse([(pc.less(column, 0), "is negative")], column, name, first_row)
        return column
    length = pc.binary_length(column)
    tests = [(pc.equal(length, 0), "is empty")]
    if longest is not None:
        tests.append((pc.greater(length, longest), f"is longer than {longest} bytes"))
        tests.append((pc.match_substring(column, "\x00"), "holds a NUL character"))
    _refuse(tests, column, name, first_row)
    return column


def _names(column: pa.Array | None, name: str | None, first_row: int, n: int) -> pa.Array:
    """The items' names: null where there is none, or an empty one, as CSV has it."""
    if column is None:
        return pa.nulls(n, pa.string())
    column = _plain(column, name, first_row).cast(pa.string())
    return pc.if_else(pc.equal(pc.binary_length(column), 0), pa.scalar(None, pa.string()), column)


def _first(tests: Iterable[tuple[pa.Array, str]]) -> tuple[int, str] | None:
    """The first place at which one of some tests holds, and what that one says."""
    found = [(pc.index(held, True).as_py(), message) for held, message in tests]
    return min(((place, message) for place, message in found if place >= 0), default=None)


def _refuse(
    tests: Sequence[tuple[pa.Array, str]], column: pa.Array, name: str | None, first_row: int, show: bool = True
) -> None:
    found = _first(tests)
    if found:
        place, message = found
        value = f": {str(column[place].as_py())[:80]!r}" if show and message != "is empty" else ""
        raise Wrong(f"row {first_row + place:,}, column {name}", message + value)


class _Counts:
    """The distinct values of a column that comes in pieces, each with its number of rows."""

    def __init__(self, spare_bytes: int):
        self._spare_bytes = spare_bytes
        self._pieces: list[pa.Table] = []
        self._waiting = 0
        self._merged = 0

    def add(self, column: pa.Array) -> None:
        counted = pc.value_counts(column)
        self._pieces.append(pa.table({"id": counted.field(0), "n": counted.field(1)}))
        self._waiting += len(counted)
        if self._waiting > max(self._merged, 1 << 18):
            self.table()

    def table(self) -> pa.Table:
        """id, n: in no order. Raises `BudgetError` for more than fit."""
        merged = _summed(self._pieces)
        _check_playlists(merged, self._spare_bytes)
        self._pieces, self._waiting, self._merged = [merged], 0, merged.num_rows
        return merged


def _summed(pieces: Sequence[pa.Table]) -> pa.Table:
    table = pa.concat_tables(pieces)
    summed = table.group_by("id", use_threads=False).aggregate([("n", "sum")])
    return summed.rename_columns({"n_sum": "n"}).select(["id", "n"])


def _check_playlists(table: pa.Table, spare_bytes: int) -> None:
    needed = COPIES * table["id"].nbytes + BYTES_PER_PLAYLIST * table.num_rows
    if needed > spare_bytes:
        raise BudgetError(
            f"ingest of a table: {table.num_rows:,} playlists or more need {needed / 1e6:,.0f} MB beside the worker's "
            f"own, more than the {spare_bytes / 1e6:,.0f} MB there are: give a higher --memory-limit"
        )


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


def _all_playlists(files: Sequence[_File], spare_bytes: int) -> _Playlists:
    kind = pa.int64() if all(file.integers["playlist"].all for file in files) else pa.string()
    pieces = [file.playlists.set_column(0, "id", file.playlists["id"].cast(kind)) for file in files]
    table = _summed(pieces)
    _check_playlists(table, spare_bytes)
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


def _parts(files: Sequence[_File], folder: Path, part_bytes: int, spare_bytes: int) -> Iterator[Part]:
    """The good files' rows in parts. A playlist is in one of them; which one depends on the playlists alone."""
    n_rows = sum(file.rows.rows for file in files)
    if not n_rows:
        return
    playlists = _all_playlists(files, spare_bytes)
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
