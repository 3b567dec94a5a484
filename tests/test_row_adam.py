"""The row-wise optimiser against dense Adam: loops in double precision, fastai's own Adam step by step, and through
whole `Learner`s with one-cycle schedules."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from recsys_dask.runtime.connecting import prepare_kernels
from recsys_dask.runtime.progress import Progress
from recsys_dask.training import dot
from recsys_dask.training.row_adam import History, step_rows

torch = pytest.importorskip("torch")


@pytest.fixture(scope="module", autouse=True)
def compiled() -> None:
    prepare_kernels(Progress())


def one_cycle(steps: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """fastai's rates and momenta of `fit_one_cycle(…, 5e-3)`."""
    done = np.arange(1, steps + 1) / steps

    def cosine(start: float, end: float, at: NDArray[np.float64]) -> NDArray[np.float64]:
        return start + (1 + np.cos(np.pi * (1 - at))) * (end - start) / 2

    up, down = np.minimum(done / 0.25, 1), np.maximum(done - 0.25, 0) / 0.75
    rising = done < 0.25
    return (
        np.where(rising, cosine(2e-4, 5e-3, up), cosine(5e-3, 5e-8, down)),
        np.where(rising, cosine(0.95, 0.85, up), cosine(0.85, 0.95, down)),
    )


class DenseAdam:
    """The oracle: every element at every step, in double precision, as fastai/optimizer.py has it."""

    def __init__(self, p: NDArray[Any], sqr_mom: float = 0.99, eps: float = 1e-5, wd: float = 0.1) -> None:
        self.p, self.m, self.v, self.t = p.astype(float), np.zeros(p.shape), np.zeros(p.shape), 0
        self.sqr_mom, self.eps, self.wd = sqr_mom, eps, wd

    def step(self, gradient: NDArray[Any], lr: float, mom: float) -> None:
        self.t += 1
        self.p *= 1 - lr * self.wd
        self.m = mom * self.m + (1 - mom) * gradient
        self.v = self.sqr_mom * self.v + (1 - self.sqr_mom) * gradient**2
        root = np.sqrt(self.v / (1 - self.sqr_mom**self.t)) + self.eps
        self.p -= lr / (1 - mom**self.t) * self.m / root


@pytest.mark.parametrize("scale", [1.0, 1e-2, 1e-4, 1e-5, 1e-7])
def test_three_thousand_one_cycle_steps(scale: float) -> None:
    """Rows touched in one step of fifty, gradients far above and far below ε: mean difference under 1e-5, largest
    under 1e-4, where values move by up to 0.4. (Nearly all of it comes from the first hundred steps, in which β is
    not narrow.)"""
    n, k, steps, per = 400, 6, 3_000, 8
    rng = np.random.default_rng(0)
    target, start = rng.normal(size=(n, k)), (rng.normal(size=(n, k)) * 0.1).astype(np.float32)
    rates, momenta = one_cycle(steps)
    dense = DenseAdam(start)
    p, m, v, last = start.copy(), np.zeros_like(start), np.zeros_like(start), np.zeros(n, np.int32)
    history = History(0)
    for lr, mom in zip(rates, momenta, strict=True):
        rows = np.sort(rng.choice(n, per, replace=False))
        noise = 0.3 * rng.normal(size=(per, k))
        gradient = np.zeros((n, k))
        gradient[rows] = scale * (dense.p[rows] - target[rows] + noise)
        dense.step(gradient, lr, mom)
        history.catch_up(p, m, v, last, rows)
        own = (scale * (p[rows] - target[rows] + noise)).astype(np.float32)
        step = history.advance(lr, mom, 0.99, 0.1)
        step_rows(p, m, v, last, rows, own, step, lr=lr, mom=mom, sqr_mom=0.99, wd=0.1, eps=1e-5)
    history.catch_up(p, m, v, last, np.arange(n))
    moved, apart = np.abs(dense.p - start).mean(), np.abs(dense.p - p)
    assert moved > 0.04
    assert apart.mean() < 1e-5 and apart.max() < 1e-4
    assert apart.mean() < 1e-4 * moved
    np.testing.assert_allclose(v, dense.v, rtol=1e-3, atol=1e-6 * scale**2)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.3, 0.97), st.floats(0.0, 0.5), st.sampled_from([1.0, 1e-3, 1e-5, 0.0]))
