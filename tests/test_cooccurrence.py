"""The counting kernels against loops, and the measures against their formulas and those that `implicit` publishes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import fields
from itertools import pairwise
from typing import Any

import numpy as np
import oracles
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from recsys_dask.cooccurrence.best import Best, empty, merge, offer
from recsys_dask.cooccurrence.chunk import Counter, count_pairs, most_pairs
from recsys_dask.cooccurrence.combine import combine, totals
from recsys_dask.cooccurrence.measures import MEASURES, Counts, from_fixed
from recsys_dask.cooccurrence.view import Playlists, add_diagonals, clean, diagonal, joined, weights
from recsys_dask.runtime.connecting import prepare_kernels
from recsys_dask.runtime.progress import Progress

UNIT = 2**30


@pytest.fixture(scope="module", autouse=True)
def compiled() -> None:
    prepare_kernels(Progress())


def packed(lists: Sequence[Sequence[int]]) -> Playlists:
    starts = np.concatenate([[0], np.cumsum([len(items) for items in lists])]).astype(np.int64)
    return Playlists(starts, np.array([item for items in lists for item in items], np.int32))


def unpacked(playlists: Playlists) -> list[list[int]]:
    return [playlists.items[a:b].tolist() for a, b in zip(playlists.starts, playlists.starts[1:], strict=False)]


def numbered(lists: Sequence[Sequence[int]]) -> list[tuple[int, Sequence[int]]]:
    """As the oracle takes playlists."""
    return list(enumerate(lists))


def as_dict(counter: Counter, weighted: bool) -> dict[tuple[int, int], tuple[int, ...]]:
    """A counter as the oracle has pairs; checks what its docstring promises."""
    n = len(counter.other)
    assert counter.starts[0] == 0 and counter.starts[-1] == n and (np.diff(counter.starts) >= 0).all()
    assert counter.other.dtype == counter.n_playlists.dtype == np.int32 and counter.weights.dtype == np.int64
    assert len(counter.n_playlists) == n and counter.weights.shape == (n if weighted else 0, 2)
    item = counter.low + np.repeat(np.arange(len(counter.starts) - 1), np.diff(counter.starts))
    both = list(zip(item.tolist(), counter.other.tolist(), strict=True))
    assert both == sorted(set(both)) and all(one < other for one, other in both)
    sums = counter.weights.tolist() if weighted else [[]] * n
    return {pair: (count, *sum_) for pair, count, sum_ in zip(both, counter.n_playlists.tolist(), sums, strict=True)}


def equal(one: Counter, other: Counter) -> None:
    assert one.low == other.low
    for name in ("starts", "other", "n_playlists", "weights"):
        a, b = getattr(one, name), getattr(other, name)
        assert a.dtype == b.dtype and a.shape == b.shape and (a == b).all(), name


@st.composite
def baskets(draw: st.DrawFn, max_size: int = 12) -> tuple[int, list[list[int]]]:
    """Number of items, and playlists of distinct rising ones: none empty, as a view has them.

    With few items all pairs are met again and again, with many a playlist touches next to none of them.
    """
    n_items = draw(st.integers(1, 8) | st.integers(9, 40) | st.integers(41, 2_000))
    items = st.integers(0, n_items - 1) | st.integers(0, min(n_items, 6) - 1)
    lists = st.lists(st.sets(items, min_size=1, max_size=15).map(sorted), max_size=max_size)
    return n_items, draw(lists)


def span(draw: st.DrawFn, n_items: int) -> tuple[int, int]:
    if draw(st.booleans()):
        return 0, n_items
    low, high = sorted((draw(st.integers(0, n_items)), draw(st.integers(0, n_items))))
    return low, high


# ------------------------------------------------------------------------------------------------------------ view


def slow_clean(
    lists: Sequence[Sequence[int]], keep: Sequence[bool], items: Sequence[int], rows: tuple[int, int] | None
) -> list[list[int]]:
    place = {code: at for at, code in enumerate(items)}
    kept = []
    for codes, kept_by_length in zip(lists, keep, strict=True):
        left = [place[code] for code in codes if code in place]
        if kept_by_length and left and (rows is None or rows[0] <= len(left) <= rows[1]):
            kept.append(sorted(set(left)))
    return kept


def fast_clean(
    lists: Sequence[Sequence[int]], keep: Sequence[bool], items: Sequence[int], rows: tuple[int, int] | None
) -> list[list[int]]:
    codes = np.array([code for codes in lists for code in codes], np.int32)
    n_entries = np.array([len(codes) for codes in lists], np.int64)
    found = clean(codes, n_entries, np.array(keep, bool), np.array(items, np.int32), rows)
    assert found.starts.dtype == np.int64 and found.items.dtype == np.int32
    assert (found.lengths == [len(one) for one in unpacked(found)]).all()
    return unpacked(found)


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_clean(data: st.DataObject) -> None:
    code = st.integers(0, 9) | st.integers(0, 3) | st.just(500)
    lists = data.draw(st.lists(st.lists(code, max_size=12), max_size=8))
    keep = data.draw(st.lists(st.booleans() | st.just(True), min_size=len(lists), max_size=len(lists)))
    items = sorted(data.draw(st.sets(code | st.just(700), max_size=10)))
    bounds = st.tuples(st.integers(0, 12), st.integers(0, 12)).map(sorted).map(tuple)
    rows = data.draw(st.none() | bounds)
    assert fast_clean(lists, keep, items, rows) == slow_clean(lists, keep, items, rows)


def test_rows_are_counted_before_duplicates_and_after_the_item_filter() -> None:
    lists = [[7, 7, 7, 8, 8], [7, 8, 9], [7, 1, 1, 1, 1, 8, 9], [7, 7, 7, 7, 7, 7], [1, 1, 1, 1, 1], []]
    keep = [True] * len(lists)
    assert fast_clean(lists, keep, [7, 8, 9], (5, 5)) == [[0, 1]]
    assert fast_clean(lists, keep, [7, 8, 9], (3, 3)) == [[0, 1, 2], [0, 1, 2]]
    assert fast_clean(lists, keep, [7, 8, 9], (6, 9)) == [[0]]
    assert fast_clean(lists, keep, [7, 8, 9], (0, 99)) == [[0, 1], [0, 1, 2], [0, 1, 2], [0]]
    assert fast_clean(lists, [False, True, False, True, True, True], [7, 8, 9], None) == [[0, 1, 2], [0]]
    assert fast_clean(lists, keep, [], None) == fast_clean([], [], [7], None) == []


@given(
    lengths=st.lists(st.integers(1, 300), max_size=20),
    n_items=st.integers(1, 5) | st.integers(1, 100_000),
)
def test_weights(lengths: list[int], n_items: int) -> None:
    found = weights(np.array(lengths, np.int64), n_items)
    assert found.dtype == np.int64 and found.shape == (len(lengths), 2)
    assert found.tolist() == [
        [round(UNIT / math.sqrt(n)), round(UNIT * (math.log(n_items) - math.log1p(n)) ** 2)] for n in lengths
    ]


def test_weights_of_nothing() -> None:
    assert weights(np.zeros(0, np.int64), 0).shape == weights(np.zeros(0, np.int64), 5).shape == (0, 2)
    assert from_fixed(np.array([UNIT, UNIT // 2, 0])).tolist() == [1.0, 0.5, 0.0]


@settings(deadline=None)
@given(drawn=baskets(), data=st.data())
def test_diagonal(drawn: tuple[int, list[list[int]]], data: st.DataObject) -> None:
    """Of all playlists at once, and added up from parts, empty ones among them."""
    n_items, lists = drawn
    cuts = sorted(data.draw(st.lists(st.integers(0, len(lists)), max_size=4)))
    parts = [lists[a:b] for a, b in zip([0, *cuts], [*cuts, len(lists)], strict=True)]
    assert unpacked(joined([packed(part) for part in parts])) == lists
    whole = diagonal(packed(lists), n_items)
    for found in (whole, add_diagonals([diagonal(packed(part), n_items) for part in parts])):
        wanted = oracles.pair_items(numbered(lists), True, n_items)
        later = [sum(len(one) - one.index(item) - 1 for one in lists if item in one) for item in range(n_items)]
        assert found.playlists == len(lists)
        assert found.emissions.tolist() == later
        assert found.n_playlists.dtype == found.weights.dtype == np.int64
        for item in range(n_items):
            n, _, *sums = wanted.get(item, (0, 0, 0, 0))
            assert found.n_playlists[item] == n and found.weights[item].tolist() == sums


# ------------------------------------------------------------------------------------------------- chunk, combine


@settings(max_examples=100, deadline=None)
@given(drawn=baskets(), data=st.data(), weighted=st.booleans())
def test_count_pairs(drawn: tuple[int, list[list[int]]], data: st.DataObject, weighted: bool) -> None:
    n_items, lists = drawn
    low, high = span(data.draw, n_items)
    found = count_pairs(packed(lists), n_items, (low, high), weighted)
    assert found.low == low and len(found.starts) == high - low + 1
    wanted = oracles.pairs(numbered(lists), weighted, n_items)
    assert as_dict(found, weighted) == {pair: sums for pair, sums in wanted.items() if low <= pair[0] < high}


def test_count_pairs_of_many() -> None:
    """Accumulators that are touched in a few places are sorted, in many are walked; both occur here."""
    rng = np.random.default_rng(1)
    lists = [np.unique((rng.random(rng.integers(1, 60)) ** 3 * 3_000).astype(int)).tolist() for _ in range(300)]
    wanted = oracles.pairs(numbered(lists), True, 3_000)
    touched = np.diff(count_pairs(packed(lists), 3_000, (0, 3_000), False).starts)
    assert touched.max() * 12 > 3_000 and touched.min() * 12 < 3_000
    for bounds in ((0, 3_000), (0, 1, 2, 30, 30, 1_000, 2_999, 3_000)):
        found: dict[Any, Any] = {}
        for low, high in pairwise(bounds):
            found |= as_dict(count_pairs(packed(lists), 3_000, (low, high), True), True)
        assert found == wanted


@settings(max_examples=100, deadline=None)
@given(drawn=baskets(max_size=20), data=st.data(), weighted=st.booleans())
def test_combined_chunks_are_one_chunk(drawn: tuple[int, list[list[int]]], data: st.DataObject, weighted: bool) -> None:
    """Random partitionings of the playlists, empty parts among them, in one step and as a tree of two."""
    n_items, lists = drawn
    home = data.draw(st.lists(st.integers(0, 5), min_size=len(lists), max_size=len(lists)))
    parts = [[items for items, of in zip(lists, home, strict=True) if of == number] for number in range(6)]
    bounds = span(data.draw, n_items)
    counters = [count_pairs(packed(part), n_items, bounds, weighted) for part in parts]
    whole = count_pairs(packed(lists), n_items, bounds, weighted)
    equal(combine(counters, n_items), whole)
    equal(combine([combine(counters[:2], n_items), combine(counters[2:], n_items)], n_items), whole)
    equal(combine([whole], n_items), whole)


@settings(deadline=None)
@given(drawn=baskets(), data=st.data(), weighted=st.booleans())
def test_totals(drawn: tuple[int, list[list[int]]], data: st.DataObject, weighted: bool) -> None:
    n_items, lists = drawn
    cuts = sorted(data.draw(st.lists(st.integers(0, n_items), max_size=3)))
    bounds = [0, *cuts, n_items]
    pairs = oracles.pairs(numbered(lists))
    summed = np.zeros(n_items, np.int64)
    for low, high in pairwise(bounds):
        found = totals(count_pairs(packed(lists), n_items, (low, high), weighted), n_items)
        wanted = [0] * n_items
        for (one, other), (count,) in pairs.items():
            if low <= one < high:
                wanted[one] += count
                wanted[other] += count
        assert found.dtype == np.int64 and found.tolist() == wanted
        summed += found
    of_item = oracles.pair_items(numbered(lists))
    assert summed.tolist() == [of_item.get(item, (0, 0))[1] for item in range(n_items)]


@settings(deadline=None)
@given(drawn=baskets(), data=st.data())
def test_most_pairs(drawn: tuple[int, list[list[int]]], data: st.DataObject) -> None:
    n_items, lists = drawn
    low, high = span(data.draw, n_items)
    emissions = diagonal(packed(lists), n_items).emissions
    found = most_pairs(emissions[low:high], n_items, low)
    wanted = [min(met, n_items - 1 - item) for item, met in enumerate(emissions.tolist())]
    assert found.tolist() == wanted[low:high]
    counted = np.diff(count_pairs(packed(lists), n_items, (low, high), False).starts)
    assert (counted <= found).all()


# ------------------------------------------------------------------------------------------------------------ best


def slow_best(
    offers: Sequence[tuple[int, int, float]], by_id: Sequence[int], n_items: int, k: int
) -> list[list[tuple[int, float]]]:
    return [
        [
            (other, value)
            for value, _, other in sorted(
                ((value, by_id[other], other) for of, other, value in offers if of == seed),
                key=lambda one: (-one[0], one[1]),
            )[:k]
        ]
        for seed in range(n_items)
    ]


def listed(best: Best) -> list[list[tuple[int, float]]]:
    return [
        list(zip(neighbour[:n].tolist(), score[:n].tolist(), strict=True))
        for score, neighbour, n in zip(best.score, best.neighbour, best.n.tolist(), strict=True)
    ]


def offered(
    offers: Sequence[tuple[int, int, float]], by_id: NDArray[np.int32], n_items: int, k: int, at_once: int
) -> Best:
    best = empty(n_items, k)
    for start in range(0, len(offers), at_once):
        some = offers[start : start + at_once]
        seed, other = (np.array([one[place] for one in some], np.int32) for place in (0, 1))
        offer(best, seed, other, np.array([one[2] for one in some]), by_id)
    return best


@settings(max_examples=100, deadline=None)
@given(
    data=st.data(),
    n_items=st.integers(1, 12),
    k=st.integers(1, 5),
    at_once=st.integers(1, 9),
    shuffled=st.randoms(use_true_random=False),
)
def test_best(data: st.DataObject, n_items: int, k: int, at_once: int, shuffled: Any) -> None:
    """Few distinct scores, some below zero: most places go by id. Offered in any order, and merged from parts."""
    one = st.integers(0, n_items - 1)
    values = st.sampled_from((0.0, -1.5, 0.25, 0.5, 1e-300)) | st.floats(-2, 2)
    chosen = data.draw(st.dictionaries(st.tuples(one, one), values, max_size=60))
    offers = [(seed, other, value) for (seed, other), value in chosen.items()]
    shuffled.shuffle(offers)
    by_id = np.array(data.draw(st.permutations(range(n_items))), np.int32)
    wanted = slow_best(offers, by_id.tolist(), n_items, k)
    assert listed(offered(offers, by_id, n_items, k, at_once)) == wanted

    home = data.draw(st.lists(st.integers(0, 3), min_size=len(offers), max_size=len(offers)))
    parts = [
        offered([one for one, of in zip(offers, home, strict=True) if of == number], by_id, n_items, k, 99)
        for number in range(4)
    ]
    before = [listed(part) for part in parts]
    assert listed(merge(parts, by_id)) == wanted
    assert listed(merge([merge(parts[:2], by_id), merge(parts[2:], by_id)], by_id)) == wanted
    assert [listed(part) for part in parts] == before  # a part may be merged again when a task is retried


# -------------------------------------------------------------------------------------------------------- measures


def counts_of(lists: Sequence[Sequence[int]], n_items: int) -> tuple[list[tuple[int, int]], Counts]:
    """All pairs of some playlists by the package's kernels, as the measures take them."""
    counter = count_pairs(packed(lists), n_items, (0, n_items), True)
    of_item, total = diagonal(packed(lists), n_items), totals(counter, n_items).astype(float)
    a = np.repeat(np.arange(n_items), np.diff(counter.starts))
    b = counter.other
    n, idf = of_item.n_playlists.astype(float), from_fixed(of_item.weights[:, 1])
    return list(zip(a.tolist(), b.tolist(), strict=True)), Counts(
        pair=counter.n_playlists.astype(float),
        a=n[a],
        b=n[b],
        total_a=total[a],
        total_b=total[b],
        idf=from_fixed(counter.weights[:, 1]),
        idf_a=idf[a],
        idf_b=idf[b],
        mean=n.sum() / n_items,
        playlists=of_item.playlists,
    )


