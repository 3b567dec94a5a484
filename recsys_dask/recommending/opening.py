"""A store's recommenders, ready to score: fitted ones, trained ones, and those that the pair tables make."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from recsys_dask import params
from recsys_dask.arrow import values, vectors
from recsys_dask.cooccurrence.matrix import triples
from recsys_dask.models import saved
from recsys_dask.models.blend import Blend
from recsys_dask.models.folded import FoldedMean, FoldedMF, MeanOfUnits
from recsys_dask.models.itemknn import item_knn
from recsys_dask.models.popularity import Popularity, Random
from recsys_dask.recommending.inputs import Inputs, place_of
from recsys_dask.store.arrays import read_arrays
from recsys_dask.store.tables import Store


def scorer(store: Store, item: str, method: str) -> Any:
    """A recommender of a store, ready to score playlists given as `Lists` over `inputs(store, item)`.

    Fitted ones and trained models are read from their files; item-based neighbours are made from the pair tables.
    Raises `StoreError` naming the command that makes what is missing.
    """
    n_items = store.entry(f"pair_items_{item}_full").rows
    if method in params.FITTED:
        return _unpacked(store, item, *_read(store, item, method))
    if method in params.MODELS:
        return _trained(store, item, method)
    if method == "popularity":
        held = values(store.table(f"pair_items_{item}_full", ["n_playlists"])["n_playlists"])
        return Popularity((held / max(store.entry("playlists").rows, 1)).astype(np.float32))
    if method == "random":
        return Random(n_items, 0)
    if method == "coco":
        table = store.table(f"similar_{item}_coco")
        items = values(store.table(f"pair_items_{item}_full", ["item"])["item"])
        seed, neighbour = (place_of(items, values(table[side])) for side in ("item", "neighbour"))
        known = (seed >= 0) & (neighbour >= 0)
        score = values(table["score"]).astype(np.float32)
        return item_knn(seed[known], neighbour[known], score[known], n_items)
    return item_knn(*triples(store, item, method), n_items)


def opened(store: Store, item: str, method: str) -> tuple[Inputs, Any]:
    """What a recommender knows, and its `scorer`. Fitted ones know what they did when they were fitted, the others the
    items alone. Raises what `scorer` raises."""
    if method in params.FITTED:
        arrays, tree = _read(store, item, method)
        known = Inputs(*(arrays[f"inputs.{name}"] for name in Inputs._fields))
        return known, _unpacked(store, item, arrays, tree)
    none = np.zeros(0, np.int32)
    items = values(store.table(f"pair_items_{item}_full", ["item"])["item"])
    return Inputs(items, none, none, none), scorer(store, item, method)


def _read(store: Store, item: str, method: str) -> tuple[dict[str, Any], Any]:
    """The arrays of a fitted recommender, and what they are."""
    arrays, meta = read_arrays(store.folder, store.entry(f"recommender_{item}_{method}").files[0].path)
    return arrays, meta["scorer"]


def _unpacked(store: Store, item: str, arrays: dict[str, Any], tree: Any) -> Any:
    if "blend" in tree:
        return Blend(tuple(scorer(store, item, part) for part in tree["blend"]), tuple(tree["weights"]))
    return saved.unpack(arrays, tree)


def _trained(store: Store, item: str, model: str) -> Any:
    """`mf`, `mlp` from the weights that `train` kept."""
    entry = store.entry(f"model_{item}_{model}")
    table = store.table(f"embeddings_{item}_{model}")
    preset = store.manifest.stages[f"train:{item}:{model}"].params["preset"]
    q = vectors(table["vector"])
    if preset == "article":
        items = values(store.table(f"pair_items_{item}_full", ["item"])["item"])
        everyone = np.zeros((len(items), q.shape[1]), np.float32)
        at = place_of(items, values(table["item"]))
        everyone[at[at >= 0]] = q[at >= 0]
        return MeanOfUnits(everyone)
    if model == "item2vec":
        return MeanOfUnits(q)
    b = values(table["bias"])
    if model == "mf" and preset == "default":
        return FoldedMF(q, b)
    (weights,) = (file.path for file in entry.files if file.path.endswith(".safetensors"))
    arrays, _ = read_arrays(store.folder, weights)
    layers = [arrays[name] for name in sorted(arrays, key=_layer) if ".tower." in name]
    return FoldedMean(q, b, tuple(layers))


def _layer(name: str) -> tuple[int, bool]:
    """`model.tower.2.bias`: by layer, the weight first."""
    found = re.search(r"tower\.(\d+)\.", name)
    return (int(found[1]) if found else -1, name.endswith("bias"))
