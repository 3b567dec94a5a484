"""The similarity tables `similar_<item>_<measure>`: the pairs of a view are read once for all its measures."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from recsys_dask import params
from recsys_dask.arrow import columns, float64, int32, values
from recsys_dask.cooccurrence.best import BYTES_PER_PLACE, Best, empty, merge, offer
from recsys_dask.cooccurrence.measures import MEASURES, Counts, Measure, counts_of
from recsys_dask.formats.vocabulary import rank_ids
from recsys_dask.runtime.budget import SPLIT_EVERY
from recsys_dask.runtime.clusters import Cluster, tree
from recsys_dask.store import tables
from recsys_dask.store.files import Folder
from recsys_dask.store.manifest import FileEntry, StageReport, TableEntry, fingerprint
from recsys_dask.store.tables import Store

BLOCK_PAIRS = 1 << 18
"""Pairs scored at once."""

BASE_BYTES = 60_000_000
"""Vocabulary files, one at a time, and the row group that pairs are read from."""

BYTES_PER_BLOCK_PAIR = 250
"""Their columns, those of both items, scores and a row group's buffers."""


def similar(
    cluster: Cluster, store: Store, options: params.Similar, view: str, tokens: dict[str, str]
) -> dict[str, tuple[dict[str, TableEntry], StageReport]]:
    """The tables of some measures of one view, by measure; `tokens` has each one's token."""
    from dask import delayed

    names, token = list(tokens), fingerprint(tokens)
    item, folder = options.item, store.folder
    n_items = store.entry(f"pair_items_{item}_{view}").rows
    files = [file.path for file in store.entry(f"pairs_{item}_{view}").files]
    shares = [files[at :: 2 * cluster.n_threads] for at in range(min(len(files), 2 * cluster.n_threads))]
    needed = task_bytes(n_items, options.best, len(names), len(shares))
    projected = cluster.budget.check(
        f"similarities of {n_items:,} items by {len(names)} measures",
        needed,
        ", a lower --best, or one --measure at a time",
    )
    (items,) = store.entry(f"pair_items_{item}_{view}").files
    playlists = store.manifest.stages[f"pairs:{item}:{view}"].report.facts["playlists"]
    with cluster.measured() as so_far:
        by_id = delayed(rank_ids)(
            folder, [file.path for file in store.entry(f"{item}s").files], items.path, item,
            dask_key_name=f"rank_ids-{token}",
        )  # fmt: skip
        scored = [
            delayed(best_of_files)(
                folder, paths, items.path, playlists, names, floor(store, options), options.best, by_id,
                dask_key_name=f"best-{number}-{token}",
            )
            for number, paths in enumerate(shares)
        ]  # fmt: skip
        best = tree(scored, merge_all, f"merge_best-{token}")
        work = [
            delayed(write_similar)(
                best, folder, item, name, items.path, tokens[name], dask_key_name=f"write-{name}-{token}"
            )
            for name in names
        ]
        made = cluster.compute(f"{view} similarities", work, lambda file: file.rows, "rows")
        seconds, peak = so_far()
    return {
        name: (
            {f"similar_{item}_{name}": TableEntry([file])},
            StageReport(file.rows, file.bytes, 1, seconds / len(names), peak, projected),
        )
        for name, file in zip(names, made, strict=True)
    }


def task_bytes(n_items: int, best: int, n_measures: int, n_shares: int) -> int:
    """What a node of the tree needs at most: the best of its inputs, their sum, and while scoring a block of pairs."""
    together = n_items * best * BYTES_PER_PLACE * n_measures
    return together * (min(n_shares, SPLIT_EVERY) + 2) + BLOCK_PAIRS * BYTES_PER_BLOCK_PAIR + BASE_BYTES


def floor(store: Store, options: params.Similar) -> tuple[str, float]:
    """What coco scores by, and what a score must exceed."""
    if options.score == "normalised":
        return "normalised", options.score_over
    if options.count_over is not None:
        return "count", float(options.count_over)
    return "count", store.entry("playlists").rows * COUNT_PER_PLAYLIST


COUNT_PER_PLAYLIST = 1_000 / 1_000_000


def best_of_files(
    folder: Folder,
    paths: list[str],
    items: str,
    playlists: int,
    names: list[str],
    over: tuple[str, float],
    k: int,
    by_id: NDArray[np.int32],
) -> tuple[dict[str, Best], NDArray[np.int32]]:
    """The task: the best neighbours by each measure, as far as some files of the pairs know."""
    of_item = columns(tables.read_file(folder, items))
    best = {name: empty(len(of_item["item"]), k) for name in names}
    place = np.zeros(int(of_item["item"].max(initial=0)) + 1, np.int32)
    place[of_item["item"]] = np.arange(len(of_item["item"]), dtype=np.int32)
    for batch in tables.batches(folder, paths, BLOCK_PAIRS):
        pair = columns(batch)
        place1, place2 = place[pair["item1"]], place[pair["item2"]]
        seen = counts_of(pair, of_item, place1, place2, playlists)
        for name in names:
            _offer_both(best[name], MEASURES[name], seen, place1, place2, by_id, over)
    return best, by_id


def _offer_both(
    best: Best,
    measure: Measure,
    seen: Counts,
    a: NDArray[np.int32],
    b: NDArray[np.int32],
    by_id: NDArray[np.int32],
    over: tuple[str, float],
) -> None:
    """Each pair in both directions; coco only above its threshold."""
    if measure.name == "coco":
        value = seen.pair if over[0] == "count" else measure.function(seen)
        kept = value > over[1]
        a, b, value = a[kept], b[kept], value[kept]
        back = value
    else:
        value = measure.function(seen)
        back = value if measure.symmetric else measure.function(seen.swapped())
    offer(best, a, b, value, by_id)
    offer(best, b, a, back, by_id)


def merge_all(
    parts: list[tuple[dict[str, Best], NDArray[np.int32]]],
) -> tuple[dict[str, Best], NDArray[np.int32]]:
    """A node of the tree: the best of several files."""
    if len(parts) == 1:
        return parts[0]
    by_id = parts[0][1]
    return {name: merge([best[name] for best, _ in parts], by_id) for name in parts[0][0]}, by_id


def write_similar(
    best: tuple[dict[str, Best], NDArray[np.int32]], folder: Folder, item: str, name: str, items: str, token: str
) -> FileEntry:
    """The task: one measure's table."""
    import pyarrow as pa

    codes = values(tables.read_file(folder, items, ["item"])["item"])
    score, neighbour, n = best[0][name]
    full = np.arange(score.shape[1]) < n[:, None]
    rank = np.broadcast_to(np.arange(1, score.shape[1] + 1), score.shape)
    table = pa.table(
        {
            "item": int32(np.repeat(codes, n)),
            "rank": int32(rank[full]),
            "neighbour": int32(codes[neighbour[full]]),
            "score": float64(score[full]),
        }
    )
    return tables.write_part(folder, f"similar_{item}_{name}", token, 0, table, compression="zstd")
