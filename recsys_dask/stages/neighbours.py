"""The nearest items of every item, and of new vectors: pynndescent finds candidates, `nearest` scores and ranks them.

What pynndescent is not trusted with. Its rows may hold −1, an entry twice, or lack the item (its issues 99, 135): all
are passed over, rows left short are filled by a scan. Vectors that are equal enter it once (they make knots that its
search does not leave). Its own cosine calls all pairs below 0 equally far: unit vectors under the Euclidean distance
stand for it. Inner products become distances by one dimension more (Bachrach et al. 2014, "Speeding up the Xbox
recommender system"). Some lists are checked against exact ones; when too few neighbours are found, it searches wider,
and at last all lists are exact: no graph search gets through many tight small knots.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import importlib.metadata
import os
import shutil
import threading
import types
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys_dask.errors import UsageError
from recsys_dask.kernels import cache_folder
from recsys_dask.nearest import METRICS, Distinct, Exact, Neighbours, points

INDEXES = ("auto", "pynndescent", "exact")
SMALL = 100
"""`auto`: up to this many items exactly; new vectors exactly while that takes seconds, `SCANNED` numbers."""
SCANNED = 10**10

FOUND, CHECKED = 0.997, 256
"""The share of neighbours to be found of so many lists, for a recall of 0.995 in all."""
GRAPHS = (2, 3, 6)
"""Entries a row of pynndescent's graph, in multiples of k, tried one after the other."""
SEARCHES = ((2, 0.1), (3, 0.2), (5, 0.4))
"""The same for a search: entries, and its epsilon."""

SHARES = 8
"""Into so many shares pynndescent cuts its work, whatever the number of threads: its results depend on it."""

OUTER = ("nn_descent", "nn_descent_internal", "init_rp_tree", "process_candidates")
INNER = (
    "generate_leaf_updates",
    "init_random",
    "generate_graph_update_array",
    "generate_graph_update_array_batched",
    "build_candidates_owner",
    "sort_updates_by_block",
    "apply_graph_update_array",
    "apply_sorted_graph_update_array",
    "deheap_sort",
)
"""pynndescent's functions: loops around kernels, and kernels."""

_ONE_AT_A_TIME = threading.Lock()  # numba's own thread pool cannot be entered twice


