"""fastai's `Adam` with tables whose rows are updated when a batch touches them: same numbers, at the rows' cost.

A table's gradient comes as a sparse tensor; what dense Adam would have done to a row in the steps that skipped it is
made up for before the row is read again (`row_adam` has the formula). Everything else is fastai's `Optimizer`: hypers,
schedules, freezing, checkpoints, and the steps of dense parameters. On the CPU the work on rows is done by compiled
kernels in torch's own memory, on other devices by torch.

This module imports torch and fastai at its top, to extend their classes: import it inside functions.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recsys_dask.training.dot import Groups, group, sums
from recsys_dask.training.row_adam import History, step_rows
from recsys_dask.training.stock import Callback, Embedding
from recsys_dask.training.stock import optimizer as fo

_ROW_STATE = ("last", "history")
"""What a table's state has beside fastai's own; not part of a checkpoint, where all rows are up to date."""


def arrays(*tensors: Tensor) -> Any:
    """Tensors of the CPU as arrays, in the same memory."""
    return tuple(tensor.detach().numpy() for tensor in tensors)


def zeros(like: Tensor) -> Tensor:
    """Zeros in a parameter's shape, by numpy: it asks for huge pages, and rows at random walk fewer of these."""
    if like.device.type == "cpu" and like.dtype == torch.float32:
        return torch.from_numpy(np.zeros(like.shape, np.float32))
    return torch.zeros_like(like)


