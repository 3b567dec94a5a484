"""Quality on held-out items: recommenders fitted on the kept playlists by the same pipeline, asked about the others."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
from collections.abc import Iterator, Sequence
from typing import Any

from recsys_dask import params, steps
from recsys_dask.errors import BudgetError, UsageError
from recsys_dask.holdout.split import check_rule, shows_nothing
from recsys_dask.pipeline import Made, Step, advance
from recsys_dask.runtime.clusters import Cluster
from recsys_dask.stages.evaluate import BASELINES, evaluate
from recsys_dask.stages.train import view_of
from recsys_dask.store.manifest import fingerprint
from recsys_dask.store.tables import Store

DEFAULT = "blend"
FOLDER = "evaluation"
"""Where the child store is, within the store."""


def methods_of(text: str) -> list[str]:
    """The methods that --methods names. Raises `UsageError` for one that does not exist."""
    known = (*params.recommenders(), "random")
    if text == "all":
        return list(known)
    wanted = list(dict.fromkeys(one.strip() for one in text.split(",")))
    for one in wanted:
        if one not in known:
            near = difflib.get_close_matches(one, known, n=1)
            hint = f"did you mean {near[0]}? It" if near else "it"
            raise UsageError(f"--methods is {text!r}: {hint} is one of {', '.join(known)}")
    return wanted


def evaluate_step(options: params.Evaluate, split: params.Split, store: Store) -> Step:
    """`evaluation_<item>` of a store. The child store stays, so that another evaluation only does what is new."""
    methods = methods_of(options.methods)
    check_rule(options.hidden)
    key, made_from = f"evaluate:{options.item}", ["ingest"]
    if not split.keep_near_duplicates:
        made_from.append("near_duplicates")
    settings = _settings(store, options.item)

    def run(cluster: Cluster, store: Store, token: str) -> Made:
        child = Store.open_or_new(store.folder.full(FOLDER))
        left = []
        for method in methods:
            wanted = steps_for(child, store, options, split, method, settings)
            try:
                advance(child, wanted, lambda: _same(cluster), cluster.progress)
                left.append(method)
            except BudgetError as error:
                if options.methods != "all":
                    raise
                cluster.progress.say(f"evaluate: leaves {method} out, since {error}")
        default = DEFAULT if DEFAULT in left else left[-1]
        return evaluate(
            cluster, store, child, options.item, left, options.hidden, split.split_seed, options.level, default, token
        )

    depends = dataclasses.asdict(options) | dataclasses.asdict(split) | {"settings": fingerprint(_plain(settings))}
    return Step(key, depends, tuple(made_from), lambda cluster, store, tokens: {key: run(cluster, store, tokens[key])})


@contextlib.contextmanager
def _same(cluster: Cluster) -> Iterator[Cluster]:
    yield cluster


Settings = tuple[params.Counts, params.Pairs, params.Similar, dict[str, params.Train]]


def _settings(store: Store, item: str) -> Settings:
    """The parameters that the store itself was made with, so that what is evaluated is what is used."""

    def made(cls: Any, key: str, **fixed: Any) -> Any:
        entry = store.manifest.stages.get(key)
        known = {field.name for field in dataclasses.fields(cls)}
        given = {name: value for name, value in (entry.params if entry else {}).items() if name in known}
        return cls(**{**given, **fixed})

    article = made(params.Pairs, f"pairs:{item}:article", item=item)
    full = made(params.Pairs, f"pairs:{item}:full", item=item)
    pairs = dataclasses.replace(article, min_playlists=full.min_playlists, view=None, mentions_over=None)
    return (
        made(params.Counts, "counts"),
        pairs,
        made(params.Similar, f"similar:{item}:coco", item=item, count_over=None),
        {model: made(params.Train, f"train:{item}:{model}", item=item) for model in params.MODELS},
    )


def _plain(settings: Settings) -> list[Any]:
    counts, pairs, similar, of_model = settings
    made: list[Any] = [counts, pairs, similar, *of_model.values()]
    return [dataclasses.asdict(one) for one in made]


def steps_for(
    child: Store, store: Store, options: params.Evaluate, split: params.Split, method: str, settings: Settings
) -> Sequence[Step]:
    """What a method needs of the child store."""
    item = options.item
    counts, pairs, similar, of_model = settings
    first = [steps.holdout_step(store, split), steps.counts_step(counts)]
    models = [method] if method in params.MODELS else ["mlp"] if method == "blend" else []
    of_full = dataclasses.replace(pairs, view="full"), dataclasses.replace(similar, measure="cosine")
    of_article = dataclasses.replace(pairs, view="article"), dataclasses.replace(similar, measure="coco")
    made = [*first, *steps.pairs_steps(*of_full)[:1]]
    if method == "coco" or any(view_of(of_model[model].preset) == "article" for model in models):
        made += steps.pairs_steps(*of_article)[: 2 if method == "coco" else 1]
    if shows_nothing(options.hidden) and method not in BASELINES:
        made.append(steps.titles_step(item))
    made += [steps.train_step(of_model[model], model, child, pairs.min_tracks) for model in models]
    if method in params.FITTED:
        made += steps.fit_steps(params.Fit(item=item), method)
    return made
