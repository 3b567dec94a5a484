"""Names from JSON text to UTF-8."""

from __future__ import annotations

import numpy as np

from recsys_dask.formats.copying import copy_bytes
from recsys_dask.formats.scanner.grammar import hex4
from recsys_dask.formats.scanner.masks import copy32, lowest
from recsys_dask.formats.scanner.playlists import NAME, NAME_END
from recsys_dask.formats.texts import PAD
from recsys_dask.kernels import kernel


@kernel
def _put_utf8(out, at, point):  # type: ignore[no-untyped-def]
    """Write a code point; returns the place behind it."""
    if point < 0x80:
        out[at] = point
        return at + 1
    if point < 0x800:
        out[at] = 0xC0 | (point >> 6)
        out[at + 1] = 0x80 | (point & 63)
        return at + 2
    if point < 0x10000:
        out[at] = 0xE0 | (point >> 12)
        out[at + 1] = 0x80 | ((point >> 6) & 63)
        out[at + 2] = 0x80 | (point & 63)
        return at + 3
    out[at] = 0xF0 | (point >> 18)
    out[at + 1] = 0x80 | ((point >> 12) & 63)
    out[at + 2] = 0x80 | ((point >> 6) & 63)
    out[at + 3] = 0x80 | (point & 63)
    return at + 4


@kernel
def unescape(b, start, end, out, at):  # type: ignore[no-untyped-def]
    """Write the text `b[start:end]`, known to be valid, to `out` from `at` on; returns the place behind it.

    Up to 32 bytes behind that are overwritten too.
    """
    i = start
    while i < end:
        mask = copy32(out, at, b, i)
        n = 32 if mask == np.uint64(0) else lowest(mask)
        if n >= end - i:
            return at + end - i
        i += n
        at += n
        if mask == np.uint64(0):
            continue
        c = b[i + 1]
        if c == 117:  # u
            point = hex4(b, i + 2)
            i += 6
            if 0xD800 <= point < 0xDC00:
                point = 0x10000 + ((point - 0xD800) << 10) + (hex4(b, i + 2) - 0xDC00)
                i += 6
            at = _put_utf8(out, at, point)
            continue
        if c == 98:  # b
            c = 8
        elif c == 102:  # f
            c = 12
        elif c == 110:  # n
            c = 10
        elif c == 114:  # r
            c = 13
        elif c == 116:  # t
            c = 9
        out[at] = c
        at += 1
        i += 2
    return at


@kernel
def unescape_names(b, lists):  # type: ignore[no-untyped-def]
    """The playlists' names as UTF-8, end to end, uint8; `lists` then has their places there."""
    most = PAD
    for row in range(len(lists)):
        most += lists[row, NAME_END] - lists[row, NAME]
    out = np.empty(most, np.uint8)
    at = 0
    for row in range(len(lists)):
        if lists[row, NAME] >= 0:
            end = unescape(b, lists[row, NAME], lists[row, NAME_END], out, at)
            lists[row, NAME] = at
            lists[row, NAME_END] = end
            at = end
    return out[:at]


@kernel
def gather_names(text, start, end):  # type: ignore[no-untyped-def]
    """The texts `text[start:end]` (none where start is negative) end to end: offsets, int32 (n + 1,), and uint8."""
    offsets = np.zeros(len(start) + 1, np.int32)
    for row in range(len(start)):
        offsets[row + 1] = offsets[row] + (end[row] - start[row])
    out = np.empty(offsets[-1], np.uint8)
    for row in range(len(start)):
        copy_bytes(out, np.int64(offsets[row]), text, start[row], end[row] - start[row])
    return offsets, out
