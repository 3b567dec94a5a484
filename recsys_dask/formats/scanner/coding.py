"""Entries to codes, and what is kept of an id: the attributes of its first entry by pid and pos."""

from __future__ import annotations

import numpy as np

from recsys_dask.formats.scanner import playlists, tracks
from recsys_dask.formats.scanner.masks import load64
from recsys_dask.formats.scanner.names import unescape
from recsys_dask.formats.scanner.vocabulary import (
    ALBUM,
    ARTIST,
    DURATION,
    N_BYTES,
    NAME,
    NAME_END,
    PID,
    POS,
    N,
    enter,
    hash_of,
    keep,
    third_word,
    touch,
)
from recsys_dask.kernels import kernel

BLOCK = 128
"""Look-ups that are prepared at once: their cache misses overlap, instead of queueing one behind the other."""

NO_DURATION = np.uint64(2**64 - 1)
NO_ALBUM = np.uint64(0)
"""As the first word of an album's id: it would be eight NUL bytes."""


@kernel(forceinline=True)
def _keep_name(entries, names, sizes, code, pid, pos, b, start, end):  # type: ignore[no-untyped-def]
    at = sizes[N_BYTES]
    entries[code, PID] = pid
    entries[code, POS] = pos
    entries[code, NAME] = at
    at = unescape(b, start, end, names, at)
    entries[code, NAME_END] = at
    sizes[N_BYTES] = at


@kernel(forceinline=True)
def _keep_track(entries, code, artist, b, album, duration):  # type: ignore[no-untyped-def]
    entries[code, ARTIST] = np.uint64(artist)
    entries[code, ALBUM] = load64(b, album) if album >= 0 else NO_ALBUM
    entries[code, ALBUM + 1] = load64(b, album + 8) if album >= 0 else NO_ALBUM
    entries[code, ALBUM + 2] = third_word(b, album) if album >= 0 else NO_ALBUM
    entries[code, DURATION] = np.uint64(duration) if duration >= 0 else NO_DURATION


@kernel(forceinline=True)
def _comes_before(pid, pos, entries, code):  # type: ignore[no-untyped-def]
    return pid < entries[code, PID] or (pid == entries[code, PID] and pos < entries[code, POS])


@kernel(forceinline=True)
def _hash_at(b, at):  # type: ignore[no-untyped-def]
    return hash_of(load64(b, at), load64(b, at + 8), third_word(b, at))


@kernel
def code_entries(b, lists, fields, artists, known_tracks, pos, artist, track):  # type: ignore[no-untyped-def]
    """Some playlists' entries in codes.

    lists, fields: their rows as `playlist_end` fills them; artists, known_tracks: the vocabularies, which grow; pos
    int64, artist and track int32: an element an entry, to fill.
    """
    # Handed on one by one: passing a tuple on counts references, which takes as long as all the rest.
    a_entries, a_names, a_slots, a_undo, a_sizes = artists
    t_entries, t_names, t_slots, t_undo, t_sizes = known_tracks
    a_hash, t_hash = np.empty(BLOCK, np.uint64), np.empty(BLOCK, np.uint64)
    playlist, left = -1, 0
    for low in range(0, len(fields), BLOCK):
        high = min(low + BLOCK, len(fields))
        for row in range(low, high):
            a_hash[row - low] = _hash_at(b, fields[row, tracks.ARTIST_ID])
            t_hash[row - low] = _hash_at(b, fields[row, tracks.TRACK_ID])
        touched = np.uint64(0)
        for row in range(low, high):
            touched |= touch(a_entries, a_slots, a_sizes, a_hash[row - low])
            touched |= touch(t_entries, t_slots, t_sizes, t_hash[row - low])
        pos[low] = touched  # and overwritten below
        for row in range(low, high):
            while left == 0:
                playlist += 1
                left = lists[playlist, playlists.N_ENTRIES]
            left -= 1
            pid, place = np.uint64(lists[playlist, playlists.PID]), np.uint64(fields[row, tracks.POS])
            # Artist and track alike, but written out: one function for both takes a fifth of the reading longer.
            n = a_sizes[N]
            a = enter(a_entries, a_slots, a_sizes, b, fields[row, tracks.ARTIST_ID], a_hash[row - low])
            if a == n or _comes_before(pid, place, a_entries, a):
                if a < n:
                    keep(a_entries, a_undo, a_sizes, a)
                start, end = fields[row, tracks.ARTIST_NAME], fields[row, tracks.ARTIST_NAME_END]
                _keep_name(a_entries, a_names, a_sizes, a, pid, place, b, start, end)
            n = t_sizes[N]
            t = enter(t_entries, t_slots, t_sizes, b, fields[row, tracks.TRACK_ID], t_hash[row - low])
            if t == n or _comes_before(pid, place, t_entries, t):
                if t < n:
                    keep(t_entries, t_undo, t_sizes, t)
                start, end = fields[row, tracks.TRACK_NAME], fields[row, tracks.TRACK_NAME_END]
                _keep_name(t_entries, t_names, t_sizes, t, pid, place, b, start, end)
                _keep_track(t_entries, t, a, b, fields[row, tracks.ALBUM_ID], fields[row, tracks.DURATION])
            pos[row] = fields[row, tracks.POS]
            artist[row] = a
            track[row] = t
