"""One public function a command. Parameters are the fields of the dataclasses in `params`, by keyword."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recsys_dask import params
from recsys_dask.commands import COMMANDS, Place, advance, command, open_store
from recsys_dask.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    from distributed import Client
    from numpy.typing import NDArray

    from recsys_dask import planning
    from recsys_dask.formats.inputs import Input
    from recsys_dask.pipeline import Outcome, Step
    from recsys_dask.runtime.progress import Progress
    from recsys_dask.stages.check import Checked
    from recsys_dask.store.tables import Store


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
    steps.check_rows(pairs_)
    models = {"usual": params.USUAL_MODELS, "all": params.MODELS, "none": ()}.get(which.models, (which.models,))
    recommender = steps.recommender_of(which.recommender, models, train_, pairs_)
    inputs = find(source, ingest_.files)

    def wanted(opened: Store) -> list[Step]:
        append = dataclasses.replace(ingest_, append=ingest_.append and not redo.rebuild)
        chosen = (counts_, near_, pairs_, similar_, models, train_, neighbours_, fit_, recommender, export_)
        return steps.steps_for(inputs, opened, append, *chosen)

    return advance(store, wanted, redo, cluster, client, progress, new=True, inputs=inputs)


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

    return advance(store, wanted, redo, cluster, client, progress, new=True, inputs=inputs)


@command(params.Counts, params.Redo, params.Cluster)
def counts(
    store: Place, *, client: Client | None = None, progress: Progress | None = None, **parameters: Any
) -> list[Outcome]:
    """The most mentioned artists and tracks: `popular_artist`, `popular_track`. Raises what `run` raises."""
    from recsys_dask import steps

    options, redo, cluster = params.make(*COMMANDS["counts"].options, values=parameters)
    return advance(store, lambda opened: [steps.counts_step(options)], redo, cluster, client, progress)


@command(params.NearDuplicates, params.Redo, params.Cluster)
def near_duplicates(
    store: Place, *, client: Client | None = None, progress: Progress | None = None, **parameters: Any
) -> list[Outcome]:
    """Playlists that nearly repeat an earlier one by their artists: `near_duplicates`. Raises what `run` raises."""
    from recsys_dask import steps

    options, redo, cluster = params.make(*COMMANDS["near_duplicates"].options, values=parameters)
    return advance(store, lambda opened: [steps.near_duplicates_step(options)], redo, cluster, client, progress)


@command(params.Pairs, params.Similar, params.Redo, params.Cluster)
def pairs(
    store: Place, *, client: Client | None = None, progress: Progress | None = None, **parameters: Any
) -> list[Outcome]:
    """How often two items share a playlist, in both views, and the similarity tables made from that.

    Raises `BudgetError` where the pairs do not fit the memory, and what `run` raises.
    """
    from recsys_dask import steps

    options, similarity, redo, cluster = params.make(*COMMANDS["pairs"].options, values=parameters)
    steps.check_rows(options)
    wanted = steps.pairs_steps(options, similarity)
    if not wanted:
        raise UsageError(f"--view {options.view} has no --measure {similarity.measure}: leave one of them out")
    return advance(store, lambda opened: wanted, redo, cluster, client, progress)


@command(params.Train, params.Redo, params.Cluster)
def train(
    store: Place, *, client: Client | None = None, progress: Progress | None = None, **parameters: Any
) -> list[Outcome]:
    """Train mf and mlp, or one model: `embeddings_<item>_<model>`, and the weights under models/.

    An interrupted training goes on after its last finished epoch. Raises `TrainingError` for a loss that is no number,
    `BudgetError` where the model does not fit the memory, and what `run` raises.
    """
    from recsys_dask import steps

    options, redo, cluster = params.make(*COMMANDS["train"].options, values=parameters)
    models = params.USUAL_MODELS if options.model is None else (options.model,)

    def wanted(opened: Store) -> list[Step]:
        return [steps.train_step(options, model, opened) for model in models]

    return advance(store, wanted, redo, cluster, client, progress)


@command(params.Neighbours, params.Redo, params.Cluster)
def neighbours(
    store: Place, *, client: Client | None = None, progress: Progress | None = None, **parameters: Any
) -> list[Outcome]:
    """The nearest other items by a model's vectors: `similar_<item>_<model>`. Raises what `run` raises."""
    from recsys_dask import steps

    options, redo, cluster = params.make(*COMMANDS["neighbours"].options, values=parameters)
    return advance(store, lambda opened: steps.trained(opened, options), redo, cluster, client, progress)


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
    return advance(store, lambda opened: wanted, redo, cluster, client, progress)


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
    return lookup.embedding(open_store(store), asked, options.item, options.model)


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
    opened, folder = open_store(store), Folder(os.fspath(out))
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
    if playlists is None and options.challenge:
        raise UsageError("--challenge: is the form of a file; give --playlists and --out")
    if playlists is not None and out is None:
        raise UsageError("--playlists: give --out, the file for the recommendations")
    ready = Recommender.open(open_store(store), options.method, options.item)
    if playlists is None or out is None:
        return continuation.recommend(ready, list(items or ()), options, seen.say)
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
    advance(store, lambda opened: [evaluation.evaluate_step(options, split, opened)], redo, cluster, client, progress)
    rows: list[dict[str, Any]] = open_store(store).table(f"evaluation_{options.item}").to_pylist()
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
    return lookup.similar(open_store(store), asked, options.item, options.method, options.k)


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
    opened = open_store(store)
    reach = Reach(reads={"store": opened.folder.full(NAME)})
    with connect(options, client, progress, reach, steps.is_small(opened, [], False)) as cluster:
        return stage(cluster, opened)


@command(params.Report)
def report(store: Place, out: Place, *, progress: Progress | None = None, **parameters: Any) -> str:
    """One self-contained HTML page about a store, put into the file `out`. Returns its path, which Jupyter shows.

    Raises `StoreError` where the folder of `out` is not there, `UsageError` where `out` names no file.
    """
    from recsys_dask.reporting import page
    from recsys_dask.runtime.progress import Progress

    (options,) = params.make(params.Report, values=parameters)
    return page.write(open_store(store), os.fspath(out), options, (progress or Progress()).say)


@command()
def info(store: Place, *, progress: Progress | None = None, **parameters: Any) -> dict[str, Any]:
    """What a store holds: input, stages with parameters and times, tables with sizes, the most frequent pairs."""
    from recsys_dask import lookup

    params.make(values=parameters)
    return lookup.info(open_store(store))


def _row_filter(store: Store) -> tuple[int, int]:
    """Which rows the row table holds: of the popular artists, of playlists longer than the pairs' own minimum."""
    from recsys_dask import steps

    return store.entry("popular_artist").rows, steps.article_min_tracks(store, "artist")
