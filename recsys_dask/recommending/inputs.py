"""What a recommender knows of a store's vocabularies, and playlists in its terms."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from recsys_dask.arrow import values
from recsys_dask.models.base import Items, Lists, lists_of
from recsys_dask.store.tables import Store

LEAST_PLAYLISTS = 2
"""A further input is in at least so many."""

MOST_OWNED, MOST_OTHER = 200_000, 50_000
"""How many further inputs are read: the tracks, or artists that are not ranked, of most playlists."""


class Inputs(NamedTuple):
    """What a recommender knows, by place; codes of the vocabularies, int32.

    items (N,): rising; owned (·,): tracks, where artists are ranked; other (·,): artists that are not; owner: the
    further inputs' items, owned ones first, −1 for none
    """

    items: Items
    owned: Items
    other: Items
    owner: Items


def inputs(store: Store, item: str) -> Inputs:
    """The view's items, and further inputs: of artists their tracks and the rarer artists.

    Of tracks none: an artist as an input would speak for the very tracks that put it there.
    """
    items = values(store.table(f"pair_items_{item}_full", ["item"])["item"])
    none = np.zeros(0, np.int32)
    if item == "track":
        return Inputs(items, none, none, none)
    other = _most_held(store, "artist", items, MOST_OTHER)
    owned = _most_held(store, "track", none, MOST_OWNED)
    artist = values(store.table("tracks", ["artist"])["artist"])[owned]
    held, held_artist = (values(store.table(f"{one}s", ["n_playlists"])["n_playlists"]) for one in ("track", "artist"))
    more = held[owned] < held_artist[artist]  # an artist's only track says what the artist does
    owned, artist = owned[more], artist[more]
    owner = np.concatenate([place_of(items, artist), np.full(len(other), -1, np.int32)])
    return Inputs(items, owned, other, owner)


def _most_held(store: Store, item: str, without: Items, most: int) -> Items:
    """Codes of the items in most playlists, but for some; ties by code; rising."""
    held = values(store.table(f"{item}s", ["n_playlists"])["n_playlists"]).copy()
    held[without] = 0
    best = np.argsort(-held, kind="stable")[:most]
    return np.sort(best[held[best] >= LEAST_PLAYLISTS]).astype(np.int32)


def place_of(known: Items, codes: Items) -> Items:
    """Where each code is among `known`, rising; −1 where it is not."""
    if not len(known):
        return np.full(len(codes), -1, np.int32)
    at = np.minimum(np.searchsorted(known, codes), len(known) - 1)
    return np.where(known[at] == codes, at, -1).astype(np.int32)


def known_lists(known: Inputs, item: str, artist: Items, track: Items, n_entries: NDArray[np.int64]) -> Lists:
    """Playlists, given by the codes of their entries (below 0: unknown), as places."""
    other = place_of(known.other, artist)
    further = [np.where(other >= 0, other + len(known.owned), -1).astype(np.int32)]
    if len(known.owned):
        further.append(place_of(known.owned, track))
    return lists_of(place_of(known.items, artist if item == "artist" else track), further, n_entries)
