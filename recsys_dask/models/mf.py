"""Matrix factorisation for whole playlists, as torch modules: with a table of playlists, and without one."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from recsys_dask.models.folding import FIRST_OWN, curvature, fold_mean, fold_table, solved
from recsys_dask.sums import add_rows, sum_rows

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Items = NDArray[np.int32]
Vectors = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


class RowSums(torch.autograd.Function):
    """`Σ matrix[i]` over the items of each list: (n, k). Its gradient by the matrix is dense."""

    @staticmethod
    @torch.amp.custom_fwd(device_type="cuda", cast_inputs=torch.float32)
    def forward(ctx: Any, matrix: Any, starts: Any, items: Any) -> torch.Tensor:
        ctx.save_for_backward(starts, items)
        ctx.rows = len(matrix)
        sums = matrix.new_empty(len(starts) - 1, matrix.shape[1])
        if matrix.device.type == "cpu":
            sum_rows(matrix.detach().numpy(), starts.numpy(), items.numpy(), sums.numpy())
            return sums
        return sums.zero_().index_add_(0, _list_of(starts), matrix.detach()[items])

    @staticmethod
    @torch.amp.custom_bwd(device_type="cuda")
    def backward(ctx: Any, *grads: Any) -> Any:
        starts, items = ctx.saved_tensors
        grad = grads[0].contiguous()
        by_matrix = grad.new_zeros(ctx.rows, grad.shape[1])
        if grad.device.type == "cpu":
            add_rows(by_matrix.numpy(), starts.numpy(), items.numpy(), grad.numpy())
        else:
            by_matrix.index_add_(0, items, grad[_list_of(starts)])
        return by_matrix, None, None


def _list_of(starts: torch.Tensor) -> torch.Tensor:
    """For each entry, the list it is in."""
    return torch.repeat_interleave(torch.arange(len(starts) - 1, device=starts.device), starts.diff())


class ItemModel(nn.Module):
    """Item vectors q (N, k) and biases b (N,): score of item j for a playlist of vector p is q_j·p + b_j.

    b starts at the logarithm of the share of playlists that hold the item, q as N(0, 0.1).
    """

    def __init__(self, n_playlists: Ints, total: int, factors: int):
        super().__init__()
        self.q = nn.Parameter(torch.empty(len(n_playlists), factors))
        nn.init.normal_(self.q, std=0.1)
        share = (np.asarray(n_playlists, np.float64) + 1) / max(total, 1)
        self.b = nn.Parameter(torch.from_numpy(np.log(share).astype(np.float32)))

    def fold_in(self, starts: Ints, items: Items) -> Floats:
        """(n, k) float32: vectors of playlists given as a compressed-row array, known or not."""
        raise NotImplementedError

    def scores(self, starts: Ints, items: Items) -> Floats:
        """(n, N) float32: every item for every playlist, its own ones among them."""
        return self.fold_in(starts, items) @ self.vectors().T + self.bias()

    def vectors(self) -> Floats:
        """(N, k) float32: the item vectors that are compared for similarity."""
        return self.q.detach().cpu().numpy()

    def bias(self) -> Floats:
        """(N,) float32."""
        return self.b.detach().cpu().numpy()


class TableMF(ItemModel):
    """A vector a playlist in a table, looked up in training, found by the training's own objective for new ones.

    n_playlists (N,): how many playlists hold each item; total: how many there are. `fold_ridge`: of |p|² for new ones.
    """

    def __init__(self, n_playlists: Ints, total: int, factors: int = 50, fold_ridge: float = 6.0):
        super().__init__(n_playlists, total, factors)
        self.p = nn.Embedding(total, factors, sparse=True)
        nn.init.normal_(self.p.weight, std=0.1)
        self.fold_ridge = fold_ridge

    def forward(self, rows: torch.Tensor, seen_starts: torch.Tensor, seen: torch.Tensor) -> Vectors:
        """p, q, b. In evaluation the playlists are taken for new ones, of which `seen` is known."""
        if self.training:
            return self.p(rows), self.q, self.b
        p = torch.from_numpy(self.fold_in(seen_starts.cpu().numpy(), seen.cpu().numpy()))
        return p.to(self.q.device), self.q, self.b

    def fold_in(self, starts: Ints, items: Items) -> Floats:
        return fold_table(self.vectors(), self.bias(), starts, items, self.fold_ridge)


class SolvedMF(ItemModel):
    """`TableMF` without the table: a playlist's vector is solved for, from the current q and b, each time it is met.

    With p(q, b) the minimiser of a playlist's own loss, the gradient of the sum of these minima by q is the gradient
    at fixed p. So q alone is trained, on the same objective, and no epoch is spent on moving vectors of playlists: a
    quarter of the epochs will do, and a million playlists need no more memory than a thousand. One step of Newton's
    method from 0, `folding.first_step`, is close enough.

    ridge: of |p|², in training and, as `fold_ridge`, for new playlists
    """

    def __init__(self, n_playlists: Ints, total: int, factors: int = 50, ridge: float = 10.0, fold_ridge: float = 6.0):
        super().__init__(n_playlists, total, factors)
        self.ridge, self.fold_ridge = ridge, fold_ridge

    def forward(self, rows: torch.Tensor, seen_starts: torch.Tensor, seen: torch.Tensor) -> Vectors:
        """p, q, b. In evaluation the playlists are taken for new ones, of which `seen` is known."""
        if not self.training:
            p = torch.from_numpy(self.fold_in(seen_starts.cpu().numpy(), seen.cpu().numpy()))
            return p.to(self.q.device), self.q, self.b
        with torch.no_grad():
            q, chance = self.q.detach(), self.b.sigmoid()
            base, mean = curvature(q, chance, self.ridge), chance @ q
            if q.device.type == "cpu":
                arrays = (part.numpy() for part in (q, base, mean, seen_starts, seen))
                return torch.from_numpy(solved(*arrays)), self.q, self.b
            return _solved_there(q, base, mean, seen_starts, seen), self.q, self.b

    def fold_in(self, starts: Ints, items: Items) -> Floats:
        return fold_table(self.vectors(), self.bias(), starts, items, self.fold_ridge)


def _solved_there(
    q: torch.Tensor, base: torch.Tensor, mean: torch.Tensor, starts: torch.Tensor, items: torch.Tensor
) -> torch.Tensor:
    """`folding.solved` for any device, playlists padded to the longest."""
    playlist = _list_of(starts)
    at = torch.arange(len(items), device=q.device) - starts[playlist]
    padded = q.new_zeros(len(starts) - 1, int(starts.diff().max()) if len(items) else 0, q.shape[1])
    padded[playlist, at] = q[items]
    systems = torch.baddbmm(base, padded.transpose(1, 2), padded, alpha=FIRST_OWN)
    return torch.cholesky_solve((padded.sum(1) - mean)[..., None], torch.linalg.cholesky(systems))[..., 0]


class MeanMF(ItemModel):
    """A playlist's vector is Σ q_j / n^power over its n items, and the same q scores: no table of playlists."""

    def __init__(self, n_playlists: Ints, total: int, factors: int = 50, power: float = 0.75):
        super().__init__(n_playlists, total, factors)
        self.power = power

    def forward(self, rows: torch.Tensor, seen_starts: torch.Tensor, seen: torch.Tensor) -> Vectors:
        """p, q, b."""
        size = seen_starts.diff().clamp(min=1)[:, None]
        return RowSums.apply(self.q, seen_starts, seen) / size**self.power, self.q, self.b

    def fold_in(self, starts: Ints, items: Items) -> Floats:
        return fold_mean(self.vectors(), starts, items, self.power)
