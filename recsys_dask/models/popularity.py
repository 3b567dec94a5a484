"""What most playlists hold, the same for everybody: what every other method has to beat."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from recsys_dask.models.base import Floats, Lists


@dataclass(frozen=True)
class Popularity:
    """share (N,) float32: of the playlists that hold each item."""

    share: Floats

    def scores(self, lists: Lists) -> Floats:
        return np.tile(self.share, (lists.n, 1))


@dataclass(frozen=True)
class Random:
    """Every item as likely as any other, by a seed and what the playlist holds: the floor of an evaluation."""

    n_items: int
    seed: int

    def scores(self, lists: Lists) -> Floats:
        scores = np.empty((lists.n, self.n_items), np.float32)
        for row, items in zip(scores, np.split(lists.items, lists.starts[1:-1]), strict=False):
            np.random.default_rng([self.seed, *items.tolist()]).random(dtype=np.float32, out=row)
        return scores
