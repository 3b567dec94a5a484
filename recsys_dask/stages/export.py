"""Tables to the files that other programs read: counts, pairs and similarity files, and the article's row table."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from recsys_dask import params
from recsys_dask.arrow import bools, float64, int64, values
from recsys_dask.formats.vocabulary import string_order
from recsys_dask.runtime.clusters import Cluster
from recsys_dask.store import tables
from recsys_dask.store.files import Folder
from recsys_dask.store.manifest import FileEntry, StageReport, TableEntry, entry_of, fingerprint, put
from recsys_dask.store.tables import Store

if TYPE_CHECKING:
    import pyarrow as pa

BEST_LISTS = ("linear", "cosine")
"""What `similar.txt` holds: the first of these that is there. Recommending by their lists alone they are far apart."""

CSV_ROWS = 500_000
"""Rows of each `playlist_<n>.csv`, as the article has them."""

BLOCK_PAIRS = 1 << 19
"""Pairs written at once, in both directions."""

BYTES_PER_ID, BYTES_PER_PAIR, ROWS_BYTES = 160, 300, 200_000_000
"""Memory of a task: an id with its name, a pair of a block, a file of the row table."""


def export(
    cluster: Cluster, store: Store, options: params.Export, row_filter: tuple[int, int], out: Folder, prefix: str
) -> tuple[dict[str, TableEntry], StageReport]:
    """Everything there is of one item, into `out` under `prefix`. row_filter: top and min_tracks of the row table."""
    from dask import delayed

    item = options.item
    suffix = "" if item == "artist" else f"_{item}"
    name = f"{prefix}{{}}{suffix}.{{}}".format
    methods = [method for method in params.methods() if store.has(f"similar_{item}_{method}")]
    n_ids = store.entry(f"{item}s").rows + (store.entry("tracks").rows if options.rows and item == "artist" else 0)
    projected = cluster.budget.check(f"export of {n_ids:,} ids", task_bytes(n_ids, options.rows), "")
    with cluster.measured() as so_far:
        work: list[Any] = [delayed(write_counts)(store, item, out, f"{prefix}{item}_counts.csv")]
        if store.has(f"pairs_{item}_article"):
            work.append(delayed(write_pairs)(store, item, out, name("pairs", "csv"), "csv"))
            if options.parquet:
                work.append(delayed(write_pairs)(store, item, out, name("pairs", "parquet"), "parquet"))
        lists = {method: [name(method, "txt")] for method in methods}
        if best := next((method for method in BEST_LISTS if method in lists), None):
            lists[best].append(name("similar", "txt"))
        work += [delayed(write_similar)(store, item, method, out, names) for method, names in lists.items()]
        made = cluster.compute("export", work, lambda several: sum(one.rows for one in several), "rows")
        if options.rows:
            made += _write_rows(cluster, store, row_filter, out, prefix, options.parquet)
        seconds, peak = so_far()
    files = [one for several in made for one in several]
    report = StageReport(
        sum(one.rows for one in files), sum(one.bytes for one in files), len(files), seconds, peak, projected
    )
    return {f"export_{item}": TableEntry(files)}, report


def task_bytes(n_ids: int, rows: bool) -> int:
    """What the largest task needs: the ids and names, and a block of pairs or a file of the row table."""
    return n_ids * BYTES_PER_ID + BLOCK_PAIRS * BYTES_PER_PAIR + rows * ROWS_BYTES


def ids_by_code(store: Store, item: str, columns: Sequence[str] = ()) -> pa.Table:
    """Ids (and other columns) of a vocabulary, row = code."""
    table = store.table(f"{item}s", [item, f"{item}_id", *columns])
    code = values(table[item])
    return table if (code == np.arange(len(code))).all() else table.sort_by(item)


def write_counts(store: Store, item: str, out: Folder, name: str) -> list[FileEntry]:
    """The task: `artist_counts.csv`, by code: by falling mentions on a first ingest."""
    import pyarrow as pa
    import pyarrow.csv

    table = store.table(f"{item}s", [f"{item}_id", "n_mentions", "n_playlists", f"{item}_name"])
    header = f"{item}_uri,count,n_playlists,{item}_name\n"
    with out.writing(name) as file:
        file.write(header.encode())
        options = pyarrow.csv.WriteOptions(include_header=False)
        with pa.PythonFile(file, "w") as sink:
            pyarrow.csv.write_csv(table, sink, write_options=options)
    return [entry_of(name, table.num_rows, file)]


def write_pairs(store: Store, item: str, out: Folder, name: str, form: str) -> list[FileEntry]:
    """The task: the article's pairs in both directions, by both ids, with count and normalised count."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.csv
    import pyarrow.parquet as pq

    items = store.table(f"pair_items_{item}_article", ["item", "pair_total"])
    codes, total = values(items["item"]), values(items["pair_total"])
    ids = ids_by_code(store, item)[f"{item}_id"].take(int64(codes))
    rank = string_order(ids)
    by_rank = np.argsort(rank)
    schema = pa.schema(
        [("item1", pa.string()), ("item2", pa.string()), ("count", pa.int64()), ("normalised_count", pa.float64())]
    )
    n = 0
    with out.writing(name) as file:
        if form == "csv":
            quoted = pc.any(pc.match_substring_regex(ids, '[",\r\n]')).as_py()  # never of slices
            options = pyarrow.csv.WriteOptions(quoting_style="needed" if quoted else "none", include_header=False)
            file.write((",".join(schema.names) + "\n").encode())
            writer: Any = pyarrow.csv.CSVWriter(file, schema, write_options=options)
        else:
            writer = pq.ParquetWriter(file, schema, compression="zstd")
        with writer:
            for low, high in _seed_ranges(store, item, codes, rank):
                first, second, count = _both_ways(store, item, codes, rank, low, high)
                table = pa.table(
                    {
                        "item1": ids.take(int64(by_rank[first])),
                        "item2": ids.take(int64(by_rank[second])),
                        "count": int64(count),
                        "normalised_count": float64(
                            count / (total[by_rank[first]] + total[by_rank[second]]).astype(float)
                        ),
                    },
                    schema=schema,
                )
                writer.write_table(table)
                n += table.num_rows
    return [entry_of(name, n, file)]


