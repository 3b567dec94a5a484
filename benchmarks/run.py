"""The benchmarks: `python -m benchmarks.run ingest|pairs [--slices N] [--peers …]`. One table each.

Ours and the peers run one after the other on the same two cores, on the same generated slices, and their results are
compared before a time is printed. Each is the best of some runs, all in processes of their own; `A/A` beside ours is
the second best of the same, to show the noise. `ingest` also prints what reading the same bytes takes, and the CPU
seconds of each step. Run it at a quiet moment.
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

from benchmarks.phases import decoding, ingest_phases, table
from benchmarks.reading import speeds
from recsys_dask import Store, api, params
from recsys_dask.runtime.budget import LARGEST_PART_BYTES

INGEST_PEERS = ("article", "msgspec_json", "pyarrow_json", "polars_json", "duckdb_json")
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

    def run_ours(*options: str) -> float:
        shutil.rmtree(store, ignore_errors=True)
        ours("ingest", str(slices), str(store), "--workers", str(WORKERS), *options)
        return stage_seconds(store, "ingest")

    run_ours()  # compiles the kernels, once a user
    mine = best(runs, run_ours)
    rows = [("recsys_dask", *mine[0]), *([("recsys_dask A/A", *mine[1])] if len(mine) > 1 else [])]
    tables = {name: canonical(name, Store.open(str(store)).table(name)) for name in read_names()}
    if hasattr(params.Ingest, "reader"):
        rows.append(("recsys_dask --reader strict", *best(runs, partial(run_ours, "--reader", "strict"))[0]))
        check_tables("the strict reader", {name: Store.open(str(store)).table(name) for name in tables}, tables)
    for name in peers:
        out = folder / name
        theirs = partial(peer, "ingest_peers", name, paths, str(out))
        rows.append((name, *best(1 if name == "article" else runs, theirs)[0]))
        if name == "article":
            check_counts(out / "artist_counts.csv", tables["artists"])
        else:
            check_tables(name, read_tables(out), tables)
        shutil.rmtree(out, ignore_errors=True)
    show(f"JSON to Parquet, {len(paths)} slices, {size / 1e9:.2f} GB", rows, peers[0], size / 1e6, "MB/s")
    print(f"\n{speeds(paths, 1)}\n")
    shutil.rmtree(store)
    steps, _ = ingest_phases(slices, store, workers=WORKERS)
    print(table(steps, size))
    reading, writing = decoding(slices, LARGEST_PART_BYTES)
    print(f"\nOf decoding, reading takes {reading:.2f} CPU s a GB, writing parts {writing:.2f}.")


def check_tables(name: str, theirs: dict[str, Any], tables: dict[str, Any]) -> None:
    """A peer's tables against ours."""
    from benchmarks.ingest_peers import canonical

    for kind, made in theirs.items():
        if not canonical(kind, made).equals(tables[kind]):
            raise SystemExit(f"{name}: its {kind} differs from ours: no time is given")


def check_counts(path: Path, artists: Any) -> None:
    """The article's counts against ours."""
    with open(path, encoding="utf-8", newline="") as file:
        theirs = {row["artist_uri"].rpartition(":")[2]: int(row["count"]) for row in csv.DictReader(file)}
    if theirs != dict(zip(artists["artist_id"].to_pylist(), artists["n_mentions"].to_pylist(), strict=True)):
        raise SystemExit("article: its artist counts differ from ours: no time is given")


def read_names() -> tuple[str, ...]:
    return ("playlists", "rows", "artists", "tracks")


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
    parser.add_argument("--slices", type=int, help="how many to generate, of 1,000 playlists (default: 60; pairs: 20)")
    parser.add_argument("--playlists", type=int, help="the same in playlists")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--peers", nargs="+")
    given = parser.parse_args()
    playlists = given.playlists or 1_000 * (given.slices or {"ingest": 60, "pairs": 20}[given.what])
    peers = given.peers or list({"ingest": INGEST_PEERS, "pairs": PAIR_PEERS}[given.what])
    with tempfile.TemporaryDirectory(prefix="recsys_dask-bench-") as name:
        folder = Path(name)
        api.sample(folder / "slices", playlists=playlists, seed=1, workers=WORKERS)
        {"ingest": ingest, "pairs": pairs}[given.what](folder / "slices", folder, given.runs, peers)


if __name__ == "__main__":
    main()
