"""How a recommender is fitted on playlists: what must follow the data is chosen by hiding items of some of them.

A fifth of the items of at most 1,000 playlists is hidden, the recommender fitted on the others and asked for them; then
it is fitted on all. A choice that differs from what was found best on real playlists has to win by a standard error.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from recsys_dask.compressed import owners_of, starts_of
from recsys_dask.errors import BudgetError
from recsys_dask.holdout.lists import Lists as Sets
from recsys_dask.holdout.split import Known, hide
from recsys_dask.metrics.base import judge, top_k
from recsys_dask.metrics.ranking import ndcg, r_precision, recall
from recsys_dask.models.als import als
from recsys_dask.models.base import Data, Floats, Lists, Scorer, chosen_extras, lacking, restricted
from recsys_dask.models.blend import best_weights, standardised, weighted
from recsys_dask.models.folded import FoldedMean
from recsys_dask.models.linear import ALONE, WITH_INPUTS, ease, linear

FITTED_PARTS = ("linear", "als")
BLENDED = (*FITTED_PARTS, "mlp")
"""The parts of a blend: those that `fit` makes, and all."""

VALIDATES, VALID_SHARE, LEAST_VALIDATES = 1_000, 0.2, 20
"""How many playlists have items hidden: at most, and as a share; with fewer than the last nothing is chosen."""

INNER_PLAYLISTS = 100_000
"""A fit that only serves to choose takes no more playlists than these."""

CHOICE_ITEMS = 2_000
"""A ridge is chosen on the items of most playlists: inverting a matrix costs the cube of its size."""

EASE_RIDGES = (30.0, 100.0, 300.0, 1_000.0, 3_000.0)
FACTORS = (1 / 3, 1.0, 3.0)
INNER_EXTRAS = 2_000
"""Further inputs of a `linear` that only serves to choose, where it is fitted by input."""

ALS_RIDGE = 0.005
ALS_LEAST = 3
ALS_INPUTS = 100_000
"""Further inputs of `als` are in at least so many playlists, and there are at most so many of them."""

MOST_INPUTS = 15_000
"""Of a matrix over inputs, whose inverse takes a minute or two of two cores."""

MOST_PLAYLISTS = 12_000
"""Of a matrix over playlists."""


class Inner(NamedTuple):
    """Playlists to fit on, others to ask, and what these hide: starts (n + 1,), items."""

    data: Data
    asked: Lists
    hidden_starts: NDArray[np.int64]
    hidden: NDArray[np.int32]

    def quality(self, scores: Floats) -> NDArray[np.float64]:
        """(n,) float64: R-precision + NDCG@100 + recall@50 of each playlist."""
        ranked = judge(top_k(scores, self.asked.starts, self.asked.items, 100), self.hidden_starts, self.hidden)
        nothing: Any = None
        return r_precision(ranked, nothing) + ndcg(ranked, nothing) + recall(ranked, nothing)


def inner(data: Data, seed: int) -> Inner | None:
    """A split of the playlists, or None where there are too few to learn from it."""
    n = data.lists.n
    order = np.random.default_rng([seed, 11]).permutation(n)
    asked = np.zeros(n, bool)
    asked[order[: min(VALIDATES, int(VALID_SHARE * n))]] = True
    kept = ~asked
    kept[order[min(VALIDATES, int(VALID_SHARE * n)) + INNER_PLAYLISTS :]] = False
    lists = data.lists.where(asked)
    known = Known(Sets(lists.starts, lists.items), np.zeros(0, np.int64))
    some, hidden = hide(known, "fifth", seed, np.flatnonzero(asked))
    if some.sum() < LEAST_VALIDATES:
        return None
    hidden = hidden[np.repeat(some, np.diff(lists.starts))]
    lists = lists.where(some)
    holder = owners_of(lists.starts)
    starts = starts_of(np.bincount(holder[hidden], minlength=lists.n))
    return Inner(
        data._replace(lists=data.lists.where(kept)), lacking(lists, hidden, data.owner), starts, lists.items[hidden]
    )


class Fitted(NamedTuple):
    """scorer: what was fitted; how: the constants that were chosen; notes: the same for people."""

    scorer: Scorer
    how: dict[str, float]
    notes: list[str]


def fit_ease(data: Data, seed: int, free_bytes: float) -> Fitted:
    """EASE, its ridge by validation."""
    _fits("ease", 12 * data.n_items**2, free_bytes)
    few = restricted(data, CHOICE_ITEMS)
    ridge, notes = _chosen("ridge", few, seed, EASE_RIDGES, None, ease)
    ridge = ridge or 300.0
    return Fitted(ease(data, ridge), {"ridge": ridge}, notes)


def fit_linear(
    data: Data, seed: int, free_bytes: float, how: Mapping[str, float] | None = None, most_inputs: int = MOST_INPUTS
) -> Fitted:
    """`linear`, its ridge by validation or as it was chosen before."""
    n_extras, primal = _form(data, most_inputs, free_bytes)
    extras = chosen_extras(data, n_extras)
    shape = WITH_INPUTS if len(extras) else ALONE
    notes: list[str] = []
    if how is None:
        few = restricted(data, CHOICE_ITEMS)
        factor, notes = _chosen("ridge", few, seed, FACTORS, 1.0, _linear_alone)
        how = {"factor": factor or 1.0}
    chosen = replace(shape, ridge=shape.ridge * how["factor"])
    notes.append(
        f"{data.n_items:,} items and {len(extras):,} further inputs, {'by input' if primal else 'by playlist'}"
    )
    return Fitted(linear(data, chosen, extras, primal), dict(how), notes)


def linear_lists(data: Data, how: Mapping[str, float]) -> Floats:
    """(N, N): how much item i speaks for item j, of `linear` on the items alone: for lists of similar items."""
    return _linear_alone(data, how["factor"]).by_item()


def _linear_alone(data: Data, factor: float) -> Any:
    return linear(data, replace(ALONE, ridge=ALONE.ridge * factor), np.zeros(0, np.int32))


def fit_als(data: Data, seed: int, free_bytes: float, how: Mapping[str, float] | None = None) -> Fitted:
    """`als`, its ridge by validation or as it was chosen before."""
    extras = chosen_extras(data, ALS_INPUTS, ALS_LEAST)
    _fits("als", 4 * 128 * (2 * data.n_items + 2 * len(extras) + 2 * data.lists.n), free_bytes)
    notes: list[str] = []
    if how is None:
        few = restricted(data, CHOICE_ITEMS)
        none = np.zeros(0, np.int32)
        factor, notes = _chosen(
            "ridge", few, seed, FACTORS, 1.0, lambda part, by: als(part, none, ridge=ALS_RIDGE * by, seed=seed)
        )
        how = {"factor": factor or 1.0}
    return Fitted(als(data, extras, ridge=ALS_RIDGE * how["factor"], seed=seed), dict(how), notes)


def fit_mlp(data: Data, seed: int, device: str | None = None) -> FoldedMean:
    """`mlp` of the default preset, for a choice: the store's own comes from `train`."""
    from recsys_dask.models.mlp import MeanMLP
    from recsys_dask.training.learner import fit_recipe, loaders, playlist_learner, seed_torch
    from recsys_dask.training.playlists import Playlists
    from recsys_dask.training.recipes import recipe

    playlists = Playlists(data.lists.starts, data.lists.items, data.n_items)
    chosen = recipe("mlp", len(playlists), data.n_items)
    seed_torch(seed, 0)
    model = MeanMLP(playlists.n_playlists, len(playlists), chosen.factors)
    learner = playlist_learner(model, *loaders(playlists, chosen, seed=seed, device=device), ridge=chosen.ridge)
    fit_recipe(learner, chosen, seed=seed)
    layers = tuple(part for layer in model.layers() for part in layer)
    return FoldedMean(model.vectors(), model.bias(), layers)


