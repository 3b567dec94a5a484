"""Combine: several counters of one range of items as one, and that one as the columns of a table."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from recsys_dask.cooccurrence.chunk import Counter, drain, most_pairs
from recsys_dask.cooccurrence.view import N_WEIGHTS
from recsys_dask.kernels import kernel


@kernel
def _combine(starts, other, count, sums, weighted, low, n_items, out_other, out_count, out_sums):  # type: ignore[no-untyped-def]
    """starts: (counters, items + 1), places in the counters laid end to end."""
    total = np.zeros(n_items, np.int32)
    extra = np.zeros((n_items if weighted else 0, 2), np.int64)
    touched = np.empty(n_items, np.int32)
    n_range = starts.shape[1] - 1
    out_starts = np.zeros(n_range + 1, np.int64)
    filled = 0
    for item in range(n_range):
        n_touched = 0
        for counter in range(starts.shape[0]):
            for at in range(starts[counter, item], starts[counter, item + 1]):
                one = other[at]
                if total[one] == 0:
                    touched[n_touched] = one
                    n_touched += 1
                total[one] += count[at]
                if weighted:
                    extra[one, 0] += sums[at, 0]
                    extra[one, 1] += sums[at, 1]
        n = drain(total, n_items, low + item + 1, n_touched, touched, out_other, out_count, filled)
        if weighted:
            for at in range(filled, filled + n):
                out_sums[at, 0] = extra[out_other[at], 0]
                out_sums[at, 1] = extra[out_other[at], 1]
                extra[out_other[at], 0] = 0
                extra[out_other[at], 1] = 0
        filled += n
        out_starts[item + 1] = filled
    return out_starts


def combine(counters: list[Counter], n_items: int) -> Counter:
    """The sum of counters of the same range."""
    if len(counters) == 1:
        return counters[0]
    low = counters[0].low
    before = np.cumsum([0, *(len(counter.other) for counter in counters[:-1])])
    starts = np.stack([counter.starts + n for counter, n in zip(counters, before, strict=True)])
    other = np.concatenate([counter.other for counter in counters])
    count = np.concatenate([counter.n_playlists for counter in counters])
    sums = np.concatenate([counter.weights for counter in counters])
    weighted = len(sums) > 0
    met = np.diff(starts).sum(0)
    most = int(most_pairs(met, n_items, low).sum())
    out_other, out_count = np.empty(most, np.int32), np.empty(most, np.int32)
    out_sums = np.empty((most if weighted else 0, N_WEIGHTS), np.int64)
    out_starts = _combine(starts, other, count, sums, weighted, low, n_items, out_other, out_count, out_sums)
    n = out_starts[-1]
    return Counter(low, out_starts, out_other[:n], out_count[:n], out_sums[:n])


@kernel
def _totals(low, starts, other, count, out):  # type: ignore[no-untyped-def]
    for item in range(len(starts) - 1):
        for at in range(starts[item], starts[item + 1]):
            out[low + item] += count[at]
            out[other[at]] += count[at]


def totals(counter: Counter, n_items: int) -> NDArray[np.int64]:
    """Each item's sum of the counts of its pairs, (N,) int64, as far as this range knows of them."""
    out = np.zeros(n_items, np.int64)
    _totals(counter.low, counter.starts, counter.other, counter.n_playlists, out)
    return out


def warm() -> None:
    """Compile the kernels."""
    empty = np.zeros((0, N_WEIGHTS), np.int64)
    one = Counter(0, np.array([0, 1], np.int64), np.ones(1, np.int32), np.ones(1, np.int32), empty)
    combine([one, one], 2)
    weighted = one._replace(weights=np.ones((1, N_WEIGHTS), np.int64))
    totals(combine([weighted, weighted], 2), 2)
