"""How sure one can be of a mean over playlists: percentile intervals of the bootstrap, of one method or of two."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from recsys_dask.errors import UsageError

Array = NDArray[np.float64]

BLOCK = 1 << 21
"""Draws at once: some 48 MiB with their counts."""


class Interval(NamedTuple):
    """A mean and the ends of its interval, each float64: a number, or (m,) for m columns."""

    mean: Array
    low: Array
    high: Array


def bootstrap(values: Array, level: float = 0.95, samples: int = 1000, seed: int = 0) -> Interval:
    """The mean over playlists and its percentile interval, playlists drawn anew `samples` times.

    values: (n,) float64, or (n, m) for m columns that share the draws. NaNs are left out: a playlist without any
    number is never drawn, and a draw's mean of a column is over its numbers. Nothing at all gives NaNs; one playlist
    (n = 1) an interval of no width, which says nothing. `seed`: one repeats, two differ.
    Efron & Tibshirani, An introduction to the bootstrap, 1993, chapter 13.

    Raises `UsageError` for a level outside 0 to 1 or no samples.
    """
    if not 0 < level < 1:
        raise UsageError(f"level is {level}, not between 0 and 1: take 0.95")
    if samples < 1:
        raise UsageError(f"samples is {samples}, less than 1: take 1000")
    values = np.asarray(values, np.float64)
    columns = values if values.ndim == 2 else values[:, None]
    known = ~np.isnan(columns)
    drawn = known.any(axis=1)
    columns, known = columns[drawn], known[drawn]
    n_known = known.sum(axis=0)
    middle = _over(np.where(known, columns, 0.0).sum(axis=0), n_known)
    rest = np.where(known, columns - middle, 0.0)  # so that the mean of equal values is that value, not a bit beside
    mean = middle + _over(rest.sum(axis=0), n_known)
    low, high = _ends(middle + _draws(rest, known, samples, seed), (1 - level) / 2)
    shape = values.shape[1:]
    return Interval(mean.reshape(shape)[()], low.reshape(shape)[()], high.reshape(shape)[()])


def paired(a: Array, b: Array, level: float = 0.95, samples: int = 1000, seed: int = 0) -> Interval:
    """`bootstrap` of a - b: how much better a is on the same playlists, which differ more than methods do.

    a, b: (n,) or (n, m) float64, row by row of the same playlist; a NaN in either leaves the playlist out.
    The difference is beyond the noise where the interval is on one side of 0.

    Raises `UsageError` for different shapes, and as `bootstrap`.
    """
    if np.shape(a) != np.shape(b):
        raise UsageError(f"values of {np.shape(a)} and {np.shape(b)} are no pairs: score both on the same playlists")
    return bootstrap(np.asarray(a, np.float64) - np.asarray(b, np.float64), level, samples, seed)


def _draws(columns: Array, known: NDArray[np.bool_], samples: int, seed: int) -> Array:
    """(samples, m) means of draws of n rows with replacement; NaN where a draw holds no number of a column."""
    n, m = columns.shape
    means = np.full((samples, m), np.nan)
    if not n:
        return means
    rng = np.random.default_rng(seed)
    at_once = max(1, BLOCK // n)
    for start in range(0, samples, at_once):
        size = min(at_once, samples - start)
        rows = rng.integers(n, size=(size, n)) + n * np.arange(size)[:, None]
        # how often each row is drawn, multinomial: a mean is then a product of matrices
        counts = np.bincount(rows.ravel(), minlength=size * n).reshape(size, n).astype(np.float64)
        means[start : start + size] = _over(counts @ columns, counts @ known.astype(np.float64))
    return means


def _over(total: Array, n: Array) -> Array:
    return np.divide(total, n, out=np.full(np.shape(total), np.nan), where=np.asarray(n) > 0)


def _ends(means: Array, tail: float) -> tuple[Array, Array]:
    """(m,) quantiles from both ends; NaN for a column that has none."""
    ends = np.full((2, means.shape[1]), np.nan)
    some = ~np.isnan(means).all(axis=0)
    ends[:, some] = np.nanquantile(means[:, some], [tail, 1 - tail], axis=0)
    return ends[0], ends[1]
