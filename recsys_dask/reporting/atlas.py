"""The items that the page holds: where each lies on the map, and its neighbours by every method."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsys_dask import params
from recsys_dask.arrow import values, vectors
from recsys_dask.lookup import first_model
from recsys_dask.reporting.names import Catalogue, Missing, missing
from recsys_dask.reporting.projection import groups, plane
from recsys_dask.store.tables import Store

BEST = 8
"""Neighbours a method that the page lists."""

NAMES_BYTES = 1_200_000
"""Of all names on the page, as JSON; neighbours beyond that are left out, the worst ranks of the rarest items first."""

ABSENT = 0xFFFF
POPULAR, OBSCURE = (0, 1, 2), (0.5, 0.75, 0.9)
"""Whose similar items are shown in full: by rank, and at these shares of the way to the rarest that has some."""


@dataclass(frozen=True)
class Map:
    """Places (n, 2) float32 and groups (n,) of the first items of the page, by a model's vectors."""

    model: str
    at: NDArray[np.int64]
    places: NDArray[np.float32]
    groups: NDArray[np.int64]


@dataclass(frozen=True)
class Seed:
    """An item and its best neighbours: a column a method, an empty one where the method has none of it."""

    name: str
    n_mentions: int
    n_playlists: int
    columns: list[list[str]]

    @property
    def n_ranks(self) -> int:
        return max(map(len, self.columns), default=0)

    @property
    def agreed(self) -> set[str]:
        """Who is on the lists of at least half of the methods that have some."""
        on = Counter(name for column in self.columns for name in set(column))
        having = sum(1 for column in self.columns if column)
        return {name for name, n in on.items() if having > 1 and 2 * n >= having}


@dataclass(frozen=True)
class Atlas:
    """What can be searched.

    names: of the n_searched items, most mentioned first, and then of neighbours beyond these; mentions (n_searched,);
    neighbours: of each method (n_searched, BEST) places in `names`, `ABSENT` behind the last.
    """

    n_all: int
    n_searched: int
    codes: NDArray[np.int64]
    names: list[str]
    mentions: NDArray[np.int64]
    methods: list[str]
    neighbours: dict[str, NDArray[np.uint16]]
    popular: list[Seed]
    obscure: list[Seed]
    lacking: dict[str, Missing]


def atlas(store: Store, item: str, catalogue: Catalogue, n_searched: int, order: Sequence[str] = ()) -> Atlas:
    """The `n_searched` most mentioned items with their neighbours. order: of the methods, as far as it names them."""
    methods = [method for method in params.methods() if store.has(f"similar_{item}_{method}")]
    methods.sort(key=lambda method: order.index(method) if method in order else len(order))
    codes = catalogue.by_mentions[:n_searched]
    seeds = _seed_codes(store, item, catalogue, methods)
    asked = np.concatenate([codes, seeds]).astype(np.int64)
    lists = {method: _lists(store, item, method, asked) for method in methods}
    seen = np.unique(np.concatenate([asked, *(one[one >= 0] for one in lists.values())]))
    of_code = dict(zip(seen.tolist(), catalogue.names(seen), strict=True))
    names, places = _admitted(codes, {method: one[: len(codes)] for method, one in lists.items()}, of_code)
    at = len(codes)
    shown = [_seed(catalogue, of_code, code, [lists[m][at + n] for m in methods]) for n, code in enumerate(seeds)]
    lacking = {one: missing(store, f"similar_{item}_{one}") for one in params.methods() if one not in methods}
    return Atlas(
        len(catalogue.n_mentions), len(codes), codes, names, catalogue.n_mentions[codes], methods, places,
        shown[: len(POPULAR)], shown[len(POPULAR) :], lacking,
    )  # fmt: skip


