"""Playlists that nearly repeat an earlier one: an exact similarity join by Jaccard, prefixes first.

Two sets of Jaccard above t share an item among the first |x| − ⌊t·|x|⌋ of each in one global order (rare items first):
only these prefixes are indexed and looked up. Chaudhuri, Ganti, Kaushik, "A primitive operator for similarity joins in
data cleaning", ICDE 2006; with the filters by length and by position of Xiao, Wang, Lin, Yu, "Efficient similarity
joins for near duplicate detection" (PPJoin), WWW 2008; and bitmaps that bound the overlap before lists are merged, of
Sandes, Teodoro, Melo, "Bitmap filter: speeding up exact set similarity joins with bitwise operations", Information
Systems 2020.
"""

from __future__ import annotations

from fractions import Fraction
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from recsys_dask.holdout.lists import Lists
from recsys_dask.kernels import kernel

STEPS = 10**9
"""A limit is taken to nine decimals."""

WORDS = 4
"""Of a list's signature, 64 bits each."""


class NearDuplicates(NamedTuple):
    """of: (n,) int64, the place of the earlier list that a list nearly repeats, −1 for one that is kept; jaccard: (n,)
    float64, of the two, 0.0 for one that is kept."""

    of: NDArray[np.int64]
    jaccard: NDArray[np.float64]


def near_duplicates(lists: Lists, limit: float = 0.5) -> NearDuplicates:
    """For each list, in order, the first earlier kept one whose Jaccard with it is above `limit`; it is then not kept
    itself, and later ones are not compared with it. An empty list is always kept.

    limit: from 0 to 1, taken to nine decimals and compared as a fraction, so that 0.5 means 3·overlap > |x| + |y|.
    Lists may have up to 2³⁰ items.
    """
    share = Fraction(round(Fraction(str(limit)) * STEPS), STEPS)
    p, q = share.numerator, share.denominator
    n = len(lists.starts) - 1
    of, overlap = np.full(n, -1, np.int64), np.zeros(n, np.int64)
    ranked, n_items = _ranked(lists)
    prefix = lists.lengths - lists.lengths * p // q
    by_length = np.argsort(lists.lengths, kind="stable")
    first, length, slot = _groups(lists.starts, ranked, prefix, by_length, n_items)
    _join(lists.starts, ranked, prefix, first, length, slot, p, q, of, overlap)
    both = lists.lengths + lists.lengths[of] - overlap
    return NearDuplicates(of, np.where(of >= 0, overlap / np.maximum(both, 1), 0.0))


def _ranked(lists: Lists) -> tuple[NDArray[np.int32], int]:
    """Each list's items as ranks by rising number of lists that hold them, rising; and how many ranks there are."""
    n_lists = np.bincount(lists.items)
    rank = np.empty(len(n_lists), np.int32)
    rank[np.argsort(n_lists, kind="stable")] = np.arange(len(n_lists), dtype=np.int32)
    ranked = rank[lists.items]
    _sort_each(lists.starts, ranked)
    return ranked, len(n_lists)


@kernel
def _sort_each(starts, items):  # type: ignore[no-untyped-def]
    for u in range(len(starts) - 1):
        items[starts[u] : starts[u + 1]].sort()


@kernel
def _groups(starts, items, prefix, by_length, n_items):  # type: ignore[no-untyped-def]
    """Room for the postings of every item, in groups of equally long lists, the short ones first.

    Returns first (n_items + 1,): an item's groups are first[i] : first[i + 1]; length (groups,): of a group's lists;
    slot (groups + 1,): where a group's postings begin.
    """
    first = np.zeros(n_items + 1, np.int64)
    seen = np.full(n_items, -1, np.int64)
    for u in by_length:
        n = starts[u + 1] - starts[u]
        for at in range(starts[u], starts[u] + prefix[u]):
            if seen[items[at]] != n:
                seen[items[at]] = n
                first[items[at] + 1] += 1
    first = np.cumsum(first)
    length = np.zeros(first[n_items], np.int32)
    slot = np.zeros(first[n_items] + 1, np.int64)
    seen[:] = -1
    last = first[:-1] - 1
    for u in by_length:
        n = starts[u + 1] - starts[u]
        for at in range(starts[u], starts[u] + prefix[u]):
            item = items[at]
            if seen[item] != n:
                seen[item] = n
                last[item] += 1
                length[last[item]] = n
            slot[last[item] + 1] += 1
    return first, length, np.cumsum(slot)


