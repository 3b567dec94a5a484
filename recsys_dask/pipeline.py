"""The order of the stages: what is finished, what is to be redone and why, and the commit of each.

ingest -> counts -> pairs (article, full) -> similar (a measure each) -> export

The embeddings, their neighbours and the default recommender come between `similar` and `export`: each is one more
`Step` in `steps_for`.
"""

from __future__ import annotations

import dataclasses
import datetime
import itertools
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import recsys_dask
from recsys_dask import params
from recsys_dask.cooccurrence.measures import MEASURES
from recsys_dask.errors import StoreError
from recsys_dask.runtime.clusters import Cluster
from recsys_dask.runtime.progress import Progress
from recsys_dask.stages.counts import counts
from recsys_dask.stages.export import export
from recsys_dask.stages.ingest import ingest
from recsys_dask.stages.pairs import pairs
from recsys_dask.stages.similar import similar
from recsys_dask.store import manifest as manifests
from recsys_dask.store.files import Folder
from recsys_dask.store.manifest import InputFile, StageEntry, StageReport, TableEntry, fingerprint
from recsys_dask.store.tables import Store

Made = tuple[dict[str, TableEntry], StageReport]
EXPORT_FOLDER = "export"


@dataclasses.dataclass(frozen=True)
class Step:
    """One stage with its parameters. `key` names it in the manifest, `needs` the stages that it reads.

    `run` takes the tokens of the steps to do, by key: steps of one `group` that stand together are done in one go.
    """

    key: str
    params: dict[str, Any]
    needs: tuple[str, ...]
    run: Callable[[Cluster, Store, dict[str, str]], dict[str, Made]]
    group: str = ""


def _alone(key: str, run: Callable[[Cluster, Store, str], Made]) -> Callable[..., dict[str, Made]]:
    """The `run` of a step that has no company."""
    return lambda cluster, store, tokens: {key: run(cluster, store, tokens[key])}


@dataclasses.dataclass
class Outcome:
    """What became of a step: its report, and whether it was done now."""

    key: str
    report: StageReport
    fresh: bool


def ingest_step(inputs: Sequence[InputFile], options: params.Ingest) -> Step:
    """Slices to tables; its result depends on the files, and on whether bad ones are set aside."""

    def run(cluster: Cluster, store: Store, token: str) -> Made:
        entries, report, set_aside = ingest(cluster, store.folder, inputs, options, token)
        store.manifest.inputs = list(inputs)
        store.manifest.set_aside = set_aside
        return entries, report

    return Step(
        "ingest", {"on_bad_file": options.on_bad_file, "input": fingerprint(list(inputs))}, (), _alone("ingest", run)
    )


def counts_step(options: params.Counts) -> Step:
    return Step(
        "counts",
        dataclasses.asdict(options),
        ("ingest",),
        _alone("counts", lambda cluster, store, token: counts(cluster, store, options, token)),
    )


def pairs_steps(options: params.Pairs, similarity: params.Similar) -> list[Step]:
    """The views of the pairs that are asked for, and the similarity tables made from them."""
    measures = [MEASURES[similarity.measure]] if similarity.measure else list(MEASURES.values())
    steps = []
    for view in (options.view,) if options.view else params.VIEWS:
        of_view = [measure.name for measure in measures if measure.view == view]
        if not of_view:
            continue
        steps.append(_view_step(options, view))
        steps += [_similar_step(similarity, view, name) for name in of_view]
    return steps


VIEW_PARAMS = {
    "article": ("item", "mentions_over", "mentions_per_million", "min_tracks", "rows_low", "rows_high"),
    "full": ("item", "min_playlists"),
}
"""What each view depends on: changing the article's row range leaves the full view alone."""


def _view_step(options: params.Pairs, view: str) -> Step:
    key = f"pairs:{options.item}:{view}"
    return Step(
        key,
        {name: getattr(options, name) for name in VIEW_PARAMS[view]},
        ("ingest", "counts"),
        _alone(key, lambda cluster, store, token: pairs(cluster, store, options, view, token)),
    )


def _similar_step(options: params.Similar, view: str, name: str) -> Step:
    only_coco = {"score": options.score, "score_over": options.score_over, "count_over": options.count_over}

    def run(cluster: Cluster, store: Store, tokens: dict[str, str]) -> dict[str, Made]:
        of_name = {key.rpartition(":")[2]: token for key, token in tokens.items()}
        made = similar(cluster, store, options, view, of_name)
        return {f"similar:{options.item}:{name}": one for name, one in made.items()}

    return Step(
        f"similar:{options.item}:{name}",
        {"best": options.best} | (only_coco if name == "coco" else {}),
        (f"pairs:{options.item}:{view}",),
        run,
        group=f"similar:{view}",
    )