@pytest.fixture(scope="module")
def lists() -> list[list[int]]:
    rng = np.random.default_rng(3)
    return [np.unique((rng.random(rng.integers(1, 14)) ** 2 * 30).astype(int)).tolist() for _ in range(80)]


N_ITEMS = 32
"""Two more than `lists` uses: some items of a view are in no playlist."""

ONE_EXPRESSION = {"coco", "count", "cosine", "jaccard", "lift", "conditional"}
"""Numpy and Python round these alike."""


@pytest.mark.parametrize("name", MEASURES)
def test_measures_are_their_formulas(name: str, lists: list[list[int]]) -> None:
    pairs = oracles.pairs(numbered(lists), True, N_ITEMS)
    of_item = oracles.pair_items(numbered(lists), True, N_ITEMS)
    mean_n = sum(n for n, *_ in of_item.values()) / N_ITEMS
    order, seen = counts_of(lists, N_ITEMS)
    for counts, turned in ((seen, False), (seen.swapped(), True)):
        found = MEASURES[name].function(counts)
        wanted = [
            oracles.score(name, pairs[pair], of_item[pair[turned]], of_item[pair[not turned]], len(lists), mean_n)
            for pair in order
        ]
        assert found.dtype == np.float64 and len(found) == len(pairs) > 200
        if name in ONE_EXPRESSION:
            assert found.tolist() == wanted
        else:
            np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("name", MEASURES)
