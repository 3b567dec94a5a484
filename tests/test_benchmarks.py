"""The benchmarks at a tiny size: they run, compare results, and print their table."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from recsys_dask import Store, api

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize(
    "what, ways",
    [
        ("ingest", ["recsys_dask", "article", "msgspec_json", "pyarrow_json", "polars_json", "duckdb_json"]),
        ("pairs", ["recsys_dask", "counter_stage", "polars_stage", "duckdb_stage", "scipy_stage"]),
    ],
)
def test_a_benchmark_prints_its_table(what: str, ways: list[str]) -> None:
    for library in ("polars", "duckdb", "scipy"):
        pytest.importorskip(library)
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.run", what, "--playlists", "120", "--runs", "1"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    rows = [line.split("|")[1].strip() for line in done.stdout.splitlines() if line.startswith("| ")]
    more = ["step", "decode", "pids", "merge", "recode"] if what == "ingest" else []
    assert [name for name in rows[1:] if "--reader" not in name] == ways + more


def test_a_folder_of_slices_beside_its_disk(tmp_path: Path) -> None:
    api.sample(tmp_path / "slices", playlists=120, seed=1, workers=1)
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.million", tmp_path / "slices", "--store", tmp_path / "store"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for word in ("120 playlists", "| decode |", "| merge |", "| recode |", "ratio", "memory of a worker: at most"):
        assert word in done.stdout
    assert Store.open(str(tmp_path / "store")).entry("playlists").rows == 120
