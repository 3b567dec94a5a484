"""The one place that makes a Dask cluster, hands it a graph and waits for the results."""

from __future__ import annotations

import contextlib
import logging
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from recsys_dask import kernels, params
from recsys_dask.errors import ClusterError, RecsysDaskError, UsageError
from recsys_dask.runtime import remote
from recsys_dask.runtime.budget import SPLIT_EVERY, Budget
from recsys_dask.runtime.interrupts import unheard
from recsys_dask.runtime.lending import lent
from recsys_dask.runtime.memory import forget_peak, peak_bytes
from recsys_dask.runtime.preflight import Reach, fit_workers
from recsys_dask.runtime.progress import Progress

if TYPE_CHECKING:
    from distributed import Client


@dataclass
class Cluster:
    """A connected Dask client, and what stages need to know of its workers."""

    client: Client
    progress: Progress
    n_threads: int
    budget: Budget
    tasks: int = field(default=0)
    """How many tasks were handed over so far."""
    kept: weakref.WeakSet[Any] = field(default_factory=weakref.WeakSet)
    """The futures of `persist`, as long as anybody refers to them."""

    def compute(
        self,
        title: str,
        work: Sequence[Any],
        amount: Callable[[Any], int] = lambda result: 0,
        unit: str = "",
    ) -> list[Any]:
        """The results of some `dask.delayed` objects, in their order; all of one graph.

        amount: how much a result stands for, in `unit`s, for the rate shown. Results stay on the workers no longer
        than it takes to fetch them, so they should be small. Raises what the first failing task raised, as a
        `ClusterError` unless it is one of ours.
        """
        from distributed import as_completed

        work = list(work)
        self.tasks += len({key for one in work for key in one.__dask_graph__()})
        futures = self.client.compute(work)
        places: dict[str, list[int]] = {}
        for place, future in enumerate(futures):
            places.setdefault(future.key, []).append(place)
        results: list[Any] = [None] * len(work)
        try:
            with self.progress.step(title, len(places), unit) as advance:
                for future in as_completed({future.key: future for future in futures}.values()):
                    if future.status != "finished":
                        raise _failure(title, future)
                    result = future.result()
                    for place in places[future.key]:
                        results[place] = result
                    advance(amount(result))
        except BaseException:
            self.client.cancel(futures)
            raise
        for future in futures:
            future.release()
        return results

    def persist(self, work: Sequence[Any]) -> list[Any]:
        """The same delayed objects, their results kept on the workers for as long as they are referred to."""
        import dask
        from distributed import futures_of

        self.tasks += len(work)
        kept = list(dask.persist(*work, scheduler=self.client))
        self.kept.update(future for one in kept for future in futures_of(one))
        return kept

    def forget(self) -> None:
        """Release what is still kept: an error's traceback may refer to it."""
        with contextlib.suppress(Exception):
            self.client.cancel(list(self.kept))

    @contextlib.contextmanager
    def measured(self) -> Iterator[Callable[[], tuple[float, int]]]:
        """Gives a function that tells the seconds since, and the largest peak of a worker's memory in bytes."""
        self._each(forget_peak)
        started = time.monotonic()
        yield lambda: (time.monotonic() - started, max(self._each(peak_bytes).values(), default=0))

    def _each(self, function: Callable[[], Any]) -> dict[str, Any]:
        """What each worker answers; one that joins or leaves at this moment has nothing to say."""
        return dict(self.client.run(function, on_error="ignore"))


def tree(work: Sequence[Any], combine: Callable[[list[Any]], Any], name: str) -> Any:
    """A delayed reduction of delayed objects, `SPLIT_EVERY` at a time, so that no node holds more than those."""
    from dask import delayed

    level, depth = list(work), 0
    while len(level) > 1 or depth == 0:
        level = [
            delayed(combine)(level[at : at + SPLIT_EVERY], dask_key_name=f"{name}-{depth}-{at // SPLIT_EVERY}")
            for at in range(0, len(level), SPLIT_EVERY)
        ]
        depth += 1
    return level[0]


