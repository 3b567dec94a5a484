"""Parquet in and out of a store. Readers see only the files that the manifest lists."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from recsys_dask import schemas
from recsys_dask.errors import StoreError
from recsys_dask.store import manifest as manifests
from recsys_dask.store.files import Folder
from recsys_dask.store.manifest import FileEntry, Manifest, entry_of

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

NO_DICTIONARY: dict[str, Any] = {"compression": "none", "use_dictionary": False, "write_statistics": False}
"""For tables read back soon and whole: parts of an ingest, counted pairs."""


def write_file(
    folder: Folder, path: str, table: pa.Table, row_group: int | None = None, **options: Any
) -> FileEntry:
    """One Parquet file of `row_group` rows a group (default: all), put in place whole."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with folder.writing(path) as file, pa.PythonFile(file, "w") as sink:
        pq.write_table(table, sink, row_group_size=row_group or max(table.num_rows, 1), **options)
    return entry_of(path, table.num_rows, file)


def write_part(folder: Folder, name: str, token: str, number: int, table: pa.Table, **options: Any) -> FileEntry:
    """Partition `number` of a table. Its name is the same at every attempt: a retry writes the same bytes over it.

    `token` names what the table was made from, so that a redone table never touches the files of the one in use.
    """
    wanted = schemas.of(name).arrow()
    if not table.schema.equals(wanted):
        table = table.select(wanted.names).cast(wanted)
    return write_file(folder, f"tables/{name}/{token}-{number:05d}.parquet", table, **options)


def write_groups(folder: Folder, path: str, groups: Sequence[pa.Table], **options: Any) -> None:
    """Tables of one schema as the row groups of one Parquet file, for reading back a group at a time."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with (
        folder.writing(path) as file,
        pa.PythonFile(file, "w") as sink,
        pq.ParquetWriter(sink, groups[0].schema, **options) as writer,
    ):
        for group in groups:
            writer.write_table(group, row_group_size=max(group.num_rows, 1))


def open_parquet(folder: Folder, path: str) -> Any:
    """A `pyarrow.parquet.ParquetFile`, memory-mapped where the folder is local. Close it."""
    import pyarrow.parquet as pq

    if folder.is_local:
        return pq.ParquetFile(folder.path(path), memory_map=True)
    return pq.ParquetFile(folder.fs.open(folder.path(path), "rb"), pre_buffer=True)


def read_file(folder: Folder, path: str, columns: Sequence[str] | None = None) -> pa.Table:
    """One whole Parquet file, in the calling thread."""
    try:
        with open_parquet(folder, path) as file:
            return file.read(columns=list(columns) if columns else None, use_threads=False)
    except FileNotFoundError:
        raise StoreError(f"{folder.full(path)}: is missing; run the stage again with --rebuild") from None


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


def read_where(folder: Folder, path: str, column: str, low: int, high: int | None) -> pa.Table:
    """At least the rows with low ≤ column < high of a file sorted by it: whole row groups, by their statistics."""
    with open_parquet(folder, path) as file:
        place = file.schema_arrow.get_field_index(column)
        groups = []
        for number in range(file.num_row_groups):
            seen = file.metadata.row_group(number).column(place).statistics
            if seen is None or not seen.has_min_max or (seen.max >= low and (high is None or seen.min < high)):
                groups.append(number)
        return file.read_row_groups(groups, use_threads=False)


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
            raise StoreError(f"{url}: no store here; make one with: recsys-dask run INPUT {url}")
        return cls(folder, manifest)

    @classmethod
    def open_or_new(cls, url: str) -> Store:
        """The store at `url`, or an empty one to be filled; nothing is written yet."""
        folder = Folder(str(url))
        return cls(folder, manifests.load(folder) or Manifest.new())

    def entry(self, name: str) -> manifests.TableEntry:
        """The manifest's entry of a table. Raises `StoreError` naming the tables there are."""
        try:
            return self.manifest.tables[name]
        except KeyError:
            there = ", ".join(sorted(self.manifest.tables)) or "nothing yet"
            raise StoreError(f"{self.folder.url}: has no table {name}; it holds {there}") from None

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

    def pandas(self, name: str, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """A whole table as a pandas frame."""
        return self.table(name, columns).to_pandas()
