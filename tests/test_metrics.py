"""Metrics against cases worked by hand, the slow versions of oracles.py, scikit-learn and scipy."""

from __future__ import annotations

import inspect
import math
import random
import warnings
from typing import NamedTuple

import numpy as np
import oracles
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics

from recsys_dask import UsageError
from recsys_dask.metrics import METRICS, Catalogue, Ranked, bootstrap, judge, paired, ranking, top_k
from recsys_dask.metrics import base as base_module
from recsys_dask.metrics import beyond_accuracy as beyond
from recsys_dask.metrics import intervals as intervals_module

NOTHING = Catalogue(np.zeros(0, np.int64), 0)


def rows(lists: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    """Starts and items."""
    starts = np.cumsum([0, *map(len, lists)], dtype=np.int64)
    return starts, np.array([one for items in lists for one in items], np.int32)


def padded(lists: list[list[int]], width: int | None = None) -> np.ndarray:
    width = max(map(len, lists), default=0) if width is None else width
    table = np.full((len(lists), width), -1, np.int32)
    for row, items in zip(table, lists, strict=True):
        row[: len(items)] = items
    return table


def judged(ranked: list[list[int]], hidden: list[list[int]], artist_of: list[int] | None = None) -> Ranked:
    return judge(padded(ranked), *rows(hidden), None if artist_of is None else np.array(artist_of, np.int32))


def one(ranked: list[int], hidden: list[int], metric, artist_of: list[int] | None = None, **options) -> float:
    """The value of one playlist."""
    return metric(judged([ranked], [hidden], artist_of), NOTHING, **options).tolist()[0]


def same(ours: np.ndarray, theirs: list[float]) -> None:
    assert ours.dtype == np.float64 and ours.shape == (len(theirs),)
    np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-15)


class World(NamedTuple):
    """Some playlists over n_items: what is ranked, what is hidden, whose the items are."""

    n_items: int
    ranked: list[list[int]]
    hidden: list[list[int]]
    artist_of: list[int]
    n_playlists: list[int]
    total: int
    vectors: np.ndarray

    @property
    def catalogue(self) -> Catalogue:
        return Catalogue(np.array(self.n_playlists, np.int64), self.total, self.vectors)


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """Few items, so that most things happen: nothing hidden, nothing ranked, everything a hit."""
    n_items = draw(st.integers(1, 12))
    lists = st.lists(st.integers(0, n_items - 1), max_size=n_items, unique=True)
    n = draw(st.integers(0, 6))
    total = draw(st.integers(1, 50))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    vectors = rng.standard_normal((n_items, 3))
    return World(
        n_items,
        draw(st.lists(lists, min_size=n, max_size=n)),
        draw(st.lists(lists, min_size=n, max_size=n)),
        draw(st.lists(st.integers(0, 4), min_size=n_items, max_size=n_items)),
        draw(st.lists(st.integers(0, total), min_size=n_items, max_size=n_items)),
        total,
        (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32),
    )


# ------------------------------------------------------------------------------------------------------------ registry


def test_metrics_are_registered_by_name_and_depth() -> None:
    told = {name: (metric.depth, metric.better, metric.kind) for name, metric in METRICS.items()}
    assert told == {
        "r_precision": (None, "higher", "each"),
        "ndcg@100": (100, "higher", "each"),
        "recall@50": (50, "higher", "each"),
        "precision@10": (10, "higher", "each"),
        "map@100": (100, "higher", "each"),
        "mrr@100": (100, "higher", "each"),
        "clicks": (500, "lower", "each"),
        "popularity@50": (50, "lower", "each"),
        "novelty@50": (50, "higher", "each"),
        "diversity@50": (50, "higher", "each"),
        "coverage@50": (50, "higher", "whole"),
    }
    assert next(iter(METRICS)) == "r_precision"
    assert all(metric.name == name for name, metric in METRICS.items())


