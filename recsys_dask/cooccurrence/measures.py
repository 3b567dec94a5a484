"""Similarity measures: how near two items are, from how often they and both of them are in a playlist.

A measure takes `Counts` and gives the scores of the neighbour `b` for the seed `a`, float64 (pairs,). To add one, write
it here under `@register`: it becomes a similarity table, a method of every command, and a row of the evaluation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys_dask.schemas import WEIGHT_BITS

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Counts:
    """Some pairs (a, b) of a view; arrays are (pairs,) float64.

    pair: playlists that hold both; a, b: that hold the one; total_a, total_b: sums of the counts of its pairs;
    idf: sum over the shared playlists of the squared idf; idf_a, idf_b: over those of the one;
    mean: playlists an item, on average; playlists: how many the view has
    """

    pair: Array
    a: Array
    b: Array
    total_a: Array
    total_b: Array
    idf: Array
    idf_a: Array
    idf_b: Array
    mean: float
    playlists: int

    def swapped(self) -> Counts:
        """The same pairs seen from b."""
        return Counts(
            self.pair, self.b, self.a, self.total_b, self.total_a, self.idf, self.idf_b, self.idf_a,
            self.mean, self.playlists,
        )  # fmt: skip


Function = Callable[[Counts], Array]


@dataclass(frozen=True)
class Measure:
    """A registered measure: its view of the pairs, and whether a and b may change places."""

    name: str
    function: Function
    view: str
    symmetric: bool


MEASURES: dict[str, Measure] = {}


def register(view: str = "full", symmetric: bool = True) -> Callable[[Function], Function]:
    """Make a function a measure, under its own name."""

    def enter(function: Function) -> Function:
        MEASURES[function.__name__] = Measure(function.__name__, function, view, symmetric)
        return function

    return enter


@register(view="article")
def coco(c: Counts) -> Array:
    """Normalised co-occurrence: the pair's count over the sum of both items' pair totals."""
    return c.pair / (c.total_a + c.total_b)


@register()
def count(c: Counts) -> Array:
    """Playlists that hold both."""
    return c.pair


@register()
def cosine(c: Counts) -> Array:
    """Cosine of the items' playlist vectors. Sarwar et al., Item-based collaborative filtering, WWW 2001, 3.1."""
    return c.pair / np.sqrt(c.a * c.b)


@register()
def jaccard(c: Counts) -> Array:
    """Shared playlists over playlists of either. Jaccard, Étude comparative de la distribution florale, 1901."""
    return c.pair / (c.a + c.b - c.pair)


@register()
def lift(c: Counts) -> Array:
    """How many times as often as by chance. Brin et al., Dynamic itemset counting, SIGMOD 1997 ("interest")."""
    return c.pair * c.playlists / (c.a * c.b)


@register()
def pmi(c: Counts) -> Array:
    """Pointwise mutual information, the natural logarithm of lift. Church & Hanks, Word association norms, 1990."""
    return np.log(lift(c))


@register(symmetric=False)
def conditional(c: Counts) -> Array:
    """P(b | a). Deshpande & Karypis, Item-based top-N recommendation, TOIS 2004, 4.1.2 (with α = 0)."""
    return c.pair / c.a


BM25_K1, BM25_B = 1.2, 0.75


@register()
def bm25(c: Counts) -> Array:
    """Inner product of BM25 vectors, as `BM25Recommender` of `implicit` has it, K1 = 1.2, B = 0.75: an item's entries
    are (K1 + 1) / (K1·L + 1)·idf with L = 1 − B + B·n/mean n. Robertson & Zaragoza, The probabilistic relevance
    framework, 2009."""

    def saturation(n: Array) -> Array:
        return (BM25_K1 + 1) / (BM25_K1 * (1 - BM25_B + BM25_B * n / c.mean) + 1)

    return saturation(c.a) * saturation(c.b) * c.idf


@register()
def tfidf(c: Counts) -> Array:
    """Cosine of idf-weighted vectors, as `TFIDFRecommender` of `implicit`. Spärck Jones, A statistical
    interpretation of term specificity, 1972. 0 where a vector is all zeros."""
    norm = np.sqrt(c.idf_a * c.idf_b)
    return np.divide(c.idf, norm, out=np.zeros_like(norm), where=norm > 0)


def from_fixed(weight: NDArray[np.int64]) -> Array:
    """A stored weight as the number it stands for."""
    return weight / float(1 << WEIGHT_BITS)


def counts_of(
    pair: dict[str, NDArray[Any]],
    of_item: dict[str, NDArray[Any]],
    a: NDArray[np.int32],
    b: NDArray[np.int32],
    playlists: int,
) -> Counts:
    """Some pairs of a view as measures take them.

    pair: columns of the pairs' table; of_item: of the items' table, row = place; a, b: places of the pairs' items
    """
    n, total = of_item["n_playlists"].astype(float), of_item["pair_total"].astype(float)
    none = np.zeros(0)
    weighted = "idf_weight" in pair
    idf = from_fixed(of_item["idf_weight"]) if weighted else none
    return Counts(
        pair=pair["n_playlists"].astype(float),
        a=n[a],
        b=n[b],
        total_a=total[a],
        total_b=total[b],
        idf=from_fixed(pair["idf_weight"]) if weighted else none,
        idf_a=idf[a] if weighted else none,
        idf_b=idf[b] if weighted else none,
        mean=float(of_item["n_playlists"].sum()) / len(n),
        playlists=playlists,
    )
