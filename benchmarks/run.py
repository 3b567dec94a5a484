"""The benchmarks: `python -m benchmarks.run ingest|pairs [--slices N] [--peers …]`. One table each.

Ours and the peers run one after the other on the same two cores, on the same generated slices, and their results are
compared before a time is printed. Each is the best of some runs, all in processes of their own; `A/A` beside ours is
the second best of the same, to show the noise. Run it at a quiet moment.
"""

from __future__ import annotations

import argparse
import csv
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from recsys_dask import Store, api

INGEST_PEERS = ("article", "pyarrow_json", "polars_json", "duckdb_json")
PAIR_PEERS = ("counter_stage", "polars_stage", "duckdb_stage", "scipy_stage")
WORKERS = 2

IN_PROCESS = """
import json, sys, time
from pathlib import Path
if __name__ == "__main__":
    module, name, arguments = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
    module = __import__(f"benchmarks.{module}", fromlist=[name])
    function = getattr(module, name)
    for library in module.IMPORTS.get(name, ()):
        __import__(library)
    started = time.perf_counter()
    function(*arguments)
    print(time.perf_counter() - started)
"""


def timed(act: Callable[[], float | None]) -> tuple[float, float]:
    """Wall seconds of `act` as a whole, and of its work alone where it tells them."""
    started = time.perf_counter()
    work = act()
    whole = time.perf_counter() - started
    return whole, whole if work is None else work