@contextlib.contextmanager
def connect(
    options: params.Cluster,
    client: Client | None = None,
    progress: Progress | None = None,
    reach: Reach | None = None,
) -> Iterator[Cluster]:
    """A cluster to work on: that of `client` or of the scheduler that `options` or Dask's configuration name, each
    left as it was found; else a local one, closed at the end.

    client: a Dask client, or a cluster object such as `dask_kubernetes`' or `dask_jobqueue`'s. reach: what workers of
    a running cluster are checked to get at. Raises `ClusterError`, `UsageError`.
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
            local = opened.enter_context(_local(options))
            progress.say(f"dashboard: {local.dashboard_link}")
            yield _described(local, progress)
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
    from dask.system import CPU_COUNT
    from distributed import Client, LocalCluster

    workers = options.workers or CPU_COUNT
    threads = options.threads or 1
    limit: Any = "auto" if options.memory_limit is None else _bytes(options.memory_limit)
    _ = local_shape(options)[0].spare_bytes  # too little is refused before anything is started
    try:
        start = partial(
            LocalCluster,
            n_workers=workers,
            threads_per_worker=threads,
            processes=True,
            memory_limit=limit,
            dashboard_address="127.0.0.1:0",
            silence_logs=logging.CRITICAL,
        )
        with unheard(start) as cluster, Client(cluster) as client:
            client.wait_for_workers(workers, timeout=120)
            yield client
    except (OSError, TimeoutError) as error:
        if isinstance(error, RecsysDaskError):
            raise
        raise ClusterError(
            f"the local cluster of {workers} workers did not work: {error}; try fewer --workers"
        ) from error


def local_shape(options: params.Cluster) -> tuple[Budget, int]:
    """The budget of a worker and the number of worker threads that a local cluster would have; none is started."""
    import psutil
    from dask.system import CPU_COUNT

    workers, threads = options.workers or CPU_COUNT, options.threads or 1
    share = psutil.virtual_memory().total * min(1.0, workers * threads / CPU_COUNT) / workers
    limit = int(share) if options.memory_limit is None else _bytes(options.memory_limit)
    return Budget(limit, threads), workers * threads


def _bytes(text: str) -> int:
    from dask.utils import parse_bytes

    try:
        value = int(parse_bytes(text))
        if not any(sign.isdigit() for sign in text):
            raise ValueError
    except (ValueError, OverflowError):
        raise UsageError(f"--memory-limit is {text!r}: give a size such as 2GB or 800MiB") from None
    if value <= 0:
        raise UsageError(f"--memory-limit is {text!r}: give a size above zero")
    return value


def _described(client: Client, progress: Progress) -> Cluster:
    workers = client.scheduler_info(n_workers=-1)["workers"].values()
    if not workers:
        raise ClusterError(f"{client.scheduler_info()['address']}: has no worker; start some, then run again")
    threads = [worker["nthreads"] for worker in workers]
    import psutil

    limits = [worker["memory_limit"] or psutil.virtual_memory().total // len(workers) for worker in workers]
    least = min(zip(limits, threads, strict=True), key=lambda pair: pair[0] / pair[1])
    return Cluster(client, progress, sum(threads), Budget(*least))


def _failure(title: str, future: Any) -> Exception:
    """What a failed task's error means to the caller."""
    from distributed import KilledWorker
    from distributed.client import FutureCancelledError

    error = future.exception()
    if isinstance(error, RecsysDaskError):
        return error
    if isinstance(error, KilledWorker):
        return ClusterError(
            f"{title}: a worker died again and again at one task ({error.task}), most often for want of memory: "
            "give a higher --memory-limit or fewer --workers"
        )
    if isinstance(error, FutureCancelledError) or future.status == "cancelled":
        lost = future.client.status != "running"
        why = "the connection to the scheduler broke off" if lost else f"the cluster gave the work up ({error})"
        return ClusterError(f"{title}: {why}; run again to go on from here")
    failure = ClusterError(f"{title}: a task failed: {type(error).__name__}: {error}; --debug shows where")
    failure.__cause__ = error
    return failure


def prepare_kernels(progress: Progress) -> None:
    """Compile what numba compiles, once a user and version, in a process of its own, before workers need it."""
    if not kernels.stamp().exists():
        progress.say(f"compiling kernels, once for this version, into {kernels.cache_folder()}")
    if fault := kernels.compile_once():
        raise ClusterError(fault)