def test_measures_are_symmetric_where_they_say_so(name: str, lists: list[list[int]]) -> None:
    _, seen = counts_of(lists, N_ITEMS)
    there, back = (MEASURES[name].function(counts) for counts in (seen, seen.swapped()))
    assert (there == back).all() == MEASURES[name].symmetric


def test_views_of_the_measures() -> None:
    assert MEASURES["coco"].view == "article"
    assert {measure.view for measure in MEASURES.values() if measure.name != "coco"} == {"full"}
    assert all(name == measure.name and measure.function.__doc__ for name, measure in MEASURES.items())


def test_swapped_twice_is_the_same(lists: list[list[int]]) -> None:
    _, seen = counts_of(lists, N_ITEMS)
    for name in (field.name for field in fields(Counts)):
        assert np.all(getattr(seen.swapped().swapped(), name) == getattr(seen, name))
    assert (seen.swapped().a == seen.b).all() and (seen.swapped().total_b == seen.total_a).all()
    assert (seen.swapped().idf_a == seen.idf_b).all() and (seen.swapped().pair == seen.pair).all()


def test_by_hand() -> None:
    """Three playlists of four items: {0, 1, 2}, {0, 1}, {0}."""
    order, seen = counts_of([[0, 1, 2], [0, 1], [0]], 4)
    assert order == [(0, 1), (0, 2), (1, 2)]

    def of(name: str) -> list[float]:
        return MEASURES[name].function(seen).tolist()

    assert of("count") == [2, 1, 1]
    assert of("coco") == [2 / 6, 1 / 5, 1 / 5]  # totals 3, 3, 2
    assert of("jaccard") == [2 / 3, 1 / 3, 1 / 2]
    assert of("lift") == [1, 1, 1.5]
    assert of("pmi") == pytest.approx([0, 0, math.log(1.5)])
    assert of("conditional") == [2 / 3, 1 / 3, 1 / 2]
    assert of("cosine") == pytest.approx([2 / math.sqrt(6), 1 / math.sqrt(3), 1 / math.sqrt(2)])
    # idf of a playlist: ln(4 / (1 + n)), so 0, ln(4/3) and ln(2) by falling length; a mean of 6/4 playlists an item
    one, two = math.log(4 / 3) ** 2, math.log(2) ** 2
    assert of("tfidf") == pytest.approx([one / math.sqrt((one + two) * one), 0, 0], rel=1e-8)
    factor = [2.2 / (1.2 * (0.25 + 0.75 * n / 1.5) + 1) for n in (3, 2, 1)]
    assert of("bm25") == pytest.approx([factor[0] * factor[1] * one, 0, 0], rel=1e-8)


