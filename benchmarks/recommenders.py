"""Recommenders beside their peers on held-out items: `python -m benchmarks.recommenders LISTENING.tsv`.

A table of users, read as playlists, and artists. Users who share more than half of their artists with an earlier one
are left out. The last 400 test; artists in at least 5 of the others' lists are ranked, rarer ones are inputs; from each
test user with 10 ranked ones a random fifth of these is hidden. Peers: `implicit`'s ALS, whose factors, alpha and
regularization are those that do best on the test itself, its BM25 and TF-IDF neighbours, and EASE of the best of five
ridges, likewise. Ours choose by validation inside the training. Differences are paired, by bootstrap over test users.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.embeddings import FEWEST, LEAST, N_TEST, read_lists
from recsys_dask.compressed import starts_of
from recsys_dask.models.base import Data, Lists

FREE = 8e9


class Case(NamedTuple):
    """What is fitted on, what is asked, and what of it is hidden."""

    data: Data
    asked: Lists
    hidden_starts: np.ndarray
    hidden: np.ndarray


def distinct_lists(path: Path, test: str) -> list[list[str]]:
    from recsys_dask.holdout.lists import Lists as Sets
    from recsys_dask.holdout.near_duplicates import near_duplicates

    lists = read_lists(path)
    code = {artist: at for at, artist in enumerate(sorted({artist for one in lists for artist in one}))}
    sets = [sorted(code[artist] for artist in one) for one in lists]
    near = near_duplicates(Sets(starts_of(np.array([*map(len, sets)])), np.concatenate(sets).astype(np.int32)))
    kept = [one for one, of in zip(lists, near.of, strict=True) if of < 0]
    return kept[N_TEST:] + kept[:N_TEST] if test == "first" else kept


def case_of(lists: list[list[str]], seed: int) -> Case:
    counts = Counter(artist for one in lists[:-N_TEST] for artist in one)
    ranked = {artist: at for at, artist in enumerate(a for a, n in counts.most_common() if n >= FEWEST)}
    rare = {artist: at for at, artist in enumerate(sorted(a for a, n in counts.items() if 2 <= n < FEWEST))}

    def coded(some: list[list[str]]) -> tuple[list[np.ndarray], list[np.ndarray]]:
        pair = [
            [np.sort([code[a] for a in one if a in code]).astype(np.int32) for one in some] for code in (ranked, rare)
        ]
        return pair[0], pair[1]

    def packed(some: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        return starts_of(np.array([*map(len, some)])), np.concatenate(some)

    items, extras = coded([one for one in lists[:-N_TEST] if any(a in ranked for a in one)])
    data = Data(Lists(*packed(items), *packed(extras)), len(ranked), np.full(len(rare), -1, np.int32))
    items, extras = coded([one for one in lists[-N_TEST:] if sum(a in ranked for a in one) >= LEAST])
    rng = np.random.default_rng(seed)
    mixed = [rng.permutation(one) for one in items]
    hidden = [one[: len(one) // 5] for one in mixed]
    asked = Lists(*packed([np.sort(one[len(one) // 5 :]) for one in mixed]), *packed(extras))
    return Case(data, asked, *packed(hidden))


def quality(case: Case, scores: np.ndarray) -> np.ndarray:
    """(users, 3): R-precision, NDCG@100, recall@50."""
    from recsys_dask.metrics import METRICS, judge, top_k

    ranked = judge(top_k(scores, case.asked.starts, case.asked.items, 100), case.hidden_starts, case.hidden)
    nothing: Any = None
    return np.stack([METRICS[name].function(ranked, nothing) for name in ("r_precision", "ndcg@100", "recall@50")], 1)


def matrix(lists: Lists, n_items: int) -> Any:
    from scipy.sparse import csr_matrix

    return csr_matrix((np.ones(len(lists.items), np.float32), lists.items, lists.starts), (lists.n, n_items))


def peers(case: Case) -> dict[str, list[tuple[str, Callable[[], np.ndarray]]]]:
    """Each peer's settings, as functions that give scores."""
    from implicit.cpu.als import AlternatingLeastSquares
    from implicit.nearest_neighbours import BM25Recommender, TFIDFRecommender

    from recsys_dask.models.linear import ease

    held, asked = (matrix(lists, case.data.n_items) for lists in (case.data.lists, case.asked))

    def als(factors: int, alpha: float, regularization: float) -> np.ndarray:
        options: Any = dict(alpha=alpha, regularization=regularization, iterations=15, random_state=0)
        model = AlternatingLeastSquares(factors, **options)
        model.fit(held, show_progress=False)
        return np.asarray(model.recalculate_user(np.arange(case.asked.n), asked) @ model.item_factors.T)

    def neighbours(kind: Any) -> np.ndarray:
        model = kind(K=100)
        model.fit(held, show_progress=False)
        return np.asarray((asked @ model.similarity).todense())

    grid = itertools.product((32, 50, 64, 128), (1, 10, 40), (0.01, 1, 10))
    return {
        "implicit ALS": [(f"{f} factors, alpha {a}, reg. {r}", lambda f=f, a=a, r=r: als(f, a, r)) for f, a, r in grid],
        "implicit BM25": [("K=100", lambda: neighbours(BM25Recommender))],
        "implicit TF-IDF": [("K=100", lambda: neighbours(TFIDFRecommender))],
        "EASE": [
            (f"ridge {ridge}", lambda ridge=ridge: ease(case.data, ridge).scores(case.asked))
            for ridge in (50, 100, 150, 300, 600)
        ],
    }


