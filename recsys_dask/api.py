"""One public function a command. Parameters are the fields of the dataclasses in `params`, by keyword."""

from __future__ import annotations

import dataclasses
import inspect
import os
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recsys_dask import params
from recsys_dask.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    from distributed import Client
    from numpy.typing import NDArray

    from recsys_dask import planning
    from recsys_dask.formats.inputs import Input
    from recsys_dask.pipeline import Outcome, Step
    from recsys_dask.runtime.clusters import Cluster
    from recsys_dask.runtime.progress import Progress
    from recsys_dask.stages.check import Checked
    from recsys_dask.store.tables import Store

Place = str | os.PathLike[str]


@dataclasses.dataclass(frozen=True)
class Command:
    """A public function and the dataclasses that its parameters come from, for the command line to be made of."""

    function: Callable[..., Any]
    options: tuple[type, ...]


COMMANDS: dict[str, Command] = {}


def command(*options: type) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Make a function a command: its `**parameters` are checked against `options`, and shown in its signature."""

    def enter(function: Callable[..., Any]) -> Callable[..., Any]:
        fields = {field.name: field for cls in options for field in dataclasses.fields(cls)}
        own = [p for p in inspect.signature(function).parameters.values() if p.kind is not p.VAR_KEYWORD]
        shown = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=field.type)
            for name, field in fields.items()
        ]
        function.__signature__ = inspect.Signature([*own, *shown])  # type: ignore[attr-defined]
        lines = [f"    {name}: {field.metadata['help']}" for name, field in fields.items()]
        function.__doc__ = f"{inspect.cleandoc(function.__doc__ or '')}\n\nParameters:\n" + "\n".join(lines)
        COMMANDS[function.__name__] = Command(function, options)
        return function

    return enter


@command(params.Sample, params.Cluster)
def sample(
    out: Place, *, client: Client | None = None, progress: Progress | None = None, **parameters: Any
) -> Path | str:
    """Write MPD-shaped slices with planted artist scenes into the folder `out`.

    A folder that holds them already is left as it is. Returns the folder. Raises `StoreError` if it cannot be
    written, `UsageError` for parameters.
    """
    from recsys_dask.runtime.connecting import connect
    from recsys_dask.runtime.preflight import Reach
    from recsys_dask.stages.sample import SMALL
    from recsys_dask.stages.sample import sample as stage
    from recsys_dask.store.files import Folder

    options, cluster_options = params.make(params.Sample, params.Cluster, values=parameters)
    folder = Folder(os.fspath(out))
    reach = Reach(writes={"output": folder})
    with connect(cluster_options, client, progress, reach, options.playlists <= SMALL) as cluster:
        stage(cluster, folder, options)
    return out if isinstance(out, Path) else folder.url


@command(
    params.Ingest,
    params.Counts,
    params.NearDuplicates,
    params.Pairs,
    params.Similar,
    params.Models,
    params.Train,
    params.Neighbours,
    params.Fit,
    params.Export,
    params.Redo,
    params.Cluster,
)
def run(
    source: Input,
    store: Place,
    *,
    client: Client | None = None,
    progress: Progress | None = None,
    **parameters: Any,
) -> list[Outcome]:
    """Everything: ingest, counts, near-duplicates, pairs, similarities, models, their neighbours, a recommender and
    the export into `store`/export.

    Finished steps are skipped, an interrupted run goes on where it stopped, a changed parameter or input redoes what
    depends on it. Returns what became of each step. Raises `InputError`, `StoreError`, `ClusterError`, `BudgetError`,
    `UsageError`.
    """
    from recsys_dask import steps
    from recsys_dask.formats.inputs import find

    options = COMMANDS["run"].options
    made = params.make(*options, values=parameters)
    ingest_, counts_, near_, pairs_, similar_, which, train_, neighbours_, fit_, export_, redo, cluster = made
    _check_rows(pairs_)
    models = {"all": params.MODELS, "none": ()}.get(which.models, (which.models,))
    recommender = _recommender(which.recommender, models, train_, pairs_)
    inputs = find(source, ingest_.files)

    def wanted(opened: Store) -> list[Step]:
        append = dataclasses.replace(ingest_, append=ingest_.append and not redo.rebuild)
        chosen = (counts_, near_, pairs_, similar_, models, train_, neighbours_, fit_, recommender, export_)
        return steps.steps_for(inputs, opened, append, *chosen)

    return _advance(store, wanted, redo, cluster, client, progress, new=True, inputs=inputs)


@command(params.Ingest, params.Counts, params.Pairs, params.Similar, params.Cluster)
def plan(
    source: Input, store: Place, *, progress: Progress | None = None, **parameters: Any
) -> list[planning.Projection]:
    """What a run is projected to take on a local cluster of these workers; nothing is read, nothing is started.

    Returns a row a stage: tasks, the memory of a worker and disk, both in bytes. Raises `BudgetError` where the
    workers are too small for any work.
    """
    from recsys_dask import planning
    from recsys_dask.formats.inputs import find
    from recsys_dask.runtime.clusters import local_shape
    from recsys_dask.store.tables import Store

    ingest_, counts_, pairs_, similar_, cluster = params.make(
        params.Ingest, params.Counts, params.Pairs, params.Similar, params.Cluster, values=parameters
    )
    budget, n_threads = local_shape(cluster)
    opened = Store.open_or_new(os.fspath(store))
    return planning.project(find(source, ingest_.files), opened, budget, n_threads, counts_.top, pairs_, similar_)


@command(params.Ingest, params.Redo, params.Cluster)
def ingest(
    source: Input,
    store: Place,
    *,
    client: Client | None = None,
    progress: Progress | None = None,
    **parameters: Any,
) -> list[Outcome]:
    """Slices to the tables `playlists`, `rows`, `artists` and `tracks`.

    Raises `InputError` naming every file that is wrong, and what `run` raises.
    """
    from recsys_dask import steps
    from recsys_dask.formats.inputs import find

    options, redo, cluster = params.make(*COMMANDS["ingest"].options, values=parameters)
    inputs = find(source, options.files)

    def wanted(opened: Store) -> list[Step]:
        append = dataclasses.replace(options, append=options.append and not redo.rebuild)
        return [steps.ingest_step(inputs, append, opened)]

    return _advance(store, wanted, redo, cluster, client, progress, new=True, inputs=inputs)


@command(params.Counts, params.Redo, params.Cluster)
def counts(
    store: Place, *, client: Client | None = None, progress: Progress | None = None, **parameters: Any
) -> list[Outcome]:
    """The most mentioned artists and tracks: `popular_artist`, `popular_track`. Raises what `run` raises."""
    from recsys_dask import steps

    options, redo, cluster = params.make(*COMMANDS["counts"].options, values=parameters)
    return _advance(store, lambda opened: [steps.counts_step(options)], redo, cluster, client, progress)


@command(params.NearDuplicates, params.Redo, params.Cluster)
def near_duplicates(
    store: Place, *, client: Client | None = None, progress: Progress | None = None, **parameters: Any
) -> list[Outcome]:
    """Playlists that nearly repeat an earlier one by their artists: `near_duplicates`. Raises what `run` raises."""
    from recsys_dask import steps

    options, redo, cluster = params.make(*COMMANDS["near_duplicates"].options, values=parameters)
    return _advance(store, lambda opened: [steps.near_duplicates_step(options)], redo, cluster, client, progress)


@command(params.Pairs, params.Similar, params.Redo, params.Cluster)
def pairs(
    store: Place, *, client: Client | None = None, progress: Progress | None = None, **parameters: Any
) -> list[Outcome]:
    """How often two items share a playlist, in both views, and the similarity tables made from that.

    Raises `BudgetError` where the pairs do not fit the memory, and what `run` raises.
    """
    from recsys_dask import steps

    options, similarity, redo, cluster = params.make(*COMMANDS["pairs"].options, values=parameters)
    _check_rows(options)
    wanted = steps.pairs_steps(options, similarity)
    if not wanted:
        raise UsageError(f"--view {options.view} has no --measure {similarity.measure}: leave one of them out")
    return _advance(store, lambda opened: wanted, redo, cluster, client, progress)


@command(params.Train, params.Redo, params.Cluster)
def train(
    store: Place, *, client: Client | None = None, progress: Progress | None = None, **parameters: Any
) -> list[Outcome]:
    """Train mf, mlp or both: `embeddings_<item>_<model>`, and the weights under models/.

    An interrupted training goes on after its last finished epoch. Raises `TrainingError` for a loss that is no number,
    `BudgetError` where the model does not fit the memory, and what `run` raises.
    """
    from recsys_dask import steps

    options, redo, cluster = params.make(*COMMANDS["train"].options, values=parameters)
    models = params.MODELS if options.model is None else (options.model,)

    def wanted(opened: Store) -> list[Step]:
        return [steps.train_step(options, model, opened) for model in models]

    return _advance(store, wanted, redo, cluster, client, progress)


@command(params.Neighbours, params.Redo, params.Cluster)
def neighbours(
    store: Place, *, client: Client | None = None, progress: Progress | None = None, **parameters: Any
) -> list[Outcome]:
    """The nearest other items by a model's vectors: `similar_<item>_<model>`. Raises what `run` raises."""
    from recsys_dask import steps

    options, redo, cluster = params.make(*COMMANDS["neighbours"].options, values=parameters)
    return _advance(store, lambda opened: steps.trained(opened, options), redo, cluster, client, progress)


