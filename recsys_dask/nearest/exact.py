"""The nearest vectors exactly: scores in float64 from float32 vectors, each summed in the order of the dimensions.

So a score has the same bits whether `scan` finds it among all vectors or `rank` among a few candidates.
score: cosine similarity (a zero vector's is 0 with every other), Euclidean distance negated, or inner product: best
first always. Equal scores go by `order`, the rank of each vector.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys_dask.cores import split
from recsys_dask.errors import InputError
from recsys_dask.kernels import kernel

METRICS = ("cosine", "euclidean", "dot")

AT_ONCE = 1024
"""Vectors whose scores `scan` holds at once: 8 KiB, in the processor's first cache."""

Neighbours = tuple[NDArray[np.int32], NDArray[np.float64]]
"""neighbour (m, k), a place among the vectors; score (m, k); both nearest first."""


def points(vectors: NDArray[Any], metric: str, name: str = "vector") -> NDArray[np.float64]:
    """(n, d): the vectors as float32 has them; under cosine of length 1, or 0.

    Raises InputError: not a matrix, or a number that is not finite as float32 (says in which one).
    """
    if vectors.ndim != 2:
        raise InputError(f"{name}s have shape {vectors.shape}: give a matrix, one row each")
    with np.errstate(over="ignore"):
        out = vectors.astype(np.float32).astype(np.float64)
    bad = np.flatnonzero(~np.isfinite(out).all(axis=1))
    if len(bad):
        raise InputError(
            f"{name} {bad[0]} holds a number that is not finite, as do {len(bad) - 1} more: train again, or drop them"
        )
    if metric == "cosine":
        length = np.sqrt((out**2).sum(axis=1, keepdims=True))
        np.divide(out, length, out=out, where=length > 0)
    return out + 0.0  # no -0.0: equal vectors have equal bytes


@kernel
def _offer(neighbour, score, n, one, new, order):  # type: ignore[no-untyped-def]
    """Let `one` try for a place among the `n` best of a list; how many there are then."""
    k = len(score)
    if n == k and (new < score[k - 1] or (new == score[k - 1] and order[one] >= order[neighbour[k - 1]])):
        return n
    for place in range(n):
        if neighbour[place] == one:
            return n
    place = min(n, k - 1)
    while place > 0 and (
        score[place - 1] < new or (score[place - 1] == new and order[neighbour[place - 1]] > order[one])
    ):
        score[place] = score[place - 1]
        neighbour[place] = neighbour[place - 1]
        place -= 1
    score[place] = new
    neighbour[place] = one
    return min(n + 1, k)


@kernel
def _rank(columns, asked, own, order, distance, neighbour, score, n, candidates):  # type: ignore[no-untyped-def]
    for at in range(len(asked)):
        for one in candidates[at]:
            if one < 0 or one == own[at]:
                continue
            total = 0.0
            for i in range(asked.shape[1]):
                if distance:
                    total += (asked[at, i] - columns[one, i]) ** 2
                else:
                    total += asked[at, i] * columns[one, i]
            n[at] = _offer(neighbour[at], score[at], n[at], one, -np.sqrt(total) if distance else total, order)


@kernel
def _scan(columns, asked, own, order, distance, neighbour, score, n, place, bound):  # type: ignore[no-untyped-def]
    sums = np.empty(AT_ONCE)
    k = score.shape[1]
    length = np.sqrt((asked**2).sum(axis=1))
    for start in range(0, columns.shape[1], AT_ONCE):  # outside, so that a block stays in the cache
        here = min(AT_ONCE, columns.shape[1] - start)
        for at in range(len(asked)):
            if n[at] == k and not distance and length[at] * bound[start] < score[at, k - 1]:
                continue  # Cauchy and Schwarz: all here are too short to be as near
            sums[:here] = 0.0
            for i in range(len(columns)):
                value = asked[at, i]
                column = columns[i, start : start + here]
                if distance:
                    for j in range(here):
                        sums[j] += (value - column[j]) ** 2
                else:
                    for j in range(here):
                        sums[j] += value * column[j]
            if distance:
                sums[:here] = -np.sqrt(sums[:here])
            for j in range(here):
                one = place[start + j]
                if (n[at] < k or sums[j] >= score[at, k - 1]) and one != own[at]:
                    n[at] = _offer(neighbour[at], score[at], n[at], one, sums[j], order)