def peer(module: str, name: str, *arguments: Any) -> float:
    """A peer in a process of its own; its own seconds, without the interpreter's start."""
    done = subprocess.run(
        [sys.executable, "-c", IN_PROCESS, module, name, json.dumps(arguments)], capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(f"{name} failed:\n{done.stderr}")
    return float(done.stdout.splitlines()[-1])


def ours(*arguments: str) -> None:
    """Our own command line in a process of its own."""
    done = subprocess.run([sys.executable, "-m", "recsys_dask", *arguments], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"recsys-dask {arguments[0]} failed:\n{done.stderr}")


def stage_seconds(store: Path, *stages: str) -> float:
    """What stages took, as the store's manifest says: with the workers up, their imports included."""
    made = Store.open(str(store)).manifest.stages
    return sum(made[stage].report.seconds for stage in stages)


def show(title: str, rows: list[tuple[str, float, float]], reference: str, unit: float, of: str) -> None:
    """One table: whole and work seconds, rates, and how many times as fast as the reference."""
    base = {name: (whole, work) for name, whole, work in rows}[reference]
    print(
        f"\n{title}\n\n| way | whole s | work s | {of} (work) | × {reference} whole | work |\n|---|---|---|---|---|---|"
    )
    for name, whole, work in rows:
        print(
            f"| {name} | {whole:.2f} | {work:.2f} | {unit / work:,.0f} | {base[0] / whole:.1f} | {base[1] / work:.1f} |"
        )


def best(runs: int, act: Callable[[], float | None]) -> list[tuple[float, float]]:
    """(whole, work) of some runs, the fastest first."""
    return sorted(timed(act) for _ in range(runs))


def ingest(slices: Path, folder: Path, runs: int, peers: list[str]) -> None:
    """JSON to Parquet with both vocabularies: equal tables, then times."""
    from benchmarks.ingest_peers import canonical, read_tables

    paths = sorted(map(str, slices.glob("*.json")))
    size = sum(Path(path).stat().st_size for path in paths)
    store = folder / "store"

    def run_ours() -> float:
        shutil.rmtree(store, ignore_errors=True)
        ours("ingest", str(slices), str(store), "--workers", str(WORKERS))
        return stage_seconds(store, "ingest")

    run_ours()  # compiles the kernels, once a user
    mine = best(runs, run_ours)
    rows = [("recsys_dask", *mine[0]), *([("recsys_dask A/A", *mine[1])] if len(mine) > 1 else [])]
    tables = {name: canonical(name, Store.open(str(store)).table(name)) for name in read_names()}
    for name in peers:
        out = folder / name
        theirs = partial(peer, "ingest_peers", name, paths, str(out))
        rows.append((name, *best(1 if name == "article" else runs, theirs)[0]))
        if name == "article":
            check_counts(out / "artist_counts.csv", tables["artists"])
        else:
            for table, made in read_tables(out).items():
                if not made.equals(tables[table]):
                    raise SystemExit(f"{name}: its {table} differs from ours: no time is given")
        shutil.rmtree(out, ignore_errors=True)
    show(f"JSON to Parquet, {len(paths)} slices, {size / 1e9:.2f} GB", rows, peers[0], size / 1e6, "MB/s")
    read = min(_read_all(paths) for _ in range(2))
    print(f"\nReading the same bytes alone takes {read:.2f} s ({size / 1e6 / read:,.0f} MB/s, page cache, one core).")


def check_counts(path: Path, artists: Any) -> None:
    """The article's counts against ours."""
    with open(path, encoding="utf-8", newline="") as file:
        theirs = {row["artist_uri"].rpartition(":")[2]: int(row["count"]) for row in csv.DictReader(file)}
    if theirs != dict(zip(artists["artist_id"].to_pylist(), artists["n_mentions"].to_pylist(), strict=True)):
        raise SystemExit("article: its artist counts differ from ours: no time is given")


def read_names() -> tuple[str, ...]:
    return ("playlists", "rows", "artists", "tracks")


def _read_all(paths: list[str]) -> float:
    buffer = bytearray(1 << 24)
    started = time.perf_counter()
    for path in paths:
        with open(path, "rb", buffering=0) as file:
            while file.readinto(buffer):
                pass
    return time.perf_counter() - started


def pairs(slices: Path, folder: Path, runs: int, peers: list[str]) -> None:
    """Rows to pairs of the 10,000 most mentioned artists: equal pairs, then times."""
    from benchmarks.pairs_peers import read_pairs

    store = folder / "store"
    ours("ingest", str(slices), str(store), "--workers", str(WORKERS))
    ours("counts", str(store), "--workers", str(WORKERS))
    opened = Store.open(str(store))
    popular = sorted(opened.table("popular_artist")["artist"].to_pylist())
    rows_folder = str(Path(opened.files("rows")[0]).parent)
    key = "pairs:artist:full"

    def run_ours() -> float:
        ours("pairs", str(store), "--view", "full", "--measure", "cosine", "--rebuild")
        return stage_seconds(store, key)

    mine = best(runs, run_ours)
    rows = [("recsys_dask", *mine[0]), *([("recsys_dask A/A", *mine[1])] if len(mine) > 1 else [])]
    counted = Store.open(str(store)).table("pairs_artist_full", ["item1", "item2", "n_playlists"])
    for name in peers:
        out = folder / f"{name}.parquet"
        rows.append((name, *best(runs, partial(peer, "pairs_peers", name, rows_folder, popular, str(out)))[0]))
        if not read_pairs(out).cast(counted.schema).equals(counted):
            raise SystemExit(f"{name}: its pairs differ from ours: no time is given")
    show(
        f"Pairs of {len(popular):,} artists, {counted.num_rows:,} pairs",
        rows,
        peers[0],
        counted.num_rows / 1e6,
        "M pairs/s",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("ingest", "pairs"))
    parser.add_argument("--playlists", type=int, help="how many to generate (default: 60,000; pairs: 20,000)")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--peers", nargs="+")
    given = parser.parse_args()
    playlists = given.playlists or {"ingest": 60_000, "pairs": 20_000}[given.what]
    peers = given.peers or list({"ingest": INGEST_PEERS, "pairs": PAIR_PEERS}[given.what])
    with tempfile.TemporaryDirectory(prefix="recsys_dask-bench-") as name:
        folder = Path(name)
        api.sample(folder / "slices", playlists=playlists, seed=1, workers=WORKERS)
        {"ingest": ingest, "pairs": pairs}[given.what](folder / "slices", folder, given.runs, peers)


if __name__ == "__main__":
    main()
