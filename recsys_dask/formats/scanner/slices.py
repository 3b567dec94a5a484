"""A slice, or a piece of one: playlist after playlist, whose entries `coding` turns into codes."""

from __future__ import annotations

from recsys_dask.formats.scanner.coding import code_entries
from recsys_dask.formats.scanner.grammar import ODD, blank_end, key_end, value_end, value_start, which, words
from recsys_dask.formats.scanner.playlists import playlist_end
from recsys_dask.kernels import kernel

CHUNK = 256
"""Entries that are coded together, while their text is still in the processor's cache."""

_KEYS, _LENGTHS = words("playlists")


@kernel
def _code(b, lists, fields, known, entry):  # type: ignore[no-untyped-def]
    """Code some playlists, before which there were so many entries."""
    artists, tracks, pos, artist, track = known
    end = entry + len(fields)
    code_entries(b, lists, fields, artists, tracks, pos[entry:end], artist[entry:end], track[entry:end])


@kernel
def _playlists_end(b, i, lists, fields, layout, known):  # type: ignore[no-untyped-def]
    """b[i] opens the list of playlists. Returns the place behind it, or `ODD`, and how many rows there are."""
    row = entry = 0
    first = waiting = 0  # the first playlist that is not coded, and the entries from there on
    i = blank_end(b, i + 1)
    if b[i] == 93:  # ]
        return i + 1, row, entry
    while True:
        if b[i] != 123 or row == len(lists):  # {
            return ODD, row, entry
        i, waiting = playlist_end(b, i, lists, row, fields, waiting, layout)
        if i < 0:
            return ODD, row, entry
        row += 1
        i = blank_end(b, i)
        if waiting >= CHUNK or b[i] != 44:  # ,
            _code(b, lists[first:row], fields[:waiting], known, entry)
            entry += waiting
            first = row
            waiting = 0
        if b[i] == 93:  # ]
            return i + 1, row, entry
        if b[i] != 44:
            return ODD, row, entry
        i = blank_end(b, i + 1)


@kernel
def scan(b, size, bare, lists, fields, layout, known):  # type: ignore[no-untyped-def]
    """A slice, or the `bare` list of some playlists, in `size` bytes of the padded buffer b.

    lists: (playlists, N_COLUMNS) int64, to fill, and fields: (entries, N_FIELDS) int32, to work with; known: what
    `code_entries` fills, the vocabularies of artists and tracks and the entries' pos, artist and track. Returns how
    many playlists and entries there are; both `ODD` where the strict reader has to look: then what was coded is to be
    taken back.
    """
    row = entry = 0
    found = False
    i = blank_end(b, 0)
    if bare:
        if b[i] != 91:  # [
            return ODD, ODD
        i, row, entry = _playlists_end(b, i, lists, fields, layout, known)
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
        if which(b, i + 1, end, _KEYS, _LENGTHS) < 0:
            i = value_end(b, start)
        elif found or b[start] != 91:
            return ODD, ODD
        else:
            found = True
            i, row, entry = _playlists_end(b, start, lists, fields, layout, known)
        if i < 0:
            return ODD, ODD
        i = blank_end(b, i)
        if b[i] == 44:  # ,
            i = blank_end(b, i + 1)
        elif b[i] == 125 and found and blank_end(b, i + 1) == size:  # }
            return row, entry
        else:
            return ODD, ODD