@given(worlds())
def test_metrics_read_no_deeper_than_they_say(world: World) -> None:
    """And a table that is wider, with nothing in it, changes nothing."""
    wide = judge(padded(world.ranked, 600), *rows(world.hidden))
    for name, metric in METRICS.items():
        whole = metric.function(judged(world.ranked, world.hidden), world.catalogue)
        np.testing.assert_allclose(metric.function(wide, world.catalogue), whole, rtol=1e-12, err_msg=name)
        if metric.depth:
            assert inspect.signature(metric.function).parameters["k"].default == metric.depth


@pytest.mark.parametrize("name", [name for name, metric in METRICS.items() if metric.depth])
def test_a_metric_reads_as_deep_as_it_says(name: str) -> None:
    """The last of its k places counts, the one after does not."""
    metric = METRICS[name]
    k = metric.depth
    assert k
    n = 600
    catalogue = Catalogue(np.arange(n) + 1, n + 1, np.eye(n, 8, dtype=np.float32) + np.float32(0.1))
    ranked = np.arange(n, dtype=np.int32)[None]

    def value(places: np.ndarray, hidden: list[int]) -> float:
        return np.ravel(metric.function(judge(places, *rows([hidden])), catalogue))[0]

    full = value(ranked, [k - 1])
    assert value(ranked[:, : k - 1], [k - 1]) != full
    assert value(ranked[:, :k], [k - 1]) == value(ranked[:, : k + 1], [k - 1]) == full
    assert value(ranked, [k]) == value(ranked, [k + 7])


# -------------------------------------------------------------------------------------------------------------- judging


def test_judge_by_hand() -> None:
    """Tracks 0 … 7 by artists A A B B C C D D; tracks 0, 3 and 4 (A, B, C) are hidden, so three places are paid."""
    artist_of = [0, 0, 1, 1, 2, 2, 3, 3]
    got = judged([[1, 3, 2, 0], [6, 5, -1, -1], [0, 1, 4, 5]], [[4, 0, 3], [4, 0, 3], []], artist_of)
    assert got.hits.tolist() == [[False, True, False, True], [False] * 4, [False] * 4]
    # 1 has the artist of 0, which is found too late; 2 that of 3, which is found
    assert got.credit.tolist() == [[0.25, 1, 0, 1], [0, 0.25, 0, 0], [0] * 4]
    assert got.n_hidden.tolist() == [3, 3, 0] and got.n_hidden_artists is not None
    assert got.n_hidden_artists.tolist() == [3, 3, 0]
    assert ranking.r_precision(got, NOTHING).tolist()[:2] == [1.25 / 3, 0.25 / 3]


def test_an_artist_is_paid_once() -> None:
    """Tracks 0 1 2 3 by one artist, 4 5 by another; 0 4 hidden, then 0 4 5."""
    artist_of = [0, 0, 0, 0, 1, 1]
    assert judged([[1, 2, 3]], [[0, 4, 5]], artist_of).credit.tolist() == [[0.25, 0, 0]]
    assert judged([[1, 0, 2]], [[0, 4, 5]], artist_of).credit.tolist() == [[0, 1, 0]]
    assert judged([[0, 1, 2]], [[0, 4, 5]], artist_of).credit.tolist() == [[1, 0, 0]]
    assert judged([[1, 5, 0]], [[0, 4]], artist_of).credit.tolist() == [[0.25, 0.25, 1]]
    assert judged([[1, 5, 0]], [[0, 4]], artist_of).n_hidden_artists.tolist() == [2]  # type: ignore[union-attr]


def test_playlists_do_not_pay_for_each_other() -> None:
    artist_of = [0, 0, 1, 1]
    got = judged([[0, 2], [1, 2], [2, 0]], [[1, 3], [0], [0, 3]], artist_of)
    assert got.credit.tolist() == [[0.25, 0.25], [0.25, 0], [0.25, 1]]
    assert got.n_hidden_artists is not None and got.n_hidden_artists.tolist() == [2, 1, 2]


def test_artists_have_hits_alone() -> None:
    got = judged([[2, 0], [1]], [[0], [1, 0]])
    assert got.n_hidden_artists is None
    assert got.credit.dtype == np.float64 and got.credit.tolist() == got.hits.astype(float).tolist() == [[0, 1], [1, 0]]
    assert (got.ranked.dtype, got.hits.dtype, got.n_hidden.dtype) == (np.int32, np.bool_, np.int64)


