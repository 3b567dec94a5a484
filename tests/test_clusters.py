"""What runs where, and how much of it: the task stream, the graphs' sizes, the client's memory."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import urllib.request
import uuid
from collections import Counter
from pathlib import Path

import dask
import pytest
from distributed import Client
from kills import until

from recsys_dask import api, params
from recsys_dask.errors import ClusterError, UsageError
from recsys_dask.runtime.budget import Budget
from recsys_dask.runtime.connecting import connect
from recsys_dask.runtime.progress import Progress

PLAYLISTS = 4_000

MEASURE = """
import json, sys
from distributed import Client, LocalCluster, get_task_stream
from recsys_dask import api
from recsys_dask.runtime.memory import peak_bytes

if __name__ == "__main__":
    source, store = sys.argv[1:]
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster, Client(cluster) as client:
        with get_task_stream() as stream:
            api.run(source, store, client=client, models="none")
        seen = {}
        for record in stream.data:
            kind = record["key"].split("-")[0]
            seen.setdefault(kind, {}).setdefault(record["worker"], 0)
            seen[kind][record["worker"]] += 1
        left = client.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.tasks))
    print(json.dumps({"seen": seen, "peak_bytes": peak_bytes(), "left": left}))
"""


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory, client) -> dict:
    """A whole run in a process of its own, and what was seen of it."""
    folder = tmp_path_factory.mktemp("measured")
    api.sample(folder / "slices", playlists=PLAYLISTS, seed=3, client=client)
    program = folder / "measure.py"
    program.write_text(MEASURE)
    done = subprocess.run(
        [sys.executable, str(program), str(folder / "slices"), str(folder / "store")],
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("kind", ["decode", "view", "count", "recode", "write"])
def test_both_workers_do_the_work(measured: dict, kind: str) -> None:
    assert len(measured["seen"][kind]) == 2


def test_graphs_are_small(measured: dict) -> None:
    """4 slices: some dozens of tasks a kind, so that a thousand slices stay at some thousands."""
    for kind, workers in measured["seen"].items():
        assert sum(workers.values()) <= 16 + 4 * PLAYLISTS // 1_000, kind


def test_the_client_stays_small_and_leaves_no_keys(measured: dict) -> None:
    assert measured["peak_bytes"] < 400e6
    assert measured["left"] == 0


def test_a_budget_too_small_is_refused() -> None:
    with pytest.raises(Exception, match="--memory-limit at least 538MB"):
        _ = Budget(400_000_000).spare_bytes
    assert Budget(10**9).part_bytes <= 64_000_000 < Budget(10**9).spare_bytes


def test_options_of_a_local_cluster_do_not_go_with_a_client(client) -> None:
    with pytest.raises(UsageError, match="client="), connect(params.Cluster(workers=3), client):
        pass


def test_a_worker_that_dies_comes_back_to_stay() -> None:
    """With Dask's own patience of 10 ms no worker is back in time, and with the default a slow one is not."""
    with dask.config.set({"distributed.deploy.lost-worker-timeout": "10ms"}):
        with connect(params.Cluster(workers=1, memory_limit="1GB")) as cluster:
            victim = cluster.client.submit(os.getpid).result()
            os.kill(victim, signal.SIGKILL)
            assert cluster.client.submit(os.getpid, pure=False).result(timeout=60) != victim
            assert len(cluster.client.cluster.workers) == 1  # else it is about to be closed


class Reaper(Progress):
    """Kills all workers when the first of a step's results is fetched and the others are done."""

    def __init__(self, client: Client) -> None:
        self.client, self.killed = client, False

    @contextlib.contextmanager
    def step(self, title, tasks, unit=""):
        yield self.advance

    def advance(self, amount: int) -> None:
        if self.killed:
            return
        self.killed = True
        states = list(self.client.futures.values())
        until(lambda: all(state.status in ("finished", "cancelled") for state in states))
        for pid in self.client.run(os.getpid).values():
            os.kill(pid, signal.SIGKILL)
        until(lambda: any(state.status == "lost" for state in states))


def note(folder: Path, place: int) -> int:
    """A task that leaves a file each time that it is done."""
    (folder / f"{place}-{uuid.uuid4()}").touch()
    return place


def test_results_lost_before_they_are_fetched_are_made_again(tmp_path) -> None:
    """And those that were fetched are not: a future that was done, and whose worker died since, is no failure."""
    n_tasks = 12
    with connect(params.Cluster(workers=2, memory_limit="1GB")) as cluster:
        cluster.progress = Reaper(cluster.client)
        work = [dask.delayed(note)(tmp_path, place, dask_key_name=f"note-{place}") for place in range(n_tasks)]
        assert cluster.compute("notes", [*work, work[0]]) == [*range(n_tasks), 0]
    times = Counter(int(path.name.split("-")[0]) for path in tmp_path.iterdir())
    assert sorted(times.values()) == [1] + [2] * (n_tasks - 1)


class Overtaken(Client):
    """A client whose refresh of every 2 s, which asks for no workers, always comes between an answer and its reader."""

    async def _update_scheduler_info(self, n_workers: int = 0) -> None:
        await super()._update_scheduler_info(n_workers)
        await super()._update_scheduler_info()


def test_the_clients_own_refresh_hides_no_worker(client) -> None:
    with Overtaken(client.scheduler.address, set_as_default=False) as overtaken:
        with connect(params.Cluster(), overtaken) as cluster:
            assert cluster.n_threads == 2


def test_a_closed_client_is_refused_in_one_line(client) -> None:
    with Client(client.scheduler.address, set_as_default=False) as closed:
        pass
    with pytest.raises(ClusterError, match="the client is closed"), connect(params.Cluster(), closed):
        pass


def test_the_dashboard_is_there_when_somebody_looks(client) -> None:
    """It is made at the first request; the pages, their redirects and the server's other pages answer."""
    status = client.dashboard_link
    root = status.removesuffix("/status")
    for address in (status, status, root + "/", root + "/workers", root + "/health"):
        with urllib.request.urlopen(address, timeout=60) as answer:
            text = answer.read().decode()
        assert answer.status == 200
        assert ("bokeh" in text) == (not address.endswith("/health")), address
