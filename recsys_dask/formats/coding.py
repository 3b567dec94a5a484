"""Entries to codes: the vocabulary of a part, and everything that is counted while an id is first met."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from recsys_dask.kernels import kernel

ID_LENGTH = 22
_BASE62 = np.zeros(256, bool)
_BASE62[np.frombuffer(b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz", np.uint8)] = True


def intern(texts: Iterable[str], n: int) -> tuple[list[str], NDArray[np.int32]]:
    """The distinct texts in the order of their first appearance, and each text's place among them, int32 (n,)."""
    codes: defaultdict[str, int] = defaultdict()
    codes.default_factory = codes.__len__
    places = np.fromiter(map(codes.__getitem__, texts), np.int32, n)
    return list(codes), places


def ids_of(uris: Sequence[str], prefix: str) -> NDArray[np.uint8] | int:
    """The ids behind `prefix` as bytes, uint8 (n, 22); or the place of the first URI that is not one."""
    length = len(prefix) + ID_LENGTH
    joined = "".join(uris).encode()
    if len(joined) == length * len(uris):
        raw = np.frombuffer(joined, np.uint8).reshape(len(uris), length)
        head, ids = raw[:, : len(prefix)], raw[:, len(prefix) :]
        right = (head == np.frombuffer(prefix.encode(), np.uint8)).all(1) & _BASE62[ids].all(1)
        if right.all() and all(len(uri) == length for uri in uris):
            return ids
    for at, uri in enumerate(uris):
        tail = np.frombuffer(uri[len(prefix) :].encode(), np.uint8)
        if not uri.startswith(prefix) or len(tail) != ID_LENGTH or not _BASE62[tail].all():
            return at
    raise AssertionError("unreachable: one of the URIs is wrong")


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
    """Compile the kernel."""
    tally(np.zeros(1, np.int32), np.ones(1, np.int64), 1)
