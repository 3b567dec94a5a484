"""Linear recommenders in closed form: EASE, and a regression of each item on all inputs with what EASE lacks.

EASE (Steck, Embarrassingly shallow autoencoders for sparse data, WWW 2019): B = −P / diag P with P = (XᵀX + λI)⁻¹.

linear: item j is regressed on all inputs Z, items and further ones, with row weights w_u ∝ 1/√n_u and a ridge λ_i an
input. That alone is U_j = −λ_j·P_·j with P = (ZᵀWZ + Λ)⁻¹, and lets j explain itself. Left out of its own
regression, with the inputs S that it owns, it is F_j = −P_·S·(P_SS)⁻¹e_j (EASE is this for S = {j}). Between them
lies what recommends best: B_j = ((1 − κ)·U_j + κ·F_j)·pop_j^−δ.

The same from the playlists' side, which costs playlists³ and not inputs³: with M = (ZΛ⁻¹Zᵀ + W⁻¹)⁻¹ a playlist's
scores are its row of kernels ZΛ⁻¹Zᵀ times A_j = M(x_j + κ·Z_S·v)·pop_j^−δ, where (I − H)v = Z_SᵀMx_j, H = Z_SᵀMZ_S
and the columns Z_S are scaled by Λ^−½.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from recsys_dask.compressed import inverted, owners_of, starts_of
from recsys_dask.cores import cores, shared, split
from recsys_dask.models.base import Data, Floats, Ints, Items, Lists
from recsys_dask.models.gram import add_pairs, sum_within
from recsys_dask.sums import row_sums

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Shape:
    """The constants of `linear`. ridge: λ of an item of mean popularity, which grows with its root; owned, other: λ of
    a further input that an item owns, and of one that stands by itself; kappa, delta: κ and δ."""

    ridge: float
    kappa: float
    delta: float
    owned: float = 300.0
    other: float = 225.0


BLOCK = 1_024
"""Items whose columns are multiplied at a time."""

ALONE, WITH_INPUTS = Shape(150.0, 0.7, 0.15), Shape(225.0, 0.8, 0.17)
"""Found by validation on real playlists; the first serves items alone."""


@dataclass(frozen=True)
class Weights:
    """Scores are sums of the rows of `by_input` (N + m, N) float32 over a playlist's inputs, items first; `extras`
    (m,): which of all further inputs are among them, rising."""

    by_input: Floats
    extras: Items

    def scores(self, lists: Lists) -> Floats:
        return _summed(self.by_input, *inputs_of(lists, self.by_input.shape[1], self.extras))

    def by_item(self) -> Floats:
        """(N, N): what an item adds to the score of another one; its own column means nothing."""
        return self.by_input[: self.by_input.shape[1]]


@dataclass(frozen=True)
class Kernels:
    """Scores by playlists of the training: those that hold an input (`starts`, `holders`: a compressed-row array over
    the inputs) weigh `scale` (inputs,), and `by_playlist` (playlists, N) is summed by these weights."""

    starts: Ints
    holders: Items
    scale: Floats
    by_playlist: Floats
    extras: Items

    def scores(self, lists: Lists) -> Floats:
        from scipy.sparse import csr_matrix

        starts, inputs = inputs_of(lists, self.by_playlist.shape[1], self.extras)
        n_inputs, n_playlists = len(self.scale), len(self.by_playlist)
        held = csr_matrix((np.ones(len(inputs), np.float32), inputs, starts), (lists.n, n_inputs))
        weighs = csr_matrix(
            (np.repeat(self.scale, np.diff(self.starts)), self.holders, self.starts), (n_inputs, n_playlists)
        )
        return (held @ weighs).toarray() @ self.by_playlist

    def by_item(self) -> Floats:
        """(N, N): what an item adds to the score of another one; its own column means nothing."""
        n_items = self.by_playlist.shape[1]
        sums = _summed(self.by_playlist, self.starts[: n_items + 1], self.holders)
        sums *= self.scale[:n_items, None]
        return sums


def inputs_of(lists: Lists, n_items: int, extras: Items) -> tuple[Ints, Items]:
    """Each playlist's inputs as a compressed-row array: its items, then its further inputs that are among `extras`."""
    place = np.searchsorted(extras, lists.extras)
    known = np.zeros(len(place), bool)
    known[place < len(extras)] = extras[place[place < len(extras)]] == lists.extras[place < len(extras)]
    holder = owners_of(lists.extra_starts)[known]
    n_items_of, n_extras_of = np.diff(lists.starts), np.bincount(holder, minlength=lists.n)
    starts = starts_of(n_items_of + n_extras_of)
    out = np.empty(starts[-1], np.int32)
    shift = starts[:-1] - lists.starts[:-1]
    out[np.arange(len(lists.items)) + np.repeat(shift, n_items_of)] = lists.items
    shift = starts[:-1] + n_items_of - starts_of(n_extras_of)[:-1]
    out[np.arange(len(holder)) + np.repeat(shift, n_extras_of)] = n_items + place[known]
    return starts, out


