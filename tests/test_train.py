"""`train` and `neighbours` as stages: what they train on, what they leave, and the same again after anything."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from click.testing import CliRunner

import recsys_dask as rd
from recsys_dask import api
from recsys_dask.cli import program
from recsys_dask.runtime.progress import Progress
from recsys_dask.sampling.text import scene_of
from recsys_dask.sampling.world import make_world
from recsys_dask.stages.train import known_playlists, rows_of
from recsys_dask.store.tables import Store

PLAYLISTS, SEED = 1_500, 4
MENTIONS_OVER = 60


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A store with pairs and both models of each preset but one."""
    folder = tmp_path_factory.mktemp("train")
    api.sample(folder / "slices", playlists=PLAYLISTS, seed=SEED)
    store = folder / "store"
    options = {"mentions_over": MENTIONS_OVER, "top": 1_000, "recommender": "none"}
    api.run(folder / "slices", store, **options, models="none")
    shutil.copytree(store, folder / "bare")
    api.run(folder / "slices", store, **options, epochs=4, models="all")
    return SimpleNamespace(slices=folder / "slices", store=store, bare=folder / "bare")


@pytest.fixture
def bare(made: SimpleNamespace, tmp_path: Path) -> Path:
    """The same store without models."""
    return Path(shutil.copytree(made.bare, tmp_path / "store"))


def lists_of(store: Store, codes: set[int]) -> list[list[int]]:
    """Every playlist's entries of some artists, repetitions included, in the order of pids: plain Python."""
    rows = store.table("rows").to_pydict()
    lists: dict[int, list[int]] = {pid: [] for pid in store.table("playlists")["pid"].to_pylist()}
    for pid, artist in zip(rows["pid"], rows["artist"], strict=True):
        if artist in codes:
            lists[pid].append(artist)
    return [lists[pid] for pid in sorted(lists)]


def vectors(store: Path | str, model: str) -> np.ndarray:
    return np.array(Store.open(str(store)).table(f"embeddings_artist_{model}")["vector"].to_pylist(), np.float32)


def items_file(store: Store, view: str) -> str:
    return store.entry(f"pair_items_artist_{view}").files[0].path


def partitions(store: Store):
    return zip(store.entry("playlists").files, store.entry("rows").files, strict=True)


# ------------------------------------------------------------------------------------------------- what is trained on


def test_whole_playlists_are_those_of_the_view(made: SimpleNamespace) -> None:
    store = Store.open(str(made.store))
    codes = store.table("pair_items_artist_full")["item"].to_pylist()
    wanted = [sorted({codes.index(one) for one in items}) for items in lists_of(store, set(codes))]
    found: list[list[int]] = []
    for lists, rows in partitions(store):
        part = known_playlists(store.folder, lists.path, rows.path, "artist", items_file(store, "full"), None)
        found += [items.tolist() for items in np.split(part.items, part.starts[1:-1])]
    assert found == [items for items in wanted if items]


def test_rows_of_the_article_are_positives_and_free_pairs(made: SimpleNamespace) -> None:
    """`num_tracks` above 5, and 5 to 40 rows left, counted before repetitions go."""
    store = Store.open(str(made.store))
    codes = store.table("pair_items_artist_article")["item"].to_pylist()
    n_tracks = store.table("playlists")["num_tracks"].to_pylist()
    kept = [
        sorted({codes.index(one) for one in items})
        for items, n in zip(lists_of(store, set(codes)), n_tracks, strict=True)
        if n > 5 and 5 <= len(items) <= 40
    ]
    assert 0 < len(kept) < PLAYLISTS
    first, seen = 0, []
    for lists, rows in partitions(store):
        part = known_playlists(store.folder, lists.path, rows.path, "artist", items_file(store, "article"), (5, 40, 5))
        n = np.full(len(part.starts) - 1, 3, np.int64)
        made_rows = rows_of(part, len(codes), n, first, 7)
        seen.append(made_rows)
        first += len(n)
    pairs = [
        (int(playlist), int(item), int(rating))
        for rows in seen
        for playlist, item, rating in zip(rows.playlists, rows.items, rows.ratings, strict=True)
    ]
    positives = {(playlist, item) for playlist, item, rating in pairs if rating}
    negatives = [(playlist, item) for playlist, item, rating in pairs if not rating]
    assert positives == {(at, item) for at, items in enumerate(kept) for item in items}
    assert len(negatives) == len(set(negatives)) == 3 * len(kept)
    assert not positives & set(negatives)


# ---------------------------------------------------------------------------------------------------- what is left