@command(params.Fit, params.Redo, params.Cluster)
def fit(
    store: Place, *, client: Client | None = None, progress: Progress | None = None, **parameters: Any
) -> list[Outcome]:
    """Fit a recommender: `recommender_<item>_<method>`; of `linear` also its similar items, `similar_<item>_linear`.

    Raises `BudgetError` where it does not fit the memory, and what `run` raises.
    """
    from recsys_dask import steps

    options, redo, cluster = params.make(*COMMANDS["fit"].options, values=parameters)
    wanted = [*steps.fit_steps(options, options.method), steps.titles_step(options.item)]
    return _advance(store, lambda opened: wanted, redo, cluster, client, progress)


@command(params.Vectors)
def embedding(
    store: Place, queries: str | Sequence[str], *, progress: Progress | None = None, **parameters: Any
) -> NDArray[np.float32]:
    """The vectors of one or several artists (tracks), given by id, URI or name.

    Returns float32 (queries, factors). Raises `UnknownItemError` for an item that is unknown, ambiguous or that the
    model does not know.
    """
    from recsys_dask import lookup

    (options,) = params.make(params.Vectors, values=parameters)
    asked = [queries] if isinstance(queries, str) else list(queries)
    return lookup.embedding(_opened(store), asked, options.item, options.model)


