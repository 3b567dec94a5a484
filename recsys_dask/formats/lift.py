"""Slices as a lazy `dask.dataframe`, for users who bring a graph of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from recsys_dask.errors import InputError
from recsys_dask.formats.inputs import Input, find, format_of
from recsys_dask.formats.strict import ENTRIES, read_entries
from recsys_dask.formats.texts import Wrong

if TYPE_CHECKING:
    import dask.dataframe as dd
    import pandas as pd
    import pyarrow as pa


def read_playlists(source: Input, files: int | None = None) -> dd.DataFrame:
    """Playlists as a lazy frame, one row an entry and one partition a file; nothing is read until it is computed.

    source: a folder, glob, file or list of them, local or any fsspec URL; files: only the first N by name.
    Columns: pid int64, name string, num_tracks int64, pos int64, artist_id, artist_name, track_id, track_name,
    album_id string (ids are the bare 22 characters), duration_ms Int64; rows by pid then pos within a partition.
    Raises `InputError` where there is nothing to read, and when computed for a file that is wrong.
    """
    import dask.dataframe as dd

    found = find(source, files)
    if format_of(found).name != "mpd":
        raise InputError(f"{found[0].path}: is no slice; dask.dataframe.read_parquet and read_csv read tables")
    paths = [file.path for file in found]
    return dd.from_map(read_slice, paths, meta=_frame(ENTRIES.empty_table()), label="read_playlists")


def read_slice(path: str) -> pd.DataFrame:
    """The task: one file's entries."""
    try:
        return _frame(read_entries(path))
    except Wrong as wrong:
        raise InputError(str(wrong.fault([path]))) from None


def _frame(table: pa.Table) -> pd.DataFrame:
    """Arrow to pandas with types that hold nulls and do not depend on the pandas version."""
    import pandas as pd
    import pyarrow as pa

    kinds = {pa.string(): pd.StringDtype("pyarrow"), pa.int64(): pd.Int64Dtype()}
    frame = table.to_pandas(types_mapper=kinds.get)
    return frame.astype({"pid": "int64", "num_tracks": "int64", "pos": "int64"})
