"""Adam on the rows of a table that a batch touches, equal to dense Adam: kernels on arrays, no torch.

Dense Adam moves a row at every step, touched or not: its momentum fades over some tens of steps, its weights decay at
each. A row last touched at step t₀ with parameter p, moments m and v stands after step t at

    p_t = D_t/D_t₀ · (p − m · Σ_s  w_s / (√v · β_s + ε)),      s = t₀ + 1 … t
    w_s = A_s/A_t₀ · D_t₀/D_s · lr_s / (1 − mom_s^s),          β_s = √(B_s/B_t₀ / (1 − sqr_mom^s))
    m_t = A_t/A_t₀ · m,    v_t = B_t/B_t₀ · v

with A, B, D the running products of momentum, squared momentum and decay (1 − lr · wd). This is what fastai's `Adam`
does (fastai/optimizer.py: decay first, debiasing by the current momentum, ε beside the root), for any schedule.
Only the sum depends on the element, through √v, and it is a difference of prefix sums only where ε is small beside √v:
in the article's preset gradients are means over 4,096 rows, some 1e-6, and ε = 1e-5 rules. But w falls fast where β
falls slowly, so the sum is one over a narrow distribution of β, and Gauss's quadrature with two nodes, made from the
moments Σ w_s β_s^k, k = 0 … 3, gives it: two divisions an element instead of one a skipped step. The moments are kept
for every t₀ and grow by a term a step, as long as A_t/A_t₀ is above `FORGOTTEN`: no difference of large numbers, no
underflow, any schedule. What remains: values differ from dense Adam's by 3e-6 in the mean and 6e-5 at most after 3,000
one-cycle steps with large gradients, nearly all of it from the first hundred steps, where debiasing makes β broad; by
2e-8 in the mean with gradients of the article's size.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from recsys_dask.kernels import kernel
from recsys_dask.training.prefetch import AHEAD, LINE, prefetch

FORGOTTEN = 1e-9
"""Momentum that has fallen to this share moves nothing any more."""
LEAST_DECAY = 1e-6
"""The most that a step's decay may leave of a skipped row's parameters, at the least: 1 - lr · wd ≤ 0 is no decay."""


@kernel
def _advance(products, fading, low, now, lr, mom, sqr_mom, wd, step):  # type: ignore[no-untyped-def]
    """One more step: entry `now` of the products, a term more of the moments of all entries from low on."""
    decay, squares = products[:, 0], products[:, 1]
    decay[now] = decay[now - 1] * max(1 - lr * wd, LEAST_DECAY)
    squares[now] = squares[now - 1] * max(sqr_mom, 1e-30)
    rate = lr / (1 - mom**step) / decay[now]
    debias = 1 - sqr_mom**step
    for since in range(low, now):
        entry = fading[since]
        entry[0] *= mom
        weight = rate * decay[since] * entry[0]
        beta = np.sqrt(squares[now] / squares[since] / debias)
        for power in range(4):
            entry[1 + power] += weight
            weight *= beta
    fading[now, 0] = 1
    fading[now, 1:] = 0
    while fading[low, 0] < FORGOTTEN:
        fading[low, 0] = 0  # not the thousandfold cost of denormal numbers
        low += 1
    return low


@kernel
def _nodes(moment):  # type: ignore[no-untyped-def]
    """Gauss's quadrature with two nodes made from the moments of an entry: (weight, node) twice."""
    total = moment[1]
    if total <= 0:
        return 0.0, 1.0, 0.0, 1.0
    mean = moment[2] / total
    second = moment[3] / total - mean * mean
    if second <= 1e-10 * mean * mean:
        return total, mean, 0.0, 1.0
    third = moment[4] / total - mean * (3 * second + mean * mean)
    half = third / (2 * second)
    root = np.sqrt(half * half + second)
    below, above = half - root, half + root  # relative to the mean
    if mean + below <= 0:  # by rounding alone: all β are positive
        return total, mean, 0.0, 1.0
    return total * above / (above - below), mean + below, -total * below / (above - below), mean + above


@kernel
def _fetch(p, m, v, row):  # type: ignore[no-untyped-def]
    """A row's lines will be wanted soon."""
    for byte in range(0, p.shape[1] * p.itemsize + LINE, LINE):
        prefetch(p, row, byte)
        prefetch(m, row, byte)
        prefetch(v, row, byte)


