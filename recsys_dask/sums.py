"""Sums of rows of a float32 matrix over lists of its places, and their adjoint: without the lists as a matrix."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from recsys_dask.kernels import kernel


@kernel
def sum_rows(matrix, starts, items, sums):  # type: ignore[no-untyped-def]
    """`sums[u] = Σ matrix[i]` over the items of list u, which are `items[starts[u]:starts[u + 1]]`.

    matrix (N, k) float32, starts (n + 1,) int64, items int32, sums (n, k) float32, overwritten.
    """
    k = matrix.shape[1]
    for u in range(len(starts) - 1):
        for f in range(k):
            sums[u, f] = 0
        for at in range(starts[u], starts[u + 1]):
            item = items[at]
            for f in range(k):
                sums[u, f] += matrix[item, f]


@kernel
def add_rows(matrix, starts, items, values):  # type: ignore[no-untyped-def]
    """`matrix[i] += values[u]` for every item i of every list u, lists in their order. Types as in `sum_rows`."""
    k = matrix.shape[1]
    for u in range(len(starts) - 1):
        for at in range(starts[u], starts[u + 1]):
            item = items[at]
            for f in range(k):
                matrix[item, f] += values[u, f]


def row_sums(matrix: NDArray[np.float32], starts: NDArray[np.int64], items: NDArray[np.int32]) -> NDArray[np.float32]:
    """(n, k) float32: for each list the sum of its rows of `matrix` (N, k); zeros for an empty list."""
    sums = np.empty((len(starts) - 1, matrix.shape[1]), np.float32)
    sum_rows(np.ascontiguousarray(matrix), starts, items, sums)
    return sums


def warm() -> None:
    """Compile the kernels of this module."""
    matrix, starts, items = np.ones((1, 1), np.float32), np.array([0, 1]), np.zeros(1, np.int32)
    add_rows(matrix, starts, items, row_sums(matrix, starts, items))
