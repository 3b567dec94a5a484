"""A slice larger than the budget, cut between playlists while it streams by.

Only quotes, brackets and commas are looked at. All bytes between two cuts go to the JSON decoder as they are, and
what remains of the file around the playlists goes there too, so nothing is accepted here that it would refuse.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import IO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from recsys_dask.kernels import kernel

BLOCK_BYTES = 1 << 24
_BLANK = b" \t\r\n"


class Segment(NamedTuple):
    """The text of some playlists, comma-separated, and the offset in the file at which it starts."""

    text: bytes
    start: int


class Around(NamedTuple):
    """The file without its playlists: valid JSON if the file is. `moved` bytes were left out before `moved_at`."""

    text: bytes
    moved_at: int
    moved: int


class Twice(Exception):
    """The root object names its playlists twice."""


@kernel
def structure(block, state, found):  # type: ignore[no-untyped-def]
    """Where a JSON text opens and closes arrays of the root object, and the commas in them.

    block: (n,) uint8; state: (3,) int64, depth, inside a string, behind a backslash: kept from block to block;
    found: (n,) int64 to fill with places. Returns how many were found.
    """
    depth, quoted, escaped = state[0], state[1], state[2]
    n = 0
    for at in range(len(block)):
        byte = block[at]
        if quoted:
            if escaped:
                escaped = 0
            elif byte == 92:  # \
                escaped = 1
            elif byte == 34:  # "
                quoted = 0
        elif byte == 34:
            quoted = 1
        elif byte == 91 or byte == 123:  # [ {
            if depth == 1 and byte == 91:
                found[n] = at
                n += 1
            depth += 1
        elif byte == 93 or byte == 125:  # ] }
            depth -= 1
            if depth == 1 and byte == 93:
                found[n] = at
                n += 1
        elif byte == 44 and depth == 2:  # ,
            found[n] = at
            n += 1
    state[0], state[1], state[2] = depth, quoted, escaped
    return n


def segments(stream: IO[bytes], head: bytes, target: int) -> Iterator[Segment | Around]:
    """A stream whose first bytes, already read, are `head`: its playlists in segments of some `target` bytes.

    Raises `Twice` at a second `playlists`.
    """
    state = np.zeros(3, np.int64)
    around = bytearray()
    current = bytearray()
    inside = False
    seen = cut = False
    offset = start = first = moved_at = moved = 0
    block = head
    while block:
        done = 0
        for at in _places(block, state):
            sign = block[at : at + 1]
            if not inside:
                if sign != b"[":
                    continue
                around += block[done : at + 1]
                done = at + 1
                if _key(around) == "playlists":
                    if seen:
                        raise Twice
                    inside, seen, cut = True, True, False
                    start = first = offset + at + 1
                    moved_at = len(around)
            elif sign == b"]":
                current += block[done:at]
                if cut and not current.strip(_BLANK):
                    current += b","  # a comma with nothing behind it: the decoder shall say so
                moved += offset + at - first
                yield Segment(bytes(current), start)
                current.clear()
                inside, done = False, at
            elif sign == b"," and len(current) + at - done >= target:
                current += block[done:at]
                if not current.strip(_BLANK):
                    current += b","  # nothing before a comma
                yield Segment(bytes(current), start)
                current.clear()
                done, start, cut = at + 1, offset + at + 1, True
        (current if inside else around).extend(block[done:])
        offset += len(block)
        block = stream.read(BLOCK_BYTES)
    if inside:
        moved += start - first
    around += current  # an array without an end: the decoder will say where it breaks off
    yield Around(bytes(around), moved_at, moved)


def _key(around: bytearray) -> str | None:
    """The key of the array that has just been opened at the end of `around`; None where there is none.

    A quote within a text stands behind a backslash, the one that opens it does not.
    """
    head = around[:-1].rstrip(_BLANK)
    if not head.endswith(b":"):
        return None
    head = head[:-1].rstrip(_BLANK)
    start = head.rfind(b'"', 0, -1)
    while start > 0 and head[start - 1] == 92:
        start = head.rfind(b'"', 0, start)
    try:
        return str(json.loads(head[start:])) if start >= 0 else None
    except ValueError:
        return None


DEEPEST = 900
"""Brackets within brackets that are surely too many: the decoder gives up below Python's own limit of 1,000."""


def too_deep(text: bytes | memoryview) -> int:
    """Where a text that the decoder found too deep is that: the first bracket at `DEEPEST`, or the deepest one."""
    return int(_deepest(np.frombuffer(text, np.uint8), DEEPEST))


@kernel
def _deepest(text, enough):  # type: ignore[no-untyped-def]
    depth = most = place = 0
    quoted = escaped = False
    for at in range(len(text)):
        byte = text[at]
        if quoted:
            if escaped:
                escaped = False
            elif byte == 92:
                escaped = True
            elif byte == 34:
                quoted = False
        elif byte == 34:
            quoted = True
        elif byte == 91 or byte == 123:
            depth += 1
            if depth > most:
                most, place = depth, at
                if most == enough:
                    return place
        elif byte == 93 or byte == 125:
            depth -= 1
    return place


def _places(block: bytes, state: NDArray[np.int64]) -> list[int]:
    view = np.frombuffer(block, np.uint8)
    found = np.empty(len(view), np.int64)
    return found[: structure(view, state, found)].tolist()


def warm() -> None:
    """Compile the kernels."""
    too_deep(b"[]")
    _places(b'{"playlists": [{}, {}]}', np.zeros(3, np.int64))
