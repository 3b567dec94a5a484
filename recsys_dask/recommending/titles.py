"""Titles of playlists: what playlists of the same title hold, for one of which nothing else is known."""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from recsys_dask.arrow import values
from recsys_dask.models.base import Floats, Ints, Items, Lists
from recsys_dask.recommending.inputs import place_of
from recsys_dask.store.tables import Store, read_any

Held = dict[str, tuple[Items, Ints]]
"""By normalised title: items, and how many playlists of that title hold each."""

_WORD = re.compile(r"[^\W_]+|[^\w\s]")


def normalised(title: str) -> str:
    """Words and signs in lower case, one blank between them: "Rock  &\\tROLL!" is "rock & roll !"."""
    return " ".join(_WORD.findall(unicodedata.normalize("NFKC", title).casefold()))


def popular(store: Store, item: str) -> Floats:
    """(N,) float32 below 1, by how many playlists hold each item."""
    held = values(store.table(f"pair_items_{item}_full", ["n_playlists"])["n_playlists"])
    scores: Floats = (held / (held.max(initial=0) + 1)).astype(np.float32)
    return scores


def silent(lists: Lists) -> list[int]:
    """Which playlists show nothing that is known."""
    return np.flatnonzero((np.diff(lists.starts) == 0) & (np.diff(lists.extra_starts) == 0)).tolist()


def held_by_title(store: Store, item: str, titles: Iterable[str]) -> Held:
    """What the store's playlists of each title hold; nothing of a title that fewer than two have."""
    import pyarrow as pa
    import pyarrow.compute as pc

    name, wanted = f"titles_{item}", sorted({normalised(title) for title in titles} - {""})
    if not wanted or not store.has(name):
        return {}
    (file,) = store.entry(name).files
    table = read_any(store.folder, file.path, "title", wanted)
    at = pc.index_in(table["title"], pa.array(wanted))
    table, at = table.filter(pc.is_valid(at)), values(at.drop_null())
    ends = np.flatnonzero(np.diff(at, prepend=-1, append=-1)).tolist()  # the file is sorted by title
    codes, n_playlists = values(table["item"]), values(table["n_playlists"])
    return {wanted[at[low]]: (codes[low:high], n_playlists[low:high]) for low, high in itertools.pairwise(ends)}


def fill_by_title(
    scores: Floats, rows: Sequence[int], titles: Sequence[str], held: Held, items: Items, popular: Floats
) -> None:
    """Put scores (n, N) of some rows in place: how many playlists of the row's title hold each item, `popular`
    deciding between equal ones. held: by `held_by_title`, of these titles."""
    none: Any = np.zeros(0, np.int32)
    for row in rows:
        codes, n_playlists = held.get(normalised(titles[row]), (none, none))
        place = place_of(items, codes)  # −1: ranked when the titles were counted, no longer
        scores[row] = popular
        scores[row, place[place >= 0]] += n_playlists[place >= 0].astype(np.float32)
