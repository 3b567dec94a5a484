"""`fit`: the same recommenders whoever fits them and however the slices are cut, made once and again where need be."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_store import TOP, Small, alike, answers
from strategies import write_slices

from recsys_dask import api
from recsys_dask.errors import StoreError
from recsys_dask.recommending import fitting
from recsys_dask.runtime.progress import Progress
from recsys_dask.stages import ingest
from recsys_dask.store.arrays import read_arrays
from recsys_dask.store.tables import Store

BLEND = ["fit:artist:linear", "fit:artist:als", "fit:artist:blend", "titles:artist"]


class News(Progress):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


def fresh(outcomes: list[Any]) -> list[str]:
    return [one.key for one in outcomes if one.fresh]


def weights(store: Path, method: str) -> dict[str, Any]:
    """Every number of a fitted recommender."""
    opened = Store.open(str(store))
    arrays, meta = read_arrays(opened.folder, opened.entry(f"recommender_artist_{method}").files[0].path)
    return {name: array.tolist() for name, array in arrays.items()} | {"meta": meta}


def test_on_a_cluster_as_in_this_process(small: Small, client, tmp_path: Path) -> None:
    copy = small.copy(tmp_path)
    assert fresh(api.fit(copy, client=client, rebuild=True)) == BLEND
    for method in ("linear", "als", "blend"):
        assert alike(answers(copy, method, small.data[:40]), answers(small.store, method, small.data[:40])), method
    assert Store.open(str(copy)).table("titles_artist").equals(small.opened.table("titles_artist"))


@pytest.mark.parametrize("n_files, rows", [(1, 1 << 19), (5, 1_000)])
def test_however_the_slices_are_cut(
    n_files: int, rows: int, small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ingest, "PARTITION_ROWS", rows)
    write_slices(tmp_path / "slices", small.data, n_files)
    store = tmp_path / "store"
    api.run(tmp_path / "slices", store, models="none", recommender="linear", top=TOP)
    api.fit(store, method="als")
    assert len(Store.open(str(store)).entry("rows").files) >= n_files
    for method in ("linear", "als"):
        assert alike(answers(store, method, small.data[:40]), answers(small.store, method, small.data[:40])), method
    assert Store.open(str(store)).table("titles_artist").equals(small.opened.table("titles_artist"))


def test_done_once_and_repeatable_and_again_by_another_seed(small: Small, tmp_path: Path) -> None:
    copy = small.copy(tmp_path)
    before = {method: weights(copy, method) for method in ("ease", "linear", "als")}
    files = {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    assert not fresh(api.fit(copy)) and not fresh(api.fit(copy, method="ease"))
    assert {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()} == files
    for method in before:
        assert fresh(api.fit(copy, method=method, rebuild=True)) == [f"fit:artist:{method}", "titles:artist"]
        assert weights(copy, method) == before[method], method
    news = News()
    assert fresh(api.fit(copy, method="als", seed=1, progress=news)) == ["fit:artist:als"]
    assert "fit artist als: again, since --seed was 0, is 1" in news.lines
    assert weights(copy, "als") != before["als"]
    assert fresh(api.fit(copy, method="als")) == ["fit:artist:als"]
    assert weights(copy, "als") == before["als"]


def test_an_interrupted_fit_goes_on(small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = small.copy(tmp_path)

    def interrupted(*given: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(fitting, "fit_als", interrupted)
        with pytest.raises(KeyboardInterrupt):
            api.fit(copy, seed=1)
    assert fresh(api.fit(copy, method="linear", seed=1)) == []
    assert fresh(api.fit(copy, method="als", seed=1)) == ["fit:artist:als"]
    assert "similar_artist_linear" in Store.open(str(copy)).manifest.tables


def test_a_blend_needs_the_model(small: Small, tmp_path: Path) -> None:
    store = tmp_path / "store"
    api.run(small.slices, store, models="none", recommender="none", top=50)
    before = (store / "manifest.json").read_bytes()
    with pytest.raises(StoreError, match=r"no train artist mlp yet; first run: recsys-dask train \S+ --model mlp$"):
        api.fit(store)
    assert (store / "manifest.json").read_bytes() == before
    with pytest.raises(StoreError, match=r"no pairs track full yet; first run: recsys-dask pairs \S+ --item track"):
        api.fit(store, item="track", method="linear")


def test_a_refitted_part_makes_the_blend_outdated(small: Small, tmp_path: Path) -> None:
    copy = small.copy(tmp_path)
    api.fit(copy, method="linear", best=5)
    table = Store.open(str(copy)).table("similar_artist_linear")
    assert table["rank"].to_pylist() == [1, 2, 3, 4, 5] * TOP
    with pytest.raises(StoreError, match=r"its blend is older .*run again: recsys-dask fit \S+ --method blend"):
        answers(copy, "blend", small.data[:1])


def test_too_little_to_fit_on(small: Small, tmp_path: Path) -> None:
    one = {**small.data[0], "tracks": small.data[0]["tracks"][:1]}
    for playlists, words in (
        ([one, {**one, "pid": 10_000}], "1 artists in the pairs' full view are too few"),
        ([small.data[0]], "no two playlists to fit linear on"),
    ):
        write_slices(tmp_path / words / "slices", playlists)
        store = tmp_path / words / "store"
        api.run(tmp_path / words / "slices", store, models="none", recommender="none")
        with pytest.raises(StoreError, match=words) as caught:
            api.fit(store, method="linear")
        assert "\n" not in str(caught.value)


def test_similar_items_of_linear(small: Small) -> None:
    """Each item's best others, best first, ties by id; and `similar` lists them."""
    store = small.opened
    items = store.table("pair_items_artist_full")["item"].to_pylist()
    ids = store.table("artists")["artist_id"].to_pylist()
    found = defaultdict(list)
    for row in store.table("similar_artist_linear").to_pylist():
        found[row["item"]].append(row)
    assert list(found) == items
    for item, rows in found.items():
        assert [row["rank"] for row in rows] == list(range(1, len(rows) + 1)) and len(rows) == 20
        assert item not in {row["neighbour"] for row in rows} <= set(items)
        assert len({row["neighbour"] for row in rows}) == len(rows)
        keys = [(-row["score"], ids[row["neighbour"]]) for row in rows]
        assert keys == sorted(keys) and rows[-1]["score"] > 0
    listed = api.similar(small.store, ids[items[0]], method="linear", k=3)
    assert [one["id"] for one in listed] == [ids[row["neighbour"]] for row in found[items[0]][:3]]


def test_similar_items_of_linear_are_those_of_a_scene(small: Small) -> None:
    """They share more playlists with the item than others do."""
    held = {}
    for playlist in small.data:
        for track in playlist["tracks"]:
            held.setdefault(track["artist_uri"][15:], set()).add(playlist["pid"])
    store = small.opened
    ids = store.table("artists")["artist_id"].to_pylist()
    table = store.table("similar_artist_linear").to_pylist()
    both = [len(held[ids[row["item"]]] & held[ids[row["neighbour"]]]) for row in table]
    counted = store.table("pairs_artist_full")["n_playlists"].to_pylist()
    assert np.mean(both) > 2 * 2 * sum(counted) / (TOP * (TOP - 1))
