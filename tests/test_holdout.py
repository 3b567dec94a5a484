"""The child store of a hold-out: that of its training playlists alone, whatever the test playlists hold."""

from __future__ import annotations

import contextlib
import copy
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from strategies import playlists as awkward
from strategies import write_slices

from recsys_dask import api, params, schemas, steps
from recsys_dask.errors import StoreError
from recsys_dask.pipeline import Outcome, Step, advance
from recsys_dask.runtime.clusters import Cluster
from recsys_dask.runtime.connecting import connect
from recsys_dask.runtime.progress import Progress
from recsys_dask.stages import holdout, ingest
from recsys_dask.stages.sample import make_world, slice_text
from recsys_dask.store.tables import Store

Data = list[dict[str, Any]]
TABLES = ("playlists", "rows", "artists", "tracks")


@pytest.fixture(scope="module")
def data() -> Data:
    """The first slice of a small world, some of it near-copies."""
    return json.loads(slice_text(make_world(200, 1, 0.3), 0))["playlists"]


def parent_of(folder: Path, data: Data, n_files: int = 2, client: Any = None, near: bool = True) -> Store:
    write_slices(folder / "slices", data, n_files)
    api.ingest(folder / "slices", folder / "parent", client=client)
    if near:
        api.near_duplicates(folder / "parent", client=client)
    return Store.open(str(folder / "parent"))


def advanced(store: Store, wanted: Sequence[Step], cluster: Cluster | None) -> list[Outcome]:
    if cluster is not None:
        return advance(store, wanted, lambda: contextlib.nullcontext(cluster), Progress())
    return advance(store, wanted, lambda: connect(params.Cluster(), small=True), Progress())


def child_of(parent: Store, folder: Path, cluster: Cluster | None = None, **options: Any) -> Store:
    store = Store.open_or_new(str(folder))
    advanced(store, [steps.holdout_step(parent, params.Split(**options))], cluster)
    return store


def pids(store: Store, name: str) -> list[int]:
    return store.table(name)["pid"].to_pylist()


def whole(store: Store, name: str, without: Sequence[str] = ()) -> list[dict[str, Any]]:
    table = store.table(name)
    assert table.schema.equals(schemas.of(name).arrow())
    table.validate(full=True)
    return table.drop_columns(list(without)).to_pylist()


def check(child: Store, parent: Store, data: Data, folder: Path, names: bool = True) -> None:
    """The child against an ingest of its training playlists alone, and against the test playlists' rows."""
    train, test = set(pids(child, "playlists")), set(pids(child, "test_playlists"))
    assert train.isdisjoint(test)
    write_slices(folder / "train", [playlist for playlist in data if playlist["pid"] in train])
    api.ingest(folder / "train", folder / "alone")
    alone = Store.open(str(folder / "alone"))
    attributes = () if names else ("artist_name", "track_name", "album_id", "duration_ms")
    for name in TABLES:
        without = set(attributes) & set(alone.table(name).column_names)
        assert whole(child, name, sorted(without)) == whole(alone, name, sorted(without)), name
    for name, prefix in (("playlists", ""), ("test_playlists", "test_")):
        assert [file.rows > 0 for file in child.entry(name).files] == [True] * len(child.entry(name).files)
        assert len(child.entry(name).files) == len(child.entry(f"{prefix}rows").files)
        for lists, rows in zip(child.parts(name), child.parts(f"{prefix}rows"), strict=True):
            assert set(rows["pid"].to_pylist()) <= set(lists["pid"].to_pylist())
            assert sum(lists["n_entries"].to_pylist()) == rows.num_rows
    assert whole(child, "test_playlists") == [row for row in whole(parent, "playlists") if row["pid"] in test]
    ids = {
        item: [store.table(f"{item}s")[f"{item}_id"].to_pylist() for store in (child, parent)]
        for item in ("artist", "track")
    }
    before = [row for row in whole(parent, "rows") if row["pid"] in test]
    for now, then in zip(whole(child, "test_rows"), before, strict=True):
        assert (now["pid"], now["pos"]) == (then["pid"], then["pos"])
        for item in ("artist", "track"):
            known, id_ = ids[item][0], ids[item][1][then[item]]
            assert known[now[item]] == id_ if now[item] >= 0 else id_ not in known


