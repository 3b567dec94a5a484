"""What is scanned, text after text, until it is a part: its columns, and the Arrow tables over them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recsys_dask.arrow import bools, fixed, int32, int64, strings
from recsys_dask.errors import Fault
from recsys_dask.formats.base import Part
from recsys_dask.formats.coding import ID_LENGTH, tally
from recsys_dask.formats.scanner import playlists, tracks
from recsys_dask.formats.scanner import vocabulary as ids
from recsys_dask.formats.scanner.coding import NO_ALBUM, NO_DURATION
from recsys_dask.formats.scanner.names import gather_names, unescape_names
from recsys_dask.formats.scanner.slices import scan
from recsys_dask.formats.scanner.vocabulary import Vocabulary, new_vocabulary, take_back, with_room
from recsys_dask.formats.texts import PAD, Text

LEAST_PLAYLIST_BYTES, LEAST_ENTRY_BYTES = 32, 128
"""No playlist and no entry has fewer: how many a text may hold at most."""

_Rows = NDArray[np.int64] | slice


class _Chunk(NamedTuple):
    """What one text gave. lists: as `playlists` has them, but the names' places are in `names`; pos, artist, track:
    an element an entry."""

    lists: NDArray[np.int64]
    names: NDArray[np.uint8]
    pos: NDArray[np.int64]
    artist: NDArray[np.int32]
    track: NDArray[np.int32]


class Scanner:
    """A collector, as `formats.mpd` describes it, of all texts that are not odd."""

    def __init__(self) -> None:
        self._lists = np.empty((0, playlists.N_COLUMNS), np.int64)
        self._fields = np.empty((0, tracks.N_FIELDS), np.int32)
        self._start()

    def _start(self) -> None:
        self.bytes = 0
        self._files: list[int] = []
        self._chunks: list[_Chunk] = []
        self._artists, self._tracks = new_vocabulary(), new_vocabulary()

    def add(self, text: Text, first: int) -> int | None:
        """How many playlists were taken from a text; None, and nothing of it, if it is odd."""
        if text.around or text.size > tracks.LARGEST:  # places are int32
            return None
        b = text.padded
        most = text.size // LEAST_ENTRY_BYTES + 1
        if most > len(self._fields):  # memory that is not written to is not taken from the system
            self._fields = np.empty((most, tracks.N_FIELDS), np.int32)
            self._lists = np.empty((text.size // LEAST_PLAYLIST_BYTES + 1, playlists.N_COLUMNS), np.int64)
        self._artists = with_room(self._artists, most, text.size)
        self._tracks = with_room(self._tracks, most, text.size)
        before = [known.sizes.tolist() for known in (self._artists, self._tracks)]
        pos, artist, track = np.empty(most, np.int64), np.empty(most, np.int32), np.empty(most, np.int32)
        known = (self._artists, self._tracks, pos, artist, track)
        n_lists, n = scan(b, text.size, not text.whole, self._lists, self._fields, tracks.new_layout(), known)
        if n_lists < 0 or _repeats(self._lists[:n_lists, playlists.PID]):
            self._take_back(before)
            return None
        if n_lists or text.whole:
            lists = self._lists[:n_lists].copy()
            self._chunks.append(_Chunk(lists, unescape_names(b, lists), pos[:n], artist[:n], track[:n]))
            self._files.append(text.file)
            self.bytes += text.size
        return int(n_lists)

    def _take_back(self, before: list[list[int]]) -> None:
        for known, sizes in zip((self._artists, self._tracks), before, strict=True):
            n, n_bytes = sizes[ids.N], sizes[ids.N_BYTES]
            take_back(known.entries, known.slots, known.undo, known.sizes, n, n_bytes)

    def parts(self, paths: Sequence[str]) -> Iterator[Part | Fault]:
        """What was taken as one part, or none."""
        if self._chunks:
            yield _part([paths[file] for file in self._files], self._chunks, self._artists, self._tracks)
        self._start()


def _repeats(pid: NDArray[np.int64]) -> bool:
    """Is a pid there twice? The strict reader words it."""
    return bool((pid[1:] <= pid[:-1]).any()) and len(np.unique(pid)) < len(pid)


# ------------------------------------------------------------------------------------------------ columns to tables


def _part(files: Sequence[str], chunks: Sequence[_Chunk], artists: Vocabulary, tracks_: Vocabulary) -> Part:
    lists = np.concatenate([chunk.lists for chunk in chunks])
    file = np.repeat(np.arange(len(chunks)), [len(chunk.lists) for chunk in chunks])
    before = np.cumsum([0, *(len(chunk.names) for chunk in chunks)])[file]
    named = lists[:, playlists.NAME] >= 0
    lists[named, playlists.NAME] += before[named]
    lists[named, playlists.NAME_END] += before[named]
    names = np.concatenate([chunk.names for chunk in chunks])
    pos, artist, track = (np.concatenate(columns) for columns in list(zip(*chunks, strict=True))[2:])

    order = _order(lists, pos)
    if order is not None:
        by_pid, by_pos = order
        lists, file, pos, artist, track = lists[by_pid], file[by_pid], pos[by_pos], artist[by_pos], track[by_pos]
    pid, n_entries = lists[:, playlists.PID], lists[:, playlists.N_ENTRIES]
    ends = np.cumsum(n_entries)
    artist, artist_order, artist_uses = _in_order(artist, ends, artists, order is not None)
    track, track_order, track_uses = _in_order(track, ends, tracks_, order is not None)
    return Part(
        tuple(files),
        pa.table(
            {
                "pid": int64(pid),
                "name": _names(names, lists[:, playlists.NAME], lists[:, playlists.NAME_END]),
                "num_tracks": int64(lists[:, playlists.NUM_TRACKS]),
                "n_entries": int64(n_entries),
                "n_followers": _optional(lists[:, playlists.FOLLOWERS]),
                "modified_at": _optional(lists[:, playlists.MODIFIED]),
                "collaborative": bools(lists[:, playlists.COLLABORATIVE] == 1, lists[:, playlists.COLLABORATIVE] >= 0),
                "file": int32(file),
            }
        ),
        pa.table(
            {"pid": int64(np.repeat(pid, n_entries)), "pos": int64(pos), "artist": int32(artist), "track": int32(track)}
        ),
        pa.table(_shared_columns(artists, artist_order) | artist_uses),
        pa.table(_shared_columns(tracks_, track_order) | _track_columns(tracks_, track_order, artists) | track_uses),
    )


def _order(lists: NDArray[np.int64], pos: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
    """The playlists by pid and the entries by pid and pos; None where they lie so."""
    pid, n_entries = lists[:, playlists.PID], lists[:, playlists.N_ENTRIES]
    holder = np.repeat(np.arange(len(pid)), n_entries)
    within = bool(((pos[1:] < pos[:-1]) & (holder[1:] == holder[:-1])).any())
    if not within and (pid[1:] > pid[:-1]).all():
        return None
    by_pid = np.argsort(pid, kind="stable")
    rank = np.empty(len(pid), np.int64)
    rank[by_pid] = np.arange(len(pid))
    return by_pid, np.lexsort((pos, rank[holder])) if within else np.argsort(rank[holder], kind="stable")


def _in_order(
    codes: NDArray[np.int32], ends: NDArray[np.int64], known: Vocabulary, moved: bool
) -> tuple[NDArray[np.int32], _Rows, dict[str, pa.Array]]:
    """Codes in the order of their first entries, the rows of `known` in that order, and the columns of their uses."""
    n = int(known.sizes[ids.N])
    mentions, in_playlists, first = tally(codes, ends, n)
    by_first: _Rows = slice(n)
    if moved:
        by_first = np.argsort(first)
        place = np.empty(n, np.int32)
        place[by_first] = np.arange(n, dtype=np.int32)
        codes = place[codes]
    uses = {
        "n_mentions": int64(mentions[by_first]),
        "n_playlists": int64(in_playlists[by_first]),
        "first_pid": int64(known.entries[by_first, ids.PID].view(np.int64)),
    }
    return codes, by_first, uses


def _shared_columns(known: Vocabulary, rows: _Rows) -> dict[str, pa.Array]:
    entries = known.entries
    return {
        "id": _ids(entries[rows, ids.KEY : ids.KEY + 3]),
        "name": _names(known.names, entries[rows, ids.NAME].view(np.int64), entries[rows, ids.NAME_END].view(np.int64)),
    }


def _track_columns(known: Vocabulary, rows: _Rows, artists: Vocabulary) -> dict[str, pa.Array]:
    entries = known.entries
    album = entries[rows, ids.ALBUM : ids.ALBUM + 3]
    duration = entries[rows, ids.DURATION]
    return {
        "artist_id": _ids(artists.entries[entries[rows, ids.ARTIST].view(np.int64), ids.KEY : ids.KEY + 3]),
        "album_id": _ids(album, album[:, 0] != NO_ALBUM),
        "duration_ms": int64(duration.view(np.int64), duration != NO_DURATION),
    }


def _ids(words: NDArray[np.uint64], valid: NDArray[np.bool_] | None = None) -> pa.Array:
    raw = np.ascontiguousarray(words).view(np.uint8).reshape(len(words), 8 * words.shape[1])
    return fixed(raw[:, :ID_LENGTH], valid)


def _names(text: NDArray[np.uint8], start: NDArray[np.int64], end: NDArray[np.int64]) -> pa.Array:
    offsets, data = gather_names(text, np.ascontiguousarray(start), np.ascontiguousarray(end))
    return strings(offsets, data, start >= 0)


def _optional(numbers: NDArray[np.int64]) -> pa.Array:
    return int64(numbers, numbers >= 0)


def warm() -> None:
    """Compile the kernels."""
    scanner = Scanner()
    text = np.frombuffer(b'{"playlists":[]}' + bytes(PAD), np.uint8).copy()  # one that may be written to
    scanner.add(Text(0, text, len(text) - PAD, True), 0)
    list(scanner.parts(["-"]))
    odd = np.zeros(PAD, np.uint8)
    scanner.add(Text(0, odd, 0, True), 0)
