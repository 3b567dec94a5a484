"""Batches of whole playlists from a compressed-row array that is held once, as integers, on the device.

All that is drawn (the order, which inputs are left out, which items are scored) follows from the seed and the number
of the epoch alone, so that a run which is resumed at an epoch draws what an unbroken one would have drawn.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from recsys_dask.errors import UsageError
from recsys_dask.kernels import kernel

if TYPE_CHECKING:
    import torch

Ints = NDArray[np.int64]
Items = NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class Playlists:
    """Playlists as a compressed-row array: that of playlist u is `items[starts[u]:starts[u + 1]]`, rising, distinct.

    starts (n + 1,) int64; items int32 in [0, n_items)
    """

    starts: Ints
    items: Items
    n_items: int

    def __len__(self) -> int:
        return len(self.starts) - 1

    @cached_property
    def n_playlists(self) -> Ints:
        """(n_items,) int64: how many playlists hold each item."""
        return np.bincount(self.items, minlength=self.n_items)

    def take(self, rows: Ints) -> Playlists:
        """Those of some places, in that order."""
        starts, items = gathered(self.starts, self.items, rows)
        return Playlists(starts, items, self.n_items)

    def split(self, held: int, seed: int) -> tuple[Playlists, Playlists]:
        """All but `held` playlists, and these, drawn by the seed; both in the order in which they stand."""
        if not 0 <= held < max(len(self), 1):
            raise UsageError(f"{held} of {len(self)} playlists cannot be held back: give fewer")
        out = np.zeros(len(self), np.bool_)
        out[np.random.default_rng([seed, 1]).permutation(len(self))[:held]] = True
        return self.take(np.flatnonzero(~out)), self.take(np.flatnonzero(out))


Batch = tuple["torch.Tensor", ...]
"""Some playlists: first what a model sees of them, `(rows, seen_starts, seen)`, then what the loss asks for, `(starts,
items, scored, weight)`.

