"""How work gets a cluster: one that runs already, a local one of our own, or the threads of this process."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from recsys_dask import kernels, params
from recsys_dask.errors import ClusterError, UsageError
from recsys_dask.runtime import remote
from recsys_dask.runtime.budget import Budget
from recsys_dask.runtime.clusters import Cluster, local_limit, local_shape, workers_of
from recsys_dask.runtime.dashboard import LateDashboard
from recsys_dask.runtime.inprocess import InProcess
from recsys_dask.runtime.interrupts import unheard
from recsys_dask.runtime.lending import lent
from recsys_dask.runtime.preflight import Reach, fit_workers
from recsys_dask.runtime.progress import Progress

if TYPE_CHECKING:
    from distributed import Client

KEPT_BYTES = 1 << 26
"""Of freed memory, what a worker of ours may keep at its heap's end."""


@contextlib.contextmanager
def connect(
    options: params.Cluster,
    client: Client | None = None,
    progress: Progress | None = None,
    reach: Reach | None = None,
    small: bool = False,
) -> Iterator[Cluster]:
    """A cluster to work on: that of `client` or of the scheduler that `options` or Dask's configuration name, each
    left as it was found; else a local one, closed at the end.

    client: a Dask client, or a cluster object such as `dask_kubernetes`' or `dask_jobqueue`'s. reach: what workers of
    a running cluster are checked to get at. small: the work is not worth a cluster's start; the threads of this
    process do it, unless a cluster is asked for. Raises `ClusterError`, `UsageError`.
    """
    progress = progress or Progress()
    with contextlib.ExitStack() as opened:
        if client is not None:
            if given := options.given(*options.REMOTE, *options.LOCAL):
                raise UsageError(f"{', '.join(given)}: not with client=, which is a cluster already; leave out one")
            running = opened.enter_context(_client_of(client))
        elif address := remote.address_of(options):
            running = opened.enter_context(remote.connected(address, options))
        else:
            prepare_kernels(progress)
            if small and not options.given(*options.LOCAL):
                yield InProcess(progress)
                return
            local = opened.enter_context(_local(options))
            progress.say(f"dashboard: {local.dashboard_link}")
            made = _described(local, progress)
            made.everywhere(partial(kernels.load, "formats", "cooccurrence"))
            yield made
            return
        opened.enter_context(remote.unbroken(running))
        remote.some_worker(running, options.wait_s, progress)
        opened.enter_context(lent(running))
        opened.enter_context(fit_workers(running, reach or Reach(), progress))
        cluster = _described(running, progress)
        if client is None:
            address, link = running.scheduler.address, running.dashboard_link  # type: ignore[union-attr]
            progress.say(f"{address}: {cluster.n_threads} worker threads, dashboard: {link}")
        opened.callback(cluster.forget)
        yield cluster


@contextlib.contextmanager
def _client_of(given: Any) -> Iterator[Client]:
    """A client as it is given; for a cluster object one of our own, closed at the end."""
    from distributed import Client

    if isinstance(given, Client):
        yield given
        return
    with Client(given) as client:
        yield client


@contextlib.contextmanager
def _local(options: params.Cluster) -> Iterator[Client]:
    """Worker processes on this machine, reachable from this machine only."""
    import dask
    from dask.system import CPU_COUNT
    from distributed import Client, LocalCluster

    workers = options.workers or CPU_COUNT
    threads = options.threads or 1
    limit: Any = "auto" if options.memory_limit is None else local_limit(options.memory_limit)
    _ = local_shape(options)[0].spare_bytes  # too little is refused before anything is started
    start = partial(
        LocalCluster,
        n_workers=workers,
        threads_per_worker=threads,
        processes=True,
        memory_limit=limit,
        dashboard_address="127.0.0.1:0",
        scheduler_kwargs={"dashboard": False},
        silence_logs=logging.CRITICAL,
    )
    with contextlib.ExitStack() as started:
        # A worker that dies is started again by its nanny. By default LocalCluster ends that nanny if 15 s later the
        # worker is not there: still on its way on a busy machine, or dead once more.
        started.enter_context(dask.config.set({"distributed.deploy.lost-worker-timeout": "1 day"}))
        started.enter_context(dask.config.set({"distributed.nanny.pre-spawn-environ": _malloc()}))
        try:
            cluster = started.enter_context(unheard(start))
            client = started.enter_context(Client(cluster))
            client.wait_for_workers(workers, timeout=120)
            LateDashboard(cluster.scheduler)
        except (OSError, TimeoutError) as error:
            raise ClusterError(
                f"the local cluster of {workers} workers did not start: {error}; try fewer --workers"
            ) from error
        yield client


def _malloc() -> dict[str, Any]:
    """What workers' environment says to malloc, beside what is configured. Dask lets it give every freed 64 KB back to
    the system: a task then spends a third of its time on getting the same pages again."""
    import dask

    given = dask.config.get("distributed.nanny.pre-spawn-environ")
    return {**given, "MALLOC_TRIM_THRESHOLD_": KEPT_BYTES, "MALLOC_MMAP_THRESHOLD_": KEPT_BYTES // 2}


def _described(client: Client, progress: Progress) -> Cluster:
    workers = workers_of(client).values()
    if not workers:
        address = client.scheduler.address  # type: ignore[union-attr]
        raise ClusterError(f"{address}: has no worker; start some, then run again")
    threads = [worker["nthreads"] for worker in workers]
    import psutil

    limits = [worker["memory_limit"] or psutil.virtual_memory().total // len(workers) for worker in workers]
    least = min(zip(limits, threads, strict=True), key=lambda pair: pair[0] / pair[1])
    return Cluster(client, progress, sum(threads), Budget(*least))


def prepare_kernels(progress: Progress) -> None:
    """Compile what numba compiles, once a user and version, in a process of its own, before workers need it."""
    if not kernels.stamp().exists():
        progress.say(f"compiling kernels, once for this version, into {kernels.cache_folder()}")
    if fault := kernels.compile_once():
        raise ClusterError(fault)
