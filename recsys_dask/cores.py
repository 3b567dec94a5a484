"""Work split among the cores of this process by threads, for code that holds the interpreter's lock only briefly."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from typing import Any, TypeVar

T = TypeVar("T")


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@cache
def _pool(threads: int, initializer: Callable[..., Any] | None) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, "share", initializer=initializer)


def shares(n: int, parts: int) -> list[slice]:
    """`parts` slices of n things, of equal size as far as that goes; none is empty while there are enough."""
    bounds = [n * part // parts for part in range(parts + 1)]
    return [slice(low, high) for low, high in pairwise(bounds)]


def shared(n: int, least: int) -> int:
    """Among how many cores n things are shared, so that each has `least` of them; one, where there are fewer."""
    return max(min(cores(), n // least), 1)


def split(work: Callable[[slice], T], n: int, parts: int, initializer: Callable[..., Any] | None = None) -> list[T]:
    """`work` on each of `shares(n, parts)`, at the same time, in their order; `initializer` begins each thread.

    The first share is done by the caller's own thread.
    """
    first, *others = shares(n, parts)
    jobs = [_pool(cores(), initializer).submit(work, one) for one in others]
    return [work(first), *(job.result() for job in jobs)]