def test_any_schedule_from_any_step(seed: int, mom: float, wd: float, scale: float) -> None:
    """Rates and momenta at random from step to step, some zero, begun at a later step: within a hundredth of what one
    step moves."""
    rng = np.random.default_rng(seed)
    n, k, t0, steps = 12, 3, int(rng.integers(100, 500)), 40
    start = rng.normal(size=(n, k)).astype(np.float32)
    dense = DenseAdam(start, wd=wd)
    dense.m, dense.v, dense.t = scale * rng.normal(size=(n, k)), (scale * rng.normal(size=(n, k))) ** 2, t0
    p, m, v = (one.astype(np.float32) for one in (dense.p, dense.m, dense.v))
    last, history = np.full(n, t0, np.int32), History(t0)
    rates = 0.01 * rng.random(steps) * (rng.random(steps) < 0.9)
    momenta = np.clip(mom + 0.02 * rng.normal(size=steps), 0.0, 0.99)
    for lr, mom_ in zip(rates, momenta, strict=True):
        rows = np.flatnonzero(rng.random(n) < 0.2)
        gradient = np.zeros((n, k), np.float32)
        gradient[rows] = scale * rng.normal(size=(len(rows), k))
        dense.step(gradient.astype(float), lr, mom_)
        history.catch_up(p, m, v, last, np.concatenate([rows, rows]))  # twice is fine
        step = history.advance(lr, mom_, 0.99, wd)
        step_rows(p, m, v, last, rows, gradient[rows], step, lr=lr, mom=mom_, sqr_mom=0.99, wd=wd, eps=1e-5)
    behind = int((last < t0 + steps).sum())
    assert history.catch_up(p, m, v, last, np.arange(n)) == behind
    assert (last == t0 + steps).all()
    np.testing.assert_allclose(p, dense.p, rtol=0, atol=1e-4 * max(1, np.abs(dense.p).max()))
    np.testing.assert_allclose(m, dense.m, rtol=1e-3, atol=1e-6 * scale + 1e-30)


def test_a_row_that_is_up_to_date_stays_as_it_is() -> None:
    one = np.ones((2, 3), np.float32)
    history = History(7)
    assert history.catch_up(one, one.copy(), one.copy(), np.full(2, 7, np.int32), np.array([0, 1])) == 0
    assert (one == 1).all()


def test_a_decay_that_leaves_nothing() -> None:
    """lr_find ends at rates of 10: skipped rows go to nothing, and stay numbers."""
    p = np.ones((1, 2), np.float32)
    m, v, last, history = np.zeros_like(p), np.zeros_like(p), np.zeros(1, np.int32), History(0)
    times = 0
    for _ in range(100):
        history.advance(10.0, 0.9, 0.99, 0.1)
        if history.worn:
            history.catch_up(p, m, v, last, np.array([0]))
            history = History(history.base + history.now)
            times += 1
    assert times == 2 and np.isfinite(p).all() and np.abs(p).max() < 1e-6


