"""Recommendations from a store, by a recommender that is opened once and answers many."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from recsys_dask import params
from recsys_dask.arrow import values
from recsys_dask.errors import StoreError, UnknownItemError, UsageError
from recsys_dask.formats.vocabulary import Index, index_of, keys, words_for
from recsys_dask.metrics.base import top_k
from recsys_dask.models.base import Lists
from recsys_dask.recommending.inputs import Inputs, known_lists, place_of
from recsys_dask.recommending.opening import opened
from recsys_dask.recommending.titles import fill_by_title, held_by_title, popular
from recsys_dask.store.manifest import command_for
from recsys_dask.store.tables import Store

BLOCK = 256
"""Playlists that are scored at a time."""


class Query(NamedTuple):
    """A playlist to be continued: ids or URIs of what it holds, and its title."""

    artists: Sequence[str] = ()
    tracks: Sequence[str] = ()
    title: str = ""


class Recommendation(NamedTuple):
    """One recommended item: its rank from 1, id, name, and score by the method."""

    rank: int
    id: str
    name: str
    score: float


@dataclass
class _Vocabulary:
    """Codes of one kind's ids, and the ids and names by code."""

    ids: Any
    names: Any
    index: Index

    def codes(self, ids: Sequence[str]) -> NDArray[np.int32]:
        """(len(ids),) int32, −1 for an unknown one."""
        import pyarrow as pa

        words = self.index.words
        asked = pa.array([one if 0 < len(one.encode()) <= 8 * words and "\0" not in one else "\1" for one in ids])
        return self.index.find(keys(asked, words)) if len(ids) else np.zeros(0, np.int32)


