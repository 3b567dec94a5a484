"""A multi-layer perceptron for whole playlists: the mean of the items' vectors, corrected by a small tower."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from recsys_dask.models.folding import through_tower
from recsys_dask.models.mf import MeanMF, Vectors


class MeanMLP(MeanMF):
    """`MeanMF` whose playlist vector is p + MLP(p). The last layer starts at zero, so training starts at `MeanMF`."""

    def __init__(
        self,
        n_playlists: NDArray[np.int64],
        total: int,
        factors: int = 128,
        power: float = 0.75,
        layers: Sequence[int] = (50, 50),
    ):
        super().__init__(n_playlists, total, factors, power)
        widths = [factors, *layers, factors]
        linear = [nn.Linear(a, b) for a, b in pairwise(widths)]
        nn.init.zeros_(linear[-1].weight)
        nn.init.zeros_(linear[-1].bias)
        between = [part for layer in linear[:-1] for part in (layer, nn.ReLU())]
        self.tower = nn.Sequential(*between, linear[-1])

    def forward(self, rows: torch.Tensor, seen_starts: torch.Tensor, seen: torch.Tensor) -> Vectors:
        """p, q, b."""
        p, q, b = super().forward(rows, seen_starts, seen)
        return p + self.tower(p), q, b

    def layers(self) -> list[tuple[NDArray[np.float32], NDArray[np.float32]]]:
        """Weight and bias of each layer of the tower."""
        linear = [layer for layer in self.tower if isinstance(layer, nn.Linear)]
        return [(one.weight.detach().cpu().numpy(), one.bias.detach().cpu().numpy()) for one in linear]

    def fold_in(self, starts: NDArray[np.int64], items: NDArray[np.int32]) -> NDArray[np.float32]:
        return through_tower(super().fold_in(starts, items), self.layers())
