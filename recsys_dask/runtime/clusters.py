"""What stages know of the workers: a cluster that takes a graph and gives results, its threads and its memory."""

from __future__ import annotations

import contextlib
import secrets
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from recsys_dask import params
from recsys_dask.errors import ClusterError, RecsysDaskError, UsageError
from recsys_dask.runtime.budget import SPLIT_EVERY, Budget
from recsys_dask.runtime.memory import forget_peak, peak_bytes
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
        than it takes to fetch them, so they should be small; a worker that dies takes only those along that are not
        fetched yet, and their tasks are done again. Raises what the first failing task raised, as a `ClusterError`
        unless it is one of ours.
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
                distinct = {future.key: future for future in futures}.values()
                # Of this client: the newest one of the process, which is the default, may have another loop.
                for future in as_completed(distinct, loop=self.client.loop):
                    result = _result(title, future)
                    for place in places[future.key]:
                        results[place] = result
                        futures[place].release()
                    advance(amount(result))
        except BaseException:
            self.client.cancel([future for future in futures if not future.cancelled()])
            raise
        return results

    def persist(self, work: Sequence[Any]) -> list[Any]:
        """The same delayed objects, their results kept on the workers for as long as they are referred to."""
        import dask
        from distributed import futures_of

        self.tasks += len(work)
        kept = list(dask.persist(*work, scheduler=self.client))
        self.kept.update(future for one in kept for future in futures_of(one))
        return kept

    def alone(
        self, title: str, function: Callable[..., Any], work: Sequence[Any], *arguments: Any, where: str | None = None
    ) -> Any:
        """`function(results of work, *arguments, tell)` in one piece: on the client or on one worker.

        where: client or worker; None: a worker that offers the resource GPU where there is one, else the client.
        `tell` takes a line of news while the function is at work; on a worker they come as events.
        """
        from distributed import futures_of, wait

        gpu = {"GPU": 1.0} if self.offers("GPU") else None
        if where == "client" or (where is None and gpu is None):
            return function(self.compute(f"{title}, data", work), *arguments, self.progress.say)
        topic = f"recsys_dask-{secrets.token_hex(4)}"
        self.client.subscribe_topic(topic, lambda event: self.progress.say(event[1]))
        futures = [future for one in self.persist(work) for future in futures_of(one)]
        task = self.client.submit(
            _told, topic, function, futures, *arguments, resources=gpu, pure=False, key=f"{topic}-fit"
        )
        try:
            with self.progress.step(title, 1) as advance:
                wait(task)
                done = _result(title, task)
                advance(0)
            return done
        except BaseException:
            self.client.cancel([task])
            raise
        finally:
            self.client.unsubscribe_topic(topic)

    def offers(self, resource: str) -> bool:
        """Whether a worker offers a resource, such as GPU."""
        workers = workers_of(self.client).values()
        return any(worker.get("resources", {}).get(resource, 0) >= 1 for worker in workers)

    def forget(self) -> None:
        """Release what is still kept: an error's traceback may refer to it."""
        with contextlib.suppress(Exception):
            self.client.cancel(list(self.kept))

    @contextlib.contextmanager
    def measured(self) -> Iterator[Callable[[], tuple[float, int]]]:
        """Gives a function that tells the seconds since, and the largest peak of a worker's memory in bytes."""
        self.everywhere(forget_peak)
        started = time.monotonic()
        yield lambda: (time.monotonic() - started, max(self.everywhere(peak_bytes).values(), default=0))

    def everywhere(self, function: Callable[[], Any]) -> dict[str, Any]:
        """What each worker answers; one that joins or leaves at this moment has nothing to say."""
        return dict(self.client.run(function, on_error="ignore"))


def workers_of(client: Client) -> dict[str, dict[str, Any]]:
    """All workers by their addresses, as the scheduler answers now. Raises `OSError` when it is gone.

    `Client.scheduler_info` may show none where there are some: it returns what the client keeps, and the client's own
    refresh, which asks for no workers, may have come in between.
    """
    if client.scheduler is None:
        raise ConnectionError("the client is closed")
    return dict(client.sync(client.scheduler.identity, n_workers=-1)["workers"])


def _told(topic: str, function: Callable[..., Any], results: list[Any], *arguments: Any) -> Any:
    """The task of `alone`: its news go to the client as events."""
    from distributed import get_worker

    worker = get_worker()
    return function(results, *arguments, lambda line: worker.log_event(topic, line))


def _result(title: str, future: Any) -> Any:
    """The result of a future that was done. Raises what it raised, as a `ClusterError` unless it is one of ours.

    It may not be done any more: when its worker has died since, the task runs again and is waited for.
    """
    try:
        return future.result()
    except RecsysDaskError:
        raise
    except Exception as error:
        if future.status in ("error", "cancelled"):
            raise _failure(title, future, error) from error
        raise


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


def local_shape(options: params.Cluster) -> tuple[Budget, int]:
    """The budget of a worker and the number of worker threads that a local cluster would have; none is started."""
    import psutil
    from dask.system import CPU_COUNT

    workers, threads = options.workers or CPU_COUNT, options.threads or 1
    share = psutil.virtual_memory().total * min(1.0, workers * threads / CPU_COUNT) / workers
    limit = int(share) if options.memory_limit is None else local_limit(options.memory_limit)
    return Budget(limit, threads), workers * threads


def local_limit(text: str) -> int:
    """--memory-limit in bytes. Raises `UsageError` for what is no size above zero."""
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


def _failure(title: str, future: Any, error: Exception) -> Exception:
    """What a failed task's error, none of ours, means to the caller."""
    from distributed import KilledWorker
    from distributed.client import FutureCancelledError

    if isinstance(error, KilledWorker):
        return ClusterError(
            f"{title}: a worker died again and again at one task ({error.task}), most often for want of memory: "
            "give a higher --memory-limit or fewer --workers"
        )
    if isinstance(error, FutureCancelledError):
        lost = future.client.status != "running"
        why = "the connection to the scheduler broke off" if lost else f"the cluster gave the work up ({error})"
        return ClusterError(f"{title}: {why}; run again to go on from here")
    return task_failed(title, error)


def task_failed(title: str, error: BaseException) -> ClusterError:
    """What a task raised that is no error of ours, as one."""
    failure = ClusterError(f"{title}: a task failed: {type(error).__name__}: {error}; --debug shows where")
    failure.__cause__ = error
    return failure
