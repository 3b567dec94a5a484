"""Titles of playlists: what playlists of the same title hold, for one of which nothing else is known."""

from __future__ import annotations

import re
import unicodedata

import numpy as np

from recsys_dask.arrow import values
from recsys_dask.models.base import Floats, Items
from recsys_dask.recommending.inputs import place_of
from recsys_dask.store.tables import Store, read_where

_WORD = re.compile(r"[^\W_]+|[^\w\s]")


def normalised(title: str) -> str:
    """Words and signs in lower case, one blank between them: "Rock  &\\tROLL!" is "rock & roll !"."""
    return " ".join(_WORD.findall(unicodedata.normalize("NFKC", title).casefold()))


def popular(store: Store, item: str) -> Floats:
    """(N,) float32 below 1, by how many playlists hold each item."""
    held = values(store.table(f"pair_items_{item}_full", ["n_playlists"])["n_playlists"])
    scores: Floats = (held / (held.max(initial=0) + 1)).astype(np.float32)
    return scores


def by_title(store: Store, item: str, items: Items, title: str, popular: Floats) -> Floats:
    """(N,) float32: how many playlists of that title hold each item, `popular` deciding between equal ones."""
    scores = popular.copy()
    name = f"titles_{item}"
    if not title or not store.has(name):
        return scores
    (file,) = store.entry(name).files
    table = read_where(store.folder, file.path, "title", title, title + "\0")
    import pyarrow.compute as pc

    table = table.filter(pc.equal(table["title"], title))
    place = place_of(items, values(table["item"]))  # −1: ranked when the titles were counted, no longer
    scores[place[place >= 0]] += values(table["n_playlists"])[place >= 0].astype(np.float32)
    return scores