@command(params.Export, params.Cluster)
def export(
    store: Place,
    out: Place,
    *,
    client: Client | None = None,
    progress: Progress | None = None,
    **parameters: Any,
) -> list[str]:
    """Counts, pairs and similarity files into the folder `out`. Returns the files' paths.

    Raises `StoreError` where the store lacks the counts or `out` cannot be written.
    """
    from recsys_dask import steps
    from recsys_dask.runtime.connecting import connect
    from recsys_dask.runtime.preflight import Reach
    from recsys_dask.store.files import Folder
    from recsys_dask.store.manifest import NAME

    options, cluster_options = params.make(params.Export, params.Cluster, values=parameters)
    opened, folder = _opened(store), Folder(os.fspath(out))
    opened.entry(f"popular_{options.item}")
    reach = Reach(reads={"store": opened.folder.full(NAME)}, writes={"output": folder})
    with connect(cluster_options, client, progress, reach, steps.is_small(opened, [], False)) as cluster:
        entries, _ = steps.standalone_export(cluster, opened, options, _row_filter(opened), folder)
    return [folder.full(file.path) for entry in entries.values() for file in entry.files]


@command(params.Recommend)
def recommend(
    store: Place,
    items: Sequence[str] | None = None,
    *,
    playlists: Place | None = None,
    out: Place | None = None,
    progress: Progress | None = None,
    **parameters: Any,
) -> list[dict[str, Any]] | str:
    """Ranked items that a playlist lacks.

    items: what one playlist holds, by id, URI or name. Returns rows of query, rank, id, name and score. playlists: an
    MPD-shaped or challenge file instead, all of whose playlists are continued into the CSV file `out`: pid, then ids,
    best first. Returns its path. Raises `UnknownItemError` where nothing of a playlist is known, `InputError` for a
    file that is none, `StoreError` for a recommender that the store lacks, `UsageError` where fewer than k are left.
    """
    from recsys_dask import continuation
    from recsys_dask.recommender import Recommender
    from recsys_dask.runtime.progress import Progress

    (options,) = params.make(params.Recommend, values=parameters)
    seen = progress or Progress()
    if (items is None) == (playlists is None):
        raise UsageError("give --items of one playlist, or a file of --playlists")
    if playlists is None:
        if options.challenge:
            raise UsageError("--challenge: is the form of a file; give --playlists and --out")
        ready = Recommender.open(_opened(store), options.method, options.item)
        return continuation.recommend(ready, list(items or ()), options, seen.say)
    if out is None:
        raise UsageError("--playlists: give --out, the file for the recommendations")
    ready = Recommender.open(_opened(store), options.method, options.item)
    return continuation.recommend_file(ready, os.fspath(playlists), os.fspath(out), options, seen)


