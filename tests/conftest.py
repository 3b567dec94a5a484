"""What tests share: one local cluster of two worker processes for the whole session.

`run` trains no models in tests, save where a test asks for them: importing torch takes longer than most runs.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from small_store import Small, make_small

from recsys_dask import params
from recsys_dask.runtime.clusters import Cluster
from recsys_dask.runtime.connecting import connect

os.environ["RECSYS_DASK_RUN_MODELS"] = "none"


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A cluster as `connect` makes it; its `client` goes to the public functions."""
    with connect(params.Cluster(workers=2, memory_limit="2GB")) as made:
        yield made


@pytest.fixture(scope="session")
def client(cluster: Cluster):
    return cluster.client


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Small:
    """A store with recommenders, to be read only: tests that change it take a copy."""
    return make_small(tmp_path_factory.mktemp("small"))
