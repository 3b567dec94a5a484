"""Checkpoints: what is written comes back, a resumed run ends as an unbroken one, a bad file says what it is."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from test_learner import KINDS, SMALL, StopIn, interrupt, learner_of, same, state_of

from recsys_dask.errors import StoreError
from recsys_dask.store.files import Folder
from recsys_dask.training.checkpoints import NAME, Keeper
from recsys_dask.training.learner import fit_recipe


def keeper(path, **changes) -> Keeper:
    values = {"model": "mf", "fingerprint": "abc", "parameters": {"factors": 6, "rate": 0.03}, **changes}
    return Keeper(Folder(str(path)), **values)


STATE = {
    "model": {"q": torch.arange(6.0).reshape(2, 3), "n": torch.tensor(3), "none": torch.empty(0, 4)},
    "best": None,
    "optimiser": {"state": {0: {"steps": torch.ones(2, 1)}}, "param_groups": [{"betas": (0.9, 0.99), "lr": 1e-3}]},
}


def test_what_is_saved_comes_back_and_is_plain_safetensors(tmp_path) -> None:
    from safetensors.torch import load_file

    keeper(tmp_path).save(STATE, [{"epoch": 1, "train_loss": 0.5}])
    found = keeper(tmp_path).load()
    assert found.history == [{"epoch": 1, "train_loss": 0.5}] and found.parameters == {"factors": 6, "rate": 0.03}
    assert found.versions.keys() == {"recsys_dask", "python", "torch", "fastai", "safetensors"}
    assert same(found.state["model"], STATE["model"]) and found.state["best"] is None
    assert found.state["optimiser"]["param_groups"] == STATE["optimiser"]["param_groups"]
    assert torch.equal(found.state["optimiser"]["state"][0]["steps"], torch.ones(2, 1))
    (file,) = tmp_path.glob("*.safetensors")
    assert torch.equal(load_file(file)["model.q"], STATE["model"]["q"])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.int32, torch.bool, torch.float64, torch.uint8])
def test_all_types_of_number(tmp_path, dtype) -> None:
    value = torch.tensor([[1, 0, 1]]).to(dtype).T  # not contiguous
    keeper(tmp_path).save({"value": value}, [{}])
    assert torch.equal(keeper(tmp_path).load().state["value"], value)


def test_one_epoch_is_kept_and_it_is_whole_when_a_later_one_was_not_finished(tmp_path, monkeypatch) -> None:
    keeper(tmp_path).save(STATE, [{}])
    keeper(tmp_path).save(STATE, [{}, {}])
    assert sorted(path.name for path in tmp_path.iterdir()) == [NAME, "epoch-0002.safetensors"]
    monkeypatch.setattr(Folder, "write", lambda *_: interrupt(None))
    with pytest.raises(KeyboardInterrupt):
        keeper(tmp_path).save(STATE, [{}, {}, {}])
    assert len(keeper(tmp_path).load().history) == 2


def test_nothing_saved_is_nothing_found(tmp_path) -> None:
    assert keeper(tmp_path / "none").load() is None


@pytest.mark.parametrize("kind", KINDS)
def test_a_resumed_run_ends_with_the_numbers_of_an_unbroken_one(tmp_path, kind) -> None:
    whole = learner_of(kind)
    unbroken = fit_recipe(whole, SMALL, seed=4)

    broken = learner_of(kind, cbs=[StopIn(2, interrupt)])
    with pytest.raises(KeyboardInterrupt):
        fit_recipe(broken, SMALL, seed=4, keeper=keeper(tmp_path))
    torch.rand(9)
    resumed = learner_of(kind)
    told = []
    history = fit_recipe(resumed, SMALL, seed=4, keeper=keeper(tmp_path), resume=True, progress=told.append)
    assert [one.epoch for one in told] == [3]
    losses = [(one.train_loss, one.valid_loss, one.rate) for one in history]
    assert losses == [(one.train_loss, one.valid_loss, one.rate) for one in unbroken]
    assert same(state_of(resumed), state_of(whole))
    # and there is nothing left to do
    again = learner_of(kind)
    assert len(fit_recipe(again, SMALL, seed=4, keeper=keeper(tmp_path), resume=True)) == 3
    assert same(state_of(again), state_of(whole))


def test_the_best_epoch_outlives_an_interruption(tmp_path) -> None:
    from dataclasses import replace

    steep = replace(SMALL, epochs=8, rate=3.0, decay=0.0, ridge=0.0)
    whole = learner_of(recipe=steep)
    unbroken = fit_recipe(whole, steep, best=True)
    best = int(np.argmin([one.valid_loss for one in unbroken])) + 1
    assert best < 7
    fit_recipe(learner_of(recipe=steep), steep, best=True, keeper=keeper(tmp_path), stop_after=best + 1)
    resumed = learner_of(recipe=steep)
    fit_recipe(resumed, steep, best=True, keeper=keeper(tmp_path), resume=True)
    assert same(state_of(resumed), state_of(whole))


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"fingerprint": "xyz"}, "of another vocabulary"),
        ({"model": "mlp"}, "of another model: mf, not mlp"),
        ({"parameters": {"factors": 8, "rate": 0.03}}, "made otherwise: factors 6, not 8"),
    ],
)
def test_a_checkpoint_of_something_else(tmp_path, changes, words) -> None:
    keeper(tmp_path).save(STATE, [{}])
    with pytest.raises(StoreError, match=words):
        keeper(tmp_path, **changes).load()


def test_a_damaged_checkpoint_says_which_file(tmp_path) -> None:
    keeper(tmp_path).save(STATE, [{}])
    (tensors,) = tmp_path.glob("*.safetensors")
    data, page = tensors.read_bytes(), (tmp_path / NAME).read_bytes()
    for changed in (data[:-3], data[:-1] + bytes([data[-1] ^ 1])):
        tensors.write_bytes(changed)
        with pytest.raises(StoreError, match=r"epoch-0001\.safetensors: .*truncated or altered"):
            keeper(tmp_path).load()
    tensors.unlink()
    with pytest.raises(StoreError, match=r"epoch-0001\.safetensors: "):
        keeper(tmp_path).load()
    for text, words in ((page[:-5], "no JSON"), (b"[]", "no checkpoint"), (json.dumps({"format": 99}).encode(), "no ")):
        (tmp_path / NAME).write_bytes(text)
        with pytest.raises(StoreError, match=words):
            keeper(tmp_path).load()


def test_what_cannot_be_saved_is_named(tmp_path) -> None:
    with pytest.raises(TypeError, match=r"optimiser\.hook: a function"):
        keeper(tmp_path).save({"optimiser": {"hook": lambda: None}}, [])
