"""Names and their page: any text, cut to what a line holds, and the commands for what a store lacks."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from recsys_dask.arrow import bools, values
from recsys_dask.store.manifest import command_for, stage_for
from recsys_dask.store.tables import Store

MOST_LETTERS = 80
"""Of a name, as the page shows it."""


def shown(name: str, most: int = MOST_LETTERS) -> str:
    """A name as one line: control characters and line ends as blanks, cut with an ellipsis."""
    name = name[: 20 * most]  # of ten thousand letters only the first count
    plain = "".join(" " if unicodedata.category(sign) in ("Cc", "Zl", "Zp", "Cs") else sign for sign in name)
    plain = " ".join(plain.split())
    if len(plain) > most:
        return plain[: most - 1].rstrip() + "…"
    return plain or "(no name)"


@dataclass(frozen=True)
class Missing:
    """A part of the page that the store lacks the tables for, and the command that makes them."""

    command: str


def missing(store: Store, table: str) -> Missing:
    """What to say where `table` is not there, or of an earlier input."""
    return Missing(command_for(stage_for(table), store.folder.url))


class Catalogue:
    """A store's artists or tracks: how often each is mentioned (by code), and the names of those asked for."""

    def __init__(self, store: Store, item: str):
        self.store, self.item = store, item
        table = store.table(f"{item}s", [item, "n_mentions", "n_playlists"])
        order = np.argsort(values(table[item]), kind="stable")
        self.n_mentions: NDArray[np.int64] = values(table["n_mentions"])[order]
        self.n_playlists: NDArray[np.int64] = values(table["n_playlists"])[order]

    @cached_property
    def by_mentions(self) -> NDArray[np.int64]:
        """Codes, most mentioned first, ties by code."""
        return np.argsort(-self.n_mentions, kind="stable")

    def names(self, codes: NDArray[np.integer]) -> list[str]:
        """The names of some codes, in their order, as they are shown."""
        found: dict[int, str] = {}
        wanted = np.unique(codes)
        for part in self.store.parts(f"{self.item}s", [self.item, f"{self.item}_name"]):
            part = part.filter(bools(np.isin(values(part[self.item]), wanted)))
            texts = part[f"{self.item}_name"].to_pylist()
            found |= zip(part[self.item].to_pylist(), (shown(text or "") for text in texts), strict=True)
        return [found[code] for code in codes.tolist()]
