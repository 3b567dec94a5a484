"""Negatives: exactly as many as wanted, never a positive, never twice, uniform, whatever the partitions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from recsys_dask import UsageError
from recsys_dask.runtime.connecting import prepare_kernels
from recsys_dask.runtime.progress import Progress
from recsys_dask.training.negatives import counts, draw, wanted
from recsys_dask.training.rows import joined, training_rows


@pytest.fixture(scope="module", autouse=True)
def compiled() -> None:
    prepare_kernels(Progress())


def packed(lists: Sequence[Sequence[int]]) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    starts = np.concatenate([[0], np.cumsum([len(items) for items in lists])]).astype(np.int64)
    return starts, np.array([item for items in lists for item in items], np.int32)


def negatives(lists: Sequence[Sequence[int]], n_items: int, ratio: float, seed: int) -> list[list[int]]:
    """All at once, a list of items a playlist."""
    starts, items = packed(lists)
    number = counts(np.diff(starts), n_items, ratio, seed)
    drawn = draw(starts, items, n_items, number, np.arange(len(lists)), seed)
    ends = np.cumsum(number)
    return [drawn[end - n : end].tolist() for end, n in zip(ends, number, strict=True)]


@st.composite
def playlists(draw: st.DrawFn) -> tuple[int, list[list[int]]]:
    """Number of items, and playlists from empty ones to ones that hold every item."""
    n_items = draw(st.integers(1, 12) | st.integers(60, 70))
    every = st.just(list(range(n_items)))
    some = st.sets(st.integers(0, n_items - 1), max_size=n_items).map(sorted)
    lacking_one = st.integers(0, n_items - 1).map(lambda lacks: [item for item in range(n_items) if item != lacks])
    return n_items, draw(st.lists(some | every | lacking_one, max_size=12))


@settings(max_examples=300, deadline=None)
@given(playlists(), st.sampled_from([0.0, 0.1, 1 / 3, 0.5, 1.0, 2.0, 2.75]), st.integers(0, 2**31))
def test_as_many_as_wanted_none_a_positive_none_twice(
    given: tuple[int, list[list[int]]], ratio: float, seed: int
) -> None:
    n_items, lists = given
    n_positives = sum(map(len, lists))
    free = len(lists) * n_items - n_positives
    k = wanted(n_positives, ratio)
    if k > free:
        with pytest.raises(UsageError, match=f"only {free:,} pairs of a known playlist and a known item are free"):
            negatives(lists, n_items, ratio, seed)
        k, ratio = free, free / n_positives
        if wanted(n_positives, ratio) > free:  # the quotient was rounded up
            ratio = math.nextafter(ratio, 0)
            k = wanted(n_positives, ratio)
    found = negatives(lists, n_items, ratio, seed)
    assert sum(map(len, found)) == k
    for chosen, own in zip(found, lists, strict=True):
        assert chosen == sorted(set(chosen))
        assert set(chosen) <= set(range(n_items)) - set(own)
    assert found == negatives(lists, n_items, ratio, seed)


def test_the_ratio_is_meant_as_written() -> None:
    assert wanted(30, 0.1) == 3 and wanted(31, 0.1) == 4 and wanted(3, 0.5) == 2 and wanted(7, 0) == 0
    assert wanted(10**9, 2) == 2 * 10**9


@pytest.mark.parametrize("ratio", [-1.0, math.nan, math.inf])
def test_a_senseless_ratio(ratio: float) -> None:
    with pytest.raises(UsageError, match="from 0 up"):
        counts(np.array([1]), 3, ratio, 0)


def test_the_error_names_a_ratio_that_fits() -> None:
    lengths = np.array([9, 9, 10])
    with pytest.raises(UsageError, match=r"at most 0\.07") as error:
        counts(lengths, 10, 2, 0)
    assert "only 2 pairs" in str(error.value)
    assert counts(lengths, 10, 0.07, 0).sum() == 2


def test_nothing_to_draw_from() -> None:
    assert counts(np.zeros(0, np.int64), 5, 2, 0).tolist() == []
    assert counts(np.zeros(3, np.int64), 0, 2, 0).tolist() == [0, 0, 0]
    assert negatives([[], []], 4, 2, 0) == [[], []]


LISTS = [[0, 1, 2, 3, 4, 5, 6], [0, 2], [], [1, 3, 5, 7], list(range(8)), [7]]
FREE = [(playlist, item) for playlist, own in enumerate(LISTS) for item in range(8) if item not in own]


def test_pairs_playlists_and_pairs_of_pairs_are_uniform() -> None:
    """4,000 seeds of k = 16 among 26 free pairs: each pair as often as any other, and the number in one playlist
    hypergeometric. (Pearson's statistic of a subset's marginals is corrected for the pairs' dependence.)"""
    n, k, free = 4_000, 16, len(FREE)
    seen = np.zeros(free)
    in_third = np.zeros(9, int)
    together = 0
    for seed in range(n):
        found = negatives(LISTS, 8, 0.7, seed)
        chosen = [(playlist, item) for playlist, items in enumerate(found) for item in items]
        assert len(chosen) == k
        seen += [pair in chosen for pair in FREE]
        in_third[len(found[2])] += 1
        together += (2, 0) in chosen and (2, 5) in chosen
    share = k / free
    statistic = ((seen - n * share) ** 2).sum() / (n * share * (1 - share)) * (free - 1) / free
    assert scipy.stats.chi2.sf(statistic, free - 1) > 0.001
    expected = n * scipy.stats.hypergeom.pmf(np.arange(9), free, 8, k)
    usual = expected > 5
    assert (
        scipy.stats.chisquare(
            [*in_third[usual], in_third[~usual].sum()], [*expected[usual], expected[~usual].sum()]
        ).pvalue
        > 0.001
    )
    assert scipy.stats.binomtest(together, n, k * (k - 1) / free / (free - 1)).pvalue > 0.001


@pytest.mark.parametrize("ratio", [0.02, 2.0])
def test_items_and_playlists_are_uniform_at_size(ratio: float) -> None:
    rng = np.random.default_rng(3)
    held = rng.random((2_000, 100)) < rng.random((2_000, 1)) * 0.5
    starts = np.concatenate([[0], np.cumsum(held.sum(1))])
    number = counts(np.diff(starts), 100, ratio, 5)
    drawn = draw(starts, np.nonzero(held)[1].astype(np.int32), 100, number, np.arange(2_000), 5)
    share = number.sum() / (~held).sum()
    for seen, free in ((np.bincount(drawn, minlength=100), (~held).sum(0)), (number, (~held).sum(1))):
        statistic = ((seen - free * share) ** 2 / (free * share * (1 - share))).sum()
        assert 0.001 < scipy.stats.chi2.sf(statistic, len(seen) - 1) < 0.999


def test_partitions_change_nothing() -> None:
    rng = np.random.default_rng(1)
    held = rng.random((60, 30)) < 0.3
    held[[4, 59]], held[5] = True, False
    lists = [np.flatnonzero(row).tolist() for row in held]
    starts, items = packed(lists)
    pids = rng.permutation(10**6)[:60]
    number = counts(np.diff(starts), 30, 1.5, 7)
    whole = training_rows(starts, items, number, draw(starts, items, 30, number, pids, 7))
    pairs = set(zip(whole.playlists, whole.items, whole.ratings, strict=True))
    for cuts in ([0, 60], [0, 0, 1, 31, 60], [0, 5, 5, 59, 60], list(range(61))):
        parts = []
        for low, high in pairwise(cuts):
            mine = starts[low : high + 1] - starts[low], items[starts[low] : starts[high]]
            drawn = draw(*mine, 30, number[low:high], pids[low:high], 7)
            parts.append(training_rows(*mine, number[low:high], drawn, low))
        rows = joined(parts)
        assert set(zip(rows.playlists, rows.items, rows.ratings, strict=True)) == pairs
        assert [column.dtype for column in rows] == [np.int32, np.int32, np.uint8]
        assert len(rows.items) == len(pairs) == len(items) + wanted(len(items), 1.5)
    assert {(a, b) for a, b, rating in pairs if rating} == {(a, b) for a, own in enumerate(lists) for b in own}


def test_seeds_and_keys_differ() -> None:
    lists = [[0]] * 50
    one, other = negatives(lists, 40, 10, 1), negatives(lists, 40, 10, 2)
    assert one != other
    assert len({tuple(items) for items in one}) > 40  # playlists that hold the same do not draw the same


def test_playlists_that_hold_nearly_everything_cost_no_more() -> None:
    """30,000 playlists of 1,000 items that lack one item each, and all of these wanted."""
    n, n_items = 30_000, 1_000
    lacks = np.arange(n) % n_items
    items = np.arange(n_items - 1, dtype=np.int32) + (np.arange(n_items - 1) >= lacks[:, None]).astype(np.int32)
    starts = np.arange(n + 1) * (n_items - 1)
    ratio = 1 / (n_items - 1)
    number = counts(np.diff(starts), n_items, ratio, 0)
    drawn = draw(starts, items.ravel(), n_items, number, np.arange(n), 0)
    assert (drawn == lacks[number > 0]).all() and abs(len(drawn) - n) <= 1
