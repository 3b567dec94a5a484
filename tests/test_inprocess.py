"""Work too small for a cluster: done in this process, to the same tables."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from dask import delayed
from kills import differing, tables_of

from recsys_dask import api, params, steps
from recsys_dask.errors import ClusterError, StoreError
from recsys_dask.runtime.clusters import tree
from recsys_dask.runtime.connecting import connect
from recsys_dask.runtime.inprocess import InProcess
from recsys_dask.runtime.progress import Progress
from recsys_dask.store.manifest import InputFile, Manifest
from recsys_dask.store.tables import Store

ALONE = """
import sys
from recsys_dask import api
api.run(sys.argv[1], sys.argv[2], models="none")
print(sorted({"distributed", "torch", "fastai", "pandas", "scipy.linalg", "sklearn", "bokeh"} & set(sys.modules)))
"""

WITH_MODELS = """
import sys
from recsys_dask import api
api.sample(sys.argv[1], playlists=40)
api.run(sys.argv[1], sys.argv[2], index="exact")  # pynndescent itself imports the others
needless = {"distributed", "pynndescent", "sklearn", "scipy.stats", "scipy.ndimage", "matplotlib", "torch._dynamo"}
print(sorted({*needless, "bokeh"} & set(sys.modules)))
"""


@pytest.fixture(scope="module")
def slices(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("small") / "slices"
    api.sample(folder, playlists=1_200, seed=9)
    return folder


def test_the_same_tables_as_on_a_cluster(slices: Path, tmp_path: Path, client) -> None:
    done = subprocess.run(
        [sys.executable, "-c", ALONE, str(slices), str(tmp_path / "here")], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"
    api.run(slices, tmp_path / "there", client=client, models="none")
    assert differing(tables_of(tmp_path / "here"), tables_of(tmp_path / "there")) == []


def test_models_of_little_import_little(tmp_path: Path) -> None:
    """Each takes longer to import than such models to train; none of them is called."""
    command = [sys.executable, "-c", WITH_MODELS, str(tmp_path / "slices"), str(tmp_path / "store")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_cluster_is_started_where_one_is_asked_for(capfd) -> None:
    with connect(params.Cluster(), small=True) as made:
        assert isinstance(made, InProcess)
    with connect(params.Cluster(workers=1), small=True) as made:
        assert not isinstance(made, InProcess)


def test_small_is_little_to_read_and_few_rows(tmp_path: Path) -> None:
    store = Store.open_or_new(str(tmp_path / "store"))
    one = InputFile("a.json", 100_000_000, "")
    assert steps.is_small(store, [one], False)
    assert not steps.is_small(store, [one, InputFile("b.json", 100_000_000, "")], False)
    assert not steps.is_small(store, [InputFile("a.json.gz", 100_000_000, "")], False)
    known = Store(store.folder, Manifest.new())
    known.manifest.inputs = [InputFile("b.json", 10**9, ""), InputFile("c.json", 10**9, "")]
    assert steps.is_small(known, known.manifest.inputs, False)
    assert not steps.is_small(known, known.manifest.inputs, True)


def test_results_come_in_order_and_each_is_counted() -> None:
    seen: list[int] = []

    class Seen(Progress):
        def step(self, title, tasks, unit=""):
            from contextlib import nullcontext

            return nullcontext(seen.append)

    cluster = InProcess(Seen())
    work = [delayed(pow)(n, 2) for n in range(20)]
    assert cluster.compute("squares", work, lambda square: square) == [n * n for n in range(20)]
    assert sorted(seen) == [n * n for n in range(20)]
    kept = cluster.persist(work)
    assert cluster.compute("sum", [tree(kept, sum, "sum")]) == [sum(n * n for n in range(20))]


def test_what_a_task_raises() -> None:
    def fail(error: Exception) -> None:
        raise error

    cluster = InProcess(Progress())
    with pytest.raises(StoreError, match="ours"):
        cluster.compute("failing", [delayed(fail)(StoreError("ours"))])
    with pytest.raises(ClusterError, match="failing: a task failed: ValueError: theirs; --debug shows where"):
        cluster.compute("failing", [delayed(fail)(ValueError("theirs"))])
