"""Playlists of distinct items as a compressed-row array, empty ones included."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from recsys_dask import compressed
from recsys_dask.compressed import owners_of, starts_of


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
        return owners_of(self.starts)

    def take(self, rows: NDArray[np.int64]) -> Lists:
        """The lists of some places, in that order."""
        lengths = self.lengths[rows]
        starts = starts_of(lengths)
        at = np.arange(starts[-1]) + np.repeat(self.starts[:-1][rows] - starts[:-1], lengths)
        return Lists(starts, self.items[at])


def distinct(codes: NDArray[np.int32], n_entries: NDArray[np.int64]) -> Lists:
    """The distinct items of each playlist.

    codes: (rows,) int32, at least 0, playlist by playlist; n_entries: (n,) int64
    """
    return Lists(*compressed.distinct(owners_of(starts_of(n_entries)), codes, len(n_entries)))


def joined(parts: Sequence[Lists]) -> Lists:
    """Several parts' lists as one."""
    lengths = np.concatenate([np.zeros(0, np.int64), *(part.lengths for part in parts)])
    return Lists(starts_of(lengths), np.concatenate([np.zeros(0, np.int32), *(part.items for part in parts)]))
