"""Training rows (playlist, item, rating) as compact arrays, and batches of them for fastai, made on the device."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

NA = 1
"""fastai's tables have a row `#na#` first: a code in a batch is the place among playlists or items plus one."""


class Rows(NamedTuple):
    """Rows to train on, nine bytes each.

    playlists, items: (rows,) int32, places among the known ones; ratings: (rows,) uint8, 1 for a positive, else 0
    """

    playlists: NDArray[np.int32]
    items: NDArray[np.int32]
    ratings: NDArray[np.uint8]

    def take(self, chosen: NDArray[Any]) -> Rows:
        """Some of them, by mask or places."""
        return Rows(self.playlists[chosen], self.items[chosen], self.ratings[chosen])


def training_rows(
    starts: NDArray[np.int64],
    items: NDArray[np.int32],
    counts: NDArray[np.int64],
    negatives: NDArray[np.int32],
    first: int = 0,
) -> Rows:
    """A partition's positives, then its negatives.

    starts: (n + 1,) and items: the playlists as a compressed-row array; counts: (n,), negatives of each; negatives:
    (sum of counts,), as `negatives.draw` gives them; first: the first playlist's place among all
    """
    own = np.arange(first, first + len(counts), dtype=np.int32)
    ratings = np.zeros(len(items) + len(negatives), np.uint8)
    ratings[: len(items)] = 1
    return Rows(
        np.concatenate([np.repeat(own, np.diff(starts)), np.repeat(own, counts)]),
        np.concatenate([items, negatives]),
        ratings,
    )


def joined(parts: list[Rows]) -> Rows:
    """Several partitions' rows as one."""
    return Rows(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def split(n: int, share: float, seed: int) -> NDArray[np.bool_]:
    """(n,) bool: which rows validate, int(share × n) of them, each set of that size as likely as any other (fastai's
    `RandomSplitter`)."""
    held_out = np.zeros(n, bool)
    held_out[: int(share * n)] = True
    np.random.default_rng([seed, 2]).shuffle(held_out)
    return held_out


class RowLoader:
    """Batches of rows for fastai's `DataLoaders`: x (batch, 2) int64 codes of playlist and item, y (batch, 1) float32.

    The rows are held once, as compact integers, on `device`; an epoch is one permutation of them, which follows from
    the seed and the number of the epoch, so that a training goes on from a checkpoint in the same order. The last
    batch is kept, however small.

    rows: nine bytes each; batch: rows a batch; shuffle: else in their own order; seed: of the order; replace: an epoch
    draws as many rows as there are with replacement, as fastai's own loader of tables does (`TabWeightedDL`, of which
    `CollabDataLoaders` makes its batches: 63 % of the rows an epoch, fastai 2.8), to compare with it
    """

    def __init__(
        self,
        rows: Rows,
        batch: int,
        *,
        device: Any = "cpu",
        shuffle: bool = False,
        seed: int = 0,
        replace: bool = False,
    ) -> None:
        import torch

        self.columns = tuple(torch.from_numpy(np.ascontiguousarray(column)).to(device) for column in rows)
        self.batch, self.shuffle, self.replace, self.device = batch, shuffle, replace, torch.device(device)
        self.seed, self.epoch = seed, 0
        self.bs, self.drop_last, self.n = batch, False, len(rows.items)  # what fastai's callbacks look at

    def __len__(self) -> int:
        return -(-self.n // self.batch)

    @property
    def n_rows(self) -> int:
        """Rows of an epoch."""
        return self.n

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        import torch

        order = None
        if self.shuffle:
            drawn = np.random.SeedSequence([self.seed, 3, self.epoch]).generate_state(1, np.uint64)[0] >> 1
            options: Any = dict(generator=torch.Generator().manual_seed(int(drawn)), dtype=torch.int32)
            order = torch.randint(self.n, (self.n,), **options) if self.replace else torch.randperm(self.n, **options)
            order = order.to(self.device)
            self.epoch += 1
        for low in range(0, self.n, self.batch):
            here: Any = slice(low, low + self.batch)
            if order is not None:
                here = order[here].long()
            playlists, items, ratings = (column[here] for column in self.columns)
            yield torch.stack([playlists, items], 1).long() + NA, ratings.float()[:, None]

    def one_batch(self) -> tuple[Tensor, Tensor]:
        """The first batch of an epoch."""
        return next(iter(self))

    def to(self, device: Any) -> RowLoader:
        """Move the rows, in place."""
        import torch

        self.columns, self.device = tuple(column.to(device) for column in self.columns), torch.device(device)
        return self

    def new(self, *, shuffle: bool = False, **_: Any) -> RowLoader:
        """The same rows in another order, for fastai's `get_preds`; shares their memory."""
        other = object.__new__(RowLoader)
        other.__dict__.update(self.__dict__, shuffle=shuffle)
        return other


def loaders(
    rows: Rows,
    batch: int,
    *,
    device: Any,
    seed: int,
    valid: float | NDArray[np.bool_] = 0.2,
    replace: bool = False,
) -> tuple[RowLoader, RowLoader]:
    """Rows to train on, shuffled, and others to validate.

    valid: the share of rows that validate, chosen at random, or (rows,) bool, which ones; replace: as in `RowLoader`
    """
    held_out = split(len(rows.items), valid, seed) if isinstance(valid, float | int) else valid
    return (
        RowLoader(rows.take(~held_out), batch, device=device, shuffle=True, seed=seed, replace=replace),
        RowLoader(rows.take(held_out), 16 * batch, device=device),
    )
