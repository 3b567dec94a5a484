"""Benchmarks of recsys_dask beside other ways to the same results. The others get two cores."""

import os

os.environ.setdefault("POLARS_MAX_THREADS", "2")  # read once, when polars is first imported