def _summed(matrix: Floats, starts: Ints, inputs: Items) -> Floats:
    """`row_sums`, the cores sharing the playlists."""
    parts = split(
        lambda part: row_sums(matrix, starts[part.start : part.stop + 1], inputs),
        len(starts) - 1,
        shared(len(starts) - 1, 8),
    )
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


# ------------------------------------------------------------------------------------------------------- fits


def ease(data: Data, ridge: float) -> Weights:
    """EASE of ridge λ on the items alone."""
    gram = _gram(data.lists.starts, data.lists.items, data.n_items, np.ones(data.lists.n))
    gram[np.diag_indices(data.n_items)] += ridge
    p = _inverse(gram)
    weights = (p / -np.diag(p)).astype(np.float32)
    np.fill_diagonal(weights, 0)
    return Weights(weights, np.zeros(0, np.int32))


def linear(data: Data, shape: Shape, extras: Items, primal: bool | None = None) -> Weights | Kernels:
    """Fit on the items and on `extras` (m,), places among the further inputs, rising.

    primal: by the inputs' side or by the playlists'; None: by the one with fewer. Both score alike.
    """
    n_inputs = data.n_items + len(extras)
    if primal is None:
        primal = n_inputs <= data.lists.n
    popularity = np.maximum(data.n_playlists(), 1).astype(float)
    mean = max(data.lists.starts[-1], 1) / max(data.n_items, 1)
    own = data.owner[extras]
    ridge = np.concatenate(
        [shape.ridge * np.sqrt(popularity / mean), np.where(own >= 0, shape.owned, shape.other).astype(float)]
    )
    root = np.sqrt(np.maximum(np.diff(data.lists.starts), 1))
    heavy = root * (len(root) / max(root.sum(), 1))
    starts, inputs = inputs_of(data.lists, data.n_items, extras)
    groups = _groups(data.n_items, own)
    fall = popularity**-shape.delta
    if primal:
        gram = _gram(starts, inputs, n_inputs, 1 / heavy)
        gram[np.diag_indices(n_inputs)] += ridge
        return Weights(_by_input(_inverse(gram), ridge, groups, shape.kappa, fall), extras)
    return _by_playlist(starts, inputs, n_inputs, ridge, heavy, groups, shape.kappa, fall, extras)


def _groups(n_items: int, own: Items) -> tuple[Ints, Ints]:
    """For each item, itself and the inputs that it owns, as a compressed-row array."""
    owned = np.flatnonzero(own >= 0)
    item = np.concatenate([np.arange(n_items), own[owned]])
    order = np.argsort(item, kind="stable")
    return starts_of(np.bincount(item, minlength=n_items)), np.concatenate([np.arange(n_items), n_items + owned])[order]


def _gram(starts: Ints, inputs: Items, n_inputs: int, weight: Array) -> Array:
    """(n_inputs, n_inputs) float64, the upper triangle of Σ_u weight_u·z_u·z_uᵀ, the rest 0."""
    out = np.zeros((n_inputs, n_inputs))
    turns = cores()
    split(lambda turn: add_pairs(starts, inputs, weight, turn.start, turns, out), turns, turns)
    return out


