"""Skip-gram with negative sampling over playlists as sets, as a torch module.

Barkan and Koenigstein, Item2vec: neural item embedding for collaborative filtering, MLSP 2016; Mikolov et al.,
Distributed representations of words and phrases and their compositionality, NIPS 2013.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.functional import embedding, logsigmoid

Floats = NDArray[np.float32]


class Item2Vec(nn.Module):
    """Two vectors an item, (N, k) each: `q` as the item that predicts, `context` as one that is predicted.

    n_playlists (N,): how many playlists hold each item, of `total`. For each item of a playlist `contexts` others of
    it are drawn, and for each of these `negatives` items of all, with chances ∝ n_playlists**tilt. The negatives of a
    batch are one sample, which every item of it is compared with, weighted to that number: a product of matrices
    instead of as many look-ups, with the same expectation.
    """

    def __init__(
        self,
        n_playlists: NDArray[np.int64],
        total: int,
        factors: int = 50,
        contexts: int = 5,
        negatives: int = 5,
        tilt: float = 0.75,
        sample: int = 300,
    ):
        super().__init__()
        self.q = nn.Parameter(torch.empty(len(n_playlists), factors))
        nn.init.uniform_(self.q, -0.5 / factors, 0.5 / factors)
        self.context = nn.Parameter(torch.zeros(len(n_playlists), factors))
        chance = np.maximum(np.asarray(n_playlists, np.float64), 1e-9) ** tilt
        self.register_buffer("chance", torch.from_numpy((chance / chance.sum()).astype(np.float32)), persistent=False)
        self.contexts, self.negatives, self.sample = contexts, negatives, sample

    def forward(self, rows: torch.Tensor, seen_starts: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
        """The batch's mean loss of a drawn context and its negatives, of playlists of two items or more."""
        length = seen_starts.diff()
        holder = torch.repeat_interleave(torch.arange(len(length), device=seen.device), length)
        several = length[holder] > 1
        holder, item = holder[several], seen[several].long()
        if not len(item):
            return (self.q.sum() + self.context.sum()) * 0
        at = torch.arange(len(seen), device=seen.device)[several] - seen_starts[holder]
        # one of the others: a step of 1 … n − 1 onward, around
        step = 1 + (torch.rand(len(item), self.contexts, device=seen.device) * (length[holder] - 1)[:, None]).long()
        other = (at[:, None] + step) % length[holder][:, None] + seen_starts[holder][:, None]
        vectors = embedding(item, self.q)  # not by index: the gradient of that is slow, and of no fixed order
        near = (vectors[:, None] * embedding(seen[other].long(), self.context)).sum(2)
        drawn = torch.multinomial(self.get_buffer("chance"), self.sample, replacement=True)
        far = vectors @ embedding(drawn, self.context).T
        weight = self.negatives * self.contexts / self.sample
        return -(logsigmoid(near).sum() + weight * logsigmoid(-far).sum()) / (len(item) * self.contexts)

    def vectors(self) -> Floats:
        """(N, k) float32: the item vectors that are compared for similarity."""
        return self.q.detach().cpu().numpy()

    def bias(self) -> None:
        """There is none."""


def mean_loss(loss: torch.Tensor, *_: Any) -> torch.Tensor:
    """What `Item2Vec` gives is its loss already."""
    return loss
