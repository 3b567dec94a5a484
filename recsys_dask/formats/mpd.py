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

from recsys_dask.arrow import bools, fixed, int32, int64, optional, texts
from recsys_dask.errors import Fault
from recsys_dask.formats.base import Part
from recsys_dask.formats.coding import ID_LENGTH, ids_of, intern, tally
from recsys_dask.formats.inputs import open_plain
from recsys_dask.formats.splitting import Around, Twice, segments

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


class _Wrong(Exception):
    """A fault on its way out of this module's functions; `file` is its place among the reader's paths."""

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
            except _Wrong as wrong:
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
        except _Wrong as wrong:
            yield wrong.fault(paths)
            pieces = [piece for piece in pieces if piece.file != wrong.file]


# ------------------------------------------------------------------------------------------------ text to objects


def _pieces(path: str, file: int, part_bytes: int) -> Iterator[_Piece]:
    try:
        with open_plain(path) as stream:
            head = stream.read(part_bytes + 1)
            # More than one mention of the word may be a repeated key, which only the splitting notices.
            if len(head) <= part_bytes and head.count(b'"playlists"') <= 1:
                playlists = _decoded(head, _slice, _loose, file, 0, (0, 0)).playlists
                yield _Piece(file, playlists, len(head), whole=True)
                return
            done = 0
            for found in segments(stream, head, part_bytes):
                if isinstance(found, Around):
                    _decoded(found.text, _slice, _loose, file, 0, (found.moved_at, found.moved))
                    continue
                playlists = _decoded(b"[" + found.text + b"]", _list, _loose_list, file, done, (0, found.start - 1))
                if playlists:
                    yield _Piece(file, playlists, len(found.text), whole=False)
                    done += len(playlists)
    except Twice:
        raise _Wrong(file, "", "the root object has `playlists` twice") from None
    except EOFError:
        raise _Wrong(file, "", "the compressed file ends early") from None
    except (OSError, zlib.error) as error:
        raise _Wrong(file, "", f"cannot be read: {getattr(error, 'strerror', None) or error}") from None


def _decoded(text: bytes, decoder: Any, loose: Any, file: int, first: int, left_out: tuple[int, int]) -> Any:
    """`text` by `decoder`; `first` playlists of the file came before.

    left_out: a place in `text`, and how many bytes of the file are missing there.
    """

    def offset(byte: int) -> int:
        return byte + left_out[1] if byte >= left_out[0] else byte

    try:
        return decoder.decode(text)
    except msgspec.ValidationError as error:
        message, _, path = str(error).partition(" - at `$")
        raise _Wrong(file, _place(path.rstrip("`"), text, loose, first), message) from None
    except msgspec.DecodeError as error:
        message = str(error).removeprefix("JSON is malformed: ")
        if found := _BYTE.search(message):
            raise _Wrong(file, f"byte {offset(int(found[1])):,}", f"not JSON: {message[: found.start()]}") from None
        raise _Wrong(file, f"byte {offset(len(text)):,}", f"not JSON: {message}") from None
    except RecursionError:
        raise _Wrong(file, "", "nested too deeply") from None
    except UnicodeDecodeError as error:
        raise _Wrong(file, "", f"not UTF-8: {error.reason}") from None


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
    except (msgspec.MsgspecError, KeyError, TypeError):
        pass  # it is the pid that is wrong
    if track is not None:
        words.append(f"track {track}")
    if field is not None:
        words.append(f"field {field}")
    return ", ".join(words)


# ---------------------------------------------------------------------------------------------- objects to columns


def _part(pieces: Sequence[_Piece], paths: Sequence[str]) -> Part:
    """Playlists of one or several files as a part. Raises `_Wrong` for ids that are none and a pid met twice."""
    import pyarrow as pa

    playlists = list(chain.from_iterable(piece.playlists for piece in pieces))
    file = np.repeat(np.arange(len(pieces)), [len(piece.playlists) for piece in pieces])
    pid = np.fromiter(map(attrgetter("pid"), playlists), np.int64, len(playlists))
    if (pid[1:] <= pid[:-1]).any():
        order = np.argsort(pid, kind="stable")
        playlists, pid, file = [playlists[i] for i in order], pid[order], file[order]
        for again in np.flatnonzero(pid[1:] == pid[:-1]):
            other = paths[pieces[file[again]].file]
            raise _Wrong(pieces[file[again + 1]].file, f"pid {pid[again]}", f"is there twice, first in {other}")

    n_entries = np.fromiter((len(playlist.tracks) for playlist in playlists), np.int64, len(playlists))
    ends = np.cumsum(n_entries)
    holder = np.repeat(np.arange(len(playlists)), n_entries)
    entries = list(chain.from_iterable(map(attrgetter("tracks"), playlists)))
    pos = np.fromiter(map(attrgetter("pos"), entries), np.int64, len(entries))
    if ((pos[1:] < pos[:-1]) & (holder[1:] == holder[:-1])).any():
        order = np.lexsort((pos, holder))
        entries, pos = [entries[i] for i in order], pos[order]

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
            where = f"playlist (pid {pid[holder[row]]}), entry of pos {pos[row]}, field {field}"
            wanted = f"expected spotify:{kind}: and {ID_LENGTH} base-62 characters, got {distinct[found]!r}"
            raise _Wrong(pieces[file[holder[row]]].file, where, wanted)
        ids[kind] = found

    def vocabulary(kind: str) -> dict[str, pa.Array]:
        mentions, in_playlists, rows = uses[kind]
        return {
            "n_mentions": int64(mentions),
            "n_playlists": int64(in_playlists),
            "first_pid": int64(pid[holder[rows]]),
        }

    firsts = [entries[row] for row in first["track"]]
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
                "name": texts([entries[row].artist_name for row in first["artist"]]),
                **vocabulary("artist"),
            }
        ),
        pa.table(
            {
                "id": fixed(ids["track"]),
                "name": texts([entry.track_name for entry in firsts]),
                "artist_id": fixed(ids["artist"][codes["artist"][first["track"]]]),
                "album_id": fixed(
                    ids["album"][codes["album"][first["track"]]],
                    np.array([entry.album_uri is not None for entry in firsts], bool),
                ),
                "duration_ms": optional([entry.duration_ms for entry in firsts]),
                **vocabulary("track"),
            }
        ),
    )
