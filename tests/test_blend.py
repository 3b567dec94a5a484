"""Blends against loops, and their weights: noise chooses none, and what is planted comes back."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations

import numpy as np
import oracles
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_playlists import World, packed, worlds

from recsys_dask.models.base import Floats, Lists
from recsys_dask.models.blend import Blend, best_weights, standardised, weighted


class Fixed:
    """Scores from a table, whoever asks."""

    def __init__(self, table: list[list[float]]):
        self.table = np.array(table, np.float32)

    def scores(self, lists) -> np.ndarray:
        return self.table[: lists.n].copy()


@settings(max_examples=100, deadline=None)
@given(worlds(min_playlists=1), st.data())
def test_a_blend_adds_scores_standardised_over_what_a_playlist_lacks(world: World, data: st.DataObject) -> None:
    row = st.lists(st.integers(-40, 40).map(lambda n: n / 8), min_size=world.n_items, max_size=world.n_items)
    table = st.lists(row, min_size=len(world.playlists), max_size=len(world.playlists))
    tables, weights = data.draw(st.tuples(table, table)), (0.5, 2.0)
    found = Blend((Fixed(tables[0]), Fixed(tables[1])), weights).scores(world.lists)
    assert found.dtype == np.float32 and np.isfinite(found).all()
    for u, (items, _) in enumerate(world.playlists):
        sides = [oracles.standardised(one[u], items) for one in tables]
        for j in set(range(world.n_items)) - items:
            assert found[u, j] == pytest.approx(0.5 * sides[0][j] + 2.0 * sides[1][j], rel=1e-4, abs=1e-4)


def test_standardised_scores_leave_those_of_others_and_their_own_alone() -> None:
    """What a playlist holds may score anything."""
    lists = packed([({0}, set()), (set(), set()), ({0, 1, 2}, set())])
    scores = np.array([[1e6, 0.1, 0.3], [0.1, 0.1, 0.1], [5, 6, 7]], np.float32)
    before = scores.copy()
    found = standardised(scores, lists)
    assert (scores == before).all()
    np.testing.assert_allclose(found[0, 1:], [-1, 1], rtol=1e-3)
    assert (found[1] == 0).all() and np.isfinite(found).all()
    assert weighted([found], (2.0,)).tolist() == (2 * found).tolist()


# ----------------------------------------------------------------------------------------------------------- weights


@dataclass
class Asked:
    """200 playlists of nothing, each hiding 3 of 60 items."""

    hidden: np.ndarray
    lists: Lists

    def quality(self, scores: Floats) -> np.ndarray:
        """(200,): the share of the hidden items among the first three."""
        first = np.argsort(-scores, axis=1)[:, :3]
        return np.array([np.isin(one, gone).mean() for one, gone in zip(first, self.hidden, strict=True)])

    def scores(self, signal: float, seed: int) -> Floats:
        """Noise, and so much more for what is hidden."""
        noise = np.random.default_rng(seed).standard_normal((200, 60)).astype(np.float32)
        np.put_along_axis(noise, self.hidden, np.take_along_axis(noise, self.hidden, 1) + np.float32(signal), 1)
        return standardised(noise, self.lists)


@pytest.fixture(scope="module")
def asked() -> Asked:
    rng = np.random.default_rng(0)
    hidden = np.array([rng.permutation(60)[:3] for _ in range(200)])
    none = np.zeros(201, np.int64)
    return Asked(hidden, Lists(none, np.zeros(0, np.int32), none, np.zeros(0, np.int32)))


def test_weights_are_equal_where_differences_are_noise(asked: Asked) -> None:
    for seed in range(5):
        alike = [asked.scores(1.5, 10 * seed + part) for part in range(3)]
        assert best_weights(alike, asked.quality) == (1.0, 1.0, 1.0)
    same = asked.scores(1.5, 1)
    assert best_weights([same, same], asked.quality) == (1.0, 1.0)
    assert best_weights([same], asked.quality) == (1.0,)


def test_what_is_planted_clearly_better_weighs_most_in_any_order(asked: Asked) -> None:
    parts = [asked.scores(3.0, 1), asked.scores(0.0, 2), asked.scores(1.5, 3)]
    found = best_weights(parts, asked.quality)
    assert found[0] > found[2] > found[1] or found[0] > found[2] == found[1]
    for order in permutations(range(3)):
        weights = best_weights([parts[one] for one in order], asked.quality)
        assert weights == tuple(found[one] for one in order)


def test_the_worst_of_the_parts_weighs_least(asked: Asked) -> None:
    assert best_weights([asked.scores(2.5, 1), asked.scores(0.0, 2)], asked.quality) in {(1.0, 0.5), (2.0, 0.5)}
    assert best_weights([asked.scores(0.0, 2), asked.scores(2.5, 1)], asked.quality) in {(0.5, 1.0), (0.5, 2.0)}


@pytest.mark.parametrize("gain, wanted", [(0.19, (1.0, 1.0)), (0.21, (2.0, 0.5)), (-0.3, (1.0, 1.0))])
def test_a_gain_below_two_standard_errors_chooses_nothing(gain: float, wanted: tuple[float, ...]) -> None:
    """Of 100 playlists, one half gains 1 and the other loses it: a standard error of 0.1."""
    parts = [np.full((100, 2), size, np.float32) for size in (1, 10)]
    changes = np.where(np.arange(100) % 2, 1.0, -1.0)

    def quality(scores: Floats) -> np.ndarray:
        return {11.0: np.zeros(100), 7.0: changes + gain}.get(float(scores[0, 0]), np.full(100, -1.0))

    assert best_weights(parts, quality) == wanted
