"""Parquet in and out of a store. Readers see only the files that the manifest lists."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from recsys_dask import schemas
from recsys_dask.errors import StoreError
from recsys_dask.store import manifest as manifests
from recsys_dask.store.files import Folder, os_errors, reason
from recsys_dask.store.manifest import FileEntry, Manifest, entry_of

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

NO_DICTIONARY: dict[str, Any] = {"compression": "none", "use_dictionary": False, "write_statistics": False}
"""For tables read back soon and whole: parts of an ingest, counted pairs."""


def write_file(folder: Folder, path: str, table: pa.Table, row_group: int | None = None, **options: Any) -> FileEntry:
    """One Parquet file of `row_group` rows a group (default: all), put in place whole."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    # Parquet comes in small pieces, and each would take a call of Python.
    with (
        folder.writing(path) as file,
        pa.PythonFile(file, "w") as raw,
        pa.BufferedOutputStream(raw, 1 << 20) as sink,
    ):
        pq.write_table(table, sink, row_group_size=row_group or max(table.num_rows, 1), **options)
    return entry_of(path, table.num_rows, file)


def write_part(folder: Folder, name: str, token: str, number: int, table: pa.Table, **options: Any) -> FileEntry:
    """Partition `number` of a table. Its name is the same at every attempt: a retry writes the same bytes over it.

    `token` names what the table was made from, so that a redone table never touches the files of the one in use.
    """
    wanted = schemas.of(name).arrow()
    if not table.schema.equals(wanted):
        table = table.select(wanted.names).cast(wanted)
    # Readers of Parquet find an altered page by its checksum.
    options["write_page_checksum"] = True
    return write_file(folder, f"tables/{name}/{token}-{number:05d}.parquet", table, **options)