@kernel(error_model="numpy")  # a check for zero before every division would keep it from being vectorised
def _catch_up(p, m, v, last, rows, base, now, products, fading, eps):  # type: ignore[no-untyped-def]
    """Bring rows to step base + now. Returns how many were behind."""
    behind = 0
    for at in range(len(rows)):
        if at + AHEAD < len(rows):
            _fetch(p, m, v, rows[at + AHEAD])
        row = rows[at]
        since = last[row] - base
        if since == now:
            continue
        behind += 1
        weight1, beta1, weight2, beta2 = _nodes(fading[since])
        small = np.float32(eps)
        decayed = products[now, 0] / products[since, 0]
        kept, b1, b2 = np.float32(decayed), np.float32(beta1), np.float32(beta2)
        w1, w2 = np.float32(decayed * weight1), np.float32(decayed * weight2)  # alone they may exceed a float32
        b = np.float32(products[now, 1] / products[since, 1])
        a = np.float32(fading[since, 0])
        p_row, m_row, v_row = p[row], m[row], v[row]
        for f in range(len(p_row)):
            root = np.sqrt(v_row[f])
            moved = w1 / (root * b1 + small) + w2 / (root * b2 + small)
            p_row[f] = kept * p_row[f] - m_row[f] * moved
            m_row[f] *= a
            v_row[f] *= b
        last[row] = base + now
    return behind


@kernel(error_model="numpy")  # a check for zero before every division would keep it from being vectorised
def _step(p, m, v, last, rows, gradient, step, lr, mom, sqr_mom, wd, eps):  # type: ignore[no-untyped-def]
    """Adam's step number `step` on rows; gradient: (rows, k). Returns how many were not up to date."""
    behind = 0
    one = np.float32(1)
    kept = np.float32(1 - lr * wd)
    rate = np.float32(lr / (1 - mom**step))
    root_debias = np.float32(1 / np.sqrt(1 - sqr_mom**step))
    a, b, small = np.float32(mom), np.float32(sqr_mom), np.float32(eps)
    for at in range(len(rows)):
        if at + AHEAD < len(rows):
            _fetch(p, m, v, rows[at + AHEAD])
        row = rows[at]
        p_row, m_row, v_row, g_row = p[row], m[row], v[row], gradient[at]
        for f in range(len(p_row)):
            g = g_row[f]
            mean = a * m_row[f] + (one - a) * g
            square = b * v_row[f] + (one - b) * g * g
            p_row[f] = kept * p_row[f] - rate * mean / (np.sqrt(square) * root_debias + small)
            m_row[f] = mean
            v_row[f] = square
        behind += last[row] != step - 1
        last[row] = step
    return behind


@dataclass
class History:
    """What the steps since `base` do to a row that they skip; entry i is of a row last touched at step base + i.

    eps: Adam's ε

    products: (capacity, 2) float64, of decay and of squared momentum from the base on; fading: (capacity, 5) float64,
    the share of momentum that is left since then, and the four moments
    """

    base: int
    eps: float = 1e-5
    now: int = 0
    low: int = 0
    products: NDArray[np.float64] = field(default_factory=lambda: np.ones((1, 2)))
    fading: NDArray[np.float64] = field(default_factory=lambda: np.array([[1.0, 0, 0, 0, 0]]))

    def advance(self, lr: float, mom: float, sqr_mom: float, wd: float) -> int:
        """One more step with these numbers. Returns its number, from 1, since training began."""
        self.now += 1
        if self.now == len(self.products):
            more = max(1_024, self.now)
            self.products = np.concatenate([self.products, np.zeros((more, 2))])
            self.fading = np.concatenate([self.fading, np.zeros((more, 5))])
        step = self.base + self.now
        self.low = _advance(self.products, self.fading, self.low, self.now, lr, mom, sqr_mom, wd, step)
        return step

    @property
    def worn(self) -> bool:
        """Whether all rows had better be caught up now: what is left of them is too little to divide by."""
        return bool(self.products[self.now].min() < 1e-200)

    def catch_up(
        self,
        p: NDArray[np.float32],
        m: NDArray[np.float32],
        v: NDArray[np.float32],
        last: NDArray[np.int32],
        rows: NDArray[np.int64],
    ) -> int:
        """Bring some rows up to date, in place; a row may stand twice. Returns how many were behind.

        p, m, v: (n, k), parameters and moments; last: (n,), the step that each row has; rows: (r,)
        """
        return int(_catch_up(p, m, v, last, rows, self.base, self.now, self.products, self.fading, self.eps))


def step_rows(
    p: NDArray[np.float32],
    m: NDArray[np.float32],
    v: NDArray[np.float32],
    last: NDArray[np.int32],
    rows: NDArray[np.int64],
    gradient: NDArray[np.float32],
    step: int,
    *,
    lr: float,
    mom: float,
    sqr_mom: float,
    wd: float,
    eps: float,
) -> int:
    """Adam's step on distinct rows, in place; gradient: (rows, k) float32. Returns how many rows were not up to date,
    which makes the result wrong."""
    return int(_step(p, m, v, last, rows, gradient, step, lr, mom, sqr_mom, wd, eps))


def warm() -> None:
    """Compile the kernels."""
    p, m, v = (np.zeros((1, 1), np.float32) for _ in range(3))
    last, rows = np.zeros(1, np.int32), np.zeros(1, np.int64)
    history = History(0)
    step = history.advance(0.1, 0.9, 0.99, 0.1)
    history.catch_up(p, m, v, last, rows)
    step_rows(p, m, v, last, rows, p.copy(), step, lr=0.1, mom=0.9, sqr_mom=0.99, wd=0.1, eps=1e-5)