@pytest.mark.parametrize("n_files, rows, vocabulary_rows", [(1, 1 << 19, 1 << 18), (3, 3_000, 700), (9, 400, 100)])
def test_as_an_ingest_of_the_training_playlists(
    n_files: int,
    rows: int,
    vocabulary_rows: int,
    data: Data,
    cluster: Cluster,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ingest, "PARTITION_ROWS", rows)
    monkeypatch.setattr(ingest, "VOCABULARY_ROWS", vocabulary_rows)
    parent = parent_of(tmp_path, data, n_files, cluster.client)
    child = child_of(parent, tmp_path / "child", cluster, most_test=30)
    near = set(pids(parent, "near_duplicates"))
    left = {playlist["pid"] for playlist in data} - near
    assert len(near) > 10 and child.entry("test_playlists").rows == min(30, round(0.2 * len(left)))
    assert {*pids(child, "playlists"), *pids(child, "test_playlists")} == left
    facts = child.manifest.stages["ingest"].report.facts
    assert facts["near_duplicates"] == len(near) and facts["playlists"] == child.entry("playlists").rows
    check(child, parent, data, tmp_path)


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(data=st.data())
def test_of_awkward_playlists(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Tracks of several artists, ids of several names, playlists without tracks, several ranges of codes."""
    folder = tmp_path_factory.mktemp("awkward")
    drawn = data.draw(awkward(min_size=6, max_size=14, max_tracks=12))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ingest, "PARTITION_ROWS", data.draw(st.sampled_from((1, 20, 1_000))))
        patch.setattr(holdout, "RANGE", data.draw(st.sampled_from((1, 3, 1_000))))
        parent = parent_of(folder, drawn, near=False)
        options = {"test_share": 0.4, "keep_near_duplicates": True, "split_seed": data.draw(st.integers(0, 3))}
        try:
            child = child_of(parent, folder / "child", **options)
        except StoreError as error:
            if "left to train on" in str(error):
                return
            raise
    check(child, parent, drawn, folder, names=False)


def test_training_knows_nothing_of_test_playlists(data: Data, tmp_path: Path) -> None:
    """Other tracks in the test playlists, some of them new and some of other playlists, change no training table."""
    options = {"keep_near_duplicates": True, "test_share": 0.3}
    one = child_of(parent_of(tmp_path / "one", data, near=False), tmp_path / "one/child", **options)
    test = pids(one, "test_playlists")
    assert len(test) == 60
    others = copy.deepcopy(data)
    for playlist in others:
        if playlist["pid"] in test:
            donor = data[(playlist["pid"] * 7 + 1) % len(data)]["tracks"]
            playlist["tracks"] = copy.deepcopy(donor)[::-1]
            for n, entry in enumerate(playlist["tracks"]):
                entry["pos"] = n
                if n % 3 == 0:
                    entry["track_uri"] = f"spotify:track:{playlist['pid']:011d}{n:011d}"
                    entry["artist_uri"] = f"spotify:artist:{playlist['pid']:011d}{n:011d}"
    parent = parent_of(tmp_path / "two", others, 5, near=False)
    two = child_of(parent, tmp_path / "two/child", **options)
    assert pids(two, "test_playlists") == test
    for name in TABLES:
        assert whole(one, name) == whole(two, name), name
    assert whole(one, "test_rows") != whole(two, "test_rows")
    check(two, parent, others, tmp_path / "two")


def test_the_other_steps_go_on_from_it(data: Data, tmp_path: Path) -> None:
    parent = parent_of(tmp_path, data)
    child = child_of(parent, tmp_path / "child")
    check(child, parent, data, tmp_path)
    options = params.Pairs(), params.Similar(measure="cosine")
    wanted = [steps.holdout_step(parent, params.Split()), steps.counts_step(params.Counts())]
    wanted += steps.pairs_steps(*options)
    outcomes = advanced(child, wanted, None)
    assert [one.fresh for one in outcomes] == [False] + [True] * (len(wanted) - 1)
    api.counts(tmp_path / "alone")
    api.pairs(tmp_path / "alone", measure="cosine")
    alone = Store.open(str(tmp_path / "alone"))
    made = "popular_artist popular_track pairs_artist_full pair_items_artist_full similar_artist_cosine"
    for name in made.split():
        assert whole(child, name) == whole(alone, name), name
    assert not any(one.fresh for one in advanced(Store.open(child.folder.url), wanted, None))


def test_done_again_where_the_parent_or_the_split_changed(data: Data, tmp_path: Path) -> None:
    parent = parent_of(tmp_path, data[:150])
    child = child_of(parent, tmp_path / "child")

    def again(parent: Store, **options: Any) -> bool:
        (outcome,) = advanced(child, [steps.holdout_step(parent, params.Split(**options))], None)
        return outcome.fresh

    assert not again(parent)
    before = pids(child, "test_playlists")
    assert again(parent, split_seed=1) and pids(child, "test_playlists") != before
    assert again(parent, split_seed=1, keep_near_duplicates=True) and again(parent)
    assert pids(child, "test_playlists") == before
    api.near_duplicates(tmp_path / "parent", near_limit=0.9)
    assert again(Store.open(parent.folder.url)) and not (tmp_path / "child/scratch").exists()
    write_slices(tmp_path / "more", data[150:])
    (tmp_path / "more/mpd.slice.0-999.json").rename(tmp_path / "slices/mpd.slice.9000-9999.json")
    api.ingest(tmp_path / "slices", tmp_path / "parent", append=True)
    appended = Store.open(parent.folder.url)
    with pytest.raises(StoreError, match="near-duplicates of an earlier input; first run: recsys-dask near-duplicates"):
        again(appended)
    assert again(appended, keep_near_duplicates=True)
    check(child, appended, data, tmp_path)


def test_what_cannot_be_split(data: Data, tmp_path: Path) -> None:
    parent = parent_of(tmp_path, data[:20], near=False)
    with pytest.raises(StoreError, match="has no table near_duplicates.*recsys-dask near-duplicates"):
        child_of(parent, tmp_path / "child")
    for share, words in (
        (0.0, "left to test; --test-share is 0.0: give more"),
        (1.0, "left to train on; --test-share"),
    ):
        with pytest.raises(StoreError, match=words):
            child_of(parent, tmp_path / "child", test_share=share, keep_near_duplicates=True)
    assert not (tmp_path / "child/manifest.json").exists()
    with pytest.raises(StoreError, match="has no table rows"):
        child_of(Store.open_or_new(str(tmp_path / "empty")), tmp_path / "child")