class RowAdam(fo.Optimizer):
    """fastai's `Adam` (decoupled decay), for tables with sparse gradients too. Use it as a `Learner`'s `opt_func`,
    with the callback `RowUpdates`.

    params, lr, mom, sqr_mom, eps, wd: as `fastai.optimizer.Adam` has them
    """

    def __init__(
        self,
        params: Tensor | Iterable[Any],
        lr: float | slice,
        mom: float = 0.9,
        sqr_mom: float = 0.99,
        eps: float = 1e-5,
        wd: float = 0.01,
    ) -> None:
        steps = [fo.weight_decay, partial(fo.average_grad, dampening=True), fo.average_sqr_grad]
        steps += [fo.step_stat, fo.adam_step]
        super().__init__(params, steps, lr=lr, mom=mom, sqr_mom=sqr_mom, eps=eps, wd=wd)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """One step of all parameters that have a gradient."""
        if closure is not None:
            raise NotImplementedError("fastai's optimisers take no closure")
        for parameters, hyper in zip(self.param_lists, self.hypers, strict=True):
            for p in parameters:
                if p.grad is None:
                    continue
                state = self.state[p]
                if p.grad.is_sparse:
                    self._step_rows(p, state, hyper)
                elif p.device.type == "cpu" and p.dtype == p.grad.dtype == torch.float32 and p.is_contiguous():
                    self._step_dense(p, state, hyper)
                else:
                    for step in self.cbs:
                        state = fo._update(state, step(p, **{**state, **hyper}))
                self.state[p] = state

    def zero_grad(self) -> None:
        """Gradients of tables go, others become zero, as with fastai."""
        for p, *_ in self.all_params(with_grad=True):
            if p.grad.is_sparse:
                p.grad = None
            else:
                p.grad.detach_()
                p.grad.zero_()

    def _step_rows(self, p: Tensor, state: dict[str, Any], hyper: dict[str, Any]) -> None:
        if "grad_avg" not in state:
            state.update(grad_avg=zeros(p), sqr_avg=zeros(p), step=0)
        self._follow(p, state)
        gradient: Any = p.grad
        rows, values = rows_of(gradient)
        lr, mom, sqr_mom, eps = (float(hyper[name]) for name in ("lr", "mom", "sqr_mom", "eps"))
        wd = float(hyper["wd"]) if state.get("do_wd", True) else 0.0
        history: History = state["history"]
        history.eps = eps
        state["step"] = step = history.advance(lr, mom, sqr_mom, wd)
        table = p.data, state["grad_avg"], state["sqr_avg"], state["last"]
        numbers: Any = dict(lr=lr, mom=mom, sqr_mom=sqr_mom, wd=wd, eps=eps)
        if p.device.type == "cpu":
            p_, m, v, last, rows_, gradient_ = arrays(*table, rows, values)
            if step_rows(p_, m, v, last, rows_, gradient_, step, **numbers):
                raise RuntimeError("rows were read that lacked steps: use RowEmbedding and the callback RowUpdates")
        else:
            step_rows_torch(*table, rows, values, step, **numbers)
        if history.worn:
            self.catch_up_all()

    @staticmethod
    def _step_dense(p: Tensor, state: dict[str, Any], hyper: dict[str, Any]) -> None:
        """What fastai's steps do, a dozen of torch's operations, in one pass."""
        if "grad_avg" not in state:
            state.update(grad_avg=zeros(p), sqr_avg=zeros(p), step=0)
        state["step"] += 1
        gradient: Any = p.grad
        a, m, v, g = (
            one.reshape(1, -1) for one in arrays(p, state["grad_avg"], state["sqr_avg"], gradient.contiguous())
        )
        numbers: Any = {name: float(hyper[name]) for name in ("lr", "mom", "sqr_mom", "eps", "wd")}
        if not state.get("do_wd", True):
            numbers["wd"] = 0.0
        one = np.zeros(1, np.int64)
        step_rows(a, m, v, np.zeros(1, np.int32), one, g, state["step"], **numbers)

    @staticmethod
    def _follow(p: Tensor, state: dict[str, Any]) -> None:
        """All rows of a table are up to date: its history starts here."""
        if "history" not in state:
            state["history"] = History(state["step"])
            state["last"] = torch.full((len(p),), state["step"], dtype=torch.int32, device=p.device)

    @staticmethod
    def _bring(p: Tensor, state: dict[str, Any], rows: Tensor) -> None:
        """Bring rows up to date."""
        table = p.data, state["grad_avg"], state["sqr_avg"], state["last"]
        history: History = state["history"]
        if p.device.type == "cpu":
            history.catch_up(*arrays(*table, rows))
        else:
            catch_up_torch(*table, rows, history)

    @torch.no_grad()
    def catch_up(self, table: Tensor, rows: Tensor) -> None:
        """Make up for the steps that rows of a parameter were skipped in, before they are read.

        rows: (r,) int64 on its device, twice is fine
        """
        state = self.state[table]
        if "history" in state:
            self._bring(table, state, rows)

    @torch.no_grad()
    def catch_up_all(self) -> None:
        """Make up for all skipped steps of all tables, before anything else looks at them."""
        for parameters in self.param_lists:
            for p in parameters:
                state = self.state[p]
                if "history" in state:
                    for some in torch.arange(len(p), device=p.device).split(1 << 18):
                        self._bring(p, state, some)
                    for name in _ROW_STATE:
                        del state[name]
                    self._follow(p, state)

    def state_dict(self) -> dict[str, Any]:
        """As fastai's `Adam` would have it: every row is brought up to date first."""
        self.catch_up_all()
        state = super().state_dict()
        state["state"] = [{k: v for k, v in one.items() if k not in _ROW_STATE} for one in state["state"]]
        return state

    def load_state_dict(self, sd: dict[str, Any]) -> None:
        """Go on from a state, of this class or of fastai's `Adam`."""
        super().load_state_dict(sd)
        for p, _, state, _ in self.all_params():
            if isinstance(getattr(p, "grad", None), Tensor) and p.grad.is_sparse:
                p.grad = None
            for name in _ROW_STATE:
                state.pop(name, None)


def catch_up_torch(p: Tensor, m: Tensor, v: Tensor, last: Tensor, rows: Tensor, history: History) -> None:
    """`History.catch_up` by torch, for tables on any device."""
    rows = torch.unique(rows)
    n = history.now + 1
    tables = np.column_stack([history.products[:n], history.fading[:n]])
    since = last[rows].long() - history.base
    decay, squares, faded, *moments = torch.from_numpy(tables).to(p.device)[since].T
    total = moments[0].clamp_min(1e-300)
    mean, second, third = (one / total for one in moments[1:])
    third = third - mean * (3 * second - 2 * mean * mean)
    second = (second - mean * mean).clamp_min(0)
    single = (second <= 1e-10 * mean * mean) | (moments[0] <= 0)
    second = torch.where(single, 1.0, second)
    half = torch.where(single, 0.0, third / (2 * second))
    root = torch.sqrt(half * half + second)
    single |= mean + half - root <= 0
    weight1, beta1 = torch.where(single, moments[0], total * (half + root) / (2 * root)), half - root + mean
    weight2, beta2 = torch.where(single, 0.0, total * (root - half) / (2 * root)), half + root + mean
    beta1, beta2 = torch.where(single, mean.clamp_min(1e-30), beta1), torch.where(single, 1.0, beta2)
    now_decay, now_squares = history.products[history.now].tolist()
    decayed = now_decay / decay
    columns = decayed * weight1, decayed * weight2, beta1, beta2, faded, now_squares / squares, decayed
    w1, w2, b1, b2, a, b, kept = (one.float()[:, None] for one in columns)
    mean_g, square = m[rows], v[rows]
    spread = square.sqrt()
    moved = mean_g * (w1 / (spread * b1 + history.eps) + w2 / (spread * b2 + history.eps))
    behind = (since < history.now)[:, None]
    p[rows] = torch.where(behind, kept * p[rows] - moved, p[rows])
    m[rows], v[rows] = torch.where(behind, mean_g * a, mean_g), torch.where(behind, square * b, square)
    last[rows] = history.base + history.now