def fit_blend(
    data: Data, seed: int, free_bytes: float, hows: Mapping[str, Mapping[str, float]], device: str | None = None
) -> tuple[tuple[float, ...], list[str]]:
    """The weights of `BLENDED` by validation. hows: how the store's `linear` and `als` were fitted."""
    split = inner(data, seed)
    if split is None:
        return (1.0,) * len(BLENDED), ["too few playlists to choose weights: equal ones"]
    few = split.data.n_items + INNER_EXTRAS
    parts: dict[str, Scorer] = {
        "linear": fit_linear(split.data, seed, free_bytes, hows["linear"], few).scorer,
        "als": fit_als(split.data, seed, free_bytes, hows["als"]).scorer,
        "mlp": fit_mlp(split.data, seed, device),
    }
    asked = [parts[name].scores(split.asked) for name in BLENDED]
    found = ", ".join(f"{name} {split.quality(own).mean() / 3:.4f}" for name, own in zip(BLENDED, asked, strict=True))
    scores = [standardised(own, split.asked) for own in asked]
    weights = best_weights(scores, split.quality)
    note = f"mean of R-precision, NDCG@100 and recall@50 of {split.asked.n:,} playlists: {found}"
    chosen = " : ".join(f"{weight:g}" for weight in weights)
    return weights, [f"{note}, blend {split.quality(weighted(scores, weights)).mean() / 3:.4f} at {chosen}"]


