"""Ranking metrics: how much of what a playlist hides is recommended, and how early.

Each takes `Ranked` and `Catalogue` and gives (n,) float64, one value a playlist; NaN where nothing is hidden, which is
the one empty case of all. A list that is shorter than k misses for the rest.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys_dask.metrics.base import Array, Catalogue, Ranked, register

PAGE = 10
"""Tracks that Spotify shows before one clicks for more."""


def _over(numerator: Array, denominator: NDArray[Any], defined: NDArray[np.bool_]) -> Array:
    """A ratio where it is defined, NaN elsewhere."""
    return np.divide(numerator, denominator, out=np.full(len(numerator), np.nan), where=defined)


@register("r_precision")
def r_precision(ranked: Ranked, catalogue: Catalogue) -> Array:
    """Credit of the first n_hidden places over n_hidden, 0 to 1. Places that were not ranked miss: rank as many as are
    hidden.

    Artists: the share of hits. Chen et al., RecSys Challenge 2018: automatic music playlist continuation, RecSys 2018.
    Tracks: a wrong one by an artist of the hidden ones is worth a quarter. Zamani et al., An analysis of approaches
    taken in the ACM RecSys Challenge 2018, TIST 2019: (|S_T ∩ G_T| + 0.25·|S_A ∩ G_A|) / |G_T|, tracks T and
    artists A of the hidden G and of the first |G_T| recommended S. Our reading: S_A ∩ G_A counts an artist once, and
    only if none of its tracks is in S_T ∩ G_T; taken to the letter, the perfect list would be worth more than 1.
    """
    read = np.arange(ranked.credit.shape[1]) < ranked.n_hidden[:, None]
    return _over((ranked.credit * read).sum(axis=1), ranked.n_hidden, ranked.n_hidden > 0)


@register("ndcg@{k}")
def ndcg(ranked: Ranked, catalogue: Catalogue, k: int = 100) -> Array:
    """Gain 1 a hit, over log2(rank + 1), as a share of that of min(k, n_hidden) hits at the top; 0 to 1.

    Järvelin & Kekäläinen, Cumulated gain-based evaluation of IR techniques, TOIS 2002, with the smooth discount of
    Burges et al., Learning to rank using gradient descent, ICML 2005.
    """
    discount = 1 / np.log2(np.arange(2, k + 2))
    hits = ranked.hits[:, :k]
    ideal = np.concatenate([[0.0], np.cumsum(discount)])[np.minimum(ranked.n_hidden, k)]
    return _over(hits @ discount[: hits.shape[1]], ideal, ideal > 0)


@register("recall@{k}")
def recall(ranked: Ranked, catalogue: Catalogue, k: int = 50) -> Array:
    """Share of the hidden items that are among the first k; 0 to 1, below 1 where more than k are hidden.

    Herlocker et al., Evaluating collaborative filtering recommender systems, TOIS 2004.
    """
    return _over(_n_hits(ranked, k), ranked.n_hidden, ranked.n_hidden > 0)


@register("precision@{k}")
def precision(ranked: Ranked, catalogue: Catalogue, k: int = 10) -> Array:
    """Share of k places that are hits; 0 to 1, below 1 where fewer than k are hidden or ranked.

    Herlocker et al., Evaluating collaborative filtering recommender systems, TOIS 2004.
    """
    return _over(_n_hits(ranked, k), np.full(len(ranked.n_hidden), float(k)), ranked.n_hidden > 0)


def _n_hits(ranked: Ranked, k: int) -> Array:
    return ranked.hits[:, :k].sum(axis=1, dtype=np.float64)


@register("map@{k}")
def average_precision(ranked: Ranked, catalogue: Catalogue, k: int = 100) -> Array:
    """Precision at each hit among the first k, summed, over min(k, n_hidden); 0 to 1. Its mean is MAP.

    Buckley & Voorhees, Evaluating evaluation measure stability, SIGIR 2000; cut at k as in the Million Song Dataset
    Challenge, McFee et al., WWW 2012.
    """
    hits = ranked.hits[:, :k]
    at_rank = np.cumsum(hits, axis=1) / np.arange(1, hits.shape[1] + 1)
    return _over((at_rank * hits).sum(axis=1), np.minimum(ranked.n_hidden, k), ranked.n_hidden > 0)


@register("mrr@{k}")
def reciprocal_rank(ranked: Ranked, catalogue: Catalogue, k: int = 100) -> Array:
    """1 / rank of the first hit, 0 without one among the first k. Its mean is MRR.

    Voorhees, The TREC-8 question answering track report, TREC 1999.
    """
    first = _first_hit(ranked, k)
    return np.where(ranked.n_hidden > 0, np.where(first < k, 1 / (first + 1), 0.0), np.nan)


@register("clicks", better="lower")
def clicks(ranked: Ranked, catalogue: Catalogue, k: int = 500) -> Array:
    """Clicks for ten more until a hit shows, ⌊(rank - 1) / 10⌋; without one among the first k, one more than those
    could take: 51 of 500, also if fewer are ranked. Chen et al. 2018.
    """
    first = _first_hit(ranked, k)
    return np.where(ranked.n_hidden > 0, np.where(first < k, first // PAGE, -(-k // PAGE) + 1), np.nan)


def _first_hit(ranked: Ranked, k: int) -> NDArray[np.int64]:
    """(n,) places of the first hits, 0 for the best; k where there is none among the first k."""
    hits = ranked.hits[:, :k]
    if not hits.shape[1]:
        return np.full(len(hits), k)
    return np.where(hits.any(axis=1), hits.argmax(axis=1), k)
