"""Recommenders against plain regressions, dense normal equations and loops, as oracles.py has them."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import oracles
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_playlists import World, allowed, drawn, packed, worlds
from threadpoolctl import threadpool_limits

from recsys_dask import cores as cores_module
from recsys_dask.models import linear as linear_module
from recsys_dask.models.als import Als, als
from recsys_dask.models.folded import FoldedMean, FoldedMF, MeanOfUnits
from recsys_dask.models.folding import through_tower
from recsys_dask.models.gram import add_pairs
from recsys_dask.models.itemknn import item_knn
from recsys_dask.models.linear import Kernels, Shape, Weights, ease, inputs_of, linear
from recsys_dask.models.popularity import Popularity, Random
from recsys_dask.models.solving import solve

NONE = np.zeros(0, np.int32)
SHAPE = Shape(ridge=2.0, kappa=0.7, delta=0.15, owned=3.0, other=1.5)
"""Ridges as small as these playlists are few, all different."""


def lacks(world: World) -> np.ndarray:
    """(n, N) bool: where a score is one that somebody reads."""
    return oracles.dense(world.playlists, world.n_items) == 0


def same(found: np.ndarray, wanted: np.ndarray, where: np.ndarray) -> None:
    assert found.dtype == np.float32 and found.shape == wanted.shape == where.shape
    np.testing.assert_allclose(found[where], wanted[where], rtol=1e-3, atol=2e-5)


# ------------------------------------------------------------------------------------------------------------ linear


def regressed(world: World, extras: list[int], shape: Shape) -> np.ndarray:
    constants = shape.ridge, shape.kappa, shape.delta, shape.owned, shape.other
    with threadpool_limits(1):  # hundreds of small systems
        return oracles.linear(world.playlists, world.n_items, world.owner, extras, *constants)


def check_linear(world: World, asked: World, extras: list[int], shape: Shape) -> None:
    """Both forms score as the regressions do."""
    weights = regressed(world, extras, shape)
    wanted = oracles.dense(asked.playlists, asked.n_items, extras) @ weights
    off = ~np.eye(world.n_items, dtype=bool)
    for primal in (True, False):
        fitted = linear(world.data, shape, np.array(extras, np.int32), primal)
        assert isinstance(fitted, Weights if primal else Kernels)
        same(fitted.scores(asked.lists), wanted, lacks(asked))
        same(fitted.by_item(), weights[: world.n_items], off)


@settings(max_examples=60, deadline=None)
@given(worlds(), st.data(), st.sampled_from([0.0, 0.7, 1.0]), st.sampled_from([0.0, 0.15, 1.0]))
def test_linear_is_a_regression_of_each_item(world: World, data: st.DataObject, kappa: float, delta: float) -> None:
    places = st.sampled_from(range(len(world.owner))) if world.owner else st.nothing()
    extras = sorted(data.draw(st.sets(places)))
    check_linear(world, world, extras, Shape(2.0, kappa, delta, 3.0, 1.5))


@pytest.mark.parametrize("kappa, delta", [(0.0, 0.0), (1.0, 0.0), (0.8, 0.17)])
def test_linear_of_new_playlists_with_extras_left_out(kappa: float, delta: float) -> None:
    world, asked = drawn(60, 25, 30, seed=1), drawn(20, 25, 30, seed=2)._replace(owner=drawn(60, 25, 30, seed=1).owner)
    asked = asked._replace(playlists=[(items, set()) for items, _ in asked.playlists[:5]] + world.playlists[5:20])
    check_linear(world, asked, [*range(0, 30, 2), 29], Shape(2.0, kappa, delta, 3.0, 1.5))
    check_linear(world, asked, [], Shape(2.0, kappa, delta, 3.0, 1.5))


def test_linear_in_blocks_and_by_several_threads(monkeypatch) -> None:
    """As many items, and items with inputs of their own, as need more than one of each."""
    monkeypatch.setattr(linear_module, "BLOCK", 50)
    monkeypatch.setattr(linear_module, "cores", lambda: 2)
    monkeypatch.setattr(cores_module, "cores", lambda: 2)
    world = drawn(60, 140, 139, seed=3, most=25)
    world = allowed(world._replace(owner=[*range(1, 140)]))
    check_linear(world, world, list(range(139)), SHAPE)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("n", [0, 3])
def test_linear_of_playlists_without_any_item_knows_nothing(n: int) -> None:
    world = World(4, [1], [(set(), set())] * n)
    for primal in (True, False):
        fitted = linear(world.data, SHAPE, np.zeros(1, np.int32), primal)
        assert (fitted.scores(packed([({0, 2}, set()), ({1}, {0})]))[:, 3] == 0).all()


def test_linear_takes_the_side_that_is_smaller() -> None:
    assert isinstance(linear(drawn(40, 10, 0).data, SHAPE, NONE), Weights)
    assert isinstance(linear(drawn(40, 10, 40).data, SHAPE, np.arange(40, dtype=np.int32)), Kernels)
    assert isinstance(linear(drawn(10, 30, 0).data, SHAPE, NONE), Kernels)


@settings(max_examples=60, deadline=None)
@given(worlds(), st.sampled_from([0.5, 20.0]))
def test_ease_regresses_each_item_on_the_others(world: World, ridge: float) -> None:
    weights = oracles.ease(world.playlists, world.n_items, ridge)
    fitted = ease(world.data, ridge)
    same(fitted.by_input, weights, np.ones_like(weights, bool))
    wanted = oracles.dense(world.playlists, world.n_items) @ weights
    same(fitted.scores(world.lists), wanted, np.ones_like(wanted, bool))


def test_an_inverse_larger_than_a_stripe() -> None:
    rng = np.random.default_rng(0)
    half = rng.standard_normal((600, 700))
    matrix = half @ half.T + 10 * np.eye(600)
    found = linear_module._inverse(np.triu(matrix))
    np.testing.assert_allclose(found, np.linalg.inv(matrix), rtol=1e-8, atol=1e-12)
    assert (found == found.T).all()
    matrix[300, 300] = -1
    with pytest.raises(np.linalg.LinAlgError, match="order 301 is not positive definite"):
        linear_module._inverse(np.triu(matrix))


@settings(max_examples=40, deadline=None)
@given(worlds(), st.integers(1, 9))
def test_pairs_are_the_same_in_any_number_of_turns(world: World, turns: int) -> None:
    extras = np.arange(len(world.owner), dtype=np.int32)
    starts, inputs = inputs_of(world.lists, world.n_items, extras)
    weight = np.random.default_rng(len(inputs)).random(len(world.playlists))
    z = oracles.dense(world.playlists, world.n_items, extras.tolist())
    wanted = np.triu(z.T @ (weight[:, None] * z))
    found = [np.zeros_like(wanted) for _ in range(2)]
    add_pairs(starts, inputs, weight, 0, 1, found[0])
    for turn in reversed(range(turns)):
        add_pairs(starts, inputs, weight, turn, turns, found[1])
    np.testing.assert_allclose(found[0], wanted, rtol=1e-12)
    assert (found[0] == found[1]).all()


# --------------------------------------------------------------------------------------------------------------- als


@pytest.mark.parametrize("k", [1, 6, 32])
@pytest.mark.parametrize("weight", [1.0, 0.15])
def test_small_systems_as_numpy_solves_them(k: int, weight: float) -> None:
    rng = np.random.default_rng(k)
    q = rng.standard_normal((20, k)).astype(np.float32)
    lists = [[], [3], *(sorted(rng.permutation(20)[:n].tolist()) for n in (5, 20, 11))]
    starts, items = np.cumsum([0, *map(len, lists)]), np.array([one for items in lists for one in items], np.int32)
    base = (0.1 * q.T @ q + 0.1 * np.eye(k)).astype(np.float32)
    ridge = np.array([0.0, 0.5, 1.0, 2.0, 30.0], np.float32)
    right = rng.standard_normal((5, k)).astype(np.float32)
    right[4] = 0
    out = np.full((5, k), 7, np.float32)
    solve(q, starts, items, np.float32(weight), base, ridge, right, out)
    for u, one in enumerate(lists):
        matrix = base.astype(float) + ridge[u] * np.eye(k) + weight * q[one].T.astype(float) @ q[one]
        wanted = np.linalg.solve(matrix, right[u].astype(float))
        np.testing.assert_allclose(out[u], wanted, rtol=1e-3, atol=1e-3 * np.abs(wanted).max())
    assert (out[4] == 0).all()


@settings(max_examples=25, deadline=None)
@given(worlds(min_playlists=1), st.integers(1, 3), st.data())
def test_a_sweep_of_als_solves_the_normal_equations(world: World, sweeps: int, data: st.DataObject) -> None:
    places = st.sampled_from(range(len(world.owner))) if world.owner else st.nothing()
    extras = sorted(data.draw(st.sets(places)))
    given_to = dict(factors=4, unseen=0.2, ridge=0.05, seed=5)
    before = als(world.data, np.array(extras, np.int32), sweeps=sweeps - 1, **given_to)
    after = als(world.data, np.array(extras, np.int32), sweeps=sweeps, **given_to)
    wanted = oracles.als_sweep(before.q.astype(float), world.playlists, world.n_items, extras, 0.2, 0.05)
    assert after.q.dtype == np.float32 and after.q.shape == wanted.shape
    np.testing.assert_allclose(after.q, wanted, rtol=2e-3, atol=2e-3 * max(np.abs(wanted).max(), 1e-3))


def test_als_of_more_playlists_than_a_thread_takes_and_its_scores() -> None:
    world = drawn(150, 40, 20, seed=4)
    extras = [*range(0, 20, 3)]
    made = als(world.data, np.array(extras, np.int32), factors=8, sweeps=2)
    q = als(world.data, np.array(extras, np.int32), factors=8, sweeps=1).q.astype(float)
    wanted = oracles.als_sweep(q, world.playlists, 40, extras, 0.1, 0.005)
    np.testing.assert_allclose(made.q, wanted, rtol=5e-3, atol=5e-3 * np.abs(wanted).max())
    q = made.q.astype(float)
    z = oracles.dense(world.playlists, 40, extras)
    p = oracles.als_side(q, [np.flatnonzero(row) for row in z], 0.1, 0.005, 40)
    np.testing.assert_allclose(made.fold_in(world.lists), p, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(made.scores(world.lists), p @ q[:40].T, rtol=1e-3, atol=1e-3)
    assert (made.vectors() == made.q[:40]).all()
    assert made.scores(packed([])).shape == (0, 40)


def loss(made: Als, world: World, extras: list[int]) -> float:
    """Of the docstring of als.py, playlist by playlist."""
    z = oracles.dense(world.playlists, world.n_items, extras)
    p, q = made.fold_in(world.lists).astype(float), made.q.astype(float)
    found = p @ q.T
    total = (z * (1 - found) ** 2).sum() + made.unseen * (found**2).sum()
    total += made.ridge * ((z.sum(1) + made.unseen * world.n_items) * (p**2).sum(1)).sum()
    return float(total + made.ridge * ((z.sum(0) + made.unseen * len(z)) * (q**2).sum(1)).sum())


def test_sweeps_of_als_lower_the_loss_and_its_seed_is_the_draw() -> None:
    world = drawn(60, 20, 10, seed=6)
    extras = np.arange(10, dtype=np.int32)
    made = [als(world.data, extras, factors=6, sweeps=sweeps, seed=1) for sweeps in range(6)]
    losses = [loss(one, world, list(range(10))) for one in made]
    assert all(after < before for before, after in pairwise(losses))
    again, other = (als(world.data, extras, factors=6, sweeps=2, seed=seed) for seed in (1, 2))
    assert (again.q == made[2].q).all() and not np.allclose(other.q, made[2].q)


# ------------------------------------------------------------------------------------- neighbours, popularity, folded


@settings(max_examples=50, deadline=None)
@given(worlds(), st.data())
def test_item_knn_sums_over_the_items_of_a_playlist(world: World, data: st.DataObject) -> None:
    items = st.integers(0, world.n_items - 1)
    similar = data.draw(st.dictionaries(st.tuples(items, items), st.floats(-2, 2, width=32), max_size=20))
    triples = data.draw(st.permutations([(*pair, value) for pair, value in similar.items()]))
    first, second, value = (np.array([one[at] for one in triples]) for at in range(3))
    made = item_knn(first.astype(np.int32), second.astype(np.int32), value.astype(np.float32), world.n_items)
    assert (made.similarity > 0).all() and made.starts.dtype == np.int64 and made.neighbours.dtype == np.int32
    for low, high in pairwise(made.starts):
        assert (np.diff(made.neighbours[low:high]) > 0).all()
    wanted = [oracles.item_knn(similar, items, world.n_items) for items, _ in world.playlists]
    wanted = np.array(wanted).reshape(-1, world.n_items)
    found = made.scores(world.lists)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


def test_the_same_for_everybody_and_as_chance_has_it() -> None:
    lists = drawn(5, 6, 3).lists
    share = np.array([0.5, 0.1, 0.0, 0.2, 0.2, 1.0], np.float32)
    assert Popularity(share).scores(lists).tolist() == [share.tolist()] * 5
    one, again, other = (Random(6, seed).scores(lists) for seed in (1, 1, 2))
    assert one.shape == (5, 6) and one.dtype == np.float32 and (one == again).all() and (one != other).any()
    held = [tuple(lists.items[low:high]) for low, high in zip(lists.starts, lists.starts[1:], strict=False)]
    assert len(np.unique(one)) == 6 * len(set(held)) > 6


def test_trained_models_score_from_their_weights() -> None:
    """Vectors solved for are tested in test_models.py: these are their scores."""
    rng, world = np.random.default_rng(1), drawn(6, 9, 0)
    q, b = rng.standard_normal((9, 4)).astype(np.float32), rng.standard_normal(9).astype(np.float32)
    z = oracles.dense(world.playlists, 9)
    size = np.maximum(z.sum(1, keepdims=True), 1)
    p = z @ q / size**0.75
    np.testing.assert_allclose(FoldedMean(q, b).scores(world.lists), p @ q.T + b, rtol=1e-4, atol=1e-5)
    halves = FoldedMean(q, b, power=0.5).scores(world.lists)
    np.testing.assert_allclose(halves, z @ q / size**0.5 @ q.T + b, rtol=1e-4, atol=1e-5)
    layers = [rng.standard_normal(shape).astype(np.float32) for shape in ((5, 4), (5,), (4, 5), (4,))]
    through = p + np.maximum(p @ layers[0].T + layers[1], 0) @ layers[2].T + layers[3]
    assert np.allclose(through_tower(p, [(layers[0], layers[1]), (layers[2], layers[3])]), through)
    made = FoldedMean(q, b, tuple(layers))
    np.testing.assert_allclose(made.scores(world.lists), through @ q.T + b, rtol=1e-4, atol=1e-5)
    unit = q / np.linalg.norm(q, axis=1, keepdims=True)
    np.testing.assert_allclose(MeanOfUnits(q).scores(world.lists), z @ unit / size @ unit.T, rtol=1e-4, atol=1e-5)
    assert (MeanOfUnits(0 * q).scores(world.lists) == 0).all()
    scores = FoldedMF(q, b).scores(world.lists)
    assert scores.shape == (6, 9) and scores.dtype == np.float32
    assert not np.allclose(scores, FoldedMF(q, b, 0.1).scores(world.lists))
