"""JSON slices to Parquet by others, on two cores: the whole stage, to the same tables as the package's own.

Every peer is a function f(paths, out): it reads Million Playlist Dataset slices and fills the folder `out`.

article       what people do today: json, a Counter and pandas in one process. It makes the article's outputs
              alone, artist counts and row CSVs: the reference for speed, not for columns.
pyarrow_json  pyarrow.json in two processes; vocabularies merged by group_by; rows recoded in two processes
msgspec_json  the same with msgspec's typed structs, column by column to Arrow
polars_json   polars: read_json in two threads, then group_by and joins
duckdb_json   duckdb: SQL, two threads

All but the article's write playlists, rows, artists and tracks as `recsys_dask.schemas` has them, one folder
of Parquet files a table, with the same columns and values: codes by falling n_mentions and then id; names and
attributes from the entry of the lowest (pid, pos). They take the input to be sound: no pid twice, every URI
with its 22 characters.

`pyarrow_json` and `msgspec_json` spawn processes: a script that calls them needs `if __name__ == "__main__"`.
"""

from __future__ import annotations

import functools
import gc
import json
import multiprocessing
import os
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from itertools import chain, repeat
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from recsys_dask import schemas

IMPORTS = {
    "article": ["pandas"],
    "pyarrow_json": ["pyarrow.json"],
    "msgspec_json": ["msgspec"],
    "polars_json": ["polars"],
    "duckdb_json": ["duckdb"],
}
"""What is imported before the clock of the work starts, as our own kernels are loaded before ours does."""

Paths = Sequence[str | Path]

TABLES = ("playlists", "rows", "artists", "tracks")

CSV_ROWS = 500_000
"""Rows of each of the article's CSV files."""

TRACK_FIELDS = {
    "pos": "int",
    "artist_name": "str",
    "artist_uri": "str",
    "track_name": "str",
    "track_uri": "str",
    "album_uri": "str",
    "duration_ms": "int",
}
PLAYLIST_FIELDS = {
    "pid": "int",
    "name": "str",
    "num_tracks": "int",
    "num_followers": "int",
    "modified_at": "int",
    "collaborative": "str",
}
"""What the peers read of an entry and of a playlist, beside its `tracks`."""


def read_tables(out: str | Path) -> dict[str, pa.Table]:
    """The four tables that a peer wrote, each in its canonical form: for an equality check."""
    return {name: canonical(name, pq.read_table(Path(out) / name)) for name in TABLES}


def canonical(name: str, table: pa.Table) -> pa.Table:
    """A table with the schema's columns and types, in its order, in one chunk."""
    schema = schemas.of(name)
    table = table.select(schema.names).cast(schema.arrow())
    return table.sort_by([(column, "ascending") for column in schema.order]).combine_chunks()


def _folders(out: str | Path, names: Sequence[str] = TABLES) -> Path:
    """`out` with an empty folder a table."""
    for name in names:
        shutil.rmtree(Path(out) / name, ignore_errors=True)
        (Path(out) / name).mkdir(parents=True)
    return Path(out)


# ---------------------------------------------------------------------------------------------------- article


