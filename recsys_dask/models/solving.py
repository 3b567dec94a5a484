"""The vector of a playlist that fits given item vectors, by Newton's method: one small linear system a playlist."""

from __future__ import annotations

from functools import partial

import numpy as np

from recsys_dask.kernels import kernel

_arithmetic = partial(kernel, fastmath={"reassoc", "contract", "arcp", "nsz"}, error_model="numpy")


@_arithmetic
def solve(q, starts, items, weight, base, right, out):  # type: ignore[no-untyped-def]
    """For each list J: `out[u] = (base + weight·Σ_{j in J} q_j·q_jᵀ)⁻¹ right[u]`, by Cholesky's factors.

    q (N, k) float32; starts, items as in `sums.sum_rows`; weight float32;
    base (k, k) float32, symmetric and positive definite; right, out (n, k) float32
    """
    k = q.shape[1]
    a = np.empty((k, k), np.float32)
    y = np.empty(k, np.float32)
    for u in range(len(starts) - 1):
        for f in range(k):
            for g in range(k):
                a[f, g] = base[f, g]
        for at in range(starts[u], starts[u + 1]):
            row = q[items[at]]
            for f in range(k):
                value = weight * row[f]
                for g in range(k):
                    a[f, g] += value * row[g]
        for f in range(k):
            left = a[f]
            for g in range(f):
                other = a[g]
                total = left[g]
                for t in range(g):
                    total -= left[t] * other[t]
                left[g] = total / other[g]
            total = left[f]
            for t in range(f):
                total -= left[t] * left[t]
            left[f] = np.sqrt(total)
            total = right[u, f]
            for t in range(f):
                total -= left[t] * y[t]
            y[f] = total / left[f]
        for f in range(k - 1, -1, -1):
            value = y[f] / a[f, f]
            out[u, f] = value
            for t in range(f):
                y[t] -= a[f, t] * value


def warm() -> None:
    """Compile the kernels of this module."""
    one = np.ones((1, 1), np.float32)
    solve(one, np.array([0, 1]), np.zeros(1, np.int32), np.float32(1), one, one, one.copy())
