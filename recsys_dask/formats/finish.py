"""The last tasks of an ingest: vocabularies, playlists and rows with their final codes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recsys_dask.arrow import int64, numbers, values
from recsys_dask.formats.gathering import Rows, gathered
from recsys_dask.formats.merge import Merged, vocabulary_table, write_vocabulary_part
from recsys_dask.formats.parts import PartInfo, read_part
from recsys_dask.schemas import of
from recsys_dask.store import scratch, tables
from recsys_dask.store.files import Folder
from recsys_dask.store.manifest import FileEntry

KINDS = ("artists", "tracks")
AT_ONCE = 8
"""Parts of which all codes are held."""

PARQUET: dict[str, dict[str, Any]] = {
    "rows": {
        "compression": {"pid": "zstd", "pos": "zstd", "artist": "none", "track": "none"},
        "use_dictionary": ["pid", "pos"],
    },
    "playlists": {"compression": "zstd", "use_dictionary": False},
}
"""How they are written: measured, in half of the time that zstd takes for all. Codes have little to squeeze."""


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
    spans = [
        (one, of_bucket, *np.searchsorted(of_bucket, span).tolist())
        for one, of_bucket in zip(merged, codes, strict=True)
    ]
    spans = [found for found in spans if found[2] < found[3]]
    if not spans:
        return [tables.write_part(folder, kind, token, number, of(kind).arrow().empty_table())]

    def pieces() -> Iterator[Rows]:
        for one, of_bucket, first, end in spans:
            found = scratch.read(folder, one.path).slice(first, end - first)
            yield Rows(found, np.arange(end - first), of_bucket[first:end].astype(np.int64) - span[0])

    rows = gathered(scratch.read(folder, spans[0][0].path).schema, span[1] - span[0], pieces)
    table = vocabulary_table(folder, token, kind, rows, np.arange(*span, dtype=np.int32))
    return [write_vocabulary_part(folder, kind, token, number, table)]


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
    for at in range(0, len(parts), AT_ONCE):
        some = parts[at : at + AT_ONCE]
        codes_of = {kind: _codes_of_parts(folder, some, merged[kind], codes[kind]) for kind in KINDS}
        for place, (_, part) in enumerate(some):
            playlists = pa.Table.from_batches([read_part(folder, part, "playlists")])
            pid, n_entries = values(playlists["pid"]), values(playlists["n_entries"])
            low = int(np.searchsorted(pid, start))
            high = len(pid) if end is None else int(np.searchsorted(pid, end))
            rows = read_part(folder, part, "rows").slice(n_entries[:low].sum(), n_entries[low:high].sum())
            columns = [np.repeat(pid[low:high], n_entries[low:high]), values(rows["pos"]).copy()]
            columns += [codes_of[kind][place][values(rows[kind[:-1]])] for kind in KINDS]
            found["playlists"].append(playlists.slice(low, high - low).drop_columns(["file"]))
            found["rows"].append(pa.table(list(map(numbers, columns)), schema=of("rows").arrow()))
    entries = []
    for name, pieces in found.items():
        table = pa.concat_tables(pieces or [of(name).arrow().empty_table()])
        pid = values(table["pid"])
        if (pid[1:] < pid[:-1]).any():
            table = table.take(int64(np.argsort(pid, kind="stable")))
        entries.append(tables.write_part(folder, name, token, number, table, **PARQUET[name]))
    return entries


def _codes_of_parts(
    folder: Folder,
    parts: Sequence[tuple[int, PartInfo]],
    merged: Sequence[Merged],
    codes: Sequence[NDArray[np.int32]],
) -> list[NDArray[np.int32]]:
    """The final code of every id of some parts, a part an array by the part's own codes."""
    pieces: list[list[NDArray[np.int32]]] = [[np.zeros(0, np.int32)] for _ in parts]
    first, last = parts[0][0], parts[-1][0]
    for one, of_bucket in zip(merged, codes, strict=True):
        if one.rows:
            places = scratch.read_some(folder, one.places, one.cuts, first, last + 1)
            for mine, (number, _) in zip(pieces, parts, strict=True):
                mine.append(of_bucket[values(places[number - first]["row"])])
    return [np.concatenate(mine) for mine in pieces]
