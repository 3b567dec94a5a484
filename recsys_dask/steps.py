"""Which steps there are, what each depends on, and their order.

ingest -> counts -> near_duplicates -> pairs (article, full) -> similar (a measure each) -> train, neighbours (a model
each) -> fit (a recommender each) -> export
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from recsys_dask import params
from recsys_dask.cooccurrence.measures import MEASURES
from recsys_dask.errors import Fault, StoreError, TooFewError, UsageError, bad_input
from recsys_dask.formats.inputs import exists, format_of
from recsys_dask.formats.parts import SCRATCH
from recsys_dask.pipeline import EXPORT_FOLDER, Made, Step
from recsys_dask.recommending.fitting import FITTED_PARTS
from recsys_dask.runtime.clusters import Cluster
from recsys_dask.stages.counts import counts
from recsys_dask.stages.export import export
from recsys_dask.stages.fit import fit
from recsys_dask.stages.holdout import holdout, near_duplicates_of
from recsys_dask.stages.ingest import decoded_before, ingest
from recsys_dask.stages.near_duplicates import near_duplicates
from recsys_dask.stages.neighbours import neighbours
from recsys_dask.stages.pairs import Earlier, pairs
from recsys_dask.stages.similar import similar
from recsys_dask.stages.titles import titles
from recsys_dask.stages.train import scratch_of, train, view_of
from recsys_dask.store.files import Folder
from recsys_dask.store.manifest import InputFile, StageReport, fingerprint
from recsys_dask.store.tables import Store


def _alone(key: str, run: Callable[[Cluster, Store, str], Made]) -> Callable[..., dict[str, Made]]:
    """The `run` of a step that has no company."""
    return lambda cluster, store, tokens: {key: run(cluster, store, tokens[key])}


def ingest_step(inputs: Sequence[InputFile], options: params.Ingest, store: Store) -> Step:
    """Slices to tables; the result depends on the files, and on whether bad ones are set aside.

    With `append` only the files that the store lacks are read. A store that was filled by appending from these very
    files counts as finished. Raises `InputError` for an append to a store whose slices have changed or gone.
    """
    settings = {"on_bad_file": options.on_bad_file, **format_of(inputs).settings(options)}
    settings.pop("reader", None)  # both give the same tables
    made = store.manifest.stages.get("ingest")
    appends = options.append and made is not None
    if appends and format_of(inputs).whole:
        raise StoreError("--append adds slices; a table is read as a whole: leave --append out")
    left = _new_files(store, inputs) if appends else list(inputs)
    known = {name: store.manifest.tables[name] for name in made.tables} if appends and made else None

    def run(cluster: Cluster, store: Store, token: str) -> Made:
        entries, report, set_aside = ingest(cluster, store.folder, left, options, token, known)
        store.manifest.inputs = sorted({*store.manifest.inputs, *left}) if appends else list(inputs)
        store.manifest.set_aside = [*store.manifest.set_aside, *set_aside] if appends else set_aside
        return entries, report

    together = sorted({*store.manifest.inputs, *left}) if appends else list(inputs)
    same = made and together == store.manifest.inputs and made.params == settings | {"input": made.params["input"]}
    return Step(
        "ingest",
        settings | {"input": fingerprint(together)},
        (),
        _alone("ingest", run),
        scratch=SCRATCH,
        resumable=lambda folder: {name for one in decoded_before(folder, left, options) for name in one.names},
        standing=made.fingerprint if made and same else "",
        onto=made.fingerprint if made and appends else "",
    )


def _new_files(store: Store, inputs: Sequence[InputFile]) -> list[InputFile]:
    """The files that the store lacks. Raises `InputError` naming those that have changed or gone since."""
    before = {file.path: file for file in store.manifest.inputs}
    listed = {file.path for file in inputs}
    faults = [
        Fault(file.path, "", "changed since it was ingested") for file in inputs if before.get(file.path, file) != file
    ]
    faults += [Fault(path, "", "is gone") for path in before.keys() - listed if not exists(path)]
    if faults:
        raise bad_input(faults, "an append only adds; --rebuild reads everything again")
    return [file for file in inputs if file.path not in before]


SMALL_INPUT_BYTES = 150_000_000
"""JSON that the threads of one process decode sooner than workers start."""

SMALL_ROWS = 3_000_000
PACKED = 8
"""Bytes of JSON that a byte of gzip or Parquet may stand for."""


def is_small(store: Store, inputs: Sequence[InputFile], rebuild: bool) -> bool:
    """Whether what there is to do may be done before a cluster would have started: little to read, few rows."""
    known = set() if rebuild else set(store.manifest.inputs)
    unread = sum(file.bytes * (1 if file.path.endswith((".json", ".csv")) else PACKED) for file in {*inputs} - known)
    rows = store.manifest.tables["rows"].rows if "rows" in store.manifest.tables else 0
    return unread <= SMALL_INPUT_BYTES and rows <= SMALL_ROWS


def counts_step(options: params.Counts) -> Step:
    """The tops of both vocabularies."""
    return Step(
        "counts",
        dataclasses.asdict(options),
        ("ingest",),
        _alone("counts", lambda cluster, store, token: counts(cluster, store, options, token)),
    )


def near_duplicates_step(options: params.NearDuplicates) -> Step:
    """Which playlists nearly repeat an earlier one."""
    key = "near_duplicates"

    def run(cluster: Cluster, store: Store, token: str) -> Made:
        return near_duplicates(cluster, store, options, token)

    return Step(key, dataclasses.asdict(options), ("ingest",), _alone(key, run))


def holdout_step(parent: Store, options: params.Split) -> Step:
    """The training and test playlists of a store, as the `ingest` of a child store: it then goes through the other
    steps as any store does. Done again where the parent's playlists, or its near-duplicates, are others.

    Raises `StoreError` where the parent lacks what it is made from.
    """
    parent.entry("rows")
    keys = ["ingest"] if options.keep_near_duplicates else ["ingest", near_duplicates_of(parent)]
    made_from = [parent.manifest.stages[key].fingerprint for key in keys]

    def run(cluster: Cluster, store: Store, token: str) -> Made:
        return holdout(cluster, parent, store.folder, options, token)

    settings = dataclasses.asdict(options) | {"input": fingerprint(made_from)}
    return Step("ingest", settings, (), _alone("ingest", run), scratch=SCRATCH)


def check_rows(options: params.Pairs) -> None:
    """Raises `UsageError` for a range of rows that holds none."""
    if options.rows_low > options.rows_high:
        raise UsageError(
            f"--rows-low is {options.rows_low} and --rows-high {options.rows_high}: the low one must not be higher"
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
    depends = {name: getattr(options, name) for name in VIEW_PARAMS[view]}

    def run(cluster: Cluster, store: Store, token: str) -> Made:
        return pairs(cluster, store, options, view, token, earlier=_earlier(store, key, depends))

    return Step(key, depends, ("ingest", "counts"), _alone(key, run))


def _earlier(store: Store, key: str, depends: dict[str, Any]) -> Earlier | None:
    """Pairs of the same parameters that were made before slices were appended, if there are any."""
    entry, lineage = store.manifest.stages.get(key), store.manifest.stages["ingest"].lineage
    if entry is None or entry.params != depends:
        return None
    n_files = lineage.get(entry.made_from.get("ingest", ""), 0)
    if not 0 < n_files < len(store.entry("rows").files):
        return None
    return Earlier(n_files, entry.report.facts["playlists"])


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


def article_min_tracks(store: Store, item: str) -> int:
    """`num_tracks` that playlists of a store's `article` pairs exceed; the default where it has none."""
    made = store.manifest.stages.get(f"pairs:{item}:article")
    return int(made.params["min_tracks"]) if made else params.Pairs().min_tracks