def article(paths: Paths, out: str | Path, min_tracks: int = 5, top: int | None = None) -> Counter[str]:
    """Mentions by artist URI. Writes `artist_counts.csv`, and `playlist_1.csv` … with the entries of
    playlists of more than `min_tracks` tracks; those of the `top` artists alone if that is given."""
    import pandas as pd

    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    counts: Counter[str] = Counter()
    names: dict[str, str] = {}
    for path in paths:
        with open(path, encoding="utf-8") as file:
            playlists = json.load(file)["playlists"]
        for playlist in playlists:
            for track in playlist["tracks"]:
                counts[track["artist_uri"]] += 1
                names.setdefault(track["artist_uri"], track["artist_name"])
    most = counts.most_common()
    pd.DataFrame(most, columns=["artist_uri", "count"]).to_csv(out / "artist_counts.csv", index=False)

    kept = {uri for uri, _ in most[:top]}
    header = ["pid", "artist_name", "artist_uri", "track_name", "track_uri"]
    rows: list[tuple[Any, ...]] = []
    number = 0
    for path in paths:
        with open(path, encoding="utf-8") as file:
            playlists = json.load(file)["playlists"]
        for playlist in playlists:
            if playlist["num_tracks"] <= min_tracks:
                continue
            for track in playlist["tracks"]:
                uri = track["artist_uri"]
                if uri in kept:
                    rows.append((playlist["pid"], names[uri], uri, track["track_name"], track["track_uri"]))
        while len(rows) >= CSV_ROWS:
            number += 1
            frame = pd.DataFrame(rows[:CSV_ROWS], columns=header)
            frame.to_csv(out / f"playlist_{number}.csv", index=False)
            del rows[:CSV_ROWS]
    if rows or not number:
        pd.DataFrame(rows, columns=header).to_csv(out / f"playlist_{number + 1}.csv", index=False)
    return counts


# ---------------------------------------------------------------------------------------- pyarrow and msgspec

Read = Callable[[str | Path], tuple[pa.StructArray, pa.StructArray, pa.Array]]
"""A slice's playlists by pid, their entries by pid and pos, and the playlist each entry is of."""


def pyarrow_json(paths: Paths, out: str | Path) -> None:
    """As `_by_parts`, read by pyarrow.json with an explicit schema."""
    _by_parts(_arrow_read, paths, out)


def msgspec_json(paths: Paths, out: str | Path) -> None:
    """As `_by_parts`, read by msgspec into typed structs."""
    _by_parts(_msgspec_read, paths, out)


def _by_parts(read: Read, paths: Paths, out: str | Path) -> None:
    """A part a slice, with codes of its own; the parts' vocabularies merged; the parts' rows recoded."""
    pa.set_cpu_count(2)  # group_by and the sorts of the merge
    out = _folders(out, (*TABLES, "parts"))
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, spawn, initializer=pa.set_cpu_count, initargs=(1,)) as pool:
        decoded = pool.map(_arrow_decode, repeat(read), paths, repeat(out), range(len(paths)))
        parts = sorted(part for part in decoded if part)
        artists, artist_codes = _arrow_merge([_read_part(path, "artists") for _, path in parts])
        tracks, track_codes = _arrow_merge([_read_part(path, "tracks") for _, path in parts])
        recoded = pool.map(_arrow_recode, parts, repeat(out), artist_codes, track_codes)
        _write(artists.rename_columns(schemas.of("artists").names), out / "artists" / "0.parquet")
        artist = pc.index_in(tracks["artist_id"], value_set=artists["id"])
        tracks = tracks.set_column(tracks.schema.get_field_index("artist_id"), "artist", artist)
        _write(tracks.rename_columns(schemas.of("tracks").names), out / "tracks" / "0.parquet")
        list(recoded)
    shutil.rmtree(out / "parts")


