"""Embeddings: a view's playlists to a trained model, `embeddings_<item>_<model>` and its weights under `models/`.

playlists: each partition's rows -> playlists of distinct items of the view, in parallel
negatives: of the article's preset, drawn for each partition, in parallel
fit:       all of them -> one fastai `Learner`, on the client or on one worker; a checkpoint an epoch in scratch
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from recsys_dask import params
from recsys_dask.arrow import values
from recsys_dask.cooccurrence.view import Playlists, clean, joined
from recsys_dask.errors import BudgetError, StoreError
from recsys_dask.runtime.clusters import Cluster
from recsys_dask.store import tables
from recsys_dask.store.files import Folder, checksum_of
from recsys_dask.store.manifest import FileEntry, StageReport, TableEntry, fingerprint
from recsys_dask.store.tables import Store

if TYPE_CHECKING:
    import pyarrow as pa

    from recsys_dask.training.rows import Rows

ARTICLE_EPOCHS, ARTICLE_RATE, ARTICLE_DECAY, ARTICLE_BATCH, ARTICLE_VALID = 5, 5e-3, 0.1, 4_096, 0.2
VALID_SHARE, MOST_VALID = 0.02, 2_000
"""default, fast: how many playlists validate."""

LEAST_ITEMS = LEAST_PLAYLISTS = 2
"""With fewer there is nothing to learn: the table is empty."""


class Job(NamedTuple):
    """What a fit is told, plain enough to be sent to a worker. n_items: N of the view; vocabulary: its fingerprint."""

    folder: Folder
    options: params.Train
    model: str
    n_items: int
    vocabulary: str
    token: str


class Fitted(NamedTuple):
    """vectors (N, k) float32, bias (N,) float32 or None; history: an epoch each; files: the kept weights."""

    vectors: NDArray[np.float32]
    bias: NDArray[np.float32] | None
    history: list[dict[str, float | None]]
    files: list[FileEntry]
    peak_bytes: int
    notes: list[str]


def view_of(preset: str) -> str:
    """Which pairs' items get vectors."""
    return "article" if preset == "article" else "full"


def scratch_of(item: str, model: str) -> str:
    """Where the checkpoint of a training lies until it is finished."""
    return f"scratch/train_{item}_{model}"


def train(
    cluster: Cluster, store: Store, options: params.Train, model: str, min_tracks: int, token: str
) -> tuple[dict[str, TableEntry], StageReport]:
    """Train one model. min_tracks: `num_tracks` that playlists of the article's preset exceed.

    Raises `StoreError` where no item is left, `UsageError` for parameters and a device that is not there,
    `BudgetError`, and `TrainingError` for a loss that is no number.
    """
    from dask import delayed

    item, article = options.item, options.preset == "article"
    path = store.entry(f"pair_items_{item}_{view_of(options.preset)}").files[0].path
    codes = values(tables.read_file(store.folder, path, ["item"])["item"])
    if article and not len(codes):
        raise StoreError(_no_item(store, item))
    vocabulary = fingerprint(store.manifest.stages["ingest"].fingerprint, codes.tolist())
    job = Job(store.folder, options, model, len(codes), vocabulary, token)
    span = (options.train_rows_low, options.train_rows_high, min_tracks) if article else None
    both = zip(store.entry("playlists").files, store.entry("rows").files, strict=True)
    with cluster.measured() as so_far:
        parts = cluster.persist(
            [
                delayed(known_playlists)(
                    store.folder, lists.path, rows.path, item, path, span, dask_key_name=f"view-{number}-{token}"
                )
                for number, (lists, rows) in enumerate(both)
            ]
        )
        if article:
            parts = _with_negatives(cluster, parts, options, len(codes), token)
        fitted = cluster.alone(
            f"train {model}", _fit_article if article else _fit_playlists, parts, job, where=options.train_on
        )
        table = embeddings(codes, fitted.vectors, fitted.bias)
        name = f"embeddings_{item}_{model}"
        entry = tables.write_part(store.folder, name, token, 0, table, compression="zstd", use_dictionary=False)
        seconds, peak = so_far()
    report = StageReport(
        entry.rows,
        entry.bytes + sum(file.bytes for file in fitted.files),
        1,
        seconds,
        max(peak, fitted.peak_bytes),
        notes=[*_words(fitted), *fitted.notes],
        history=fitted.history,
    )
    return {name: TableEntry([entry]), f"model_{item}_{model}": TableEntry(fitted.files)}, report


