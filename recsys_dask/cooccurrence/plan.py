"""How a count of pairs is cut so that it fits the memory: groups of partitions, and ranges of items."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsys_dask.cooccurrence.chunk import BYTES_PER_PAIR, most_pairs
from recsys_dask.cooccurrence.view import Diagonal
from recsys_dask.runtime.budget import SPLIT_EVERY, Budget

BYTES_PER_ROW = 24
"""Of a counting task, for each of its playlists' items: the item, its place and its owner, and copies."""

TABLE_BYTES_PER_PAIR = 48
"""Of a writing task: the table's columns, and what is being written."""

VIEW_MARGIN = 1.5
BASE_BYTES = 40_000_000
"""A partition of `rows` being read, and what else does not grow with the pairs."""

MOST_RANGES = 2_000
RANGES_PER_THREAD = 2
PAIR_WORK = 4
"""To write a pair takes about as long as to meet one so many times."""


@dataclass(frozen=True)
class Plan:
    """How a count is cut: groups of partitions, and ranges of items given by their bounds."""

    groups: int
    bounds: tuple[int, ...]

    @property
    def spans(self) -> list[tuple[int, int]]:
        return list(zip(self.bounds, self.bounds[1:], strict=False))


def make_plan(budget: Budget, n_threads: int, known: Diagonal, n_partitions: int, weighted: bool) -> Plan:
    """Few groups, since adding counters up costs more than counting; as many ranges as fit, of equal work.

    Raises `BudgetError` where even one item's pairs do not fit.
    """
    spare = budget.spare_bytes - view_bytes(known, n_threads) - BASE_BYTES
    n_items = len(known.emissions)
    most = most_pairs(known.emissions, n_items)
    groups = min(n_partitions, max(1, -(-rows_bytes(known, 1) // max(spare // 2, 1))))
    pair_bytes = bytes_per_pair(groups, weighted)
    room = (spare - rows_bytes(known, groups)) // pair_bytes
    fewer = ", or have fewer items (--top, --min-playlists)"
    if int(most.max(initial=0)) > room:
        budget.check(
            f"pairs: {int(most.max()):,} of one item", budget.spare_bytes + int(most.max()) * pair_bytes, fewer
        )
    n_ranges = max(min(RANGES_PER_THREAD * n_threads, n_items), -(-int(most.sum()) // max(room, 1)), 1)
    if n_ranges > MOST_RANGES:
        budget.check(
            f"pairs: up to {int(most.sum()):,} in {n_ranges:,} ranges of items",
            int(most.sum()) * pair_bytes // MOST_RANGES + budget.spare_bytes,
            fewer,
        )
    return Plan(groups, _bounds(most, known.emissions + PAIR_WORK * most, room, n_ranges))


def estimate(
    budget: Budget, n_threads: int, n_pairs: int, n_rows: int, n_playlists: int, weighted: bool
) -> tuple[int, int]:
    """Before anything is known of the items: memory of a task, and the number of ranges, for some `n_pairs`."""
    view = int((n_rows * 4 + n_playlists * 8) * VIEW_MARGIN / n_threads)
    spare = max(1, budget.spare_bytes - view - BASE_BYTES)
    groups = max(1, -(-n_rows * BYTES_PER_ROW // (spare // 2 + 1)))
    pair_bytes, rows = bytes_per_pair(groups, weighted), n_rows * BYTES_PER_ROW // groups
    room = max(1, (spare - rows) // pair_bytes)
    n_ranges = max(RANGES_PER_THREAD * n_threads, -(-n_pairs // room))
    return min(room, -(-n_pairs // n_ranges)) * pair_bytes + rows + view + BASE_BYTES, n_ranges


def view_bytes(known: Diagonal, n_threads: int) -> int:
    """What the kept playlists take of a worker, for each of its threads: shared out, with some unevenness."""
    return int((known.n_playlists.sum() * 4 + known.playlists * 8) * VIEW_MARGIN / n_threads)


def rows_bytes(known: Diagonal, groups: int) -> int:
    """What a group's playlists take in a counting task."""
    return int(known.n_playlists.sum()) * BYTES_PER_ROW // groups


def bytes_per_pair(groups: int, weighted: bool) -> int:
    """Memory a pair: a node of the tree holds its inputs, those laid end to end, and their sum; then the table."""
    copies = 1 if groups == 1 else 2 * min(groups, SPLIT_EVERY) + 1
    return BYTES_PER_PAIR[weighted] * copies + TABLE_BYTES_PER_PAIR


def task_bytes(plan: Plan, known: Diagonal, weighted: bool) -> int:
    """What the largest task of a plan needs at most."""
    most = most_pairs(known.emissions, len(known.emissions))
    before = np.concatenate([[0], np.cumsum(most)])
    largest = max((int(before[high] - before[low]) for low, high in plan.spans), default=0)
    return largest * bytes_per_pair(plan.groups, weighted) + rows_bytes(known, plan.groups) + BASE_BYTES


def _bounds(most: NDArray[np.int64], works: NDArray[np.int64], room: int, n_ranges: int) -> tuple[int, ...]:
    """Ranges of about equal work, none with more pairs than `room`."""
    fair = max(1, -(-int(works.sum()) // n_ranges))
    bounds, held, worked = [0], 0, 0
    for item, (pairs_, work) in enumerate(zip(most.tolist(), works.tolist(), strict=True)):
        if item > bounds[-1] and (held + pairs_ > room or worked + work / 2 > fair):
            bounds.append(item)
            held = worked = 0
        held, worked = held + pairs_, worked + work
    return (*bounds, len(most))