def _arrow_decode(read: Read, path: str | Path, out: Path, number: int) -> tuple[int, Path] | None:
    """Writes the slice's `playlists`, and its part: rows with local codes, both vocabularies.

    Returns the lowest pid and the part's folder; nothing for a slice without playlists.
    """
    playlists, entries, parents = read(path)
    if not len(playlists):
        return None
    pid = playlists.field("pid")
    first_pid = pc.min(pid).as_py()
    columns = {name: playlists.field(name) for name in ("pid", "name", "num_tracks")}
    columns["n_entries"] = pc.list_value_length(playlists.field("tracks"))
    columns |= {
        "n_followers": playlists.field("num_followers"),
        "modified_at": playlists.field("modified_at"),
    }
    columns["collaborative"] = pc.equal(playlists.field("collaborative"), "true")
    _write(pa.table(columns), out / "playlists" / f"{first_pid:019d}.parquet")

    artists, tracks = (entries.field(f"{kind}_uri").dictionary_encode() for kind in ("artist", "track"))
    rows = pa.table(
        {
            "pid": pid.take(parents),
            "pos": entries.field("pos"),
            "artist": artists.indices,
            "track": tracks.indices,
            "row": pa.array(np.arange(len(entries))),
        }
    )
    part = out / "parts" / str(number)
    part.mkdir()
    album_id = pc.utf8_slice_codeunits(entries.field("album_uri"), len("spotify:album:"))
    artist_id = pc.utf8_slice_codeunits(entries.field("artist_uri"), len("spotify:artist:"))
    more = {"artist_id": artist_id, "album_id": album_id, "duration_ms": entries.field("duration_ms")}
    for kind, uris, attributes in (("artist", artists, {}), ("track", tracks, more)):
        attributes = {"name": entries.field(f"{kind}_name"), **attributes}
        ids = pc.utf8_slice_codeunits(uris.dictionary, len(f"spotify:{kind}:"))
        _write_part(_arrow_vocabulary(rows, kind, ids, attributes), part, f"{kind}s")
    _write_part(rows.drop_columns("row"), part, "rows")
    return first_pid, part


def _arrow_read(path: str | Path) -> tuple[pa.StructArray, pa.StructArray, pa.Array]:
    from pyarrow import json as pj

    types = {"int": pa.int64(), "str": pa.string()}
    track = pa.struct([(name, types[kind]) for name, kind in TRACK_FIELDS.items()])
    fields = [(name, types[kind]) for name, kind in PLAYLIST_FIELDS.items()]
    schema = pa.schema([("playlists", pa.list_(pa.struct([*fields, ("tracks", pa.list_(track))])))])
    table = pj.read_json(
        path,
        # the slice is one object, which has to lie in one block
        read_options=pj.ReadOptions(use_threads=False, block_size=os.path.getsize(path) + 1),
        parse_options=pj.ParseOptions(schema, newlines_in_values=True, unexpected_field_behavior="ignore"),
    )
    return _arrow_sorted(pc.list_flatten(table["playlists"]).combine_chunks())


def _arrow_sorted(playlists: pa.StructArray) -> tuple[pa.StructArray, pa.StructArray, pa.Array]:
    """Playlists with their `tracks` in the order of a `Read`."""
    pid = playlists.field("pid").to_numpy()
    if (pid[1:] < pid[:-1]).any():
        playlists = playlists.take(pa.array(np.argsort(pid)))
    lists = playlists.field("tracks")
    entries, parents = pc.list_flatten(lists), pc.list_parent_indices(lists)
    pos, parent = entries.field("pos").to_numpy(), parents.to_numpy()
    if ((pos[1:] < pos[:-1]) & (parent[1:] == parent[:-1])).any():
        entries = entries.take(pa.array(np.lexsort((pos, parent))))
    return playlists, entries, parents


def _msgspec_read(path: str | Path) -> tuple[pa.StructArray, pa.StructArray, pa.Array]:
    gc.disable()  # a slice is half a million objects, and not a cycle among them
    with open(path, "rb") as file:
        playlists = _msgspec_decoder().decode(file.read()).playlists
    entries = list(chain.from_iterable(map(attrgetter("tracks"), playlists)))

    def columns(rows: list[Any], fields: dict[str, str]) -> list[pa.Array]:
        types = {"int": pa.int64(), "str": pa.string()}
        return [pa.array(list(map(attrgetter(name), rows)), types[kind]) for name, kind in fields.items()]

    ends = np.cumsum([0, *(len(playlist.tracks) for playlist in playlists)], dtype=np.int32)
    tracks = pa.StructArray.from_arrays(columns(entries, TRACK_FIELDS), list(TRACK_FIELDS))
    lists = pa.ListArray.from_arrays(pa.array(ends), tracks)
    names = [*PLAYLIST_FIELDS, "tracks"]
    return _arrow_sorted(pa.StructArray.from_arrays([*columns(playlists, PLAYLIST_FIELDS), lists], names))


