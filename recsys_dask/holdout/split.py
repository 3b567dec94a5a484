"""Which playlists are for testing, and what of each is hidden: drawn by hashes of the seed and the pid.

So a draw depends on no order, batch or partitioning: the same playlist has the same items hidden wherever it is met.
"""

from __future__ import annotations

import re
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from recsys_dask.compressed import starts_of
from recsys_dask.errors import UsageError
from recsys_dask.holdout.lists import Lists

LEAST_FOR_A_FIFTH = 10
"""Items that a playlist has of which a fifth is hidden, at least."""


def mixed(numbers: NDArray[np.integer], seed: int) -> NDArray[np.uint64]:
    """A 64-bit hash of each number, of the same shape; different numbers have different ones.

    The finaliser of SplitMix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014),
    which is a bijection, over the numbers shifted by a hash of the seed.
    """
    shift = np.array([seed % 2**64], np.uint64)
    return _finalised(numbers.astype(np.uint64) + _finalised(shift + np.uint64(0x9E3779B97F4A7C15)))


def _finalised(bits: NDArray[np.uint64]) -> NDArray[np.uint64]:
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))


def test_playlists(pid: NDArray[np.int64], share: float, most: int, seed: int) -> NDArray[np.bool_]:
    """Which playlists are for testing, (n,) bool: `share` of them, rounded, and at most so many.

    pid: (n,) int64, distinct, in any order: a set of the same pids has the same ones chosen. Those of the lowest
    hashes are, so that of a larger share all of a smaller one are part.
    """
    n = min(round(share * len(pid)), most)
    chosen = np.zeros(len(pid), np.bool_)
    chosen[np.argsort(mixed(pid, seed))[:n]] = True
    return chosen


test_playlists.__test__ = False  # type: ignore[attr-defined]  # pytest takes its name for a test's


class Known(NamedTuple):
    """The distinct items of some playlists, and where each first stands in its playlist: (entries,) int64."""

    lists: Lists
    first: NDArray[np.int64]


def known_items(codes: NDArray[np.int32], n_entries: NDArray[np.int64]) -> Known:
    """The distinct items of each playlist, without those that are not known.

    codes: (rows,) int32, playlist by playlist, by pos; negative for an item that is not known; n_entries: (n,) int64
    """
    known = codes >= 0
    owner = np.repeat(np.arange(len(n_entries)), n_entries)[known]
    found, row = np.unique(owner << 32 | codes[known], return_index=True)
    items = (found & 0xFFFFFFFF).astype(np.int32)
    lists = Lists(starts_of(np.bincount(found >> 32, minlength=len(n_entries))), items)
    place = np.flatnonzero(known)[row] - starts_of(n_entries)[found >> 32]
    return Known(lists, place)


class Hidden(NamedTuple):
    """taken: (n,) bool, the playlists that have enough items; hidden: (entries,) bool, over the entries of the lists,
    False in playlists that are not taken."""

    taken: NDArray[np.bool_]
    hidden: NDArray[np.bool_]


def check_rule(rule: str) -> tuple[str, int]:
    """`fifth`, `first` or `random`, and how many items the latter two give. Raises `UsageError` for other rules."""
    match = re.fullmatch(r"(fifth)|(first|random):(\d{1,9})", rule)
    if match is None:
        raise UsageError(f"what to hide is {rule!r}: give fifth, first:K or random:K, with the K items that are given")
    return (match[1], 0) if match[1] else (match[2], int(match[3]))


def shows_nothing(rule: str) -> bool:
    """Whether all items are hidden, so that of a playlist its title alone is known. Raises what `check_rule` raises."""
    return check_rule(rule) in (("first", 0), ("random", 0))


def hide(known: Known, rule: str, seed: int, pid: NDArray[np.int64]) -> Hidden:
    """What is hidden of some playlists. pid: (n,) int64, theirs.

    fifth: a random fifth of the distinct items, max(1, n // 5), of playlists of at least ten. first:K and random:K: all
    but the first K by their first appearance, or K random ones, of playlists of more than K: the cases of the RecSys
    Challenge 2018 (Chen, Lamere, Schedl, Zamani, "RecSys Challenge 2018: automatic music playlist continuation").
    Raises `UsageError` for another rule.
    """
    manner, k = check_rule(rule)
    lists, n = known.lists, known.lists.lengths
    owner = lists.owners
    if manner == "first":
        key = known.first.astype(np.uint64)
    else:
        base = mixed(pid, seed)[owner]
        key = _finalised(base + lists.items.astype(np.uint64))
    rank = np.empty(len(owner), np.int64)
    rank[np.lexsort((key, owner))] = np.arange(len(owner)) - lists.starts[owner]
    if manner == "fifth":
        taken, hidden = n >= LEAST_FOR_A_FIFTH, rank < np.maximum(1, n // 5)[owner]
    else:
        taken, hidden = n > k, rank >= k
    return Hidden(taken, hidden & taken[owner])
