"""The benchmarks at a tiny size: they run, compare results, and print their table."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize(
    "what, ways",
    [
        ("ingest", ["recsys_dask", "article", "pyarrow_json", "polars_json", "duckdb_json"]),
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
    assert rows[1:] == ways
