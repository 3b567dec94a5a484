"""Awkward inputs: playlists that the format allows but nobody expects, and many ways to print them."""

from __future__ import annotations

import gzip
import json
import os
import random
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from hypothesis import strategies as st

MAX = 2**63 - 1

IDS = (
    "4gzpq5DPGxSnKTe4SA8HAU",
    "0000000000000000000000",
    "0000000000000000000001",  # as the one above but for the last character
    "00000000AAAAAAAAAAAAAA",  # the same first 8 characters
    "00000000aaaaaaaaaaaaaa",
    "AAAAAAAAAAAAAAAAAAAAAA",  # by bytes, digits come before capitals and those before small letters
    "aAAAAAAAAAAAAAAAAAAAAA",
    "ZZZZZZZZZZZZZZZZZZZZZZ",
    "aaaaaaaaaaaaaaaaaaaaaa",
    "zzzzzzzzzzzzzzzzzzzzzz",
)
"""A small alphabet, of artists, tracks and albums alike: all three share ids."""

TEXTS = (
    "Road trip",
    "",
    " ",
    '"',
    '"quoted", and "again"',
    "\\",
    'ends in \\"',
    "two\nlines\r\n\ttab",
    "\x00\x01\x1f\x7f",
    "\u2028\u2029\ufeff\uffff",
    "Beyoncé",
    "Beyonce\u0301",
    "😀👩‍👩‍👧 𝕏",
    "日本語",
    "null",
    "a,b;c",
    '{"playlists": [',
    ']}, {"pid": 1}, "tracks": [',
    r"\u0041\ud83d",
    "x" * 300,
)

_DEEP: Any = None
for _ in range(80):
    _DEEP = [_DEEP]

_MISSING = object()

# Strategies are built once, here: built anew for every draw they take most of a test's time.

texts = st.sampled_from(TEXTS) | st.text(max_size=12)
"""Any text without lone surrogates."""

naturals = st.integers(0, 300) | st.integers(0, MAX)


def _optional(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """A value (mostly), null, or no such field: see `_present`."""
    return st.one_of(values, values, st.none(), st.just(_MISSING))


def _present(fields: dict[str, Any], extra: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not _MISSING} | extra


_inner_names = st.sampled_from(("pid", "tracks", "playlists", "pos", "artist_uri", "", "\n"))
_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_inner_names, inner, max_size=3),
    max_leaves=6,
)
_unknown_names = st.sampled_from(("extra", "Pid", "track", "tracks ", "", '"é\\\n', "playlists", "info"))
_unknown = st.dictionaries(_unknown_names, _values, min_size=1, max_size=2)
extras = st.one_of(*[st.just({})] * 3, _unknown)
"""Fields that the format does not know, mostly none; inside they may have the names of those it knows."""
_no_extras: st.SearchStrategy[dict[str, Any]] = st.just({})

_ids = st.sampled_from(IDS)
_entry = st.fixed_dictionaries(
    {
        "artist_name": texts,
        "track_uri": _ids.map("spotify:track:".__add__),
        "artist_uri": _ids.map("spotify:artist:".__add__),
        "track_name": texts,
        "album_uri": _optional(_ids.map("spotify:album:".__add__)),
        "duration_ms": _optional(naturals),
        "album_name": _optional(texts),
    }
)
# An entry without its `pos`. Ids are drawn apart: a track has several artists, an id several names.
_plain_catalogue = st.lists(st.builds(_present, _entry, _no_extras), min_size=1, max_size=12)
_odd_catalogue = st.lists(st.builds(_present, _entry, extras), min_size=1, max_size=12)

_head = st.fixed_dictionaries(
    {
        "name": _optional(texts),
        "collaborative": _optional(st.sampled_from(("false", "true"))),
        "modified_at": _optional(naturals),
        "num_albums": _optional(naturals),
        "num_followers": _optional(naturals),
        "num_edits": _optional(naturals),
        "duration_ms": _optional(naturals),
        "num_artists": _optional(naturals),
        "description": _optional(texts),
    }
)
_other_num_tracks = st.integers(0, 8) | naturals


def _positions(draw: st.DrawFn, n: int) -> list[int]:
    """`pos` of n entries: counted up as it should be, with gaps, all equal, falling, or anything."""
    manner = draw(st.sampled_from(("counted", "gaps", "equal", "falling", "any")))
    if manner == "any":
        return draw(st.lists(st.sampled_from((*range(n), MAX)), min_size=n, max_size=n))
    orderly = {
        "counted": range(n),
        "gaps": range(2, 3 * n + 2, 3),
        "equal": [0] * n,
        "falling": range(n, 0, -1),
    }
    return list(orderly[manner])


def _playlist(
    draw: st.DrawFn,
    pid: int,
    entry: st.SearchStrategy[dict[str, Any]],
    extra: st.SearchStrategy[dict[str, Any]],
    max_tracks: int,
) -> dict[str, Any]:
    n = draw(st.integers(0, max_tracks))
    chosen = draw(st.lists(entry, min_size=n, max_size=n))
    num_tracks = n if draw(st.integers(0, 2)) else draw(_other_num_tracks)
    tracks = [{"pos": pos, **fields} for pos, fields in zip(_positions(draw, n), chosen, strict=True)]
    return _present({"pid": pid, **draw(_head), "num_tracks": num_tracks, "tracks": tracks}, draw(extra))