class Index:
    """Vectors (n, d) that can be asked about; pynndescent's index is built, seeded, when it is first needed.

    order: (n,) distinct integers, which of two equal scores goes first (default: the one that stands first).
    The same seed gives the same answers with any number of threads; memory is some 30 (d + k) bytes a vector.

    Raises UsageError: a metric or index that does not exist; InputError: vectors that are not finite.
    """

    def __init__(
        self,
        vectors: NDArray[Any],
        metric: str = "cosine",
        index: str = "auto",
        seed: int = 0,
        n_threads: int | None = None,
        order: NDArray[Any] | None = None,
    ) -> None:
        for name, value, known in ("metric", metric, METRICS), ("index", index, INDEXES):
            if value not in known:
                raise UsageError(f"{name} {value!r} does not exist: one of {', '.join(known)}")
        self.metric, self.index, self.seed = metric, index, seed
        self.n_threads = n_threads or len(os.sched_getaffinity(0))
        self.points = points(vectors, metric)
        self.order = np.arange(len(self.points)) if order is None else np.asarray(order, np.int64)
        self._exact = Exact(self.points, metric, self.order, self.n_threads)

    def nearest(self, k: int = 20) -> Neighbours:
        """The min(k, n − 1) nearest others of every item."""
        n = len(self.points)
        own = np.arange(n, dtype=np.int32)
        exactly = self.index == "exact" or (self.index == "auto" and n <= SMALL)
        return self._checked(self.points, own, max(min(k, n - 1), 0), exactly, graph=self.metric != "dot")

    def ask(self, queries: NDArray[Any], k: int = 20) -> Neighbours:
        """The min(k, n) nearest items of new vectors (m, d)."""
        asked = points(queries, self.metric, "query vector")
        if asked.shape[1] != self.points.shape[1]:
            raise UsageError(f"query vectors have {asked.shape[1]} dimensions, the items' {self.points.shape[1]}")
        n = len(self.points)
        few = n <= SMALL or asked.size * n <= SCANNED
        exactly = self.index == "exact" or (self.index == "auto" and few)
        return self._checked(asked, np.full(len(asked), -1, np.int32), max(min(k, n), 0), exactly, graph=False)

    def _checked(
        self, asked: NDArray[np.float64], own: NDArray[np.int32], k: int, exactly: bool, graph: bool
    ) -> Neighbours:
        """The first search that finds enough of what a scan finds for some of the vectors; else the scan of all."""
        neighbour, score = np.empty((len(asked), k), np.int32), np.empty((len(asked), k))
        some = asked.any(axis=1) if self.metric != "euclidean" else np.ones(len(asked), bool)
        neighbour[~some], score[~some] = self._of_zero(own[~some], k), 0.0
        asked, own = asked[some], own[some]
        neighbour[some], score[some] = self._search(asked, own, k, exactly, graph)
        return neighbour, score

    def _of_zero(self, own: NDArray[np.int32], k: int) -> NDArray[np.int32]:
        """All score 0 with a zero vector: the first k others by `order`."""
        first = np.argsort(self.order, kind="stable")[: k + 1].astype(np.int32)
        rows = np.broadcast_to(first, (len(own), len(first)))
        behind = np.argsort(rows == own[:, None], axis=1, kind="stable")  # the item itself last
        return np.take_along_axis(rows, behind, axis=1)[:, :k]

    def _search(
        self, asked: NDArray[np.float64], own: NDArray[np.int32], k: int, exactly: bool, graph: bool
    ) -> Neighbours:
        if not exactly and k and len(asked):
            sample = np.sort(np.random.default_rng(self.seed).permutation(len(asked))[:CHECKED])
            truth = self._exact.scan(asked[sample], own[sample], k)[1]
            for groups in self._from_graph(own, k) if graph else self._from_search(asked, k):
                candidates = self._distinct.members(groups, k + 1)
                found = self._exact.rank(asked, own, k, candidates)
                # By score: which of several equally near items are listed says nothing.
                if (found[1][sample] >= truth[:, -1:]).mean() >= FOUND:
                    return found
        return self._exact.scan(asked, own, k)

    def _from_graph(self, own: NDArray[np.int32], k: int) -> Iterator[NDArray[np.int32]]:
        group = self._distinct.group[own].astype(np.int32)[:, None]
        for wide in GRAPHS:
            if wide * k < len(self._distinct.first):
                near = _descend(self._distinct.points, wide * k, self.seed, self.n_threads).neighbor_graph[0]
                near = near[group[:, 0]]
                yield np.hstack([group, np.where(near == group, np.int32(-1), near)])  # first those that equal it

    def _from_search(self, asked: NDArray[np.float64], k: int) -> Iterator[NDArray[np.int32]]:
        queries = asked.astype(np.float32)
        if self.metric == "dot":
            length = np.linalg.norm(asked, axis=1, keepdims=True)
            scaled = asked * (self._distinct.radius / np.where(length > 0, length, 1))
            queries = np.hstack([scaled, np.zeros((len(asked), 1))]).astype(np.float32)
        for wide, epsilon in SEARCHES:
            if wide * k < len(self._distinct.first):
                index, random = self._searched
                with _ONE_AT_A_TIME:
                    index.search_rng_state[:] = random
                    found = index.query(queries, k=wide * k, epsilon=epsilon)[0]
                yield found

    @functools.cached_property
    def _distinct(self) -> Distinct:
        return Distinct(self.points, self.order, self.metric == "dot")

    @functools.cached_property
    def _searched(self) -> tuple[Any, NDArray[np.int64]]:
        """The index, and the random state that each search starts from, so that one answers like the next."""
        wide = min(40, len(self._distinct.first) - 1)
        index = _descend(self._distinct.points, wide, self.seed, self.n_threads)
        return index, index.search_rng_state.copy()