# ------------------------------------------------------------------------------------------------- kernels of a batch


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.sampled_from([1, 2, 50, 10**6]), st.sampled_from([1, 5, 50]))
def test_scores_and_gradients_are_those_of_torch(seed: int, batch: int, n: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    rows, items = rng.integers(0, n, batch), rng.integers(0, 7, batch)
    small = {row: at for at, row in enumerate(np.unique(rows).tolist())}
    groups = dot.group(rows)
    assert groups.rows.tolist() == sorted(small)
    for at, row in enumerate(groups.rows):
        assert groups.order[groups.starts[at] : groups.starts[at + 1]].tolist() == np.flatnonzero(rows == row).tolist()
    place = np.array([small[row] for row in rows.tolist()])
    dense = dot.group(place)
    tables = [rng.normal(size=shape).astype(np.float32) for shape in ((len(small), k), (7, k), (len(small), 1), (7, 1))]
    p, q, b, c = (torch.tensor(table, requires_grad=True) for table in tables)
    score = (p[place] * q[items]).sum(1) + b[place, 0] + c[items, 0]
    np.testing.assert_allclose(dot.scores(*tables, dense, items), score.detach().numpy(), rtol=1e-4, atol=1e-4)
    slope = rng.normal(size=batch).astype(np.float32)
    score.backward(torch.from_numpy(slope))
    d_p, d_q, d_b, d_c = dot.gradients(tables[0], tables[1], dense, items, slope)
    for mine, theirs in ((d_p, p), (d_q, q), (d_b, b), (d_c, c)):
        np.testing.assert_allclose(mine, theirs.grad.numpy(), rtol=1e-4, atol=1e-4)
    values = rng.normal(size=(batch, k)).astype(np.float32)
    summed = np.zeros((len(small), k))
    np.add.at(summed, place, values)
    np.testing.assert_allclose(dot.sums(values, groups), summed, rtol=1e-4, atol=1e-4)


# ------------------------------------------------------------------------------------------------------- with fastai


def pair(n: int = 30, k: int = 4, seed: int = 0) -> tuple[Any, Any]:
    """A table for fastai's Adam and the same as a RowEmbedding."""
    from fastai.layers import Embedding

    from recsys_dask.training.optimiser import RowEmbedding

    torch.manual_seed(seed)
    theirs, mine = Embedding(n, k, std=0.3), RowEmbedding(n, k)
    mine.weight.data.copy_(theirs.weight.data)
    return theirs, mine


def test_the_optimiser_against_fastais_step_by_step() -> None:
    """Read rows agree at every step with fastai's dense Adam; so does a dense parameter beside the table;
    a table that a step does not touch at all skips it, as fastai's does."""
    from fastai.optimizer import Adam

    from recsys_dask.training.optimiser import RowAdam

    theirs, mine = pair()
    heads = [torch.nn.Parameter(torch.full((4,), 0.5)) for _ in range(2)]
    dense, rows_ = Adam([theirs.weight, heads[0]], lr=1e-3, wd=0.1), RowAdam([mine.weight, heads[1]], lr=1e-3, wd=0.1)
    mine.optimiser = rows_
    rng = np.random.default_rng(0)
    for step, (lr, mom) in enumerate(zip(*one_cycle(400), strict=True)):
        rows = torch.from_numpy(rng.integers(0, 30, 3))
        for table, head, optimiser in ((theirs, heads[0], dense), (mine, heads[1], rows_)):
            optimiser.set_hypers(lr=float(lr), mom=float(mom))
            read = table(rows)
            loss = 1e-3 * ((read * head.detach() - rows[:, None] / 30) ** 2).mean() + (head**2).mean()
            if step % 50 == 49:
                loss = (head**2).mean()
            loss.backward()
            optimiser.step()
            optimiser.zero_grad()
            if table is theirs:
                table.weight.grad = None
                before = read.detach()
        assert torch.allclose(read.detach(), before, atol=2e-5), step
    rows_.catch_up_all()
    assert torch.allclose(mine.weight, theirs.weight, atol=2e-5)
    assert torch.allclose(heads[0], heads[1], atol=1e-6)
    assert rows_.state[mine.weight]["step"] == dense.state[theirs.weight]["step"] == 392


def test_rows_read_without_catching_up_are_noticed() -> None:
    from recsys_dask.training.optimiser import RowAdam

    _, mine = pair()
    optimiser = RowAdam([mine.weight], lr=1e-3)
    for rows, fine in (([0, 1], True), ([1, 2], False)):
        mine(torch.tensor(rows)).sum().backward()
        if fine:
            optimiser.step()
            optimiser.zero_grad()
        else:
            with pytest.raises(RuntimeError, match="RowUpdates"):
                optimiser.step()


def test_states_go_to_and_fro_between_ours_and_fastais() -> None:
    """A checkpoint is fastai's: its Adam goes on from ours, ours from its."""
    from fastai.optimizer import Adam

    from recsys_dask.training.optimiser import RowAdam

    theirs, mine = pair()
    dense, rows_ = Adam([theirs.weight], lr=1e-3, wd=0.1), RowAdam([mine.weight], lr=1e-3, wd=0.1)
    mine.optimiser = rows_
    rng = np.random.default_rng(1)

    def train(table: Any, optimiser: Any, batches: list[Any]) -> None:
        for rows in batches:
            ((table(rows) - 1) ** 2).mean().backward()
            optimiser.step()
            optimiser.zero_grad()

    first, second = ([torch.from_numpy(rng.integers(0, 30, 4)) for _ in range(150)] for _ in range(2))
    train(theirs, dense, first)
    train(mine, rows_, first)
    state = rows_.state_dict()
    assert set(state["state"][0]) == set(dense.state_dict()["state"][0]) == {"grad_avg", "sqr_avg", "step"}
    other, again = Adam([theirs.weight], lr=1e-3, wd=0.1), RowAdam([mine.weight], lr=1e-3, wd=0.1)
    other.load_state_dict(
        {**state, "state": [{k: v if k == "step" else v.clone() for k, v in state["state"][0].items()}]}
    )
    again.load_state_dict(dense.state_dict())
    theirs.weight.data, mine.weight.data = mine.weight.data.clone(), theirs.weight.data.clone()
    mine.optimiser = again
    train(theirs, other, second)
    train(mine, again, second)
    again.catch_up_all()
    assert torch.allclose(mine.weight, theirs.weight, atol=1e-4)


def test_torch_and_compiled_kernels_agree() -> None:
    """What a GPU runs, on the CPU."""
    from recsys_dask.training.optimiser import catch_up_torch, step_rows_torch

    rng = np.random.default_rng(0)
    n, k = 25, 3
    one = [rng.normal(size=(n, k)).astype(np.float32), np.zeros((n, k), np.float32), np.zeros((n, k), np.float32)]
    mine = [*one, np.zeros(n, np.int32)]
    theirs = [torch.tensor(array) for array in mine]
    history = History(0)
    for lr, mom in zip(*one_cycle(300), strict=True):
        rows = np.unique(rng.integers(0, n, 3))
        gradient = 1e-4 * rng.normal(size=(len(rows), k)).astype(np.float32)
        history.catch_up(*mine, rows)
        catch_up_torch(*theirs, torch.from_numpy(np.concatenate([rows, rows])), history)
        step = history.advance(lr, mom, 0.99, 0.1)
        numbers = dict(lr=lr, mom=mom, sqr_mom=0.99, wd=0.1, eps=1e-5)
        step_rows(*mine, rows, gradient, step, **numbers)
        step_rows_torch(*theirs, torch.from_numpy(rows), torch.from_numpy(gradient), step, **numbers)
    history.catch_up(*mine, np.arange(n))
    catch_up_torch(*theirs, torch.arange(n), history)
    for array, tensor in zip(mine, theirs, strict=True):
        np.testing.assert_allclose(array, tensor.numpy(), rtol=1e-4, atol=1e-6)


def test_an_embedding_read_twice_and_frozen() -> None:
    """Two reads in one pass add up; a frozen table is not touched."""
    from recsys_dask.training.optimiser import RowAdam

    theirs, mine = pair()
    rows = torch.tensor([3, 1, 3]), torch.tensor([5, 1])
    for table in (theirs, mine):
        (table(rows[0]).sum() + 2 * table(rows[1]).sum()).backward()
    assert torch.equal(mine.weight.grad.to_dense(), theirs.weight.grad)
    optimiser = RowAdam([mine.weight], lr=1e-3)
    optimiser.step()
    optimiser.zero_grad()
    assert mine.weight.grad is None
    mine.weight.requires_grad_(False)
    before = mine.weight.clone()
    assert not mine(rows[0]).requires_grad
    optimiser.step()
    assert torch.equal(mine.weight, before)