def test_hidden_doubles_count_once() -> None:
    got = judged([[0, 1]], [[1, 1, 3, 1]], [0, 1, 2, 3])
    assert got.n_hidden.tolist() == [2] and got.credit.tolist() == [[0, 1]]


@given(worlds(), st.booleans())
def test_judge_against_the_slow_version(world: World, tracks: bool) -> None:
    got = judged(world.ranked, world.hidden, world.artist_of if tracks else None)
    for i, (ranked, hidden) in enumerate(zip(world.ranked, world.hidden, strict=True)):
        assert got.hits[i].tolist() == [one in hidden for one in padded(world.ranked)[i].tolist()]
        assert (got.credit[i] == 1).tolist() == got.hits[i].tolist()
        assert got.n_hidden[i] == len(hidden)
        if tracks:
            assert got.n_hidden_artists is not None
            assert got.n_hidden_artists[i] == len({world.artist_of[one] for one in hidden})
            quarters = np.flatnonzero(got.credit[i] == 0.25)
            firsts = [world.artist_of[one] for one in ranked[: len(hidden)] if one not in hidden]
            assert all(firsts.index(world.artist_of[ranked[at]]) == sum(
                one not in hidden for one in ranked[:at]) for at in quarters)  # fmt: skip
    assert set(np.unique(got.credit)) <= ({0, 0.25, 1} if tracks else {0, 1})
    expected = [
        oracles.r_precision(ranked, set(hidden), world.artist_of if tracks else None)
        for ranked, hidden in zip(world.ranked, world.hidden, strict=True)
    ]
    values = ranking.r_precision(got, NOTHING)
    same(values, expected)
    assert not (values > 1).any()


# ---------------------------------------------------------------------------------------------------------------- top k


def best(scores: list[list[float]], k: int, seen: list[list[int]] | None = None, allowed=None) -> list[list[int]]:
    table = np.array(scores, np.float32)
    before = table.copy()
    got = top_k(table, *rows(seen or [[] for _ in scores]), k, None if allowed is None else np.array(allowed, bool))
    np.testing.assert_array_equal(table, before)
    assert got.dtype == np.int32 and got.shape == (len(scores), k)
    return got.tolist()


def test_top_k_by_hand() -> None:
    inf, nan = math.inf, math.nan
    assert best([[0.1, 0.3, 0.2]], 2) == [[1, 2]]
    assert best([[1, 1, 1, 1]], 2) == [[0, 1]]
    assert best([[0, 2, 1, 2, 1, 1]], 4) == [[1, 3, 2, 4]]
    assert best([[5, 4, 3, 2]], 2, seen=[[0, 2]]) == [[1, 3]]
    assert best([[5, 4, 3, 2], [2, 3, 4, 5]], 2, seen=[[], [3]], allowed=[0, 1, 1, 1]) == [[1, 2], [2, 1]]
    assert best([[nan, -inf, -1e38, inf, nan]], 4) == [[3, 2, -1, -1]]
    assert best([[-nan, 1]], 2) == [[1, -1]]
    assert best([[0.0, -0.0, 0.0, -1.0, 1e-45, -1e-45]], 6) == [[4, 0, 1, 2, 5, 3]]
    assert best([[-0.0, 0.0]], 1) == [[0]]
    assert best([[1, 2]], 5) == [[1, 0, -1, -1, -1]]
    assert best([[1, 2]], 2, seen=[[1, 0, 1]]) == [[-1, -1]]
    assert best([[1, 2]], 0) == [[]]


def test_top_k_of_nothing() -> None:
    none = np.zeros(1, np.int64), np.zeros(0, np.int32)
    assert top_k(np.zeros((0, 3), np.float32), *none, 2).shape == (0, 2)
    assert top_k(np.zeros((2, 0), np.float32), *rows([[], []]), 2).tolist() == [[-1, -1]] * 2


VALUES = [0.0, -0.0, 1.0, 0.5, -1.0, math.inf, -math.inf, math.nan, 1e-45, -3e38]