def train_step(options: params.Train, model: str, store: Store, min_tracks: int | None = None) -> Step:
    """A model's vectors. min_tracks: of the pairs that this run makes; None: of those that the store has."""
    view = view_of(options.preset)
    if options.preset == "article" and model == "item2vec":
        raise UsageError("--preset article trains mf and mlp alone: give --preset default for item2vec")
    pairs_key, key = f"pairs:{options.item}:{view}", f"train:{options.item}:{model}"
    depends = {
        name: value for name, value in dataclasses.asdict(options).items() if name not in params.Train.NOT_OF_THE_RESULT
    }
    least = article_min_tracks(store, options.item) if min_tracks is None else min_tracks

    def run(cluster: Cluster, store: Store, token: str) -> Made:
        return train(cluster, store, options, model, least, token)

    scratch = scratch_of(options.item, model)
    return Step(
        key,
        depends,
        ("ingest", pairs_key),
        _alone(key, run),
        scratch=scratch,
        resumable=lambda folder: set(folder.names(scratch)),
    )


def neighbours_step(options: params.Neighbours, model: str, preset: str) -> Step:
    """The nearest items by a model's vectors. preset: of that model, for the metric where none is given."""
    key = f"neighbours:{options.item}:{model}"
    metric = options.metric or ("euclidean" if preset == "article" else "cosine")

    def run(cluster: Cluster, store: Store, token: str) -> Made:
        return neighbours(cluster, store, options.item, model, metric, options.index, options.best, token)

    depends = {"best": options.best, "metric": metric, "index": options.index}
    return Step(key, depends, (f"train:{options.item}:{model}",), _alone(key, run))


