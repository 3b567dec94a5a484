"""JSON as its grammar has it: where blanks, texts, numbers, keys and whole values end. RFC 8259; UTF-8 by RFC 3629.

`b` is a padded buffer (`masks`), a place an index into it. What is not valid JSON, or is valid but rare, is `ODD`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from recsys_dask.formats.scanner.masks import lowest, not_blank, special_in_text
from recsys_dask.kernels import kernel

ODD = -1
"""In place of a place: the strict reader decides."""

DEEPEST = 60
"""Brackets within brackets that `value_end` follows: it keeps their kinds in one uint64."""

MOST_DIGITS = 18
"""Of a plain integer: fewer than 2⁶³ holds."""

_ONE, _NONE = np.uint64(1), np.uint64(0)


def words(*names: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Names for `which`: their bytes, uint8 (n, longest), and lengths, int64 (n,)."""
    lengths = np.array([len(name) for name in names], np.int64)
    table = np.zeros((len(names), lengths.max()), np.uint8)
    for row, name in enumerate(names):
        table[row, : len(name)] = np.frombuffer(name.encode(), np.uint8)
    return table, lengths


@kernel
def which(b, start, end, table, lengths):  # type: ignore[no-untyped-def]
    """The row of `table` that `b[start:end]` is, or -1."""
    for row in range(len(lengths)):
        if lengths[row] == end - start:
            k = 0
            while k < lengths[row] and b[start + k] == table[row, k]:
                k += 1
            if k == lengths[row]:
                return row
    return -1


@kernel
def blank_end(b, i):  # type: ignore[no-untyped-def]
    """The first place from i on that holds no blank."""
    if b[i] > 32:
        return i
    while True:
        mask = not_blank(b, i)
        if mask != _NONE:
            return i + lowest(mask)
        i += 32


@kernel
def hex4(b, i):  # type: ignore[no-untyped-def]
    """The number that four hexadecimal digits write, or -1."""
    value = 0
    for k in range(i, i + 4):
        c = b[k]
        if 48 <= c <= 57:
            value = value * 16 + (c - 48)
        elif 97 <= (c | 32) <= 102:
            value = value * 16 + ((c | 32) - 87)
        else:
            return -1
    return value


@kernel
def _escape_end(b, i):  # type: ignore[no-untyped-def]
    """b[i] is a backslash: the place behind its escape, both halves of a surrogate pair, or `ODD`."""
    c = b[i + 1]
    if c == 34 or c == 92 or c == 47 or c == 98 or c == 102 or c == 110 or c == 114 or c == 116:  # "\/bfnrt
        return i + 2
    if c != 117:  # u
        return ODD
    value = hex4(b, i + 2)
    if value < 0 or 0xDC00 <= value < 0xE000:
        return ODD
    i += 6
    if 0xD800 <= value < 0xDC00:
        if b[i] != 92 or b[i + 1] != 117:
            return ODD
        value = hex4(b, i + 2)
        if value < 0xDC00 or value >= 0xE000:
            return ODD
        i += 6
    return i


@kernel
def _follows(c):  # type: ignore[no-untyped-def]
    """May this byte stand within a UTF-8 character, behind its first one?"""
    return c & 0xC0 == 0x80


@kernel
def _utf8_end(b, i):  # type: ignore[no-untyped-def]
    """The place behind a run of well-formed characters of several bytes, or `ODD`."""
    while b[i] >= 128:
        c, d = b[i], b[i + 1]
        if 0xC2 <= c <= 0xDF:
            if not _follows(d):
                return ODD
            i += 2
        elif 0xE0 <= c <= 0xEF:
            if not (_follows(d) and _follows(b[i + 2])) or (c == 0xE0 and d < 0xA0) or (c == 0xED and d > 0x9F):
                return ODD
            i += 3
        elif 0xF0 <= c <= 0xF4:
            if not (_follows(d) and _follows(b[i + 2]) and _follows(b[i + 3])):
                return ODD
            if (c == 0xF0 and d < 0x90) or (c == 0xF4 and d > 0x8F):
                return ODD
            i += 4
        else:
            return ODD
    return i


@kernel
def text_end(b, i):  # type: ignore[no-untyped-def]
    """i is behind an opening quote: the place of the closing one, or `ODD`."""
    while True:
        mask = special_in_text(b, i)
        if mask == _NONE:
            i += 32
            continue
        i += lowest(mask)
        c = b[i]
        if c == 34:  # "
            return i
        if c == 92:  # \
            i = _escape_end(b, i)
        elif c >= 128:
            i = _utf8_end(b, i)
        else:
            return ODD
        if i < 0:
            return ODD