@given(st.data())
def test_top_k_against_the_slow_version(data: st.DataObject) -> None:
    n, width = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 9))
    row = st.lists(st.sampled_from(VALUES), min_size=width, max_size=width)
    scores = data.draw(st.lists(row, min_size=n, max_size=n))
    seen = data.draw(st.lists(st.lists(st.integers(0, width - 1), max_size=4), min_size=n, max_size=n))
    allowed = data.draw(st.none() | st.lists(st.booleans(), min_size=width, max_size=width))
    k = data.draw(st.integers(1, width + 2))
    as_float32 = np.array(scores, np.float32).tolist()
    expected = [oracles.top_k(row, set(own), k, allowed) for row, own in zip(as_float32, seen, strict=True)]
    assert best(scores, k, seen, allowed) == padded(expected, k).tolist()


@pytest.mark.parametrize("levels", [1, 3, 40, 10**6])
@pytest.mark.parametrize("k", [1, 10, 299, 300])
def test_ties_at_the_border_of_k(monkeypatch: pytest.MonkeyPatch, levels: int, k: int) -> None:
    """As a full stable sort has it, also in blocks of rows that do not divide n."""
    rng = np.random.default_rng(levels)
    scores = (rng.integers(-levels, levels + 1, (50, 300)) / 7).astype(np.float32)
    seen = [rng.choice(300, rng.integers(40), replace=False).tolist() for _ in scores]
    masked = scores.copy()
    for row, own in zip(masked, seen, strict=True):
        row[own] = -np.inf
    order = np.argsort(-masked, axis=1, kind="stable")[:, :k]
    order[np.take_along_axis(masked, order, axis=1) == -np.inf] = -1
    for block in (1, 300, 7 * 300 + 5, 1 << 21):
        monkeypatch.setattr(base_module, "BLOCK", block)
        np.testing.assert_array_equal(top_k(scores, *rows(seen), k), order)
    np.testing.assert_array_equal(top_k(np.asfortranarray(scores), *rows(seen), k), order)


def test_top_k_of_many_items() -> None:
    """So many that a partition sorts no more of them than it must."""
    rng = np.random.default_rng(0)
    for scores in (rng.standard_normal((12, 30_000)), rng.poisson(0.01, (12, 30_000))):
        scores = scores.astype(np.float32)
        for k in (2, 50, 700):
            expected = np.argsort(-scores, axis=1, kind="stable")[:, :k]
            np.testing.assert_array_equal(top_k(scores, *rows([[]] * 12), k), expected)


# -------------------------------------------------------------------------------------------------------------- ranking


def test_r_precision_by_hand() -> None:
    assert one([7, 1, 2, 3], [1, 3, 9], ranking.r_precision) == 1 / 3  # 3 comes too late
    assert one([1], [1, 3], ranking.r_precision) == 1 / 2
    assert one([3, 1, 0], [1, 3], ranking.r_precision) == 1


def test_ndcg_by_hand() -> None:
    third = 1 / math.log2(4)
    assert one([5, 6, 7], [7], ranking.ndcg) == pytest.approx(third)
    assert one([5, 6, 7], [7, 5], ranking.ndcg) == pytest.approx((1 + third) / (1 + 1 / math.log2(3)))
    assert one([5, 6], [5, 6, 7], ranking.ndcg, k=2) == pytest.approx(1)
    assert one([5, 6], [5, 6, 7], ranking.ndcg) == pytest.approx((1 + 1 / math.log2(3)) / (1.5 + 1 / math.log2(3)))


def test_recall_precision_and_ranks_by_hand() -> None:
    ranked, hidden = [9, 4, 8, 5], [4, 5, 6]
    assert one(ranked, hidden, ranking.recall) == 2 / 3
    assert one(ranked, hidden, ranking.recall, k=3) == 1 / 3
    assert one(ranked, hidden, ranking.precision) == 2 / 10
    assert one(ranked, hidden, ranking.precision, k=2) == 1 / 2
    assert one(ranked, hidden, ranking.average_precision) == pytest.approx((1 / 2 + 2 / 4) / 3)
    assert one(ranked, hidden, ranking.average_precision, k=2) == pytest.approx((1 / 2) / 2)
    assert one(ranked, hidden, ranking.reciprocal_rank) == 1 / 2
    assert one(ranked, hidden, ranking.reciprocal_rank, k=1) == 0


