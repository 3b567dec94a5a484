"""Losses and the optimiser: against torch's own on dense tensors."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from test_playlist_loader import drawn, made

from recsys_dask.sums import add_rows, row_sums
from recsys_dask.training import losses
from recsys_dask.training.losses import PlaylistLoss
from recsys_dask.training.playlists import PlaylistLoader
from recsys_dask.training.sigmoid import logistic
from recsys_dask.training.sparse_adam import SparseAdam


def dense_loss(p, q, b, lists, ridge=0.0, weight=None):
    """By a dense matrix of labels, every score formed, by autograd."""
    x = torch.zeros(len(lists), len(q), dtype=p.dtype)
    for row, one in enumerate(lists):
        x[row, one] = 1
    scores = p @ q.T + b
    none = torch.nn.functional.binary_cross_entropy_with_logits(scores, torch.zeros_like(x), reduction="none")
    weight = torch.ones(len(q), dtype=p.dtype) if weight is None else weight
    n = sum(map(len, lists))
    return ((none * weight).sum() - (x * scores).sum() + ridge * (p * p).sum()) / n


def tensors(n, n_items, k=7, seed=0):
    generator = torch.Generator().manual_seed(seed)
    sizes = ((n, k), (n_items, k), (n_items,))
    return [torch.randn(*size, generator=generator).requires_grad_() for size in sizes]


def check(ours, theirs):
    for one, other in zip(ours, theirs, strict=True):
        assert torch.allclose(one.double(), other.double(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("scored", [None, 9])
@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize("ridge", [0.0, 2.5])
def test_loss_and_gradients_are_those_of_dense_cross_entropy(monkeypatch, scored, split, ridge) -> None:
    monkeypatch.setattr(losses, "WORTH_SPLITTING", 1 if split else 1 << 60)
    monkeypatch.setattr(losses, "cores", lambda: 3)
    lists = drawn(11, 23)
    (batch,) = PlaylistLoader(made(lists, 23), 11, scored=scored, shuffle=False)
    p, q, b = tensors(11, 23)
    ours = PlaylistLoss(ridge)((p, q, b), *batch[3:])
    (2 * ours).backward()
    doubles = [part.detach().double().requires_grad_() for part in (p, q, b)]
    weight = None
    if scored:
        weight = torch.zeros(23, dtype=torch.float64)
        weight[batch[5]] = batch[6].double()
    theirs = dense_loss(*doubles, lists, ridge, weight)
    (2 * theirs).backward()
    check([ours.detach(), p.grad, q.grad, b.grad], [theirs.detach(), *(part.grad for part in doubles)])


def test_a_sampled_loss_and_its_gradient_are_right_on_average() -> None:
    lists = drawn(6, 40)
    p, q, b = tensors(6, 40, seed=2)
    full = dense_loss(p, q, b, lists)
    (by_q,) = torch.autograd.grad(full, q)
    loader = PlaylistLoader(made(lists, 40), 6, scored=15, tilt=0.5)
    values, grads = [], []
    for epoch in range(1_500):
        loader.epoch = epoch
        (batch,) = loader
        order = batch[0]
        p_there = p.detach()[order]
        loss = PlaylistLoss()((p_there, q, b), *batch[3:])
        values.append(loss.item())
        grads.append(torch.autograd.grad(loss, q)[0])
    assert abs(np.mean(values) / full.item() - 1) < 0.02
    error = (torch.stack(grads).mean(0) - by_q).norm() / by_q.norm()
    assert error < 0.05 < (grads[0] - by_q).norm() / by_q.norm()


def test_the_logistic_loss_is_right_at_all_sizes_of_score() -> None:
    values = np.concatenate([np.linspace(-120, 120, 9_001), np.linspace(-1, 1, 4_001), [0.0]]).astype(np.float32)
    scores, weight = values[None].copy(), np.full(len(values), 1, np.float32)
    exact = np.logaddexp(0, values.astype(np.float64))
    total = logistic(scores, weight, np.float32(0.5))
    assert abs(total / exact.sum() - 1) < 1e-6
    wanted = 0.5 / (1 + np.exp(-np.maximum(values.astype(np.float64), -80)))
    assert np.allclose(scores[0], wanted, rtol=1e-6, atol=0)
    for value in (-90.0, -20.0, -1e-3, 0.3, 20.0):
        one = np.array([[value]], np.float32)
        assert np.isclose(logistic(one, weight[:1], np.float32(1)), np.logaddexp(0, value), rtol=1e-6, atol=1e-30)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_score_that_is_no_number_shows_in_the_loss(bad: float) -> None:
    scores = np.zeros((2, 5), np.float32)
    scores[1, 3] = bad
    assert not np.isfinite(logistic(scores, np.ones(5, np.float32), np.float32(1)))


def test_sums_of_rows_and_their_adjoint() -> None:
    lists = drawn(9, 6)
    playlists = made(lists, 6)
    matrix = np.random.default_rng(0).normal(size=(6, 5)).astype(np.float32)
    wanted = np.array([matrix[one].sum(0) if one else np.zeros(5) for one in lists])
    assert np.allclose(row_sums(matrix, playlists.starts, playlists.items), wanted, atol=1e-6)
    values = np.random.default_rng(1).normal(size=(9, 5)).astype(np.float32)
    added = matrix.copy()
    add_rows(added, playlists.starts, playlists.items, values)
    for u, one in enumerate(lists):
        for item in one:
            matrix[item] += values[u]
    assert np.allclose(added, matrix, atol=1e-5)


def test_dense_steps_are_adamw_and_rows_step_by_themselves() -> None:
    torch.manual_seed(0)
    dense, table = torch.randn(4, 3), torch.randn(6, 3)
    ours = [dense.clone().requires_grad_(), torch.nn.Embedding.from_pretrained(table.clone(), False, sparse=True)]
    mine = SparseAdam([{"params": [ours[0]], "weight_decay": 0.1}, {"params": ours[1].parameters()}], lr=0.05)
    theirs = dense.clone().requires_grad_()
    adamw = torch.optim.AdamW([theirs], lr=0.05, betas=(0.9, 0.99), weight_decay=0.1)
    rows = [table[row].clone().requires_grad_() for row in range(6)]
    apart = [torch.optim.AdamW([row], lr=0.05, betas=(0.9, 0.99), weight_decay=0.0) for row in rows]
    for step in range(12):
        touched = torch.tensor([step % 6, (step * step + 1) % 5]).unique()
        target = torch.randn(len(touched), 3)
        loss = ((ours[1](touched) - target) ** 2).sum() + (ours[0] ** 3).sum()
        mine.zero_grad()
        loss.backward()
        mine.step()
        adamw.zero_grad()
        (theirs**3).sum().backward()
        adamw.step()
        for at, row in enumerate(touched.tolist()):
            apart[row].zero_grad()
            ((rows[row] - target[at]) ** 2).sum().backward()
            apart[row].step()
    assert torch.allclose(ours[0], theirs, atol=1e-6)
    assert torch.allclose(ours[1].weight, torch.stack(rows), atol=1e-6)
