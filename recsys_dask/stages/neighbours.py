"""The neighbour graph: a model's vectors to `similar_<item>_<model>`."""

from __future__ import annotations

import numpy as np

from recsys_dask.arrow import float64, int32, values, vectors
from recsys_dask.formats.vocabulary import rank_ids
from recsys_dask.nearest.index import SMALL, compiled_folder, nearest
from recsys_dask.runtime.clusters import Cluster
from recsys_dask.store import tables
from recsys_dask.store.files import Folder
from recsys_dask.store.manifest import FileEntry, StageReport, TableEntry
from recsys_dask.store.tables import Store


def neighbours(
    cluster: Cluster, store: Store, item: str, model: str, metric: str, index: str, k: int, token: str
) -> tuple[dict[str, TableEntry], StageReport]:
    """The table `similar_<item>_<model>`: min(k, n − 1) neighbours of every item that the model has a vector of.

    One task: the graph takes a second for 10,000 items and has no parts.
    """
    from dask import delayed

    (made,) = store.entry(f"embeddings_{item}_{model}").files
    vocabulary = [file.path for file in store.entry(f"{item}s").files]
    seed = store.manifest.stages[f"train:{item}:{model}"].params["seed"]
    name = f"similar_{item}_{model}"
    if made.rows > SMALL and index != "exact" and not compiled_folder().exists():
        cluster.progress.say("compiling pynndescent, once for its version, which takes a minute or two")
    with cluster.measured() as so_far:
        work = delayed(write_neighbours)(
            store.folder, name, item, made.path, vocabulary, (metric, index, seed), k, token,
            dask_key_name=f"neighbours-{token}",
        )  # fmt: skip
        (file,) = cluster.compute(f"neighbours {model}", [work], lambda one: one.rows, "rows")
        seconds, peak = so_far()
    return {name: TableEntry([file])}, StageReport(file.rows, file.bytes, 1, seconds, peak)


def write_neighbours(
    folder: Folder,
    name: str,
    item: str,
    path: str,
    vocabulary: list[str],
    how: tuple[str, str, int],
    k: int,
    token: str,
) -> FileEntry:
    """The task: the vectors' neighbours, written. how: metric, index and seed."""
    import pyarrow as pa

    table = tables.read_file(folder, path, ["item", "vector"])
    codes = values(table["item"])
    metric, index, seed = how
    order = rank_ids(folder, vocabulary, path, item) if len(codes) else np.zeros(0, np.int32)
    neighbour, score = nearest(vectors(table["vector"]), k, metric, index, seed, order=order)
    n, width = neighbour.shape
    found = pa.table(
        {
            "item": int32(np.repeat(codes, width)),
            "rank": int32(np.tile(np.arange(1, width + 1), n)),
            "neighbour": int32(codes[neighbour.ravel()]),
            "score": float64(score.ravel()),
        }
    )
    return tables.write_part(folder, name, token, 0, found, compression="zstd")
