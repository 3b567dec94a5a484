"""Models of whole playlists: forward passes and fold-ins against plain numpy and scipy; planted scenes come back."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from test_playlist_loader import drawn, lists_of, made

from recsys_dask.models.folding import curvature, first_step, fold_table
from recsys_dask.models.mf import MeanMF, SolvedMF, TableMF, _solved_there
from recsys_dask.models.mlp import MeanMLP
from recsys_dask.training.learner import fit_recipe, loaders, playlist_learner, seed_torch
from recsys_dask.training.playlists import PlaylistLoader, Playlists
from recsys_dask.training.recipes import Recipe

MODELS = [TableMF, SolvedMF, MeanMF, MeanMLP]


def filled(kind, n: int = 12, n_items: int = 20, factors: int = 6, seed: int = 0):
    torch.manual_seed(seed)
    playlists = made(drawn(n, n_items, seed), n_items)
    model = kind(playlists.n_playlists, n, factors)
    with torch.no_grad():
        for param in model.parameters():
            param.add_(0.2 * torch.randn_like(param))
    return model, playlists


def whole(playlists: Playlists):
    (batch,) = PlaylistLoader(playlists, len(playlists), shuffle=False)
    return batch[:3]


def parts_of(model):
    q, b = model.q.detach().double().numpy(), model.b.detach().double().numpy()
    return q, b


def objective(q, b, one, ridge, p):
    scores = q @ p + b
    return np.logaddexp(0, scores).sum() - scores[one].sum() + ridge * p @ p


def test_biases_start_at_the_share_of_playlists_that_hold_an_item() -> None:
    model = MeanMF(np.array([9, 0, 4]), 10, 3)
    assert np.allclose(model.bias(), np.log([1.0, 0.1, 0.5]))
    assert 0.05 < MeanMF(np.zeros(500, np.int64), 10, 20).vectors().std() < 0.15


@pytest.mark.parametrize("kind", [MeanMF, MeanMLP])
def test_a_mean_model_is_the_sum_of_its_items_over_a_power_of_their_number(kind) -> None:
    model, playlists = filled(kind)
    q, b = parts_of(model)
    wanted = []
    for one in lists_of(playlists.starts, playlists.items):
        p = sum((q[item] for item in one), np.zeros(6)) / max(len(one), 1) ** 0.75
        x = p
        if kind is MeanMLP:
            state = {name: value.double().numpy() for name, value in model.state_dict().items()}
            for at in (0, 2, 4):
                x = state[f"tower.{at}.weight"] @ x + state[f"tower.{at}.bias"]
                x = np.maximum(x, 0) if at < 4 else x
            p = p + x
        wanted.append(p)
    forward = model(*whole(playlists))
    assert np.allclose(forward[0].detach(), wanted, atol=1e-5)
    assert np.allclose(model.fold_in(playlists.starts, playlists.items), wanted, atol=1e-5)
    assert np.allclose(model.scores(playlists.starts, playlists.items), np.array(wanted) @ q.T + b, atol=1e-4)


def test_gradients_go_through_the_mean() -> None:
    model, playlists = filled(MeanMF, n=4, n_items=5, factors=3)
    model = model.double()
    starts, items = torch.from_numpy(playlists.starts), torch.from_numpy(playlists.items)
    dense = torch.zeros(4, 5, dtype=torch.float64)
    for row, one in enumerate(lists_of(playlists.starts, playlists.items)):
        dense[row, one] = 1
    size = dense.sum(1, keepdim=True).clamp(min=1) ** 0.75
    target = torch.randn(4, 3, dtype=torch.float64)
    wanted = torch.autograd.grad(((dense @ model.q / size) * target).sum(), model.q)[0]
    model = model.float()
    p, _, _ = model(torch.arange(4), starts, items)
    (p * target.float()).sum().backward()
    assert torch.allclose(model.q.grad, wanted.float(), atol=1e-5)


def test_an_mlp_starts_as_the_mean_model() -> None:
    torch.manual_seed(0)
    playlists = made(drawn(5, 9), 9)
    model = MeanMLP(playlists.n_playlists, 5, 8)
    p = model(*whole(playlists))[0]
    assert torch.equal(p, MeanMF.forward(model, *whole(playlists))[0])


@pytest.mark.parametrize("kind", [TableMF, SolvedMF])
def test_a_new_playlist_gets_the_vector_that_fits_it_best(kind) -> None:
    from scipy.optimize import minimize

    model, playlists = filled(kind, n_items=40)
    q, b = parts_of(model)
    found = model.fold_in(playlists.starts, playlists.items)
    for one, p in zip(lists_of(playlists.starts, playlists.items), found, strict=True):
        best = minimize(lambda p, one=one: objective(q, b, one, 6.0, p), np.zeros(6), method="BFGS")
        gain = objective(q, b, one, 6.0, np.zeros(6)) - best.fun
        assert objective(q, b, one, 6.0, p) - best.fun <= 1e-3 * gain + 1e-6


def test_fold_in_does_not_depend_on_who_else_is_asked_about() -> None:
    model, playlists = filled(TableMF, n=600)
    q, b = model.vectors(), model.bias()
    together = fold_table(q, b, playlists.starts, playlists.items)
    alone = made([lists_of(playlists.starts, playlists.items)[577]], 20)
    assert np.allclose(fold_table(q, b, alone.starts, alone.items), together[577], atol=1e-4)


def test_the_first_step_is_a_step_of_newtons_method_from_zero() -> None:
    model, playlists = filled(SolvedMF)
    q, b = parts_of(model)
    chance = 1 / (1 + np.exp(-b))
    wanted = []
    for one in lists_of(playlists.starts, playlists.items):
        hessian = sum(c * (1 - c) * np.outer(v, v) for c, v in zip(chance, q, strict=True)) + 20 * np.eye(6)
        hessian = hessian + 0.15 * sum((np.outer(q[i], q[i]) for i in one), np.zeros((6, 6)))
        gradient = chance @ q - sum((q[i] for i in one), np.zeros(6))
        wanted.append(-np.linalg.inv(hessian) @ gradient)
    assert np.allclose(
        first_step(model.vectors(), model.bias(), playlists.starts, playlists.items, 10.0), wanted, atol=1e-5
    )
    rows, starts, items = whole(playlists)
    assert np.allclose(model(rows, starts, items)[0], wanted, atol=1e-5)
    q, b = model.q.detach(), model.b.detach().sigmoid()
    there = _solved_there(q, curvature(q, b, 10.0), b @ q, starts, items)
    assert np.allclose(there, wanted, atol=1e-5)


def test_a_table_is_looked_up_in_training_and_folded_in_afterwards() -> None:
    model, playlists = filled(TableMF)
    rows, starts, items = whole(playlists)
    assert torch.equal(model(rows, starts, items)[0], model.p.weight[rows])
    model.eval()
    assert np.allclose(model(rows, starts, items)[0], model.fold_in(playlists.starts, playlists.items))


def planted(n: int, scenes: int, each: int, seed: int = 0) -> Playlists:
    """Playlists of some ten items, 70 % of them from one scene; items are numbered scene by scene."""
    rng = np.random.default_rng(seed)
    lists = []
    for _ in range(n):
        own = rng.integers(scenes) * each + rng.integers(each, size=10)
        lists.append(sorted({*np.where(rng.random(10) < 0.7, own, rng.integers(scenes * each, size=10)).tolist()}))
    return made(lists, scenes * each)


RECIPES = {
    TableMF: Recipe(8, 40, 32, rate=0.03, decay=0.1, ridge=1.0),
    SolvedMF: Recipe(8, 10, 32, rate=0.05, decay=0.1, ridge=1.0),
    MeanMF: Recipe(8, 10, 32, rate=0.05, decay=0.05, drop=0.5),
    MeanMLP: Recipe(8, 10, 32, rate=0.05, decay=0.05, drop=0.5),
}


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("scored", [None, 30])
def test_planted_scenes_come_back(kind, scored) -> None:
    from dataclasses import replace

    playlists = planted(600, 6, 15)
    recipe = replace(RECIPES[kind], scored=scored)

    def share(model) -> float:
        v = model.vectors() / np.linalg.norm(model.vectors(), axis=1, keepdims=True)
        near = np.argsort(-(v @ v.T - 2 * np.eye(len(v))), axis=1)[:, :10]
        return float((near // 15 == np.arange(90)[:, None] // 15).mean())

    seed_torch(0, 0)
    train, valid = loaders(playlists, recipe)
    model = kind(playlists.n_playlists, len(playlists), recipe.factors)
    if kind is SolvedMF:
        model.ridge = recipe.ridge
    assert share(model) < 0.3
    fit_recipe(playlist_learner(model, train, valid, ridge=recipe.ridge), recipe)
    assert share(model) > 0.9
