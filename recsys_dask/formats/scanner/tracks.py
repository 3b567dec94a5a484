"""A playlist's entries: the places of their names and ids, and their numbers.

The entries of a file are printed alike. What stands between two values of one (`,\\n    "track_uri": "spotify:track:`)
is learned as a `layout`, and compared 32 bytes at a time in the next; an entry that is printed otherwise goes through
the grammar, key by key, and is the next to learn from.
"""

from __future__ import annotations

import numpy as np

from recsys_dask.formats.coding import ID_LENGTH
from recsys_dask.formats.scanner.grammar import (
    ODD,
    blank_end,
    key_end,
    natural,
    null_end,
    text_end,
    value_end,
    value_start,
    which,
    words,
)
from recsys_dask.formats.scanner.masks import base62, different
from recsys_dask.kernels import kernel

POS, DURATION, ARTIST_ID, TRACK_ID, ALBUM_ID, ARTIST_NAME, ARTIST_NAME_END, TRACK_NAME, TRACK_NAME_END = range(9)
"""The columns of `fields`, int32 an entry: first the numbers as they are, then the places of ids, and of names."""

_OTHER_TEXT, _OTHER_TEXT_END, N_FIELDS = 9, 10, 11
"""Where the layout puts the text of a key that is not ours (`album_name`), which nobody reads."""

MISSING = -1
"""In `ALBUM_ID` and `DURATION`."""

LARGEST = 2**31 - 1
_KEYS, _LENGTHS = words("pos", "duration_ms", "artist_uri", "track_uri", "album_uri", "artist_name", "track_name")
_COLUMNS = np.array([POS, DURATION, ARTIST_ID, TRACK_ID, ALBUM_ID, ARTIST_NAME, TRACK_NAME])
_PREFIXES, _PREFIX_LENGTHS = words("", "", '"spotify:artist:', '"spotify:track:', '"spotify:album:')
_REQUIRED = sum(1 << key for key in (0, 2, 3, 5, 6))
_ONE, _NONE = np.uint64(1), np.uint64(0)
_ID_MASK = np.uint64(2**ID_LENGTH - 1)

SEPARATORS = 16
"""Rows of a layout, the first and the last among them; entries of more keys go through the grammar."""


def new_layout() -> np.ndarray:
    """Nothing learned: int64 (SEPARATORS, 3). Row 0 has the number of values; row k the separator before the k-th,
    its place and length in the buffer and the value's column; one more row that which closes the entry."""
    return np.zeros((SEPARATORS, 3), np.int64)


@kernel
def _alike(b, i, other, length):  # type: ignore[no-untyped-def]
    """Is `b[i : i + length]` equal to `b[other : other + length]`?"""
    while length >= 32:
        if different(b, i, other) != _NONE:
            return False
        i += 32
        other += 32
        length -= 32
    return different(b, i, other) & ((_ONE << np.uint64(length)) - _ONE) == _NONE


@kernel
def _is_id(b, i):  # type: ignore[no-untyped-def]
    return base62(b, i) & _ID_MASK == _ID_MASK


@kernel
def _by_layout(b, i, fields, row, layout):  # type: ignore[no-untyped-def]
    """The entry at b[i], if it is printed as `layout` has it: the place behind it, or `ODD`."""
    n = layout[0, 0]
    if n == 0:
        return ODD
    fields[row, ALBUM_ID] = MISSING
    fields[row, DURATION] = MISSING
    for k in range(1, n + 1):
        length = layout[k, 1]
        if not _alike(b, i, layout[k, 0], length):
            return ODD
        i += length
        column = layout[k, 2]
        if column >= ARTIST_NAME:
            fields[row, column] = i
            i = text_end(b, i)
            if i < 0:
                return ODD
            fields[row, column + 1] = i
        elif column <= DURATION:
            value, i = natural(b, i)
            if i < 0 or value > LARGEST:
                return ODD
            fields[row, column] = value
        else:
            if not _is_id(b, i):
                return ODD
            fields[row, column] = i
            i += ID_LENGTH
    length = layout[n + 1, 1]
    if not _alike(b, i, layout[n + 1, 0], length):
        return ODD
    return i + length


