"""Held-out quality of the default and fast presets: `python -m benchmarks.embeddings LISTENING.tsv [--models …]`.

The table has a column of users, read as playlists, and one of artists. The last 400 users test; artists in at least 5
of the others' lists are known; from each test user with 10 of them a random fifth is hidden and every other one
ranked. Beside it, of the item vectors' 20 nearest by cosine: how much more often than chance they share a held-out
playlist, P(neighbour | item), and the share of lists that hold the most frequent neighbour.
"""

from __future__ import annotations

import argparse
import csv
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

N_TEST, FEWEST, LEAST = 400, 5, 10


def read_lists(path: Path) -> list[list[str]]:
    """The distinct artists of each user, users by number."""
    lists: dict[int, set[str]] = {}
    with path.open(newline="", encoding="utf-8") as file:
        for user, artist, *_ in list(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE))[1:]:
            lists.setdefault(int(user), set()).add(artist)
    return [sorted(lists[user]) for user in sorted(lists)]


def compressed(lists: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    starts = np.cumsum([0, *map(len, lists)])
    return starts, np.concatenate([np.sort(one) for one in lists]).astype(np.int32)


def ranking(model: Any, lists: list[np.ndarray], seed: int = 0) -> tuple[float, float, float]:
    """R-precision, NDCG@100 and recall@50 of hidden items."""
    rng = np.random.default_rng(seed)
    mixed = [rng.permutation(one) for one in lists if len(one) >= LEAST]
    hidden, seen = zip(*((one[: max(1, len(one) // 5)], one[max(1, len(one) // 5) :]) for one in mixed), strict=True)
    scores = model.scores(*compressed(list(seen)))
    discount = 1 / np.log2(np.arange(2, 102))
    found = []
    for row, known, wanted in zip(scores, seen, hidden, strict=True):
        row[known] = -np.inf
        hit = np.isin(np.argsort(-row, kind="stable")[:100], wanted)
        best = discount[: min(100, len(wanted))].sum()
        found.append((hit[: len(wanted)].mean(), hit @ discount / best, hit[:50].sum() / len(wanted)))
    return tuple(np.mean(found, axis=0))


def neighbourhood(vectors: np.ndarray, lists: list[np.ndarray], k: int = 20) -> tuple[float, float, float]:
    """Lift over chance, P(neighbour | item), share of lists with the most frequent neighbour."""
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
    near = np.argsort(-(unit @ unit.T - 3 * np.eye(len(unit), dtype=np.float32)), axis=1)[:, :k]
    held = np.zeros((len(lists), len(unit)), np.float32)
    for row, one in enumerate(lists):
        held[row, one] = 1
    n = held.sum(0)
    both = np.take_along_axis(held.T @ held, near, axis=1)
    there = n > 0
    lift = both.sum() / (n[:, None] * n[near] / len(lists)).sum()
    return lift, (both[there] / n[there, None]).mean(), np.bincount(near.ravel()).max() / len(unit)


def fitted(name: str, playlists: Any, seed: int = 0, **changes: Any) -> tuple[Any, list[Any]]:
    """A model of a recipe, fitted, and its epochs."""
    from dataclasses import replace

    from recsys_dask.models.item2vec import Item2Vec, mean_loss
    from recsys_dask.models.mf import MeanMF, SolvedMF, TableMF
    from recsys_dask.models.mlp import MeanMLP
    from recsys_dask.training.learner import fit_recipe, loaders, playlist_learner, seed_torch
    from recsys_dask.training.recipes import recipe

    kinds = {"mf": SolvedMF, "mlp": MeanMLP, "mean_mf": MeanMF, "table_mf": TableMF, "item2vec": Item2Vec}
    taken = replace(recipe(name, len(playlists), playlists.n_items), **changes)
    seed_torch(seed, 0)
    model = kinds[name](playlists.n_playlists, len(playlists), taken.factors)
    loss = mean_loss if name == "item2vec" else None
    learner = playlist_learner(model, *loaders(playlists, taken, seed=seed), ridge=taken.ridge, loss=loss)
    history = fit_recipe(learner, taken, seed=seed)
    model.eval()
    return Mean(model.vectors()) if name == "item2vec" else model, history


class Mean:
    """Item vectors alone: a playlist is the mean of its items' unit vectors, candidates go by their cosine to it."""

    def __init__(self, vectors: np.ndarray):
        self.q = vectors

    def scores(self, starts: np.ndarray, items: np.ndarray) -> np.ndarray:
        from recsys_dask.models.base import Lists
        from recsys_dask.models.folded import MeanOfUnits

        none = np.zeros(0, np.int32)
        return MeanOfUnits(self.q).scores(Lists(starts, items, np.zeros(len(starts), np.int64), none))

    def vectors(self) -> np.ndarray:
        return self.q


def gensim(playlists: Any, seed: int) -> tuple[Any, list[Any]]:
    """gensim's `Word2Vec` on playlists as sentences whose window is the whole of them, with as many factors and
    epochs as our `item2vec`, and its own rate."""
    from gensim.models import Word2Vec

    from recsys_dask.training.recipes import recipe

    sentences = [
        [str(item) for item in playlists.items[low:high].tolist()]
        for low, high in zip(playlists.starts[:-1].tolist(), playlists.starts[1:].tolist(), strict=True)
    ]
    taken = recipe("item2vec", len(playlists), playlists.n_items)
    options: Any = dict(window=int(np.diff(playlists.starts).max()), min_count=1, sg=1, negative=5, workers=2)
    made = Word2Vec(sentences, vector_size=taken.factors, epochs=taken.epochs, seed=seed + 1, **options)
    return Mean(np.stack([made.wv[str(item)] for item in range(playlists.n_items)])), []


class Als:
    """implicit's `AlternatingLeastSquares` (Hu, Koren, Volinsky 2008), asked as our models are."""

    def __init__(self, playlists: Any, factors: int, seed: int):
        from implicit.cpu.als import AlternatingLeastSquares
        from scipy.sparse import csr_matrix

        self.model = AlternatingLeastSquares(factors, alpha=10, regularization=1.0, iterations=15, random_state=seed)
        self.n_items = playlists.n_items
        ones = np.ones(len(playlists.items), np.float32)
        shape = (len(playlists), playlists.n_items)
        self.model.fit(csr_matrix((ones, playlists.items, playlists.starts), shape), show_progress=False)

    def scores(self, starts: np.ndarray, items: np.ndarray) -> np.ndarray:
        from scipy.sparse import csr_matrix

        lists = csr_matrix((np.ones(len(items), np.float32), items, starts), (len(starts) - 1, self.n_items))
        users = self.model.recalculate_user(np.arange(len(starts) - 1), lists)
        return users @ self.model.item_factors.T

    def vectors(self) -> np.ndarray:
        return self.model.item_factors


def als(playlists: Any, seed: int) -> tuple[Any, list[Any]]:
    """implicit's ALS with as many factors as our `mf`."""
    return Als(playlists, 50, seed), []


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("listening", type=Path)
    parser.add_argument("--models", nargs="+", default=["mf", "mlp", "mean_mf", "table_mf"])
    parser.add_argument("--als", action="store_true", help="implicit's ALS of 50 factors too: pip install implicit")
    parser.add_argument("--gensim", action="store_true", help="gensim's Word2Vec too: pip install gensim")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--test", choices=("last", "first"), default="last", help="which 400 users")
    args = parser.parse_args(arguments)
    from recsys_dask.training.playlists import Playlists

    lists = read_lists(args.listening)
    if args.test == "first":
        lists = lists[N_TEST:] + lists[:N_TEST]
    counts = Counter(artist for one in lists[:-N_TEST] for artist in one)
    code = {artist: at for at, artist in enumerate(a for a, n in counts.most_common() if n >= FEWEST)}
    coded = [np.array([code[artist] for artist in one if artist in code], np.int64) for one in lists]
    playlists = Playlists(*compressed([one for one in coded[:-N_TEST] if len(one)]), len(code))
    print("model      seed  R-prec  NDCG@100 recall@50   lift  P(n|i)  most frequent  fit s  M rows/s")
    peers = {"als": als, "gensim": gensim}
    for name in [*args.models, *(name for name in peers if getattr(args, name))]:
        for seed in range(args.seeds):
            began = time.perf_counter()
            model, history = peers[name](playlists, seed) if name in peers else fitted(name, playlists, seed)
            took = time.perf_counter() - began
            quality = "  ".join(f"{value:.4f}" for value in ranking(model, coded[-N_TEST:]))
            lift, chance, most = neighbourhood(model.vectors(), coded[-N_TEST:])
            rate = history[-1].rows_per_s / 1e6 if history else 0.0
            near = f"{lift:6.2f}  {chance:.4f}  {most:.4f}"
            print(f"{name:10s} {seed:4d}  {quality}  {near}  {took:11.1f}  {rate:.2f}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
