"""A slice: its playlists, their attributes and, by `tracks`, their entries. Nothing is kept of a slice that is odd."""

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
_ROOT, _ROOT_LENGTHS = words("playlists")
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
def _playlist_end(b, i, lists, row, fields, entry, layout):  # type: ignore[no-untyped-def]
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


@kernel
def _playlists_end(b, i, lists, row, fields, entry, layout):  # type: ignore[no-untyped-def]
    """b[i] opens a list of playlists. Returns the place behind it, or `ODD`, and the next rows."""
    i = blank_end(b, i + 1)
    if b[i] == 93:  # ]
        return i + 1, row, entry
    while True:
        if b[i] != 123 or row == len(lists):  # {
            return ODD, row, entry
        i, entry = _playlist_end(b, i, lists, row, fields, entry, layout)
        if i < 0:
            return ODD, row, entry
        row += 1
        i = blank_end(b, i)
        if b[i] == 44:  # ,
            i = blank_end(b, i + 1)
        elif b[i] == 93:  # ]
            return i + 1, row, entry
        else:
            return ODD, row, entry


@kernel
def scan(b, size, bare, lists, fields, layout):  # type: ignore[no-untyped-def]
    """A slice, or the `bare` list of some playlists, in `size` bytes of the padded buffer b.

    lists: (playlists, N_COLUMNS) int64 and fields: (entries, N_FIELDS) int32, to fill. Returns how many of each there
    are; both `ODD` where the strict reader has to look.
    """
    row = entry = 0
    found = False
    i = blank_end(b, 0)
    if bare:
        if b[i] != 91:  # [
            return ODD, ODD
        i, row, entry = _playlists_end(b, i, lists, 0, fields, 0, layout)
        if i < 0 or blank_end(b, i) != size:
            return ODD, ODD
        return row, entry
    if b[i] != 123:  # {
        return ODD, ODD
    i = blank_end(b, i + 1)
    while True:
        end = key_end(b, i)
        start = value_start(b, end)
        if start < 0:
            return ODD, ODD
        if which(b, i + 1, end, _ROOT, _ROOT_LENGTHS) < 0:
            i = value_end(b, start)
        elif found or b[start] != 91:
            return ODD, ODD
        else:
            found = True
            i, row, entry = _playlists_end(b, start, lists, 0, fields, 0, layout)
        if i < 0:
            return ODD, ODD
        i = blank_end(b, i)
        if b[i] == 44:  # ,
            i = blank_end(b, i + 1)
        elif b[i] == 125 and found and blank_end(b, i + 1) == size:  # }
            return row, entry
        else:
            return ODD, ODD
