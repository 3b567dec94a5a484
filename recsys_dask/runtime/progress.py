"""What a person sees while stages work: a bar on a terminal, plain lines elsewhere, nothing from Python by default."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

LINE_EVERY_S = 5.0

Advance = Callable[[int], None]
"""Called after each finished task with the amount (rows, bytes) that it did."""


def _nothing(amount: int) -> None:
    return None


class Progress:
    """Silent: what Python callers get unless they ask for more."""

    def say(self, line: str) -> None:
        """One line of news."""

    @contextlib.contextmanager
    def step(self, title: str, tasks: int, unit: str = "") -> Iterator[Advance]:
        """A step of `tasks` tasks whose amounts count in `unit`s."""
        yield _nothing


class Lines(Progress):
    """For logs: a line now and then, on stderr."""

    def say(self, line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    @contextlib.contextmanager
    def step(self, title: str, tasks: int, unit: str = "") -> Iterator[Advance]:
        started = said = time.monotonic()
        done = amount = 0

        def advance(more: int) -> None:
            nonlocal done, amount, said
            done, amount = done + 1, amount + more
            now = time.monotonic()
            if now - said >= LINE_EVERY_S and done < tasks:
                said = now
                left = (now - started) / done * (tasks - done)
                self.say(f"{title}: {done}/{tasks} tasks{_rate(amount, unit, now - started)}, {left:.0f} s left")

        yield advance
        seconds = time.monotonic() - started
        self.say(f"{title}: {done} tasks in {seconds:.1f} s{_rate(amount, unit, seconds)}")


class Bars(Progress):
    """For terminals: a bar a step, with rate and time left, by rich."""

    def __init__(self) -> None:
        from rich.console import Console

        self._console = Console(stderr=True, soft_wrap=True)

    def say(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False)

    @contextlib.contextmanager
    def step(self, title: str, tasks: int, unit: str = "") -> Iterator[Advance]:
        from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        columns: list[Any] = [
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.completed:.0f}/{task.total:.0f} tasks{task.fields[rate]}", markup=False),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        ]
        started = time.monotonic()
        amount = 0
        with Bar(*columns, console=self._console) as bar:
            task = bar.add_task(title, total=tasks, rate="")

            def advance(more: int) -> None:
                nonlocal amount
                amount += more
                bar.update(task, advance=1, rate=_rate(amount, unit, time.monotonic() - started))

            yield advance


def for_people() -> Progress:
    """Bars where stderr is a terminal, lines elsewhere."""
    return Bars() if sys.stderr.isatty() else Lines()


def _rate(amount: int, unit: str, seconds: float) -> str:
    if not unit or not amount or seconds <= 0:
        return ""
    if unit == "bytes":
        return f", {amount / seconds / 1e6:,.0f} MB/s"
    return f", {amount / seconds:,.0f} {unit}/s"
