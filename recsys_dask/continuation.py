"""Playlists continued: one that is asked about, or all of a file."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from recsys_dask import params
from recsys_dask.errors import InputError, StoreError, UnknownItemError, UsageError
from recsys_dask.formats.challenge import read_asked
from recsys_dask.lookup import Vocabulary
from recsys_dask.recommender import BLOCK, Recommender
from recsys_dask.runtime.progress import Progress
from recsys_dask.store.files import Folder

CHALLENGE_K = 500


def recommend(
    ready: Recommender, asked: Sequence[str], options: params.Recommend, say: Callable[[str], None]
) -> list[dict[str, Any]]:
    """What a playlist of some items, given by id, URI or name, lacks: rows of query, rank, id, name, score.

    Items that are not known are named and passed over; `UnknownItemError` where none is.
    """
    vocabulary = Vocabulary(ready.store, options.item)
    (other,) = (kind for kind in params.ITEMS if kind != options.item)
    known, unknown = [], []
    for query in asked:
        try:
            if not query.startswith(f"spotify:{other}:"):
                known.append(vocabulary.ids[vocabulary.code(query)].as_py())
            elif ready.codes_of(other, [query])[0] >= 0:
                known.append(query)
            else:
                raise UnknownItemError(f"{query}: no such {other} in this store")
        except UnknownItemError as error:
            unknown.append(error)
    if unknown and not known:
        raise unknown[0]
    for one in unknown:
        say(f"passed over: {one}")
    (found,) = ready.recommend([known], options.k, *_limits(options))
    return [{"query": " ".join(asked), **item._asdict()} for item in found]


def recommend_file(ready: Recommender, path: str, out: str, options: params.Recommend, progress: Progress) -> str:
    """Every playlist of a file continued, a row each: pid, then ids, best first. Returns the path of `out`.

    challenge: URIs, a first line for the team, exactly 500 tracks. Raises `StoreError` where the store has fewer.
    """
    k = options.k
    if options.challenge:
        if options.item != "track":
            raise UsageError("--challenge: playlists are continued by tracks; give --item track")
        k = CHALLENGE_K
    asked = read_asked(path)
    only, exclude = _limits(options)
    allowed = ready.allowed(only, exclude, k)
    vocabulary = ready.vocabulary(options.item)
    before = f"spotify:{options.item}:" if options.challenge else ""
    folder = Folder(os.path.dirname(out) or ".")
    name = os.path.basename(out)
    if not name:
        raise UsageError(f"--out is {out}: name a file")
    ids = np.array(vocabulary.ids.take(ready.codes).to_pylist(), object)
    with folder.writing(name) as file, progress.step("recommend", len(asked), "playlists") as advance:
        if options.challenge:
            file.write(f"team_info,{options.team}\n".encode())
        for low in range(0, len(asked), BLOCK):
            part = asked[low : low + BLOCK]
            artists = [ready.codes_of("artist", [track.artist_uri for track in one.tracks]) for one in part]
            tracks = [ready.codes_of("track", [track.track_uri for track in one.tracks]) for one in part]
            places, _ = ready.rank(artists, tracks, [one.name or "" for one in part], k, allowed)
            for one, row in zip(part, places, strict=True):
                found = ids[row[row >= 0]]
                if options.challenge and len(found) < k:
                    raise StoreError(
                        f"pid {one.pid}: {len(found)} tracks are left to recommend and the challenge asks for {k}: "
                        "make the pairs of tracks with a lower --min-playlists"
                    )
                file.write((",".join([str(one.pid), *(before + id for id in found)]) + "\n").encode())
                advance(1)
    return folder.full(name)


def _limits(options: params.Recommend) -> tuple[list[str] | None, list[str]]:
    """What --only and --exclude name."""
    return (
        None if options.only is None else _ids(options.only, "--only"),
        [] if options.exclude is None else _ids(options.exclude, "--exclude"),
    )


def _ids(path: str, option: str) -> list[str]:
    """The lines of a file."""
    folder = Folder(os.path.dirname(path) or ".")
    try:
        text = folder.read(os.path.basename(path)).decode()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{option} {path}: cannot be read ({error}); give a text file of one id a line") from None
    return [line.strip() for line in text.splitlines() if line.strip()]
