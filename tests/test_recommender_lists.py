"""Playlists as recommenders take them, against Python's sets."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from small_playlists import Sets, World, packed, unpacked, worlds

from recsys_dask.models.base import Data, chosen_extras, joined, lacking, lists_of, restricted
from recsys_dask.models.linear import inputs_of
from recsys_dask.recommending.inputs import Inputs, known_lists, place_of


@given(worlds(), st.data())
def test_some_of_the_playlists(world: World, data: st.DataObject) -> None:
    n = len(world.playlists)
    assert world.lists.n == n
    low, high = sorted(data.draw(st.tuples(st.integers(0, n), st.integers(0, n))))
    some = world.lists.rows(low, high)
    assert unpacked(some) == world.playlists[low:high]
    kept = data.draw(st.lists(st.booleans(), min_size=n, max_size=n))
    chosen = world.lists.where(np.array(kept, bool))
    assert unpacked(chosen) == [one for one, stays in zip(world.playlists, kept, strict=True) if stays]


def test_rows_are_views() -> None:
    lists = packed([({1, 2}, {0}), ({3}, {1, 2})])
    some = lists.rows(1, 2)
    assert np.shares_memory(some.items, lists.items) and np.shares_memory(some.extras, lists.extras)


@given(worlds(), st.data())
def test_parts_joined_are_the_whole(world: World, data: st.DataObject) -> None:
    """Empty parts among them, and no parts."""
    cuts = data.draw(st.lists(st.integers(0, len(world.playlists)), max_size=4).map(sorted))
    bounds = [0, *cuts, len(world.playlists)]
    assert unpacked(joined([world.lists.rows(low, high) for low, high in pairwise(bounds)])) == world.playlists
    assert unpacked(joined([])) == []


@given(worlds())
def test_playlists_that_hold_each_item_and_input(world: World) -> None:
    counts = [sum(one in items for items, _ in world.playlists) for one in range(world.n_items)]
    assert world.data.n_playlists().tolist() == counts
    counts = [sum(one in extras for _, extras in world.playlists) for one in range(len(world.owner))]
    assert world.data.n_extra_playlists().tolist() == counts


entries = st.lists(st.tuples(st.integers(-1, 5), st.integers(-1, 4), st.integers(-1, 9)), max_size=8)


@given(st.lists(entries, max_size=6), st.integers(0, 2))
def test_lists_of_entries(playlists: list[list[tuple[int, int, int]]], kinds: int) -> None:
    """Entries come in any order, more than once, and unknown."""
    wanted: Sets = []
    for one in playlists:
        extras = {place for _, *further in one for place in further[:kinds] if place >= 0}
        wanted.append(({item for item, *_ in one if item >= 0}, extras))
    columns = np.array([entry for one in playlists for entry in one], np.int32).reshape(-1, 3).T
    lengths = np.array([len(one) for one in playlists], np.int64)
    assert unpacked(lists_of(columns[0], list(columns[1 : 1 + kinds]), lengths)) == wanted


@given(worlds(), st.data())
def test_what_is_hidden_takes_the_inputs_that_it_owns_along(world: World, data: st.DataObject) -> None:
    hidden = [data.draw(st.sets(st.sampled_from(sorted(items)))) if items else set() for items, _ in world.playlists]
    mask = [one in gone for (items, _), gone in zip(world.playlists, hidden, strict=True) for one in sorted(items)]
    wanted = [
        (items - gone, {one for one in extras if world.owner[one] not in gone})
        for (items, extras), gone in zip(world.playlists, hidden, strict=True)
    ]
    before = world.lists
    assert unpacked(lacking(before, np.array(mask, bool), np.array(world.owner, np.int32))) == wanted
    assert unpacked(before) == world.playlists


def most(held: list[int], n: int) -> list[int]:
    """The n places of most, ties by place; rising."""
    return sorted(sorted(range(len(held)), key=lambda one: (-held[one], one))[:n])


@given(worlds(), st.integers(1, 8))
def test_restricted_to_the_items_of_most_playlists(world: World, n: int) -> None:
    held = [sum(one in items for items, _ in world.playlists) for one in range(world.n_items)]
    best = most(held, n)
    found = restricted(world.data, n)
    assert found.n_items == len(best) and len(found.owner) == 0
    wanted = [({best.index(one) for one in items if one in best}, set()) for items, _ in world.playlists]
    assert unpacked(found.lists) == [one for one in wanted if one[0]]


@given(worlds(), st.integers(0, 8), st.integers(0, 4))
def test_further_inputs_of_most_playlists(world: World, n: int, least: int) -> None:
    held = [sum(one in extras for _, extras in world.playlists) for one in range(len(world.owner))]
    found = chosen_extras(world.data, n, least)
    assert found.dtype == np.int32
    assert found.tolist() == [one for one in most(held, n) if held[one] >= least]


@given(worlds(), st.data())
def test_inputs_are_the_items_and_then_the_chosen_further_ones(world: World, data: st.DataObject) -> None:
    places = st.sampled_from(range(len(world.owner))) if world.owner else st.nothing()
    extras = sorted(data.draw(st.sets(places)))
    starts, inputs = inputs_of(world.lists, world.n_items, np.array(extras, np.int32))
    assert starts.dtype == np.int64 and inputs.dtype == np.int32
    found = [inputs[low:high].tolist() for low, high in pairwise(starts.tolist())]
    wanted = [
        [*sorted(items), *(world.n_items + place for place, one in enumerate(extras) if one in further)]
        for items, further in world.playlists
    ]
    assert found == wanted


@given(st.sets(st.integers(0, 9)).map(sorted), st.lists(st.integers(-1, 10)))
def test_places_of_codes(known: list[int], codes: list[int]) -> None:
    found = place_of(np.array(known, np.int32), np.array(codes, np.int32))
    assert found.dtype == np.int32
    assert found.tolist() == [known.index(one) if one in known else -1 for one in codes]


def test_entries_of_artists_and_of_tracks_in_a_stores_terms() -> None:
    """Artists 2 and 5 are ranked, 3 is too rare to be; tracks 7 and 8 belong to 5."""

    def codes(*values: int) -> np.ndarray:
        return np.array(values, np.int32)

    artist, track, n_entries = codes(5, 3, 2, 5, 9, -1), codes(8, 1, 6, 7, 8, -1), np.array([3, 0, 3])
    known = Inputs(codes(2, 5), codes(7, 8), codes(3), codes(1, 1, -1))
    found = known_lists(known, "artist", artist, track, n_entries)
    assert unpacked(found) == [({0, 1}, {1, 2}), (set(), set()), ({1}, {0, 1})]
    known = Inputs(codes(6, 8), codes(), codes(2, 3, 5), codes(-1, -1, -1))
    found = known_lists(known, "track", artist, track, n_entries)
    assert unpacked(found) == [({0, 1}, {0, 1, 2}), (set(), set()), ({1}, {2})]
    assert isinstance(Data(found, 2, known.owner).n_playlists(), np.ndarray)
