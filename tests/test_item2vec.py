"""item2vec: the loss against a sum over all pairs, planted scenes, seeds; as a model of a store."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import recsys_dask
from recsys_dask.models.item2vec import Item2Vec, mean_loss
from recsys_dask.training.learner import fit_recipe, loaders, playlist_learner, seed_torch
from recsys_dask.training.playlists import Playlists
from recsys_dask.training.recipes import Recipe

SCENES, ITEMS = 5, 20


def batch(lists: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    starts = torch.tensor([0, *np.cumsum([*map(len, lists)])])
    return torch.arange(len(lists)), starts, torch.tensor([item for one in lists for item in one], dtype=torch.int32)


def expected(lists: list[list[int]], q: np.ndarray, context: np.ndarray, chance: np.ndarray, negatives: int) -> float:
    """The mean over items of playlists of two or more, of a random other one and as many negatives."""
    terms = []
    for one in lists:
        for item in one if len(one) > 1 else ():
            near = [math.log1p(math.exp(-q[item] @ context[other])) for other in one if other != item]
            far = sum(p * math.log1p(math.exp(q[item] @ context[k])) for k, p in enumerate(chance))
            terms.append(sum(near) / len(near) + negatives * far)
    return sum(terms) / len(terms)


def test_the_loss_is_that_of_random_pairs_and_negatives() -> None:
    rng = np.random.default_rng(0)
    held = np.array([7, 1, 3, 2, 9, 4])
    model = Item2Vec(held, 12, factors=4, contexts=3, negatives=2, sample=50)
    q, context = rng.normal(size=(2, 6, 4)).astype(np.float32)
    with torch.no_grad():
        model.q.copy_(torch.from_numpy(q))
        model.context.copy_(torch.from_numpy(context))
    lists = [[0, 1, 4], [2], [], [3, 5], [0, 2, 3, 4, 5]]
    torch.manual_seed(0)
    with torch.no_grad():
        drawn = [float(model(*batch(lists))) for _ in range(1_500)]
    chance = held**0.75 / (held**0.75).sum()
    error = np.std(drawn) / len(drawn) ** 0.5
    assert abs(np.mean(drawn) - expected(lists, q, context, chance, 2)) < 4 * error
    assert error < 0.05


def test_playlists_of_one_item_teach_nothing() -> None:
    model = Item2Vec(np.array([1, 1]), 2)
    loss = model(*batch([[0], [1], []]))
    loss.backward()
    assert float(loss) == 0 and not model.q.grad.any()


def planted(seed: int) -> Playlists:
    """Playlists of eight items of one scene, some of them of any."""
    rng = np.random.default_rng(seed)
    lists = []
    for _ in range(800):
        own = rng.integers(SCENES) + SCENES * rng.integers(0, ITEMS, 8)
        lists.append(np.unique(np.where(rng.random(8) < 0.8, own, rng.integers(0, SCENES * ITEMS, 8))))
    starts = np.cumsum([0, *map(len, lists)])
    return Playlists(starts, np.concatenate(lists).astype(np.int32), SCENES * ITEMS)


def fitted(seed: int) -> np.ndarray:
    playlists = planted(0)
    seed_torch(seed, 0)
    model = Item2Vec(playlists.n_playlists, len(playlists), 16)
    taken = Recipe(16, 12, 64, rate=0.1, decay=0.0)
    learner = playlist_learner(model, *loaders(playlists, taken, held=50, seed=seed), loss=mean_loss)
    history = fit_recipe(learner, taken, seed=seed)
    assert history[-1].train_loss < history[0].train_loss and history[-1].valid_loss is not None
    return model.vectors()


def test_scenes_come_back_and_a_seed_repeats() -> None:
    vectors = fitted(1)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    near = np.argsort(-(unit @ unit.T - 2 * np.eye(len(unit))), axis=1)[:, :10]
    same = (near % SCENES == np.arange(len(unit))[:, None] % SCENES).mean()
    assert same > 0.9  # by chance 0.2
    assert (fitted(1) == vectors).all()
    assert (fitted(2) != vectors).any()


@pytest.fixture(scope="module")
def store(tmp_path_factory: Any) -> Path:
    place: Path = tmp_path_factory.mktemp("item2vec")
    recsys_dask.sample(place / "data", playlists=300, seed=3)
    recsys_dask.run(place / "data", place / "store", models="item2vec", recommender="none", epochs=2)
    return place / "store"


def test_it_is_a_model_as_others_are(store: Path) -> None:
    opened = recsys_dask.Store.open(str(store))
    assert opened.has("embeddings_artist_item2vec") and opened.has("similar_artist_item2vec")
    assert (store / "export" / "item2vec.txt").exists()
    top = opened.table("popular_artist")["artist_id"][0].as_py()
    assert recsys_dask.embedding(store, top, model="item2vec").shape == (1, 50)
    near = recsys_dask.similar(store, top, method="item2vec")
    assert len(near) == 20
    found = recsys_dask.recommend(store, [top], method="item2vec", k=5)
    assert found[0]["id"] != top and len(found) == 5
    # the item nearest to a playlist of one item is its nearest neighbour
    assert found[0]["id"] == near[0]["id"]


def test_the_articles_preset_has_none(store: Path) -> None:
    with pytest.raises(recsys_dask.UsageError, match="--preset article trains mf and mlp alone"):
        recsys_dask.train(store, model="item2vec", preset="article")
