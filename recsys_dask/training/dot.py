"""Matrix factorisation's two passes over a batch of rows, and gradients summed by row: kernels, no torch.

A batch's playlists are sorted once: the table is then read and written in the order of memory, a row that stands twice
is loaded once, and the gradient comes out summed by row, as the optimiser wants it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from recsys_dask.kernels import kernel
from recsys_dask.training.prefetch import AHEAD, LINE, prefetch


class Groups(NamedTuple):
    """A batch's places, grouped by row: those of group g are order[starts[g] : starts[g + 1]].

    rows: (groups,) int64, distinct, rising; starts: (groups + 1,) int64; order: (batch,) int64
    """

    rows: NDArray[np.int64]
    starts: NDArray[np.int64]
    order: NDArray[np.int64]


@kernel
def _split(keys, bits, rows, starts):  # type: ignore[no-untyped-def]
    """Sorted keys (row, place) as rows and starts; the keys become places."""
    n = 0
    mask = (1 << bits) - 1
    for at in range(len(keys)):
        row = keys[at] >> bits
        keys[at] &= mask
        if n == 0 or row != rows[n - 1]:
            rows[n] = row
            starts[n] = at
            n += 1
    starts[n] = len(keys)
    return n


def group(rows: NDArray[np.int64]) -> Groups:
    """A batch's places grouped by row; rows: (batch,) int64 below 2⁴⁰."""
    bits = len(rows).bit_length()
    keys = rows << bits
    keys |= np.arange(len(rows))
    keys.sort()  # numpy's sort of integers is vectorised, its argsort is not
    distinct, starts = np.empty(len(rows), np.int64), np.empty(len(rows) + 1, np.int64)
    n = _split(keys, bits, distinct, starts)
    return Groups(distinct[:n], starts[: n + 1], keys)


@kernel(fastmath={"reassoc"})  # a sum of floats is vectorised only if it may be taken in another order
def _scores(p, q, p_bias, q_bias, rows, starts, order, items, out):  # type: ignore[no-untyped-def]
    k = p.shape[1]
    for at in range(len(rows)):
        if at + AHEAD < len(rows):
            for byte in range(0, k * 4 + LINE, LINE):
                prefetch(p, rows[at + AHEAD], byte)
        one, bias = p[rows[at]], p_bias[rows[at], 0]
        for place in range(starts[at], starts[at + 1]):
            item = items[order[place]]
            other = q[item]
            total = bias + q_bias[item, 0]
            for f in range(k):
                total += one[f] * other[f]
            out[order[place]] = total


def scores(
    p: NDArray[np.float32],
    q: NDArray[np.float32],
    p_bias: NDArray[np.float32],
    q_bias: NDArray[np.float32],
    groups: Groups,
    items: NDArray[np.int64],
) -> NDArray[np.float32]:
    """p·q + both biases of each place, (batch,) float32; p: (n, k), q: (N, k), biases with one column; items:
    (batch,)."""
    out = np.empty(len(items), np.float32)
    _scores(p, q, p_bias, q_bias, *groups, items, out)
    return out


@kernel
def _gradients(p, q, rows, starts, order, items, slope, d_p, d_q, d_p_bias, d_q_bias):  # type: ignore[no-untyped-def]
    k = p.shape[1]
    for at in range(len(rows)):
        if at + AHEAD < len(rows):
            for byte in range(0, k * 4 + LINE, LINE):
                prefetch(p, rows[at + AHEAD], byte)
        one, d_one = p[rows[at]], d_p[at]
        for place in range(starts[at], starts[at + 1]):
            g = slope[order[place]]
            item = items[order[place]]
            other, d_other = q[item], d_q[item]
            for f in range(k):
                d_one[f] += g * other[f]
                d_other[f] += g * one[f]
            d_p_bias[at, 0] += g
            d_q_bias[item, 0] += g


def gradients(
    p: NDArray[np.float32],
    q: NDArray[np.float32],
    groups: Groups,
    items: NDArray[np.int64],
    slope: NDArray[np.float32],
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """The gradients of p's rows (groups, k), of q (N, k), of p's biases (groups, 1) and of q's (N, 1), where `slope`
    (batch,) is the loss's by the scores."""
    d_p, d_p_bias = np.zeros((len(groups.rows), p.shape[1]), np.float32), np.zeros((len(groups.rows), 1), np.float32)
    d_q, d_q_bias = np.zeros_like(q), np.zeros((len(q), 1), np.float32)
    _gradients(p, q, *groups, items, slope, d_p, d_q, d_p_bias, d_q_bias)
    return d_p, d_q, d_p_bias, d_q_bias


@kernel
def _sums(values, starts, order, out):  # type: ignore[no-untyped-def]
    for at in range(len(starts) - 1):
        total = out[at]
        total[:] = values[order[starts[at]]]
        for place in range(starts[at] + 1, starts[at + 1]):
            value = values[order[place]]
            for f in range(len(total)):
                total[f] += value[f]


def sums(values: NDArray[np.float32], groups: Groups) -> NDArray[np.float32]:
    """(batch, k) values summed by group, (groups, k) float32."""
    out = np.empty((len(groups.rows), values.shape[1]), np.float32)
    _sums(values, groups.starts, groups.order, out)
    return out


def warm() -> None:
    """Compile the kernels."""
    one = np.zeros((1, 1), np.float32)
    items = np.zeros(1, np.int64)
    groups = group(items)
    gradients(one, one, groups, items, scores(one, one, one, one, groups, items))
    sums(one, groups)
