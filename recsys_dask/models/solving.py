"""One small linear system a playlist, by conjugate gradients, without forming its matrix."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from recsys_dask.cores import shared, split
from recsys_dask.kernels import float_kernel

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


@float_kernel
def solve(q, starts, items, weight, base, ridge, right, out):  # type: ignore[no-untyped-def]
    """For each list J: `out[u] = (base + ridge[u]·I + weight·Σ_{j in J} q_j·q_jᵀ)⁻¹ right[u]`, to 10⁻⁵ of |right[u]|.

    A step costs 2·(|J| + k)·k operations; the matrix alone would cost |J|·k², as much as some 15 steps, and fewer are
    taken (Hestenes and Stiefel 1952; Takács, Pilászy and Tikk 2011 for such systems).

    q (N, k) float32; starts, items as in `sums.sum_rows`; weight float32; base (k, k) float32, symmetric and positive
    definite; ridge (n,) float32; right, out (n, k) float32
    """
    k = q.shape[1]
    zero = np.float32(0)
    rest, way, turn = np.empty(k, np.float32), np.empty(k, np.float32), np.empty(k, np.float32)
    for u in range(len(starts) - 1):
        low, high = starts[u], starts[u + 1]
        size = zero
        for f in range(k):
            out[u, f] = 0
            rest[f] = way[f] = right[u, f]
            size += rest[f] * rest[f]
        enough = size * np.float32(1e-10)
        for _ in range(4 * k):
            if not size > enough:
                break
            for f in range(k):
                total = ridge[u] * way[f]
                for g in range(k):
                    total += base[f, g] * way[g]
                turn[f] = total
            for at in range(low, high):
                item = items[at]
                total = zero
                for f in range(k):
                    total += q[item, f] * way[f]
                total *= weight
                for f in range(k):
                    turn[f] += total * q[item, f]
            bend = zero
            for f in range(k):
                bend += way[f] * turn[f]
            far = size / bend
            before, size = size, zero
            for f in range(k):
                out[u, f] += far * way[f]
                rest[f] -= far * turn[f]
                size += rest[f] * rest[f]
            for f in range(k):
                way[f] = rest[f] + size / before * way[f]


def solve_all(
    q: Floats, starts: Ints, items: NDArray[np.int32], weight: float, base: Floats, ridge: Floats, right: Floats
) -> Floats:
    """(n, k) float32: what `solve` puts into `out`, the cores sharing the lists."""
    out = np.empty_like(right)

    def work(part: slice) -> None:
        own = starts[part.start : part.stop + 1]
        solve(q, own, items, np.float32(weight), base, ridge[part], right[part], out[part])

    split(work, len(out), shared(len(out), 32))
    return out


def warm() -> None:
    """Compile the kernels of this module."""
    one = np.ones((1, 1), np.float32)
    solve(one, np.array([0, 1]), np.zeros(1, np.int32), np.float32(1), one, one[0], one, one.copy())