def _chosen(
    name: str,
    data: Data,
    seed: int,
    values: Sequence[float],
    usual: float | None,
    make: Callable[[Data, float], Scorer],
) -> tuple[float | None, list[str]]:
    """The value of the best recommendations; `usual` unless another one wins by a standard error of the difference."""
    split = inner(data, seed)
    if split is None:
        return usual, [f"too few playlists to choose the {name}"]
    found = {value: split.quality(make(split.data, value).scores(split.asked)) for value in values}
    best = max(found, key=lambda value: found[value].mean())
    if usual is not None and best != usual:
        gain = found[best] - found[usual]
        if gain.mean() <= gain.std() / math.sqrt(len(gain)):
            best = usual
    return best, [f"{name} {'×' if usual else ''}{best:.3g} of {', '.join(f'{value:.3g}' for value in values)}"]


def _form(data: Data, most_inputs: int, free_bytes: float) -> tuple[int, bool]:
    """How many further inputs `linear` takes, and whether by inputs. Raises `BudgetError` where neither way fits."""
    n, n_items = data.lists.n, data.n_items
    n_extras = int((data.n_extra_playlists() >= 2).sum())
    by_playlist = 16.0 * n * n + 8.0 * n * n_items
    if n <= min(MOST_PLAYLISTS, n_items + n_extras) and by_playlist <= free_bytes:
        flops = float(n) ** 3 + 2.0 * n * (len(data.lists.items) + len(data.lists.extras)) * 4
        if float(n_items + n_extras) ** 3 > flops or n_items + n_extras > most_inputs:
            return n_extras, False
    n_extras = max(min(n_extras, most_inputs - n_items), 0)
    while n_extras and _primal_bytes(n_items, n_extras) > free_bytes:
        n_extras //= 2
    _fits("linear", _primal_bytes(n_items, n_extras), free_bytes)
    return n_extras, True


def _primal_bytes(n_items: int, n_extras: int) -> float:
    n_inputs = n_items + n_extras
    return 8.0 * n_inputs**2 + 4.0 * n_inputs * n_items


def _fits(method: str, needed: float, free_bytes: float) -> None:
    if needed > free_bytes:
        raise BudgetError(
            f"fit {method}: needs {needed / 1e6:,.0f} MB and {free_bytes / 1e6:,.0f} MB are free: take fewer items "
            "(artists: counts --top; tracks: pairs --min-playlists), or recommend by --method mlp, which is smaller"
        )
