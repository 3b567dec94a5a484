"""What recommenders are fitted on and asked about: playlists as places among the ranked items and further inputs."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from recsys_dask.compressed import distinct, owners_of, starts_of

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Items = NDArray[np.int32]


class Lists(NamedTuple):
    """Playlists as two compressed-row arrays: playlist u holds the items `items[starts[u]:starts[u + 1]]` and the
    further inputs `extras[extra_starts[u]:extra_starts[u + 1]]`, both distinct and rising.

    starts, extra_starts (n + 1,) int64; items int32, places among the N ranked items; extras int32, among the M inputs
    """

    starts: Ints
    items: Items
    extra_starts: Ints
    extras: Items

    @property
    def n(self) -> int:
        return len(self.starts) - 1

    def rows(self, low: int, high: int) -> Lists:
        """Playlists [low, high); the arrays are views."""
        return Lists(
            self.starts[low : high + 1] - self.starts[low],
            self.items[self.starts[low] : self.starts[high]],
            self.extra_starts[low : high + 1] - self.extra_starts[low],
            self.extras[self.extra_starts[low] : self.extra_starts[high]],
        )

    def where(self, kept: NDArray[np.bool_]) -> Lists:
        """Some of the playlists, by mask (n,)."""
        starts, items = _chosen(self.starts, self.items, kept)
        return Lists(starts, items, *_chosen(self.extra_starts, self.extras, kept))


def _chosen(starts: Ints, entries: Items, kept: NDArray[np.bool_]) -> tuple[Ints, Items]:
    lengths = np.diff(starts)
    return starts_of(lengths[kept]), entries[np.repeat(kept, lengths)]


class Data(NamedTuple):
    """What a recommender is fitted on.

    owner (M,) int32: the item that a further input belongs to, as a track to its artist: a playlist that lacks the item
    lacks the input. −1 for one that stands by itself, as an artist too rare to be ranked.
    """

    lists: Lists
    n_items: int
    owner: Items

    def n_playlists(self) -> Ints:
        """(N,) int64: playlists that hold each item."""
        return np.bincount(self.lists.items, minlength=self.n_items)

    def n_extra_playlists(self) -> Ints:
        """(M,) int64: playlists that hold each further input."""
        return np.bincount(self.lists.extras, minlength=len(self.owner))


class Scorer(Protocol):
    """A fitted recommender."""

    def scores(self, lists: Lists) -> Floats:
        """(n, N) float32: every item for every playlist, its own ones among them; higher is better."""
        ...


def lists_of(place: Items, further: list[Items], n_entries: NDArray[np.integer]) -> Lists:
    """Playlists as `Lists`, those without anything known among them.

    place (rows,): each entry's item, −1 for none, playlist by playlist; further: the same of kinds of further inputs;
    n_entries (n,): rows of each playlist
    """
    holder = np.repeat(np.arange(len(n_entries), dtype=np.int64), n_entries)
    extra_holder, extra = np.tile(holder, len(further)), np.concatenate([place[:0], *further])
    n, known, extra_known = len(n_entries), place >= 0, extra >= 0
    return Lists(*distinct(holder[known], place[known], n), *distinct(extra_holder[extra_known], extra[extra_known], n))


def joined(parts: list[Lists]) -> Lists:
    """Several partitions' playlists as one."""
    none = np.zeros(0, np.int64)
    lengths = np.concatenate([none, *(np.diff(one.starts) for one in parts)])
    further = np.concatenate([none, *(np.diff(one.extra_starts) for one in parts)])
    nothing = np.zeros(0, np.int32)
    return Lists(
        starts_of(lengths),
        np.concatenate([nothing, *(one.items for one in parts)]),
        starts_of(further),
        np.concatenate([nothing, *(one.extras for one in parts)]),
    )


def lacking(lists: Lists, hidden: NDArray[np.bool_], owner: Items) -> Lists:
    """The same playlists without some of their items, by mask over `lists.items`, and without the inputs these own."""
    holder = owners_of(lists.starts)
    starts = starts_of(np.bincount(holder[~hidden], minlength=lists.n))
    gone = holder[hidden] << 32 | lists.items[hidden]
    extra_holder = owners_of(lists.extra_starts)
    own = owner[lists.extras].astype(np.int64)
    stays = (own < 0) | ~np.isin(extra_holder << 32 | own, gone)
    extra_starts = starts_of(np.bincount(extra_holder[stays], minlength=lists.n))
    return Lists(starts, lists.items[~hidden], extra_starts, lists.extras[stays])


def restricted(data: Data, most: int) -> Data:
    """The items of most playlists alone, `most` of them at most, ties by place; no further inputs."""
    best = np.sort(np.argsort(-data.n_playlists(), kind="stable")[:most])
    place = np.full(data.n_items, -1, np.int32)
    place[best] = np.arange(len(best), dtype=np.int32)
    own = place[data.lists.items]
    holder = owners_of(data.lists.starts)
    starts = starts_of(np.bincount(holder[own >= 0], minlength=data.lists.n))
    lists = Lists(starts, own[own >= 0], np.zeros(data.lists.n + 1, np.int64), np.zeros(0, np.int32))
    return Data(lists.where(np.diff(starts) > 0), len(best), np.zeros(0, np.int32))


def chosen_extras(data: Data, most: int, least: int = 2) -> Items:
    """The `most` further inputs of most playlists, at least `least` each; ties by place. Rising."""
    held = data.n_extra_playlists()
    best = np.argsort(-held, kind="stable")[:most]
    return np.sort(best[held[best] >= least]).astype(np.int32)
