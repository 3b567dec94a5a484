"""A small store with every recommender that the tests of `fit`, `recommend` and `evaluate` share, and what they ask."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from strategies import write_slices

from recsys_dask import api
from recsys_dask.recommender import Recommendation, Recommender
from recsys_dask.stages.sample import make_world, slice_text
from recsys_dask.store.tables import Store

Data = list[dict[str, Any]]

TOP = 400
"""Artists that are ranked: fewer than there are, so that rare ones are further inputs."""

N_FILES = 3


class Small(NamedTuple):
    data: Data
    slices: Path
    store: Path

    @property
    def opened(self) -> Store:
        return Store.open(str(self.store))

    def copy(self, folder: Path) -> Path:
        return Path(shutil.copytree(self.store, folder / "copy"))


def world(n: int, seed: int = 1, copies: float = 0.0) -> Data:
    """Generated playlists with planted scenes; some titles in another spelling, one empty and one that is nobody's."""
    made = make_world(n, seed, copies)
    found: Data = []
    for number in range(-(-n // 1_000)):
        found += json.loads(slice_text(made, number))["playlists"]
    for at, playlist in enumerate(found):
        playlist["name"] = [playlist["name"], f" {playlist['name'].upper()} ", playlist["name"] + "!"][at % 3]
    found[3]["name"], found[4]["name"] = "", "a title that no other playlist has"
    return found


def make_small(folder: Path) -> Small:
    """240 playlists in-process: artists with mf, mlp, item2vec, ease and the blend, tracks with als."""
    data = world(240, copies=0.1)
    slices, store = folder / "slices", folder / "store"
    write_slices(slices, data, N_FILES)
    api.run(slices, store, models="none", recommender="none", top=TOP)
    api.train(store, epochs=2, factors=8)
    api.train(store, model="item2vec", epochs=2, factors=8)
    api.fit(store)
    api.fit(store, method="ease")
    api.pairs(store, item="track", view="full", min_playlists=2)
    api.fit(store, item="track", method="als")
    return Small(data, slices, store)


def answers(store: Path, method: str, queries: Data, k: int = 50) -> list[list[Recommendation]]:
    return Recommender.open(str(store), method).recommend(queries, k)


def alike(one: list[list[Recommendation]], other: list[list[Recommendation]]) -> bool:
    """The same lists but for rounding: equally good at each rank, and the same items but for what is nearly tied."""
    for mine, theirs in zip(one, other, strict=True):
        scores = [np.array([found.score for found in ranked]) for ranked in (mine, theirs)]
        if len(mine) != len(theirs) or not np.allclose(*scores, rtol=1e-3, atol=1e-4):
            return False
        last = scores[0][-1] + 2e-3 * abs(scores[0][-1]) + 2e-4
        kept = [{found.id for found in ranked if found.score > last} for ranked in (mine, theirs)]
        if kept[0] - {found.id for found in theirs} or kept[1] - {found.id for found in mine}:
            return False
    return True