def step_rows_torch(
    p: Tensor,
    m: Tensor,
    v: Tensor,
    last: Tensor,
    rows: Tensor,
    gradient: Tensor,
    step: int,
    *,
    lr: float,
    mom: float,
    sqr_mom: float,
    wd: float,
    eps: float,
) -> None:
    """`row_adam.step_rows` by torch, for tables on any device."""
    mean = m[rows].mul_(mom).add_(gradient, alpha=1 - mom)
    square = v[rows].mul_(sqr_mom).addcmul_(gradient, gradient, value=1 - sqr_mom)
    m[rows], v[rows] = mean, square
    root = (square / (1 - sqr_mom**step)).sqrt_().add_(eps)
    p[rows] = p[rows].mul_(1 - lr * wd).addcdiv_(mean, root, value=-lr / (1 - mom**step))
    last[rows] = step


class RowUpdates(Callback):
    """Lets a model's `RowEmbedding`s ask the optimiser for rows that are up to date, and brings all of them there at
    the end of every epoch's training, before anything validates, saves or exports."""

    run_valid = False
    order = -10

    def before_fit(self) -> None:
        """The optimiser exists now."""
        for module in self.model.modules():
            if isinstance(module, RowEmbedding):
                module.optimiser = self.opt

    def after_train(self) -> None:
        """Training of an epoch ended, or was cancelled."""
        self.opt.catch_up_all()

    after_cancel_fit = after_train

    def after_fit(self) -> None:
        """The tables stand on their own again."""
        self.opt.catch_up_all()
        for module in self.model.modules():
            if isinstance(module, RowEmbedding):
                module.optimiser = None


class RowEmbedding(Embedding):
    """fastai's `Embedding`, with gradients summed by row (sparse, coalesced) for `RowAdam`."""

    def __init__(self, ni: int, nf: int, std: float = 0.01) -> None:
        super().__init__(ni, nf, std)
        self.optimiser: RowAdam | None = None

    def catch_up(self, rows: Tensor) -> None:
        """Bring rows up to date before they are read."""
        if self.optimiser is not None:
            self.optimiser.catch_up(self.weight, rows)

    def forward(self, rows: Tensor) -> Tensor:
        """rows: (batch,) int64. Returns (batch, nf)."""
        self.catch_up(rows)
        if self.weight.device.type == "cpu" and torch.is_grad_enabled() and self.weight.requires_grad:
            return _Gather.apply(self.weight, rows)
        return torch.nn.functional.embedding(rows, self.weight, sparse=True)


def by_rows(table: Tensor, groups: Groups, values: np.ndarray[Any, Any]) -> Tensor:
    """A table's gradient as the sparse tensor that `RowAdam` takes; values: (groups, k)."""
    rows = torch.from_numpy(groups.rows)[None]
    return torch.sparse_coo_tensor(
        rows, torch.from_numpy(values), table.shape, is_coalesced=True, check_invariants=False
    )


def rows_of(gradient: Tensor) -> tuple[Tensor, Tensor]:
    """A sparse gradient's rows, distinct and rising, and their values. (autograd forgets that it is coalesced.)"""
    rows = gradient._indices()[0]
    if not bool((rows[1:] > rows[:-1]).all()):
        gradient = gradient.coalesce()
    return gradient._indices()[0], gradient._values()


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, table: Tensor, rows: Tensor) -> Tensor:
        ctx.table, ctx.rows = table, rows
        return table.index_select(0, rows)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None]:
        groups = group(ctx.rows.numpy())
        return by_rows(ctx.table, groups, sums(slope.contiguous().numpy(), groups)), None
