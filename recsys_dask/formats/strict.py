"""The strict reader of Million Playlist Dataset slices: msgspec decodes and checks, every error names its place."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from itertools import chain
from operator import attrgetter
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recsys_dask.arrow import bools, fixed, int32, int64, optional, texts
from recsys_dask.errors import Fault
from recsys_dask.formats.base import Part
from recsys_dask.formats.coding import ID_LENGTH, ids_of, intern, tally
from recsys_dask.formats.splitting import Twice, segments, too_deep
from recsys_dask.formats.texts import TWO_LISTS, Text, Texts, Wrong

SEGMENT_BYTES = 1 << 26
"""Of a larger file, how much `read_entries` decodes at once."""

Natural = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class _Track(msgspec.Struct, gc=False):
    pos: Natural
    artist_name: str
    artist_uri: str
    track_name: str
    track_uri: str
    album_uri: str | None = None
    duration_ms: Natural | None = None


class _Playlist(msgspec.Struct, gc=False):
    pid: Natural
    num_tracks: Natural
    tracks: list[_Track]
    name: str | None = None
    collaborative: Literal["true", "false"] | None = None
    modified_at: Natural | None = None
    num_followers: Natural | None = None


class _Slice(msgspec.Struct, gc=False):
    playlists: list[_Playlist]


class _Loose(msgspec.Struct):
    """A slice whose playlists are not looked into: to find the pid of one that is wrong."""

    playlists: list[msgspec.Raw]


class _Piece(NamedTuple):
    """Playlists of one file."""

    file: int
    playlists: list[_Playlist]


_slice = msgspec.json.Decoder(_Slice)
_list = msgspec.json.Decoder(list[_Playlist])
_loose = msgspec.json.Decoder(_Loose)
_loose_list = msgspec.json.Decoder(list[msgspec.Raw])


class Strict:
    """A collector, as `formats.mpd` describes it, of every text; what it cannot take is wrong."""

    def __init__(self) -> None:
        self.bytes = 0
        self.pieces: list[_Piece] = []

    def add(self, text: Text, first: int) -> int:
        """How many playlists were taken from a text, before which its file had `first`. Raises `Wrong`."""
        if text.around:
            decoded(text.data, _slice, _loose, text.file, 0, text.moved)
            return 0
        if text.whole:
            _only_one_list(text)
            playlists = decoded(text.data, _slice, _loose, text.file, 0, text.moved).playlists
        else:
            playlists = decoded(text.data, _list, _loose_list, text.file, first, text.moved)
        if playlists or text.whole:
            self.pieces.append(_Piece(text.file, playlists))
            self.bytes += text.size
        return len(playlists)

    def parts(self, paths: Sequence[str]) -> Iterator[Part | Fault]:
        """What was taken as one part; files that prove wrong are named and left out."""
        pieces, self.pieces, self.bytes = self.pieces, [], 0
        while pieces:
            try:
                yield _part(pieces, paths)
                return
            except Wrong as wrong:
                yield wrong.fault(paths)
                pieces = [piece for piece in pieces if piece.file != wrong.file]


def _only_one_list(text: Text) -> None:
    """Raises `Wrong` where the root object has `playlists` twice: the decoder takes the last and says nothing."""
    if len(re.findall(b'"playlists"', text.data)) > 1:
        try:
            for _ in segments(io.BytesIO(), bytes(text.data), text.size):
                pass
        except Twice:
            raise Wrong(text.file, "", TWO_LISTS) from None


# ------------------------------------------------------------------------------------------------ text to objects


def decoded(
    text: bytes | memoryview, decoder: Any, loose: Any, file: int, first: int, left_out: tuple[int, int]
) -> Any:
    """`text` by `decoder`; `first` playlists of the file came before.

    left_out: a place in `text`, and how many bytes of the file are missing there.
    """

    def offset(byte: int) -> int:
        return byte + left_out[1] if byte >= left_out[0] else byte

    try:
        return decoder.decode(text)
    except msgspec.ValidationError as error:
        message, _, path = str(error).partition(" - at `$")
        raise Wrong(file, _place(path.rstrip("`"), text, loose, first), message) from None
    except msgspec.DecodeError as error:
        message = str(error).removeprefix("JSON is malformed: ")
        if found := _BYTE.search(message):
            raise Wrong(file, f"byte {offset(int(found[1])):,}", f"not JSON: {message[: found.start()]}") from None
        raise Wrong(file, f"byte {offset(len(text)):,}", f"not JSON: {message}") from None
    except RecursionError:
        raise Wrong(file, f"byte {offset(too_deep(text)):,}", "nested too deeply") from None
    except UnicodeDecodeError:
        try:
            bytes(text).decode()
        except UnicodeDecodeError as error:
            raise Wrong(file, f"byte {offset(error.start):,}", f"not UTF-8: {error.reason}") from None
        raise Wrong(file, "", "not UTF-8") from None


_BYTE = re.compile(r" \(byte (\d+)\)$")
_PATH = re.compile(r"(?:\.playlists)?\[(\d+)\](?:\.tracks\[(\d+)\])?(?:\.(\w+))?.*")


def _place(path: str, text: bytes | memoryview, loose: Any, first: int) -> str:
    """msgspec's path to a wrong value in words: `playlist 3 (pid 17), track 5, field pos`."""
    found = _PATH.fullmatch(path)
    if not found:
        return f"field {path.lstrip('.')}" if path else ""
    index, track, field = found.groups()
    words = [f"playlist {first + int(index)}"]
    try:
        playlists = loose.decode(text)
        raw = (playlists if isinstance(playlists, list) else playlists.playlists)[int(index)]
        words[0] += f" (pid {msgspec.json.decode(raw)['pid']})"
    except (msgspec.MsgspecError, KeyError, TypeError, RecursionError, UnicodeDecodeError):
        pass  # it is the pid that is wrong, or what stands before it
    if track is not None:
        words.append(f"track {track}")
    if field is not None:
        words.append(f"field {field}")
    return ", ".join(words)


