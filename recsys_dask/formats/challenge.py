"""Playlists to be continued: MPD-shaped files and the RecSys Challenge 2018's, which may lack names and tracks.

Chen, Lamere, Schedl, Zamani, RecSys Challenge 2018: automatic music playlist continuation, RecSys 2018.
"""

from __future__ import annotations

import zlib
from collections import Counter
from typing import Annotated

import msgspec

from recsys_dask.errors import Fault, InputError, bad_input
from recsys_dask.formats.inputs import find, open_plain
from recsys_dask.formats.strict import decoded
from recsys_dask.formats.texts import Wrong

ADVICE = "a file of playlists has a list `playlists`, each with a pid, and tracks with artist_uri and track_uri"


class _Track(msgspec.Struct, gc=False):
    artist_uri: str
    track_uri: str


class Asked(msgspec.Struct, gc=False):
    """A playlist as it was given."""

    pid: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
    name: str | None = None
    tracks: list[_Track] = []


class _File(msgspec.Struct, gc=False):
    playlists: list[Asked]


class _Loose(msgspec.Struct):
    playlists: list[msgspec.Raw]


_file, _loose = msgspec.json.Decoder(_File), msgspec.json.Decoder(_Loose)


def read_asked(path: str) -> list[Asked]:
    """The playlists of a file, in its order. Raises `InputError` naming file and place for one that is none."""
    file, *more = find(path)
    if more:
        raise InputError(f"{path}: stands for {1 + len(more):,} files; name one file of playlists")
    try:
        with open_plain(file.path) as stream:
            playlists = decoded(stream.read(), _file, _loose, 0, 0, (0, 0)).playlists
    except Wrong as wrong:
        raise bad_input([wrong.fault([path])], ADVICE) from None
    except (EOFError, zlib.error, OSError) as error:
        raise bad_input([Fault(path, "", f"cannot be read: {error}")], ADVICE) from None
    twice = [pid for pid, n in Counter(one.pid for one in playlists).items() if n > 1]
    if twice:
        raise bad_input([Fault(path, f"pid {twice[0]}", "is there twice")], ADVICE)
    if not playlists:
        raise InputError(f"{path}: holds no playlists; {ADVICE}")
    return list(playlists)
