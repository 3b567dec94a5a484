"""The article's two models in fastai learners: `EmbeddingDotBias` and `EmbeddingNN`, as `collab_learner` makes them.

Same parameters, same numbers at the start, same loss and schedule; only the playlist table, which a batch touches next
to nothing of, is updated row by row (`optimiser`), and matrix factorisation on the CPU has its two passes in compiled
kernels (`dot`).

This module imports torch and fastai at its top, to extend their classes: import it inside functions.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys_dask.errors import UsageError
from recsys_dask.training.dot import gradients, group, scores
from recsys_dask.training.optimiser import RowAdam, RowEmbedding, RowUpdates, arrays, by_rows, zeros
from recsys_dask.training.rows import NA, Rows, loaders
from recsys_dask.training.stock import (
    Adam,
    DataLoaders,
    EmbeddingDotBias,
    EmbeddingNN,
    Learner,
    emb_sz_rule,
)

KINDS = ("mf", "mlp")
PER_BATCH = frozenset(
    "before_batch after_pred after_loss before_backward after_cancel_backward after_backward before_step "
    "after_cancel_step after_step after_cancel_batch after_batch".split()
)
"""fastai's events of a batch (fastai/learner.py)."""


class DotBias(EmbeddingDotBias):
    """fastai's `EmbeddingDotBias` with playlist tables that are updated by row.

    n_users, n_items: rows of the tables, `#na#` included
    """

    def __init__(self, n_factors: int, n_users: int, n_items: int, y_range: tuple[float, float] | None = None) -> None:
        super().__init__(n_factors, n_users, n_items, y_range)
        for name in ("u_weight", "u_bias"):
            setattr(self, name, by_row(getattr(self, name)))

    def forward(self, x: Tensor) -> Tensor:
        """x: (batch, 2) int64 codes of playlist and item. Returns (batch,) float32."""
        learning = self.training and torch.is_grad_enabled() and self.u_weight.weight.requires_grad
        if x.device.type != "cpu" or not learning:
            return super().forward(x)
        score = _Scores.apply(*(table.weight for table in self.tables), self, x)
        if self.y_range is None:
            return score
        low, high = self.y_range
        return torch.sigmoid(score) * (high - low) + low

    @property
    def tables(self) -> tuple[Any, Any, Any, Any]:
        """The embeddings of playlists and items, then their biases."""
        return self.u_weight, self.i_weight, self.u_bias, self.i_bias


def squared_error(scores: Tensor, ratings: Tensor, reduction: str = "mean") -> Tensor:
    """fastai's `MSELossFlat`, of plain tensors: those that it wraps are followed through every step by Python."""
    return torch.nn.functional.mse_loss(scores.flatten(), ratings.flatten(), reduction=reduction)


class DirectLearner(Learner):
    """A `Learner` that calls a callback for a batch's events only where it has a method of that name. (fastai's looks
    for it in the callback, the learner and the model, and ignores that it is nowhere: two milliseconds a step.)"""

    def _call_one(self, event_name: str) -> None:
        if event_name not in PER_BATCH:
            super()._call_one(event_name)
            return
        for callback in sorted(self.cbs, key=lambda one: one.order):
            if hasattr(type(callback), event_name) or event_name in vars(callback):
                callback(event_name)


class _Scores(torch.autograd.Function):
    """p·q and biases; the playlists' gradients come summed by row."""

    @staticmethod
    def forward(ctx: Any, p: Tensor, q: Tensor, p_bias: Tensor, q_bias: Tensor, model: DotBias, x: Tensor) -> Tensor:
        groups, items = group(x[:, 0].numpy()), x[:, 1].numpy()
        rows = torch.from_numpy(groups.rows)
        model.u_weight.catch_up(rows)
        model.u_bias.catch_up(rows)
        ctx.tables, ctx.groups, ctx.items = (p, q, p_bias), groups, items
        a, b, c, d = arrays(p, q, p_bias, q_bias)
        return torch.from_numpy(scores(a, b, c, d, groups, items))

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Any, ...]:
        p, q, p_bias = ctx.tables
        a, b = arrays(p, q)
        d_p, d_q, d_p_bias, d_q_bias = gradients(a, b, ctx.groups, ctx.items, slope.contiguous().numpy())
        playlists = by_rows(p, ctx.groups, d_p), by_rows(p_bias, ctx.groups, d_p_bias)
        return playlists[0], torch.from_numpy(d_q), playlists[1], torch.from_numpy(d_q_bias), None, None


