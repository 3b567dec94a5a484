"""The last tasks of an ingest: vocabularies, playlists and rows with their final codes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recsys_dask.arrow import int32, int64, values
from recsys_dask.formats.gathering import Rows, gathered
from recsys_dask.formats.merge import Merged, vocabulary_table
from recsys_dask.formats.parts import PartInfo
from recsys_dask.schemas import of
from recsys_dask.store import scratch, tables
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
    pieces = []
    for one, of_bucket in zip(merged, codes, strict=True):
        first, last = np.searchsorted(of_bucket, span).tolist()
        if first < last:
            found = scratch.read(folder, one.path)
            pieces.append(Rows(found, np.arange(first, last), of_bucket[first:last].astype(np.int64) - span[0]))
    if not pieces:
        return [tables.write_part(folder, kind, token, number, of(kind).arrow().empty_table())]
    rows = gathered(pieces[0].batch.schema, span[1] - span[0], pieces)
    table = vocabulary_table(folder, token, kind, rows, np.arange(*span, dtype=np.int32))
    return [tables.write_part(folder, kind, token, number, table, compression="zstd", use_dictionary=False)]


def recode(
    folder: Folder,
    token: str,
    number: int,
    start: int,
    end: int | None,
    parts: Sequence[tuple[int, PartInfo]],
    merged: dict[str, Sequence[Merged]],
    codes: dict[str, Sequence[NDArray[np.int32]]],
) -> list[FileEntry]:
    """The task: playlists and rows with start ≤ pid < end, by pid, with final codes. parts: with their numbers."""
    found: dict[str, list[pa.Table]] = {"playlists": [], "rows": []}
    of_part = {kind: _codes_of_parts(folder, parts, merged[kind], codes[kind]) for kind in KINDS}
    for place, (_, part) in enumerate(parts):
        playlists = pa.Table.from_batches([scratch.read(folder, part.path("playlists"))])
        pid, n_entries = values(playlists["pid"]), values(playlists["n_entries"])
        low = int(np.searchsorted(pid, start))
        high = len(pid) if end is None else int(np.searchsorted(pid, end))
        first, n = int(n_entries[:low].sum()), int(n_entries[low:high].sum())
        rows = scratch.read(folder, part.path("rows")).slice(first, n)
        columns = {"pid": int64(np.repeat(pid[low:high], n_entries[low:high])), "pos": rows["pos"]}
        for kind in KINDS:
            columns[kind[:-1]] = int32(of_part[kind][place][values(rows[kind[:-1]])])
        found["playlists"].append(playlists.slice(low, high - low).drop_columns(["file"]))
        found["rows"].append(pa.table(columns))
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


def _codes_of_parts(
    folder: Folder,
    parts: Sequence[tuple[int, PartInfo]],
    merged: Sequence[Merged],
    codes: Sequence[NDArray[np.int32]],
) -> list[NDArray[np.int32]]:
    """The final code of every id of some parts, a part an array by the part's own codes."""
    pieces: list[list[NDArray[np.int32]]] = [[np.zeros(0, np.int32)] for _ in parts]
    for one, of_bucket in zip(merged, codes, strict=True):
        if one.rows:
            with scratch.opened(folder, one.places) as places:
                for mine, (number, _) in zip(pieces, parts, strict=True):
                    mine.append(of_bucket[values(places.get_batch(number)["row"])])
    return [np.concatenate(mine) for mine in pieces]
