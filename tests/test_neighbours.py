"""Nearest items: exactly against loops, pynndescent's by what it finds and by what it gets wrong."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import oracles
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from recsys_dask.errors import InputError, UsageError
from recsys_dask.nearest import index as neighbours
from recsys_dask.nearest.exact import METRICS, Neighbours
from recsys_dask.nearest.index import ask, nearest
from recsys_dask.runtime.connecting import prepare_kernels
from recsys_dask.runtime.progress import Progress

Vectors = NDArray[np.float32]


@pytest.fixture(scope="module", autouse=True)
def compiled() -> None:
    prepare_kernels(Progress())


@pytest.fixture
def no_scan_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """An exact scan is for samples and for rows left short: of everything, it fails the test."""
    scan = neighbours.Exact.scan

    def some(self: Any, asked: Any, own: Any, k: int) -> Neighbours:
        assert len(asked) <= neighbours.CHECKED
        return scan(self, asked, own, k)

    monkeypatch.setattr(neighbours.Exact, "scan", some)


def holds(found: Neighbours, n: int, own: bool = True) -> None:
    """What every answer holds: types, no item of its own, none twice, best first."""
    neighbour, score = found
    assert neighbour.dtype == np.int32 and score.dtype == np.float64 and neighbour.shape == score.shape
    assert ((neighbour >= 0) & (neighbour < n)).all()
    assert all(len(set(row)) == len(row) for row in neighbour.tolist())
    assert not own or (neighbour != np.arange(len(neighbour))[:, None]).all()
    assert (np.diff(score, axis=1) <= 0).all()


def equals(found: Neighbours, wanted: list[list[tuple[int, float]]], exactly: bool) -> None:
    score = np.array([[value for _, value in row] for row in wanted]).reshape(found[1].shape)
    assert np.allclose(found[1], score, rtol=1e-12, atol=1e-12)
    if exactly:
        assert found[0].tolist() == [[place for place, _ in row] for row in wanted]


small = st.integers(1, 9).flatmap(
    lambda n: st.integers(1, 3).flatmap(
        lambda d: st.lists(st.lists(st.integers(-2, 2), min_size=d, max_size=d), min_size=n, max_size=n)
    )
)


@given(small, st.integers(1, 12), st.sampled_from(METRICS), st.sampled_from(["auto", "exact"]), st.randoms())
@settings(deadline=None, max_examples=150)
def test_odd_shapes(lists: list[list[int]], k: int, metric: str, index: str, random: Any) -> None:
    """Few items, more neighbours than items, zero vectors, equal ones. Whole numbers: scores that are equal are."""
    n = len(lists)
    order = list(range(n))
    random.shuffle(order)
    found = nearest(np.array(lists), k, metric, index, order=np.array(order))
    assert found[0].shape == (n, min(k, n - 1))
    holds(found, n)
    wanted = oracles.nearest(lists, list(enumerate(lists)), min(k, n - 1), metric, order)
    equals(found, wanted, exactly=metric != "cosine")
    new = [[value + 1 for value in one] for one in lists[:3]]
    found = ask(np.array(lists), np.array(new), k, metric, index, order=np.array(order))
    holds(found, n, own=False)
    wanted = oracles.nearest(lists, [(None, one) for one in new], min(k, n), metric, order)
    equals(found, wanted, exactly=metric != "cosine")


def test_no_items() -> None:
    assert nearest(np.zeros((0, 5)))[0].shape == (0, 0)
    assert ask(np.ones((3, 5)), np.zeros((0, 5)))[0].shape == (0, 3)


def gauss(n: int, d: int = 50) -> Vectors:
    return np.random.default_rng(1).normal(size=(n, d)).astype(np.float32)


def clustered(n: int) -> Vectors:
    draw = np.random.default_rng(2)
    centre = draw.normal(size=(max(n // 100, 5), 50))
    return (centre[draw.integers(0, len(centre), n)] + 0.35 * draw.normal(size=(n, 50))).astype(np.float32)


def skewed(n: int) -> Vectors:
    return gauss(n) * np.exp(np.random.default_rng(3).normal(size=(n, 1))).astype(np.float32)


def knots(n: int) -> Vectors:
    """Eight vectors beside each other at a time: pynndescent alone finds two thirds of the neighbours."""
    draw = np.random.default_rng(4)
    return (gauss(n // 8)[draw.integers(0, n // 8, n)] + 1e-3 * draw.normal(size=(n, 50))).astype(np.float32)


def trained(n: int) -> Vectors:
    """Like an embedding: scenes, a falling spectrum, lengths by popularity."""
    draw = np.random.default_rng(5)
    scene = draw.dirichlet(np.full(40, 0.1), n) @ draw.normal(size=(40, 50))
    flat = (scene + 0.3 * draw.normal(size=(n, 50))) * np.arange(1, 51) ** -0.5
    return (flat * (1 + draw.pareto(2, size=(n, 1)))).astype(np.float32)


KINDS: tuple[Callable[[int], Vectors], ...] = (gauss, clustered, skewed, knots, trained)


def recall(vectors: Vectors, found: Neighbours, metric: str, rows: NDArray[np.int64]) -> float:
    """The share of the true 20 of some rows, by matrices in float64."""
    points = vectors.astype(np.float64)
    if metric == "cosine":
        points /= np.linalg.norm(points, axis=1, keepdims=True)
    score = points[rows] @ points.T
    if metric == "euclidean":
        score = 2 * score - (points**2).sum(axis=1)
    score[np.arange(len(rows)), rows] = -np.inf
    true = np.argpartition(-score, 20, axis=1)[:, :20]
    return float(np.mean([len(set(a) & set(b)) / 20 for a, b in zip(true, found[0][rows], strict=True)]))


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n", [1_000, pytest.param(10_000, marks=pytest.mark.slow)])
def test_recall(kind: Callable[[int], Vectors], metric: str, n: int) -> None:
    found = nearest(kind(n), 20, metric)
    holds(found, n)
    rows = np.random.default_rng(9).permutation(n)[:500]
    assert recall(kind(n), found, metric, rows) >= 0.995


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_pynndescent_gives_what_a_scan_gives(no_scan_of_all: None, metric: str) -> None:
    vectors = clustered(800)
    by_graph = nearest(vectors, 10, metric)
    exact = neighbours.Index(vectors, metric)._exact
    parts = [
        exact.scan(exact.points[i : i + 100], np.arange(i, i + 100, dtype=np.int32), 10) for i in range(0, 800, 100)
    ]
    same = by_graph[0] == np.vstack([neighbour for neighbour, _ in parts])
    assert same.mean() > 0.995
    assert np.array_equal(by_graph[1][same], np.vstack([score for _, score in parts])[same])  # the same bits


def test_equal_and_zero_vectors(no_scan_of_all: None) -> None:
    """300 vectors of one kind, 150 of zeros among 1,000: the lists are those of the order, by every metric."""
    vectors = clustered(1_000)
    vectors[100:400] = vectors[0]
    vectors[500:650] = 0
    order = np.random.default_rng(6).permutation(1_000)
    for metric in "cosine", "euclidean":
        found = nearest(vectors, 20, metric, order=order)
        holds(found, 1_000)
        some = [0, 100, 399, 500, 649, 3, 999]
        queries = [(i, vectors[i].tolist()) for i in some]
        wanted = oracles.nearest(vectors.tolist(), queries, 20, metric, order)
        for i, row in zip(some, wanted, strict=True):
            assert np.allclose(found[1][i], [score for _, score in row], atol=1e-12)
            if i not in (3, 999):
                assert found[0][i].tolist() == [place for place, _ in row], (metric, i)


def test_what_pynndescent_gets_wrong_is_mended(monkeypatch: pytest.MonkeyPatch) -> None:
    """−1, an entry twice, the item absent or in the middle."""
    vectors = gauss(300, 5)
    good = nearest(vectors, 10)

    def wrong(vectors: Vectors, wide: int, seed: int, n_threads: int) -> Any:
        graph = np.argsort(((vectors[:, None] - vectors) ** 2).sum(axis=2), axis=1)[:, : wide + 1].astype(np.int32)
        graph[::50, 3:] = -1  # short
        graph[1::50, 12] = graph[1::50, 2]  # twice
        graph[2::50, [0, 4]] = graph[2::50, [4, 0]]  # itself in the middle
        graph[3::50, 0] = -1  # itself absent
        return SimpleNamespace(neighbor_graph=(graph, None))

    monkeypatch.setattr(neighbours, "_descend", wrong)
    found = nearest(vectors, 10)
    holds(found, 300)
    exact = nearest(vectors, 10, index="exact")
    assert np.array_equal(found[0], exact[0]) and np.array_equal(found[1], exact[1])
    assert (good[0] == exact[0]).mean() > 0.995


def test_a_graph_that_finds_too_little_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    def useless(vectors: Vectors, wide: int, seed: int, n_threads: int) -> Any:
        draw = np.random.default_rng(0)
        return SimpleNamespace(neighbor_graph=(draw.integers(0, len(vectors), (len(vectors), wide), np.int32), None))

    monkeypatch.setattr(neighbours, "_descend", useless)
    found = nearest(clustered(500), 20)
    assert np.array_equal(found[0], nearest(clustered(500), 20, index="exact")[0])


def test_one_seed_one_result() -> None:
    """With any number of threads; 20,000 vectors are more than pynndescent takes in one block."""
    vectors = gauss(20_000, 4)
    one, two = (nearest(vectors, 5, n_threads=threads, seed=1) for threads in (1, 2))
    assert np.array_equal(one[0], two[0]) and np.array_equal(one[1], two[1])
    graphs = [
        neighbours._descend(vectors, 10, seed, threads).neighbor_graph[0] for seed, threads in ((1, 1), (1, 2), (2, 2))
    ]
    assert np.array_equal(graphs[0], graphs[1])
    assert not np.array_equal(graphs[1], graphs[2])


def test_inner_products_are_those_of_all_items() -> None:
    """Longest vectors first, and the rest not looked at: 3,000 are three blocks."""
    vectors = skewed(3_000)[:, :8].copy()
    order = np.random.default_rng(6).permutation(3_000)
    found = nearest(vectors, 20, "dot", order=order)
    some = [0, 1, 1_500, 2_999]
    wanted = oracles.nearest(vectors.tolist(), [(i, vectors[i].tolist()) for i in some], 20, "dot", order)
    equals((found[0][some], found[1][some]), wanted, exactly=True)


@pytest.mark.parametrize("n, distinct", [(101, 101), (150, 3), (150, 1), (2, 2)])
@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_pynndescent_asked_for_among_few(n: int, distinct: int, metric: str) -> None:
    vectors = gauss(distinct, 3)[np.arange(n) % distinct]
    for k in 1, 20, 200:
        found, exact = nearest(vectors, k, metric, "pynndescent"), nearest(vectors, k, metric, "exact")
        holds(found, n)
        assert np.array_equal(found[0], exact[0]) and np.array_equal(found[1], exact[1])


def test_refused() -> None:
    vectors = gauss(5, 3)
    vectors[3, 1] = np.nan
    with pytest.raises(InputError, match="vector 3 holds"):
        nearest(vectors)
    with pytest.raises(InputError, match="vector 0 holds"):
        nearest(np.full((2, 2), 1e39))
    with pytest.raises(UsageError, match="2 dimensions, the items' 3"):
        ask(gauss(5, 3), gauss(5, 2))
    for wrong in {"metric": "cosin"}, {"index": "kd"}:
        with pytest.raises(UsageError, match="does not exist: one of"):
            nearest(gauss(5, 3), **wrong)  # type: ignore[arg-type]


def test_a_cache_that_may_not_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    code = "from recsys_dask.nearest import index as neighbours; neighbours.pynndescent.__wrapped__()"
    place = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "file")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=place)
    assert done.returncode == 1 and "set NUMBA_CACHE_DIR to a folder that may be written" in done.stderr


def test_a_second_process_compiles_no_descent() -> None:
    """pynndescent's own first call takes most of a minute in every process."""
    nearest(gauss(200, 5), 5)  # the cache is filled
    code = """if True:
        from pynndescent import pynndescent_
        from recsys_dask.nearest import index as neighbours
        neighbours.pynndescent()
        inner = [getattr(pynndescent_, name) for name in neighbours.INNER]
        print(sum(sum(one.stats.cache_misses.values()) for one in inner), sum(len(one.signatures) for one in inner))
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ)
    misses, compiled = map(int, done.stdout.split())
    assert misses == 0 and compiled >= 6


def test_all_that_is_needed_is_compiled_at_first() -> None:
    """Many vectors take functions of pynndescent that few do not, and these are compiled with the others."""
    code = """if True:
        import sys
        import numpy as np
        from recsys_dask.nearest import index as neighbours
        neighbours.pynndescent()
        modules = [module for name, module in sys.modules.items() if name.startswith("pynndescent.")]
        known = {id(one): one for module in modules for one in vars(module).values() if hasattr(one, "_cache")}
        before = {key: len(one.signatures) for key, one in known.items()}
        vectors = np.random.default_rng(0).normal(size=(10_000, 50))
        neighbours.nearest(vectors, index="pynndescent")
        print(sum(before.values()) > 50, [one for key, one in known.items() if len(one.signatures) > before[key]])
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ)
    assert done.stdout.split() == ["True", "[]"]


@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda data: data[:-9] + b"\0" + data[-8:]])
def test_a_damaged_cache_heals_itself(damage: Callable[[bytes], bytes], tmp_path: Path) -> None:
    """numba's own cache ends the process: by an `EOFError` for a file cut short, by a crash for altered code."""
    neighbours.pynndescent()
    from pynndescent import utils

    folder = shutil.copytree(neighbours.compiled_folder(), tmp_path / neighbours.compiled_folder().name)
    of_this_installation = Path(utils.mark_visited._cache.cache_path).name
    (kernel,) = (folder / of_this_installation).glob(f"utils.mark_visited-*.{16 * '?'}.nbc")
    whole = kernel.read_bytes()
    kernel.write_bytes(damage(whole))
    code = """if True:
        from recsys_dask.nearest import index as neighbours
        neighbours.pynndescent()
        from pynndescent import utils
        print(sum(utils.mark_visited.stats.cache_misses.values()), sum(utils.norm.stats.cache_misses.values()))
    """
    place = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=place)
    assert done.stdout.split() == ["1", "0"]
    assert kernel.read_bytes() != damage(whole)
