"""The article's preset: loaders, fastai's callbacks on our learners, stock fastai's models and losses."""

from __future__ import annotations

import csv
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recsys_dask import UsageError
from recsys_dask.runtime.connecting import prepare_kernels
from recsys_dask.runtime.progress import Progress
from recsys_dask.training.negatives import counts, draw
from recsys_dask.training.rows import RowLoader, Rows, loaders, split, training_rows

torch = pytest.importorskip("torch")


@pytest.fixture(scope="module", autouse=True)
def compiled() -> Iterator[None]:
    """Kernels, and one thread of torch's: two that wait for each other on a busy machine take ten times as long."""
    prepare_kernels(Progress())
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def planted(n: int = 300, n_items: int = 40, length: int = 8, seed: int = 0) -> Rows:
    """Playlists of one of four scenes, with two negatives a positive."""
    rng = np.random.default_rng(seed)
    weight = np.where(np.arange(n_items) % 4 == rng.integers(0, 4, (n, 1)), 8.0, 1.0) * rng.random((n, n_items))
    items = np.sort(np.argsort(-weight, 1)[:, :length], 1).astype(np.int32).ravel()
    starts = np.arange(n + 1) * length
    number = counts(np.diff(starts), n_items, 2, seed)
    return training_rows(starts, items, number, draw(starts, items, n_items, number, np.arange(n), seed))


ROWS = planted()
SIZE = dict(n_playlists=300, n_items=40)


def quiet(learn: Any, *args: Any, **options: Any) -> Any:
    with learn.no_bar(), learn.no_logging():
        learn.fit_one_cycle(*args, **options)
    return learn


def article(kind: str = "mf", rows: Rows = ROWS, **options: Any) -> Any:
    from recsys_dask.training.article import article_learner

    return article_learner(kind, rows, **{**SIZE, "batch": 256, **options})


# ----------------------------------------------------------------------------------------------------------- loaders


def as_set(batches: list[Any]) -> list[tuple[int, int, int]]:
    return sorted((int(a), int(b), int(y)) for x, ys in batches for (a, b), y in zip(x, ys[:, 0], strict=True))