@command(params.Evaluate, params.Split, params.Redo, params.Cluster)
def evaluate(
    store: Place, *, client: Client | None = None, progress: Progress | None = None, **parameters: Any
) -> list[dict[str, Any]]:
    """Held-out quality of recommenders, side by side: fitted on most playlists, asked for items that the others hide.

    Returns rows of method, metric, n, mean, low, high, difference, difference_low and difference_high, as in the table
    `evaluation_<item>`. Raises what `run` raises.
    """
    from recsys_dask import evaluation

    options, split, redo, cluster = params.make(*COMMANDS["evaluate"].options, values=parameters)
    _advance(store, lambda opened: [evaluation.evaluate_step(options, split, opened)], redo, cluster, client, progress)
    rows: list[dict[str, Any]] = _opened(store).table(f"evaluation_{options.item}").to_pylist()
    return rows


@command(params.Lookup)
def similar(
    store: Place, queries: str | Sequence[str], *, progress: Progress | None = None, **parameters: Any
) -> list[dict[str, Any]]:
    """Neighbours of one or several artists (tracks), given by id, URI or name.

    Returns rows of query, rank (from 1), id, name and score. Raises `UnknownItemError` for an item that is unknown
    (with the nearest names), ambiguous (with the candidates) or without neighbours.
    """
    from recsys_dask import lookup

    (options,) = params.make(params.Lookup, values=parameters)
    asked = [queries] if isinstance(queries, str) else list(queries)
    return lookup.similar(_opened(store), asked, options.item, options.method, options.k)


@command(params.Cluster)
def check(
    store: Place, *, client: Client | None = None, progress: Progress | None = None, **parameters: Any
) -> Checked:
    """Whether every file of a store is as it was written, by its length and checksum. Returns how many files and bytes.

    Raises `StoreError` with a line for each file that is missing, cut short or altered, and `ClusterError`.
    """
    from recsys_dask import steps
    from recsys_dask.runtime.connecting import connect
    from recsys_dask.runtime.preflight import Reach
    from recsys_dask.stages.check import check as stage
    from recsys_dask.store.manifest import NAME

    (options,) = params.make(params.Cluster, values=parameters)
    opened = _opened(store)
    reach = Reach(reads={"store": opened.folder.full(NAME)})
    with connect(options, client, progress, reach, steps.is_small(opened, [], False)) as cluster:
        return stage(cluster, opened)