def _lists(store: Store, item: str, method: str, codes: NDArray[np.int64]) -> NDArray[np.int64]:
    """The best neighbours of some items (n, BEST) by a method, −1 behind the last."""
    found = np.full((len(codes), BEST), -1, np.int64)
    by_code = np.argsort(codes, kind="stable")
    for part in store.parts(f"similar_{item}_{method}", ["item", "rank", "neighbour"]):
        seed, rank, neighbour = (values(part[name]) for name in ("item", "rank", "neighbour"))
        mine = (rank <= BEST) & np.isin(seed, codes)
        seed, rank, neighbour = seed[mine], rank[mine], neighbour[mine]
        first = np.searchsorted(codes, seed, "left", by_code)
        last = np.searchsorted(codes, seed, "right", by_code)
        found[by_code[first], rank - 1] = neighbour
        found[by_code[last - 1], rank - 1] = neighbour  # a seed may be asked for twice
    return found


def _admitted(
    codes: NDArray[np.int64], lists: dict[str, NDArray[np.int64]], of_code: dict[int, str]
) -> tuple[list[str], dict[str, NDArray[np.uint16]]]:
    """The names that the page holds, within `NAMES_BYTES`, and the lists as places among them."""
    place = {code: at for at, code in enumerate(codes.tolist())}
    names = [of_code[code] for code in codes.tolist()]
    left = NAMES_BYTES - sum(map(_json_bytes, names))
    # By rank, then by method, then by mentions.
    wanted = np.concatenate([one[:, rank] for rank in range(BEST) for one in lists.values()] or [codes[:0]])
    for code in wanted.tolist():
        if code >= 0 and code not in place and len(names) < ABSENT:
            left -= _json_bytes(of_code[code])
            if left < 0:
                break
            place[code] = len(names)
            names.append(of_code[code])
    found = {}
    for method, one in lists.items():
        places = np.array([place.get(code, ABSENT) for code in one.ravel().tolist()], np.uint16).reshape(one.shape)
        absent = np.logical_or.accumulate(places == ABSENT, axis=1)
        found[method] = np.where(absent, np.uint16(ABSENT), places)
    return names, found


def _json_bytes(name: str) -> int:
    return len(json.dumps(name, ensure_ascii=False).encode()) + 1


def _seed_codes(store: Store, item: str, catalogue: Catalogue, methods: Sequence[str]) -> NDArray[np.int64]:
    """Items to be shown in full: popular ones, and obscure ones that most methods have neighbours of."""
    having = np.zeros(len(catalogue.n_mentions), np.int64)
    for method in methods:
        for part in store.parts(f"similar_{item}_{method}", ["item"]):
            having[np.unique(values(part["item"]))] += 1
    popular = catalogue.by_mentions[having[catalogue.by_mentions] > 0][: len(POPULAR)]
    # Most have lists by all methods but `coco`, which has a threshold.
    common = np.bincount(having[having > 0]).argmax() if having.any() else 1
    rest = catalogue.by_mentions[having[catalogue.by_mentions] >= common]
    rest = rest[~np.isin(rest, popular)]
    rare = rest[np.unique([int(share * (len(rest) - 1)) for share in OBSCURE])] if len(rest) else rest
    return np.concatenate([popular, rare]).astype(np.int64)


def _seed(catalogue: Catalogue, of_code: dict[int, str], code: int, lists: Sequence[NDArray[np.int64]]) -> Seed:
    columns = [[of_code[one] for one in column.tolist() if one >= 0] for column in lists]
    return Seed(of_code[int(code)], int(catalogue.n_mentions[code]), int(catalogue.n_playlists[code]), columns)


def map_of(store: Store, item: str, model: str | None, codes: NDArray[np.int64]) -> Map | Missing:
    """Where those of the page's items lie that a model has vectors of; model: None, the first that is trained."""
    model = model or first_model(store, item)
    name = f"embeddings_{item}_{model}"
    if not store.has(name):
        return missing(store, name)
    found, several = [], []
    for part in store.parts(name, ["item", "vector"]):
        known = values(part["item"])
        mine = np.flatnonzero(np.isin(known, codes))
        several.append(vectors(part["vector"])[mine])
        found.append(known[mine])
    place = {code: at for at, code in enumerate(codes.tolist())}
    at = np.array([place[code] for code in np.concatenate(found).tolist()], np.int64)
    order = np.argsort(at)
    chosen = np.concatenate(several)[order]
    return Map(model, at[order], plane(chosen), groups(chosen))