@dataclass
class Recommender:
    """A store's recommender in memory; threads may share it.

    `open` reads the vocabulary and maps the weights; nothing is read from the rows, and torch is not needed.
    """

    store: Store
    method: str
    item: str
    known: Inputs
    scorer: Any
    _vocabularies: dict[str, _Vocabulary] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    def open(cls, store: str | os.PathLike[str] | Store, method: str = "blend", item: str = "artist") -> Recommender:
        """A recommender that the store holds. Raises `StoreError` naming the command that makes what is missing, and
        `UsageError` for a method that does not exist."""
        params.check(params.Recommend(method=method, item=item))
        place = store if isinstance(store, Store) else Store.open(os.fspath(store))
        _check_current(place, method, item)
        made = cls(place, method, item, *opened(place, item, method))
        made.vocabulary(item)
        return made

    def vocabulary(self, kind: str) -> _Vocabulary:
        """Ids and names of the store's artists or tracks, read when first asked for."""
        with self._lock:
            if kind not in self._vocabularies:
                table = self.store.table(f"{kind}s", [f"{kind}_id", f"{kind}_name"])
                ids, names = table[f"{kind}_id"], table[f"{kind}_name"]
                index = index_of(keys(ids, words_for(ids)))
                self._vocabularies[kind] = _Vocabulary(ids, names, index)
            return self._vocabularies[kind]

    @property
    def codes(self) -> NDArray[np.int32]:
        """(N,) int32: the vocabulary's codes of what may be recommended, by place."""
        return self.known.items

    @property
    def n_items(self) -> int:
        """How many items may be recommended."""
        return len(self.known.items)

    def recommend(
        self,
        queries: Iterable[Query | Mapping[str, Any] | Sequence[str]],
        k: int = 100,
        only: Iterable[str] | None = None,
        exclude: Iterable[str] = (),
    ) -> list[list[Recommendation]]:
        """The best `k` items for each playlist, none that it holds.

        queries: playlists, each a list of ids or URIs, a mapping as in the data set's JSON, or a `Query`; what is not
        known of one is passed over; a playlist of which nothing is known gets what playlists of its title hold, and
        then what most hold. only, exclude: ids or URIs that alone may be, or may not be recommended. Raises
        `UnknownItemError` for a query whose entries are all unknown (or its tracks, where tracks are recommended),
        `UsageError` for an empty `only`.
        """
        asked = [self._query(query) for query in queries]
        codes = {kind: [self.codes_of(kind, getattr(query, f"{kind}s")) for query in asked] for kind in params.ITEMS}
        for query, artist, track in zip(asked, codes["artist"], codes["track"], strict=True):
            self._check_known([*query.artists, *query.tracks], artist, track)
        allowed = self.allowed(only, exclude, k)
        vocabulary = self.vocabulary(self.item)
        out = []
        for low in range(0, len(asked), BLOCK):
            part = slice(low, low + BLOCK)
            titles = [query.title for query in asked[part]]
            places, scores = self.rank(codes["artist"][part], codes["track"][part], titles, k, allowed)
            for row, value in zip(places, scores, strict=True):
                found = self.known.items[row[row >= 0]].tolist()
                out.append(
                    [
                        Recommendation(rank, vocabulary.ids[code].as_py(), vocabulary.names[code].as_py(), float(one))
                        for rank, (code, one) in enumerate(zip(found, value, strict=False), 1)
                    ]
                )
        return out

    def rank(
        self,
        artists: Sequence[NDArray[np.int32]],
        tracks: Sequence[NDArray[np.int32]],
        titles: Sequence[str],
        k: int,
        allowed: NDArray[np.bool_] | None,
    ) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """Places and scores (n, k) of the best for playlists of these codes, −1 behind a list that is shorter."""
        lists = self._lists(artists, tracks)
        scores = self.scorer.scores(lists)
        nothing = np.flatnonzero((np.diff(lists.starts) == 0) & (np.diff(lists.extra_starts) == 0)).tolist()
        if nothing:
            held = held_by_title(self.store, self.item, [titles[row] for row in nothing])
            fill_by_title(scores, nothing, held, self.codes, self._popular)
        places = top_k(scores, lists.starts, lists.items, k, allowed)
        return places, np.take_along_axis(scores, np.maximum(places, 0), 1)

    def allowed(self, only: Iterable[str] | None, exclude: Iterable[str], k: int) -> NDArray[np.bool_] | None:
        """(N,) bool: what may be recommended; None for all. Raises `UsageError` where fewer than k are left."""
        without = list(exclude)
        if only is None and not without:
            return None
        mask = np.full(self.n_items, only is None)
        if only is not None:
            wanted = place_of(self.known.items, self.codes_of(self.item, list(only)))
            mask[wanted[wanted >= 0]] = True
        gone = place_of(self.known.items, self.codes_of(self.item, without))
        mask[gone[gone >= 0]] = False
        if mask.sum() < min(k, self.n_items):
            raise UsageError(
                f"--only and --exclude leave {mask.sum():,} of the {self.n_items:,} {self.item}s that {self.method} "
                f"knows, and k is {k:,}: allow more, or give a lower -k"
            )
        return mask

    def codes_of(self, kind: str, ids: Sequence[str]) -> NDArray[np.int32]:
        """(len(ids),) int32: the vocabulary's codes of ids or URIs, −1 for unknown ones."""
        if not len(ids):
            return np.zeros(0, np.int32)
        return self.vocabulary(kind).codes([one.removeprefix(f"spotify:{kind}:") for one in ids])

    def _check_known(self, entries: Sequence[str], artist: NDArray[np.int32], track: NDArray[np.int32]) -> None:
        """Raises `UnknownItemError` for a playlist that has entries and none that is known, of those that count."""
        heard = np.concatenate([artist, track]) if self.item == "artist" else track
        if not entries or (heard >= 0).any():
            return
        if self.item == "artist":
            raise UnknownItemError(f"{entries[0]}: none of the playlist's {len(heard)} entries is known")
        why = f"none of the playlist's {len(heard)} tracks is known" if len(heard) else "the playlist names no track"
        raise UnknownItemError(f"{entries[0]}: {why}, and tracks are recommended from tracks alone: give some")

    def _query(self, query: Query | Mapping[str, Any] | Sequence[str]) -> Query:
        if isinstance(query, Query):
            return query
        if isinstance(query, Mapping):
            tracks = query.get("tracks") or ()
            artist, track = ([one[uri] for one in tracks if one.get(uri)] for uri in ("artist_uri", "track_uri"))
            return Query(artist, track, query.get("name") or "")
        if isinstance(query, str):
            raise UsageError(f"{query}: a playlist is a list of ids, not one of them")
        tracks = [one for one in query if one.startswith("spotify:track:")]
        artists = [one for one in query if one.startswith("spotify:artist:")]
        rest = [one for one in query if not one.startswith(("spotify:track:", "spotify:artist:"))]
        mine = {"artist": artists, "track": tracks}
        mine[self.item] += rest
        return Query(mine["artist"], mine["track"])

    def _lists(self, artists: Sequence[NDArray[np.int32]], tracks: Sequence[NDArray[np.int32]]) -> Lists:
        """Entries of both kinds: an artist without a track and a track whose artist the vocabulary tells."""
        of_track = self._artist_of_track if any(len(one) for one in tracks) and self.item == "artist" else None
        artist, track, n = [], [], []
        for mine, theirs in zip(artists, tracks, strict=True):
            own = of_track[theirs[theirs >= 0]] if of_track is not None else np.zeros(0, np.int32)
            artist += [mine, own, np.full(len(theirs), -1, np.int32)]
            track += [np.full(len(mine) + len(own), -1, np.int32), theirs]
            n.append(len(mine) + len(own) + len(theirs))
        none = np.zeros(0, np.int32)
        return known_lists(
            self.known,
            self.item,
            np.concatenate([none, *artist]),
            np.concatenate([none, *track]),
            np.array(n, np.int64),
        )

    @cached_property
    def _artist_of_track(self) -> NDArray[np.int32]:
        return values(self.store.table("tracks", ["artist"])["artist"])

    @cached_property
    def _popular(self) -> NDArray[np.float32]:
        return popular(self.store, self.item)


def _check_current(store: Store, method: str, item: str) -> None:
    """Raises `StoreError` where the recommender was made from an earlier state of the store."""
    key = (
        f"fit:{item}:{method}" if method in params.FITTED
        else f"train:{item}:{method}" if method in params.MODELS
        else f"similar:{item}:{method}" if method == "coco"
        else f"pairs:{item}:full"
    )  # fmt: skip
    if key in store.manifest.stages and store.manifest.is_outdated(key):
        raise StoreError(
            f"{store.folder.url}: its {method} is older than the tables that it is made from; run again: "
            f"{command_for(key, store.folder.url)}"
        )
