"""Which items of which playlists a count sees: rows to playlists of distinct items, and what they will cost."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from recsys_dask.kernels import kernel
from recsys_dask.schemas import WEIGHT_BITS

N_WEIGHTS = 2
"""1/√n_u and idf²: what each playlist of the `full` view adds to a pair beside its count."""


class Playlists(NamedTuple):
    """Playlists as a compressed-row array: those of playlist p are items[starts[p] : starts[p + 1]], rising.

    starts: (n + 1,) int64; items: int32, places among the view's N items, not codes
    """

    starts: NDArray[np.int64]
    items: NDArray[np.int32]

    @property
    def lengths(self) -> NDArray[np.int64]:
        """(n,) int64, distinct items of each playlist."""
        return np.diff(self.starts)


class Diagonal(NamedTuple):
    """What is known of each of the N items before any pair is counted; all (N,) int64.

    n_playlists: that hold it; emissions: pairs in which it is the first, repetitions counted;
    weights: (N, 2), sums of its playlists' weights; playlists: how many there are (a scalar)
    """

    n_playlists: NDArray[np.int64]
    emissions: NDArray[np.int64]
    weights: NDArray[np.int64]
    playlists: int


@kernel
def _clean(codes, starts, keep, place, low, high, out_starts, out):  # type: ignore[no-untyped-def]
    """The playlists that keep between low and high rows, with their distinct items rising. Returns how many."""
    n = 0
    filled = 0
    for playlist in range(len(starts) - 1):
        if not keep[playlist]:
            continue
        end = filled
        for row in range(starts[playlist], starts[playlist + 1]):
            item = place[codes[row]]
            if item >= 0:
                out[end] = item
                end += 1
        if end - filled < low or end - filled > high or end == filled:
            continue
        out[filled:end].sort()
        distinct = filled + 1
        for at in range(filled + 1, end):
            if out[at] != out[at - 1]:
                out[distinct] = out[at]
                distinct += 1
        filled = distinct
        n += 1
        out_starts[n] = filled
    return n


def clean(
    codes: NDArray[np.int32],
    n_entries: NDArray[np.int64],
    keep: NDArray[np.bool_],
    items: NDArray[np.int32],
    rows: tuple[int, int] | None = None,
) -> Playlists:
    """A partition's rows as playlists of the view.

    codes: (rows,) int32, an entry's item, playlist by playlist; n_entries: (playlists,) int64; keep: (playlists,)
    bool; items: (N,) int32, the view's items, rising; rows: how many rows of these a playlist must have left, counted
    before duplicates go, from and to, both included. Playlists that keep none are left out.
    """
    place = np.full(max(int(codes.max(initial=0)), int(items.max(initial=0))) + 1, -1, np.int32)
    place[items] = np.arange(len(items), dtype=np.int32)
    starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(n_entries)])
    out_starts = np.zeros(len(starts), np.int64)
    out = np.empty(len(codes), np.int32)
    low, high = rows or (1, np.iinfo(np.int64).max)
    n = _clean(codes, starts, keep, place, low, high, out_starts, out)
    return Playlists(out_starts[: n + 1].copy(), out[: out_starts[n]].copy())


def weights(lengths: NDArray[np.int64], n_items: int) -> NDArray[np.int64]:
    """Each playlist's two weights, (playlists, 2) int64 in units of 2⁻³⁰: 1/√n_u, and (ln N − ln(1 + n_u))².

    n_u is the playlist's number of distinct items, N the view's. The first is the row weight of a weighted ridge
    regression; the second the square of the idf with which `implicit` weighs users (implicit/nearest_neighbours.py).
    Rounded once a playlist, so that sums are exact and equal in any order.
    """
    one = float(1 << WEIGHT_BITS)
    table = np.zeros((int(lengths.max(initial=0)) + 1, N_WEIGHTS), np.int64)
    for n in np.unique(lengths).tolist():
        idf = (math.log(n_items) if n_items else 0.0) - math.log1p(n)
        table[n] = round(one / math.sqrt(n)), round(one * idf**2)
    return table[lengths]


@kernel
def _diagonal(starts, items, weight, n_playlists, emissions, weights):  # type: ignore[no-untyped-def]
    for playlist in range(len(starts) - 1):
        end = starts[playlist + 1]
        for at in range(starts[playlist], end):
            item = items[at]
            n_playlists[item] += 1
            emissions[item] += end - at - 1
            weights[item, 0] += weight[playlist, 0]
            weights[item, 1] += weight[playlist, 1]


def diagonal(playlists: Playlists, n_items: int, n_view: int | None = None) -> Diagonal:
    """What a partition's playlists say of each of n_items; n_view: the N of the weights where it is another number."""
    counts, emissions = np.zeros(n_items, np.int64), np.zeros(n_items, np.int64)
    sums = np.zeros((n_items, N_WEIGHTS), np.int64)
    _diagonal(*playlists, weights(playlists.lengths, n_view or n_items), counts, emissions, sums)
    return Diagonal(counts, emissions, sums, len(playlists.starts) - 1)


def add_diagonals(parts: list[Diagonal]) -> Diagonal:
    """The diagonal of several partitions together."""
    return Diagonal(
        np.sum([part.n_playlists for part in parts], 0),
        np.sum([part.emissions for part in parts], 0),
        np.sum([part.weights for part in parts], 0),
        sum(part.playlists for part in parts),
    )


def joined(parts: list[Playlists]) -> Playlists:
    """Several partitions as one."""
    if len(parts) == 1:
        return parts[0]
    ends = np.concatenate([part.lengths for part in parts])
    starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(ends)])
    return Playlists(starts, np.concatenate([part.items for part in parts]))


def warm() -> None:
    """Compile the kernels."""
    one = np.zeros(1, np.int32)
    diagonal(clean(one, np.ones(1, np.int64), np.ones(1, bool), one), 1)
