"""Recommenders in closed form and blends of them: playlists of the `full` view to `recommender_<item>_<method>`.

lists: each partition's rows -> playlists of ranked items and further inputs, in parallel
fit:   all of them -> one recommender, on the client or on one worker
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from recsys_dask import params
from recsys_dask.arrow import float64, int32, values
from recsys_dask.errors import TooFewError
from recsys_dask.formats.vocabulary import rank_ids
from recsys_dask.metrics.base import top_k
from recsys_dask.models import saved
from recsys_dask.models.base import Data, Items, Lists, joined
from recsys_dask.recommending import fitting
from recsys_dask.recommending.inputs import Inputs, inputs, known_lists
from recsys_dask.runtime.clusters import Cluster
from recsys_dask.store import tables
from recsys_dask.store.arrays import read_arrays, write_arrays
from recsys_dask.store.files import Folder
from recsys_dask.store.manifest import FileEntry, StageReport, TableEntry
from recsys_dask.store.tables import Store

if TYPE_CHECKING:
    import pyarrow as pa

LEAST_ITEMS = LEAST_PLAYLISTS = 2
"""With fewer there is nothing to recommend, or to fit on."""


def read_lists(folder: Folder, playlists: str, rows: str, item: str, known: Inputs) -> Lists:
    """The task: a partition's playlists that hold an item that is ranked."""
    n_entries = values(tables.read_file(folder, playlists, ["n_entries"])["n_entries"])
    table = tables.read_file(folder, rows, ["artist", "track"])
    lists = known_lists(known, item, values(table["artist"]), values(table["track"]), n_entries)
    return lists.where(np.diff(lists.starts) > 0)


class Job(NamedTuple):
    """What a fit is told, plain enough to be sent to a worker. hows: of a blend, how its parts were fitted."""

    folder: Folder
    options: params.Fit
    method: str
    known: Inputs
    token: str
    hows: dict[str, dict[str, float]]


def fit(
    cluster: Cluster, store: Store, options: params.Fit, method: str, token: str
) -> tuple[dict[str, TableEntry], StageReport]:
    """Fit one recommender: `recommender_<item>_<method>`, and of `linear` also `similar_<item>_linear`.

    Raises `TooFewError` where there is too little to fit on, `BudgetError` where it does not fit the memory.
    """
    from dask import delayed

    item = options.item
    known = inputs(store, item)
    if len(known.items) < LEAST_ITEMS:
        raise TooFewError(
            f"{store.folder.url}: {len(known.items)} {item}s in the pairs' full view are too few to recommend from; "
            "ingest more playlists"
        )
    if method == "blend" and not all(store.has(f"recommender_{item}_{part}") for part in fitting.FITTED_PARTS):
        raise TooFewError(f"{store.folder.url}: too few playlists for the parts of a blend; ingest more")
    hows = {part: _how(store, item, part) for part in fitting.FITTED_PARTS} if method == "blend" else {}
    job = Job(store.folder, options, method, known, token, hows)
    both = zip(store.entry("playlists").files, store.entry("rows").files, strict=True)
    with cluster.measured() as so_far:
        shared = delayed(known, name=f"inputs-{token}", traverse=False)
        lists = cluster.persist(
            [
                delayed(read_lists)(
                    store.folder, one.path, rows.path, item, shared, dask_key_name=f"lists-{number}-{token}"
                )
                for number, (one, rows) in enumerate(both)
            ]
        )
        made = cluster.alone(f"fit {method}", _fit, lists, job)
        entries = {f"recommender_{item}_{method}": TableEntry([made.weights])}
        if made.similar is not None:
            by_id = rank_ids(
                store.folder,
                [file.path for file in store.entry(f"{item}s").files],
                store.entry(f"pair_items_{item}_full").files[0].path,
                item,
            )
            name = f"similar_{item}_{method}"
            table = _similar_table(known.items, by_id, *made.similar)
            entries[name] = TableEntry([tables.write_part(store.folder, name, token, 0, table, compression="zstd")])
        seconds, peak = so_far()
    return entries, StageReport(
        sum(entry.rows for entry in entries.values()),
        sum(entry.bytes for entry in entries.values()),
        1,
        seconds,
        max(peak, made.peak_bytes),
        notes=made.notes,
    )


