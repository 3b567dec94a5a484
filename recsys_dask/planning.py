"""What a run is projected to take, before it is begun: tasks, memory and disk of each stage.

An input that was not read yet is judged by its bytes: the Million Playlist Dataset has 497 bytes of JSON an entry and
33,000 a playlist; ids grow with the 0.75th (tracks) and 0.65th (artists) power of the input. What the store knows
already is taken from there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from recsys_dask import params
from recsys_dask.cooccurrence.measures import MEASURES
from recsys_dask.cooccurrence.plan import estimate
from recsys_dask.formats import memory
from recsys_dask.runtime.budget import Budget
from recsys_dask.stages import counts, export, ingest, near_duplicates, similar
from recsys_dask.store.manifest import InputFile
from recsys_dask.store.tables import Store

MPD_BYTES = 33e9
MPD_ROWS, MPD_PLAYLISTS, MPD_TRACKS, MPD_ARTISTS = 66_346_428, 1_000_000, 2_262_292, 295_860
PAIRS_PER_PLAYLIST = 800
"""Pairs of popular artists that a playlist of the Million Playlist Dataset has, on average."""

SCRATCH_SHARE = 0.22
"""Parts in scratch while ingesting, of the JSON's bytes: they go when it is done."""

STORED_SHARE = 0.025
FACTORS = {"mf": 50, "mlp": 128}
TORCH_BYTES, TRAIN_COPIES = 800_000_000, 3
"""Of the process that trains: torch and fastai themselves, and how often it holds the playlists."""

PAIR_BYTES = {"article": 8, "full": 16}


@dataclass(frozen=True)
class Projection:
    """One stage: how many tasks, the memory of a worker, and what it leaves on disk (while it works)."""

    stage: str
    tasks: int
    memory_bytes: int
    disk_bytes: int


@dataclass(frozen=True)
class Sizes:
    """How much there is of everything, estimated or known."""

    playlists: int
    rows: int
    ids: dict[str, int]
    known: bool


def sizes(inputs: Sequence[InputFile], store: Store) -> Sizes:
    """From the store where it has been filled from this input, else from the input's bytes."""
    made = store.manifest.tables
    if "rows" in made and list(inputs) == store.manifest.inputs:
        ids = {kind: made[kind].rows for kind in ("artists", "tracks")}
        return Sizes(made["playlists"].rows, made["rows"].rows, ids, True)
    share = ingest.size_of(inputs) / MPD_BYTES
    ids = {"artists": int(MPD_ARTISTS * share**0.65), "tracks": int(MPD_TRACKS * share**0.75)}
    return Sizes(int(MPD_PLAYLISTS * share), int(MPD_ROWS * share), ids, False)


def project(
    inputs: Sequence[InputFile],
    store: Store,
    budget: Budget,
    n_threads: int,
    top: int,
    options: params.Pairs,
    similarity: params.Similar,
) -> list[Projection]:
    """Every stage of a run. Raises `BudgetError` where the workers are too small for any."""
    n = sizes(inputs, store)
    groups = ingest.groups_of(inputs, budget.part_bytes, n_threads)
    n_buckets = ingest.n_buckets_for(inputs)
    partition = min(ingest.PARTITION_ROWS, max(1, n.rows // (2 * n_threads)))
    n_partitions = max(1, -(-n.rows // partition))
    n_vocabulary = sum(-(-ids // ingest.VOCABULARY_ROWS) for ids in n.ids.values())
    margin = {kind: int(ids * memory.DISTINCT_MARGIN) for kind, ids in n.ids.items()}
    needed = max(
        memory.decode_bytes(max(map(ingest.size_of, groups), default=0), budget.part_bytes),
        memory.merge_bytes(margin, n_buckets, 2 * partition, n.playlists, ingest.VOCABULARY_ROWS),
    )
    total = ingest.size_of(inputs)
    plan = [
        Projection(
            "ingest",
            len(groups) + 2 * n_buckets + 3 + n_vocabulary + n_partitions,
            budget.projected(needed),
            int(total * (SCRATCH_SHARE + STORED_SHARE)),
        ),
        Projection("counts", 2, budget.projected(counts.task_bytes(max(n.ids.values()), top)), 2 * top * 40),
    ]
    near = near_duplicates.JOIN_BYTES_PER_ROW * n.rows
    plan.append(Projection("near_duplicates", n_partitions, near, n.playlists * 4))
    for view in (options.view,) if options.view else params.VIEWS:
        plan += _view(view, n, budget, n_threads, n_partitions, top, options, similarity)
    n_ids = n.ids[f"{options.item}s"]
    vectors = min(top, n_ids) if options.item == "artist" else n_ids
    for model, factors in FACTORS.items():
        data = n.rows * 4 * TRAIN_COPIES + 16 * vectors * factors
        plan.append(Projection(f"train {model}", 2 * n_partitions + 1, TORCH_BYTES + data, vectors * factors * 8))
        plan.append(Projection(f"neighbours {model}", 1, budget.projected(vectors * 3_000), vectors * 300))
    plan.append(Projection("export", 12, budget.projected(export.task_bytes(n_ids, False)), n_ids * 60 + top * 5_000))
    return plan


def _view(
    view: str,
    n: Sizes,
    budget: Budget,
    n_threads: int,
    n_partitions: int,
    top: int,
    options: params.Pairs,
    similarity: params.Similar,
) -> list[Projection]:
    """The pairs of a view, bounded by what its items can have, and its similarity tables."""
    n_items = min(top, n.ids["artists"]) if options.item == "artist" else n.ids["tracks"]
    if view == "article":
        n_items = min(n_items, 2_000)
    most = min(n_items * (n_items - 1) // 2, n.playlists * PAIRS_PER_PLAYLIST)
    memory, ranges = estimate(budget, n_threads, most, n.rows, n.playlists, view == "full")
    n_measures = sum(measure.view == view for measure in MEASURES.values())
    shares = min(ranges, 2 * n_threads)
    needed = similar.task_bytes(n_items, similarity.best, n_measures, shares)
    return [
        Projection(f"pairs {view}", 3 * n_partitions + 3 * ranges, budget.projected(memory), most * PAIR_BYTES[view]),
        Projection(
            f"similar {view}",
            shares + n_measures + 3,
            budget.projected(needed),
            n_items * similarity.best * n_measures * 12,
        ),
    ]
