"""Adam for a model of which one table is touched a few rows at a time, each of them once an epoch."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.optim import adamw


def _plain(method: Any) -> Any:
    """A method of torch's without what keeps it out of torch's compiler: that would import the whole of it, which takes
    longer than a small training."""
    return getattr(method, "__wrapped__", method)


class SparseAdam(torch.optim.Optimizer):
    """AdamW (Loshchilov and Hutter 2019) on parameters with a dense gradient; on one with a sparse gradient, the rows
    that the gradient names take a step of their own, with moments and a step count of their own.

    A row is left alone in between: Adam would go on moving it by its old moments. `mom`, `betas`, `lr` and `wd` follow
    fastai's schedules through `OptimWrapper`. State: `m`, `v` as the parameter, `steps` (rows, 1) float32 or a number.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-2,
        betas: tuple[float, float] = (0.9, 0.99),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ):
        super().__init__(params, dict(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay))

    add_param_group = _plain(torch.optim.Optimizer.add_param_group)
    zero_grad = _plain(torch.optim.Optimizer.zero_grad)
    state_dict = _plain(torch.optim.Optimizer.state_dict)
    load_state_dict = _plain(torch.optim.Optimizer.load_state_dict)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for param in group["params"]:
                if param.grad is None:
                    continue
                state = self.state[param]
                if not state:
                    shape = (len(param), 1) if param.grad.is_sparse else ()
                    state.update(m=torch.zeros_like(param), v=torch.zeros_like(param))
                    state["steps"] = torch.zeros(shape, device=param.device)
                (_rows if param.grad.is_sparse else _dense)(param, state, group)


def _dense(param: torch.Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
    beta1, beta2 = group["betas"]
    adamw.adamw(
        [param],
        [param.grad],  # type: ignore[list-item]
        [state["m"]],
        [state["v"]],
        [],
        [state["steps"]],
        fused=True,
        amsgrad=False,
        beta1=beta1,
        beta2=beta2,
        lr=group["lr"],
        weight_decay=group["weight_decay"],
        eps=group["eps"],
        maximize=False,
    )


def _rows(param: torch.Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
    (beta1, beta2), lr = group["betas"], group["lr"]
    sparse = param.grad.coalesce()  # type: ignore[union-attr]
    rows, grad = sparse.indices()[0], sparse.values()
    steps = state["steps"][rows] + 1
    m = state["m"][rows].lerp_(grad, 1 - beta1)
    v = state["v"][rows].mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
    state["steps"][rows], state["m"][rows], state["v"][rows] = steps, m, v
    step = (m / (1 - beta1**steps)) / ((v / (1 - beta2**steps)).sqrt_() + group["eps"])
    param[rows] = param[rows] * (1 - lr * group["weight_decay"]) - lr * step
