"""Fitting: fastai's own tools, seeds, progress, validation, interruption, faults."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from fastai.callback.core import Callback
from test_models import planted

from recsys_dask.errors import BudgetError, TrainingError, UsageError
from recsys_dask.models.mf import MeanMF, SolvedMF, TableMF
from recsys_dask.models.mlp import MeanMLP
from recsys_dask.training.learner import Epoch, fit, fit_recipe, loaders, pick_device, playlist_learner, seed_torch
from recsys_dask.training.recipes import MODELS, Recipe, recipe

KINDS = [TableMF, SolvedMF, MeanMF, MeanMLP]
SMALL = Recipe(6, 3, 16, rate=0.03, decay=0.1, ridge=1.0, drop=0.5)
PLAYLISTS = planted(120, 4, 8)


def learner_of(kind=MeanMF, held: int = 20, seed: int = 0, recipe: Recipe = SMALL, **options):
    seed_torch(seed, 0)
    train, valid = loaders(PLAYLISTS, recipe, held=held, seed=seed, device="cpu")
    model = kind(PLAYLISTS.n_playlists, train.n, recipe.factors)
    return playlist_learner(model, train, valid, ridge=recipe.ridge, **options)


def state_of(learner):
    return {name: value.clone() for name, value in learner.model.state_dict().items()}


def same(one, other) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("kind", KINDS)
def test_one_seed_one_result(kind) -> None:
    def fitted(seed: int):
        torch.rand(seed + 1)  # what was drawn before does not matter
        learner = learner_of(kind, seed=seed)
        history = fit_recipe(learner, SMALL, seed=seed)
        return state_of(learner), [(one.train_loss, one.valid_loss) for one in history]

    (first, losses), (again, same_losses), (other, _) = fitted(1), fitted(1), fitted(2)
    assert same(first, again) and losses == same_losses
    assert not torch.equal(first["q"], other["q"])


def test_a_fit_leaves_torchs_generator_and_threads_alone() -> None:
    learner = learner_of()
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    fit_recipe(learner, SMALL)
    assert torch.equal(before, torch.get_rng_state()) and threads == torch.get_num_threads()


@pytest.mark.parametrize("kind", KINDS)
def test_progress_is_told_epoch_by_epoch(kind) -> None:
    told: list[Epoch] = []
    history = fit_recipe(learner_of(kind), SMALL, progress=told.append)
    assert told == history and [one.epoch for one in told] == [1, 2, 3]
    assert told[-1].train_loss < told[0].train_loss
    assert all(one.rows_per_s > 0 and one.seconds > 0 for one in told)
    assert told[-1].rate < 1e-3 < told[0].rate  # one cycle has come to its end


def test_the_losses_are_the_means_of_what_the_batches_gave() -> None:
    class Losses(Callback):
        def before_fit(self):
            self.train_list, self.valid_list = [], []

        def after_batch(self):
            (self.train_list if self.training else self.valid_list).append(self.learn.loss.item())

    learner = learner_of(held=16)
    seen = Losses()
    history = fit(learner, 1, 0.01, 0.0, progress=None) if learner.add_cb(seen) else []
    assert np.isclose(history[0].train_loss, np.mean(seen.train_list))
    assert np.isclose(history[0].valid_loss, seen.valid_list[0]) and len(seen.valid_list) == 1


def test_without_playlists_held_back_there_is_no_validation_loss() -> None:
    assert [one.valid_loss for one in fit_recipe(learner_of(held=0), SMALL)] == [None] * 3


def test_fastais_own_tools_work(tmp_path) -> None:
    from fastai.callback.fp16 import MixedPrecision
    from fastai.callback.progress import CSVLogger

    for kind in (SolvedMF, TableMF, MeanMLP):
        learner = learner_of(kind, path=tmp_path, cbs=[CSVLogger()])
        before = state_of(learner)
        suggested = learner.lr_find(num_it=20, show_plot=False)
        assert 1e-8 < suggested.valley < 10 and same(before, state_of(learner))
        with learner.no_logging():
            learner.fit_one_cycle(2, 0.02)
        lines = (tmp_path / "history.csv").read_text().splitlines()
        assert lines[0] == "epoch,train_loss,valid_loss,time" and len(lines) == 3
        assert not same(before, state_of(learner))
    learner = learner_of(cbs=[MixedPrecision()])
    with pytest.warns(UserWarning, match="CUDA|cuda"):  # on the CPU it says that it does nothing
        first, *_, last = fit_recipe(learner, SMALL)
    assert last.train_loss < first.train_loss


def test_stopping_early_and_going_back_to_the_best() -> None:
    steep = Recipe(6, 12, 16, rate=3.0, decay=0.0, ridge=0.0, drop=0.5)
    states = {}
    learner = learner_of(recipe=steep)
    history = fit_recipe(
        learner, steep, patience=2, best=True, progress=lambda one: states.update({one.epoch: state_of(learner)})
    )
    losses = [one.valid_loss for one in history]
    at = int(np.argmin(losses))
    assert len(history) == at + 3 < 12
    assert same(states[at + 1], state_of(learner)) and not same(states[len(history)], state_of(learner))


class StopIn(Callback):
    """Does something in the middle of an epoch."""

    def __init__(self, epoch, action):
        self._epoch, self._action = epoch, action

    def before_batch(self):
        if self.learn.training and self.learn.epoch == self._epoch and self.learn.iter == 2:
            self._action(self.learn)


def interrupt(learn) -> None:
    raise KeyboardInterrupt


def spoil(learn) -> None:
    with torch.no_grad():
        learn.model.q[3] = float("nan")


@pytest.mark.parametrize("action, error", [(interrupt, KeyboardInterrupt), (spoil, TrainingError)])
def test_a_stopped_fit_keeps_the_last_finished_epoch(action, error) -> None:
    states = {}
    learner = learner_of(cbs=[StopIn(2, action)])
    with pytest.raises(error) as caught:
        fit_recipe(learner, SMALL, progress=lambda one: states.update({one.epoch: state_of(learner)}))
    assert list(states) == [1, 2] and same(states[2], state_of(learner))
    if error is TrainingError:
        assert "not a number in epoch 3, batch 3, at a learning rate of" in str(caught.value)


def test_a_rate_that_is_far_too_high_is_named() -> None:
    with pytest.raises(TrainingError, match="epoch 1.*1e\\+3[0-9]|rate of"):
        fit(learner_of(), 2, 1e38, 0.0)


def test_too_small_a_gpu_is_an_error_with_the_sizes(monkeypatch) -> None:
    def full(learn) -> None:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    class Properties:
        total_memory = 8 << 30

    learner = learner_of()
    monkeypatch.setattr(learner, "model", copy.deepcopy(learner.model))
    monkeypatch.setattr(learner, "loss_func", lambda *_: full(learner))
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: Properties)
    with pytest.raises(BudgetError, match=r"has 8\.6 GB.*parameters of 0\.00 GB.*batches of 16"):
        fit_recipe(learner, SMALL)


def test_devices() -> None:
    assert pick_device("cpu") == "cpu"
    assert pick_device(None) == ("cuda" if torch.cuda.is_available() else "cpu")
    for name in ("gpu", "cuda:x", "cpu:1", ""):
        with pytest.raises(UsageError, match="give cpu or cuda"):
            pick_device(name)
    with pytest.raises(UsageError, match="CUDA devices are here"):
        pick_device("cuda:99")


def test_recipes_follow_the_numbers() -> None:
    for model in set(MODELS) - {"item2vec"}:  # which draws negatives of its own
        few, many = recipe(model, 4_000, 6_000), recipe(model, 1_000_000, 10_000)
        assert few.epochs > many.epochs >= 3 and few.scored is None and many.scored < 10_000
        assert recipe(model, 100_000, 1_000).scored is None
    assert recipe("table_mf", 4_000, 6_000).epochs == 40 and recipe("mean_mf", 4_000, 6_000).epochs == 10
    with pytest.raises(UsageError, match="no model 'als'"):
        recipe("als", 1, 1)
