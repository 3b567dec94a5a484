"""Titles of playlists: what playlists of the same title hold, for one of which nothing else is known."""

from __future__ import annotations

import itertools
import re
import unicodedata
from bisect import bisect_left, bisect_right
from collections.abc import Sequence

import numpy as np

from recsys_dask.arrow import values
from recsys_dask.models.base import Floats, Ints, Items
from recsys_dask.recommending.inputs import place_of
from recsys_dask.store.tables import Store, read_where

Held = tuple[Items, Ints]
"""Items, and how many playlists of a title hold each."""

_WORD = re.compile(r"[^\W_]+|[^\w\s]")


def normalised(title: str) -> str:
    """Words and signs in lower case, one blank between them: "Rock  &\\tROLL!" is "rock & roll !"."""
    return " ".join(_WORD.findall(unicodedata.normalize("NFKC", title).casefold()))


def popular(store: Store, item: str) -> Floats:
    """(N,) float32 below 1, by how many playlists hold each item."""
    held = values(store.table(f"pair_items_{item}_full", ["n_playlists"])["n_playlists"])
    scores: Floats = (held / (held.max(initial=0) + 1)).astype(np.float32)
    return scores


def held_by_title(store: Store, item: str, titles: Sequence[str]) -> list[Held]:
    """What the store's playlists of each title hold; nothing of a title that fewer than two have."""
    import pyarrow as pa
    import pyarrow.compute as pc

    asked = [normalised(title) for title in titles]
    nothing: Held = np.zeros(0, np.int32), np.zeros(0, np.int64)
    name, wanted = f"titles_{item}", sorted({*asked} - {""})
    if not wanted or not store.has(name):
        return [nothing] * len(asked)
    (file,) = store.entry(name).files
    table = read_where(
        store.folder, file.path, "title", lambda low, high: bisect_left(wanted, low) < bisect_right(wanted, high)
    )
    at = pc.index_in(table["title"], pa.array(wanted))
    table, at = table.filter(pc.is_valid(at)), values(at.drop_null())
    ends = np.flatnonzero(np.diff(at, prepend=-1, append=-1)).tolist()  # the file is sorted by title
    codes, n_playlists = values(table["item"]), values(table["n_playlists"])
    held = {wanted[at[low]]: (codes[low:high], n_playlists[low:high]) for low, high in itertools.pairwise(ends)}
    return [held.get(title, nothing) for title in asked]


def fill_by_title(scores: Floats, rows: Sequence[int], held: Sequence[Held], items: Items, popular: Floats) -> None:
    """Put scores (n, N) of some rows in place: how many playlists of each one's title hold each item, as
    `held_by_title` tells, `popular` deciding between equal ones."""
    for row, (codes, n_playlists) in zip(rows, held, strict=True):
        place = place_of(items, codes)  # −1: ranked when the titles were counted, no longer
        scores[row] = popular
        scores[row, place[place >= 0]] += n_playlists[place >= 0].astype(np.float32)