rows (n,) int64, their places; seen_starts (n + 1,) int64 and seen int32, the items that are shown; starts, items: all
of theirs; scored (m,) int64, the items that are scored, and weight (m,) float32, how many items each of these stands
for; m = 0: all are scored. A plain tuple, as fastai wants it.
"""


@kernel
def _gather(starts, items, rows, out_starts, out_items):  # type: ignore[no-untyped-def]
    place = 0
    for n in range(len(rows)):
        out_starts[n] = place
        for at in range(starts[rows[n]], starts[rows[n] + 1]):
            out_items[place] = items[at]
            place += 1
    out_starts[len(rows)] = place


@kernel
def _thin(starts, items, draws, drop, out_starts, out_items):  # type: ignore[no-untyped-def]
    place = 0
    for n in range(len(starts) - 1):
        out_starts[n] = place
        for at in range(starts[n], starts[n + 1]):
            if draws[at] >= drop:
                out_items[place] = items[at]
                place += 1
    out_starts[len(starts) - 1] = place
    return place


def gathered(starts: Ints, items: Items, rows: Ints) -> tuple[Ints, Items]:
    """Starts and items of the playlists of some places."""
    out_starts = np.empty(len(rows) + 1, np.int64)
    out_items = np.empty(int((starts[rows + 1] - starts[rows]).sum()), np.int32)
    _gather(starts, items, rows, out_starts, out_items)
    return out_starts, out_items


def thinned(starts: Ints, items: Items, draws: NDArray[np.float32], drop: float) -> tuple[Ints, Items]:
    """The items whose draw from [0, 1) is not below `drop`."""
    out_starts, out_items = np.empty_like(starts), np.empty_like(items)
    n = _thin(starts, items, draws, np.float32(drop), out_starts, out_items)
    return out_starts, out_items[:n]


def inclusion(weight: NDArray[np.float64], m: int) -> NDArray[np.float64]:
    """(N,) float64 chances in (0, 1] that sum to m, each min(1, c·weight)."""
    if m >= len(weight):
        return np.ones(len(weight))
    order = np.argsort(-weight, kind="stable")
    falling = weight[order]
    rest = np.cumsum(falling[::-1])[::-1]  # rest[t] = what is left when the t heaviest are certain
    certain = int(np.argmax(falling * (m - np.arange(len(falling))) <= rest))
    chance = np.ones(len(weight))
    chance[order[certain:]] = falling[certain:] * ((m - certain) / rest[certain])
    return np.minimum(chance, 1.0)


class PlaylistLoader:
    """Batches of whole playlists, one permutation an epoch, the last batch kept. What fastai wants of a data loader.

    size: playlists a batch, at most: batches differ by one playlist at most
    drop: the chance of an item to be left out of what is shown
    scored: how many items a batch scores, drawn with chances ∝ n_playlists**`tilt` by systematic sampling
        (Madow 1949: exactly that many, none twice); None: all
    shuffle: False: the playlists in their order, and every epoch the draws of epoch 0
    """

    n_inp = 3  # fastai: so many of a batch's parts are the model's

    def __init__(
        self,
        playlists: Playlists,
        size: int,
        *,
        drop: float = 0.0,
        scored: int | None = None,
        tilt: float = 0.5,
        shuffle: bool = True,
        seed: int = 0,
        device: str = "cpu",
    ):
        import torch

        self.device = torch.device(device)
        self.n = len(playlists)
        self.size, self.drop, self.shuffle, self.seed = size, drop, shuffle, seed
        self.epoch = 0
        self.n_rows = len(playlists.items)
        self._starts, self._items = playlists.starts, playlists.items
        if self.device.type != "cpu":
            self._on_device = [torch.from_numpy(part).to(self.device) for part in (self._starts, self._items)]
        self._running: NDArray[np.float64] | None = None
        if scored is not None and scored < playlists.n_items:
            chance = inclusion(np.maximum(playlists.n_playlists, 1.0) ** tilt, scored)
            self._chance, self._running, self._m = chance, np.cumsum(chance), scored

    def __len__(self) -> int:
        return -(-self.n // self.size)

    def __iter__(self) -> Iterator[Batch]:
        rng = np.random.default_rng([self.seed, 0, self.epoch if self.shuffle else 0])
        yield from self._host(rng) if self.device.type == "cpu" else self._there(rng)

    def _bounds(self) -> Ints:
        """(batches + 1,): where each batch begins."""
        return np.arange(len(self) + 1) * self.n // max(len(self), 1)

    def _drawn(self, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """The items that a batch scores and the weight of each, on the device."""
        import torch

        if self._running is None:
            return torch.empty(0, dtype=torch.int64, device=self.device), torch.empty(0, device=self.device)
        chosen = np.searchsorted(self._running, np.arange(self._m) + rng.random(), side="right")
        chosen = np.minimum(chosen, len(self._running) - 1)
        weight = (1 / self._chance[chosen]).astype(np.float32)
        return torch.from_numpy(chosen).to(self.device), torch.from_numpy(weight).to(self.device)

    def _host(self, rng: np.random.Generator) -> Iterator[Batch]:
        import torch

        order = rng.permutation(self.n) if self.shuffle else np.arange(self.n)
        bounds = self._bounds()
        for low, high in pairwise(bounds):
            rows = order[low:high]
            starts, items = gathered(self._starts, self._items, rows)
            seen = starts, items
            if self.drop:
                seen = thinned(starts, items, rng.random(len(items), np.float32), self.drop)
            parts = [torch.from_numpy(part) for part in (rows, *seen, starts, items)]
            yield (*parts, *self._drawn(rng))

    def _there(self, rng: np.random.Generator) -> Iterator[Batch]:
        """The same on another device: nothing but the draw of scored items crosses the bus."""
        import torch

        starts, items = self._on_device
        generator = torch.Generator(self.device).manual_seed(int(rng.integers(2**62)))
        order = torch.arange(self.n, device=self.device)
        if self.shuffle:
            order = torch.randperm(self.n, generator=generator, device=self.device)
        bounds = self._bounds()
        for low, high in pairwise(bounds.tolist()):
            rows = order[low:high]
            length = starts[rows + 1] - starts[rows]
            own = torch.zeros(len(rows) + 1, dtype=torch.int64, device=self.device)
            torch.cumsum(length, 0, out=own[1:])
            places = torch.arange(int(own[-1]), device=self.device)
            picked = items[places + torch.repeat_interleave(starts[rows] - own[:-1], length)]
            seen_starts, seen = own, picked
            if self.drop:
                kept = torch.rand(len(picked), generator=generator, device=self.device) >= self.drop
                before = torch.zeros(len(picked) + 1, dtype=torch.int64, device=self.device)
                torch.cumsum(kept, 0, out=before[1:])
                seen_starts, seen = before[own], picked[kept]
            yield (rows, seen_starts, seen, own, picked, *self._drawn(rng))


def warm() -> None:
    """Compile the kernels of this module."""
    starts, items = gathered(np.array([0, 1]), np.zeros(1, np.int32), np.zeros(1, np.int64))
    thinned(starts, items, np.ones(1, np.float32), 0.5)
