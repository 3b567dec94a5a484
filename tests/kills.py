"""Kills: a run whose client, workers or scheduler die at random times, and the same command again until it ends.

`python tests/kills.py SLICES FOLDER --seed S --stores N` does what the slow test of test_resume.py does and prints what
was killed where. Each store takes several kills on its way, alternately on a local cluster and on a running one.
"""

from __future__ import annotations

import argparse
import contextlib
import glob
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pyarrow as pa

from recsys_dask.store.tables import Store

STAGES = ("decode", "merge, recode", "counts", "pairs", "similarities", "export")
VICTIMS = {"local": ("client", "worker"), "running": ("client", "worker", "scheduler")}
PATIENCE_S = 120

Kill = tuple[str, str, str]
"""Which cluster, who, in what stage."""


def tables_of(store: Path | str) -> dict[str, pa.Table]:
    """Every table of a store, as one chunk a column, and the exported files' bytes as a table too."""
    opened = Store.open(str(store))
    tables = {
        name: opened.table(name).combine_chunks() for name in opened.manifest.tables if not name.startswith("export")
    }
    files = sorted((Path(store) / "export").glob("*"))
    if files:
        tables["export"] = pa.table({"name": [file.name for file in files], "bytes": [f.read_bytes() for f in files]})
    return tables


def differing(one: dict[str, pa.Table], other: dict[str, pa.Table]) -> list[str]:
    """The tables in which two stores differ."""
    return [name for name in sorted(one | other) if name not in one or name not in other or one[name] != other[name]]


def resliced(slices: Path, folder: Path, playlists: int) -> Path:
    """The same playlists in smaller slices."""
    folder.mkdir(parents=True)
    for file in sorted(slices.glob("*.json")):
        whole = json.loads(file.read_text())["playlists"]
        for start in range(0, len(whole), playlists):
            some = whole[start : start + playlists]
            name = f"mpd.slice.{some[0]['pid']:06d}-{some[-1]['pid']:06d}.json"
            (folder / name).write_text(json.dumps({"playlists": some}))
    return folder


def commits(store: Path) -> list[str]:
    """The commit files of decoded groups."""
    return glob.glob(f"{store}/scratch/ingest/*.json")


def finished_steps(store: Path) -> list[str]:
    with contextlib.suppress(FileNotFoundError):
        return list(json.loads((Path(store) / "manifest.json").read_text())["stages"])
    return []


def until(happens: Callable[[], object], patience_s: float = PATIENCE_S, every_s: float = 0.01) -> None:
    deadline = time.monotonic() + patience_s
    while not happens():
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(every_s)


class Command:
    """`recsys-dask` as a process group of its own, as a shell starts it."""

    def __init__(self, *arguments: object, log: Path):
        self.log = log
        with open(log, "wb") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "recsys_dask", *map(str, arguments)],
                stdout=subprocess.DEVNULL,
                stderr=errors,
                start_new_session=True,
            )
        self.children: dict[int, psutil.Process] = {}

    @property
    def pid(self) -> int:
        return self.process.pid

    def errors(self) -> str:
        return self.log.read_text(errors="replace")

    def look(self) -> None:
        """Take note of the processes that it has started so far."""
        with contextlib.suppress(psutil.Error):
            self.children |= {child.pid: child for child in psutil.Process(self.pid).children(recursive=True)}

    def workers(self) -> list[psutil.Process]:
        self.look()
        return [child for child in self.children.values() if alive(child) and "spawn_main" in " ".join(cmdline(child))]

    def running(self) -> bool:
        return self.process.poll() is None

    def until(self, happens: Callable[[], object]) -> bool:
        """Wait for something; False if the command ended before."""

        def seen() -> bool:
            self.look()
            return bool(happens()) or not self.running()

        until(seen)
        return self.running()

    def signal(self, number: int) -> None:
        self.look()
        os.kill(self.pid, number)

    def to_group(self, number: int) -> None:
        """What a terminal does at Ctrl-C."""
        self.look()
        os.killpg(self.pid, number)

    def wait(self, patience_s: float = PATIENCE_S) -> int:
        return self.process.wait(patience_s)

    def left_alone(self, patience_s: float = 10) -> list[psutil.Process]:
        """Processes that it started and that outlive it."""
        with contextlib.suppress(TimeoutError):
            until(lambda: not any(alive(child) for child in self.children.values()), patience_s)
        return [child for child in self.children.values() if alive(child)]


def alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def cmdline(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


class Running:
    """A scheduler and two workers, as `dask` starts them."""

    def __init__(self, folder: Path):
        self.folder = folder
        folder.mkdir(exist_ok=True)
        self.start()

    def start(self) -> None:
        number = len(list(self.folder.glob("scheduler-*.log")))
        log = self.folder / f"scheduler-{number}.log"
        self.scheduler = self._program("scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard", log=log)
        until(lambda: self._address(log))
        self.address = self._address(log)
        options = ("--nworkers", "2", "--nthreads", "1", "--no-dashboard", "--memory-limit", "2GB")
        self.nannies = self._program("worker", self.address, *options, log=self.folder / f"workers-{number}.log")
        until(lambda: len(self.workers()) == 2)

    def _program(self, kind: str, *options: str, log: Path) -> psutil.Popen:
        with open(log, "wb") as file:
            return psutil.Popen(
                [sys.executable, "-m", "distributed.cli.dask_" + kind, *options],
                stdout=file,
                stderr=file,
                cwd=self.folder,
                start_new_session=True,
            )

    def _address(self, log: Path) -> str:
        found = re.search(r"Scheduler at:\s+(tcp://\S+)", log.read_text(errors="replace"))
        return found[1] if found else ""

    def workers(self) -> list[psutil.Process]:
        children = self.nannies.children(recursive=True)
        return [child for child in children if alive(child) and "spawn_main" in " ".join(cmdline(child))]

    def stop(self) -> None:
        children = [child for top in (self.nannies, self.scheduler) for child in top.children(recursive=True)]
        for process in [self.nannies, self.scheduler, *children]:
            with contextlib.suppress(psutil.Error):
                process.kill()
        self.nannies.wait()
        self.scheduler.wait()


# ------------------------------------------------------------------------------------------------------- a campaign


def stage_of(store: Path, files: int) -> str:
    """What a run that goes on from here is doing, or is about to do."""
    done = finished_steps(store)
    if "ingest" not in done:
        read = 0
        for name in commits(store):
            with contextlib.suppress(OSError, ValueError):
                read += len(json.loads(Path(name).read_text())["files"])
        return "merge, recode" if read >= files else "decode"
    if "counts" not in done:
        return "counts"
    views = [view for view in ("article", "full") if f"pairs:artist:{view}" in done]
    scored = [key for key in done if key.startswith("similar:artist:")]
    if len(views) < 2 and bool(views) == bool(scored):
        return "pairs"
    if len(scored) < (9 if len(views) == 2 else 1):
        return "similarities"
    return "export" if not any(key.startswith("export") for key in done) else "ended"


def campaign(slices: Path, folder: Path, seed: int, stores: int) -> tuple[Counter[Kill], float]:
    """Kills on the way to each of some stores. Returns how many, by cluster, victim and stage, and the seconds.

    Raises `AssertionError` where a worker's death ended a command, a command died in another way than with an error
    line of ours, a process was left behind, or a table differs from that of a run nobody disturbed.
    """
    rng = random.Random(seed)
    started = time.monotonic()
    files = len(list(slices.glob("*.json")))
    kills: Counter[Kill] = Counter()
    calm = folder / "calm"
    command = Command("run", slices, calm, "--workers", "2", log=folder / "calm.log")
    assert command.wait(300) == 0, command.errors()
    expected = tables_of(calm)
    for number in range(stores):
        where = ("local", "running")[number % 2]
        store = folder / f"store-{number}"
        with _cluster(where, folder) as running:
            for stage, victim in _plans(rng, where, number):
                kills.update(_advance(rng, store, slices, files, running, where, stage, victim))
            _end(store, slices, running)
        assert not differing(expected, tables_of(store)), differing(expected, tables_of(store))
        left = {path.name for path in store.rglob("*") if path.is_file()} - {
            Path(file.path).name for table in Store.open(str(store)).manifest.tables.values() for file in table.files
        }
        assert left == {"manifest.json"}, left
    return kills, time.monotonic() - started


def _plans(rng: random.Random, where: str, number: int) -> Iterator[tuple[str, str]]:
    """Stages in their order, and who is to die in each: in the first one in turn."""
    victims = list(VICTIMS[where]) * (len(STAGES) // len(VICTIMS[where]))
    first = victims.pop(number // 2 % len(VICTIMS[where]))
    rng.shuffle(victims)
    victims.insert(0, first)
    yield from zip(STAGES, victims, strict=True)


@contextlib.contextmanager
def _cluster(where: str, folder: Path) -> Iterator[Running | None]:
    if where == "local":
        yield None
        return
    running = Running(folder / "running")
    try:
        yield running
    finally:
        running.stop()


def _start(store: Path, slices: Path, running: Running | None) -> Command:
    options = ("--scheduler", running.address) if running else ("--workers", "2")
    log = store.parent / f"{store.name}-{len(list(store.parent.glob(f'{store.name}-*.log')))}.log"
    return Command("run", slices, store, *options, log=log)


def _advance(
    rng: random.Random, store: Path, slices: Path, files: int, running: Running | None, where: str, stage: str, who: str
) -> list[Kill]:
    """Run until a stage and kill somebody in it, if it is not over before. Returns the kills: a run that has lost a
    worker only must go on, and loses its client when it is a stage further."""
    command = _start(store, slices, running)
    order = [*STAGES, "ended"]
    ready = "worker threads" if running else "dashboard:"
    try:
        if not command.until(
            lambda: ready in command.errors() and order.index(stage_of(store, files)) >= order.index(stage)
        ):
            assert command.wait() == 0, command.errors()
            return []
        time.sleep(rng.random() * (1.0 if stage == "decode" else 0.6))
        at = stage_of(store, files)
        if not command.running() or at == "ended":
            assert command.wait() == 0, command.errors()
            return []
        _kill(rng, command, running, who)
        kills = [(where, who, at)]
        if who == "worker":
            if command.until(lambda: order.index(stage_of(store, files)) > order.index(at)):
                kills.append((where, "client", stage_of(store, files)))
                command.signal(signal.SIGKILL)
            else:
                assert command.wait() == 0, command.errors()
        elif who == "scheduler":
            assert command.wait() == 1, command.errors()
            assert running is not None
            running.stop()
            running.start()
        command.wait()
        assert "Traceback" not in command.errors(), command.errors()
        assert not command.left_alone()
        return kills
    finally:
        if command.running():
            command.signal(signal.SIGKILL)
            command.wait()


def _kill(rng: random.Random, command: Command, running: Running | None, who: str) -> None:
    if who == "client":
        command.signal(signal.SIGKILL)
    elif who == "scheduler":
        assert running is not None
        running.scheduler.kill()
    else:
        workers = running.workers() if running else command.workers()
        rng.choice(sorted(workers, key=lambda worker: worker.pid)).kill()


def _end(store: Path, slices: Path, running: Running | None) -> None:
    command = _start(store, slices, running)
    assert command.wait() == 0, command.errors()
    assert not command.left_alone()


def table(kills: Counter[Kill]) -> str:
    """The kills as a table in Markdown."""
    columns = sorted({(where, who) for where, who, _ in kills})
    lines = ["| killed in | " + " | ".join(f"{who}, {where} cluster" for where, who in columns) + " |"]
    lines.append("|---|" + "---|" * len(columns))
    for stage in STAGES:
        lines.append(f"| {stage} | " + " | ".join(str(kills[where, who, stage]) for where, who in columns) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("slices", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--stores", type=int, default=6)
    given = parser.parse_args()
    given.folder.mkdir(parents=True)
    seen, seconds = campaign(given.slices, given.folder, given.seed, given.stores)
    print(table(seen))
    print(f"{sum(seen.values())} kills in {seconds:.0f} s, all tables equal")