def _seed_ranges(store: Store, item: str, codes: NDArray[np.int32], rank: NDArray[np.int32]) -> list[tuple[int, int]]:
    """Ranges of seeds, by rank of id, that have some `BLOCK_PAIRS` pairs each."""
    n = np.zeros(len(codes), np.int64)
    for part in store.parts(f"pairs_{item}_article", ["item1", "item2"]):
        for side in ("item1", "item2"):
            n += np.bincount(rank[np.searchsorted(codes, values(part[side]))], minlength=len(codes))
    block = np.cumsum(n) // BLOCK_PAIRS
    starts = [0, *(np.flatnonzero(np.diff(block)) + 1).tolist(), len(codes)]
    return [(low, high) for low, high in itertools.pairwise(starts) if low < high]


def _both_ways(
    store: Store, item: str, codes: NDArray[np.int32], rank: NDArray[np.int32], low: int, high: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Ranks and counts of the pairs in both directions whose seed has low ≤ rank < high, sorted."""
    found = []
    for part in store.parts(f"pairs_{item}_article"):
        one, other = (rank[np.searchsorted(codes, values(part[side]))] for side in ("item1", "item2"))
        count = values(part["n_playlists"])
        for seed, neighbour in ((one, other), (other, one)):
            mine = (seed >= low) & (seed < high)
            found.append(np.stack([seed[mine], neighbour[mine], count[mine]]).astype(np.int64))
    first, second, count = np.concatenate(found, 1)
    by_both = np.lexsort((second, first))
    return first[by_both], second[by_both], count[by_both]


def word(id: str) -> str:
    """An id as one word of a line: blanks, which ids of tables may hold, and % as in a URL (%20, %25)."""
    return re.sub(r"[\s%]", lambda found: quote(found[0]), id)


def write_similar(store: Store, item: str, method: str, out: Folder, names: Sequence[str]) -> list[FileEntry]:
    """The task: a line an item, `seed similar1 similar2 …`, best first, under each of some names."""
    ids = np.array([word(one) for one in ids_by_code(store, item)[f"{item}_id"].to_pylist()], object)
    table = store.table(f"similar_{item}_{method}", ["item", "neighbour"])
    seed, neighbour = values(table["item"]), ids[values(table["neighbour"])]
    starts = np.flatnonzero(np.diff(seed, prepend=-1))
    lines = [
        " ".join([ids[seed[start]], *neighbour[start:end]])
        for start, end in zip(starts.tolist(), [*starts[1:].tolist(), len(seed)], strict=False)
    ]
    text = "".join(f"{line}\n" for line in lines).encode()
    return [put(out, name, text, len(lines)) for name in names]


# ------------------------------------------------------------------------------------------------------- row table


def _write_rows(
    cluster: Cluster, store: Store, row_filter: tuple[int, int], out: Folder, prefix: str, parquet: bool
) -> list[list[FileEntry]]:
    """`playlist_1.csv` …: entries of playlists with more than min_tracks tracks, of the `top` artists."""
    from dask import delayed

    n_partitions = len(store.entry("rows").files)
    shared = delayed(store, name=f"store-{fingerprint(store.folder.url)}", traverse=False)
    sizes = cluster.compute(
        "row table, counted", [delayed(count_rows)(shared, row_filter, number) for number in range(n_partitions)]
    )
    ends = np.cumsum(sizes)
    starts = ends - sizes
    work = []
    total = int(ends[-1])
    for number, first in enumerate(range(0, max(total, 1), CSV_ROWS), 1):
        last = min(first + CSV_ROWS, total)
        mine = [
            (place, max(first - int(starts[place]), 0), min(last, int(ends[place])) - int(starts[place]))
            for place in range(n_partitions)
            if starts[place] < last and ends[place] > first
        ]
        name = f"{prefix}playlist_{number}.{'parquet' if parquet else 'csv'}"
        work.append(delayed(write_rows)(shared, row_filter, mine, out, name))
    return cluster.compute("row table", work, lambda several: several[0].rows, "rows")


def _kept(store: Store, row_filter: tuple[int, int], number: int) -> pa.Table:
    """A partition's rows that the row table holds."""

    top, min_tracks = row_filter
    popular = values(store.table("popular_artist", ["artist"])["artist"])[:top]
    lists = tables.read_file(store.folder, store.entry("playlists").files[number].path, ["num_tracks", "n_entries"])
    rows = tables.read_file(store.folder, store.entry("rows").files[number].path)
    keep = np.repeat(values(lists["num_tracks"]) > min_tracks, values(lists["n_entries"]))
    return rows.filter(bools(keep & np.isin(values(rows["artist"]), popular)))


def count_rows(store: Store, row_filter: tuple[int, int], number: int) -> int:
    """The task: how many rows of a partition the row table holds."""
    return int(_kept(store, row_filter, number).num_rows)


def write_rows(
    store: Store, row_filter: tuple[int, int], spans: Sequence[tuple[int, int, int]], out: Folder, name: str
) -> list[FileEntry]:
    """The task: one file of the row table, made of spans (partition, first, behind the last) of kept rows."""
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet as pq

    artists = ids_by_code(store, "artist", ["artist_name"])
    tracks = ids_by_code(store, "track", ["track_name"])
    n = 0
    with out.writing(name) as file:
        schema = pa.schema(
            [("pid", pa.int64())] + [(c, pa.string()) for c in ("artist_name", "artist_uri", "track_name", "track_uri")]
        )
        options = pyarrow.csv.WriteOptions(include_header=False)
        if name.endswith(".csv"):
            file.write((",".join(schema.names) + "\n").encode())
        writer: Any = (
            pyarrow.csv.CSVWriter(file, schema, write_options=options)
            if name.endswith(".csv")
            else pq.ParquetWriter(file, schema, compression="zstd")
        )
        with writer:
            for number, first, last in spans:
                rows = _kept(store, row_filter, number).slice(first, last - first)
                writer.write_table(
                    pa.table(
                        {
                            "pid": rows["pid"],
                            "artist_name": artists["artist_name"].take(rows["artist"]),
                            "artist_uri": artists["artist_id"].take(rows["artist"]),
                            "track_name": tracks["track_name"].take(rows["track"]),
                            "track_uri": tracks["track_id"].take(rows["track"]),
                        },
                        schema=schema,
                    )
                )
                n += rows.num_rows
    return [entry_of(name, n, file)]
