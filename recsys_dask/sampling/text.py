"""A slice as text: ids, names and durations are hashes of an index, printed as Python 2's json module did."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial
from itertools import chain
from textwrap import indent
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys_dask.errors import UsageError
from recsys_dask.sampling.world import (
    ALBUM,
    ALBUM_TRACKS,
    ARTIST,
    LONGEST,
    PER_SLICE,
    SCENES,
    TRACK,
    Draw,
    Ints,
    World,
    draw,
    keys,
    with_copies,
)

Words = NDArray[np.uint64]

AWKWARD = (
    "",
    " ",
    "  blanks around\u00a0 ",
    "The \"Quoted\" 'Ones'",
    '"',
    "back\\slash \\u0041 \\n \\",
    "AC/DC \\/ slash",
    "two\nlines\r\nand a third",
    "tab\tand\ttab",
    "control \x00\x01\x08\x0b\x0c\x1b\x1f\x7f\u2028\u2029",
    "party \U0001f389\U0001f469\u200d\U0001f469\u200d\U0001f467 \U0001f1e7\U0001f1f7",
    "\u690e\u540d\u6797\u6a8e / \ubc29\ud0c4\uc18c\ub144\ub2e8",
    "\u0641\u064a\u0631\u0648\u0632 \u05e9\u05dc\u05d5\u05dd \u202eback",
    "Z\u0301a\u0308l\u0335g\u0338o\u0336 e\u0301",
    "<b>bold</b> & &amp; <script>alert(1)</script>",
    "Earth, Wind, Water, ",
    '}], "pid": 1, "tracks": [{',
    "%s %d {0} {name} =1+1",
    "null",
    "la " * 700 + "end",
)


# Names are put together from pieces that are kept as JSON prints them; 32 × 32 words give each artist two.
_STARTS = str.split(
    "Bal Cor Del Fen Gar Hol Iv Jun Kal Lor Mar Nol Orp Pel Quin Ros Sil Tam Ul Vel Wes Yar Zan Ad Brin Clav "
    "\u00c9l Drav Fl\u00f8s \u00d6st Prin Tref"
)
_ENDS = str.split(
    "ora in ette ando is ley mont una ero wick ia ell oth ani ese ur ison ova ath yn ard ilo en umi ast ow "
    "bury ama ix \u00edn e\u00f1o is\u00e9"
)
_MOODS = str.split("Silver Midnight Golden Broken Electric Little Wild Lonely Paper Crystal Neon Slow Blue")
_NOUNS = str.split("River Heart Fire Dream Road Rain Night Summer Ocean Letter Mirror Garden Shadow Train")
_TITLES = ("{0} {1}", "{2}", "{0} {2}", "{1} of {2}", "My {0} {1}", "{1} (feat. {2})", "{2} - Live")
_ARTISTS = ("{0} {1}",) * 13 + ("The {0} {1}", "DJ {0} {1}", "{0} & {1}")
_LISTS = ("{3}", "{0} {3}", "{3} {4}", "my {3} mix", "{1}", "best of {3} {4}", "{0} {1}", "{2}'s {3}")
_ABOUT = ("{3} for a {0} {1}", "the best {3} of {4}, all in one place. Thanks, {2}!")
_WORDS = tuple(json.dumps(start + end)[1:-1] for start in _STARTS for end in _ENDS)
_ODD = tuple(json.dumps(text)[1:-1] for text in AWKWARD)
_BASE62 = np.frombuffer(b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ", np.uint8)


def _template(shape: dict[str, Any], depth: int) -> str:
    """A `%` template, printed as Python 2's `json.dumps(indent=4)` did: a blank behind a line's comma."""
    text = json.dumps(shape, indent=4, separators=(", ", ": "))
    return indent(text.replace('"%d"', "%d").replace('"%d%s"', "%d%s"), " " * 4 * depth)


_FILE = _template({"info": {"generated_on": "2017-12-03 08:41:42.057563", "slice": "%s", "version": "v1"}}, 0)
_FILE_HEAD = _FILE.removesuffix("\n}") + ', \n    "playlists": [\n'
_FILE_TAIL = "\n    ]\n}"
_BEFORE = dict(name="%s", collaborative="%s", pid="%d", modified_at="%d", num_tracks="%d", num_albums="%d")
_BEHIND = dict(num_edits="%d", duration_ms="%d", num_artists="%d%s")
_PLAYLIST = _template(_BEFORE | dict(num_followers="%d", tracks=["TRACKS"]) | _BEHIND, 2)
_HEAD, _, _TAIL = _PLAYLIST.partition(" " * 16 + '"TRACKS"')
_DESCRIPTION = ', \n            "description": "%s"'
_TRACK = dict(pos="%d", artist_name="%s", track_uri="spotify:track:%s", artist_uri="spotify:artist:%s")
_TRACK |= dict(track_name="%s", album_uri="spotify:album:%s", duration_ms="%d", album_name="%s")
_POS, _, _REST = _template(_TRACK, 4).partition("%d, \n")
_PLACES = tuple((", \n" if pos else "") + _POS + str(pos) + ", \n" for pos in range(LONGEST))


def scene_of(world: World) -> dict[str, int]:
    """The scene of each artist, by its bare id: the planted answer."""
    return dict(zip(_ids(world, ARTIST, np.arange(len(world.scene))), world.scene.tolist(), strict=True))


def slice_text(world: World, number: int) -> bytes:
    """The whole file of slice `number`, from 0. Raises `UsageError` if the world has no such slice."""
    if not 0 <= number < world.slices:
        raise UsageError(f"no slice {number}: {world.playlists} playlists are slices 0 to {world.slices - 1}")
    drawn = with_copies(world, number, draw(world, number))
    heads, tails = _playlist_texts(world, number, drawn)
    tracks, which = _track_texts(world, drawn)
    entries = iter([tracks[at] for at in which.tolist()])
    first = number * PER_SLICE
    pieces = [_FILE_HEAD % f"{first}-{first + len(heads) - 1}"]
    for head, tail, length in zip(heads, tails, drawn.length.tolist(), strict=True):
        pieces.append(head)
        # The places run out first, so that the next playlist's entry is not taken from the iterator.
        pieces.extend(chain.from_iterable(zip(_PLACES[:length], entries, strict=False)))
        pieces.append(tail)
    pieces[-1] = pieces[-1].removesuffix(", \n")
    pieces.append(_FILE_TAIL)
    return "".join(pieces).encode("ascii")


def _mix(word: Words) -> Words:
    """SplitMix64's finaliser (Steele, Lea and Flood 2014): a bijection, so distinct words stay distinct."""
    word = (word ^ (word >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    word = (word ^ (word >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return word ^ (word >> np.uint64(31))


def _hash(world: World, kind: int, index: Ints) -> Words:
    """64 bits for each (kind, index), all distinct within a world."""
    key = np.random.SeedSequence(world.seed).generate_state(1, np.uint64)
    return _mix(_mix(index.astype(np.uint64) + np.uint64(kind << 48)) ^ key)


def _ids(world: World, kind: int, index: Ints) -> list[str]:
    """22 base-62 characters each: the hash in 11 of them keeps ids distinct, 11 more fill up."""
    word = _hash(world, kind, index)
    digits = np.empty((len(index), 22), np.uint8)
    for half, rest in enumerate((word, _mix(word))):
        for place in range(11 * half, 11 * half + 11):
            rest, digits[:, place] = np.divmod(rest, np.uint64(62))
    text = _BASE62[digits].tobytes().decode("ascii")
    return [text[at : at + 22] for at in range(0, len(text), 22)]


def _pick(choices: Sequence[str], word: Words, shift: int) -> list[str]:
    """One of the choices for each word, by 16 bits of it from `shift` on."""
    at = (word >> np.uint64(shift)) % np.uint64(1 << 16) % np.uint64(len(choices))
    return [choices[one] for one in at.tolist()]


# Writing: names and JSON text


def _artist_names(world: World, artist: Ints) -> list[str]:
    """Names as JSON prints them, one artist one name; some of the popular ones are awkward."""
    # An odd factor permutes the numbers below 2²⁰, the pairs of words; the golden ratio spreads them.
    pair = (artist * 648_055 + world.seed % (1 << 20)) % (1 << 20)
    forms = _pick(_ARTISTS, _hash(world, ARTIST, artist), 0)
    pairs = zip(forms, (pair >> 10).tolist(), (pair & 1023).tolist(), strict=True)
    names = [form.format(_WORDS[first], _WORDS[last]) for form, first, last in pairs]
    for at in np.flatnonzero((artist % 50 == 49) & (artist < 50 * len(_ODD))).tolist():
        names[at] = _ODD[artist[at] // 50]
    return names


def _titles(world: World, kind: int, index: Ints) -> list[str]:
    """Titles of tracks or albums as JSON prints them, one in 64 of them awkward."""
    word = _hash(world, kind, index)
    parts = (_pick(choices, word, 16 * at) for at, choices in enumerate((_TITLES, _MOODS, _NOUNS, _WORDS)))
    titles = [form.format(*words) for form, *words in zip(*parts, strict=True)]
    odd = _pick(_ODD, word, 24)
    for at in np.flatnonzero(word % np.uint64(64) == 0).tolist():
        titles[at] = odd[at]
    return titles


def _once(make: Callable[[Ints], list[str]], index: Ints) -> list[str]:
    """A text for each index, made once for each distinct one."""
    distinct, which = np.unique(index, return_inverse=True)
    made = make(distinct)
    return [made[at] for at in which.tolist()]


def _album(world: World, artist: Ints, track: Ints) -> Ints:
    """An album's number is that of its first track."""
    return track - (track - world.first_track[artist]) % ALBUM_TRACKS


def _duration_ms(world: World, track: Ints) -> Ints:
    """Two to six minutes, mostly near four: the sum of two dice."""
    word = _mix(_hash(world, TRACK, track))
    first, second = word % np.uint64(120_000), (word >> np.uint64(32)) % np.uint64(120_000)
    return (np.uint64(120_000) + first + second).astype(np.int64)


def _track_texts(world: World, draw: Draw) -> tuple[list[str], Ints]:
    """What stands behind `pos`, for each distinct track of the slice, and which of them each entry is."""
    track, first, which = np.unique(draw.track, return_index=True, return_inverse=True)
    artist = draw.artist[first]
    album = _album(world, artist, track)
    columns = (
        _once(partial(_artist_names, world), artist),
        _ids(world, TRACK, track),
        _once(partial(_ids, world, ARTIST), artist),
        _titles(world, TRACK, track),
        _once(partial(_ids, world, ALBUM), album),
        _duration_ms(world, track).tolist(),
        _once(partial(_titles, world, ALBUM), album),
    )
    return [_REST % row for row in zip(*columns, strict=True)], which


def _distinct(length: Ints, item: Ints) -> list[int]:
    """How many distinct items each playlist holds."""
    playlist = np.unique(keys(length, item)) // (item.max() + 1)
    counts: list[int] = np.bincount(playlist).tolist()
    return counts


def _playlist_texts(world: World, number: int, draw: Draw) -> tuple[list[str], list[str]]:
    """What stands before and behind the tracks of each playlist."""
    rng = np.random.default_rng([world.seed, number + 1, 2])
    n = len(draw.length)
    start = np.cumsum(draw.length) - draw.length
    duration = np.add.reduceat(_duration_ms(world, draw.track), start).tolist()
    albums = _distinct(draw.length, _album(world, draw.artist, draw.track))
    artists = _distinct(draw.length, draw.artist)
    collaborative = [("false", "true")[flag] for flag in (rng.random(n) < 0.02).tolist()]
    modified = (86_400 * rng.integers(15_000, 17_471, n)).tolist()  # midnights of 2011 to 2017
    followers = np.minimum(rng.zipf(2.5, n), 70_000).tolist()
    edits = (1 + rng.integers(0, 2 + draw.length)).tolist()
    names = _phrases(_LISTS, rng, draw.scene)
    about = _phrases(_ABOUT, rng, draw.scene)
    described = rng.random(n) < 0.03
    for at in range(7, n, 40):
        names[at] = about[at] = _ODD[at // 40 % len(_ODD)]
        described[at] = True
    description = [_DESCRIPTION % text if said else "" for said, text in zip(described, about, strict=True)]
    pid = range(number * PER_SLICE, number * PER_SLICE + n)
    before = zip(names, collaborative, pid, modified, draw.length.tolist(), albums, followers, strict=True)
    behind = zip(edits, duration, artists, description, strict=True)
    return [_HEAD % row for row in before], [_TAIL % row + ", \n" for row in behind]


def _phrases(forms: Sequence[str], rng: np.random.Generator, scene: Ints) -> list[str]:
    """A name or description for each playlist, that mostly tells its scene."""
    word = rng.integers(0, 1 << 64, len(scene), np.uint64)
    parts = [_pick(choices, word, 16 * at) for at, choices in enumerate((forms, _MOODS, _NOUNS, _WORDS))]
    years = rng.integers(2011, 2018, len(scene)).tolist()
    rows = zip(*parts, scene.tolist(), years, strict=True)
    return [form.format(*words, SCENES[place], year) for form, *words, place, year in rows]