@contextlib.contextmanager
def open_parquet(folder: Folder, path: str) -> Iterator[Any]:
    """A `pyarrow.parquet.ParquetFile`, memory-mapped where the folder is local.

    Raises `StoreError` naming the file for one that is missing or damaged, when it is opened and while it is read.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with os_errors(), contextlib.ExitStack() as opened:
            if folder.is_local:
                file = pq.ParquetFile(folder.path(path), memory_map=True, page_checksum_verification=True)
            else:
                # Small files come with one request; the default would fetch 50 MB beyond what is asked for.
                raw = opened.enter_context(folder.fs.open(folder.path(path), "rb", block_size=1 << 20))
                file = pq.ParquetFile(raw, pre_buffer=True, page_checksum_verification=True)
            yield opened.enter_context(file)
    except FileNotFoundError:
        raise StoreError(f"{folder.full(path)}: is missing; {_remedy(folder, path)}") from None
    except (pa.ArrowException, OSError) as error:
        why = reason(error).rstrip(".")
        raise StoreError(f"{folder.full(path)}: cannot be read ({why}); {_remedy(folder, path)}") from None


def _remedy(folder: Folder, path: str) -> str:
    if path.startswith("scratch/"):
        return f"remove {folder.full('scratch')}, then run again"
    return f"find out what else is damaged, and what to do, with: recsys-dask check {folder.url}"


def read_file(folder: Folder, path: str, columns: Sequence[str] | None = None) -> pa.Table:
    """One whole Parquet file, in the calling thread."""
    with open_parquet(folder, path) as file:
        return file.read(columns=list(columns) if columns else None, use_threads=False)


def read_span(folder: Folder, path: str, start: int, end: int) -> pa.Table:
    """Rows [start, end) of a Parquet file; only the row groups that hold them are read."""
    with open_parquet(folder, path) as file:
        groups: list[int] = []
        first = row = 0
        for number in range(file.num_row_groups):
            below = row + file.metadata.row_group(number).num_rows
            if row < end and below > start:
                first = row if not groups else first
                groups.append(number)
            row = below
        return file.read_row_groups(groups, use_threads=False).slice(start - first, end - start)


def read_where(folder: Folder, path: str, column: str, wanted: Callable[[Any, Any], bool]) -> pa.Table:
    """At least the row groups of a file for which `wanted(least, greatest)` of a column holds, by their statistics."""
    with open_parquet(folder, path) as file:
        place = file.schema_arrow.get_field_index(column)
        groups = []
        for number in range(file.num_row_groups):
            seen = file.metadata.row_group(number).column(place).statistics
            if seen is None or not seen.has_min_max or wanted(seen.min, seen.max):
                groups.append(number)
        return file.read_row_groups(groups, use_threads=False)


def column_range(folder: Folder, path: str, column: str) -> tuple[Any, Any]:
    """The least and the greatest value of a column of a Parquet file that has some, from its statistics."""
    with open_parquet(folder, path) as file:
        place = file.schema_arrow.get_field_index(column)
        seen = [file.metadata.row_group(number).column(place).statistics for number in range(file.num_row_groups)]
        return min(one.min for one in seen), max(one.max for one in seen)


def batches(folder: Folder, paths: Sequence[str], rows: int) -> Iterator[pa.RecordBatch]:
    """Some Parquet files of a table, at most `rows` rows at a time."""
    for path in paths:
        with open_parquet(folder, path) as file:
            yield from file.iter_batches(rows, use_threads=False)


@dataclass
class Store:
    """An opened store: its folder and what the manifest said when it was opened."""

    folder: Folder
    manifest: Manifest

    @classmethod
    def open(cls, url: str) -> Store:
        """An existing store. Raises `StoreError` where there is none."""
        folder = Folder(str(url))
        manifest = manifests.load(folder)
        if manifest is None:
            raise StoreError(f"{folder.url}: no store here; make one with: recsys-dask run INPUT {folder.url}")
        return cls(folder, manifest)

    @classmethod
    def open_or_new(cls, url: str) -> Store:
        """The store at `url`, or an empty one to be filled; nothing is written yet."""
        folder = Folder(str(url))
        return cls(folder, manifests.load(folder) or Manifest.new())

    def entry(self, name: str) -> manifests.TableEntry:
        """The manifest's entry of a table. Raises `StoreError` naming the tables there are, and for one whose codes are
        not those of `artists` and `tracks`: these were made again from another input."""
        if name not in self.manifest.tables:
            there = ", ".join(sorted(self.manifest.tables)) or "nothing yet"
            command = manifests.command_for(manifests.stage_for(name), self.folder.url)
            raise StoreError(f"{self.folder.url}: has no table {name}; it holds {there}; make it with: {command}")
        key = self.manifest.stage_of(name)
        if not self.manifest.has_codes_of_now(key):
            raise StoreError(
                f"{self.folder.url}: the table {name} is of an earlier input; make it again with: "
                f"{manifests.command_for(key, self.folder.url)}"
            )
        return self.manifest.tables[name]

    def has(self, name: str) -> bool:
        """Whether a table is there and goes with `artists` and `tracks`."""
        return name in self.manifest.tables and self.manifest.has_codes_of_now(self.manifest.stage_of(name))

    def lost(self) -> set[str]:
        """Files that the manifest lists and that are not there, or not as long as they were written."""
        entries = [file for table in self.manifest.tables.values() for file in table.files]
        there: dict[str, int] = {}
        for folder in sorted({file.path.partition("/")[0] for file in entries}):
            there |= self.folder.sizes(folder)
        return {file.path for file in entries if there.get(file.path) != file.bytes}

    def files(self, name: str) -> list[str]:
        """Full paths of a table's files, in the table's order: for pandas, polars, duckdb or dask to read."""
        return [self.folder.full(file.path) for file in self.entry(name).files]

    def parts(self, name: str, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """The table file by file."""
        for file in self.entry(name).files:
            yield read_file(self.folder, file.path, columns)

    def table(self, name: str, columns: Sequence[str] | None = None) -> pa.Table:
        """A whole table in memory."""
        import pyarrow as pa

        return pa.concat_tables(self.parts(name, columns))

    def _repr_html_(self) -> str:
        """The store as Jupyter shows it: its place and its tables."""
        import html

        rows = "".join(
            f"<tr><td>{html.escape(name)}</td><td>{entry.rows:,}</td><td>{entry.bytes / 1e6:,.1f}</td></tr>"
            for name, entry in sorted(self.manifest.tables.items())
        )
        head = "<tr><th>table</th><th>rows</th><th>MB</th></tr>"
        return f"<p>Store <code>{html.escape(self.folder.url)}</code></p><table>{head}{rows}</table>"

    def pandas(self, name: str, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """A whole table as a pandas frame."""
        return self.table(name, columns).to_pandas()
