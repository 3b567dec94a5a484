"""Lists as compressed-row arrays: list u is `entries[starts[u]:starts[u + 1]]`."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


def starts_of(lengths: NDArray[np.integer]) -> Ints:
    """(n + 1,) int64: where lists of these lengths begin, and where the last one ends."""
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)])


def owners_of(starts: Ints) -> Ints:
    """(entries,) int64: the list that each entry is in."""
    return np.repeat(np.arange(len(starts) - 1), np.diff(starts))


def distinct(owner: Ints, codes: NDArray[np.int32], n: int) -> tuple[Ints, NDArray[np.int32]]:
    """Starts and entries of n lists of distinct codes, rising.

    codes (rows,): at least 0, in any order; owner (rows,): the list that each belongs to
    """
    found = np.unique(owner << 32 | codes)
    return starts_of(np.bincount(found >> 32, minlength=n)), (found & 0xFFFFFFFF).astype(np.int32)


def inverted(starts: Ints, entries: NDArray[np.int32], n_codes: int) -> tuple[Ints, NDArray[np.int32]]:
    """Of each of the codes 0 … n_codes − 1 the lists that hold it, rising, as a compressed-row array."""
    order = np.argsort(entries, kind="stable")
    return starts_of(np.bincount(entries, minlength=n_codes)), owners_of(starts).astype(np.int32)[order]
