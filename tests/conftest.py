"""What tests share: one local cluster of two worker processes for the whole session."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from recsys_dask import params
from recsys_dask.runtime.clusters import Cluster
from recsys_dask.runtime.connecting import connect


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A cluster as `connect` makes it; its `client` goes to the public functions."""
    with connect(params.Cluster(workers=2, memory_limit="2GB")) as made:
        yield made


@pytest.fixture(scope="session")
def client(cluster: Cluster):
    return cluster.client
