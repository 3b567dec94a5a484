"""Trained models as recommenders of playlists they have not seen, from their weights alone: no torch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from recsys_dask.models.base import Floats, Lists
from recsys_dask.models.folding import fold_mean, fold_table, through_tower


@dataclass(frozen=True)
class FoldedMF:
    """`mf`: q (N, k), b (N,); a playlist's vector is solved for with this ridge of |p|²."""

    q: Floats
    b: Floats
    ridge: float = 6.0

    def scores(self, lists: Lists) -> Floats:
        return fold_table(self.q, self.b, lists.starts, lists.items, self.ridge) @ self.q.T + self.b


@dataclass(frozen=True)
class FoldedMean:
    """Of the mean of a playlist's items: `mf` of the fast preset, and with a tower `mlp`.

    layers: weight (out, in) and bias (out,) of each layer of the tower, in turn
    """

    q: Floats
    b: Floats
    layers: tuple[Floats, ...] = ()
    power: float = 0.75

    def scores(self, lists: Lists) -> Floats:
        p = fold_mean(self.q, lists.starts, lists.items, self.power)
        if self.layers:
            p = through_tower(p, list(zip(self.layers[::2], self.layers[1::2], strict=True)))
        return p @ self.q.T + self.b


def units(vectors: Floats) -> Floats:
    """(n, k): each vector over its length; zeros stay zeros."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(lengths, np.float32(1e-9)))


@dataclass(frozen=True)
class MeanOfUnits:
    """By the cosine to the mean of the playlist's unit vectors: for vectors that only say what is similar. q (N, k)."""

    q: Floats

    def scores(self, lists: Lists) -> Floats:
        unit = units(self.q)
        return fold_mean(unit, lists.starts, lists.items, 1.0) @ unit.T
