"""Several recommenders as one: the weighted sum of their scores, each standardised over what a playlist lacks."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsys_dask.compressed import owners_of
from recsys_dask.models.base import Floats, Lists, Scorer

GRID = (0.5, 1.0, 2.0)
"""Weights that are tried, relative to each other: finer ones, and leaving one out, differed by less than the noise."""


@dataclass(frozen=True)
class Blend:
    """Scorers and their weights."""

    parts: tuple[Scorer, ...]
    weights: tuple[float, ...]

    def scores(self, lists: Lists) -> Floats:
        return weighted([standardised(part.scores(lists), lists) for part in self.parts], self.weights)


def standardised(scores: Floats, lists: Lists) -> Floats:
    """(n, N): each playlist's scores less their mean, over their standard deviation, both of the items it lacks; 0
    where all of these are equal."""
    holder = owners_of(lists.starts)
    own = scores[holder, lists.items].astype(np.float64)
    lacks = np.maximum(scores.shape[1] - np.diff(lists.starts), 1)
    mean = (scores.sum(1, dtype=np.float64) - np.bincount(holder, own, lists.n)) / lacks
    scores = scores - mean[:, None].astype(np.float32)
    own = scores[holder, lists.items].astype(np.float64)
    square = np.einsum("ij,ij->i", scores, scores, dtype=np.float64) - np.bincount(holder, own * own, lists.n)
    deviation = np.sqrt(np.maximum(square, 0) / lacks)
    scores *= np.divide(1, deviation, out=np.zeros_like(deviation), where=deviation > 1e-12)[:, None].astype(np.float32)
    return scores


def weighted(parts: Sequence[Floats], weights: Sequence[float]) -> Floats:
    """The weighted sum of standardised scores (n, N)."""
    total = parts[0] * np.float32(weights[0])
    for part, weight in zip(parts[1:], weights[1:], strict=True):
        total += part * np.float32(weight)
    return total


def best_weights(parts: Sequence[Floats], quality: Callable[[Floats], NDArray[np.float64]]) -> tuple[float, ...]:
    """Weights by validation: of the combinations of `GRID` the best one, unless equal weights are within two standard
    errors of it (of the paired difference): the best of many is so by chance, and does not transfer.

    parts: standardised scores (n, N) of some playlists; quality: (n,) of scores, higher is better
    """
    equal = (1.0,) * len(parts)
    tried: dict[tuple[float, ...], NDArray[np.float64]] = {}
    for weights in itertools.product(GRID, repeat=len(parts)):
        if weights == equal or max(weights) > min(weights):
            tried[weights] = quality(weighted(parts, weights))
    best = max(tried, key=lambda weights: tried[weights].mean())
    gain = tried[best] - tried[equal]
    return best if gain.mean() > 2 * gain.std() / len(gain) ** 0.5 else equal