class Made(NamedTuple):
    """weights: the file; similar: of `linear`, each item's best others and their scores, (N, k) both."""

    weights: FileEntry
    similar: tuple[NDArray[np.int32], NDArray[np.float32]] | None
    notes: list[str]
    peak_bytes: int


def _fit(parts: list[Lists], job: Job, tell: Callable[[str], None]) -> Made:
    """The task: fit on all playlists and write the weights."""
    import psutil

    from recsys_dask.runtime.memory import peak_bytes

    data = Data(joined(parts), len(job.known.items), job.known.owner)
    if data.lists.n < LEAST_PLAYLISTS:
        raise TooFewError(f"{job.folder.url}: no two playlists to fit {job.method} on; ingest more")
    free, seed = 0.8 * psutil.virtual_memory().available, job.options.seed
    tell(f"fit {job.method}: {data.lists.n:,} playlists, {data.n_items:,} items")
    similar = None
    if job.method == "blend":
        weights, notes = fitting.fit_blend(data, seed, free, job.hows, job.options.device)
        arrays: dict[str, NDArray[Any]] = {}
        tree: Any = {"blend": fitting.BLENDED, "weights": weights}
        how: dict[str, float] = {}
    else:
        ways: Any = {"ease": fitting.fit_ease, "linear": fitting.fit_linear, "als": fitting.fit_als}
        act = ways[job.method]
        fitted = act(data, seed, free)
        notes, how = fitted.notes, fitted.how
        arrays, tree = saved.pack(fitted.scorer)
        if job.method == "linear":
            similar = best_others(fitting.linear_lists(data, how), job.options.best)
    arrays |= {f"inputs.{name}": codes for name, codes in job.known._asdict().items()}
    place = f"models/{job.options.item}_{job.method}-{job.token}"
    file = write_arrays(job.folder, f"{place}/weights.safetensors", arrays, {"scorer": tree, "how": how})
    return Made(file, similar, notes, peak_bytes())


def best_others(weights: NDArray[np.float32], k: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """For each row i of (N, N) the k places j ≠ i of the largest values, best first, ties by place; and the values."""
    weights = weights.copy()
    np.fill_diagonal(weights, -np.inf)
    n = len(weights)
    places = top_k(weights, np.zeros(n + 1, np.int64), np.zeros(0, np.int32), min(k, max(n - 1, 0)))
    return places, np.take_along_axis(weights, np.maximum(places, 0), 1)


def _similar_table(
    codes: Items, by_id: NDArray[np.int32], places: NDArray[np.int32], scores: NDArray[np.float32]
) -> pa.Table:
    """Only what speaks for its neighbour; equal scores by the neighbour's id."""
    import pyarrow as pa

    kept = (places >= 0) & (scores > 0)
    seed = np.repeat(np.arange(len(codes), dtype=np.int32), kept.sum(1))
    neighbour, score = places[kept], scores[kept].astype(np.float64)
    order = np.lexsort((by_id[neighbour], -score, seed))
    seed, neighbour, score = seed[order], neighbour[order], score[order]
    first = np.searchsorted(seed, seed)
    return pa.table(
        {
            "item": int32(codes[seed]),
            "rank": int32(np.arange(len(seed)) - first + 1),
            "neighbour": int32(codes[neighbour]),
            "score": float64(score),
        }
    )


def _how(store: Store, item: str, method: str) -> dict[str, float]:
    """The constants that were chosen for a fitted recommender."""
    _, meta = read_arrays(store.folder, store.entry(f"recommender_{item}_{method}").files[0].path)
    return dict(meta["how"])