@command(params.Report)
def report(store: Place, out: Place, *, progress: Progress | None = None, **parameters: Any) -> str:
    """One self-contained HTML page about a store, put into the file `out`. Returns its path.

    Raises `StoreError` where the folder of `out` is not there, `UsageError` where `out` names no file.
    """
    from recsys_dask.reporting import page
    from recsys_dask.runtime.progress import Progress

    (options,) = params.make(params.Report, values=parameters)
    return page.write(_opened(store), os.fspath(out), options, (progress or Progress()).say)


@command()
def info(store: Place, *, progress: Progress | None = None, **parameters: Any) -> dict[str, Any]:
    """What a store holds: input, stages with parameters and times, tables with sizes, the most frequent pairs."""
    from recsys_dask import lookup

    params.make(values=parameters)
    return lookup.info(_opened(store))


def _opened(store: Place) -> Store:
    from recsys_dask.store.tables import Store

    return Store.open(os.fspath(store))


def _recommender(asked: str | None, models: Sequence[str], train: params.Train, pairs: params.Pairs) -> str | None:
    """The recommender that a run fits. Raises `UsageError` for one that the run does not make what it needs for."""
    missing = (
        "--models leaves out mlp" if "mlp" not in models
        else "--preset article trains no mlp of whole playlists" if train.preset == "article"
        else "--view article makes no pairs of all playlists" if pairs.view == "article" else ""
    )  # fmt: skip
    if asked == "blend" and missing:
        raise UsageError(f"--recommender blend: {missing}; leave that out, or give --recommender linear")
    if asked is None:
        return None if missing else "blend"
    return None if asked == "none" else asked


def _check_rows(options: params.Pairs) -> None:
    if options.rows_low > options.rows_high:
        raise UsageError(
            f"--rows-low is {options.rows_low} and --rows-high {options.rows_high}: the low one must not be higher"
        )


def _row_filter(store: Store) -> tuple[int, int]:
    """Which rows the row table holds: of the popular artists, of playlists longer than the pairs' own minimum."""
    from recsys_dask import steps

    return store.entry("popular_artist").rows, steps.article_min_tracks(store, "artist")


def _advance(
    store: Place,
    wanted: Callable[[Store], Sequence[Step]],
    redo: params.Redo,
    cluster: params.Cluster,
    client: Client | None,
    progress: Progress | None,
    new: bool = False,
    inputs: Sequence[Any] = (),
) -> list[Outcome]:
    """Do what is not finished of some steps, as the only one who writes to the store."""
    from recsys_dask import pipeline, steps
    from recsys_dask.runtime.connecting import connect
    from recsys_dask.runtime.preflight import Reach
    from recsys_dask.runtime.progress import Progress
    from recsys_dask.store import lock
    from recsys_dask.store.tables import Store

    seen = progress or Progress()
    open_ = Store.open_or_new if new else Store.open
    folder = open_(os.fspath(store)).folder
    command = shlex.join([os.path.basename(sys.argv[0]), *sys.argv[1:]])
    with lock.held(folder, command, seen.say) as mine:
        opened = open_(os.fspath(store))  # another run may have committed something until just now
        if inputs and (news := pipeline.input_news(opened, inputs)):
            seen.say(news)
        reach = Reach(reads={"input": inputs[0].path} if inputs else {}, writes={"store": opened.folder})

        @contextmanager
        def connected() -> Iterator[Cluster]:
            with connect(cluster, client, progress, reach, steps.is_small(opened, inputs, redo.rebuild)) as made:
                yield made

        return pipeline.advance(opened, wanted(opened), connected, seen, redo.rebuild, mine.check)
