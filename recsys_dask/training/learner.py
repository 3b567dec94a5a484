"""fastai `Learner`s and how they are fitted: seeds, progress, validation, interruption, checkpoints, resuming.

`fit` takes any `Learner` whose training loader has `epoch`, which it sets before each epoch and from which, with a
seed, all that the loader draws follows; and, if it has it, `n_rows`, the training rows of an epoch.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from recsys_dask.errors import BudgetError, TrainingError, UsageError
from recsys_dask.training.checkpoints import Keeper
from recsys_dask.training.losses import PlaylistLoss
from recsys_dask.training.playlists import PlaylistLoader, Playlists
from recsys_dask.training.recipes import Recipe
from recsys_dask.training.sparse_adam import SparseAdam
from recsys_dask.training.stock import Callback, CancelFitException, DataLoaders, Learner, OptimWrapper


@dataclass(frozen=True)
class Epoch:
    """One finished epoch, counted from 1. Losses are means over batches; `valid_loss` is None without validation.

    rate: the learning rate at its last step, of the last group of parameters
    """

    epoch: int
    train_loss: float
    valid_loss: float | None
    rate: float
    seconds: float
    rows_per_s: float


def pick_device(name: str | None) -> str:
    """`cpu` or `cuda[:n]`; None: CUDA where there is a device. Raises `UsageError` for one that is not there."""
    if name is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    kind, _, number = name.partition(":")
    if kind not in ("cpu", "cuda") or (number and not number.isdigit()) or (kind == "cpu" and number):
        raise UsageError(f"--device is {name!r}: give cpu or cuda")
    if kind == "cuda" and int(number or 0) >= torch.cuda.device_count():
        raise UsageError(f"--device is {name!r}: {torch.cuda.device_count()} CUDA devices are here; give cpu")
    return name


def playlist_learner(
    model: torch.nn.Module,
    train: PlaylistLoader,
    valid: PlaylistLoader,
    *,
    ridge: float = 0.0,
    loss: Callable[..., Any] | None = None,
    cbs: Sequence[Any] = (),
    **options: Any,
) -> Learner:
    """A `Learner` for a model of whole playlists: `PlaylistLoss` or another one, `SparseAdam`, momentum kept at 0.9.

    Its groups of parameters, for rates and decays: a table of playlists `p` if the model has one, the item biases
    `b`, all others. `options` go to `Learner`.
    """
    groups: dict[str, list[torch.nn.Parameter]] = {"p": [], "b": [], "rest": []}
    for name, param in model.named_parameters():
        groups[part if (part := name.partition(".")[0]) in groups else "rest"].append(param)
    parts = [group for group in groups.values() if group]
    return Learner(
        DataLoaders(train, valid, device=train.device),
        model.to(train.device),
        loss_func=loss or PlaylistLoss(ridge),
        opt_func=partial(OptimWrapper, opt=partial(SparseAdam, betas=(0.9, 0.99))),
        splitter=lambda _: parts,
        moms=(0.9, 0.9, 0.9),
        cbs=list(cbs),
        **options,
    )


def seed_torch(seed: int, epoch: int) -> None:
    """Seed torch for an epoch (0: before the first, for what a model is filled with)."""
    torch.manual_seed(int(np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)[0] >> 1))


def loaders(
    playlists: Playlists, recipe: Recipe, *, held: int = 0, seed: int = 0, device: str | None = None
) -> tuple[PlaylistLoader, PlaylistLoader]:
    """Loaders for training and for validation, by `held` playlists that are kept from the training.

    In validation half of a playlist's items is shown, the same half every epoch, and all items are scored.
    """
    here = pick_device(device)
    fitted, kept = playlists.split(held, seed)
    train = PlaylistLoader(fitted, recipe.size, drop=recipe.drop, scored=recipe.scored, seed=seed, device=here)
    return train, PlaylistLoader(kept, recipe.size, drop=0.5, shuffle=False, seed=seed, device=here)


def fit_recipe(learner: Learner, recipe: Recipe, **options: Any) -> list[Epoch]:
    """`fit` by a recipe, for a learner of `playlist_learner`; `options` go to `fit`."""
    n_groups = len(learner.splitter(learner.model))  # the last is the rest, before it biases, before these a table
    rates = [recipe.table_rate, recipe.rate, recipe.rate][3 - n_groups :]
    decays = [0.0, 0.0, recipe.decay][3 - n_groups :]
    return fit(learner, recipe.epochs, rates, decays, **options)


class _Progress(Callback):
    """Watches a fit: what an epoch ends with, whether the loss is a number, when to stop."""

    order = 65  # after fastai's own records

    def __init__(self, seed: int, keep: Callable[[Epoch], bool]):
        self._seed, self._keep = seed, keep
        self._fault: str | None = None
        self._begun: float | None = None

    def before_train(self) -> None:
        train = self.learn.dls.train
        train.epoch = self.learn.epoch
        seed_torch(self._seed, self.learn.epoch + 1)
        self._begun, self._total, self._batches = time.perf_counter(), 0.0, 0

    def after_train(self) -> None:
        if self._begun is not None:
            self._seconds = time.perf_counter() - self._begun

    def after_batch(self) -> None:
        if not self.learn.training:
            return
        self._total = self._total + self.learn.loss.detach()
        self._batches += 1
        # Asking a GPU for a number holds it up.
        if self.learn.loss.device.type == "cpu" or self._batches % 50 == 0:
            self._stop_at_nan()

    def _stop_at_nan(self) -> None:
        if not math.isfinite(float(self._total)):
            rates = ", ".join(f"{group['lr']:.3g}" for group in self.learn.opt.hypers)
            self._fault = (
                f"the loss is not a number in epoch {self.learn.epoch + 1}, batch {self.learn.iter + 1}, at a learning"
                f" rate of {rates}: give a lower one"
            )
            raise CancelFitException

    def after_epoch(self) -> None:
        if self._begun is None:  # skipped: done before a resumption
            return
        self._begun = None
        self._stop_at_nan()
        valid = self.learn.recorder.loss.value if len(self.learn.dls.valid) else None
        rows = getattr(self.learn.dls.train, "n_rows", 0)
        record = Epoch(
            self.learn.epoch + 1,
            float(self._total) / max(self._batches, 1),
            None if valid is None else float(valid),
            float(self.learn.opt.hypers[-1]["lr"]),
            self._seconds,
            rows / self._seconds,
        )
        if self._keep(record):
            raise CancelFitException


def _copied(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


class _Memory:
    """The epochs so far, and the model as it was after the last and after the best of them."""

    def __init__(self, learner: Learner, patience: int | None, best: bool, keeper: Keeper | None, tell: Any):
        self.learner, self.patience, self.keep_best, self.keeper, self.tell = learner, patience, best, keeper, tell
        self.history: list[Epoch] = []
        self.last: dict[str, torch.Tensor] = {}
        self.best: dict[str, torch.Tensor] = {}

    def resume(self) -> int:
        """Take up what the keeper's folder holds; how many epochs are done."""
        found = self.keeper.load() if self.keeper else None
        if found is None:
            return 0
        self.history = [Epoch(**record) for record in found.history]
        self.learner.model.load_state_dict(found.state["model"])
        self.learner.create_opt()
        self.learner.opt.load_state_dict(found.state["optimiser"])
        self.last = _copied(self.learner.model)
        self.best = found.state["best"] or self.last
        return len(self.history)

    def _losses(self) -> list[float]:
        return [one.train_loss if one.valid_loss is None else one.valid_loss for one in self.history]

    def add(self, record: Epoch) -> bool:
        """Keep an epoch; whether it is time to stop."""
        self.history.append(record)
        losses = self._losses()
        at = losses.index(min(losses))
        self.last = _copied(self.learner.model)
        if at == len(losses) - 1:
            self.best = self.last
        if self.keeper:
            best = self.best if self.keep_best and at < len(losses) - 1 else None
            state = {"model": self.last, "best": best, "optimiser": self.learner.opt.state_dict()}
            self.keeper.save(state, [asdict(one) for one in self.history])
        if self.tell:
            self.tell(record)
        return self.patience is not None and len(losses) - 1 - at >= self.patience

    def restore(self, interrupted: bool = False) -> None:
        """Leave the model as after the last finished epoch, or the best one if that is wanted."""
        state = self.best if self.keep_best else self.last if interrupted else {}
        if state:
            self.learner.model.load_state_dict(state)


