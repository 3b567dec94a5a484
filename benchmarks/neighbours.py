"""The 20 nearest by pynndescent against scikit-learn's kd_tree: `python -m benchmarks.neighbours [N …]`. One table.

50 dimensions, clusters of some hundred vectors, cosine. kd_tree takes unit vectors (nearest by distance is nearest by
cosine). It is timed on all queries up to 10,000 vectors, above on `PART` of them, and that extrapolated; recall is
taken on as many rows, of which kd_tree's answer is the exact one. Ours: checks and exact scores included, compiled
before; A/A is the same once more. The same number of threads for both.
"""

from __future__ import annotations

import argparse
import os
import time

import numpy as np
from numpy.typing import NDArray
from sklearn.neighbors import NearestNeighbors

from recsys_dask.kernels import compile_once
from recsys_dask.nearest.index import nearest

K = 20
PART = 500


def clustered(n: int, d: int = 50) -> NDArray[np.float32]:
    """(n, d): a centre to a hundred vectors, around it a third of the spread."""
    draw = np.random.default_rng(0)
    centre = draw.normal(size=(max(n // 100, 5), d))
    return (centre[draw.integers(0, len(centre), n)] + 0.35 * draw.normal(size=(n, d))).astype(np.float32)


def kd_tree(vectors: NDArray[np.float32], part: NDArray[np.int64]) -> tuple[NDArray[np.int64], float]:
    """Neighbours of a part of the vectors, and the seconds that all would take."""
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    started = time.perf_counter()
    tree = NearestNeighbors(n_neighbors=K + 1, algorithm="kd_tree", n_jobs=-1).fit(unit)
    built = time.perf_counter() - started
    started = time.perf_counter()
    found = tree.kneighbors(unit[part], return_distance=False)
    asked = time.perf_counter() - started
    others = np.array([row[row != own][:K] for row, own in zip(found, part, strict=True)])
    return others, built + asked * len(vectors) / len(part)


def compare(n: int) -> str:
    """A line of the table."""
    vectors = clustered(n)
    part = np.sort(np.random.default_rng(1).permutation(n)[: n if n <= 10_000 else PART])
    seconds = []
    for _ in range(2):
        started = time.perf_counter()
        neighbour, _ = nearest(vectors, K)
        seconds.append(time.perf_counter() - started)
    true, theirs = kd_tree(vectors, part)
    recall = np.mean([len(set(a) & set(b)) / K for a, b in zip(true, neighbour[part], strict=True)])
    note = "" if len(part) == n else f" (from {len(part)} queries)"
    ours, again = sorted(seconds)
    return f"| {n:,} | {ours:.2f} | {again / ours:.2f} | {recall:.4f} | {theirs:.2f}{note} | {theirs / ours:.0f} |"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("n", nargs="*", type=int, default=[1_000, 10_000, 200_000])
    sizes = parser.parse_args().n
    if fault := compile_once():
        raise SystemExit(fault)
    started = time.perf_counter()
    nearest(clustered(200))
    print(f"first call of this process: {time.perf_counter() - started:.1f} s; {os.cpu_count()} cores")
    print("| vectors | ours, s | A/A | recall@20 | kd_tree, s | ratio |\n|---|---|---|---|---|---|")
    for n in sizes:
        print(compare(n), flush=True)
