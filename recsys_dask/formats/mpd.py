"""The strict reader of Million Playlist Dataset slices: msgspec decodes and checks, every error names its place."""

from __future__ import annotations

import gc
import re
import zlib
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
from recsys_dask.formats.inputs import open_plain
from recsys_dask.formats.splitting import Around, Twice, segments, too_deep

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


class Wrong(Exception):
    """A fault on its way to the caller; `file` is its place among the paths that are read."""

    def __init__(self, file: int, where: str, message: str):
        self.file, self.where, self.message = file, where, message

    def fault(self, paths: Sequence[str]) -> Fault:
        return Fault(paths[self.file], self.where, self.message)


class _Piece(NamedTuple):
    """Playlists of one file; `bytes` of JSON; `whole` if they are all of it."""

    file: int
    playlists: list[_Playlist]
    bytes: int
    whole: bool


_slice = msgspec.json.Decoder(_Slice)
_list = msgspec.json.Decoder(list[_Playlist])
_loose = msgspec.json.Decoder(_Loose)
_loose_list = msgspec.json.Decoder(list[msgspec.Raw])


def read(paths: Sequence[str], part_bytes: int) -> Iterator[Part | Fault]:
    """The strict reader: a `Reader` as `formats.base` describes it."""
    collecting = gc.isenabled()
    gc.disable()  # a slice is half a million objects, and not a cycle among them
    try:
        waiting: list[_Piece] = []
        for number, path in enumerate(paths):
            try:
                for piece in _pieces(path, number, part_bytes):
                    if not piece.whole:
                        yield _part([piece], paths)
                        continue
                    waiting.append(piece)
                    if sum(one.bytes for one in waiting) >= part_bytes:
                        yield from _parts(waiting, paths)
                        waiting = []
            except Wrong as wrong:
                yield wrong.fault(paths)
        yield from _parts(waiting, paths)
    finally:
        if collecting:
            gc.enable()


def _parts(pieces: list[_Piece], paths: Sequence[str]) -> Iterator[Part | Fault]:
    """Whole files as one part; one that proves wrong is named and left out."""
    while pieces:
        try:
            yield _part(pieces, paths)
            return
        except Wrong as wrong:
            yield wrong.fault(paths)
            pieces = [piece for piece in pieces if piece.file != wrong.file]


# ------------------------------------------------------------------------------------------------ text to objects


def _pieces(path: str, file: int, part_bytes: int) -> Iterator[_Piece]:
    try:
        with open_plain(path) as stream:
            head = stream.read(part_bytes + 1)
            # More than one mention of the word may be a repeated key, which only the splitting notices.
            if len(head) <= part_bytes and head.count(b'"playlists"') <= 1:
                playlists = decoded(head, _slice, _loose, file, 0, (0, 0)).playlists
                yield _Piece(file, playlists, len(head), whole=True)
                return
            done = 0
            for found in segments(stream, head, part_bytes):
                if isinstance(found, Around):
                    decoded(found.text, _slice, _loose, file, 0, (found.moved_at, found.moved))
                    continue
                playlists = decoded(b"[" + found.text + b"]", _list, _loose_list, file, done, (0, found.start - 1))
                if playlists:
                    yield _Piece(file, playlists, len(found.text), whole=False)
                    done += len(playlists)
    except Twice:
        raise Wrong(file, "", "the root object has `playlists` twice") from None
    except EOFError:
        raise Wrong(file, "", "the compressed file ends early") from None
    except (OSError, zlib.error) as error:
        raise Wrong(file, "", f"cannot be read: {getattr(error, 'strerror', None) or error}") from None


def decoded(text: bytes, decoder: Any, loose: Any, file: int, first: int, left_out: tuple[int, int]) -> Any:
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
            text.decode()
        except UnicodeDecodeError as error:
            raise Wrong(file, f"byte {offset(error.start):,}", f"not UTF-8: {error.reason}") from None
        raise Wrong(file, "", "not UTF-8") from None


_BYTE = re.compile(r" \(byte (\d+)\)$")
_PATH = re.compile(r"(?:\.playlists)?\[(\d+)\](?:\.tracks\[(\d+)\])?(?:\.(\w+))?.*")


def _place(path: str, text: bytes, loose: Any, first: int) -> str:
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
    except (msgspec.MsgspecError, KeyError, TypeError, RecursionError):
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
    )


ENTRIES = pa.schema(
    [("pid", pa.int64()), ("name", pa.string()), ("num_tracks", pa.int64()), ("pos", pa.int64())]
    + [(name, pa.string()) for name in ("artist_id", "artist_name", "track_id", "track_name", "album_id")]
    + [("duration_ms", pa.int64())]
)
"""The columns of `read_entries`."""


def read_entries(path: str) -> pa.Table:
    """One file's entries as they stand, a row each, by pid and pos. Raises `Wrong`."""
    pieces = list(_pieces(path, 0, SEGMENT_BYTES))
    playlists, _, pid = _by_pid(pieces)
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
