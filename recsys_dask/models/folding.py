"""Vectors of playlists that a model was not trained on, from its item vectors alone: numpy and numba, no torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from recsys_dask.models.solving import solve_all
from recsys_dask.sums import row_sums

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Items = NDArray[np.int32]

BLOCK = 256
"""Playlists whose scores are in memory at a time."""

WORTH_THREADS = 1 << 25
"""Multiplications a product from which on BLAS may share it among threads: of smaller ones, hundreds in a row, they
only wait for each other, and where another process has a core, for that (validation took 15 s instead of 1)."""


FIRST_OWN = 0.15
"""At p = 0 a playlist's own items have a curvature σ(b)·(1 − σ(b)) near 0, at the solution one up to ¼. With this
value the first step leaves 3 % of what there is to gain, measured on vectors fitted to real playlists."""


def curvature(q: Any, chance: Any, ridge: float) -> Any:
    """(k, k): Σ_j σ_j(1 − σ_j)·q_j·q_jᵀ + 2·ridge·I, for chances σ; arrays or tensors."""
    found = q.T @ (q * (chance * (1 - chance))[:, None])
    for f in range(len(found)):
        found[f, f] += 2 * ridge
    return found


def first_step(q: Floats, b: Floats, starts: Ints, items: Items, ridge: float) -> Floats:
    """p (n, k) float32: a step of Newton's method from p = 0 for the objective of `fold_table`.

    At p = 0 the scores are the same for all playlists: one sum over all items serves every one, and no scores are
    formed. Further steps of this kind do not settle for some playlists; `fold_table` does.
    """
    chance = np.reciprocal(1 + np.exp(-np.maximum(b, np.float32(-80))))
    return solved(q, curvature(q, chance, ridge), chance @ q, starts, items)


def solved(q: Floats, base: Floats, mean: Floats, starts: Ints, items: Items) -> Floats:
    """(n, k) float32: the `first_step` from the two sums that serve every playlist; the cores share the playlists.

    base (k, k): the `curvature`; mean (k,): Σ_j σ(b_j)·q_j
    """
    q = np.ascontiguousarray(q)
    right = row_sums(q, starts, items) - mean
    return solve_all(q, starts, items, FIRST_OWN, base, np.zeros(len(right), np.float32), right)


def fold_table(
    q: Floats, b: Floats, starts: Ints, items: Items, ridge: float = 6.0, steps: int = 60, rate: float = 0.2
) -> Floats:
    """p (n, k) float32 that minimises Σ_j log(1 + exp(q_j·p + b_j)) − Σ_{j in J} q_j·p + ridge·|p|², for each
    playlist's items J, by Adam from 0 with betas (.8, .95) and a rate that falls linearly to 0.

    q (N, k), b (N,) float32; starts (n + 1,) int64, items int32: the playlists as a compressed-row array.
    """
    out = np.empty((len(starts) - 1, q.shape[1]), np.float32)
    with threadpool_limits(1 if min(len(out), BLOCK) * q.size < WORTH_THREADS else None, "blas"):
        for low in range(0, len(out), BLOCK):
            part = starts[low : low + BLOCK + 1]
            out[low : low + BLOCK] = _fold_block(q, b, part, items, ridge, steps, rate)
    return out


def _fold_block(q: Floats, b: Floats, starts: Ints, items: Items, ridge: float, steps: int, rate: float) -> Floats:
    own = row_sums(q, starts, items)
    size = np.maximum(np.diff(starts), 1).astype(np.float32)[:, None]
    p = np.zeros_like(own)
    m, v = np.zeros_like(p), np.zeros_like(p)
    scores = np.empty((len(p), len(q)), np.float32)
    for step in range(1, steps + 1):
        np.matmul(p, q.T, out=scores)
        scores += b
        sigmoid_in_place(scores)
        grad = (scores @ q - own + np.float32(2 * ridge) * p) / size
        m += np.float32(0.2) * (grad - m)
        v += np.float32(0.05) * (grad * grad - v)
        fall = np.float32(rate * (1 - step / (steps + 1)))
        p -= fall * (m / np.float32(1 - 0.8**step)) / (np.sqrt(v / np.float32(1 - 0.95**step)) + np.float32(1e-6))
    return p


def sigmoid_in_place(scores: Floats) -> None:
    """Each score becomes 1 / (1 + exp(−score)); one below −80 becomes e⁻⁸⁰."""
    np.maximum(scores, -80, out=scores)
    np.negative(scores, out=scores)
    np.exp(scores, out=scores)
    scores += 1
    np.reciprocal(scores, out=scores)


def fold_mean(q: Floats, starts: Ints, items: Items, power: float = 0.75) -> Floats:
    """p (n, k) = Σ q_j / n^power over each playlist's n items; zeros for one without any."""
    size = np.maximum(np.diff(starts), 1).astype(np.float32)[:, None]
    return row_sums(q, starts, items) / size ** np.float32(power)


def through_tower(p: Floats, layers: Sequence[tuple[Floats, Floats]]) -> Floats:
    """p + MLP(p), layers being (weight (out, in), bias (out,)), all but the last followed by max(·, 0)."""
    x = p
    for at, (weight, bias) in enumerate(layers):
        x = x @ weight.T + bias
        if at + 1 < len(layers):
            x = np.maximum(x, 0)
    return p + x
