"""Batches of whole playlists: against plain loops over Python lists, and by their statistics."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys_dask.errors import UsageError
from recsys_dask.training.playlists import PlaylistLoader, Playlists, inclusion


def made(lists: list[list[int]], n_items: int) -> Playlists:
    starts = np.cumsum([0, *map(len, lists)])
    return Playlists(starts, np.array([item for one in lists for item in one], np.int32), n_items)


def drawn(n: int, n_items: int, seed: int = 0) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    return [sorted(rng.permutation(n_items)[: rng.integers(0, n_items)].tolist()) for _ in range(n)]


def lists_of(starts, items) -> list[list[int]]:
    return [items[a:z].tolist() for a, z in pairwise(starts)]


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40), st.integers(1, 9), st.integers(0, 5))
def test_an_epoch_holds_every_playlist_once_with_all_of_its_items(n: int, size: int, epoch: int) -> None:
    lists = drawn(n, 12, seed=n)
    loader = PlaylistLoader(made(lists, 12), size, seed=3)
    loader.epoch = epoch
    batches = list(loader)
    assert len(batches) == len(loader) == -(-n // size)
    assert all(1 <= len(batch[0]) <= size for batch in batches)
    rows = np.concatenate([batch[0].numpy() for batch in batches])
    assert sorted(rows.tolist()) == list(range(n))
    for rows, seen_starts, seen, starts, items, scored, weight in batches:
        assert lists_of(starts, items) == [lists[row] for row in rows]
        assert lists_of(seen_starts, seen) == lists_of(starts, items)
        assert len(scored) == len(weight) == 0


def test_the_seed_and_the_epoch_decide_all_that_is_drawn() -> None:
    playlists = made(drawn(50, 30), 30)

    def epoch(seed: int, number: int) -> list[list[float]]:
        loader = PlaylistLoader(playlists, 8, drop=0.5, scored=10, seed=seed)
        loader.epoch = number
        return [part.tolist() for batch in loader for part in batch]

    assert epoch(1, 2) == epoch(1, 2)
    assert epoch(1, 2) != epoch(1, 3) and epoch(1, 2) != epoch(2, 2)


def test_a_loader_of_validation_is_the_same_every_epoch() -> None:
    loader = PlaylistLoader(made(drawn(20, 30), 30), 8, drop=0.5, shuffle=False)
    first = [part.tolist() for batch in loader for part in batch]
    loader.epoch = 4
    assert [part.tolist() for batch in loader for part in batch] == first
    assert np.concatenate([batch[0] for batch in loader]).tolist() == list(range(20))


def test_what_is_shown_is_a_random_part_of_each_playlist() -> None:
    lists = [list(range(20))] * 500
    loader = PlaylistLoader(made(lists, 20), 100, drop=0.3, seed=1)
    shown = [one for batch in loader for one in lists_of(batch[1], batch[2])]
    assert all(set(one) <= set(range(20)) and one == sorted(set(one)) for one in shown)
    per_item = np.bincount(np.concatenate(shown).astype(int), minlength=20) / 500
    assert abs(per_item.mean() - 0.7) < 0.02 and per_item.min() > 0.6 and per_item.max() < 0.8
    assert len({tuple(one) for one in shown}) > 400


def test_scored_items_are_as_many_as_asked_none_twice_with_weights_that_make_the_sum_right() -> None:
    playlists = made([list(range(i % 40 + 1)) for i in range(400)], 40)
    loader = PlaylistLoader(playlists, 1, scored=12, tilt=0.5, seed=2)
    value = np.random.default_rng(0).random(40)
    seen, sums = np.zeros(40), []
    for *_, scored, weight in loader:
        assert len(set(scored.tolist())) == 12
        seen[scored.numpy()] += 1
        sums.append((value[scored.numpy()] * weight.numpy()).sum())
    chance = inclusion(np.sqrt(playlists.n_playlists), 12)
    assert np.abs(seen / 400 - chance).max() < 0.1
    assert abs(np.mean(sums) / value.sum() - 1) < 0.05


@given(st.lists(st.floats(0.01, 1000), min_size=1, max_size=30), st.integers(1, 40))
def test_chances_sum_to_the_number_drawn_and_follow_the_weights(weight: list[float], m: int) -> None:
    chance = inclusion(np.array(weight), m)
    assert np.isclose(chance.sum(), min(m, len(weight))) and (chance > 0).all() and (chance <= 1).all()
    below = chance < 1 - 1e-9
    if below.any():
        ratio = chance[below] / np.array(weight)[below]
        assert np.allclose(ratio, ratio[0])
        assert (np.array(weight)[~below] >= np.array(weight)[below].max() * (1 - 1e-9)).all()


def test_playlists_held_back_are_drawn_by_the_seed_and_kept_from_the_rest() -> None:
    lists = [[i] for i in range(30)]
    rest, held = made(lists, 30).split(7, seed=1)
    assert sorted([*rest.items, *held.items]) == list(range(30)) and len(held) == 7
    assert held.items.tolist() == made(lists, 30).split(7, seed=1)[1].items.tolist()
    assert held.items.tolist() != made(lists, 30).split(7, seed=2)[1].items.tolist()
    assert len(made(lists, 30).split(0, seed=1)[1]) == 0
    with pytest.raises(UsageError, match="30 of 30 playlists cannot be held back"):
        made(lists, 30).split(30, seed=1)


def test_items_are_kept_as_they_come_as_small_integers() -> None:
    playlists = made(drawn(9, 5), 5)
    loader = PlaylistLoader(playlists, 4)
    assert loader._items is playlists.items and playlists.items.dtype == np.int32
    assert playlists.n_playlists.tolist() == [sum(i in one for one in drawn(9, 5)) for i in range(5)]
