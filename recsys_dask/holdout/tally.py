"""How often the training playlists mention each item: counted a partition, added up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

NOBODY = np.iinfo(np.int64).max


class Tally(NamedTuple):
    """What some playlists say of the items that they hold.

    codes: (m,) int32, rising; n_mentions, n_playlists: (m,) int64; pid: (m,) int64, the lowest that holds it; artist:
    (m,) int32, the artist in the item's first entry there
    """

    codes: NDArray[np.int32]
    n_mentions: NDArray[np.int64]
    n_playlists: NDArray[np.int64]
    pid: NDArray[np.int64]
    artist: NDArray[np.int32]


def count(codes: NDArray[np.int32], pid: NDArray[np.int64], artist: NDArray[np.int32]) -> Tally:
    """The tally of some entries, all (rows,), by pid and then pos."""
    by_code = np.argsort(codes, kind="stable")
    code, owner = codes[by_code], pid[by_code]
    new = np.ones(len(code), np.bool_)
    new[1:] = code[1:] != code[:-1]
    another = new.copy()
    another[1:] |= owner[1:] != owner[:-1]
    first = np.flatnonzero(new)
    ends = np.append(first[1:], len(code))
    n_playlists = np.add.reduceat(another.astype(np.int64), first) if len(first) else np.zeros(0, np.int64)
    return Tally(code[first], ends - first, n_playlists, owner[first], artist[by_code[first]])


def split(tally: Tally, size: int, n_items: int) -> list[Tally]:
    """The tally in ranges of `size` codes below n_items; at least one."""
    cuts = np.searchsorted(tally.codes, np.arange(0, max(n_items, 1), size)[1:])
    return [Tally(*columns) for columns in zip(*(np.split(column, cuts) for column in tally), strict=True)]


def combine(parts: Sequence[Tally]) -> Tally:
    """The tally of several sets of playlists together; it takes the memory of the range of their codes."""
    low = min((int(part.codes[0]) for part in parts if len(part.codes)), default=0)
    high = max((int(part.codes[-1]) + 1 for part in parts if len(part.codes)), default=0)
    n_mentions, n_playlists = np.zeros(high - low, np.int64), np.zeros(high - low, np.int64)
    pid, artist = np.full(high - low, NOBODY), np.zeros(high - low, np.int32)
    for part in parts:
        at = part.codes - low
        nobody = n_mentions[at] == 0  # a pid may be as high as `NOBODY`
        n_mentions[at] += part.n_mentions
        n_playlists[at] += part.n_playlists
        earlier = nobody | (part.pid < pid[at])
        pid[at[earlier]], artist[at[earlier]] = part.pid[earlier], part.artist[earlier]
    there = np.flatnonzero(n_mentions)
    codes = (there + low).astype(np.int32)
    return Tally(codes, n_mentions[there], n_playlists[there], pid[there], artist[there])


def together(parts: Sequence[Tally]) -> Tally:
    """Tallies of disjoint ranges, in their order, as one."""
    return Tally(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))