def fit(
    learner: Learner,
    epochs: int,
    rate: float | Sequence[float],
    decay: float | Sequence[float],
    *,
    seed: int = 0,
    patience: int | None = None,
    best: bool = False,
    progress: Callable[[Epoch], None] | None = None,
    keeper: Keeper | None = None,
    resume: bool = False,
    stop_after: int | None = None,
    **schedule: Any,
) -> list[Epoch]:
    """Fit by `fit_one_cycle`; the finished epochs.

    rate, decay: one, or one a group of parameters; patience: stop when so many epochs brought no lower validation
    loss (training loss without validation); best: leave the model as after the best epoch; progress: told each
    finished epoch; keeper: saves each, and with `resume` goes on from what it finds; stop_after: leave after so many
    epochs of the schedule; `schedule`: for `fit_one_cycle` (pct_start, div, …).

    Ctrl-C: the model is left as after the last finished epoch, and `KeyboardInterrupt` goes on. Raises
    `TrainingError` for a loss that is no number, `BudgetError` for a GPU that is too small, `StoreError` for a
    checkpoint that cannot be used.
    """
    # On the CPU the losses split their work themselves, and the rest is too small to be split.
    threads = torch.get_num_threads()
    splits = isinstance(learner.dls.train, PlaylistLoader)
    memory = _Memory(learner, patience, best, keeper, progress)
    device = next(learner.model.parameters()).device
    watch = _Progress(seed, lambda one: memory.add(one) or one.epoch == stop_after)
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        try:
            if splits:
                torch.set_num_threads(1)
            done = memory.resume() if resume else 0
            if done >= epochs or (stop_after is not None and done >= stop_after):
                memory.restore()
                return memory.history
            with learner.no_logging(), learner.no_bar() if hasattr(learner, "no_bar") else nullcontext():
                wd = list(decay) if isinstance(decay, Sequence) else decay
                lr = list(rate) if isinstance(rate, Sequence) else rate
                learner.fit_one_cycle(epochs, lr, wd=wd, cbs=watch, start_epoch=done, **schedule)
        except KeyboardInterrupt:
            memory.restore(interrupted=True)
            raise
        except torch.cuda.OutOfMemoryError:
            raise BudgetError(_too_large(learner, device)) from None
        finally:
            torch.set_num_threads(threads)
    if watch._fault:
        memory.restore(interrupted=True)
        raise TrainingError(watch._fault)
    memory.restore()
    return memory.history


def _too_large(learner: Learner, device: torch.device) -> str:
    """What a GPU had to hold."""
    model = sum(param.nbytes for param in learner.model.parameters())
    total = torch.cuda.get_device_properties(device).total_memory
    return (
        f"{device} has {total / 1e9:.1f} GB, too few for parameters of {model / 1e9:.2f} GB with gradients and two "
        f"moments ({4 * model / 1e9:.2f} GB) and batches of {getattr(learner.dls.train, 'size', '?')}: give smaller "
        "batches, fewer factors or train on the cpu"
    )
