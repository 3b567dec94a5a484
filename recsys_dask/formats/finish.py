"""The last tasks of an ingest: vocabularies, playlists and rows with their final codes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recsys_dask.arrow import int32, int64, values
from recsys_dask.formats.merge import Merged, codes_of, vocabulary_table
from recsys_dask.formats.parts import PartInfo
from recsys_dask.formats.vocabulary import keys
from recsys_dask.schemas import of
from recsys_dask.store import tables
from recsys_dask.store.files import Folder
from recsys_dask.store.manifest import FileEntry

KINDS = ("artists", "tracks")


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
    pieces, places = [], []
    for one, of_bucket in zip(merged, codes, strict=True):
        start, end = np.searchsorted(of_bucket, span).tolist()
        if start < end:
            pieces.append(tables.read_span(folder, one.path, start, end))
            places.append(of_bucket[start:end])
    if not pieces:
        return [tables.write_part(folder, kind, token, number, of(kind).arrow().empty_table())]
    place = np.concatenate(places)
    by_code = np.argsort(place)
    merged_rows = pa.concat_tables(pieces).take(int64(by_code))
    table = vocabulary_table(folder, token, kind, merged_rows, place[by_code])
    return [tables.write_part(folder, kind, token, number, table, compression="zstd", use_dictionary=False)]


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
    index = {kind: codes_of(folder, kind, token) for kind in KINDS}
    found: dict[str, list[pa.Table]] = {"playlists": [], "rows": []}
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
