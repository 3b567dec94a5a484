"""How often the most popular items share playlists, in an order that puts a scene's side by side."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsys_dask.arrow import values
from recsys_dask.reporting.names import Catalogue, Missing, missing
from recsys_dask.store.tables import Store

TOP = 50


@dataclass(frozen=True)
class Scenes:
    """names (n), cosine (n, n) of their playlists with NaN on the diagonal, and n_playlists (n, n) that hold both."""

    names: list[str]
    cosine: NDArray[np.float64]
    n_playlists: NDArray[np.int64]


def scenes(store: Store, item: str, catalogue: Catalogue, top: int = TOP) -> Scenes | Missing:
    """The `top` items of most playlists among the pairs of all playlists."""
    name, of_items = f"pairs_{item}_full", f"pair_items_{item}_full"
    if not (store.has(name) and store.has(of_items)):
        return missing(store, name)
    table = store.table(of_items, ["item", "n_playlists"])
    items, held = values(table["item"]), values(table["n_playlists"])
    best = np.sort(np.argsort(-held, kind="stable")[:top])
    codes, held = items[best], held[best]
    together = np.zeros((len(codes), len(codes)), np.int64)
    for part in store.parts(name, ["item1", "item2", "n_playlists"]):
        one, other = values(part["item1"]), values(part["item2"])
        mine = np.isin(one, codes) & np.isin(other, codes)
        at = np.searchsorted(codes, one[mine]), np.searchsorted(codes, other[mine])
        together[at] = values(part["n_playlists"])[mine]
    together += together.T
    cosine = together / np.sqrt(np.maximum(np.outer(held, held), 1))
    order = by_scene(cosine)
    cosine, together = cosine[np.ix_(order, order)], together[np.ix_(order, order)]
    np.fill_diagonal(cosine, np.nan)
    return Scenes(catalogue.names(codes[order]), cosine, together)


def by_scene(cosine: NDArray[np.float64]) -> NDArray[np.int64]:
    """An order of the rows of a symmetric matrix of similarities (n, n), 0 to 1, in which alike ones are neighbours.

    Average linkage of 1 − cosine, its leaves turned so that neighbours are as near as they can be
    (Bar-Joseph, Gifford and Jaakkola 2001).
    """
    from scipy.cluster.hierarchy import leaves_list, linkage
    from scipy.spatial.distance import squareform

    if len(cosine) < 3:
        return np.arange(len(cosine))
    apart = 1 - np.clip(cosine, 0, 1)
    np.fill_diagonal(apart, 0)
    order: NDArray[np.int64] = leaves_list(linkage(squareform(apart), "average", optimal_ordering=True))
    return order.astype(np.int64)
