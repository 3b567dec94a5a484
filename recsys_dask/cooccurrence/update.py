"""Counts brought up to date: what new playlists add, and what changes with the view's items, without a recount.

Old playlists matter only where they hold an item that came into the view or left it: they are counted out as they
were cleaned before, and in as they are cleaned now. Everything is counted over the union of the old and new items;
all numbers are integers, so the sums equal a full recount exactly.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from recsys_dask.cooccurrence.chunk import Counter
from recsys_dask.cooccurrence.view import Diagonal, Playlists, clean


def affected(codes: NDArray[np.int32], n_entries: NDArray[np.int64], moved: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Which playlists hold an item that moved, (playlists,) bool.

    codes: (rows,) int32, playlist by playlist; n_entries: (playlists,) int64; moved: item codes, rising.
    """
    holds = np.isin(codes, moved)
    before = np.concatenate([np.zeros(1, np.int64), np.cumsum(holds)])
    ends = np.cumsum(n_entries)
    return before[ends] > before[ends - n_entries]


def cleaned_within(
    codes: NDArray[np.int32],
    n_entries: NDArray[np.int64],
    keep: NDArray[np.bool_],
    items: NDArray[np.int32],
    union: NDArray[np.int32],
    rows: tuple[int, int] | None,
) -> Playlists:
    """As `clean`, with the items' places in `union` (int32, rising, holding `items`) instead of in `items`."""
    starts, places = clean(codes, n_entries, keep, items, rows)
    return Playlists(starts, np.searchsorted(union, items).astype(np.int32)[places])


def counter_of(
    span: tuple[int, int],
    union: NDArray[np.int32],
    item1: NDArray[np.int32],
    item2: NDArray[np.int32],
    n_playlists: NDArray[np.int64],
    weights: NDArray[np.int64],
) -> Counter:
    """Rows of a pairs table, by item1 and item2, as the counter of a range of `union`."""
    low, high = span
    first = np.searchsorted(union, item1)
    starts = np.searchsorted(first, np.arange(low, high + 1)).astype(np.int64)
    rows = slice(int(starts[0]), int(starts[-1]))
    other = np.searchsorted(union, item2[rows]).astype(np.int32)
    return Counter(low, starts - starts[0], other, n_playlists[rows].astype(np.int32), weights[rows])


def negated(counter: Counter) -> Counter:
    """The counter that takes away what this one adds. It goes last into `combine`, so that no sum falls below zero."""
    return counter._replace(n_playlists=-counter.n_playlists, weights=-counter.weights)


def negated_diagonal(known: Diagonal) -> Diagonal:
    """The diagonal that takes away what this one adds."""
    return Diagonal(-known.n_playlists, -known.emissions, -known.weights, -known.playlists)
