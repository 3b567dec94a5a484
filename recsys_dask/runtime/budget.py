"""How much memory a task may use, what it is projected to use, and the refusal of what does not fit."""

from __future__ import annotations

from dataclasses import dataclass

from recsys_dask.errors import BudgetError

WORKER_BASE_BYTES = 330_000_000
"""What a worker holds between tasks (Dask, pyarrow, numba, kernels, 140 MB of it shared libraries): 305 MB, measured on
Linux with Python 3.11."""

SHARE = 0.8
"""Dask pauses a worker at this share of its limit; a stage plans to stay below."""

LEAST_SPARE_BYTES = 100_000_000
DECODE_EXPANSION = 6
"""Bytes of memory a byte of JSON: its text, its objects and its columns together. Measured 3.2 for slices as the real
ones are printed, 5.5 without any blanks."""

SPLIT_EVERY = 8
"""How many results one node of a reduction merges."""

LARGEST_PART_BYTES = 170_000_000
"""Five slices: the fewer parts, the fewer ids that several of them have. (Projections follow from it.)"""


@dataclass(frozen=True)
class Budget:
    """The memory of the smallest worker, in bytes, and its threads."""

    limit_bytes: int
    threads: int = 1

    @property
    def spare_bytes(self) -> int:
        """What a task has beside the worker's own needs. Raises `BudgetError` where that is next to nothing."""
        spare = (self.limit_bytes * SHARE - WORKER_BASE_BYTES) / self.threads
        if spare < LEAST_SPARE_BYTES:
            needed = (WORKER_BASE_BYTES + LEAST_SPARE_BYTES * self.threads) / SHARE
            raise BudgetError(
                f"a worker of {self.limit_bytes / 1e6:,.0f} MB and {self.threads} thread(s) is too small: "
                f"give --memory-limit at least {needed / 1e6:,.0f}MB"
            )
        return int(spare)

    @property
    def part_bytes(self) -> int:
        """JSON that makes a part; the file that fills one is in memory as well."""
        return int(min(LARGEST_PART_BYTES, self.spare_bytes / (2 * DECODE_EXPANSION)))

    def projected(self, task_bytes: int) -> int:
        """The memory of a worker all of whose threads run such a task."""
        return WORKER_BASE_BYTES + self.threads * task_bytes

    def check(self, what: str, task_bytes: int, remedy: str) -> int:
        """The projected memory of a worker, once it is known to fit. Raises `BudgetError` naming what, the number
        and the parameter to change."""
        if task_bytes > self.spare_bytes:
            limit = self.projected(task_bytes) / SHARE
            raise BudgetError(
                f"{what}: needs {task_bytes / 1e6:,.0f} MB a task beside the {WORKER_BASE_BYTES / 1e6:,.0f} MB of the "
                f"worker itself, more than {self.limit_bytes / 1e6:,.0f} MB allow: give --memory-limit "
                f"{limit / 1e6:,.0f}MB{remedy}"
            )
        return self.projected(task_bytes)
