"""How often two items share a playlist, counted by others on two cores, to the package's own counts.

On arrays: f(playlist, item) takes a long table of distinct (playlist, item), sorted by playlist and then
item; it returns (item1, item2, n) with item1 < item2, sorted by item1 and then item2.

Whole stage: f_stage(rows, popular, out) reads the table `rows` of a store (a folder of Parquet files with
pid, pos, artist, track), keeps the artists whose codes are in `popular`, makes (pid, artist) distinct, counts
and writes one Parquet file with item1, item2 and n_playlists, in that same order.

counter        Counter and itertools.combinations: what people do today, one thread
scipy_product  X.T @ X of the sparse playlist × item matrix, one thread
polars_join    a join of the table with itself, two threads
duckdb_join    the same in SQL, two threads
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

IMPORTS = {"scipy_stage": ["scipy.sparse"], "polars_stage": ["polars"], "duckdb_stage": ["duckdb"]}
"""What is imported before the clock of the work starts, as our own kernels are loaded before ours does."""

Codes = Sequence[int] | np.ndarray
Pairs = tuple[np.ndarray, np.ndarray, np.ndarray]

# -------------------------------------------------------------------------------------------------- on arrays


def counter(playlist: np.ndarray, item: np.ndarray) -> Pairs:
    """`Counter(itertools.combinations)`."""
    counts: Counter[tuple[int, int]] = Counter()
    items = item.tolist()
    for start, end in pairwise(np.flatnonzero(np.diff(playlist, prepend=-1, append=-1)).tolist()):
        counts.update(combinations(items[start:end], 2))
    item1, item2 = np.array(list(counts), np.int64).reshape(-1, 2).T
    n = np.fromiter(counts.values(), np.int64, len(counts))
    by_both = np.lexsort((item2, item1))
    return item1[by_both], item2[by_both], n[by_both]


def scipy_product(playlist: np.ndarray, item: np.ndarray) -> Pairs:
    """The upper triangle of `X.T @ X`."""
    import scipy.sparse as sp

    items, column = np.unique(item, return_inverse=True)
    playlists, row = np.unique(playlist, return_inverse=True)
    x = sp.csr_array((np.ones(len(item), np.int32), (row, column)), shape=(len(playlists), len(items)))
    above = sp.triu(x.T.tocsr() @ x, k=1, format="csr")
    above.sort_indices()
    above = above.tocoo()
    return items[above.row], items[above.col], above.data.astype(np.int64)


def polars_join(playlist: np.ndarray, item: np.ndarray) -> Pairs:
    """A join on the playlist, and `group_by`."""
    import polars as pl

    rows = pl.LazyFrame({"playlist": playlist, "item": item})
    pairs = _polars_pairs(rows).collect()
    return pairs["item1"].to_numpy(), pairs["item2"].to_numpy(), pairs["n_playlists"].to_numpy()


def duckdb_join(playlist: np.ndarray, item: np.ndarray) -> Pairs:
    """A join on the playlist, and GROUP BY."""
    import duckdb

    with duckdb.connect() as base:
        base.execute("SET threads = 2")
        base.execute("SET preserve_insertion_order = false")
        base.register("given", pa.table({"playlist": playlist, "item": item}))
        base.execute("CREATE TABLE held AS SELECT * FROM given")
        pairs = base.sql(_DUCKDB_PAIRS).to_arrow_table()
    return pairs["item1"].to_numpy(), pairs["item2"].to_numpy(), pairs["n_playlists"].to_numpy()


def _polars_pairs(rows: Any) -> Any:
    """A lazy frame of pairs from one of distinct (playlist, item)."""
    import polars as pl

    if pl.thread_pool_size() > 2:
        raise RuntimeError("polars was imported before `benchmarks` and has more than two threads")
    return (
        rows.join(rows, on="playlist", suffix="2")
        .filter(pl.col("item") < pl.col("item2"))
        .group_by(pl.col("item").alias("item1"), "item2")
        .agg(pl.len().cast(pl.Int64).alias("n_playlists"))
        .sort("item1", "item2")
    )


_DUCKDB_PAIRS = """
    SELECT one.item AS item1, other.item AS item2, count(*) AS n_playlists
    FROM held AS one JOIN held AS other ON one.playlist = other.playlist AND one.item < other.item
    GROUP BY item1, item2 ORDER BY item1, item2"""

# ------------------------------------------------------------------------------------------------ whole stage


def read_pairs(out: str | Path) -> pa.Table:
    """The pairs that a whole stage wrote, in one form: for an equality check."""
    fields = [("item1", pa.int32()), ("item2", pa.int32()), ("n_playlists", pa.int64())]
    return pq.read_table(out).cast(pa.schema(fields)).combine_chunks()


def counter_stage(rows: str | Path, popular: Codes, out: str | Path) -> None:
    """`counter` from Parquet to Parquet."""
    _array_stage(counter, rows, popular, out)


def scipy_stage(rows: str | Path, popular: Codes, out: str | Path) -> None:
    """`scipy_product` from Parquet to Parquet."""
    _array_stage(scipy_product, rows, popular, out)


def polars_stage(rows: str | Path, popular: Codes, out: str | Path) -> None:
    """From Parquet to Parquet in one lazy query."""
    import polars as pl

    wanted = pl.LazyFrame({"item": np.asarray(popular, np.int32)})
    held = (
        pl.scan_parquet(Path(rows) / "*.parquet")
        .select(pl.col("pid").alias("playlist"), pl.col("artist").alias("item"))
        .join(wanted, on="item", how="semi")
        .unique()
    )
    _polars_pairs(held).sink_parquet(out, compression="zstd", compression_level=1)


def duckdb_stage(rows: str | Path, popular: Codes, out: str | Path) -> None:
    """From Parquet to Parquet in SQL."""
    import duckdb

    with duckdb.connect() as base:
        base.execute("SET threads = 2")
        base.execute("SET preserve_insertion_order = false")
        base.register("wanted", pa.table({"item": np.asarray(popular, np.int32)}))
        base.execute(
            """CREATE TABLE held AS SELECT DISTINCT pid AS playlist, artist AS item FROM read_parquet($rows)
               WHERE artist IN (SELECT item FROM wanted)""",
            {"rows": str(Path(rows) / "*.parquet")},
        )
        written_as = "FORMAT parquet, COMPRESSION zstd, COMPRESSION_LEVEL 1"
        base.execute(f"COPY ({_DUCKDB_PAIRS}) TO '{out}' ({written_as})")


def _array_stage(
    count: Callable[[np.ndarray, np.ndarray], Pairs],
    rows: str | Path,
    popular: Codes,
    out: str | Path,
) -> None:
    """Parquet to arrays, `count`, arrays to Parquet."""
    table = pq.read_table(rows, columns=["pid", "artist"])
    pid, artist = table["pid"].to_numpy(), table["artist"].to_numpy()
    codes = np.unique(np.asarray(popular, np.int64))
    wanted = np.zeros(max(int(artist.max(initial=-1)), int(codes.max(initial=-1))) + 1, bool)
    wanted[codes] = True
    keep = wanted[artist]
    playlist = np.unique(pid[keep], return_inverse=True)[1]
    # one number a (playlist, artist): distinct, and in the order that the counts want
    held = np.unique(playlist * len(wanted) + artist[keep])
    item1, item2, n = count(*np.divmod(held, max(len(wanted), 1)))
    columns = {"item1": item1.astype(np.int32), "item2": item2.astype(np.int32), "n_playlists": n}
    pq.write_table(pa.table(columns), out, compression="zstd")
