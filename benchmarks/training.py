"""Training, ours beside stock fastai: `python -m benchmarks.training article|default --playlists 100000`.

A process a way, on generated rows: `--positives` a playlist of one of twenty planted scenes, two negatives each. Speed
is that of `--steps` steps after a warm-up; an epoch is all rows at it; `--steps 0` fits all and gives final losses.
Stock is `CollabDataLoaders.from_df` and `collab_learner`, on `--rows` of the rows (all playlists): more add nothing to
a step. Ours comes first and last, an A/A pair; other `--ways`: dense (fastai's Adam on our loader), replace (rows drawn
as stock does). One thread each: rows a CPU second hold on a busy machine, too, and `times-ours` is by these.

default: one epoch (`--steps 0`: all) of the presets `default` (mf, mlp) and `fast` (mean_mf), on all cores as stock is
then too; a positive is credited three rows, since stock's rows are a positive and two negatives. `times-ours` is by
wall time.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from typing import Any

import numpy as np


def generated(playlists: int, items: int, positives: int, seed: int = 0) -> Any:
    """Rows with planted scenes, in the package's own compact form."""
    from recsys_dask.training.negatives import counts, draw
    from recsys_dask.training.rows import training_rows

    rng = np.random.default_rng(seed)
    scene, steps = rng.integers(0, 20, playlists), rng.random((playlists, positives), np.float32)
    popular = np.sort((items * rng.random((playlists, positives), np.float32) ** 2).astype(np.int32), 1)
    own = (scene[:, None] + 20 * (popular // 20)).clip(max=items - 1).astype(np.int32)
    held = np.sort(np.where(steps < 0.7, own, popular), 1)
    distinct = np.concatenate([np.ones((playlists, 1), bool), held[:, 1:] != held[:, :-1]], 1)
    starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(distinct.sum(1))])
    number = counts(np.diff(starts), items, 2.0, seed)
    drawn = draw(starts, held[distinct], items, number, np.arange(playlists), seed)
    return training_rows(starts, held[distinct], number, drawn)


def learner(way: str, kind: str, rows: Any, playlists: int, items: int) -> Any:
    """A fastai `Learner`, stock or ours."""
    if way != "stock":
        from recsys_dask.training.article import article_learner

        return article_learner(kind, rows, playlists, items, dense=way == "dense", seed=1, replace=way == "replace")
    import pandas as pd
    import torch
    from fastai.collab import CollabDataLoaders, collab_learner

    frame = pd.DataFrame(dict(user=rows.playlists, item=rows.items, rating=rows.ratings.astype(np.float32)))
    data = CollabDataLoaders.from_df(frame, bs=4_096, seed=1)
    torch.manual_seed(1)
    options: dict[str, Any] = dict(use_nn=True, layers=[50, 50]) if kind == "mlp" else dict(n_factors=50)
    return collab_learner(data, y_range=(0, 1), wd=0.1, **options)


def whole(way: str, args: argparse.Namespace) -> dict[str, float]:
    """An epoch of a model of whole playlists, with --steps 0 all that its recipe has; rows as stock has them."""
    from benchmarks.embeddings import fitted
    from recsys_dask.training.playlists import Playlists

    rows = generated(args.playlists, args.items, args.positives)
    n, positives = len(rows.items), rows.take(rows.ratings == 1)
    starts = np.concatenate([[0], np.cumsum(np.bincount(positives.playlists, minlength=args.playlists))])
    begun = time.perf_counter()
    playlists = Playlists(starts, positives.items, args.items)
    del rows, positives
    _, history = fitted(way, playlists, **(dict(epochs=1) if args.steps else {}))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1_024
    seconds = time.perf_counter() - begun
    return {"rows": n, "rows_s": 3 * history[-1].rows_per_s, "fit_s": seconds, "peak_mb": peak}


def measure(way: str, args: argparse.Namespace) -> dict[str, float]:
    """Rows a second over some steps, or with --steps 0 the losses of a whole fit; peak memory of this process."""
    from fastai.callback.core import Callback, CancelFitException

    rows = generated(args.playlists, args.items, args.positives)
    n = len(rows.items)
    if way == "stock" and n > args.rows > 0 and args.steps:
        first = np.unique(rows.playlists, return_index=True)[1]
        more = np.random.default_rng(0).integers(0, n, max(args.rows - len(first), 0))
        rows = rows.take(np.concatenate([first, more]))
    learn = learner(way, args.model, rows, args.playlists, args.items)
    seen, warm = dict[str, float](), 20 if args.steps > 20 else 2

    class Clock(Callback):
        def after_batch(self) -> None:
            if self.train_iter == warm:
                self.begun = time.perf_counter(), time.process_time()
            if args.steps and self.train_iter == warm + args.steps:
                ended = time.perf_counter(), time.process_time()
                wall, cpu = (b - a for a, b in zip(self.begun, ended, strict=True))
                seen.update(rows_s=args.steps * 4_096 / wall, rows_cpu_s=args.steps * 4_096 / cpu)
                raise CancelFitException

    begun = time.perf_counter()
    with learn.no_bar(), learn.no_logging():
        learn.fit_one_cycle(5, 5e-3, cbs=Clock())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1_024
    seen |= {"rows": n, "fit_s": time.perf_counter() - begun, "peak_mb": peak}
    if not args.steps:
        seen["train"], seen["valid"] = learn.recorder.values[-1][:2]
    return seen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("preset", choices=["article", "default"])
    parser.add_argument("--model", choices=["mf", "mlp"], default="mf")
    sizes = dict(playlists=100_000, items=1_000, positives=40, steps=100, rows=3_000_000)
    for name, default in {**sizes, "threads": 1}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--ways", help="default: ours,stock,ours; mf,mlp,mean_mf,stock,mf")
    parser.add_argument("--only", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.only:
        return print(json.dumps((whole if args.only in ("mf", "mlp", "mean_mf") else measure)(args.only, args)))
    head = "way rows/s rows/CPU-s epoch-s times-ours peak-MB fit-s train valid".split()
    print("|", " | ".join(head), "|\n" + "|---" * len(head) + "|", flush=True)
    first = 0.0
    article = args.preset == "article"
    environment = {**os.environ, "OMP_NUM_THREADS": str(args.threads if article else os.cpu_count())}
    for way in (args.ways or ("ours,stock,ours" if article else "mf,mlp,mean_mf,stock,mf")).split(","):
        command = [sys.executable, "-m", "benchmarks.training", *sys.argv[1:], "--only", way]
        printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment).stdout
        seen = json.loads(printed.splitlines()[-1])
        speed = seen.get("rows_s", 5 * 0.8 * seen["rows"] / seen["fit_s"])  # a whole fit: validation is in its time
        cpu = seen.get("rows_cpu_s", speed) if article else speed
        first = first or cpu
        cells = [f"{speed:,.0f}", f"{cpu:,.0f}", f"{0.8 * seen['rows'] / speed:,.1f}", f"{cpu / first:.4f}"]
        cells += [f"{seen[name]:,.5g}" if name in seen else "" for name in ("peak_mb", "fit_s", "train", "valid")]
        print("|", way, "|", " | ".join(cells), "|", flush=True)


if __name__ == "__main__":
    main()