class Exact:
    """Vectors to be searched, as `points` has them; one search uses `n_threads` threads."""

    def __init__(self, points: NDArray[np.float64], metric: str, order: NDArray[np.int64], n_threads: int) -> None:
        self.points, self.order, self.n_threads = points, order, n_threads
        self._distance = metric == "euclidean"
        length = np.linalg.norm(points, axis=1)
        self._place = np.argsort(-length, kind="stable").astype(np.int32)
        self._bound = length[self._place] * (1 + 1e-9)  # what rounding may add
        self._columns = np.ascontiguousarray(points[self._place].T)

    def scan(self, asked: NDArray[np.float64], own: NDArray[np.int32], k: int) -> Neighbours:
        """The k best of all vectors for each of `asked` (m, d), without its `own` (m,), −1 for none."""
        neighbour, score, _ = self._run(_scan, self._columns, asked, own, k, (), (self._place, self._bound))
        return neighbour, score

    def rank(
        self, asked: NDArray[np.float64], own: NDArray[np.int32], k: int, candidates: NDArray[np.int32]
    ) -> Neighbours:
        """The k best of the candidates (m, c), of which −1, `own` and repeated ones are passed over. A vector that is
        left with fewer than k is scanned for."""
        neighbour, score, n = self._run(_rank, self.points, asked, own, k, (candidates,), ())
        short = np.flatnonzero(n < k)
        neighbour[short], score[short] = self.scan(asked[short], own[short], k)
        return neighbour, score

    def _run(
        self,
        function: Any,
        columns: NDArray[np.float64],
        asked: NDArray[np.float64],
        own: NDArray[np.int32],
        k: int,
        by_row: tuple[Any, ...],
        whole: tuple[Any, ...],
    ) -> tuple[NDArray[np.int32], NDArray[np.float64], NDArray[np.int64]]:
        m, own = len(asked), np.ascontiguousarray(own)
        out = np.empty((m, k), np.int32), np.empty((m, k)), np.zeros(m, np.int64)
        if k and m:

            def work(part: slice) -> None:
                rows = [array[part] for array in (*out, *by_row)]
                function(columns, asked[part], own[part], self.order, self._distance, *rows, *whole)

            split(work, m, min(self.n_threads, m))
        return out


@kernel
def _members(groups, starts, members, most, out):  # type: ignore[no-untyped-def]
    for at in range(len(groups)):
        to = 0
        for which in groups[at]:
            if which >= 0:
                for one in range(starts[which], min(starts[which + 1], starts[which] + most)):
                    if to < out.shape[1]:
                        out[at, to] = members[one]
                        to += 1


class Distinct:
    """Points without their repetitions, for a graph search.

    points: (g, d) float32; group: (n,), which of them each vector is. A group's members go by `order`.
    """

    def __init__(self, points: NDArray[np.float64], order: NDArray[np.int64]) -> None:
        every = points.astype(np.float32)
        rows = every.view(np.dtype((np.void, every.itemsize * every.shape[1])))[:, 0]
        _, first, group = np.unique(rows, return_index=True, return_inverse=True)
        self.points, self.group = every[first], group.astype(np.int32)
        self._members = np.lexsort((order, group)).astype(np.int32)
        self._starts = np.searchsorted(group[self._members], np.arange(len(first) + 1))

    def members(self, groups: NDArray[np.int32], most: int) -> NDArray[np.int32]:
        """(m, w + most) places of vectors from (m, w) groups, −1 for none, `most` of each group while there is room."""
        out = np.full((len(groups), groups.shape[1] + most), -1, np.int32)
        _members(groups, self._starts, self._members, most, out)
        return out


def warm() -> None:
    """Compile the kernels."""
    one = Exact(np.ones((2, 1)), "cosine", np.arange(2), 1)
    one.rank(one.points, np.arange(2, dtype=np.int32), 1, np.full((2, 1), -1, np.int32))
    Distinct(one.points, one.order).members(np.zeros((1, 1), np.int32), 1)