def ours(case: Case, seed: int) -> dict[str, Callable[[], np.ndarray]]:
    """Our recommenders by name, in the order in which a blend needs them."""
    from recsys_dask.models.blend import Blend
    from recsys_dask.models.itemknn import item_knn
    from recsys_dask.recommending import fitting
    from recsys_dask.stages.fit import best_others

    fits: dict[str, Any] = {}

    def fitted(name: str, act: Callable[[], Any]) -> np.ndarray:
        made = act()
        fits[name] = made
        return (made.scorer if hasattr(made, "scorer") else made).scores(case.asked)

    def lists() -> Any:
        places, scores = best_others(fitting.linear_lists(case.data, fits["linear"].how), 20)
        kept = (places >= 0) & (scores > 0)
        seed_of = np.repeat(np.arange(len(places), dtype=np.int32), kept.sum(1))
        return item_knn(seed_of, places[kept], scores[kept], case.data.n_items)

    def blend() -> Any:
        weights, notes = fitting.fit_blend(case.data, seed, FREE, {one: fits[one].how for one in ("linear", "als")})
        print("  ", *notes, file=sys.stderr)
        return Blend((fits["linear"].scorer, fits["als"].scorer, fits["mlp"]), weights)

    return {
        "linear": lambda: fitted("linear", lambda: fitting.fit_linear(case.data, seed, FREE)),
        "linear, 20 best": lambda: fitted("lists", lists),
        "als": lambda: fitted("als", lambda: fitting.fit_als(case.data, seed, FREE)),
        "mlp": lambda: fitted("mlp", lambda: fitting.fit_mlp(case.data, seed)),
        "blend": lambda: fitted("blend", blend),
    }


def main(arguments: list[str]) -> None:
    from recsys_dask.metrics import bootstrap, paired

    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("listening", type=Path)
    parser.add_argument("--test", choices=("last", "first"), default="last", help="which 400 users")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(arguments)
    case = case_of(distinct_lists(args.listening, args.test), args.seed)
    print(f"{case.data.lists.n:,} users to fit on, {case.data.n_items:,} artists, {case.asked.n} test users")
    found: dict[str, np.ndarray] = {}
    print("method            R-precision          NDCG@100             recall@50            seconds")
    for name, act in ours(case, args.seed).items():
        began = time.perf_counter()
        found[name] = quality(case, act())
        show(name, bootstrap(found[name]), time.perf_counter() - began)
    for name, settings in peers(case).items():
        began = time.perf_counter()
        tried = {what: quality(case, act()) for what, act in settings}
        best = max(tried, key=lambda what: tried[what].mean())
        found[name] = tried[best]
        show(name, bootstrap(found[name]), (time.perf_counter() - began) / len(tried), best)
    print("\nblend less       R-precision               NDCG@100                  recall@50")
    for name in found:
        if name != "blend":
            gap = paired(found["blend"], found[name])
            cells = zip(gap.mean, gap.low, gap.high, strict=True)
            print(f"{name:16s}" + "".join(f" {mean:+.4f} ({low:+.4f} {high:+.4f})" for mean, low, high in cells))


def show(name: str, one: Any, seconds: float, what: str = "") -> None:
    cells = zip(one.mean, one.low, one.high, strict=True)
    print(
        f"{name:16s}" + "".join(f"  {m:.4f} ({a:.3f}-{b:.3f})" for m, a, b in cells) + f"  {seconds:6.1f}  {what}",
        flush=True,
    )


if __name__ == "__main__":
    main(sys.argv[1:])