def trained(store: Store, options: params.Neighbours) -> list[Step]:
    """The neighbours of the models that a store has, or of the one that is asked for."""
    stages = store.manifest.stages
    presets = {
        model: stages[key].params["preset"]
        for model in params.MODELS
        if (key := f"train:{options.item}:{model}") in stages and options.model in (None, model)
    }
    if options.model is not None:
        presets.setdefault(options.model, "default")  # which the store lacks, as `advance` says
    elif not presets:
        command = f"recsys-dask train {store.folder.url}" + (f" --item {options.item}" * (options.item != "artist"))
        raise StoreError(f"{store.folder.url}: has no model of {options.item}s yet; first run: {command}")
    return [neighbours_step(options, model, preset) for model, preset in presets.items()]


def fit_steps(options: params.Fit, method: str, lenient: bool = False) -> list[Step]:
    """A recommender, a blend after its parts. lenient: too little to fit on is no error, but noted."""
    parts = FITTED_PARTS if method == "blend" else ()
    return [_fit_step(options, one, lenient) for one in (*parts, method)]


def recommender_of(asked: str | None, models: Sequence[str], train: params.Train, pairs: params.Pairs) -> str | None:
    """The recommender that a run fits. Raises `UsageError` for one that the run does not make what it needs for."""
    missing = (
        "--models leaves out mlp" if "mlp" not in models
        else "--preset article trains no mlp of whole playlists" if train.preset == "article"
        else "--view article makes no pairs of all playlists" if pairs.view == "article" else ""
    )  # fmt: skip
    if asked == "blend" and missing:
        raise UsageError(f"--recommender blend: {missing}; leave that out, or give --recommender linear")
    if asked is None:
        return None if missing or pairs.item == "track" else "blend"  # tracks may be too many for a matrix
    return None if asked == "none" else asked


def titles_step(item: str) -> Step:
    """What playlists of a title hold."""
    key = f"titles:{item}"

    def run(cluster: Cluster, store: Store, token: str) -> Made:
        return titles(cluster, store, item, token)

    return Step(key, {}, ("ingest", f"pairs:{item}:full"), _alone(key, run))


def _fit_step(options: params.Fit, method: str, lenient: bool) -> Step:
    key, item = f"fit:{options.item}:{method}", options.item

    def run(cluster: Cluster, store: Store, token: str) -> Made:
        try:
            return fit(cluster, store, options, method, token)
        except TooFewError as error:
            if not lenient:
                raise
            return {}, StageReport(notes=[str(error)])

    needs = ["ingest", f"pairs:{item}:full"]
    if method == "blend":
        needs += [*(f"fit:{item}:{part}" for part in FITTED_PARTS), f"train:{item}:mlp"]
    depends: dict[str, Any] = {"seed": options.seed} | ({"best": options.best} if method == "linear" else {})
    return Step(key, depends, tuple(needs), _alone(key, run))


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


def steps_for(
    inputs: Sequence[InputFile],
    store: Store,
    ingest_options: params.Ingest,
    counts_options: params.Counts,
    near_options: params.NearDuplicates,
    pairs_options: params.Pairs,
    similar_options: params.Similar,
    models: Sequence[str],
    train_options: params.Train,
    neighbours_options: params.Neighbours,
    fit_options: params.Fit,
    recommender: str | None,
    export_options: params.Export,
) -> list[Step]:
    """The whole run; `models` are trained; recommender: which one is fitted, None for none."""
    made = pairs_steps(pairs_options, similar_options)
    if pairs_options.view in (None, view_of(train_options.preset)):
        for model in models:
            made.append(train_step(train_options, model, store, pairs_options.min_tracks))
            made.append(neighbours_step(neighbours_options, model, train_options.preset))
    if recommender:
        made += [*fit_steps(fit_options, recommender, lenient=True), titles_step(fit_options.item)]
    return [
        ingest_step(inputs, ingest_options, store),
        counts_step(counts_options),
        near_duplicates_step(near_options),
        *made,
        export_step(export_options, (counts_options.top, pairs_options.min_tracks), made),
    ]


def standalone_export(
    cluster: Cluster, store: Store, options: params.Export, row_filter: tuple[int, int], out: Folder
) -> Made:
    """Files for somebody else's folder: nothing about them is kept in the store."""
    return export(cluster, store, options, row_filter, out, "")