@functools.cache
def _msgspec_decoder() -> Any:
    import msgspec

    types = {"int": int | None, "str": str | None}

    def struct(name: str, fields: dict[str, str], *more: Any) -> Any:
        return msgspec.defstruct(name, [*((one, types[kind], None) for one, kind in fields.items()), *more], gc=False)

    track = struct("Track", TRACK_FIELDS)
    playlist = struct("Playlist", PLAYLIST_FIELDS, ("tracks", list[track], ()))
    return msgspec.json.Decoder(msgspec.defstruct("Slice", [("playlists", list[playlist])], gc=False))


def _arrow_vocabulary(rows: pa.Table, kind: str, ids: pa.Array, attributes: dict[str, pa.Array]) -> pa.Table:
    """A slice's distinct ids by local code, with their first (pid, pos) and their attributes there."""
    wanted = [("row", "min"), ("row", "count"), ("pid", "count_distinct")]
    grouped = rows.group_by(kind, use_threads=False).aggregate(wanted).sort_by(kind)
    first = grouped["row_min"]
    return pa.table(
        {
            "id": ids,
            **{name: values.take(first) for name, values in attributes.items()},
            "n_mentions": grouped["row_count"],
            "n_playlists": grouped["pid_count_distinct"],
            "pid": rows["pid"].take(first),
            "pos": rows["pos"].take(first),
        }
    )


def _arrow_merge(parts: Sequence[pa.Table]) -> tuple[pa.Table, list[np.ndarray]]:
    """The vocabulary of all parts, code first, and for every part its codes by local code."""
    local = pa.concat_tables(parts)
    first = np.lexsort((local["pos"].to_numpy(), local["pid"].to_numpy()))
    place = np.empty(len(first), np.int64)
    place[first] = np.arange(len(first))
    table = pa.table({**{name: local[name] for name in ("id", "n_mentions", "n_playlists")}, "place": place})
    merged = table.group_by("id").aggregate([("n_mentions", "sum"), ("n_playlists", "sum"), ("place", "min")])
    merged = merged.sort_by([("n_mentions_sum", "descending"), ("id", "ascending")])
    attributes = local.drop_columns(["n_mentions", "n_playlists", "pid", "pos"])
    vocabulary = attributes.take(pa.array(first[merged["place_min"].to_numpy()]))
    vocabulary = vocabulary.add_column(0, "code", pa.array(np.arange(len(merged), dtype=np.int32)))
    for name in ("n_mentions", "n_playlists"):
        vocabulary = vocabulary.append_column(name, merged[f"{name}_sum"])
    codes = pc.index_in(local["id"], value_set=merged["id"]).to_numpy()
    return vocabulary, np.split(codes, np.cumsum([len(part) for part in parts])[:-1])


def _arrow_recode(part: tuple[int, Path], out: Path, artists: np.ndarray, tracks: np.ndarray) -> None:
    """A part's rows with final codes."""
    first_pid, path = part
    rows = _read_part(path, "rows")
    columns = {"pid": rows["pid"], "pos": rows["pos"]}
    columns["artist"] = pa.array(artists).take(rows["artist"])
    columns["track"] = pa.array(tracks).take(rows["track"])
    _write(pa.table(columns), out / "rows" / f"{first_pid:019d}.parquet")


def _write(table: pa.Table, path: Path) -> None:
    pq.write_table(table.cast(schemas.of(path.parent.name).arrow()), path, compression="zstd")


def _write_part(table: pa.Table, part: Path, name: str) -> None:
    with pa.OSFile(str(part / f"{name}.arrow"), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)