def _no_item(store: Store, item: str) -> str:
    """What to do where no item has enough mentions."""
    mentions = np.sort(values(store.table(f"popular_{item}", ["n_mentions"])["n_mentions"]))[::-1]
    some = [n for n in (10, 100, 1_000) if n < len(mentions)] or [len(mentions)]
    ways = ", ".join(f"--mentions-over {max(int(mentions[n - 1]) - 1, 0)} leaves some {n:,}" for n in some if n)
    return (
        f"{store.folder.url}: no {item} is above the threshold of mentions, so --preset article has none to train on: "
        f"run pairs with a lower one ({ways or 'there is none at all'})"
    )


def _words(fitted: Fitted) -> list[str]:
    """The last epoch as a note of the report."""
    if not fitted.history:
        return ["too few items or playlists to train on"]
    last = fitted.history[-1]
    valid = "" if last["valid_loss"] is None else f", validation {last['valid_loss']:.4f}"
    return [f"{len(fitted.history)} epochs, loss {last['train_loss']:.4f}{valid}, {last['rows_per_s']:,.0f} rows/s"]


# ------------------------------------------------------------------------------------------------- partitions


def known_playlists(
    folder: Folder, playlists: str, rows: str, item: str, items: str, span: tuple[int, int, int] | None
) -> Playlists:
    """The task: a partition's playlists of the view's items. span: fewest and most rows left in a playlist, and
    `num_tracks` that it exceeds; None: all playlists."""
    view = values(tables.read_file(folder, items, ["item"])["item"])
    lists = tables.read_file(folder, playlists, ["num_tracks", "n_entries"])
    codes = values(tables.read_file(folder, rows, [item])[item])
    n_entries = values(lists["n_entries"])
    if span is None:
        return clean(codes, n_entries, np.ones(len(n_entries), bool), view)
    return clean(codes, n_entries, values(lists["num_tracks"]) > span[2], view, span[:2])


def _with_negatives(cluster: Cluster, parts: list[Any], options: params.Train, n_items: int, token: str) -> list[Any]:
    """Training rows of each partition: its positives and its share of the negatives."""
    from dask import delayed

    from recsys_dask.training.negatives import counts

    lengths = cluster.compute("training rows", [delayed(_lengths)(part) for part in parts])
    each = counts(np.concatenate(lengths), n_items, options.ratio, options.seed)
    ends = np.cumsum([len(one) for one in lengths])
    firsts = ends - [len(one) for one in lengths]
    return cluster.persist(
        [
            delayed(rows_of)(
                part, n_items, each[first:end], int(first), options.seed, dask_key_name=f"rows-{number}-{token}"
            )
            for number, (part, first, end) in enumerate(zip(parts, firsts.tolist(), ends.tolist(), strict=True))
        ]
    )


def _lengths(playlists: Playlists) -> NDArray[np.int64]:
    return playlists.lengths


def rows_of(playlists: Playlists, n_items: int, n_negatives: NDArray[np.int64], first: int, seed: int) -> Rows:
    """The task: a partition's training rows. first: its first playlist's place among all."""
    from recsys_dask.training.negatives import draw
    from recsys_dask.training.rows import training_rows

    keys = np.arange(first, first + len(n_negatives), dtype=np.int64)
    negatives = draw(playlists.starts, playlists.items, n_items, n_negatives, keys, seed)
    return training_rows(playlists.starts, playlists.items, n_negatives, negatives, first)