@kernel
def _digits_end(b, i):  # type: ignore[no-untyped-def]
    while 48 <= b[i] <= 57:
        i += 1
    return i


@kernel
def _number_end(b, i):  # type: ignore[no-untyped-def]
    if b[i] == 45:  # -
        i += 1
    start = i
    i = _digits_end(b, i)
    if i == start or (b[start] == 48 and i > start + 1):
        return ODD
    if b[i] == 46:  # .
        start = i + 1
        i = _digits_end(b, start)
        if i == start:
            return ODD
    if b[i] | 32 == 101:  # e
        i += 1
        if b[i] == 43 or b[i] == 45:  # + -
            i += 1
        start = i
        i = _digits_end(b, start)
        if i == start:
            return ODD
    return i


@kernel
def natural(b, i):  # type: ignore[no-untyped-def]
    """A plain integer from 0 on: its value and the place behind it, or `ODD`."""
    start = i
    value = np.int64(0)
    while 48 <= b[i] <= 57 and i - start <= MOST_DIGITS:
        value = value * 10 + np.int64(b[i] - 48)
        i += 1
    if i == start or i - start > MOST_DIGITS or (b[start] == 48 and i > start + 1):
        return 0, ODD
    if b[i] == 46 or b[i] | 32 == 101:
        return 0, ODD
    return value, i


@kernel
def _any_key_end(b, i):  # type: ignore[no-untyped-def]
    return text_end(b, i + 1) if b[i] == 34 else ODD


@kernel
def key_end(b, i):  # type: ignore[no-untyped-def]
    """The place of the quote that closes the key which b[i] opens; `ODD` where it opens none, or has escapes: it may be
    one of ours."""
    end = _any_key_end(b, i)
    for k in range(i + 1, end):
        if b[k] == 92:
            return ODD
    return end


@kernel
def value_start(b, end):  # type: ignore[no-untyped-def]
    """`end` is the quote that closes a key, or `ODD`: the place of its value, or `ODD`."""
    if end < 0:
        return ODD
    i = blank_end(b, end + 1)
    if b[i] != 58:  # :
        return ODD
    return blank_end(b, i + 1)


@kernel
def null_end(b, i):  # type: ignore[no-untyped-def]
    """The place behind a `null`, or `ODD`."""
    if b[i] == 110 and b[i + 1] == 117 and b[i + 2] == 108 and b[i + 3] == 108:
        return i + 4
    return ODD


@kernel
def _scalar_end(b, i):  # type: ignore[no-untyped-def]
    c = b[i]
    if c == 34:  # "
        end = text_end(b, i + 1)
        return ODD if end < 0 else end + 1
    if c == 110:  # n
        return null_end(b, i)
    if c == 116 and b[i + 1] == 114 and b[i + 2] == 117 and b[i + 3] == 101:
        return i + 4
    if c == 102 and b[i + 1] == 97 and b[i + 2] == 108 and b[i + 3] == 115 and b[i + 4] == 101:
        return i + 5
    return _number_end(b, i)


@kernel
def value_end(b, i):  # type: ignore[no-untyped-def]
    """The place behind any value, or `ODD`."""
    depth = 0
    kinds = _NONE  # of the open brackets, a bit each: 1 an object, 0 an array
    while True:
        c = b[i]
        if c == 123 or c == 91:  # { [
            i = blank_end(b, i + 1)
            if b[i] == c + 2:  # } ]
                i += 1
            else:
                if depth == DEEPEST:
                    return ODD
                depth += 1
                kinds = (kinds << _ONE) | np.uint64(c == 123)
                if c == 123:
                    i = value_start(b, _any_key_end(b, i))
                    if i < 0:
                        return ODD
                continue
        else:
            i = _scalar_end(b, i)
            if i < 0:
                return ODD
        while True:  # behind a value: the brackets that close, or the next one
            if depth == 0:
                return i
            i = blank_end(b, i)
            in_object = kinds & _ONE == _ONE
            if b[i] == 44:  # ,
                i = blank_end(b, i + 1)
                if in_object:
                    i = value_start(b, _any_key_end(b, i))
                    if i < 0:
                        return ODD
                break
            if b[i] != (125 if in_object else 93):  # } ]
                return ODD
            i += 1
            depth -= 1
            kinds >>= _ONE
