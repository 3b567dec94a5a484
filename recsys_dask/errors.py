"""What can go wrong, as one tree: every error of ours is a `RecsysDaskError`, one line, that says what to do next."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


class RecsysDaskError(Exception):
    """The root. `exit_code` is the command line's answer."""

    exit_code = 1


class UsageError(RecsysDaskError):
    """An unknown parameter, or a value out of range."""

    exit_code = 2


class InputError(RecsysDaskError):
    """The input cannot be used: nothing there, unreadable, or not what the format asks for."""


class StoreError(RecsysDaskError):
    """The store cannot be read or written, or lacks what was asked for."""


class TooFewError(StoreError):
    """The store has too few items or playlists for a recommender."""


class ClusterError(RecsysDaskError):
    """The Dask cluster cannot do the work."""


class BudgetError(RecsysDaskError):
    """A stage would need more memory than it is given."""


class TrainingError(RecsysDaskError):
    """A model cannot be trained: its loss is no number any more."""


class UnknownItemError(RecsysDaskError):
    """No item, or more than one, goes by what was asked for."""


@dataclass(frozen=True, order=True)
class Fault:
    """One thing wrong with one input file.

    Workers return faults instead of raising: Dask prints a traceback for every exception that a task raises.
    """

    file: str
    where: str
    message: str

    def __str__(self) -> str:
        return ": ".join(part for part in (self.file, self.where, self.message) if part)


def bad_input(faults: Iterable[Fault], advice: str) -> InputError:
    """All faults of a run as one error, sorted, a line each."""
    lines = [str(fault) for fault in sorted(faults)]
    return InputError("\n".join([*lines[:-1], f"{lines[-1]} ({advice})"]))
