"""Binary cross-entropy of whole playlists over all items, its gradient formed in the forward pass.

With p_u a playlist's vector, q_j and b_j an item's vector and bias, s_uj = p_u·q_j + b_j and J_u its items:

    L = (Σ_u [ Σ_j log(1 + exp s_uj) − Σ_{j in J_u} s_uj ] + ridge·Σ_u |p_u|²) / Σ_u |J_u|

The second sum needs the playlists' own items alone, so it is always exact. Where the first costs more than it gains,
it is taken over m drawn items, each weighted by 1 / its chance to be drawn (Horvitz and Thompson, 1952): an unbiased
estimate of L and of its gradient. It is to this loss what the logQ correction is to a sampled softmax (Bengio and
Senécal 2008), where a term exp(s − log Q) is exp(s) / Q.

On the CPU torch's threads meet after every small operation, and a core that is busy with something else holds them
up each time. So a batch is split among the cores once, and each does its share from the scores to the gradients.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from recsys_dask.cores import cores, split
from recsys_dask.sums import add_rows, sum_rows
from recsys_dask.training.sigmoid import logistic

WORTH_SPLITTING = 1 << 18
"""Scores a batch from which on the cores share the work; handing it over takes some 0.1 ms."""


_one_thread = partial(torch.set_num_threads, 1)


def _share(
    p: torch.Tensor, q: torch.Tensor, b: torch.Tensor, weight: torch.Tensor, scale: float
) -> tuple[float, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Σ weight·log(1 + exp s) of some playlists and scale times its gradients by p, q and b."""
    scores = torch.addmm(b, p, q.T)
    if p.device.type == "cpu":
        total: Any = logistic(scores.numpy(), weight.numpy(), np.float32(scale))
    else:
        total = (F.softplus(scores) * weight).sum()
        scores = scores.sigmoid_().mul_(weight * scale)
    return total, scores @ q, scores.T @ p, scores.sum(0)


def _add_positives(
    p: torch.Tensor,
    q: torch.Tensor,
    b: torch.Tensor,
    starts: torch.Tensor,
    items: torch.Tensor,
    scale: float,
    by_p: torch.Tensor,
    by_q: torch.Tensor,
    by_b: torch.Tensor,
) -> Any:
    """Σ s_uj over the playlists' own items; scale times its gradients is taken from those given."""
    if p.device.type == "cpu":
        own = torch.empty_like(p)
        sum_rows(q.numpy(), starts.numpy(), items.numpy(), own.numpy())
        add_rows(by_q.numpy(), starts.numpy(), items.numpy(), (p * -scale).numpy())
    else:
        playlist = torch.repeat_interleave(torch.arange(len(p), device=p.device), starts.diff())
        own = torch.zeros_like(p).index_add_(0, playlist, q[items])
        by_q.index_add_(0, items, p[playlist], alpha=-scale)
    count = torch.bincount(items, minlength=len(b))
    by_p.add_(own, alpha=-scale)
    by_b.add_(count, alpha=-scale)
    return (p * own).sum() + (count * b).sum()


class _WholePlaylists(torch.autograd.Function):
    """The loss above without its ridge; float32 also within mixed precision, where 1/N would vanish."""

    @staticmethod
    @torch.amp.custom_fwd(device_type="cuda", cast_inputs=torch.float32)
    def forward(ctx: Any, p: Any, q: Any, b: Any, starts: Any, items: Any, scored: Any, weight: Any) -> torch.Tensor:
        p, q, b = p.detach().contiguous(), q.detach(), b.detach()
        scale = 1.0 / max(len(items), 1)
        some = len(scored) > 0
        at_q, at_b = (q[scored], b[scored]) if some else (q, b)
        weight = weight if some else torch.ones_like(b)
        worth = len(p) * len(at_b) >= WORTH_SPLITTING and p.device.type == "cpu"
        parts = min(cores(), len(p)) if worth else 1
        shares = split(lambda part: _share(p[part], at_q, at_b, weight, scale), len(p), parts, _one_thread)
        total = sum(share[0] for share in shares)
        by_p = torch.cat([share[1] for share in shares])
        by_q, by_b = shares[0][2], shares[0][3]
        for share in shares[1:]:
            by_q, by_b = by_q.add_(share[2]), by_b.add_(share[3])
        if some:  # an item is drawn at most once
            by_q = torch.zeros_like(q).index_copy_(0, scored, by_q)
            by_b = torch.zeros_like(b).index_copy_(0, scored, by_b)
        by_q = by_q.contiguous()
        linear = _add_positives(p, q, b, starts, items, scale, by_p, by_q, by_b)
        ctx.save_for_backward(by_p, by_q, by_b)
        return torch.as_tensor((total - linear) * scale, dtype=torch.float32, device=p.device)

    @staticmethod
    @torch.amp.custom_bwd(device_type="cuda")
    def backward(ctx: Any, *grads: Any) -> Any:
        by_p, by_q, by_b = ctx.saved_tensors
        return by_p * grads[0], by_q * grads[0], by_b * grads[0], None, None, None, None


class PlaylistLoss:
    """The loss of a batch of `PlaylistLoader`, from what a model gives: p (n, k), q (N, k), b (N,).

    ridge: of |p_u|², summed over the playlists as the cross-entropy is
    """

    def __init__(self, ridge: float = 0.0):
        self.ridge = ridge

    def __call__(
        self,
        vectors: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
        starts: torch.Tensor,
        items: torch.Tensor,
        scored: torch.Tensor,
        weight: torch.Tensor,
    ) -> torch.Tensor:
        p, q, b = vectors
        loss = _WholePlaylists.apply(p, q, b, starts, items, scored, weight)
        return loss + self.ridge / max(len(items), 1) * p.pow(2).sum() if self.ridge else loss
