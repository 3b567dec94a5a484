"""Entries to codes: the vocabulary of a part, and everything that is counted while an id is first met."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from recsys_dask.kernels import kernel

ID_LENGTH = 22
_BASE62 = np.zeros(256, np.bool_)
_BASE62[np.frombuffer(b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz", np.uint8)] = True


def intern(texts: Iterable[str], n: int) -> tuple[list[str], NDArray[np.int32]]:
    """The distinct texts in the order of their first appearance, and each text's place among them, int32 (n,)."""
    codes: defaultdict[str, int] = defaultdict()
    codes.default_factory = codes.__len__
    places = np.fromiter(map(codes.__getitem__, texts), np.int32, n)
    return list(codes), places


@kernel
def _first_wrong(joined, prefix, base62, ids):  # type: ignore[no-untyped-def]
    """Copy the ids out of URIs of one length laid end to end; returns the first URI that is none, or -1."""
    head = len(prefix)
    at = 0
    for uri in range(len(ids)):
        for place in range(head):
            if joined[at + place] != prefix[place]:
                return uri
        at += head
        for place in range(ids.shape[1]):
            if not base62[joined[at + place]]:
                return uri
            ids[uri, place] = joined[at + place]
        at += ids.shape[1]
    return -1


def ids_of(uris: Sequence[str], prefix: str) -> NDArray[np.uint8] | int:
    """The ids behind `prefix` as bytes, uint8 (n, 22); or the place of the first URI that is not one."""
    length = len(prefix) + ID_LENGTH
    lengths = list(map(len, uris))
    if lengths.count(length) < len(lengths):
        return next(at for at, one in enumerate(lengths) if one != length)
    joined = "".join(uris).encode()
    ids = np.empty((len(uris), ID_LENGTH), np.uint8)
    if len(joined) != length * len(uris):
        return next(at for at, uri in enumerate(uris) if not uri.isascii())
    wrong = _first_wrong(np.frombuffer(joined, np.uint8), np.frombuffer(prefix.encode(), np.uint8), _BASE62, ids)
    return ids if wrong < 0 else int(wrong)


@kernel
def tally(codes, ends, n):  # type: ignore[no-untyped-def]
    """Of each code: its mentions, the playlists that hold it, and its first row.

    codes: (rows,) int32; ends: (playlists,) int64, the row behind each playlist's last. Returns three (n,) int64.
    """
    mentions = np.zeros(n, np.int64)
    playlists = np.zeros(n, np.int64)
    first = np.empty(n, np.int64)
    last = np.full(n, -1, np.int64)
    row = 0
    for playlist in range(len(ends)):
        while row < ends[playlist]:
            code = codes[row]
            if mentions[code] == 0:
                first[code] = row
            mentions[code] += 1
            if last[code] != playlist:
                last[code] = playlist
                playlists[code] += 1
            row += 1
    return mentions, playlists, first


def warm() -> None:
    """Compile the kernels."""
    ids_of(["a" * (ID_LENGTH + 1)], "a")
    tally(np.zeros(1, np.int32), np.ones(1, np.int64), 1)