def test_tables_of_both_models(made: SimpleNamespace) -> None:
    store = Store.open(str(made.store))
    codes = store.table("pair_items_artist_full")["item"].to_pylist()
    for model, factors in (("mf", 50), ("mlp", 128)):
        table = store.table(f"embeddings_artist_{model}")
        assert table["item"].to_pylist() == codes
        assert set(map(len, table["vector"].to_pylist())) == {factors}
        assert table["bias"].null_count == 0
        near = store.table(f"similar_artist_{model}").to_pydict()
        assert near["item"] == [code for code in codes for _ in range(20)]
        assert near["rank"] == list(range(1, 21)) * len(codes)
        assert all(item != other for item, other in zip(near["item"], near["neighbour"], strict=True))
        report = store.manifest.stages[f"train:artist:{model}"].report
        assert [one["epoch"] for one in report.history] == [1, 2, 3, 4]
        assert report.history[-1]["train_loss"] < report.history[0]["train_loss"]
    assert not list((made.store / "scratch").rglob("*.safetensors"))


def test_neighbours_are_nearest_by_cosine(made: SimpleNamespace) -> None:
    store = Store.open(str(made.store))
    unit = vectors(made.store, "mf").astype(float)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    near = store.table("similar_artist_mf").to_pydict()
    codes = store.table("embeddings_artist_mf")["item"].to_pylist()
    exact = np.sort(unit @ unit.T - 2 * np.eye(len(unit)), axis=1)[:, ::-1][:, :20]
    found = np.array(near["score"]).reshape(len(codes), 20)
    assert (found >= exact[:, -1:] - 1e-6).mean() > 0.99
    at = {code: place for place, code in enumerate(codes)}
    for row in range(0, len(near["item"]), 997):
        wanted = unit[at[near["item"][row]]] @ unit[at[near["neighbour"][row]]]
        assert near["score"][row] == pytest.approx(wanted, abs=1e-6)


def test_planted_scenes_come_back(made: SimpleNamespace) -> None:
    store = Store.open(str(made.store))
    ids = store.table("artists")["artist_id"].to_pylist()
    planted = scene_of(make_world(PLAYLISTS, SEED))
    for model in ("mf", "mlp"):
        near = store.table(f"similar_artist_{model}").to_pydict()
        same = [
            planted[ids[item]] == planted[ids[other]]
            for item, other, rank in zip(near["item"], near["neighbour"], near["rank"], strict=True)
            if item < 100 and rank <= 10
        ]
        assert np.mean(same) > 0.8, model


def test_questions_and_files(made: SimpleNamespace) -> None:
    store = Store.open(str(made.store))
    names = store.table("artists", ["artist_id", "artist_name"]).slice(0, 2).to_pydict()
    rows = rd.similar(made.store, names["artist_id"], method="mlp", k=3)
    assert [row["rank"] for row in rows] == [1, 2, 3] * 2
    assert (rd.embedding(made.store, names["artist_id"], model="mf") == vectors(made.store, "mf")[:2]).all()
    said = CliRunner().invoke(
        program, ["embedding", str(made.store), names["artist_id"][0], "--model", "mlp", "--json"]
    )
    assert json.loads(said.output)[0]["vector"] == pytest.approx(vectors(made.store, "mlp")[0].tolist())
    for model in ("mf", "mlp"):
        line = (made.store / "export" / f"{model}.txt").read_text().splitlines()[0].split()
        assert len(line) == 21
    history = rd.info(made.store)["stages"]["train:artist:mf"]["history"]
    assert len(history) == 4
    assert "epochs" in CliRunner().invoke(program, ["info", str(made.store)]).output


# ------------------------------------------------------------------------------------------------------ the same again


class Stop(Progress):
    """Ctrl-C after so many epochs."""

    def __init__(self, epochs: int = 10**9):
        self.left, self.said = epochs, []

    def say(self, line: str) -> None:
        self.said.append(line)
        if ": epoch " in line:
            self.left -= 1
            if not self.left:
                raise KeyboardInterrupt


@pytest.mark.parametrize("options", [{"model": "mf"}, {"model": "mf", "preset": "article"}], ids=["default", "article"])
def test_a_run_that_is_interrupted_ends_as_an_unbroken_one(made, bare: Path, options, client) -> None:
    """On a cluster and in this process, resumed and not: the same numbers. Another seed: others."""
    with pytest.raises(KeyboardInterrupt):
        api.train(bare, epochs=4, progress=Stop(2), **options)
    assert not Store.open(str(bare)).has("embeddings_artist_mf")
    again = Stop()
    api.train(bare, epochs=4, progress=again, resume=True, **options)
    assert any("goes on from epoch 2" in line for line in again.said)
    broken = vectors(bare, "mf")
    api.train(bare, epochs=4, rebuild=True, client=client, **options)
    assert (vectors(bare, "mf") == broken).all()
    if not options.get("preset"):
        assert (vectors(made.store, "mf") == broken).all()
    api.train(bare, epochs=4, seed=1, **options)
    assert (vectors(bare, "mf") != broken).any()


