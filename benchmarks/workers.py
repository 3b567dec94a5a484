"""How the cost of scheduling grows with the workers: `python -m benchmarks.workers [--workers 2 4 8 16]`.

The same small slices for each number of workers: tasks handed over, CPU seconds of the process that holds the client
and the scheduler (the workers are processes of their own), and that time a task. Wall time says little where there
are more workers than cores.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from distributed import Client, LocalCluster, get_task_stream

from recsys_dask import api
from recsys_dask.runtime.progress import Progress


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, nargs="+", default=[2, 4, 8, 16])
    parser.add_argument("--playlists", type=int, default=16_000)
    given = parser.parse_args()
    print("| workers | tasks | scheduler and client CPU s | ms a task | wall s |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory(prefix="recsys_dask-workers-") as name:
        folder = Path(name)
        api.sample(folder / "slices", playlists=given.playlists, workers=2)
        for workers in given.workers:
            with (
                LocalCluster(
                    n_workers=workers, threads_per_worker=1, memory_limit="1GB", dashboard_address=None
                ) as cluster,
                Client(cluster) as client,
            ):
                client.wait_for_workers(workers)
                cpu, wall = time.process_time(), time.perf_counter()
                with get_task_stream() as stream:
                    api.run(
                        folder / "slices",
                        folder / f"store-{workers}",
                        client=client,
                        progress=Progress(),
                        models="none",
                    )
                cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
                tasks = len(stream.data)
                print(f"| {workers} | {tasks} | {cpu:.2f} | {cpu / tasks * 1e3:.1f} | {wall:.1f} |", flush=True)


if __name__ == "__main__":
    main()
