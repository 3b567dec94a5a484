"""Choices made by hiding items: nothing hidden is seen, noise chooses nothing, and a plan that fits is found."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import oracles
import pytest
from small_playlists import World, drawn, unpacked

from recsys_dask.errors import BudgetError
from recsys_dask.models.base import Data, Floats, Lists, chosen_extras
from recsys_dask.models.linear import Kernels, Shape, Weights, ease, linear
from recsys_dask.recommending import fitting
from recsys_dask.recommending.fitting import Inner, fit_als, fit_blend, fit_ease, fit_linear, inner, linear_lists

FREE = 1e9

# ----------------------------------------------------------------------------------------------------- inner split


def long_ones(n: int = 200, seed: int = 0) -> World:
    """Some of them shorter than those of which items are hidden; no two alike."""
    world = drawn(n, 40, 60, seed, most=25)
    assert len({(frozenset(items), frozenset(extras)) for items, extras in world.playlists}) == n
    return world


def whole(split: Inner, owner: list[int], all_playlists: list) -> list[tuple[set[int], set[int]]]:
    """The asked playlists as they were, found by the items they have and hide; checks what they lack."""
    before = {frozenset(items): extras for items, extras in all_playlists}
    hidden = [set(split.hidden[low:high].tolist()) for low, high in pairwise(split.hidden_starts.tolist())]
    found = []
    for (items, extras), gone in zip(unpacked(split.asked), hidden, strict=True):
        assert gone and not gone & items
        assert not {owner[one] for one in extras} & gone
        was = before[frozenset(items | gone)]
        assert extras == {one for one in was if owner[one] not in gone}
        found.append((items | gone, was))
    return found


@pytest.mark.parametrize("seed", [0, 1, 2**31])
def test_what_is_asked_is_hidden_with_its_inputs_and_never_trained_on(seed: int) -> None:
    world = long_ones()
    split = inner(world.data, seed)
    assert split is not None
    asked = whole(split, world.owner, world.playlists)
    trained = unpacked(split.data.lists)
    assert not [one for one in asked if one in trained]
    assert all(one in world.playlists for one in asked + trained)
    assert len(trained) == 160 and fitting.LEAST_VALIDATES <= len(asked) <= 40
    left = [one for one in world.playlists if one not in asked and one not in trained]
    assert len(left) == 40 - len(asked) and all(len(items) < 10 for items, _ in left)
    assert np.diff(split.hidden_starts).tolist() == [max(1, len(items) // 5) for items, _ in asked]
    assert split.data.n_items == world.n_items and (split.data.owner == world.owner).all()


def test_a_seed_repeats_a_split_and_another_makes_another() -> None:
    data = long_ones().data
    one, again, other = (inner(data, seed) for seed in (3, 3, 4))
    assert one is not None and again is not None and other is not None
    for name in ("hidden_starts", "hidden"):
        assert np.array_equal(getattr(one, name), getattr(again, name))
    assert unpacked(one.asked) == unpacked(again.asked) != unpacked(other.asked)
    assert unpacked(one.data.lists) == unpacked(again.data.lists) != unpacked(other.data.lists)


def test_a_seed_also_draws_what_is_hidden(monkeypatch) -> None:
    """Where all playlists are asked, as many are hidden of each, and others."""
    monkeypatch.setattr(fitting, "VALID_SHARE", 1.0)
    one, other = (inner(long_ones().data, seed) for seed in (3, 4))
    assert one is not None and other is not None
    assert np.array_equal(one.hidden_starts, other.hidden_starts) and not np.array_equal(one.hidden, other.hidden)


def test_a_choice_takes_no_more_playlists_than_it_needs(monkeypatch) -> None:
    monkeypatch.setattr(fitting, "VALIDATES", 30)
    monkeypatch.setattr(fitting, "INNER_PLAYLISTS", 50)
    world = long_ones()
    split = inner(world.data, 0)
    assert split is not None and split.data.lists.n == 50 and split.asked.n <= 30
    assert not [one for one in whole(split, world.owner, world.playlists) if one in unpacked(split.data.lists)]


def test_quality_is_of_what_is_hidden_alone() -> None:
    world = long_ones()
    split = inner(world.data, 0)
    assert split is not None
    scores = np.zeros((split.asked.n, world.n_items), np.float32)
    holder = np.repeat(np.arange(split.asked.n), np.diff(split.hidden_starts))
    scores[holder, split.hidden] = 1
    asked = np.repeat(np.arange(split.asked.n), np.diff(split.asked.starts)), split.asked.items
    scores[asked] = 5  # what is known is not ranked
    np.testing.assert_allclose(split.quality(scores), 3)
    rng = np.random.default_rng(1)
    noise = rng.random((split.asked.n, world.n_items), np.float32)
    for u, value in enumerate(split.quality(noise)):
        gone = set(split.hidden[split.hidden_starts[u] : split.hidden_starts[u + 1]].tolist())
        seen = set(split.asked.items[split.asked.starts[u] : split.asked.starts[u + 1]].tolist())
        ranked = oracles.top_k(noise[u].tolist(), seen, 100)
        wanted = oracles.r_precision(ranked, gone) + oracles.ndcg(ranked, gone, 100) + oracles.recall(ranked, gone, 50)
        assert value == pytest.approx(wanted)


# ------------------------------------------------------------------------------------------------------------- fits


def test_with_too_few_playlists_the_usual_constants_are_used_and_told() -> None:
    world = drawn(12, 15, 6, most=12)
    assert inner(world.data, 0) is None
    made = fit_ease(world.data, 0, FREE)
    assert made.how == {"ridge": 300.0} and "too few playlists" in made.notes[0]
    assert np.array_equal(made.scorer.by_input, ease(world.data, 300.0).by_input)
    made = fit_linear(world.data, 0, FREE)
    assert made.how == {"factor": 1.0} and "too few playlists" in made.notes[0]
    made = fit_als(world.data, 0, FREE)
    assert made.how == {"factor": 1.0} and "too few playlists" in made.notes[0]
    assert made.scorer.ridge == fitting.ALS_RIDGE
    weights, notes = fit_blend(world.data, 0, FREE, {"linear": {"factor": 1.0}, "als": {"factor": 1.0}})
    assert weights == (1.0, 1.0, 1.0) and "too few playlists" in notes[0]


class Teller:
    """Knows what was hidden, and says so `loudly`; the rest is noise."""

    def __init__(self, split: Inner, loudly: float, seed: int):
        self.split, self.loudly, self.seed = split, loudly, seed

    def scores(self, lists: Lists) -> Floats:
        found = np.random.default_rng(self.seed).standard_normal((lists.n, self.split.data.n_items)).astype(np.float32)
        holder = np.repeat(np.arange(lists.n), np.diff(self.split.hidden_starts))
        found[holder, self.split.hidden] += np.float32(self.loudly)
        return found


def choose(loud: dict[float, float], usual: float | None, seed: int = 0) -> float | None:
    data = long_ones().data
    split = inner(data, 0)
    assert split is not None
    values = sorted(loud)
    best, notes = fitting._chosen(
        "ridge", data, 0, values, usual, lambda part, value: Teller(split, loud[value], 10 * seed + int(value))
    )
    assert len(notes) == 1 and f"{best:.3g}" in notes[0] and notes[0].startswith("ridge")
    return best


def test_a_value_is_chosen_where_it_wins_and_the_usual_one_where_nothing_does() -> None:
    assert choose({1.0: 0.5, 3.0: 4.0, 9.0: 0.0}, 1.0) == 3.0
    assert choose({1.0: 0.5, 3.0: 0.0, 9.0: 4.0}, None) == 9.0
    assert choose({1.0: 4.0, 3.0: 0.5}, 1.0) == 1.0
    assert [choose({1.0: 1.0, 3.0: 1.0}, 1.0, seed) for seed in range(6)].count(1.0) >= 5


def test_an_mlp_for_a_choice_repeats_and_finds_what_is_planted() -> None:
    """Planted: a playlist is of one half of the items."""
    rng = np.random.default_rng(0)
    halves = [rng.integers(2) * 30 + rng.permutation(30)[:12] for _ in range(300)]
    data = World(60, [], [(set(one.tolist()), set()) for one in halves]).data
    split = inner(data, 0)
    assert split is not None
    made, again, other = (fitting.fit_mlp(split.data, seed) for seed in (0, 0, 1))
    assert len(made.layers) == 6 and made.power == 0.75
    scores = [one.scores(split.asked) for one in (made, again, other)]
    assert np.array_equal(scores[0], scores[1]) and not np.allclose(scores[0], scores[2])
    own = split.asked.items[split.asked.starts[:-1]] // 30
    by_half = scores[0].reshape(-1, 2, 30).mean(2)
    assert (by_half.argmax(1) == own).mean() > 0.95


class Told:
    """A split whose quality is what scorers say."""

    data = asked = None

    def quality(self, scores: np.ndarray) -> np.ndarray:
        return scores


@pytest.mark.parametrize("gain, wanted", [(0.09, 1.0), (0.11, 3.0), (-0.2, 1.0)])
def test_a_value_that_gains_less_than_its_standard_error_is_not_chosen(gain: float, wanted: float, monkeypatch) -> None:
    """Of 100 playlists, one half gains 1 and the other loses it: a standard error of 0.1."""
    monkeypatch.setattr(fitting, "inner", lambda data, seed: Told())
    changes = np.where(np.arange(100) % 2, 1.0, -1.0) + gain
    saying = {1 / 3: np.full(100, -1.0), 1.0: np.zeros(100), 3.0: changes}

    def make(data, value: float):
        made = Told()
        made.scores = lambda asked: saying[value]  # type: ignore[attr-defined]
        return made

    assert fitting._chosen("ridge", long_ones().data, 0, fitting.FACTORS, 1.0, make)[0] == wanted
    best, notes = fitting._chosen("ridge", long_ones().data, 0, fitting.FACTORS, None, make)
    assert best == (3.0 if gain > 0 else 1.0) and notes == [f"ridge {best:.3g} of 0.333, 1, 3"]


def test_ease_is_fitted_on_all_with_the_chosen_ridge() -> None:
    world = long_ones()
    made, again = fit_ease(world.data, 1, FREE), fit_ease(world.data, 1, FREE)
    ridge = made.how["ridge"]
    assert ridge in fitting.EASE_RIDGES and f"{ridge:.3g} of 30, 100, 300" in made.notes[0]
    assert np.array_equal(made.scorer.by_input, ease(world.data, ridge).by_input)
    assert again.how == made.how and np.array_equal(made.scorer.by_input, again.scorer.by_input)


def test_linear_takes_its_further_inputs_and_what_was_chosen_before() -> None:
    world = long_ones()
    made = fit_linear(world.data, 0, FREE, {"factor": 3.0})
    assert isinstance(made.scorer, Weights) and made.how == {"factor": 3.0}
    extras = chosen_extras(world.data, 60)
    assert len(extras) > 40 and made.scorer.extras.tolist() == extras.tolist()
    wanted = linear(world.data, Shape(3 * 225.0, 0.8, 0.17), extras, True)
    assert np.array_equal(made.scorer.by_input, wanted.by_input)
    assert made.notes == [f"40 items and {len(extras)} further inputs, by input"]
    alone = fit_linear(world.data, 0, FREE, {"factor": 3.0}, most_inputs=40)
    assert len(alone.scorer.extras) == 0
    wanted = linear(world.data, Shape(450.0, 0.7, 0.15), extras[:0], True)
    assert np.array_equal(alone.scorer.by_input, wanted.by_input)
    assert np.allclose(linear_lists(world.data, {"factor": 3.0}), wanted.by_input, atol=1e-6)
    few = drawn(50, 60, 80, most=40)
    assert isinstance(fit_linear(few.data, 0, FREE).scorer, Kernels)


def test_als_takes_inputs_of_three_playlists_and_repeats() -> None:
    world = long_ones()
    made, again, other = (fit_als(world.data, seed, FREE, {"factor": 3.0}).scorer for seed in (0, 0, 1))
    assert made.extras.tolist() == chosen_extras(world.data, 60, 3).tolist()
    assert made.q.shape[1] == 128 and made.ridge == 3 * fitting.ALS_RIDGE
    assert (made.q == again.q).all() and not np.allclose(made.q, other.q)


def test_a_blend_weighs_what_recommends_the_hidden(monkeypatch) -> None:
    """A third part that is noise, or one that knows, in the place of `mlp`; `als` itself is that of all playlists."""
    world = long_ones(300)
    split = inner(world.data, 0)
    assert split is not None
    seen: dict[str, list[Data]] = {"linear": [], "als": [], "mlp": []}
    for name, fit in (("linear", fitting.linear), ("als", fitting.als)):
        spy = lambda data, *rest, seen=seen[name], fit=fit, **named: (seen.append(data), fit(data, *rest, **named))[1]
        monkeypatch.setattr(fitting, name, spy)

    def mlp(data: Data, seed: int, device: str | None) -> Teller:
        seen["mlp"].append(data)
        return Teller(split, loudly, 1)

    monkeypatch.setattr(fitting, "fit_mlp", mlp)
    found = {}
    for loudly in (0.0, 6.0):
        weights, notes = fit_blend(world.data, 0, FREE, {"linear": {"factor": 1.0}, "als": {"factor": 1.0}})
        found[loudly] = weights
        assert len(weights) == 3 and len(notes) == 1 and f"of {split.asked.n} playlists" in notes[0]
    assert found[0.0][2] < max(found[0.0][:2]) and found[6.0][2] > max(found[6.0][:2])
    kept = unpacked(split.data.lists)
    told = {name: [unpacked(one.lists) for one in datas] for name, datas in seen.items()}
    assert told == {"linear": [kept] * 2, "mlp": [kept] * 2, "als": [kept] * 2}


# ------------------------------------------------------------------------------------------------------------ memory


def sized(n: int, n_items: int, n_extras: int, mean: int = 5) -> Data:
    """n playlists of some items; every further input is in two playlists."""
    items = np.zeros(n * mean, np.int32)
    extras = np.repeat(np.arange(n_extras, dtype=np.int32), 2)
    extra_starts = np.r_[np.zeros(n, np.int64), len(extras)]
    return Data(Lists(np.arange(n + 1) * mean, items, extra_starts, extras), n_items, np.full(n_extras, -1, np.int32))


def test_fewer_playlists_than_inputs_go_by_playlist_with_all_inputs() -> None:
    assert fitting._form(sized(500, 400, 900), 20_000, FREE) == (900, False)
    assert fitting._form(sized(500, 400, 90_000), 20_000, FREE) == (90_000, False)
    assert fitting._form(sized(2_000, 400, 900), 20_000, FREE) == (900, True)
    assert fitting._form(sized(2_000, 400, 0), 20_000, FREE) == (0, True)


def test_inputs_are_as_many_as_fit() -> None:
    many = sized(30_000, 400, 25_000)
    assert fitting._form(many, 20_000, 1e12) == (19_600, True)
    assert fitting._form(many, 300, 1e12) == (0, True)
    assert fitting._form(many, 20_000, 100e6) == (19_600 // 8, True)
    assert fitting._primal_bytes(400, 19_600 // 8) <= 100e6 < fitting._primal_bytes(400, 19_600 // 4)
    assert fitting._form(sized(13_000, 400, 15_000), 20_000, 1e12) == (15_000, True)  # too many playlists
    # matrices over the playlists that do not fit: by input, with fewer inputs
    n_extras, primal = fitting._form(sized(3_000, 400, 9_000), 20_000, 100e6)
    assert primal and 0 < n_extras < 9_000


def refused(error, method: str, free: str) -> None:
    text = str(error.value)
    assert text.startswith(f"fit {method}: needs ") and f"{free} MB are free" in text and "\n" not in text
    assert "take fewer items" in text and "--top" in text and "--min-playlists" in text


def test_what_does_not_fit_is_refused_with_what_to_do() -> None:
    big, free = sized(30_000, 5_000, 1_000), 3e6
    with pytest.raises(BudgetError) as error:
        fit_linear(big, 0, free)
    refused(error, "linear", "3")
    assert "needs 300 MB" in str(error.value)
    with pytest.raises(BudgetError) as error:
        fit_ease(big, 0, free)
    refused(error, "ease", "3")
    with pytest.raises(BudgetError) as error:
        fit_als(big, 0, free)
    refused(error, "als", "3")
