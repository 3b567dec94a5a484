"""A playlist: its attributes and, by `tracks`, its entries."""

from __future__ import annotations

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
from recsys_dask.formats.scanner.tracks import entries_end
from recsys_dask.kernels import kernel

PID, NUM_TRACKS, FOLLOWERS, MODIFIED, COLLABORATIVE, NAME, NAME_END, N_ENTRIES, N_COLUMNS = range(9)
"""The columns of `lists`, int64 a playlist: numbers as they are, of the name its places."""

MISSING = -1
"""In all but `PID`, `NUM_TRACKS` and `N_ENTRIES`."""

_KEYS, _LENGTHS = words("pid", "num_tracks", "num_followers", "modified_at", "collaborative", "name", "tracks")
_TRACKS = 6
_REQUIRED = 1 << PID | 1 << NUM_TRACKS | 1 << _TRACKS
_TRUTHS, _TRUTH_LENGTHS = words("false", "true")


@kernel
def _attribute(b, i, key, lists, row):  # type: ignore[no-untyped-def]
    """The value at b[i] of a key of ours, not its entries: the place behind it, or `ODD`."""
    if b[i] == 110 and key != PID and key != NUM_TRACKS:  # null
        return null_end(b, i)
    if key < COLLABORATIVE:
        lists[row, key], i = natural(b, i)
        return i
    if b[i] != 34:  # "
        return ODD
    end = text_end(b, i + 1)
    if end < 0:
        return ODD
    if key == COLLABORATIVE:
        lists[row, COLLABORATIVE] = which(b, i + 1, end, _TRUTHS, _TRUTH_LENGTHS)
        return ODD if lists[row, COLLABORATIVE] < 0 else end + 1
    lists[row, NAME] = i + 1
    lists[row, NAME_END] = end
    return end + 1


@kernel
def playlist_end(b, i, lists, row, fields, entry, layout):  # type: ignore[no-untyped-def]
    """The playlist that b[i], a brace, opens: the place behind it, or `ODD`, and the next row of `fields`."""
    for column in range(N_COLUMNS):
        lists[row, column] = MISSING
    seen = 0
    i = blank_end(b, i + 1)
    while True:
        end = key_end(b, i)
        start = value_start(b, end)
        if start < 0:
            return ODD, entry
        key = which(b, i + 1, end, _KEYS, _LENGTHS)
        if key < 0:
            i = value_end(b, start)
        elif seen & (1 << key):
            return ODD, entry
        elif key == _TRACKS:
            if b[start] != 91:  # [
                return ODD, entry
            first = entry
            i, entry = entries_end(b, start, fields, entry, layout)
            lists[row, N_ENTRIES] = entry - first
        else:
            i = _attribute(b, start, key, lists, row)
        if i < 0:
            return ODD, entry
        if key >= 0:
            seen |= 1 << key
        i = blank_end(b, i)
        if b[i] == 44:  # ,
            i = blank_end(b, i + 1)
        elif b[i] == 125 and seen & _REQUIRED == _REQUIRED:  # }
            return i + 1, entry
        else:
            return ODD, entry