def _read_part(part: Path, name: str) -> pa.Table:
    return pa.ipc.open_file(pa.memory_map(str(part / f"{name}.arrow"))).read_all()


# ----------------------------------------------------------------------------------------------------- polars


def polars_json(paths: Paths, out: str | Path) -> None:
    """Every slice to rows and vocabularies with ids, two slices at a time; those merged; the rows joined."""
    import polars as pl

    if pl.thread_pool_size() > 2:
        raise RuntimeError("polars was imported before `benchmarks` and has more than two threads")
    out = _folders(out)
    with ThreadPoolExecutor(2) as threads:
        playlists, rows, artists, tracks = zip(*threads.map(_polars_slice, paths), strict=True)

    def merged(kind: str, parts: Sequence[pl.DataFrame]) -> pl.DataFrame:
        first = pl.exclude("pid", "pos", "n_mentions", "n_playlists", f"{kind}_id").first()
        return (
            pl.concat(parts)
            .sort("pid", "pos")
            .group_by(f"{kind}_id", maintain_order=True)
            .agg(first, pl.sum("n_mentions", "n_playlists"))
            .sort("n_mentions", f"{kind}_id", descending=[True, False])
            .with_row_index(kind)
            .with_columns(pl.col(kind).cast(pl.Int32))
        )

    tables = {"artists": merged("artist", artists), "tracks": merged("track", tracks)}
    artist, track = (tables[f"{kind}s"].select(f"{kind}_id", kind) for kind in ("artist", "track"))
    tables["tracks"] = tables["tracks"].join(artist, on="artist_id", how="left", maintain_order="left")
    tables["playlists"] = pl.concat(playlists).sort("pid")
    tables["rows"] = (
        pl.concat(rows)
        .join(artist, on="artist_id", how="left")
        .join(track, on="track_id", how="left")
        .sort("pid", "pos")
    )
    for name in TABLES:
        table = tables[name].select(schemas.of(name).names)
        table.write_parquet(out / name / "0.parquet", compression="zstd", compression_level=1)


def _polars_slice(path: str | Path) -> tuple[Any, Any, Any, Any]:
    """A slice's playlists, rows with ids in place of codes, and vocabularies with their first (pid, pos)."""
    import polars as pl

    types = {"int": pl.Int64, "str": pl.String}
    track = pl.Struct({name: types[kind] for name, kind in TRACK_FIELDS.items()})
    fields = {name: types[kind] for name, kind in PLAYLIST_FIELDS.items()}
    schema = {"playlists": pl.List(pl.Struct({**fields, "tracks": pl.List(track)}))}
    lists = pl.read_json(path, schema=schema).explode("playlists").unnest("playlists").drop_nulls("pid")
    entries = (
        lists.select("pid", "tracks")
        .explode("tracks")
        .unnest("tracks")
        .drop_nulls("pos")
        .sort("pid", "pos")
        .with_columns(
            pl.col(f"{kind}_uri").str.strip_prefix(f"spotify:{kind}:").alias(f"{kind}_id")
            for kind in ("artist", "track", "album")
        )
    )
    playlists = lists.select(
        "pid",
        "name",
        "num_tracks",
        pl.col("tracks").list.len().cast(pl.Int64).alias("n_entries"),
        pl.col("num_followers").alias("n_followers"),
        "modified_at",
        pl.col("collaborative") == "true",
    )

    def vocabulary(kind: str, *attributes: str) -> pl.DataFrame:
        return entries.group_by(f"{kind}_id", maintain_order=True).agg(
            pl.first(f"{kind}_name", *attributes, "pid", "pos"),
            pl.len().cast(pl.Int64).alias("n_mentions"),
            pl.col("pid").n_unique().cast(pl.Int64).alias("n_playlists"),
        )

    rows = entries.select("pid", "pos", "artist_id", "track_id")
    return playlists, rows, vocabulary("artist"), vocabulary("track", "artist_id", "album_id", "duration_ms")


