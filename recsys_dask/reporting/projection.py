"""Vectors to a plane: t-SNE (van der Maaten 2014) of their directions, and groups of alike ones."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

COMPONENTS = 30
"""Principal components that t-SNE starts from."""

PERPLEXITY = 30.0
STEPS = 500
GROUPS = 12
FEWEST = 10
"""Vectors that t-SNE is worth while for; fewer are shown by their first two components."""


def plane(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Vectors (n, factors) to places (n, 2) between −1 and 1, float32, rounded to 1e-4. The same at every call.

    In one thread: more of them wait for each other where cores are shared, and would sum in another order.
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    units = _units(vectors)
    n = len(units)
    if n < 3:
        return np.linspace([-0.5, 0], [0.5, 0], n, dtype=np.float32)
    with threadpool_limits(1), np.errstate(divide="ignore", invalid="ignore"):
        few = min(COMPONENTS, n - 1, units.shape[1])
        found = PCA(few, svd_solver="full").fit_transform(units)
        if n >= FEWEST and few > 2:
            perplexity = min(PERPLEXITY, (n - 1) / 3)
            start = 1e-4 * found[:, :2] / max(float(found[:, 0].std()), 1e-9)
            layout = TSNE(init=start, perplexity=perplexity, max_iter=STEPS, random_state=0, n_jobs=1)
            found = layout.fit_transform(found)
    places = np.zeros((n, 2))
    places[:, : found.shape[1]] = found[:, :2]
    places -= (places.max(0) + places.min(0)) / 2
    places /= max(float(np.abs(places).max()), 1e-9)
    return np.round(np.nan_to_num(places), 4).astype(np.float32)


def groups(vectors: NDArray[np.float32], n_groups: int = GROUPS) -> NDArray[np.int64]:
    """Which of some groups each vector (n, factors) belongs to, by k-means of their directions, largest group first."""
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits

    units = _units(vectors)
    n_groups = min(n_groups, len(np.unique(units, axis=0)))
    if n_groups < 2:
        return np.zeros(len(units), np.int64)
    with threadpool_limits(1):
        label = KMeans(n_groups, n_init=2, random_state=0).fit(units).labels_
    place = np.empty(n_groups, np.int64)
    place[np.argsort(-np.bincount(label, minlength=n_groups), kind="stable")] = np.arange(n_groups)
    return place[label]


def _units(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    found: NDArray[np.float32] = np.nan_to_num(vectors) / np.maximum(
        np.linalg.norm(vectors, axis=1, keepdims=True), np.float32(1e-9)
    )
    return found