# ---------------------------------------------------------------------------------------------- objects to columns


def _by_pid(
    pieces: Sequence[_Piece],
) -> tuple[list[_Playlist], NDArray[np.int64], NDArray[np.int64]]:
    """The pieces' playlists by pid, the place of each one's piece, and the pids. Raises `Wrong` for one met
    twice in a file; of two files, the ingest finds it among all of them."""
    playlists = list(chain.from_iterable(piece.playlists for piece in pieces))
    file = np.repeat(np.arange(len(pieces)), [len(piece.playlists) for piece in pieces])
    pid = np.fromiter(map(attrgetter("pid"), playlists), np.int64, len(playlists))
    if (pid[1:] <= pid[:-1]).any():
        order = np.argsort(pid, kind="stable")
        playlists, pid, file = [playlists[i] for i in order.tolist()], pid[order], file[order]
        path = np.array([piece.file for piece in pieces])[file]
        for again in np.flatnonzero((pid[1:] == pid[:-1]) & (path[1:] == path[:-1])):
            raise Wrong(int(path[again]), f"pid {pid[again]}", "is there twice")
    return playlists, file, pid


def _by_pos(playlists: Sequence[_Playlist]) -> tuple[list[_Track], NDArray[np.int64], NDArray[np.int64]]:
    """All entries, playlist by playlist and by pos in each; how many each playlist has; and every entry's pos."""
    n_entries = np.fromiter((len(playlist.tracks) for playlist in playlists), np.int64, len(playlists))
    entries = list(chain.from_iterable(map(attrgetter("tracks"), playlists)))
    pos = np.fromiter(map(attrgetter("pos"), entries), np.int64, len(entries))
    holder = np.repeat(np.arange(len(playlists)), n_entries)
    if ((pos[1:] < pos[:-1]) & (holder[1:] == holder[:-1])).any():
        order = np.lexsort((pos, holder))
        entries, pos = [entries[i] for i in order.tolist()], pos[order]
    return entries, n_entries, pos


def _not_an_id(kind: str, uri: str | None, pid: int, pos: int) -> tuple[str, str]:
    """Where and what is wrong with a URI."""
    wanted = f"expected spotify:{kind}: and {ID_LENGTH} base-62 characters, got {uri!r}"
    return f"playlist (pid {pid}), entry of pos {pos}, field {kind}_uri", wanted


