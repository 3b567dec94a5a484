"""What a metric is and reads: ranked items judged against hidden ones, and the training's catalogue.

A metric takes `Ranked` and `Catalogue`. To add one, write it in `ranking` or `beyond_accuracy` under `@register`.
Items go by their place, 0 … N - 1, in whatever the recommender was fitted on.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

QUARTER = 0.25
"""What the artist of a wrong track is worth. Zamani et al. 2019, as `r_precision` has it."""

BLOCK = 1 << 21
"""Scores that are ranked at once: some 40 MiB of keys and copies."""


class Ranked(NamedTuple):
    """n playlists, their recommendations and what was hidden; `judge` makes it.

    ranked: (n, k) int32 places of items, best first, -1 after a playlist's last one;
    hits: (n, k) bool, whether the item is hidden in the playlist, False at -1;
    credit: (n, k) float64, what the item is worth to R-precision: hits as numbers and, for tracks, some quarters;
    n_hidden: (n,) int64, distinct hidden items; n_hidden_artists: (n,) int64, their distinct artists, None for artists
    """

    ranked: NDArray[np.int32]
    hits: NDArray[np.bool_]
    credit: Array
    n_hidden: NDArray[np.int64]
    n_hidden_artists: NDArray[np.int64] | None = None


class Catalogue(NamedTuple):
    """What the training knows of the N items.

    n_playlists: (N,) int64, training playlists that hold the item; total: training playlists, those without any of
    the items too; vectors: (N, d) float32 of length 1, for the diversity of a list
    """

    n_playlists: NDArray[np.int64]
    total: int
    vectors: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class Metric:
    """A registered metric.

    function: (Ranked, Catalogue) -> (n,) float64, one value a playlist; of kind "whole", one float for all of them;
    better: which values are; depth: how many ranked items it reads, None for as many as are hidden
    """

    name: str
    function: Callable[..., Any]
    better: Literal["higher", "lower"]
    depth: int | None
    kind: Literal["each", "whole"]


METRICS: dict[str, Metric] = {}

F = TypeVar("F", bound=Callable[..., Any])


def register(
    name: str, better: Literal["higher", "lower"] = "higher", kind: Literal["each", "whole"] = "each"
) -> Callable[[F], F]:
    """Make a function a metric; `{k}` in the name, and the depth, are the default of its parameter k."""

    def enter(function: F) -> F:
        k = inspect.signature(function).parameters.get("k")
        depth = None if k is None else k.default
        full = name.format(k=depth)
        METRICS[full] = Metric(full, function, better, depth, kind)
        return function

    return enter


def judge(
    ranked: NDArray[np.int32],
    starts: NDArray[np.int64],
    items: NDArray[np.int32],
    artist_of: NDArray[np.int32] | None = None,
) -> Ranked:
    """What of the recommendations is hidden in their playlist.

    ranked: (n, k) int32 places, best first, -1 after the last, none twice in a row; starts: (n + 1,) int64 and items:
    (starts[-1],) int32: playlist i hides items[starts[i]:starts[i + 1]], in any order, doubles count once;
    artist_of: (N,) int32, the artist of each track: then wrong tracks are worth a quarter where, among the first
    n_hidden places, they are the first of their artist, it has hidden tracks, and none of them is found there. So an
    artist is paid once, the order of the n_hidden does not matter, and R-precision stays within 1.
    """
    n, k = ranked.shape
    row = np.arange(n)[:, None]
    there = ranked >= 0
    width = 1 + max(int(ranked.max(initial=0)), int(items.max(initial=0)))
    owner = np.repeat(np.arange(n), np.diff(starts))
    hidden = np.unique(owner * width + items)
    hits = (_found(row * width + ranked, hidden) >= 0) & there
    n_hidden = np.bincount(hidden // width, minlength=n)
    credit = hits.astype(np.float64)
    if artist_of is None:
        return Ranked(ranked, hits, credit, n_hidden)

    n_artists = 1 + int(artist_of.max(initial=0))
    artists = np.unique(hidden // width * n_artists + artist_of[hidden % width])
    read = there & (np.arange(k) < n_hidden[:, None])
    at_row, at = np.nonzero(read)
    artist = _found(at_row * n_artists + artist_of[ranked[read]], artists)
    hit = hits[read]
    paid = np.zeros(len(artists), bool)
    paid[artist[hit]] = True
    wrong = np.flatnonzero(~hit & (artist >= 0))
    wrong = wrong[~paid[artist[wrong]]]
    first = wrong[np.unique(artist[wrong], return_index=True)[1]]
    credit[at_row[first], at[first]] = QUARTER
    return Ranked(ranked, hits, credit, n_hidden, np.bincount(artists // n_artists, minlength=n))


def _found(keys: NDArray[np.int64], among: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where each key is in a sorted array, -1 where it is not."""
    if not len(among):
        return np.full(keys.shape, -1)
    place = np.minimum(np.searchsorted(among, keys), len(among) - 1)
    return np.where(among[place] == keys, place, -1)


def top_k(
    scores: NDArray[np.float32],
    seen_starts: NDArray[np.int64],
    seen_items: NDArray[np.int32],
    k: int,
    allowed: NDArray[np.bool_] | None = None,
) -> NDArray[np.int32]:
    """The k best items of each playlist that it does not hold yet: (n, k) int32 places, -1 where fewer are left.

    scores: (n, N) float32, left as they are; -inf and NaN are never ranked, equal scores go by lower place;
    seen_starts: (n + 1,) int64 and seen_items: (seen_starts[-1],) int32: playlist i holds
    seen_items[seen_starts[i]:seen_starts[i + 1]]; allowed: (N,) bool, the items that may be recommended, all if None
    """
    n, width = scores.shape
    best = np.full((n, k), -1, np.int32)
    kept = min(k, width)
    if not kept:
        return best
    banned = None if allowed is None else np.flatnonzero(~allowed)
    rows = max(1, BLOCK // width)
    for start in range(0, n, rows):
        block = scores[start : start + rows].astype(np.float32)  # a copy
        end = start + len(block)
        seen = seen_items[seen_starts[start] : seen_starts[end]]
        block[np.repeat(np.arange(len(block)), np.diff(seen_starts[start : end + 1])), seen] = -np.inf
        if banned is not None:
            block[:, banned] = -np.inf
        best[start:end, :kept] = _best(block, kept)
    return best


_SIGN = np.uint32(1 << 31)
_UNRANKED = np.uint64(int(np.float32(-np.inf).view(np.uint32)) << 32)
"""The least key of -inf."""


def _best(scores: NDArray[np.float32], k: int) -> NDArray[np.int32]:
    """`top_k` of a block that may be overwritten, 0 < k <= N.

    Score and place become one whole number: its order is total, so that a partition keeps the right ones of the equal
    scores at the k-th place, which argpartition does not.
    """
    scores[np.isnan(scores)] = -np.inf
    scores += 0.0  # -0.0 and 0.0 are equal
    bits = scores.view(np.uint32)
    # IEEE 754: positive floats are ordered as their bits are, negative ones the other way round
    bits ^= np.where(bits & _SIGN, np.uint32(0), ~_SIGN)
    keys = bits.astype(np.uint64)
    keys <<= np.uint64(32)
    keys |= np.arange(scores.shape[1], dtype=np.uint64)
    if k < keys.shape[1]:
        keys.partition(k - 1, axis=1)
    keys = np.sort(keys[:, :k], axis=1)
    places = (keys & np.uint64(0xFFFFFFFF)).astype(np.int32)
    places[keys >= _UNRANKED] = -1
    return places
