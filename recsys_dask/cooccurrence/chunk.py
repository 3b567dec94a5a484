"""Chunk: how often the items of a range share playlists with later items, for some playlists.

One item at a time: all its playlists are walked from behind it, into one dense accumulator whose touched places are
put in order, written out and set to zero again. Memory is the accumulator's and the result's, whatever the number of
pairs met on the way.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from recsys_dask.cooccurrence.view import N_WEIGHTS, Playlists, weights
from recsys_dask.kernels import kernel


class Counter(NamedTuple):
    """The pairs of items [low, low + n): those of item low + i are at [starts[i], starts[i + 1]), by other item.

    starts: (n + 1,) int64; other: (pairs,) int32, above the item; n_playlists: (pairs,) int32,
    that hold both; weights: (pairs, 2) int64, or (0, 2) where none are asked for
    """

    low: int
    starts: NDArray[np.int64]
    other: NDArray[np.int32]
    n_playlists: NDArray[np.int32]
    weights: NDArray[np.int64]


BYTES_PER_PAIR = {False: 8, True: 8 + 8 * N_WEIGHTS}
"""Of a counter, without and with weights."""


@kernel
def _occurrences(starts, items, low, high):  # type: ignore[no-untyped-def]
    """Where each item of the range stands: its places in `items`, and its playlists."""
    first = np.zeros(high - low + 1, np.int64)
    for at in range(len(items)):
        if low <= items[at] < high:
            first[items[at] - low + 1] += 1
    for item in range(high - low):
        first[item + 1] += first[item]
    places = np.empty(first[-1], np.int64)
    owners = np.empty(first[-1], np.int32)
    filled = first[:-1].copy()
    for playlist in range(len(starts) - 1):
        for at in range(starts[playlist], starts[playlist + 1]):
            item = items[at] - low
            if 0 <= item < high - low:
                places[filled[item]] = at
                owners[filled[item]] = playlist
                filled[item] += 1
    return first, places, owners


@kernel
def drain(total, n_items, first, n_touched, touched, other, count, filled):  # type: ignore[no-untyped-def]
    """Write out an item's totals by rising other item, and set them to zero. Returns how many were written.

    Few touched places are sorted; many are found by walking the accumulator, which costs less than sorting them.
    """
    n = filled
    if n_touched * 12 < n_items - first:
        touched[:n_touched].sort()
        for at in range(n_touched):
            if total[touched[at]]:  # an update may have taken all of it away
                other[n] = touched[at]
                count[n] = total[touched[at]]
                total[touched[at]] = 0
                n += 1
        return n - filled
    for item in range(first, n_items):
        if total[item]:
            other[n] = item
            count[n] = total[item]
            total[item] = 0
            n += 1
    return n - filled


@kernel
def _count(starts, items, weight, weighted, low, high, n_items, other, count, sums):  # type: ignore[no-untyped-def]
    first, places, owners = _occurrences(starts, items, low, high)
    total = np.zeros(n_items, np.int32)
    extra = np.zeros((n_items if weighted else 0, 2), np.int64)
    touched = np.empty(n_items, np.int32)
    out_starts = np.zeros(high - low + 1, np.int64)
    filled = 0
    for item in range(low, high):
        n_touched = 0
        for at in range(first[item - low], first[item - low + 1]):
            playlist = owners[at]
            end = starts[playlist + 1]
            if weighted:
                w0 = weight[playlist, 0]
                w1 = weight[playlist, 1]
                for place in range(places[at] + 1, end):
                    one = items[place]
                    if total[one] == 0:
                        touched[n_touched] = one
                        n_touched += 1
                    total[one] += 1
                    extra[one, 0] += w0
                    extra[one, 1] += w1
            else:
                for place in range(places[at] + 1, end):
                    one = items[place]
                    if total[one] == 0:
                        touched[n_touched] = one
                        n_touched += 1
                    total[one] += 1
        n = drain(total, n_items, item + 1, n_touched, touched, other, count, filled)
        if weighted:
            for at in range(filled, filled + n):
                sums[at, 0] = extra[other[at], 0]
                sums[at, 1] = extra[other[at], 1]
                extra[other[at], 0] = 0
                extra[other[at], 1] = 0
        filled += n
        out_starts[item - low + 1] = filled
    return out_starts


def count_pairs(
    playlists: Playlists, n_items: int, span: tuple[int, int], weighted: bool, n_view: int | None = None
) -> Counter:
    """The pairs whose first item is in `span`, from low to below high, among these playlists.

    n_items: how many places there are; n_view: the N of the weights where it is another number.
    """
    low, high = span
    weight = weights(playlists.lengths, n_view or n_items) if weighted else np.zeros((0, N_WEIGHTS), np.int64)
    most = int(most_pairs(_emissions(*playlists, low, high), n_items, low).sum())
    # The arrays are as long as there could be pairs; pages that nothing is written to cost no memory.
    other, count = np.empty(most, np.int32), np.empty(most, np.int32)
    sums = np.empty((most if weighted else 0, N_WEIGHTS), np.int64)
    starts = _count(*playlists, weight, weighted, low, high, n_items, other, count, sums)
    n = starts[-1]
    return Counter(low, starts, other[:n], count[:n], sums[:n])


@kernel
def _emissions(starts, items, low, high):  # type: ignore[no-untyped-def]
    out = np.zeros(high - low, np.int64)
    for playlist in range(len(starts) - 1):
        for at in range(starts[playlist], starts[playlist + 1]):
            if low <= items[at] < high:
                out[items[at] - low] += starts[playlist + 1] - at - 1
    return out


def most_pairs(emissions: NDArray[np.int64], n_items: int, low: int = 0) -> NDArray[np.int64]:
    """How many pairs each item from `low` on can have with later ones: as often as met, or as there are items."""
    later = n_items - 1 - np.arange(low, low + len(emissions))
    return np.minimum(emissions, later)


def warm() -> None:
    """Compile the kernels."""
    two = Playlists(np.array([0, 2], np.int64), np.array([0, 1], np.int32))
    count_pairs(two, 2, (0, 2), False)
    count_pairs(two, 2, (0, 2), True)