def by_row(table: Any) -> RowEmbedding:
    """An embedding as one that is updated by row."""
    made = RowEmbedding(1, 1)
    made.weight, (made.num_embeddings, made.embedding_dim) = table.weight, table.weight.shape
    made.weight.data = zeros(made.weight).copy_(table.weight.data)
    return made


def sizes(n_playlists: int, n_items: int) -> list[tuple[int, int]]:
    """Rows and columns of the MLP's two tables: fastai's `get_emb_sz`, `#na#` included."""
    return [(n + NA, int(emb_sz_rule(n + NA))) for n in (n_playlists, n_items)]


def article_model(
    kind: str,
    n_playlists: int,
    n_items: int,
    *,
    factors: int = 50,
    layers: tuple[int, ...] = (50, 50),
    seed: int = 0,
    dense: bool = False,
    y_range: tuple[float, float] | None = (0, 1),
) -> Any:
    """`mf` or `mlp`, initialised from `seed` as fastai's own would be after `torch.manual_seed(seed)`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if kind == "mf":
            return (EmbeddingDotBias if dense else DotBias)(factors, n_playlists + NA, n_items + NA, y_range)
        model = EmbeddingNN(sizes(n_playlists, n_items), list(layers), y_range=y_range)
    if not dense:
        model.embeds[0] = by_row(model.embeds[0])
    return model


def article_learner(
    kind: str,
    rows: Rows,
    n_playlists: int,
    n_items: int,
    *,
    device: Any = "cpu",
    seed: int = 0,
    valid: float | NDArray[np.bool_] = 0.2,
    replace: bool = False,
    batch: int = 4_096,
    wd: float = 0.1,
    path: str | Path = ".",
    dense: bool = False,
    cbs: Any = (),
    **model: Any,
) -> Learner:
    """A fastai `Learner` of the article's preset, to be trained by `fit_one_cycle(5, 5e-3)`.

    kind: mf or mlp; rows: positives and negatives; device: where tables and rows live; seed: of the start, the split
    and the order of rows; valid, replace: as `rows.loaders` has them; wd: weight decay; dense: fastai's own `Adam` on
    all rows at every step, to compare; cbs: more callbacks; model: further parameters of `article_model`

    Raises `UsageError` for another kind.
    """
    if kind not in KINDS:
        raise UsageError(f"{kind} is no model of the article's preset: give {' or '.join(KINDS)}")
    made = article_model(kind, n_playlists, n_items, seed=seed, dense=dense, **model).to(device)
    data = DataLoaders(
        *loaders(rows, batch, device=device, seed=seed, valid=valid, replace=replace), path=path, device=device
    )
    return DirectLearner(
        data,
        made,
        loss_func=squared_error,
        opt_func=Adam if dense else RowAdam,
        wd=wd,
        path=path,
        cbs=[*([] if dense else [RowUpdates()]), *cbs],
    )


class ItemVectors(NamedTuple):
    """vectors: (N, k) float32, in the order of items, without `#na#`; bias: (N,) float32, or None"""

    vectors: NDArray[np.float32]
    bias: NDArray[np.float32] | None


def item_vectors(model: Any) -> ItemVectors:
    """What the model has learned of each item."""
    if isinstance(model, EmbeddingDotBias):
        vectors, bias = (table.weight.detach().cpu().numpy()[NA:].copy() for table in (model.i_weight, model.i_bias))
        return ItemVectors(vectors, bias[:, 0])
    return ItemVectors(model.embeds[1].weight.detach().cpu().numpy()[NA:].copy(), None)