def _inverse(matrix: Array) -> Array:
    """Of a symmetric positive definite matrix, given by its upper triangle, in its own memory.

    Raises `numpy.linalg.LinAlgError` for another one.
    """
    from scipy.linalg import lapack

    matrix = np.asarray(matrix.T)  # in the order that LAPACK takes
    matrix, minor = lapack.dpotrf(matrix, lower=1, overwrite_a=1)
    if minor:
        raise np.linalg.LinAlgError(f"the leading minor of order {minor} is not positive definite")
    matrix, _ = lapack.dpotri(matrix, lower=1, overwrite_c=1)
    for low in range(0, len(matrix), 256):  # mirrored a stripe at a time: no second matrix
        matrix[low : low + 256, low + 256 :] = matrix[low + 256 :, low : low + 256].T
        block = matrix[low : low + 256, low : low + 256]
        block[...] = np.tril(block) + np.tril(block, -1).T
    return np.asarray(matrix.T)  # symmetric: the same, row by row, as scipy's products take it without a copy


def _by_input(p: Array, ridge: Array, groups: tuple[Ints, Ints], kappa: float, fall: Array) -> Floats:
    starts, members = groups
    out = np.empty((len(p), len(starts) - 1), np.float32)

    def work(part: slice) -> None:
        for j in range(part.start, part.stop):
            group = members[starts[j] : starts[j + 1]]
            within = np.zeros(len(group))
            within[0] = 1
            left_out = np.linalg.solve(p[np.ix_(group, group)], within) @ p[group]
            column = ((kappa - 1) * ridge[j] * p[j] - kappa * left_out) * fall[j]
            column[group] = 0
            out[:, j] = column

    with threadpool_limits(1, "blas"):  # of small systems, many: threads of their own only wait for each other
        split(work, len(starts) - 1, shared(len(starts) - 1, 64))
    return out


def _by_playlist(
    starts: Ints,
    inputs: Items,
    n_inputs: int,
    ridge: Array,
    heavy: Array,
    groups: tuple[Ints, Ints],
    kappa: float,
    fall: Array,
    extras: Items,
) -> Kernels:
    from scipy.sparse import csr_matrix

    n = len(starts) - 1
    scale = ridge**-0.5
    z = csr_matrix((scale[inputs], inputs, starts), (n, n_inputs))
    kernel = np.asarray((z @ z.T).toarray())
    kernel[np.diag_indices(n)] += heavy
    m = _inverse(kernel)
    holder_starts, holders = inverted(starts, inputs, n_inputs)
    by_input = csr_matrix((np.repeat(scale, np.diff(holder_starts)), holders, holder_starts), (n_inputs, n))
    group_starts, members = groups
    n_items = len(group_starts) - 1
    of_items = holder_starts[: n_items + 1]
    within, turns = np.empty(n_items), cores()  # x_jᵀMx_j
    split(lambda turn: sum_within(of_items, holders, m, turn.start, turns, within), turns, turns)
    h = within / ridge[:n_items]
    alone = np.diff(group_starts) == 1
    out = np.zeros((n, n_items), np.float32)
    out[holders[: of_items[-1]], owners_of(of_items)] = 1
    out *= (np.where(alone, 1 + kappa * h / (1 - h), 1.0) * fall).astype(np.float32)
    several = np.flatnonzero(~alone)

    def work(part: slice) -> None:
        for j in several[part].tolist():
            own: Any = by_input[members[group_starts[j] : group_starts[j + 1]]]
            through = own @ m
            inner = np.eye(own.shape[0]) - np.asarray(own @ through.T)
            v = np.linalg.solve(inner, through @ (out[:, j] > 0))
            out[:, j] += (kappa * fall[j]) * (own.T @ v)

    with threadpool_limits(1, "blas"):
        split(work, len(several), shared(len(several), 64))
    coefficients = _product(m, out)
    return Kernels(holder_starts, holders, (1 / ridge).astype(np.float32), coefficients, extras)


def _product(m: Array, right: Floats) -> Floats:
    """m·right in place of `right`, a block of columns at a time, in single precision."""
    short = m.astype(np.float32)
    for low in range(0, right.shape[1], BLOCK):
        right[:, low : low + BLOCK] = short @ right[:, low : low + BLOCK]
    return right
