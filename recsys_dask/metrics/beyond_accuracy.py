"""Metrics beyond accuracy: how popular, novel and diverse the recommended items are, and how many get their turn.

They read what is ranked, never what is hidden. Each but `coverage` gives (n,) float64, one value a playlist.
"""

from __future__ import annotations

import numpy as np

from recsys_dask.metrics.base import Array, Catalogue, Ranked, register

BLOCK = 1 << 22
"""Numbers of vectors that are looked up at once: 16 MiB."""


def _mean(of_item: Array, ranked: Ranked, k: int) -> Array:
    """(n,) means of an item's value over the first k; NaN for an empty list."""
    places = ranked.ranked[:, :k]
    there = places >= 0
    if not len(of_item):
        return np.full(len(places), np.nan)
    n = there.sum(axis=1)
    total = np.where(there, of_item[places], 0.0).sum(axis=1)
    return np.divide(total, n, out=np.full(len(n), np.nan), where=n > 0)


@register("popularity@{k}", better="lower")
def popularity(ranked: Ranked, catalogue: Catalogue, k: int = 50) -> Array:
    """Popularity bias: the mean over the list's items of the share of training playlists that hold it; 0 to 1.

    NaN for an empty list or without training playlists. Abdollahpouri et al., Managing popularity bias in recommender
    systems with personalized re-ranking, FLAIRS 2019 (average recommendation popularity), as shares.
    """
    if not catalogue.total:
        return np.full(len(ranked.ranked), np.nan)
    return _mean(catalogue.n_playlists / catalogue.total, ranked, k)


@register("novelty@{k}")
def novelty(ranked: Ranked, catalogue: Catalogue, k: int = 50) -> Array:
    """The mean over the list's items of -log2 of the share of training playlists that hold it, in bits; 0 and up.

    NaN for an empty list. An item that no playlist holds has the share 1 / (total + 1): a little more novel than those
    that one holds. Zhou et al., Solving the apparent diversity-accuracy dilemma of recommender systems, PNAS 2010
    (self-information); Vargas & Castells, Rank and relevance in novelty and diversity metrics, RecSys 2011.
    """
    n, total = catalogue.n_playlists, catalogue.total
    share = np.where(n > 0, n / max(total, 1), 1 / (total + 1))
    return _mean(-np.log2(share), ranked, k)


@register("diversity@{k}")
def diversity(ranked: Ranked, catalogue: Catalogue, k: int = 50) -> Array:
    """Intra-list diversity: 1 - the mean cosine of the list's pairs; 0 (all alike) to 1 (at right angles), above for
    opposite ones. NaN without vectors and for lists of fewer than 2 items.

    Ziegler et al., Improving recommendation lists through topic diversification, WWW 2005.
    """
    places = ranked.ranked[:, :k]
    result = np.full(len(places), np.nan)
    if catalogue.vectors is None or not catalogue.vectors.size:
        return result
    rows = max(1, BLOCK // (catalogue.vectors.shape[1] * max(1, places.shape[1])))
    for start in range(0, len(places), rows):
        block = places[start : start + rows]
        there = block >= 0
        vectors = catalogue.vectors[block]
        vectors[~there] = 0
        n = there.sum(axis=1)
        # the sum over all pairs from the length of the sum: |Σ v|² = Σ |v|² + Σ v·w
        of_sum = np.square(vectors.sum(axis=1, dtype=np.float64)).sum(axis=1)
        own = np.einsum("nkd,nkd->n", vectors, vectors, dtype=np.float64)
        similar = np.divide(of_sum - own, n * (n - 1), out=np.full(len(n), np.nan), where=n > 1)
        result[start : start + rows] = 1 - similar
    return result


@register("coverage@{k}", kind="whole")
def coverage(ranked: Ranked, catalogue: Catalogue, k: int = 50) -> float:
    """Share of the N items that are among the first k of some playlist; 0 to 1, NaN where N is 0. Of all playlists at
    once: those of parts cannot be averaged.

    Ge et al., Beyond accuracy: evaluating recommender systems by coverage and serendipity, RecSys 2010.
    """
    n_items = len(catalogue.n_playlists)
    if not n_items:
        return float("nan")
    shown = np.zeros(n_items, bool)
    places = ranked.ranked[:, :k]
    shown[places[places >= 0]] = True
    return float(shown.mean())
