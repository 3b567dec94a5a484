"""Near-duplicate playlists: the join against all pairs of sets, and the stage on stores cut in several ways."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import oracles
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import PYTHON2, write_slices

from recsys_dask import api, schemas
from recsys_dask.cli import program
from recsys_dask.compressed import starts_of
from recsys_dask.errors import StoreError
from recsys_dask.holdout.lists import Lists, distinct, joined
from recsys_dask.holdout.near_duplicates import near_duplicates
from recsys_dask.runtime.clusters import Cluster
from recsys_dask.runtime.connecting import prepare_kernels
from recsys_dask.runtime.progress import Progress
from recsys_dask.stages import ingest
from recsys_dask.stages.sample import make_world, slice_text
from recsys_dask.store.tables import Store

Data = list[dict[str, Any]]


@pytest.fixture(scope="module", autouse=True)
def compiled() -> None:
    prepare_kernels(Progress())


def packed(sets: Sequence[set[int]]) -> Lists:
    flat = [item for one in sets for item in sorted(one)]
    return Lists(starts_of(np.array([len(one) for one in sets], np.int64)), np.array(flat, np.int32))


def unpacked(lists: Lists) -> list[list[int]]:
    assert lists.starts.dtype == np.int64 and lists.items.dtype == np.int32
    return [lists.items[a:b].tolist() for a, b in zip(lists.starts, lists.starts[1:], strict=False)]


def check(sets: Sequence[set[int]], limit: float) -> list[tuple[int, float]]:
    found = near_duplicates(packed(sets), limit)
    assert found.of.dtype == np.int64 and found.jaccard.dtype == np.float64
    both = list(zip(found.of.tolist(), found.jaccard.tolist(), strict=True))
    assert both == oracles.near_duplicates(sets, limit)
    return both


@st.composite
def copies(draw: st.DrawFn) -> list[set[int]]:
    """Sets, many of which are an earlier one with some items more or less; some are empty."""
    item = st.integers(0, draw(st.sampled_from((3, 12, 60))))
    sets: list[set[int]] = []
    for _ in range(draw(st.integers(0, 25))):
        if sets and draw(st.integers(0, 2)):
            sets.append(draw(st.sampled_from(sets)) ^ draw(st.sets(item, max_size=4)))
        else:
            sets.append(draw(st.sets(item, max_size=20)))
    return sets


LIMITS = st.sampled_from((0.0, 0.25, 1 / 3, 0.5, 0.6, 2 / 3, 0.7, 0.8, 0.9, 1.0)) | st.integers(0, 100).map(
    lambda percent: percent / 100
)


@settings(max_examples=300, deadline=None)
@given(copies(), LIMITS)
def test_as_all_pairs(sets: list[set[int]], limit: float) -> None:
    check(sets, limit)


def test_on_many() -> None:
    rng = np.random.default_rng(0)
    weight = 1 / np.arange(1, 301)
    sets: list[set[int]] = []
    for _ in range(600):
        if sets and rng.random() < 0.5:
            one = sets[rng.integers(len(sets))]
            sets.append(one ^ set(rng.integers(0, 300, rng.integers(0, 2 + len(one) // 2)).tolist()))
        else:
            sets.append(set(rng.choice(300, rng.integers(0, 60), False, weight / weight.sum()).tolist()))
    for limit in (0.2, 0.5, 0.8):
        found = check(sets, limit)
        assert 20 < sum(of >= 0 for of, _ in found) < 580


@pytest.mark.parametrize("n, m", [(1, 2), (2, 3), (7, 10), (9, 10), (3, 5), (1, 3)])
def test_the_border_itself_is_not_above(n: int, m: int) -> None:
    """J = n / m exactly, with a limit of n / m, and the next numbers of nine decimals."""
    whole, part = set(range(m)), set(range(n))
    exact = round(Fraction(n, m) * 10**9) == Fraction(n, m) * 10**9
    assert near_duplicates(packed([whole, part]), n / m).of.tolist() == [-1, -1] or not exact
    assert near_duplicates(packed([whole, part]), n / m + 2e-9).of.tolist() == [-1, -1]
    assert near_duplicates(packed([whole, part]), n / m - 2e-9).of.tolist() == [-1, 0]


def test_a_near_duplicate_is_compared_with_nobody_later() -> None:
    a = set(range(10))
    b = set(range(2, 12))  # 8 of 12 with a
    c = set(range(4, 14))  # 8 of 12 with b, 6 of 14 with a
    assert near_duplicates(packed([a, b, c])).of.tolist() == [-1, 0, -1]
    assert near_duplicates(packed([b, a, c])).of.tolist() == [-1, 0, 0]


def test_the_empty_are_kept() -> None:
    assert near_duplicates(packed([set(), set(), {1}, set(), {1}])).of.tolist() == [-1, -1, -1, -1, 2]
    assert near_duplicates(packed([])).of.tolist() == []


@settings(max_examples=100, deadline=None)
@given(st.lists(st.lists(st.integers(0, 5) | st.just(2**31 - 1), max_size=8), max_size=8), st.integers(0, 8))
def test_lists(entries: list[list[int]], cut: int) -> None:
    def of(part: list[list[int]]) -> Lists:
        flat = [item for one in part for item in one]
        return distinct(np.array(flat, np.int32), np.array([len(one) for one in part], np.int64))

    wanted = [sorted(set(one)) for one in entries]
    lists = joined([of(entries[:cut]), of(entries[cut:])])
    assert unpacked(lists) == unpacked(of(entries)) == wanted
    assert lists.owners.tolist() == [u for u, one in enumerate(wanted) for _ in one]
    rows = np.arange(len(entries))[::-1][:cut]
    assert unpacked(lists.take(rows)) == [wanted[row] for row in rows]
    assert unpacked(joined([])) == []


# ----------------------------------------------------------------------------------------------------------- the stage


def slices_of(folder: Path, data: Data, n_files: int) -> Path:
    write_slices(folder, data, n_files)
    return folder


@pytest.fixture(scope="module")
def data() -> Data:
    """The first slice of a small world, half of it near-copies."""
    return json.loads(slice_text(make_world(300, 1, 0.5), 0))["playlists"]


def wanted(data: Data, limit: float = 0.5) -> list[dict[str, Any]]:
    by_pid = sorted(data, key=lambda playlist: playlist["pid"])
    sets = [{entry["artist_uri"] for entry in playlist["tracks"]} for playlist in by_pid]
    return [
        {"pid": playlist["pid"], "of": by_pid[of]["pid"], "jaccard": jaccard}
        for playlist, (of, jaccard) in zip(by_pid, oracles.near_duplicates(sets, limit), strict=True)
        if of >= 0
    ]


@pytest.mark.parametrize("n_files, rows", [(1, 1 << 19), (3, 2_000), (20, 400)])
def test_the_table_depends_on_no_partitioning(
    n_files: int, rows: int, data: Data, cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ingest, "PARTITION_ROWS", rows)
    shuffled = random.Random(n_files).sample(data, len(data))
    slices = slices_of(tmp_path / "slices", shuffled, n_files)
    api.ingest(slices, tmp_path / "store", client=cluster.client)
    (outcome,) = api.near_duplicates(tmp_path / "store", client=cluster.client)
    store = Store.open(str(tmp_path / "store"))
    table = store.table("near_duplicates")
    assert table.schema.equals(schemas.of("near_duplicates").arrow())
    assert table.to_pylist() == wanted(data)
    assert outcome.report.facts == {"playlists": 300, "near_duplicates": table.num_rows} and table.num_rows > 30
    found = api.info(tmp_path / "store")["near_duplicates"]
    assert found == {**outcome.report.facts, "share": table.num_rows / 300}


def test_after_an_append_of_lower_pids(data: Data, cluster: Cluster, tmp_path: Path) -> None:
    by_pid = sorted(data, key=lambda playlist: playlist["pid"])
    slices, store = tmp_path / "slices", tmp_path / "store"
    write_slices(slices, by_pid[150:])
    api.ingest(slices, store, client=cluster.client)
    api.near_duplicates(store, client=cluster.client)
    (tmp_path / "slices/mpd.slice.5000-5999.json").write_text(PYTHON2.text(by_pid[:150]))
    api.ingest(slices, store, client=cluster.client, append=True)
    assert api.info(store)["near_duplicates"] is None  # of the rows before
    (outcome,) = api.near_duplicates(store, client=cluster.client)
    assert outcome.fresh and Store.open(str(store)).table("near_duplicates").to_pylist() == wanted(data)


def test_another_limit(data: Data, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    slices = slices_of(tmp_path / "slices", data, 2)
    store = tmp_path / "store"
    api.ingest(slices, store)
    for limit in (0.5, 0.8):
        (outcome,) = api.near_duplicates(store, near_limit=limit)
        assert outcome.fresh and Store.open(str(store)).table("near_duplicates").to_pylist() == wanted(data, limit)
    program(["info", str(store)], standalone_mode=False)
    n = len(wanted(data, 0.8))
    assert f"near-duplicates: {n:,} of 300 playlists ({n / 300:.1%})" in capsys.readouterr().out
    with pytest.raises(StoreError, match="make it with: recsys-dask near-duplicates"):
        api.ingest(slices, tmp_path / "other")
        Store.open(str(tmp_path / "other")).entry("near_duplicates")