def embeddings(codes: NDArray[np.int32], vectors: NDArray[np.float32], bias: NDArray[np.float32] | None) -> pa.Table:
    """The table of vectors; empty where there are none."""
    import pyarrow as pa

    from recsys_dask.arrow import float32, int32

    codes = codes[: len(vectors)]
    n, k = vectors.shape
    offsets = np.arange(n + 1, dtype=np.int32) * np.int32(k)
    lists = pa.ListArray.from_arrays(int32(offsets), float32(vectors.ravel()))
    return pa.table(
        {"item": int32(codes), "vector": lists, "bias": pa.nulls(n, pa.float32()) if bias is None else float32(bias)}
    )


# ------------------------------------------------------------------------------------------------- fit


def _fit_playlists(parts: list[Playlists], job: Job, tell: Callable[[str], None]) -> Fitted:
    """default, fast: whole playlists a batch."""
    from recsys_dask.models.item2vec import Item2Vec, mean_loss
    from recsys_dask.models.mf import MeanMF, SolvedMF
    from recsys_dask.models.mlp import MeanMLP
    from recsys_dask.training.learner import fit_recipe, loaders, playlist_learner, seed_torch
    from recsys_dask.training.playlists import Playlists as Whole
    from recsys_dask.training.recipes import recipe

    options = job.options
    whole = joined(parts) if parts else Playlists(np.zeros(1, np.int64), np.zeros(0, np.int32))
    playlists = Whole(whole.starts, whole.items, job.n_items)
    if job.n_items < LEAST_ITEMS or len(playlists) < LEAST_PLAYLISTS:
        return _nothing()
    fast = options.preset == "fast"
    kind = "mean_mf" if fast and job.model == "mf" else job.model
    base = recipe(kind, len(playlists), job.n_items)
    if fast and job.model == "mlp":
        base = replace(base, factors=50)
    given: dict[str, Any] = {
        "epochs": options.epochs,
        "factors": options.factors,
        "rate": options.rate,
        "decay": options.decay,
        "size": options.batch,
    }
    chosen = replace(base, **{name: value for name, value in given.items() if value is not None})
    held = int(len(playlists) * (VALID_SHARE if options.valid is None else options.valid))
    held = min(held, MOST_VALID) if options.valid is None else held
    _fits(job, 4 * job.n_items * chosen.factors, playlists.items.nbytes + playlists.starts.nbytes)
    seed_torch(options.seed, 0)
    make: Any = {"mf": SolvedMF, "mean_mf": MeanMF, "mlp": MeanMLP, "item2vec": Item2Vec}[kind]
    model = make(playlists.n_playlists, len(playlists), chosen.factors)
    train, valid = loaders(playlists, chosen, held=held, seed=options.seed, device=options.device)
    loss = mean_loss if kind == "item2vec" else None
    learner = playlist_learner(model, train, valid, ridge=chosen.ridge, loss=loss)
    history, notes = _fitted(learner, job, tell, lambda **how: fit_recipe(learner, chosen, **how))
    return _kept(job, model, model.vectors(), model.bias(), history, notes)


def _fit_article(parts: list[Rows], job: Job, tell: Callable[[str], None]) -> Fitted:
    """article: rows and negatives, fastai's own models."""
    from recsys_dask.training.article import article_learner, item_vectors
    from recsys_dask.training.learner import fit, pick_device
    from recsys_dask.training.rows import joined as joined_rows

    options = job.options
    rows = joined_rows(parts)
    n_playlists = int(rows.playlists.max(initial=-1)) + 1
    if job.n_items < LEAST_ITEMS or n_playlists < LEAST_PLAYLISTS:
        return _nothing()
    factors: dict[str, Any] = {} if options.factors is None or job.model == "mlp" else {"factors": options.factors}
    _fits(job, 12 * n_playlists * (options.factors or 50), 2 * sum(column.nbytes for column in rows))
    learner = article_learner(
        job.model,
        rows,
        n_playlists,
        job.n_items,
        device=pick_device(options.device),
        seed=options.seed,
        valid=ARTICLE_VALID if options.valid is None else options.valid,
        batch=options.batch or ARTICLE_BATCH,
        **factors,
    )
    rate, decay = (
        given if given is not None else default
        for given, default in ((options.rate, ARTICLE_RATE), (options.decay, ARTICLE_DECAY))
    )
    history, notes = _fitted(
        learner, job, tell, lambda **how: fit(learner, options.epochs or ARTICLE_EPOCHS, rate, decay, **how)
    )
    learned = item_vectors(learner.model)
    return _kept(job, learner.model, learned.vectors, learned.bias, history, notes)