def test_on_a_worker_as_on_the_client(bare: Path, client) -> None:
    api.train(bare, model="mf", epochs=2)
    here, seen = vectors(bare, "mf"), Stop()
    api.train(bare, model="mf", epochs=2, rebuild=True, train_on="worker", client=client, progress=seen)
    assert (vectors(bare, "mf") == here).all()


@pytest.mark.parametrize("model", ["mf", "mlp"])
def test_the_articles_preset(bare: Path, model: str) -> None:
    (outcome,) = api.train(bare, model=model, preset="article", epochs=1)
    store = Store.open(str(bare))
    table = store.table(f"embeddings_artist_{model}")
    assert table["item"].to_pylist() == store.table("pair_items_artist_article")["item"].to_pylist()
    assert table["bias"].null_count == (0 if model == "mf" else table.num_rows)
    api.neighbours(bare, model=model)
    assert Store.open(str(bare)).manifest.stages[f"neighbours:artist:{model}"].params["metric"] == "euclidean"
    assert outcome.report.history[0]["valid_loss"] < 0.3


def test_the_fast_preset(bare: Path) -> None:
    api.train(bare, preset="fast", epochs=1)
    assert vectors(bare, "mf").shape[1] == vectors(bare, "mlp").shape[1] == 50


def test_next_to_nothing_is_no_error(tmp_path: Path) -> None:
    track = {"pos": 0, "track_uri": "spotify:track:" + "t" * 22, "track_name": "t"}
    track |= {"artist_uri": "spotify:artist:" + "a" * 22, "artist_name": "a"}
    page = {"playlists": [{"pid": 0, "num_tracks": 1, "tracks": [track]}]}
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "mpd.slice.0-0.json").write_text(json.dumps(page))
    api.run(tmp_path / "in", tmp_path / "store", models="all")
    assert len(vectors(tmp_path / "store", "mf")) == 0


# ----------------------------------------------------------------------------------------------------------- bad input


def test_what_cannot_be_trained(made: SimpleNamespace, bare: Path, tmp_path: Path) -> None:
    with pytest.raises(rd.StoreError, match="no pairs artist full yet; first run: recsys-dask pairs"):
        api.ingest(made.slices, tmp_path / "fresh")
        api.train(tmp_path / "fresh")
    with pytest.raises(rd.UsageError, match="--model is 'mfl': did you mean mf"):
        api.train(bare, model="mfl")
    with pytest.raises(rd.UsageError, match="--device is 'cuda:9'"):
        api.train(bare, model="mf", device="cuda:9")
    with pytest.raises(rd.StoreError, match="there is no checkpoint of an interrupted training; leave out --resume"):
        api.train(bare, model="mf", resume=True)
    with pytest.raises(rd.StoreError, match="has no model of artists yet; first run: recsys-dask train"):
        api.neighbours(bare)
    with pytest.raises(rd.StoreError, match=r"embeddings_artist_mf.*recsys-dask train .* --model mf"):
        rd.embedding(bare, Store.open(str(bare)).table("artists")["artist_id"][0].as_py())
    api.pairs(bare, mentions_over=10**9)
    with pytest.raises(rd.StoreError, match=r"no artist is above the threshold.*--mentions-over \d+ leaves some 10"):
        api.train(bare, model="mf", preset="article")
    with pytest.raises(rd.UsageError, match="give a ratio of at most"):
        api.pairs(bare, mentions_over=MENTIONS_OVER)
        api.train(bare, model="mf", preset="article", ratio=1e6)


@pytest.mark.parametrize("harm", ["cut", "vocabulary"])
def test_a_checkpoint_that_cannot_be_used(bare: Path, harm: str) -> None:
    """Insisted on it is an error; else the training starts anew and says so."""
    with pytest.raises(KeyboardInterrupt):
        api.train(bare, model="mf", epochs=3, progress=Stop(1))
    folder = bare / "scratch" / "train_artist_mf"
    if harm == "cut":
        (file,) = folder.glob("*.safetensors")
        file.write_bytes(file.read_bytes()[:-100])
    else:
        page = json.loads((folder / "checkpoint.json").read_text())
        (folder / "checkpoint.json").write_text(json.dumps(page | {"fingerprint": "other"}))
    reason = {"cut": "truncated or altered", "vocabulary": "of another vocabulary"}[harm]
    with pytest.raises(rd.StoreError, match=reason):
        api.train(bare, model="mf", epochs=3, resume=True)
    seen = Stop()
    api.train(bare, model="mf", epochs=3, progress=seen)
    assert any("starts anew" in line and reason in line for line in seen.said)
