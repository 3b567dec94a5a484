"""Sums over pairs: weighted counts of playlists' inputs as one dense matrix, and what a matrix has for a group."""

from __future__ import annotations

import numpy as np

from recsys_dask.kernels import kernel


@kernel
def add_pairs(starts, inputs, weight, turn, turns, out):  # type: ignore[no-untyped-def]
    """`out[a, b] += weight[u]` for the inputs a ≤ b of every playlist u, of the rows a with a % turns == turn.

    starts (n + 1,) int64; inputs int32, rising in each playlist; weight (n,) float64; out (inputs, inputs) float64.
    Each entry is summed playlist by playlist, whatever the number of turns.
    """
    for u in range(len(starts) - 1):
        for i in range(starts[u], starts[u + 1]):
            a = inputs[i]
            if a % turns == turn:
                for j in range(i, starts[u + 1]):
                    out[a, inputs[j]] += weight[u]


@kernel
def sum_within(starts, members, matrix, turn, turns, out):  # type: ignore[no-untyped-def]
    """`out[j]` = Σ matrix[u, v] over all u and v of group j, of the groups j with j % turns == turn.

    starts (groups + 1,) int64; members int32; matrix (n, n) float64, symmetric; out (groups,) float64.
    """
    for j in range(turn, len(starts) - 1, turns):
        diagonal = above = 0.0
        for i in range(starts[j], starts[j + 1]):
            row = matrix[members[i]]
            diagonal += row[members[i]]
            for k in range(i + 1, starts[j + 1]):
                above += row[members[k]]
        out[j] = diagonal + 2 * above


def warm() -> None:
    """Compile the kernels of this module."""
    sum_within(np.array([0, 1]), np.zeros(1, np.int32), np.ones((1, 1)), 0, 1, np.zeros(1))
    add_pairs(np.array([0, 1]), np.zeros(1, np.int32), np.ones(1), 0, 1, np.zeros((1, 1)))