@pytest.mark.parametrize("batch", [1_000, 7_200, 100_000])
def test_an_epoch_has_every_row_once_the_last_batch_too(batch: int) -> None:
    loader = RowLoader(ROWS, batch, shuffle=True, seed=3)
    first, second = list(loader), list(loader)
    assert len(first) == len(loader) == -(-7_200 // batch)
    x, y = first[0]
    assert x.dtype == torch.int64 and y.dtype == torch.float32 and x.shape[1] == 2 and y.shape == (len(x), 1)
    expected = sorted(zip((ROWS.playlists + 1).tolist(), (ROWS.items + 1).tolist(), ROWS.ratings.tolist(), strict=True))
    assert as_set(first) == as_set(second) == expected
    assert not torch.equal(first[0][0], second[0][0])
    assert torch.equal(next(iter(RowLoader(ROWS, batch, shuffle=True, seed=3)))[0], x)
    assert not torch.equal(next(iter(RowLoader(ROWS, batch, shuffle=True, seed=4)))[0], x)
    plain = next(iter(loader.new(shuffle=False)))[0]
    assert plain[:, 1].tolist() == (ROWS.items[:batch] + 1).tolist()
    assert sum(column.element_size() for column in loader.columns) == 9


def test_the_split_is_random_exact_and_seeded() -> None:
    held_out = split(1_001, 0.2, 5)
    assert held_out.sum() == 200 and (held_out == split(1_001, 0.2, 5)).all()
    assert (held_out != split(1_001, 0.2, 6)).any()
    often = np.sum([split(50, 0.2, seed) for seed in range(2_000)], 0)
    assert abs(often - 400).max() < 5 * np.sqrt(400 * 0.8)
    train, valid = loaders(ROWS, 64, device="cpu", seed=1)
    assert train.n + valid.n == 7_200 and valid.n == 1_440
    assert as_set([*train, *valid]) == as_set(list(RowLoader(ROWS, 7_200)))


def test_a_loader_of_nothing() -> None:
    empty = RowLoader(ROWS.take(np.zeros(7_200, bool)), 10, shuffle=True)
    assert len(empty) == 0 and list(empty) == []


# ------------------------------------------------------------------------------------------------------------ models


def stock(rows: Rows, kind: str, batch: int, seed: int, **data_options: Any) -> Any:
    """Stock fastai: a data frame, `CollabDataLoaders.from_df`, `collab_learner`."""
    import pandas as pd
    from fastai.collab import CollabDataLoaders, collab_learner

    frame = pd.DataFrame(dict(user=rows.playlists, item=rows.items, rating=rows.ratings.astype(np.float32)))
    data = CollabDataLoaders.from_df(frame, bs=batch, seed=seed, **data_options)
    torch.manual_seed(seed)
    options: dict[str, Any] = dict(n_factors=50) if kind == "mf" else dict(use_nn=True, layers=[50, 50])
    return collab_learner(data, y_range=(0, 1), wd=0.1, **options)


@pytest.mark.parametrize("kind", ["mf", "mlp"])
def test_models_are_those_of_collab_learner(kind: str) -> None:
    """Names, shapes and first values of every parameter, and what they say of a batch."""
    theirs, mine = stock(ROWS, kind, 256, 4).model, article(kind, seed=4).model
    named = dict(theirs.named_parameters())
    assert {name: p.shape for name, p in mine.named_parameters()} == {name: p.shape for name, p in named.items()}
    assert all(torch.equal(p, named[name]) for name, p in mine.named_parameters())
    x = RowLoader(ROWS, 50).one_batch()[0]
    stock_x = (x,) if kind == "mf" else (x, torch.zeros(50, 0))
    for mode in (True, False):
        theirs.train(mode), mine.train(mode)
        assert torch.allclose(mine(x), theirs(*stock_x), atol=1e-6)


def test_vectors_without_na() -> None:
    from recsys_dask.training.article import item_vectors

    model = article().model
    vectors, bias = item_vectors(model)
    assert vectors.shape == (40, 50) and vectors.dtype == np.float32 and bias is not None and bias.shape == (40,)
    assert (vectors == model.i_weight.weight.detach().numpy()[1:]).all()
    vectors, bias = item_vectors(article("mlp").model)
    assert vectors.shape == (40, 13) and bias is None


def test_an_unknown_kind() -> None:
    with pytest.raises(UsageError, match="mf or mlp"):
        article("mfx")


# --------------------------------------------------------------------------------------------------------- training


@pytest.mark.parametrize("kind", ["mf", "mlp"])
def test_by_rows_and_dense_end_at_the_same_numbers(kind: str) -> None:
    """Three epochs on the same batches in the same order: fastai's dense Adam and ours."""
    by_rows, dense = (quiet(article(kind, dense=dense), 3, 5e-3) for dense in (False, True))
    losses = [[row[:2] for row in learn.recorder.values] for learn in (by_rows, dense)]
    np.testing.assert_allclose(losses[0], losses[1], rtol=2e-4 if kind == "mf" else 1e-2)
    theirs = dict(dense.model.named_parameters())
    if kind == "mf":
        for name, p in by_rows.model.named_parameters():
            assert (p - theirs[name]).abs().mean() < 2e-5 and (p - theirs[name]).abs().max() < 1e-3, name
    assert losses[0][-1][1] < losses[0][0][1]


@pytest.mark.parametrize("kind", ["mf", "mlp"])
def test_a_seed_repeats_and_another_differs(kind: str) -> None:
    def final(seed: int) -> Any:
        return quiet(article(kind, seed=seed), 2, 5e-3).model.state_dict()

    one, again, other = final(1), final(1), final(2)
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)


def test_rows_are_up_to_date_whenever_others_look() -> None:
    """At validation, after it, and after a fit that was cancelled: no row lacks a step, and no table holds on to the
    optimiser."""
    from fastai.callback.core import Callback, CancelFitException

    seen = []

    class Look(Callback):
        def behind(self) -> None:
            for _, _, state, _ in self.opt.all_params():
                if "last" in state:
                    seen.append(int((state["last"] != state["step"]).sum()))

        before_validate = after_epoch = behind

        def after_batch(self) -> None:
            if self.training and self.epoch == 1 and self.iter == 3:
                raise CancelFitException

    learn = quiet(article(cbs=[Look()]), 3, 5e-3)
    assert len(seen) >= 4 and set(seen) == {0}
    assert all(module.optimiser is None for module in (learn.model.u_weight, learn.model.u_bias))
    state = learn.opt.state[learn.model.u_weight.weight]
    assert (state["last"] == state["step"]).all() and state["step"] == 23 + 4