@pytest.mark.parametrize(
    "rank, expected", [(1, 0), (10, 0), (11, 1), (20, 1), (21, 2), (491, 49), (500, 49), (501, 51)]
)
def test_clicks_by_hand(rank: int, expected: int) -> None:
    assert one(list(range(1, 600)), [rank], ranking.clicks) == expected


def test_clicks_of_a_short_list() -> None:
    assert one([1, 2], [3], ranking.clicks) == 51
    assert one([1, 2], [3], ranking.clicks, k=25) == 4  # 0, 1 or 2 of three pages


RANKING = [
    (ranking.ndcg, oracles.ndcg),
    (ranking.recall, oracles.recall),
    (ranking.precision, oracles.precision),
    (ranking.average_precision, oracles.average_precision),
    (ranking.reciprocal_rank, oracles.reciprocal_rank),
    (ranking.clicks, oracles.clicks),
]


@pytest.mark.parametrize("metric, oracle", RANKING, ids=[metric.__name__ for metric, _ in RANKING])
@given(world=worlds(), k=st.integers(1, 25))
def test_ranking_against_the_slow_version(metric, oracle, world: World, k: int) -> None:
    got = metric(judged(world.ranked, world.hidden), NOTHING, k=k)
    same(got, [oracle(ranked, set(hidden), k) for ranked, hidden in zip(world.ranked, world.hidden, strict=True)])


def long_lists(seed: int = 3, n: int = 40, n_items: int = 900) -> tuple[np.ndarray, list[list[int]]]:
    """Scores (n, n_items) and hidden items, which some rows favour and some avoid: hits at all depths."""
    rng = np.random.default_rng(seed)
    hidden = [rng.choice(n_items, rng.integers(1, 150), replace=False).tolist() for _ in range(n)]
    scores = rng.permuted(np.tile(np.arange(n_items, dtype=np.float32), (n, 1)), axis=1)
    for row, items in zip(scores, hidden, strict=True):
        row[items] += rng.integers(-700, 700) + np.float32(0.5)
    return scores, hidden


def test_the_registered_depths_against_the_slow_version() -> None:
    scores, hidden = long_lists()
    places = top_k(scores, *rows([[] for _ in hidden]), 500)
    lists = places.tolist()
    got = judge(places, *rows(hidden))
    slow = {
        "r_precision": oracles.r_precision,
        "ndcg@100": lambda *a: oracles.ndcg(*a, 100),
        "recall@50": lambda *a: oracles.recall(*a, 50),
        "precision@10": lambda *a: oracles.precision(*a, 10),
        "map@100": lambda *a: oracles.average_precision(*a, 100),
        "mrr@100": lambda *a: oracles.reciprocal_rank(*a, 100),
        "clicks": oracles.clicks,
    }
    for name, oracle in slow.items():
        expected = [oracle(ranked, set(items)) for ranked, items in zip(lists, hidden, strict=True)]
        assert len(set(expected)) > 3, name
        same(METRICS[name].function(got, NOTHING), expected)


def test_ranking_against_scikit_learn() -> None:
    scores, hidden = long_lists(seed=4)
    n, n_items = scores.shape
    truth = np.zeros((n, n_items), int)
    for row, items in zip(truth, hidden, strict=True):
        row[items] = 1
    got = judge(top_k(scores, *rows([[] for _ in hidden]), n_items), *rows(hidden))
    for k in (10, 100, n_items):
        theirs = [metrics.ndcg_score(truth[[i]], scores[[i]], k=k) for i in range(n)]
        same(ranking.ndcg(got, NOTHING, k=k), theirs)
    whole = ranking.average_precision(got, NOTHING, k=n_items)
    same(whole, [metrics.average_precision_score(truth[i], scores[i]) for i in range(n)])
    assert whole.mean() == pytest.approx(metrics.label_ranking_average_precision_score(truth, scores))
    found = np.zeros_like(truth)
    np.put_along_axis(found, got.ranked[:, :50], 1, axis=1)
    same(ranking.recall(got, NOTHING), [metrics.recall_score(truth[i], found[i]) for i in range(n)])
    same(ranking.precision(got, NOTHING, k=50), [metrics.precision_score(truth[i], found[i]) for i in range(n)])