@kernel
def _value(b, i, key, fields, row):  # type: ignore[no-untyped-def]
    """The value at b[i] of a key of ours: the place behind it, or `ODD`."""
    column = _COLUMNS[key]
    if column <= DURATION:
        value, end = natural(b, i)
        if value > LARGEST:
            return ODD
        fields[row, column] = value
        return end
    if b[i] != 34:  # "
        return ODD
    if column >= ARTIST_NAME:
        fields[row, column] = i + 1
        end = text_end(b, i + 1)
        fields[row, column + 1] = end
        return ODD if end < 0 else end + 1
    for k in range(1, _PREFIX_LENGTHS[column]):
        if b[i + k] != _PREFIXES[column, k]:
            return ODD
    i += _PREFIX_LENGTHS[column]
    if not _is_id(b, i) or b[i + ID_LENGTH] != 34:
        return ODD
    fields[row, column] = i
    return i + ID_LENGTH + 1


@kernel
def _by_grammar(b, i, fields, row, layout):  # type: ignore[no-untyped-def]
    """The entry that b[i], a brace, opens: the place behind it, or `ODD`. Its layout is learned, if it has one."""
    fields[row, ALBUM_ID] = MISSING
    fields[row, DURATION] = MISSING
    seen = 0
    n = 0  # values whose separators are learned
    between = i  # where the present separator starts
    layout[0, 0] = 0
    i = blank_end(b, i + 1)
    while True:
        end = key_end(b, i)
        start = value_start(b, end)
        if start < 0:
            return ODD
        key = which(b, i + 1, end, _KEYS, _LENGTHS)
        value = start  # where the value's own bytes start
        tail = 0  # of the value, what belongs to the next separator
        column = -1
        if key >= 0:
            if seen & (1 << key):
                return ODD
            seen |= 1 << key
            column = _COLUMNS[key]
            if b[start] == 110 and not _REQUIRED & (1 << key):  # null
                column = -1
                i = null_end(b, start)
            else:
                i = _value(b, start, key, fields, row)
                if column >= ARTIST_NAME:
                    value += 1
                    tail = 1
                elif column > DURATION:
                    value += _PREFIX_LENGTHS[column]
                    tail = 1
        else:
            i = value_end(b, start)
            if b[start] == 34:
                column = _OTHER_TEXT
                value += 1
                tail = 1
        if i < 0:
            return ODD
        if column >= 0:  # any other value is a part of the separator: it must be the same in the next entry
            n += 1
            if n < SEPARATORS - 1:
                layout[n, 0] = between
                layout[n, 1] = value - between
                layout[n, 2] = column
            between = i - tail
        i = blank_end(b, i)
        if b[i] == 44:  # ,
            i = blank_end(b, i + 1)
        elif b[i] == 125:  # }
            if seen & _REQUIRED != _REQUIRED:
                return ODD
            i += 1
            if n < SEPARATORS - 1:
                layout[n + 1, 0] = between
                layout[n + 1, 1] = i - between
                layout[0, 0] = n
            return i
        else:
            return ODD


@kernel
def entries_end(b, i, fields, row, layout):  # type: ignore[no-untyped-def]
    """b[i] opens the list of a playlist's entries, which go to `fields` from `row` on.

    Returns the place behind the list, or `ODD`, and the next row.
    """
    i = blank_end(b, i + 1)
    if b[i] == 93:  # ]
        return i + 1, row
    while True:
        if b[i] != 123 or row == len(fields):  # {
            return ODD, row
        end = _by_layout(b, i, fields, row, layout)
        if end < 0:
            end = _by_grammar(b, i, fields, row, layout)
            if end < 0:
                return ODD, row
        row += 1
        i = blank_end(b, end)
        if b[i] == 44:  # ,
            i = blank_end(b, i + 1)
        elif b[i] == 93:  # ]
            return i + 1, row
        else:
            return ODD, row
