"""Ctrl-C: the first stops a run in good order, the second ends it at once. Workers never hear of it themselves."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import resource_tracker
from types import FrameType
from typing import Any, TypeVar

Made = TypeVar("Made")

LOOK_AGAIN_S = 0.02
"""How often to look whether an import is over."""

STOPPING = "stopping: running tasks are cancelled, what is finished stays (Ctrl-C again: at once)"


class Interrupted(KeyboardInterrupt):
    """A signal that asks to stop. `exit_code` is what shells make of it: 130 for Ctrl-C, 143 for SIGTERM."""

    def __init__(self, number: int):
        self.exit_code = 128 + number


@contextlib.contextmanager
def stoppable(at_once: Callable[[], None]) -> Iterator[None]:
    """In this block the first SIGINT or SIGTERM says that the program stops, and raises `Interrupted`, after the import
    that it may have come into. The second ends the process, and those that it started, without any cleaning up save
    `at_once`.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    asked = 0

    def stop(number: int, frame: Any) -> None:
        nonlocal asked
        if asked:
            end(128 + number, at_once)
        asked = number
        # Not print: the signal may have come in the middle of one.
        os.write(2, f"\n{STOPPING}\n".encode() if os.isatty(2) else f"{STOPPING}\n".encode())
        interrupt(number, frame)

    def interrupt(_: int, frame: Any) -> None:
        if _importing(frame):
            signal.setitimer(signal.ITIMER_REAL, LOOK_AGAIN_S)
        else:
            raise Interrupted(asked)

    handlers = {signal.SIGINT: stop, signal.SIGTERM: stop, signal.SIGALRM: interrupt}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, handler)


def _importing(frame: FrameType | None) -> bool:
    """Whether a module is being imported. Many an exception raised there is lost, or comes out as another one: modules
    try things without saying what may fail, and Python drops what its locks' callbacks raise."""
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            return True
        frame = frame.f_back
    return False


def end(exit_code: int, at_once: Callable[[], None]) -> None:
    """End this process and all that it started, now."""
    import psutil

    with contextlib.suppress(Exception):
        at_once()
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            child.kill()
    os._exit(exit_code)


def unheard(make: Callable[[], Made]) -> Made:
    """What `make` returns, made where Ctrl-C does not reach the processes and threads that it starts, now or later.

    A terminal sends Ctrl-C to all processes of a program: workers that take it too die with a traceback each, before
    the client can cancel their tasks. Signals that a thread blocks are blocked in all that comes from it.
    """
    resource_tracker.ensure_running()  # multiprocessing's own, whose start would unblock signals again
    with ThreadPoolExecutor(1, initializer=_block) as pool:
        future = pool.submit(make)
        try:
            return future.result()
        except KeyboardInterrupt:
            with contextlib.suppress(Exception):
                future.result().close()  # type: ignore[attr-defined]
            raise


def _block() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
