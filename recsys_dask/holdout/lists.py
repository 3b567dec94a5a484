"""Playlists of distinct items as a compressed-row array, empty ones included."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Lists(NamedTuple):
    """The items of list u are items[starts[u] : starts[u + 1]], distinct and rising.

    starts: (n + 1,) int64; items: int32
    """

    starts: NDArray[np.int64]
    items: NDArray[np.int32]

    @property
    def lengths(self) -> NDArray[np.int64]:
        """(n,) int64."""
        return np.diff(self.starts)

    @property
    def owners(self) -> NDArray[np.int64]:
        """The list that each entry of `items` is in, int64."""
        return np.repeat(np.arange(len(self.starts) - 1), self.lengths)

    def take(self, rows: NDArray[np.int64]) -> Lists:
        """The lists of some places, in that order."""
        lengths = self.lengths[rows]
        starts = starts_of(lengths)
        at = np.arange(starts[-1]) + np.repeat(self.starts[:-1][rows] - starts[:-1], lengths)
        return Lists(starts, self.items[at])


def starts_of(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where lists of these lengths begin, (n + 1,) int64; the last one: where all end."""
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)])


def distinct(codes: NDArray[np.int32], n_entries: NDArray[np.int64]) -> Lists:
    """The distinct items of each playlist.

    codes: (rows,) int32, at least 0, playlist by playlist; n_entries: (n,) int64
    """
    owner = np.repeat(np.arange(len(n_entries)), n_entries)
    found = np.unique(owner << 32 | codes)
    return Lists(starts_of(np.bincount(found >> 32, minlength=len(n_entries))), (found & 0xFFFFFFFF).astype(np.int32))


def joined(parts: Sequence[Lists]) -> Lists:
    """Several parts' lists as one."""
    lengths = np.concatenate([np.zeros(0, np.int64), *(part.lengths for part in parts)])
    return Lists(starts_of(lengths), np.concatenate([np.zeros(0, np.int32), *(part.items for part in parts)]))