@pytest.mark.parametrize(
    "name", ["r_precision", "ndcg@100", "recall@50", "precision@10", "map@100", "mrr@100", "clicks"]
)
def test_empty_cases_of_ranking(name: str) -> None:
    """Nothing hidden is NaN, nothing ranked a miss, no playlist no value; without warnings."""
    function, miss = METRICS[name].function, 51 if name == "clicks" else 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        got = function(judged([[1, 2], [-1, -1], [3, -1], []], [[], [], [1], [2]]), NOTHING)
        np.testing.assert_array_equal(got, [np.nan, np.nan, miss, miss])
        np.testing.assert_array_equal(function(judged([[], []], [[4], []], [0] * 5), NOTHING), [miss, np.nan])
        assert function(judged([], []), NOTHING).shape == (0,)


def test_the_padding_is_no_item() -> None:
    """-1 would be the last item, were it looked up; of another playlist, were it counted on from there."""
    catalogue = Catalogue(np.array([1, 2, 4, 400]), 400, np.eye(4, dtype=np.float32))
    got = judge(np.array([[0, -1, -1], [0, -1, -1]], np.int32), *rows([[3], [3, 2]]), np.array([0, 1, 2, 2], np.int32))
    assert not got.hits.any() and not got.credit.any()
    assert beyond.popularity(got, catalogue).tolist() == [1 / 400] * 2
    assert beyond.coverage(got, catalogue) == 1 / 4
    assert np.isnan(beyond.diversity(got, catalogue)).all()


# ------------------------------------------------------------------------------------------------------ beyond accuracy


def test_beyond_accuracy_by_hand() -> None:
    vectors = np.array([[1, 0], [0, 1], [-1, 0], [0.6, 0.8]], np.float32)
    catalogue = Catalogue(np.array([8, 4, 0, 1]), 8, vectors)
    got = judged([[0, 1], [2, 3], [1, 3, 0], [0, 2]], [[], [], [], []])
    same(beyond.popularity(got, catalogue), [0.75, 1 / 16, 13 / 24, 0.5])
    same(beyond.novelty(got, catalogue), [0.5, (math.log2(9) + 3) / 2, 4 / 3, math.log2(9) / 2])
    np.testing.assert_allclose(beyond.diversity(got, catalogue), [1, 1.6, 1 - (0.8 + 0 + 0.6) / 3, 2], atol=1e-6)
    assert beyond.coverage(got, catalogue) == 1
    assert beyond.coverage(got, catalogue, k=1) == 3 / 4
    same(beyond.popularity(got, catalogue, k=1), [1, 0, 0.5, 1])
    same(beyond.novelty(got, catalogue, k=1), [0, math.log2(9), 1, 0])


@given(world=worlds(), k=st.integers(1, 14))
def test_beyond_accuracy_against_the_slow_version(world: World, k: int) -> None:
    got = judged(world.ranked, world.hidden)
    lists, known = world.ranked, (world.n_playlists, world.total, k)
    same(beyond.popularity(got, world.catalogue, k=k), [oracles.popularity(ranked, *known) for ranked in lists])
    same(beyond.novelty(got, world.catalogue, k=k), [oracles.novelty(ranked, *known) for ranked in lists])
    vectors = world.vectors.tolist()
    diverse = [oracles.diversity(ranked, vectors, k) for ranked in lists]
    np.testing.assert_allclose(beyond.diversity(got, world.catalogue, k=k), diverse, atol=1e-5)
    assert beyond.coverage(got, world.catalogue, k=k) == pytest.approx(oracles.coverage(lists, world.n_items, k))


