"""The best neighbours of every item, kept while pairs stream by. Equal scores go by the neighbours' ids."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from recsys_dask.kernels import kernel


class Best(NamedTuple):
    """score: (N, k) float64; neighbour: (N, k) int32; both best first; n: (N,) int64, how many there are."""

    score: NDArray[np.float64]
    neighbour: NDArray[np.int32]
    n: NDArray[np.int64]


def empty(n_items: int, k: int) -> Best:
    """No neighbours yet."""
    return Best(np.zeros((n_items, k)), np.zeros((n_items, k), np.int32), np.zeros(n_items, np.int64))


BYTES_PER_PLACE = 12


@kernel
def _offer(seed, other, value, by_id, score, neighbour, n):  # type: ignore[no-untyped-def]
    k = score.shape[1]
    for at in range(len(seed)):
        item = seed[at]
        new = value[at]
        one = other[at]
        have = n[item]
        if have == k:
            last = score[item, k - 1]
            if new < last or (new == last and by_id[one] > by_id[neighbour[item, k - 1]]):
                continue
            place = k - 1
        else:
            place = have
            n[item] = have + 1
        while place > 0 and (
            score[item, place - 1] < new
            or (score[item, place - 1] == new and by_id[neighbour[item, place - 1]] > by_id[one])
        ):
            score[item, place] = score[item, place - 1]
            neighbour[item, place] = neighbour[item, place - 1]
            place -= 1
        score[item, place] = new
        neighbour[item, place] = one


def offer(
    best: Best,
    seed: NDArray[np.int32],
    other: NDArray[np.int32],
    value: NDArray[np.float64],
    by_id: NDArray[np.int32],
) -> None:
    """Let each `other` try for a place among its `seed`'s best; `by_id`: each item's rank by id."""
    _offer(seed, other, value, by_id, *best)


def merge(parts: list[Best], by_id: NDArray[np.int32]) -> Best:
    """The best of several, each of which saw other pairs."""
    first, *others = parts
    out = Best(first.score.copy(), first.neighbour.copy(), first.n.copy())
    for part in others:
        full = np.arange(part.score.shape[1]) < part.n[:, None]
        seed = np.repeat(np.arange(len(part.n), dtype=np.int32), part.n)
        offer(out, seed, part.neighbour[full], part.score[full], by_id)
    return out


def warm() -> None:
    """Compile the kernel."""
    one = np.zeros(1, np.int32)
    offer(empty(1, 1), one, one, np.ones(1), one)
