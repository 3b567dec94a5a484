"""Weighted pair counts of playlists' inputs as one dense matrix."""

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


def warm() -> None:
    """Compile the kernels of this module."""
    add_pairs(np.array([0, 1]), np.zeros(1, np.int32), np.ones(1), 0, 1, np.zeros((1, 1)))