def _nothing() -> Fitted:
    return Fitted(np.zeros((0, 0), np.float32), None, [], [], 0, [])


def _fits(job: Job, parameter_bytes: int, data_bytes: int) -> None:
    """Raises `BudgetError` where parameters, their gradients and moments, and the playlists exceed the memory."""
    import psutil

    needed, free = 4 * parameter_bytes + 2 * data_bytes, psutil.virtual_memory().available
    if needed > free:
        raise BudgetError(
            f"train {job.model}: needs {needed / 1e6:,.0f} MB, {4 * parameter_bytes / 1e6:,.0f} MB of it for vectors, "
            f"gradients and moments, and {free / 1e6:,.0f} MB are free: give fewer --factors"
        )


def _fitted(
    learner: Any, job: Job, tell: Callable[[str], None], act: Callable[..., Any]
) -> tuple[list[dict[str, float | None]], list[str]]:
    """Fit, going on from a checkpoint where there is one that fits."""
    from recsys_dask.training.checkpoints import Keeper

    options, notes = job.options, []
    result = {name: value for name, value in asdict(options).items() if name not in params.Train.NOT_OF_THE_RESULT}
    folder = Folder(job.folder.full(scratch_of(options.item, job.model)))
    keeper = Keeper(folder, job.model, job.vocabulary, result)
    try:
        found = keeper.load()
        if found is None and options.resume:
            raise StoreError(f"{folder.url}: there is no checkpoint of an interrupted training; leave out --resume")
        if found is not None:
            notes.append(f"went on from epoch {len(found.history)}")
            tell(f"train {job.model}: goes on from epoch {len(found.history)}")
    except StoreError as error:
        if options.resume:
            raise
        found = None
        tell(f"train {job.model}: starts anew, since {error}")

    def say(epoch: Any) -> None:
        valid = "" if epoch.valid_loss is None else f", validation {epoch.valid_loss:.4f}"
        tell(
            f"train {job.model}: epoch {epoch.epoch}: loss {epoch.train_loss:.4f}{valid}, {epoch.seconds:.1f} s, "
            f"{epoch.rows_per_s:,.0f} rows/s"
        )

    epochs = act(
        seed=options.seed,
        patience=options.early_stop,
        best=options.best_epoch,
        progress=say,
        keeper=keeper,
        resume=found is not None,
    )
    return [asdict(epoch) for epoch in epochs], notes


def _kept(
    job: Job,
    model: Any,
    vectors: NDArray[np.float32],
    bias: NDArray[np.float32] | None,
    history: list[dict[str, float | None]],
    notes: list[str],
) -> Fitted:
    """The weights under `models/`, without what belongs to the playlists of the training."""
    from recsys_dask.runtime.memory import peak_bytes
    from recsys_dask.training.checkpoints import Keeper

    options = job.options
    place = f"models/{options.item}_{job.model}-{job.token}"
    folder = Folder(job.folder.full(place))
    of_playlists = ("p.", "u_weight", "u_bias", "embeds.0.")
    weights = {name: one for name, one in model.state_dict().items() if not name.startswith(of_playlists)}
    Keeper(folder, job.model, job.vocabulary, asdict(options)).save({"model": weights}, history)
    files = []
    for name in folder.names():
        size, checksum = checksum_of(folder, name)
        files.append(FileEntry(f"{place}/{name}", 0, size, checksum))
    return Fitted(np.ascontiguousarray(vectors, np.float32), bias, history, files, peak_bytes(), notes)
