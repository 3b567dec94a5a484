"""The columns of a table of (playlist, item[, name]): which they are, and that they hold what they should.

A file is read batch by batch, a CSV file as texts and a Parquet file with its types; whatever is wrong names its row.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

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


Batch = tuple[dict[str, str | None], dict[str, pa.Array]]
"""What each column is called in the file, and the columns of some rows."""


class Wrong(Exception):
    """What is wrong with a file, and where."""

    def __init__(self, where: str, message: str):
        self.where, self.message = where, message


def batches(path: str, asked: dict[str, str | None]) -> Iterator[Batch]:
    """What each column is called, and the columns of some rows, as they stand in the file; at least one batch."""
    if path.endswith(".parquet"):
        yield from _parquet_batches(path, asked)
    else:
        yield from _csv_batches(path, asked)


def _parquet_batches(path: str, asked: dict[str, str | None]) -> Iterator[Batch]:
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


def _csv_batches(path: str, asked: dict[str, str | None]) -> Iterator[Batch]:
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
            raise ragged[0] if ragged else Wrong(f"behind row {row - 1:,}", one_line(error)) from None


def _chosen(there: Sequence[str], asked: dict[str, str | None]) -> dict[str, str | None]:
    """The file's column of each kind, by the user's word or by its name. Raises `Wrong` for one that it lacks."""
    chosen: dict[str, str | None] = {}
    for kind, usual in COLUMNS.items():
        given = asked[kind]
        name = given if given is not None else next((one for one in usual if one in there), None)
        columns = ", ".join(" ".join(one.split())[:40] for one in there[:30]) or "none"
        columns += ", …" if len(there) > 30 else ""
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


def ids_of_column(column: pa.Array, name: str | None, first_row: int, longest: int | None) -> pa.Array:
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


def names_of_column(column: pa.Array | None, name: str | None, first_row: int, n: int) -> pa.Array:
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


@dataclass
class Integers:
    """Whether a column holds whole numbers only, as far as its file tells (CSV knows no types: all its texts look like
    it); the first that none of ours may be, and its row."""

    all: bool = True
    wrong: tuple[int, str] | None = None

    def look(self, column: pa.Array, first_row: int, largest: bool) -> None:
        """Look at the next texts of the column; first_row: of them, in the file; largest: whether 2⁶³ is too much."""
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


def one_line(error: BaseException) -> str:
    """What an error says."""
    return " ".join(str(error).split()) or type(error).__name__