@pytest.mark.parametrize("kind", ["mf", "mlp"])
def test_callbacks_of_fastai(kind: str, tmp_path: Path) -> None:
    """CSV log, best model saved and restored, early stopping, lr_find, a plain fit, predictions."""
    from fastai.callback.progress import CSVLogger
    from fastai.callback.tracker import EarlyStoppingCallback, SaveModelCallback

    learn = article(kind, path=tmp_path)
    learn.add_cbs([CSVLogger(), SaveModelCallback(with_opt=True), EarlyStoppingCallback(patience=5)])
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="Could not load the optimizer state")
        quiet(learn, 3, 5e-3)
        with (tmp_path / "history.csv").open() as file:
            table = list(csv.DictReader(file))
        assert [row["epoch"] for row in table] == ["0", "1", "2"]
        assert all(float(row["valid_loss"]) > 0 for row in table)
        before = {name: p.clone() for name, p in learn.model.state_dict().items()}
        learn.remove_cbs([CSVLogger, SaveModelCallback, EarlyStoppingCallback])
        with learn.no_bar(), learn.no_logging():
            found = learn.lr_find(show_plot=False)
        assert 1e-6 < found.valley < 10
        assert all(torch.equal(p, before[name]) for name, p in learn.model.state_dict().items())
        with learn.no_bar(), learn.no_logging():
            learn.fit(1, 1e-3)
    logged = learn.recorder.values[-1][1]
    with learn.no_bar():
        scores, ratings = learn.get_preds()
    assert scores.shape[0] == ratings.shape[0] == 1_440
    loss = float(((scores.flatten() - ratings.flatten()) ** 2).mean())
    assert loss == pytest.approx(logged, rel=1e-4)


def test_mixed_precision_and_gradient_scaling() -> None:
    """bfloat16 and, without a GPU, the scaler that does nothing: fastai's callbacks run as they are."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch tells that there is no GPU
        for mixed in ("to_bf16", "to_fp16"):
            learn = getattr(article(), mixed)()
            quiet(learn, 2, 5e-3)
            assert learn.recorder.values[-1][1] < learn.recorder.values[0][1]


def test_a_scaled_gradient_is_unscaled() -> None:
    """`GradScaler`, which mixed precision steps through, knows our gradients: infinite ones skip the step."""
    model = article().model
    model.train()
    x, y = RowLoader(ROWS, 64).one_batch()
    from recsys_dask.training.optimiser import RowAdam

    optimiser = RowAdam(model.parameters(), lr=1e-3)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    plain, scaled = [], []
    for scale, kept in ((False, plain), (True, scaled)):
        loss = ((model(x) - y[:, 0]) ** 2).mean()
        (scaler.scale(loss) if scale else loss).backward()
        if scale:
            scaler.unscale_(optimiser)
        kept.extend(p.grad.to_dense().clone() for p in model.parameters())
        for p in model.parameters():
            p.grad = None
    for one, other in zip(plain, scaled, strict=True):
        assert torch.allclose(one, other, atol=1e-9)


def test_stock_fastai_draws_with_replacement() -> None:
    """Why there is `replace`: an epoch of `CollabDataLoaders` is no permutation. Ours has as few distinct rows then."""
    theirs = list(stock(ROWS, "mf", 64, 0).dls.train)
    train = loaders(ROWS, 64, device="cpu", seed=0, replace=True)[0]
    for batches in (theirs, list(train)):
        rows = as_set(batches)
        assert abs(len(set(rows)) / len(rows) - (1 - np.exp(-1))) < 0.03


@pytest.mark.slow
@pytest.mark.parametrize("replace", [True, False])
@pytest.mark.parametrize("kind", ["mf", "mlp"])
def test_final_losses_are_those_of_stock_fastai(kind: str, replace: bool) -> None:
    """The same rows, splits and first values, three seeds, five epochs of one cycle: stock fastai as it comes against
    ours with `replace`, stock with the loader that permutes against ours. What is left is the order of rows."""
    from fastai.tabular.core import TabDataLoader

    size = dict(n_playlists=4_000, n_items=200)
    rows = planted(4_000, 200, 16)
    ours, theirs = [], []
    for seed in range(3):
        learn = stock(rows, kind, 2_048, seed, **({} if replace else dict(dl_type=TabDataLoader)))
        held_out = np.zeros(len(rows.items), bool)
        held_out[learn.dls.valid_ds.items.index] = True
        mine = article(kind, rows, seed=seed, batch=2_048, valid=held_out, replace=replace, **size)
        for found, one in ((ours, mine), (theirs, learn)):
            found.append([float(loss) for loss in quiet(one, 5, 5e-3).recorder.values[-1][:2]])
    apart = np.array(ours) - np.array(theirs)
    print(f"{kind}, replace={replace}: ours {ours}, stock {theirs}")
    assert (np.abs(apart.mean(0)) < (0.01 if kind == "mf" else 0.02) * np.mean(theirs, 0)).all()
