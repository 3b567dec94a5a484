"""How each model of whole playlists is trained, by how many playlists and items there are.

Few playlists are met many times in small batches, many a few times in large ones; beyond some product of the two,
items are scored by sample. The values were chosen on real listening of some thousand people and on generated
playlists with planted scenes; `benchmarks/embeddings.py` shows what they give.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from recsys_dask.errors import UsageError


@dataclass(frozen=True)
class Recipe:
    """rate: peak of the learning rate; decay: of item vectors and tower; size: playlists a batch; ridge: of |p|²;
    drop: the share of a playlist's items that is left out of what the model sees; scored: items a batch scores,
    None: all; table_rate: of the table of playlists, if there is one
    """

    factors: int
    epochs: int
    size: int
    rate: float
    decay: float
    ridge: float = 0.0
    drop: float = 0.0
    scored: int | None = None
    table_rate: float = 0.1


MODELS = ("mf", "mlp", "mean_mf", "table_mf", "item2vec")
"""`mf` and `mlp` are the default preset, `mean_mf` the fast one; `table_mf` is what `mf` came from."""


def recipe(model: str, n_playlists: int, n_items: int) -> Recipe:
    """The recipe of a model. Raises `UsageError` for one that is not in `MODELS`."""
    if model not in MODELS:
        raise UsageError(f"no model {model!r}: it is one of {', '.join(MODELS)}")
    scored = _scored(n_playlists, n_items)
    if model == "table_mf":
        return Recipe(50, _epochs(40, n_playlists), 128, rate=0.01, decay=0.3, ridge=10.0, scored=scored)
    large = n_playlists >= 50_000
    if model == "item2vec":
        return Recipe(50, _epochs(40, n_playlists), 1_024 if large else 64, rate=0.1, decay=0.0)
    epochs = _epochs(10, n_playlists)
    if model == "mf":
        rate = 0.02 if large else 0.05
        return Recipe(50, epochs, 1_024 if large else 64, rate=rate, decay=0.3, ridge=10.0, scored=scored)
    factors, decay = (50, 0.1) if model == "mean_mf" else (128, 0.3)
    return Recipe(factors, epochs, 1_024 if large else 64, rate=0.02, decay=decay, drop=0.5, scored=scored)


def _epochs(few: int, n_playlists: int) -> int:
    """`few` up to 10,000 playlists, then falling with the root of their number, to 3 at least."""
    return max(3, round(few / math.sqrt(max(n_playlists / 10_000, 1))))


def _scored(n_playlists: int, n_items: int) -> int | None:
    """All items up to 10⁹ scores an epoch or 2,000 items, else a fifth of 10,000 and the root's share of more."""
    if n_items <= 2_000 or n_playlists * n_items <= 1_000_000_000:
        return None
    return min(n_items, max(1_500, int(15 * math.sqrt(n_items))))
