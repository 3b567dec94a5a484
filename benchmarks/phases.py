"""Where an ingest's time goes: seconds and CPU seconds of each of its steps."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from recsys_dask import api, params
from recsys_dask.formats.base import Part
from recsys_dask.formats.inputs import find, format_of
from recsys_dask.formats.parts import write_part
from recsys_dask.kernels import load
from recsys_dask.runtime.progress import Advance, Progress
from recsys_dask.stages.ingest import n_buckets_for
from recsys_dask.store.files import Folder

PARTS = 5
"""How many parts `decoding` times."""


class Phase(NamedTuple):
    """A step: wall seconds, and CPU seconds of all workers."""

    title: str
    seconds: float
    cpu: float


class Phases(Progress):
    """Notes what each step takes. For clusters of this process's own, whose workers are its children."""

    def __init__(self) -> None:
        self.steps: list[Phase] = []

    @contextlib.contextmanager
    def step(self, title: str, tasks: int, unit: str = "") -> Iterator[Advance]:
        started, cpu = time.perf_counter(), cpu_of_children()
        yield lambda amount: None
        self.steps.append(Phase(title, time.perf_counter() - started, cpu_of_children() - cpu))


def cpu_of_children() -> float:
    """CPU seconds of the processes that this one has started, and those they have."""
    total = 0.0
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total += times.user + times.system
    return total


def ingest_phases(slices: Path, store: Path, **options: Any) -> tuple[list[Phase], Any]:
    """The steps of an ingest, and its report."""
    phases = Phases()
    (outcome,) = api.ingest(slices, store, progress=phases, **options)
    return phases.steps, outcome.report


def decoding(slices: Path, part_bytes: int) -> tuple[float, float]:
    """CPU seconds a GB of JSON of the two halves of decoding, measured on some parts in this process: reading them, and
    writing them to scratch."""
    load("formats")
    inputs = find(slices)
    form = format_of(inputs)
    reading = writing = 0.0
    read: set[str] = set()
    with tempfile.TemporaryDirectory(prefix="recsys_dask-bench-", dir=slices.parent) as name:
        parts = form.reader(form.settings(params.Ingest()), 0)([file.path for file in inputs], part_bytes)
        for number in range(-1, PARTS):  # the first one is for what is slow but once
            started = time.process_time()
            part = next(parts, None)
            between = time.process_time()
            if not isinstance(part, Part):
                break
            write_part(part, Folder(name), f"part-{number}", n_buckets_for(inputs))
            if number >= 0:
                reading, writing = reading + between - started, writing + time.process_time() - between
                read.update(part.files)
    size = sum(file.bytes for file in inputs if file.path in read) / 1e9 or float("nan")
    return reading / size, writing / size


def table(steps: list[Phase], size: int) -> str:
    """The steps as a table in Markdown; `size` in bytes of JSON."""
    lines = ["| step | s | CPU s | CPU s a GB |", "|---|---|---|---|"]
    for title, seconds, cpu in steps:
        lines.append(f"| {title} | {seconds:.2f} | {cpu:.2f} | {cpu / size * 1e9:.2f} |")
    return "\n".join(lines)