def export_step(options: params.Export, row_filter: tuple[int, int], needs: Sequence[Step]) -> Step:
    """The files that `run` leaves in the store's own export folder."""
    key = f"export:{options.item}"
    return Step(
        key,
        dataclasses.asdict(options),
        tuple(step.key for step in needs),
        _alone(
            key,
            lambda cluster, store, _: export(cluster, store, options, row_filter, store.folder, f"{EXPORT_FOLDER}/"),
        ),
    )


Connect = Callable[[], AbstractContextManager[Cluster]]


def advance(store: Store, steps: Sequence[Step], connect: Connect, progress: Progress) -> list[Outcome]:
    """Do what is not finished, in order, each step committed by itself; connect to a cluster only if need be.

    Raises `StoreError` where a step needs a stage that the store lacks and that is not among the steps.
    """
    tokens: dict[str, str] = {key: entry.fingerprint for key, entry in store.manifest.stages.items()}
    plan: list[tuple[Step, str, str | None]] = []
    for step in steps:
        for need in step.needs:
            if need not in tokens:
                command = need.partition(":")[0]
                raise StoreError(
                    f"{store.folder.url}: has no {need.replace(':', ' ')} yet; first run: "
                    f"recsys-dask {command} {store.folder.url}"
                )
        token = fingerprint(step.key, step.params, [tokens[need] for need in step.needs])
        plan.append((step, token, _reason(store, step, token)))
        tokens[step.key] = token
    if not any(reason is not None for _, _, reason in plan):
        return [Outcome(step.key, store.manifest.stages[step.key].report, False) for step, _, _ in plan]
    with connect() as cluster:
        for _, alike in itertools.groupby(plan, key=lambda one: one[0].group or one[0].key):
            due = {step.key: (step, token, reason) for step, token, reason in alike if reason is not None}
            for step, _, reason in due.values():
                if reason:
                    progress.say(f"{step.key.replace(':', ' ')}: again, since {reason}")
            if due:
                first, _, _ = next(iter(due.values()))
                made = first.run(cluster, store, {key: token for key, (_, token, _) in due.items()})
                _commit(store, [(step, token, *made[key]) for key, (step, token, _) in due.items()])
    return [Outcome(step.key, store.manifest.stages[step.key].report, reason is not None) for step, _, reason in plan]


def _reason(store: Store, step: Step, token: str) -> str | None:
    """Why a step is to be done: None if it is not, "" if it never was."""
    entry = store.manifest.stages.get(step.key)
    if entry is None:
        return ""
    if entry.fingerprint == token:
        return None
    changed = [
        f"{params.spelled(name)} was {entry.params.get(name)}, is {value}"
        for name, value in step.params.items()
        if entry.params.get(name) != value and name != "input"
    ]
    if entry.params.get("input") != step.params.get("input"):
        changed.append("the input changed")
    return ", ".join(changed) or "what it is made from changed"


def _commit(store: Store, made: Sequence[tuple[Step, str, dict[str, TableEntry], StageReport]]) -> None:
    """The steps' tables take the place of earlier ones; files that nothing lists any more go."""
    manifest = store.manifest
    before = manifest.files()
    for step, token, entries, report in made:
        earlier = manifest.stages.get(step.key)
        for name in earlier.tables if earlier else []:
            manifest.tables.pop(name, None)
        manifest.tables.update(entries)
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        manifest.stages[step.key] = StageEntry(token, step.params, list(entries), report, now)
    manifest.package = recsys_dask.__version__
    manifests.save(store.folder, manifest)
    store.folder.remove(*(before - manifest.files()))


def input_news(store: Store, inputs: Sequence[InputFile]) -> str:
    """How an input differs from what the store was made from, or nothing."""
    if not store.manifest.inputs:
        return ""
    before = {file.path: file for file in store.manifest.inputs}
    now = {file.path: file for file in inputs}
    news = [
        f"{len(files)} {word}"
        for word, files in (
            ("new", now.keys() - before.keys()),
            ("gone", before.keys() - now.keys()),
            ("changed", {path for path in now.keys() & before.keys() if now[path] != before[path]}),
        )
        if files
    ]
    return f"the input changed: {', '.join(news)} (of {len(now)} files)" if news else ""


def steps_for(
    inputs: Sequence[InputFile],
    ingest_options: params.Ingest,
    counts_options: params.Counts,
    pairs_options: params.Pairs,
    similar_options: params.Similar,
    export_options: params.Export,
) -> list[Step]:
    """The whole run."""
    made = pairs_steps(pairs_options, similar_options)
    return [
        ingest_step(inputs, ingest_options),
        counts_step(counts_options),
        *made,
        export_step(export_options, (counts_options.top, pairs_options.min_tracks), made),
    ]


def standalone_export(
    cluster: Cluster, store: Store, options: params.Export, row_filter: tuple[int, int], out: Folder
) -> Made:
    """Files for somebody else's folder: nothing about them is kept in the store."""
    return export(cluster, store, options, row_filter, out, "")
