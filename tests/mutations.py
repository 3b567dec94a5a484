"""Slices that are right, and what may go wrong with them: small ones, by the hundred thousand, for two readers to
agree on."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from random import Random
from typing import Any

BASE62 = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
NAMES = [
    "Plain",
    "Beyonc\u00e9",
    "\u591c\u306b \U0001f3a7",
    'q"uo\\te/\b\f\n\r\t',
    "",
    " ",
    "x" * 31,
    "y" * 32,
    "z" * 33,
    "a\u0000b",
    "\u007f\u0080\u07ff\u0800\uffff",
    "long " * 20 + "\u00e9",
    "\U0001f3a7" * 9,
    "null",
    "\u05e9\u05dc\u05d5\u05dd",
]
EXTRA_KEYS = ["extra", "\u00e9xtra", "po", "poss", "artist_nam", "album_name", "xlbum_uri", "playlists", "", "k" * 40]
EXTRA_VALUES: list[Any] = [
    None, True, False, -1.5e-7, 0, "s\u00e9", "\\", [], {}, [1, [2, {"pos": 3}]], {"a": {"pos": 1, "b": []}},
    12345678901234567890, [[[[]]]], {"playlists": [{"pid": 1}]}, "x" * 70,
]  # fmt: skip


def an_id(random: Random) -> str:
    return "".join(random.choices(BASE62, k=22))


def a_slice(random: Random, ids: list[str], first_pid: int) -> tuple[bytes, bool]:
    """A slice that is right, and whether the scanner must take it: no id and no key is escaped."""
    shuffled, extra, optional = random.random() < 0.3, random.random() < 0.4, random.random() < 0.3

    def told(pairs: dict[str, Any], may_lack: tuple[str, ...]) -> dict[str, Any]:
        if optional:
            for key in may_lack:
                if random.random() < 0.2:
                    pairs[key] = None
                elif random.random() < 0.2:
                    del pairs[key]
        items = list(pairs.items())
        if shuffled:
            random.shuffle(items)
        if extra and random.random() < 0.3:
            items.insert(random.randrange(len(items) + 1), (random.choice(EXTRA_KEYS), random.choice(EXTRA_VALUES)))
        return dict(items)

    def track(pos: int) -> dict[str, Any]:
        pairs = {
            "pos": pos,
            "artist_name": random.choice(NAMES),
            "track_uri": f"spotify:track:{random.choice(ids)}",
            "artist_uri": f"spotify:artist:{random.choice(ids[:5])}",
            "track_name": random.choice(NAMES),
            "album_uri": f"spotify:album:{random.choice(ids)}",
            "duration_ms": random.choice([0, 7, 226863, 2147483647]),
            "album_name": random.choice(NAMES),
        }
        return told(pairs, ("album_uri", "duration_ms"))

    def playlist(pid: int) -> dict[str, Any]:
        n = random.randrange(100, 400) if random.random() < 0.005 else random.randrange(5)
        places = list(range(n))
        if random.random() < 0.1:
            places = [random.randrange(9) for _ in places]
        pairs = {
            "name": random.choice(NAMES),
            "collaborative": random.choice(["true", "false"]),
            "pid": pid,
            "modified_at": 1493424000,
            "num_tracks": n,
            "num_albums": 3,
            "num_followers": random.choice([0, 1, 123456789012]),
            "tracks": [track(pos) for pos in places],
            "num_edits": 6,
            "duration_ms": 5,
            "num_artists": 2,
        }
        if random.random() < 0.3:
            pairs["description"] = random.choice(NAMES)
        return told(pairs, ("name", "collaborative", "modified_at", "num_followers"))

    n = random.randrange(100, 300) if random.random() < 0.003 else random.randrange(4)
    pids = list(range(first_pid, first_pid + n))
    if random.random() < 0.1:
        random.shuffle(pids)
    root = {"info": {"slice": "0-999", "version": "v1"}, "playlists": [playlist(pid) for pid in pids]}
    if random.random() < 0.2:
        root = dict(reversed(root.items()))
    style = random.choice(
        [
            {"indent": 4, "separators": (", ", ": ")},
            {"separators": (",", ":")},
            {"indent": "\t"},
            {"indent": 1},
            {},
        ]
    )
    text = json.dumps(root, ensure_ascii=random.random() < 0.5, **style)
    if random.random() < 0.1:
        text = text.replace("\n", "\r\n")
    plain = random.random() > 0.1
    if not plain:
        text = text.replace("/", "\\/").replace(":track:", "\\u003atrack:")
    return text.encode(), plain and '\\u00e9xtra"' not in text


PIECES = [
    b'"', b"\\", b",", b":", b"{", b"}", b"[", b"]", b" ", b"\n", b"\x00", b"\xff", b"\xc3\xa9", b"\xed\xa0\x80",
    b"\\ud83c", b"\\udfa7", b"\\u00e9", b"\\u12", b"\\x", b"\\/", b"0", b"-", b"1", b".5", b"e3", b"null", b"true",
    b'"pos": 1, ', b'"pid":3,', b'"x": [], ', b'"tracks": [],', b'"playlists": [],', b"spotify:", b"\t", b"\xc0\x80",
    b"\xf0\x9f\x8e\xa7", b"\xf5\x80\x80\x80", b"\x7f", b"\x1f", b"\xef\xbb\xbf", b"[" * 70, b"]" * 70, b'{"a":' * 61,
]  # fmt: skip
NUMBERS = [
    b"-1", b"-0", b"01", b"00", b"1.0", b"1e3", b"1E+2", b"0.5", b"2147483647", b"2147483648", b"99999999999",
    b"123456789012345678", b"1234567890123456789", b"9223372036854775807", b"9223372036854775808", b"1" * 40, b"null",
    b'"5"', b"true", b"[]", b"{}", b"+1", b" 1", b"1 ",
]  # fmt: skip
TEXTS = [
    b'""', b'"\\u0000"', b'"\\ud83d\\ude00"', b'"\\ud83d"', b'"\\ude00"', b'"\\uD83D\\u0041"', b'"\xed\xa0\x80"',
    b'"\xc3"', b'"\xf0\x9f\x98\x80"', b'"\\b\\f\\n\\r\\t\\/\\\\\\""', b'"' + b"\\u00e9" * 20 + b'"', b"null", b"1",
    b'"true"', b'"false"', b'"tru\\u0065"', b'"spotify:track:0000000000000000000000"',
    b'"spotify:artist:000000000000000000000"', b'"spotify:album:00000000000000000000000"', b'"x\x00y"', b'"x\ny"',
    b'"' + b"x" * 31 + b'\\n"', b'"' + b"y" * 30 + b'\xc3\xa9"',
]  # fmt: skip
_KEY = re.compile(rb'"(\w+)"\s*:')
_NUMBER = re.compile(rb"(?<=[:\s])\d+")
_TEXT = re.compile(rb'"[^"\\]*"')


def _any(random: Random, pattern: re.Pattern[bytes], text: bytearray) -> tuple[int, int] | None:
    """Where some match stands: the first behind a random place, so that not all are looked for."""
    found = pattern.search(text, random.randrange(len(text))) or pattern.search(text)
    return found.span() if found else None


def _byte(text: bytearray, random: Random) -> None:
    text[random.randrange(len(text))] = random.randrange(256)


def _bit(text: bytearray, random: Random) -> None:
    text[random.randrange(len(text))] ^= 1 << random.randrange(8)


def _cut(text: bytearray, random: Random) -> None:
    at = random.randrange(len(text))
    del text[at : at + random.choice([1, 1, 2, 8, 40])]


def _insert(text: bytearray, random: Random) -> None:
    at = random.randrange(len(text))
    text[at:at] = random.choice(PIECES)


def _overwrite(text: bytearray, random: Random) -> None:
    at, piece = random.randrange(len(text)), random.choice(PIECES)
    text[at : at + len(piece)] = piece


def _copy(text: bytearray, random: Random) -> None:
    at, source = random.randrange(len(text)), random.randrange(len(text))
    text[at:at] = text[source : source + random.choice([1, 5, 30, 200])]


def _end(text: bytearray, random: Random) -> None:
    if random.random() < 0.3:
        del text[random.randrange(len(text)) :]
    else:
        text += random.choice(PIECES)


def _number(text: bytearray, random: Random) -> None:
    if span := _any(random, _NUMBER, text):
        text[slice(*span)] = random.choice(NUMBERS)


def _text(text: bytearray, random: Random) -> None:
    if span := _any(random, _TEXT, text):
        text[slice(*span)] = random.choice(TEXTS)


def _escape_key(text: bytearray, random: Random) -> None:
    if span := _any(random, _KEY, text):
        at = span[0] + 1 + random.randrange(max(1, text.index(b'"', span[0] + 1) - span[0] - 1))
        text[at : at + 1] = b"\\u%04x" % text[at]


def _double_key(text: bytearray, random: Random) -> None:
    """The key of one value also before another: mostly one that the object has already."""
    one, other = _any(random, _KEY, text), _any(random, _KEY, text)
    if one and other:
        text[other[0] : other[0]] = text[slice(*one)] + random.choice([b"1,", b'"",', b"[],", b"null,", *NUMBERS])


def _rename_key(text: bytearray, random: Random) -> None:
    one, other = _any(random, _KEY, text), _any(random, _KEY, text)
    if one and other:
        text[slice(*other)] = text[slice(*one)]


MUTATIONS: list[Callable[[bytearray, Random], None]] = [
    _byte, _bit, _cut, _insert, _overwrite, _copy, _end, _number, _number, _text, _text, _escape_key, _double_key,
    _rename_key,
]  # fmt: skip


def mutated(text: bytes, random: Random) -> bytes:
    """The text with one to three things changed."""
    changed = bytearray(text)
    for _ in range(random.choice([1, 1, 1, 1, 1, 2, 3])):
        if len(changed) > 4:
            random.choice(MUTATIONS)(changed, random)
    return bytes(changed)