def nearest(
    vectors: NDArray[Any],
    k: int = 20,
    metric: str = "cosine",
    index: str = "auto",
    seed: int = 0,
    n_threads: int | None = None,
    order: NDArray[Any] | None = None,
) -> Neighbours:
    """The min(k, n − 1) nearest others of every one of the vectors (n, d), as `Index` has it."""
    return Index(vectors, metric, index, seed, n_threads, order).nearest(k)


def ask(
    vectors: NDArray[Any],
    queries: NDArray[Any],
    k: int = 20,
    metric: str = "cosine",
    index: str = "auto",
    seed: int = 0,
    n_threads: int | None = None,
    order: NDArray[Any] | None = None,
) -> Neighbours:
    """The min(k, n) nearest of the vectors (n, d) for each new one (m, d); who asks often keeps an `Index`."""
    return Index(vectors, metric, index, seed, n_threads, order).ask(queries, k)


def _descend(vectors: NDArray[np.float32], wide: int, seed: int, n_threads: int) -> Any:
    """pynndescent's index under the Euclidean distance, `wide` neighbours a row."""
    import numba

    descent = pynndescent()
    threads = min(n_threads, numba.config.NUMBA_NUM_THREADS)  # type: ignore[attr-defined]
    with _ONE_AT_A_TIME, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Failed to correctly find n_neighbors")
        # its first entry is the item itself, hence one more
        return descent(vectors, metric="euclidean", n_neighbors=wide + 1, random_state=seed, n_jobs=threads)


@functools.cache
def pynndescent() -> Any:
    """`pynndescent.NNDescent`, compiled: by the first process that asks, into this package's cache folder.

    One process at a time: two that fill one cache have crashed. A cache that cannot be read is thrown away.
    """
    import numba

    folder = cache_folder() / f"pynndescent-{importlib.metadata.version('pynndescent')}"
    folder.mkdir(parents=True, exist_ok=True)
    config: Any = numba.config
    with _ONE_AT_A_TIME, (cache_folder() / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # until the file is closed
        others = config.CACHE_DIR
        config.CACHE_DIR = str(folder)
        try:
            return _compiled()
        except Exception:
            shutil.rmtree(folder, ignore_errors=True)
            return _compiled()
        finally:
            config.CACHE_DIR = others


def _compiled() -> Any:
    descent = _import_cached()
    tiny = np.random.default_rng(0).normal(size=(200, 2)).astype(np.float32)
    descent(tiny, metric="euclidean", n_neighbors=5, random_state=0)
    return descent


def _import_cached() -> Any:
    """pynndescent compiles its descent in every process anew, for most of a minute: it takes the distance as an
    argument, which numba's cache does not know again, and asks for the number of threads, which cannot be cached. So
    the loops around its kernels run as plain Python (some ten calls), the kernels are cached, and the distance goes
    by a name of its own. A version that lacks these functions compiles as it did.
    """
    from pynndescent import NNDescent, distances, pynndescent_

    inside = vars(pynndescent_)
    outer = [inside.get(name) for name in OUTER]
    inner = [inside.get(name) for name in INNER]
    if not all(hasattr(one, "py_func") for one in (*outer, *inner)):
        return NNDescent
    with contextlib.suppress(AssertionError):  # it has a name
        distances.squared_euclidean._set_uuid(f"{__name__}:squared_euclidean")
    for one in inner:
        one.enable_caching()
    shares = types.SimpleNamespace(get_num_threads=lambda: SHARES)
    scope = {**inside, "numba": shares}
    for one in outer:
        plain = one.py_func
        scope[plain.__name__] = types.FunctionType(plain.__code__, scope, plain.__name__, plain.__defaults__)
    inside["nn_descent"] = scope["nn_descent"]
    return NNDescent
