"""Negatives: pairs of a known playlist and a known item, uniform among those that are no positives, none twice.

Two steps. `counts` says how many negatives each playlist gets: it needs lengths alone, sees all playlists at once, and
is cheap. `draw` then chooses that many of a playlist's free items; a playlist's choice depends on the seed and on its
own key, so partitions draw on their own and the result does not depend on how playlists are partitioned. Neither
rejects and tries again: a playlist that holds nearly every item costs as much as any other.
"""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from recsys_dask.errors import UsageError
from recsys_dask.kernels import kernel


def wanted(n_positives: int, ratio: float) -> int:
    """ceil(ratio × positives), of the ratio as it is written: 0.1 of 30 are 3, though 0.1 * 30 > 3 in binary."""
    return math.ceil(Fraction(repr(float(ratio))) * n_positives)


def counts(lengths: NDArray[np.int64], n_items: int, ratio: float, seed: int) -> NDArray[np.int64]:
    """How many negatives each playlist gets, (n,) int64 with the sum ceil(ratio × positives).

    lengths: (n,) int64, distinct items of each playlist, all playlists in order; n_items: known items, N

    The counts of a uniform k-subset of the free pairs follow a multivariate hypergeometric law (numpy's refuses more
    than 10⁹ pairs, which a million playlists and a thousand items exceed). They are drawn so: every free pair is in
    by itself with chance k / free, which makes a playlist's count binomial; then pairs chosen uniformly among those
    that are in (out) leave (join) until k are in. No step tells one free pair from another, so every subset of k
    pairs is as likely as any other: the law is exact, not approximate.

    Raises `UsageError` for a negative ratio, and for more negatives than there are free pairs.
    """
    lengths = np.asarray(lengths, np.int64)
    positives, free = int(lengths.sum()), n_items - lengths
    if not ratio >= 0 or math.isinf(ratio):
        raise UsageError(f"a ratio of {ratio} negatives a positive: give a number from 0 up")
    k, n_free = wanted(positives, ratio), int(free.sum())
    if k > n_free:
        fits = math.floor(100 * n_free / positives) / 100
        raise UsageError(
            f"{ratio:g} negatives a positive are {k:,} pairs, and only {n_free:,} pairs of a known playlist and a "
            f"known item are free: give a ratio of at most {fits:g}, or take more items"
        )
    rng = np.random.default_rng([seed, 0])
    chosen = rng.binomial(free, k / n_free) if n_free else np.zeros_like(free)
    excess = int(chosen.sum()) - k
    among = chosen if excess > 0 else free - chosen  # who may leave, who may join
    ends = np.cumsum(among)
    pairs = rng.choice(int(ends[-1]), abs(excess), replace=False, shuffle=False) if excess else np.empty(0, np.int64)
    moved = np.bincount(np.searchsorted(ends, pairs, side="right"), minlength=len(free))
    return chosen - moved if excess > 0 else chosen + moved


@kernel
def _mix(x):  # type: ignore[no-untyped-def]
    """The finaliser of splitmix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@kernel
def _draw(starts, items, n_items, counts, keys, seed, out):  # type: ignore[no-untyped-def]
    golden = np.uint64(0x9E3779B97F4A7C15)
    base = _mix(seed + golden)
    filled = 0
    for playlist in range(len(counts)):
        at, end = starts[playlist], starts[playlist + 1]
        free = n_items - (end - at)
        missing = counts[playlist]
        state = _mix(base ^ _mix(keys[playlist] + golden))
        item = 0
        while missing > 0:
            if at < end and items[at] == item:
                at += 1
            else:
                state += golden
                chance = np.float64(_mix(state) >> np.uint64(11)) * 2.0**-53  # of 53 bits, in [0, 1)
                if chance * free < missing:
                    out[filled] = item
                    filled += 1
                    missing -= 1
                free -= 1
            item += 1


def draw(
    starts: NDArray[np.int64],
    items: NDArray[np.int32],
    n_items: int,
    counts: NDArray[np.int64],
    keys: NDArray[np.int64],
    seed: int,
) -> NDArray[np.int32]:
    """The negatives of some playlists, (sum of counts,) int32: items, rising within each playlist, playlist by
    playlist.

    starts: (n + 1,) int64 and items: int32, the playlists' own items, rising and distinct, in 0 … n_items - 1;
    counts: (n,) int64, of `counts`; keys: (n,) int64, what a playlist is known by in all partitions (its pid, or its
    place among all)

    Selection sampling, Knuth, The Art of Computer Programming 2, section 3.4.2, algorithm S: one pass over the items
    a playlist, each free one taken with chance (still missing) / (free ones left). A playlist has a stream of random
    numbers of its own, of its key and the seed.
    """
    out = np.empty(int(counts.sum()), np.int32)
    seed64 = np.uint64(np.random.SeedSequence([seed, 1]).generate_state(1, np.uint64)[0])
    _draw(starts, items, n_items, np.asarray(counts, np.int64), np.asarray(keys, np.int64).view(np.uint64), seed64, out)
    return out


def warm() -> None:
    """Compile the kernels."""
    draw(np.array([0, 1]), np.zeros(1, np.int32), 2, np.ones(1, np.int64), np.zeros(1, np.int64), 0)