# ----------------------------------------------------------------------------------------------------- duckdb


def duckdb_json(paths: Paths, out: str | Path) -> None:
    """All in SQL: the slices to playlists and entries, the vocabularies by group, the rows joined."""
    import duckdb

    out = _folders(out)
    with duckdb.connect() as base:
        base.execute("SET threads = 2")
        base.execute("SET preserve_insertion_order = false")
        base.execute(f"SET temp_directory = '{out / 'duckdb.tmp'}'")
        _duckdb_read(base, paths)
        base.execute(_duckdb_vocabulary("artist", "artist_name"))
        base.execute(_duckdb_vocabulary("track", "track_name", "artist_id", "album_id", "duration_ms"))
        queries = {
            "playlists": """
                SELECT pid, name, num_tracks, len(tracks) AS n_entries, num_followers AS n_followers,
                    modified_at, collaborative = 'true' AS collaborative
                FROM lists""",
            "rows": """
                SELECT pid, pos, artist, track
                FROM entries JOIN artists USING (artist_id) JOIN tracks USING (track_id)""",
            "artists": "SELECT * FROM artists",
            "tracks": """
                SELECT track, track_id, track_name, artist, album_id, duration_ms, tracks.n_mentions,
                    tracks.n_playlists
                FROM tracks JOIN artists USING (artist_id)""",
        }
        written_as = "FORMAT parquet, COMPRESSION zstd, COMPRESSION_LEVEL 1"
        for name, query in queries.items():
            order = ", ".join(schemas.of(name).order)
            base.execute(f"COPY ({query} ORDER BY {order}) TO '{out / name / '0.parquet'}' ({written_as})")
    shutil.rmtree(out / "duckdb.tmp", ignore_errors=True)


def _duckdb_read(base: Any, paths: Paths) -> None:
    """The tables `lists` (a playlist a row) and `entries`.

    In two steps, playlists as JSON first: `read_json` with all of it in `columns` takes four times as long.
    """
    types = {"int": "BIGINT", "str": "VARCHAR"}
    track = {name: types[kind] for name, kind in TRACK_FIELDS.items()}
    playlist = {**{name: types[kind] for name, kind in PLAYLIST_FIELDS.items()}, "tracks": [track]}
    largest = max(os.path.getsize(path) for path in paths)
    base.execute(
        f"""CREATE TABLE lists AS
            SELECT unnest(from_json(playlist, '{json.dumps(playlist)}'))
            FROM (
                SELECT unnest(from_json(json, '{{"playlists": ["JSON"]}}').playlists) AS playlist
                FROM read_json_objects(
                    $paths, format = 'unstructured', maximum_object_size = {largest + 1_000}))""",
        {"paths": [str(path) for path in paths]},
    )
    base.execute(
        """CREATE TABLE entries AS
           SELECT * EXCLUDE (artist_uri, track_uri, album_uri),
               artist_uri[16:] AS artist_id, track_uri[15:] AS track_id, album_uri[15:] AS album_id
           FROM (SELECT pid, unnest(tracks, max_depth := 2) FROM lists)"""
    )


def _duckdb_vocabulary(kind: str, *attributes: str) -> str:
    """The table `artists` or `tracks` from `entries`; a track's artist as the id."""
    fields = ", ".join(f"{name}: {name}" for name in attributes)
    return f"""
        CREATE TABLE {kind}s AS
        SELECT (row_number() OVER (ORDER BY n_mentions DESC, {kind}_id) - 1)::INTEGER AS {kind}, {kind}_id,
            unnest(lowest), n_mentions, n_playlists
        FROM (
            SELECT {kind}_id, arg_min({{{fields}}}, pid::HUGEINT * 4294967296 + pos) AS lowest,
                count(*) AS n_mentions, count(DISTINCT pid) AS n_playlists
            FROM entries GROUP BY {kind}_id)"""
