"""How good recommendations are: ranking and beyond_accuracy hold a function a metric, intervals how sure one can be."""

from __future__ import annotations

# they register themselves, in the order in which METRICS is shown
from recsys_dask.metrics import ranking, beyond_accuracy  # noqa: F401  # isort: skip
from recsys_dask.metrics.base import METRICS, Catalogue, Metric, Ranked, judge, top_k
from recsys_dask.metrics.intervals import Interval, bootstrap, paired

__all__ = ["METRICS", "Catalogue", "Interval", "Metric", "Ranked", "bootstrap", "judge", "paired", "top_k"]
