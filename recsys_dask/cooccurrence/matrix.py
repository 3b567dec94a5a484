"""A measure of all counted pairs of the `full` view as triples: what item-based neighbours recommend by."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from recsys_dask.arrow import columns
from recsys_dask.cooccurrence.measures import MEASURES, counts_of
from recsys_dask.store.tables import Store

Triples = tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.float32]]


def triples(store: Store, item: str, name: str) -> Triples:
    """Places of seed and neighbour among the view's items, and the score, of every pair in both directions."""
    measure = MEASURES[name]
    of_item = columns(store.table(f"pair_items_{item}_{measure.view}"))
    playlists = store.manifest.stages[f"pairs:{item}:{measure.view}"].report.facts["playlists"]
    found = []
    for part in store.parts(f"pairs_{item}_{measure.view}"):
        pair = columns(part)
        one, other = (np.searchsorted(of_item["item"], pair[side]).astype(np.int32) for side in ("item1", "item2"))
        seen = counts_of(pair, of_item, one, other, playlists)
        there = measure.function(seen).astype(np.float32)
        back = there if measure.symmetric else measure.function(seen.swapped()).astype(np.float32)
        found += [(one, other, there), (other, one, back)]
    empty: Triples = (np.zeros(0, np.int32), np.zeros(0, np.int32), np.zeros(0, np.float32))
    first, second, score = (np.concatenate(several) for several in zip(empty, *found, strict=True))
    return first, second, score
