"""How much memory a task may use, and what follows for the sizes of parts, partitions and ranges."""

from __future__ import annotations

from dataclasses import dataclass

from recsys_dask.errors import BudgetError

WORKER_BASE_BYTES = 340_000_000
"""What a worker holds after its imports (Dask, pyarrow, numba), measured on Linux with Python 3.11."""

SHARE = 0.8
"""Dask pauses a worker at this share of its limit; a stage plans to stay below."""

LEAST_SPARE_BYTES = 60_000_000
DECODE_EXPANSION = 6
"""Bytes of memory a byte of JSON: its text, its objects and its columns together."""

LARGEST_PART_BYTES = 64_000_000


@dataclass(frozen=True)
class Budget:
    """The memory of one worker thread, in bytes."""

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
        """JSON that a decoding task takes at once."""
        return int(min(LARGEST_PART_BYTES, self.spare_bytes / DECODE_EXPANSION))