def _part(pieces: Sequence[_Piece], paths: Sequence[str]) -> Part:
    """Playlists of one or several files as a part. Raises `Wrong` for ids that are none and a pid met twice."""
    playlists, file, pid = _by_pid(pieces)
    entries, n_entries, pos = _by_pos(playlists)
    ends = np.cumsum(n_entries)
    holder = np.repeat(np.arange(len(playlists)), n_entries)

    codes, ids, uses, first = {}, {}, {}, {}
    for kind in ("artist", "track", "album"):
        field = f"{kind}_uri"
        distinct, codes[kind] = intern(map(attrgetter(field), entries), len(entries))
        uses[kind] = _, _, first[kind] = tally(codes[kind], ends, len(distinct))
        if None in distinct:
            distinct[distinct.index(None)] = f"spotify:album:{'0' * ID_LENGTH}"  # type: ignore[arg-type]
        found = ids_of(distinct, f"spotify:{kind}:")
        if isinstance(found, int):
            row = first[kind][found]
            wrong = _not_an_id(kind, distinct[found], int(pid[holder[row]]), int(pos[row]))
            raise Wrong(pieces[file[holder[row]]].file, *wrong)
        ids[kind] = found

    def vocabulary(kind: str) -> dict[str, pa.Array]:
        mentions, in_playlists, rows = uses[kind]
        return {
            "n_mentions": int64(mentions),
            "n_playlists": int64(in_playlists),
            "first_pid": int64(pid[holder[rows]]),
        }

    first_of = {kind: [entries[row] for row in first[kind].tolist()] for kind in ("artist", "track")}
    collaborative = [playlist.collaborative for playlist in playlists]
    return Part(
        tuple(paths[piece.file] for piece in pieces),
        pa.table(
            {
                "pid": int64(pid),
                "name": texts([playlist.name for playlist in playlists]),
                "num_tracks": optional([playlist.num_tracks for playlist in playlists]),
                "n_entries": int64(n_entries),
                "n_followers": optional([playlist.num_followers for playlist in playlists]),
                "modified_at": optional([playlist.modified_at for playlist in playlists]),
                "collaborative": bools(
                    np.array([value == "true" for value in collaborative], bool),
                    np.array([value is not None for value in collaborative], bool),
                ),
                "file": int32(file),
            }
        ),
        pa.table(
            {
                "pid": int64(pid[holder]),
                "pos": int64(pos),
                "artist": int32(codes["artist"]),
                "track": int32(codes["track"]),
            }
        ),
        pa.table(
            {
                "id": fixed(ids["artist"]),
                "name": texts([entry.artist_name for entry in first_of["artist"]]),
                **vocabulary("artist"),
            }
        ),
        pa.table(
            {
                "id": fixed(ids["track"]),
                "name": texts([entry.track_name for entry in first_of["track"]]),
                "artist_id": fixed(ids["artist"][codes["artist"][first["track"]]]),
                "album_id": fixed(
                    ids["album"][codes["album"][first["track"]]],
                    np.array([entry.album_uri is not None for entry in first_of["track"]], bool),
                ),
                "duration_ms": optional([entry.duration_ms for entry in first_of["track"]]),
                **vocabulary("track"),
            }
        ),
        strictly=True,
    )


ENTRIES = pa.schema(
    [("pid", pa.int64()), ("name", pa.string()), ("num_tracks", pa.int64()), ("pos", pa.int64())]
    + [(name, pa.string()) for name in ("artist_id", "artist_name", "track_id", "track_name", "album_id")]
    + [("duration_ms", pa.int64())]
)
"""The columns of `read_entries`."""


def read_entries(path: str) -> pa.Table:
    """One file's entries as they stand, a row each, by pid and pos. Raises `Wrong`."""
    strict = Strict()
    first = 0
    with Texts([path], SEGMENT_BYTES) as found:
        for text in found.of(0):
            first += strict.add(text, first)
    playlists, _, pid = _by_pid(strict.pieces)
    entries, n_entries, pos = _by_pos(playlists)
    holder = np.repeat(np.arange(len(playlists)), n_entries)
    columns = {
        "pid": int64(pid[holder]),
        "name": texts([playlists[i].name for i in holder.tolist()]),
        "num_tracks": int64(np.array([playlist.num_tracks for playlist in playlists], np.int64)[holder]),
        "pos": int64(pos),
    }
    for kind in ("artist", "track", "album"):
        uris: list[str | None] = list(map(attrgetter(f"{kind}_uri"), entries))
        given = np.array([uri is not None for uri in uris], bool)
        ids = ids_of([uri or f"spotify:album:{'0' * ID_LENGTH}" for uri in uris], f"spotify:{kind}:")
        if isinstance(ids, int):
            raise Wrong(0, *_not_an_id(kind, uris[ids], int(pid[holder[ids]]), int(pos[ids])))
        columns[f"{kind}_id"] = fixed(ids, given)
        if kind != "album":
            columns[f"{kind}_name"] = texts(list(map(attrgetter(f"{kind}_name"), entries)))
    columns["duration_ms"] = optional([entry.duration_ms for entry in entries])
    return pa.table(columns, schema=ENTRIES)
