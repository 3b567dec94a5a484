"""Item-based nearest neighbours: a candidate scores the sum of its similarities to the playlist's items.

Deshpande and Karypis, Item-based top-N recommendation algorithms, TOIS 2004.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from recsys_dask.compressed import starts_of
from recsys_dask.models.base import Floats, Ints, Items, Lists


@dataclass(frozen=True)
class ItemKnn:
    """Similarities as a compressed-row array over N items: those of item i are `similarity[starts[i]:starts[i + 1]]`
    float32, of the items `neighbours` int32 there."""

    starts: Ints
    neighbours: Items
    similarity: Floats

    def scores(self, lists: Lists) -> Floats:
        from scipy.sparse import csr_matrix

        n_items = len(self.starts) - 1
        held = csr_matrix((np.ones(len(lists.items), np.float32), lists.items, lists.starts), (lists.n, n_items))
        similar = csr_matrix((self.similarity, self.neighbours, self.starts), (n_items, n_items))
        return np.asarray((held @ similar).toarray())


def item_knn(item: Items, neighbour: Items, similarity: Floats, n_items: int) -> ItemKnn:
    """From triples in any order. A similarity of 0 or less says nothing: it is left out."""
    kept = similarity > 0
    item, neighbour, similarity = item[kept], neighbour[kept], similarity[kept]
    order = np.lexsort((neighbour, item))
    starts = starts_of(np.bincount(item, minlength=n_items))
    return ItemKnn(starts, neighbour[order].astype(np.int32), similarity[order].astype(np.float32))