@kernel
def _from(length, low, high, least):  # type: ignore[no-untyped-def]
    """The first of the groups [low, high) whose lists have at least so many items."""
    while low < high:
        middle = (low + high) // 2
        if length[middle] < least:
            low = middle + 1
        else:
            high = middle
    return low


@kernel
def _signatures(starts, items):  # type: ignore[no-untyped-def]
    """64·WORDS bits a list, (n, WORDS) uint64, of which each of its items sets one."""
    out = np.zeros((len(starts) - 1, WORDS), np.uint64)
    for u in range(len(out)):
        for at in range(starts[u], starts[u + 1]):
            h = np.uint64(items[at]) * np.uint64(0x9E3779B97F4A7C15)
            out[u, (h >> np.uint64(32)) % np.uint64(WORDS)] |= np.uint64(1) << (h >> np.uint64(58))
    return out


@kernel
def _differing(sign, x, y):  # type: ignore[no-untyped-def]
    """Bits in which two signatures differ: at least so many items are in one list alone."""
    total = np.int64(0)
    for word in range(WORDS):
        bits = sign[x, word] ^ sign[y, word]  # counted as in Warren, "Hacker's Delight", 2nd ed. 2012, section 5-1
        bits -= (bits >> np.uint64(1)) & np.uint64(0x5555555555555555)
        bits = (bits & np.uint64(0x3333333333333333)) + ((bits >> np.uint64(2)) & np.uint64(0x3333333333333333))
        bits = (bits + (bits >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
        total += np.int64((bits * np.uint64(0x0101010101010101)) >> np.uint64(56))
    return total


@kernel
def _join(starts, items, prefix, first, length, slot, p, q, of, overlap):  # type: ignore[no-untyped-def]
    """The join, list by list. Only kept lists are entered, so a group's postings are in order and it is filled as far
    as `filled` says."""
    filled = slot[:-1].copy()
    posting = np.empty(slot[-1], np.int32)
    place = np.empty(slot[-1], np.int32)
    met = np.full(len(of), -1, np.int32)
    sign = _signatures(starts, items)
    for x in range(len(of)):
        n_x = starts[x + 1] - starts[x]
        best, best_overlap = len(of), 0
        for i in range(prefix[x]):
            item = items[starts[x] + i]
            group = _from(length, first[item], first[item + 1], n_x * p // q)
            while group < first[item + 1]:
                n_y = length[group]
                least = (n_x + n_y) * p // (p + q) + 1  # overlap·(p + q) > (n_x + n_y)·p
                if n_x - i < least:  # as for all longer lists
                    break
                if n_y < least:
                    group += 1
                    continue
                for at in range(slot[group], filled[group]):
                    y = posting[at]
                    if y >= best:
                        break
                    if met[y] == x:
                        continue
                    # Of a list that is near enough, this is the first item of both: met here for the first time, it
                    # passes the filters, and all that both hold lies behind.
                    met[y] = x
                    j = place[at]
                    if n_y - j < least or n_x + n_y - _differing(sign, x, y) < 2 * least:
                        continue
                    common = _common(items, starts[x] + i, starts[x + 1], starts[y] + j, starts[y + 1], least)
                    if common >= least:
                        best, best_overlap = y, common
                        break
                group += 1
        if best < len(of):
            of[x], overlap[x] = best, best_overlap
            continue
        for i in range(prefix[x]):
            item = items[starts[x] + i]
            group = _from(length, first[item], first[item + 1], n_x)
            posting[filled[group]] = x
            place[filled[group]] = i
            filled[group] += 1


@kernel
def _common(items, a, a_end, b, b_end, least):  # type: ignore[no-untyped-def]
    """How many items two rising runs share, or less than `least` as soon as it cannot be so many."""
    common = 0
    while a < a_end and b < b_end:
        if common + min(a_end - a, b_end - b) < least:
            return common
        if items[a] == items[b]:
            common += 1
            a += 1
            b += 1
        elif items[a] < items[b]:
            a += 1
        else:
            b += 1
    return common


def warm() -> None:
    """Compile the kernels."""
    near_duplicates(Lists(np.array([0, 1, 2]), np.zeros(2, np.int32)))
