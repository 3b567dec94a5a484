"""Memory is a contract: measured ≤ projected ≤ limit, and a slice larger than the budget is split."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from recsys_dask import Store, api
from recsys_dask.errors import BudgetError

LIMIT = 1_000_000_000
STAGES = ("ingest", "counts", "near_duplicates", "pairs", "similar", "export")


@pytest.fixture(scope="module")
def slices(tmp_path_factory: pytest.TempPathFactory, client) -> Path:
    """4,000 playlists: as they are, and as one compact file larger than a task of a worker of 1 GB takes."""
    folder = tmp_path_factory.mktemp("slices")
    api.sample(folder / "four", playlists=4_000, seed=5, client=client)
    playlists = [
        playlist
        for path in sorted((folder / "four").glob("*.json"))
        for playlist in json.loads(path.read_text())["playlists"]
    ]
    (folder / "one").mkdir()
    (folder / "one" / "all.json").write_text(json.dumps({"playlists": playlists}, separators=(",", ":")))
    return folder


class Ran(NamedTuple):
    store: Path
    outcomes: list[Any]


@pytest.fixture(scope="module")
def runs(slices: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Ran]:
    """Each form run on workers of 1 GB."""
    folder = tmp_path_factory.mktemp("runs")
    return {
        form: Ran(
            folder / form,
            api.run(slices / form, folder / form, workers=2, memory_limit="1GB", rows=True, models="none"),
        )
        for form in ("four", "one")
    }


@pytest.mark.parametrize("form", ["four", "one"])
def test_measured_is_at_most_projected_is_at_most_the_limit(runs: dict[str, Ran], form: str) -> None:
    assert {outcome.key.partition(":")[0] for outcome in runs[form].outcomes} == set(STAGES)
    for outcome in runs[form].outcomes:
        report = outcome.report
        assert report.peak_bytes <= report.projected_bytes <= LIMIT, (outcome.key, report)


def test_one_large_file_equals_many(slices: Path, runs: dict[str, Ran]) -> None:
    assert (slices / "one" / "all.json").stat().st_size > 45_000_000
    four, one = (Store.open(str(ran.store)) for ran in runs.values())
    assert four.manifest.tables.keys() == one.manifest.tables.keys()
    for name in four.manifest.tables:
        if not name.startswith("export"):
            assert four.table(name).equals(one.table(name)), name


def test_too_little_memory_names_stage_number_and_parameter(runs: dict[str, Ran], tmp_path: Path) -> None:
    store = shutil.copytree(runs["four"].store, tmp_path / "store")
    with pytest.raises(BudgetError, match=r"similarities of .* MB .*--memory-limit \d+.*--best"):
        api.pairs(store, workers=1, memory_limit="650MB", best=1_000)
    with pytest.raises(BudgetError, match=r"--memory-limit at least 538MB"):
        api.counts(store, top=5, workers=1, memory_limit="400MB")
