"""Playlists over ranked items and further inputs: as Python sets, and as the package has them."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np
from hypothesis import strategies as st

from recsys_dask.compressed import starts_of
from recsys_dask.models.base import Data, Lists

Sets = list[tuple[set[int], set[int]]]
"""Each playlist's items and further inputs."""


class World(NamedTuple):
    """owner: the item that each further input belongs to, -1 for none: a playlist has no input whose item it lacks."""

    n_items: int
    owner: list[int]
    playlists: Sets

    @property
    def lists(self) -> Lists:
        return packed(self.playlists)

    @property
    def data(self) -> Data:
        return Data(self.lists, self.n_items, np.array(self.owner, np.int32))


def packed(playlists: Sets) -> Lists:
    rows: list[np.ndarray] = []
    for side in (0, 1):
        rows.append(starts_of(np.array([len(one[side]) for one in playlists], np.int64)))
        rows.append(np.array([entry for one in playlists for entry in sorted(one[side])], np.int32))
    return Lists(*rows)


def unpacked(lists: Lists) -> Sets:
    """Checks what the docstring of `Lists` promises."""
    assert [one.dtype.name for one in lists] == ["int64", "int32", "int64", "int32"]
    found = []
    for side in (0, 2):
        starts, entries = lists[side : side + 2]
        assert len(starts) == lists.n + 1 and starts[0] == 0 and starts[-1] == len(entries)
        found.append([entries[low:high].tolist() for low, high in pairwise(starts.tolist())])
    assert all(one == sorted(set(one)) for side in found for one in side)
    return [(set(items), set(extras)) for items, extras in zip(*found, strict=True)]


def allowed(world: World) -> World:
    """Without the inputs whose item a playlist lacks."""
    kept = [
        (items, {one for one in extras if world.owner[one] < 0 or world.owner[one] in items})
        for items, extras in world.playlists
    ]
    return world._replace(playlists=kept)


@st.composite
def worlds(draw: st.DrawFn, min_playlists: int = 0, max_playlists: int = 7) -> World:
    """Few items, so that most things happen: empty playlists, no further inputs, those of nobody, a single item."""
    n_items = draw(st.integers(1, 7))
    owner = draw(st.lists(st.integers(-1, n_items - 1), max_size=7))
    items = st.sets(st.integers(0, n_items - 1))
    extras = st.sets(st.integers(0, len(owner) - 1)) if owner else st.just(set())
    playlists = draw(st.lists(st.tuples(items, extras), min_size=min_playlists, max_size=max_playlists))
    return allowed(World(n_items, owner, playlists))


def drawn(n: int, n_items: int, n_extras: int, seed: int = 0, most: int | None = None) -> World:
    """Unequally popular items; item 0 in no playlist, the first playlist empty, a third of the inputs of nobody."""
    rng = np.random.default_rng(seed)
    owner = np.where(rng.random(n_extras) < 0.33, -1, rng.integers(1, max(n_items, 2), n_extras)).tolist()
    chance = np.r_[0.0, 1 / np.arange(1, n_items)]
    playlists: Sets = [(set(), set())]
    for _ in range(n - 1):
        size = rng.integers(1, min(most or n_items, n_items - 1) + 1)
        items = rng.choice(n_items, size, replace=False, p=chance / chance.sum()).tolist()
        playlists.append((set(items), set(np.flatnonzero(rng.random(n_extras) < 0.6).tolist())))
    return allowed(World(n_items, owner, playlists))
