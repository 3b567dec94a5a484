"""The same graphs in the threads of this process: for work so small that starting workers would cost more than it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from recsys_dask import params
from recsys_dask.errors import RecsysDaskError
from recsys_dask.runtime.clusters import Cluster, local_shape, task_failed
from recsys_dask.runtime.progress import Progress


class InProcess(Cluster):
    """What stages know as a `Cluster`, without one: Dask's threaded scheduler, with a thread a core."""

    def __init__(self, progress: Progress) -> None:
        from dask.system import CPU_COUNT

        budget, n_threads = local_shape(params.Cluster(workers=1, threads=CPU_COUNT))
        super().__init__(None, progress, n_threads, budget)  # type: ignore[arg-type]

    def compute(
        self,
        title: str,
        work: Sequence[Any],
        amount: Callable[[Any], int] = lambda result: 0,
        unit: str = "",
    ) -> list[Any]:
        import dask
        from dask.callbacks import Callback

        work = list(work)
        self.tasks += len({key for one in work for key in one.__dask_graph__()})
        wanted = {one.key for one in work}
        with self.progress.step(title, len(wanted), unit) as advance:

            def finished(key: Any, result: Any, *_: Any) -> None:
                if key in wanted:
                    advance(amount(result))

            with Callback(posttask=finished):
                return list(self._threaded(dask.compute, title, work))

    def persist(self, work: Sequence[Any]) -> list[Any]:
        import dask

        self.tasks += len(work)
        return list(self._threaded(dask.persist, "preparing", work))

    def alone(
        self, title: str, function: Callable[..., Any], work: Sequence[Any], *arguments: Any, where: str | None = None
    ) -> Any:
        return function(self.compute(f"{title}, data", work), *arguments, self.progress.say)

    def everywhere(self, function: Callable[[], Any]) -> dict[str, Any]:
        return {"here": function()}

    def _threaded(self, function: Callable[..., Any], title: str, work: Sequence[Any]) -> Any:
        from dask import threaded

        try:
            # Not "threads": for a name Dask imports distributed first, to see whether it is one of its own.
            return function(*work, scheduler=threaded.get, num_workers=self.n_threads)
        except RecsysDaskError:
            raise
        except Exception as error:
            raise task_failed(title, error) from error