# The weightings of implicit/nearest_neighbours.py (github.com/benfred/implicit), for a matrix of items by users


def idf(matrix: sp.csr_array) -> NDArray[np.float64]:
    """ln(N / (1 + how many items a user has)), N the number of items."""
    return np.log(matrix.shape[0] / (1 + np.bincount(matrix.indices, minlength=matrix.shape[1])))


def tfidf_weight(matrix: sp.csr_array) -> sp.csr_array:
    return matrix.sqrt() @ sp.diags_array(idf(matrix))


def bm25_weight(matrix: sp.csr_array, k1: float, b: float) -> sp.csr_array:
    sums = matrix.sum(axis=1)
    length = 1 - b + b * sums / sums.mean()
    of_row = np.repeat(length, np.diff(matrix.indptr))
    weighted = matrix.data * (k1 + 1) / (k1 * of_row + matrix.data)
    return sp.csr_array((weighted, matrix.indices, matrix.indptr), matrix.shape) @ sp.diags_array(idf(matrix))


def normalize(matrix: sp.csr_array) -> sp.csr_array:
    norm = np.sqrt((matrix**2).sum(axis=1))
    return sp.diags_array(np.divide(1, norm, out=np.zeros_like(norm), where=norm > 0)) @ matrix


IMPLICIT = {
    "cosine": normalize,
    "tfidf": lambda matrix: normalize(tfidf_weight(matrix)),
    "bm25": lambda matrix: bm25_weight(matrix, k1=1.2, b=0.75),
}


@pytest.mark.parametrize("name", IMPLICIT)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_as_implicit_has_it(name: str, seed: int) -> None:
    """A random 0/1 matrix with a few users without items, and a few items without users."""
    rng = np.random.default_rng(seed)
    n_items, n_users = 60, 150
    chance = rng.random(n_items) ** 3 * (rng.random(n_items) > 0.1)
    held = rng.random((n_users, n_items)) < np.outer(rng.random(n_users) > 0.05, 0.5 * chance)
    lists = [np.flatnonzero(row).tolist() for row in held if row.any()]
    assert len(lists) < n_users and (held.sum(0) == 0).any()
    vectors = IMPLICIT[name](sp.csr_array(held.T.astype(float)))
    wanted = (vectors @ vectors.T).toarray()
    order, seen = counts_of(lists, n_items)
    one, other = np.array(order).T
    # Weights are kept to 2⁻³⁰, a billionth, and the smallest squared idf here is some thousandths.
    np.testing.assert_allclose(MEASURES[name].function(seen), wanted[one, other], rtol=1e-6, atol=1e-9)
    shared = (held.T.astype(int) @ held)[np.triu_indices(n_items, 1)]
    assert len(order) == (shared > 0).sum() > 500