def test_diversity_in_blocks_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((30, 5)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    got = judged([rng.permutation(30)[: 2 + i].tolist() for i in range(11)], [[] for _ in range(11)])
    catalogue = Catalogue(np.ones(30, np.int64), 30, vectors)
    whole = beyond.diversity(got, catalogue)
    monkeypatch.setattr(beyond, "BLOCK", 4 * 12 * 5)
    np.testing.assert_array_equal(beyond.diversity(got, catalogue), whole)
    assert len(set(whole)) == 11


def test_empty_cases_beyond_accuracy() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        got = judged([[0], [-1]], [[], []])
        untrained = Catalogue(np.zeros(2, np.int64), 0)
        np.testing.assert_array_equal(beyond.popularity(got, untrained), [np.nan] * 2)
        np.testing.assert_array_equal(beyond.novelty(got, untrained), [0, np.nan])
        np.testing.assert_array_equal(beyond.diversity(got, untrained), [np.nan] * 2)
        trained = Catalogue(np.array([3, 1]), 3, np.eye(2, dtype=np.float32))
        np.testing.assert_array_equal(beyond.popularity(got, trained), [1, np.nan])
        np.testing.assert_array_equal(beyond.diversity(got, trained), [np.nan] * 2)
        assert beyond.coverage(judged([[-1]], [[]]), trained) == 0
        assert math.isnan(beyond.coverage(judged([[-1]], [[]]), NOTHING))
        for name in ("popularity@50", "novelty@50", "diversity@50"):
            for empty in (judged([], []), judged([[]], [[]])):
                for catalogue in (NOTHING, trained):
                    got_empty = METRICS[name].function(empty, catalogue)
                    assert got_empty.shape == (len(empty.ranked),) and np.isnan(got_empty).all()


# ------------------------------------------------------------------------------------------------------------ intervals


def skewed(n: int, seed: int) -> np.ndarray:
    """Like a metric's values: many zeros, some ones."""
    rng = np.random.default_rng(seed)
    return np.where(rng.random(n) < 0.4, 0.0, rng.beta(1, 3, n))


def test_the_bootstrap_covers_the_mean_as_often_as_it_says() -> None:
    """Of 500 data sets each; a percentile interval of 80 values covers a little less than its level."""
    truth = 0.6 / 4
    for level, least, most in ((0.95, 0.91, 0.97), (0.8, 0.74, 0.845)):
        made = [bootstrap(skewed(80, seed), level=level, samples=300, seed=seed) for seed in range(500)]
        share = np.mean([one.low <= truth <= one.high for one in made])
        assert least <= share <= most, level
        below, above = np.mean([one.high < truth for one in made]), np.mean([one.low > truth for one in made])
        assert min(below, above) > 0.1 * (1 - level)  # both ends miss


def test_the_bootstrap_against_scipy() -> None:
    for n, level in ((40, 0.9), (400, 0.95)):
        values = skewed(n, seed=n)
        theirs = stats.bootstrap(
            (values,), np.mean, confidence_level=level, n_resamples=20_000, method="percentile", rng=1, batch=500
        ).confidence_interval
        ours = bootstrap(values, level=level, samples=20_000)
        assert ours.mean == pytest.approx(values.mean())
        width = theirs.high - theirs.low
        assert abs(ours.low - theirs.low) < 0.03 * width
        assert abs(ours.high - theirs.high) < 0.03 * width


def test_the_bootstrap_against_the_slow_version() -> None:
    values = skewed(25, seed=5)
    slow = np.quantile(oracles.bootstrap_means(values.tolist(), 20_000, random.Random(1)), [0.025, 0.975])
    ours = bootstrap(values, samples=20_000)
    np.testing.assert_allclose([ours.low, ours.high], slow, atol=0.03 * (slow[1] - slow[0]))


def test_seeds_of_the_bootstrap() -> None:
    values = skewed(50, seed=1)
    assert bootstrap(values, seed=4) == bootstrap(values, seed=4)
    assert bootstrap(values, seed=4).low != bootstrap(values, seed=5).low
    assert bootstrap(values, seed=4).mean == bootstrap(values, seed=5).mean


def test_columns_share_the_draws() -> None:
    table = np.stack([skewed(60, seed) for seed in range(3)], axis=1)
    together = bootstrap(table)
    assert together.low.shape == (3,)
    for column in range(3):
        np.testing.assert_allclose([end[column] for end in together], bootstrap(table[:, column]), rtol=1e-12)
    moved = bootstrap(np.stack([table[:, 0], 2 * table[:, 0] + 1], axis=1))
    np.testing.assert_allclose(moved.low[1], 2 * moved.low[0] + 1)


def test_blocks_of_draws_are_the_same_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the block: so the memory is bounded without a change of result."""
    values = skewed(70, seed=2)
    whole = bootstrap(values, samples=101)
    for block in (1, 70 * 7, 70 * 100 + 3):
        monkeypatch.setattr(intervals_module, "BLOCK", block)
        np.testing.assert_allclose(bootstrap(values, samples=101), whole, rtol=1e-12)


def test_nans_are_left_out() -> None:
    values = skewed(60, seed=8)
    holes = np.insert(values, [0, 10, 60], np.nan)
    assert bootstrap(holes) == bootstrap(values)
    table = np.stack([holes, np.arange(63.0), np.full(63, np.nan)], axis=1)
    got = bootstrap(table)
    np.testing.assert_allclose(got.mean, [values.mean(), 31, np.nan])
    assert got.low[0] < got.mean[0] < got.high[0]
    assert np.isnan(got.low[2]) and np.isnan(got.high[2])
    half = np.concatenate([values, np.full(60, np.nan)])
    got = bootstrap(np.stack([half, np.ones(120)], axis=1))
    width, alone = got.high[0] - got.low[0], bootstrap(values)
    assert width == pytest.approx(alone.high - alone.low, rel=0.2)


def test_small_inputs_of_the_bootstrap() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for empty in (np.zeros(0), np.full(3, np.nan)):
            assert np.isnan(bootstrap(empty)).all() and np.shape(bootstrap(empty).mean) == ()
        assert np.isnan(bootstrap(np.zeros((0, 2)))).all() and bootstrap(np.zeros((0, 2))).low.shape == (2,)
        assert bootstrap(np.array([0.3])) == (0.3, 0.3, 0.3)
        assert bootstrap(np.array([np.nan, 0.3])) == (0.3, 0.3, 0.3)
        mean, low, high = bootstrap(np.full(1000, 0.1))
        assert low == mean == high == 0.1
        rare = bootstrap(np.array([[1, 5.0], [np.nan, 6], [np.nan, 7]]))  # draws without a number of the first
        assert (rare.low[0], rare.high[0]) == (1, 1) and 5 <= rare.low[1] < rare.high[1] <= 7


def test_paired_is_of_the_differences() -> None:
    """Playlists differ far more than both methods: their own intervals overlap, that of the difference is above 0."""
    rng = np.random.default_rng(0)
    b = skewed(300, seed=1)
    a = b + 0.01 + rng.normal(0, 0.02, 300)
    assert paired(a, b) == bootstrap(a - b)
    assert paired(a, b).low > 0 and paired(b, a).high < 0
    assert bootstrap(a).low < bootstrap(b).high
    assert paired(a, a) == (0, 0, 0)
    a[3], b[7] = np.nan, np.nan
    both = np.delete(a - b, [3, 7])
    assert paired(a, b, level=0.5, samples=77, seed=9) == bootstrap(both, level=0.5, samples=77, seed=9)


def test_a_level_is_a_level() -> None:
    values = skewed(90, seed=3)
    narrow, wide = bootstrap(values, level=0.5), bootstrap(values, level=0.99)
    assert wide.low < narrow.low < narrow.mean < narrow.high < wide.high


def test_what_intervals_refuse() -> None:
    for level in (0.0, 1.0, 95.0):
        with pytest.raises(UsageError, match="level is"):
            bootstrap(np.ones(3), level=level)
    with pytest.raises(UsageError, match="samples is 0"):
        bootstrap(np.ones(3), samples=0)
    with pytest.raises(UsageError, match="no pairs"):
        paired(np.ones(3), np.ones(1))