@st.composite
def playlists(draw: st.DrawFn, min_size: int = 0, max_size: int = 10, max_tracks: int = 40) -> list[dict[str, Any]]:
    """Playlists as `json.load` would give them, distinct pids in any order.

    All entries come from a catalogue of at most 12, so artists and tracks repeat within and across playlists.
    Half of the examples have no unknown fields, and few have a very deep one: a fast reader may give way to a
    careful one where it meets such things, and both are to be tried.
    """
    pids = draw(st.lists(naturals, min_size=min_size, max_size=max_size, unique=True))
    odd = draw(st.booleans())
    entry = st.sampled_from(draw(_odd_catalogue if odd else _plain_catalogue))
    extra = extras if odd else _no_extras
    drawn = [_playlist(draw, pid, entry, extra, max_tracks) for pid in pids]
    if drawn and odd and draw(st.integers(0, 4)) == 4:
        drawn[-1]["deep"] = _DEEP
    return drawn


@dataclass(frozen=True)
class Printing:
    """A way to print a slice.

    `shuffle` seeds another order of keys for every object; `decoy` puts an unknown field with a `playlists`
    of its own beside the real one.
    """

    name: str
    indent: int | str | None = None
    separators: tuple[str, str] = (",", ":")
    ascii: bool = True
    newline: str = "\n"
    shuffle: int | None = None
    info: Literal["first", "last", "none"] = "first"
    decoy: bool = False
    gz: bool = False

    def text(self, playlists: list[dict[str, Any]], slice_name: str = "0-999") -> str:
        """The slice as JSON."""
        info = {"generated_on": "2017-12-03 08:41:42.057563", "slice": slice_name, "version": "v1"}
        root: dict[str, Any] = {"info": info} if self.info == "first" else {}
        if self.decoy:
            root["also"] = {"playlists": [{"pid": "not one"}], "]": '"playlists": ['}
        root["playlists"] = playlists
        if self.info == "last":
            root["info"] = info
        if self.shuffle is not None:
            root = _shuffled(root, random.Random(self.shuffle))
        text = json.dumps(
            root, indent=self.indent, separators=self.separators, ensure_ascii=self.ascii, allow_nan=False
        )
        return text.replace("\n", self.newline)  # a line end inside a string is printed as \n: two characters


def _shuffled(value: Any, rng: random.Random) -> Any:
    if isinstance(value, list):
        return [_shuffled(one, rng) for one in value]
    if not isinstance(value, dict):
        return value
    names = list(value)
    rng.shuffle(names)
    return {name: _shuffled(value[name], rng) for name in names}


PYTHON2 = Printing("python2", indent=4, separators=(", ", ": "))
"""As the real files: four blanks a level, a blank after every comma at a line's end, ASCII."""

LAYOUTS = (
    PYTHON2,
    Printing("compact"),
    Printing("pretty", indent=2, separators=(",", ": ")),
    Printing("loose", separators=(" , ", " :\t")),
    Printing("windows", indent="\t", separators=(",", ": "), newline="\r\n"),
)

PRINTINGS = (
    *LAYOUTS,
    replace(PYTHON2, name="python2-utf8", ascii=False),
    Printing("utf8", ascii=False),
    Printing("info-last", info="last"),
    Printing("no-info", info="none"),
    Printing("decoy", decoy=True),
    Printing("shuffled", shuffle=1),
    replace(PYTHON2, name="python2-shuffled", shuffle=2),
    replace(PYTHON2, name="python2-gz", gz=True),
    Printing("utf8-gz", ascii=False, gz=True),
)
"""One for every oddity: `pytest.mark.parametrize("printing", PRINTINGS, ids=lambda p: p.name)`."""


def printings() -> st.SearchStrategy[Printing]:
    """Any combination of the oddities; the real files' way is the simplest."""
    return st.builds(
        lambda layout, **odd: replace(layout, name="drawn", **odd),
        st.sampled_from(LAYOUTS),
        ascii=st.sampled_from((True, False)),
        shuffle=st.none() | st.integers(0, 9),
        info=st.sampled_from(("first", "last", "none")),
        decoy=st.booleans(),
        gz=st.booleans(),
    )


def write_slices(
    folder: str | os.PathLike[str],
    playlists: Iterable[dict[str, Any]],
    n_files: int = 1,
    printing: Printing = PYTHON2,
) -> list[str]:
    """Writes `n_files` slices mpd.slice.0-999.json, mpd.slice.1000-1999.json … (.gz) and returns their paths.

    Slices hold the playlists in order, unequal numbers of them, some perhaps none; equal calls cut alike.
    """
    playlists = list(playlists)
    rng = random.Random(n_files)
    cuts = sorted(rng.randint(0, len(playlists)) for _ in range(n_files - 1))
    ends = [0, *cuts, len(playlists)]
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    paths = []
    for number in range(n_files):
        slice_name = f"{1_000 * number}-{1_000 * number + 999}"
        content = printing.text(playlists[ends[number] : ends[number + 1]], slice_name).encode()
        path = target / f"mpd.slice.{slice_name}.json{'.gz' if printing.gz else ''}"
        path.write_bytes(gzip.compress(content, mtime=0) if printing.gz else content)
        paths.append(str(path))
    return paths
