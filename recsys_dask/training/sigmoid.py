"""The logistic loss of a block of scores and its gradient in one pass over memory.

torch takes a pass for the sigmoid, two for the softplus and one for the scale; this one reads and writes a score once
and is compiled to vector instructions. e⁻ˣ is Cephes' `expf`, log(1 + e) the series of 2·artanh(e / (2 + e)); both
agree with float64 to float32's own precision.
"""

from __future__ import annotations

import numpy as np

from recsys_dask.kernels import float_kernel


@float_kernel
def logistic(scores, weights, scale):  # type: ignore[no-untyped-def]
    """Σ w_j·log(1 + exp(s_uj)), float64; each score is replaced by scale·w_j·σ(s_uj), the gradient of scale times it.

    scores (n, m) float32, overwritten; weights (m,) float32, one a column; scale float32
    """
    one, two, zero = np.float32(1), np.float32(2), np.float32(0)
    total = np.float64(0)
    for u in range(scores.shape[0]):
        row = scores[u]
        part = zero
        for j in range(len(row)):
            x = row[j]
            a = max(-abs(x), np.float32(-80))
            whole = np.floor(a * np.float32(1.44269504) + np.float32(0.5))
            r = a - whole * np.float32(0.693359375) + whole * np.float32(2.12194440e-4)
            e = np.float32(1.9875691500e-4)
            e = e * r + np.float32(1.3981999507e-3)
            e = e * r + np.float32(8.3334519073e-3)
            e = e * r + np.float32(4.1665795894e-2)
            e = e * r + np.float32(1.6666665459e-1)
            e = e * r + np.float32(5.0000001201e-1)
            e = e * r * r + r + one
            e *= np.int32((np.int32(whole) + np.int32(127)) << np.int32(23)).view(np.float32)
            near = one / (one + e)
            s = e / (two + e)
            q = s * s
            log = np.float32(1 / 11)
            log = log * q + np.float32(1 / 9)
            log = log * q + np.float32(1 / 7)
            log = log * q + np.float32(1 / 5)
            log = log * q + np.float32(1 / 3)
            log = log * q + one
            # x - x is 0, or NaN for a score that is no number: it must show in the sum.
            part = part + weights[j] * (max(x, zero) + two * s * log + (x - x))
            row[j] = scale * weights[j] * (near if x >= zero else e * near)
        total = total + part
    return total


def warm() -> None:
    """Compile the kernels of this module."""
    logistic(np.zeros((1, 1), np.float32), np.ones(1, np.float32), np.float32(1))
