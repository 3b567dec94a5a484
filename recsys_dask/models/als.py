"""Implicit alternating least squares over items and further inputs together.

Hu, Koren and Volinsky, Collaborative filtering for implicit feedback datasets, ICDM 2008, with the frequency-scaled
ridge of Rendle et al., Revisiting the performance of iALS on item recommendation benchmarks, RecSys 2022: minimise
Σ_{held} (1 − p_u·q_i)² + α₀·Σ_{all} (p_u·q_i)² + λ·Σ_u (n_u + α₀·N)·|p_u|² + λ·Σ_i (n_i + α₀·U)·|q_i|².
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from threadpoolctl import threadpool_limits

from recsys_dask.compressed import inverted
from recsys_dask.models.base import Data, Floats, Ints, Items, Lists
from recsys_dask.models.linear import inputs_of
from recsys_dask.models.solving import solve_all
from recsys_dask.sums import row_sums


@dataclass(frozen=True)
class Als:
    """Vectors q (N + m, k) float32 of the items and of the further inputs `extras` (m,), rising; `gram` (k, k): qᵀq."""

    q: Floats
    gram: Floats
    extras: Items
    n_items: int
    unseen: float
    ridge: float

    def vectors(self) -> Floats:
        """(N, k) float32: the item vectors."""
        return self.q[: self.n_items]

    def fold_in(self, lists: Lists) -> Floats:
        """(n, k) float32: the minimiser p of a playlist's own part."""
        starts, inputs = inputs_of(lists, self.n_items, self.extras)
        return _solved(self.q, self.gram, starts, inputs, self.unseen, self.ridge, self.n_items)

    def scores(self, lists: Lists) -> Floats:
        return self.fold_in(lists) @ self.vectors().T


def als(
    data: Data,
    extras: Items,
    factors: int = 128,
    unseen: float = 0.1,
    ridge: float = 0.005,
    sweeps: int = 8,
    seed: int = 0,
) -> Als:
    """Fit on the items and on `extras`, places among the further inputs, rising. unseen: α₀; ridge: λ."""
    starts, inputs = inputs_of(data.lists, data.n_items, extras)
    n_inputs = data.n_items + len(extras)
    holder_starts, holders = inverted(starts, inputs, n_inputs)
    q = np.random.default_rng(seed).standard_normal((n_inputs, factors), np.float32) * np.float32(0.1 / factors**0.5)
    # The solves share the cores; BLAS's own threads would save little and wait for them.
    with threadpool_limits(1, "blas"):
        for _ in range(sweeps):
            p = _solved(q, q.T @ q, starts, inputs, unseen, ridge, data.n_items)
            q = _solved(p, p.T @ p, holder_starts, holders, unseen, ridge, data.lists.n)
        return Als(q, q.T @ q, extras, data.n_items, unseen, ridge)


def _solved(q: Floats, gram: Floats, starts: Ints, items: Items, unseen: float, ridge: float, others: int) -> Floats:
    """(n, k): each list's minimiser, the other side being fixed. others: how many there are of it, for the ridge."""
    base = np.float32(unseen) * gram
    each = (ridge * (np.diff(starts) + unseen * others)).astype(np.float32)
    return solve_all(q, starts, items, 1.0, base, each, row_sums(q, starts, items))
