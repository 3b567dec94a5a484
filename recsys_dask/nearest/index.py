"""The nearest items of every item, and of new vectors: pynndescent finds candidates, `nearest` scores and ranks them.

What pynndescent is not trusted with. Its rows may hold −1, an entry twice, or lack the item (its issues 99, 135): all
are passed over, rows left short are filled by a scan. Vectors that are equal enter it once (they make knots that its
search does not leave). Its own cosine calls all pairs below 0 equally far: unit vectors under the Euclidean distance
stand for it. Some lists are checked against exact ones; when too few neighbours are found, a wider graph is built, and
at last all lists are exact: no graph search gets through many tight small knots.

Inner products are scanned for, longest vectors first. With one dimension more (Bachrach et al. 2014, "Speeding up the
Xbox recommender system") pynndescent's `query` can find them, but among 10,000 it is slower than a scan at a recall of
0.998, stays at 0.69 on clustered vectors, and compiles for a minute and a half. For the last reason new vectors are
scanned for too: 2 ms each among 200,000 of 50 dimensions.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import importlib.metadata
import shutil
import threading
import types
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys_dask.cores import cores
from recsys_dask.errors import UsageError
from recsys_dask.kernels import VARIABLE, cache_folder
from recsys_dask.nearest.exact import METRICS, Distinct, Exact, Neighbours, points

INDEXES = ("auto", "pynndescent", "exact")
SMALL = 100
"""`auto`: up to this many items exactly."""

FOUND, CHECKED = 0.997, 256
"""The share of neighbours to be found of so many lists, for a recall of 0.995 in all."""
GRAPHS = (1.25, 2.5, 5)
"""Entries a row of pynndescent's graph, in multiples of k (or of `LEAST`), tried one after the other."""
LEAST = 12

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
        self.n_threads = n_threads or cores()
        self.points = points(vectors, metric)
        self.order = np.arange(len(self.points)) if order is None else np.asarray(order, np.int64)
        self._exact = Exact(self.points, metric, self.order, self.n_threads)

    def nearest(self, k: int = 20) -> Neighbours:
        """The min(k, n − 1) nearest others of every item."""
        n = len(self.points)
        k = max(min(k, n - 1), 0)
        neighbour, score = np.empty((n, k), np.int32), np.zeros((n, k))
        zero = np.zeros(n, bool) if self.metric == "euclidean" else ~self.points.any(axis=1)
        neighbour[zero] = self._of_zero(np.flatnonzero(zero), k)
        neighbour[~zero], score[~zero] = self._search(np.flatnonzero(~zero).astype(np.int32), k)
        return neighbour, score

    def ask(self, queries: NDArray[Any], k: int = 20) -> Neighbours:
        """The min(k, n) nearest items of new vectors (m, d)."""
        asked = points(queries, self.metric, "query vector")
        if asked.shape[1] != self.points.shape[1]:
            raise UsageError(f"query vectors have {asked.shape[1]} dimensions, the items' {self.points.shape[1]}")
        m, n = len(asked), len(self.points)
        return self._exact.scan(asked, np.full(m, -1, np.int32), max(min(k, n), 0))

    def _of_zero(self, own: NDArray[np.int64], k: int) -> NDArray[np.int32]:
        """All score 0 with a zero vector: the first k others by `order`."""
        first = np.argsort(self.order, kind="stable")[: k + 1].astype(np.int32)
        rows = np.broadcast_to(first, (len(own), len(first)))
        behind = np.argsort(rows == own[:, None], axis=1, kind="stable")  # the item itself last
        return np.take_along_axis(rows, behind, axis=1)[:, :k]

    def _search(self, own: NDArray[np.int32], k: int) -> Neighbours:
        """Of some items: the first graph's that has enough of what a scan finds for a sample; else a scan's."""
        asked = self.points[own]
        scanned = self.index == "exact" or self.metric == "dot" or (self.index == "auto" and len(self.points) <= SMALL)
        if not scanned and k and len(own):
            sample = np.sort(np.random.default_rng(self.seed).permutation(len(own))[:CHECKED])
            truth = self._exact.scan(asked[sample], own[sample], k)[1]
            for groups in self._graphs(own, k):
                found = self._exact.rank(asked, own, k, self._distinct.members(groups, k + 1))
                # By score: which of several equally near items are listed says nothing.
                if (found[1][sample] >= truth[:, -1:]).mean() >= FOUND:
                    return found
        return self._exact.scan(asked, own, k)

    def _graphs(self, own: NDArray[np.int32], k: int) -> Iterator[NDArray[np.int32]]:
        group = self._distinct.group[own][:, None]
        for factor in GRAPHS:
            wide = int(factor * max(k, LEAST))
            if wide < len(self._distinct.points):
                near = _descend(self._distinct.points, wide, self.seed, self.n_threads).neighbor_graph[0]
                near = near[group[:, 0]]
                yield np.hstack([group, np.where(near == group, np.int32(-1), near)])  # first those that equal it

    @functools.cached_property
    def _distinct(self) -> Distinct:
        return Distinct(self.points, self.order)


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


def compiled_folder() -> Path:
    """Where pynndescent is kept as compiled; not there before its first use, which takes a minute or two."""
    return cache_folder().parent / f"pynndescent-{importlib.metadata.version('pynndescent')}"


@functools.cache
def pynndescent() -> Any:
    """`pynndescent.NNDescent`, compiled: by the first process that asks, into this package's cache folder.

    One process at a time: two that fill one cache have crashed. What is damaged in it is compiled again; where that
    is not enough, it is thrown away.
    """
    import numba

    from recsys_dask.kernel_files import checksummed

    folder = compiled_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        kept = folder.with_name(f"{folder.name}.lock").open("w")
    except OSError as error:
        raise UsageError(
            f"pynndescent, compiled, cannot be kept in {folder} ({error.strerror}): "
            f"set {VARIABLE} to a folder that may be written"
        ) from error
    config: Any = numba.config
    with _ONE_AT_A_TIME, checksummed(), kept as lock:
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
    # More than the megabyte up to which it builds its trees by other functions.
    few = np.random.default_rng(0).normal(size=(300, 1024)).astype(np.float32)
    descent(few, metric="euclidean", n_neighbors=5, random_state=0)
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
