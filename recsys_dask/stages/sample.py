"""Slices in the form of the Million Playlist Dataset, made up: popular artists, planted scenes, odd names.

A `World` holds what the slices share: how popular each artist is, its scene, how many tracks it has. Ids,
names and durations are hashes of an index: nothing is kept for a track, and any process makes the same bytes.

The constants follow the published figures of the real set: 1,000,000 playlists of 66 tracks, 2.3
million tracks, 295,860 artists, of whom the first has 1.3 % of all mentions, the 100th 0.13 %.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import chain
from textwrap import indent
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from recsys_dask import params
from recsys_dask.errors import StoreError, UsageError
from recsys_dask.runtime.clusters import Cluster
from recsys_dask.store.files import Folder

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Words = NDArray[np.uint64]

PER_SLICE = 1_000
SHORTEST, LONGEST, MEAN_LENGTH = 5, 250, 66
LOYALTY = 0.36, 0.92  # the share of a playlist's artists that come from its scenes lies between these two
SECOND_SCENE = 0.3  # so many playlists have one, and take a third of their scenes' artists from it
ALBUM_TRACKS = 4
ARTIST, TRACK, ALBUM = range(3)  # what an index, and so an id or a name, is of

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

SCENES = tuple(str.split("country hip-hop rock latin indie metal jazz dance folk soul pop gospel"))

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


@dataclass(frozen=True, eq=False)
class World:
    """What all slices share. Artists are numbered from the most popular one, tracks artist by artist."""

    playlists: int
    seed: int
    copies: float
    scene: Ints  # (artists,): the place in SCENES
    first_track: Ints  # (artists + 1,): number of the artist's first track
    by_scene: Ints  # (artists,): artists, scene by scene
    popularity: Floats  # (artists,): running sum of the shares of mentions, in the order of by_scene
    bounds: Floats  # (scenes + 1,): where each scene begins in `popularity`

    @property
    def slices(self) -> int:
        return -(-self.playlists // PER_SLICE)


class _Draw(NamedTuple):
    """The playlists of a slice: three values for each playlist, two for each entry."""

    scene: Ints
    length: Ints
    copied: NDArray[np.bool_]
    artist: Ints
    track: Ints


def make_world(playlists: int, seed: int, copies: float = 0.0) -> World:
    """A world of so many playlists, of which a share `copies` in [0, 1) are near-copies of others.

    Raises `UsageError` for a number out of range.
    """
    if playlists < 1 or seed < 0 or not 0 <= copies < 1:
        raise UsageError("a sample needs playlists ≥ 1, seed ≥ 0 and a share of copies in [0, 1)")
    rng = np.random.default_rng([seed, 0])
    artists = 100 + int(450_000 * (playlists / 1e6) ** 0.653)
    rank = np.arange(artists)
    weight = 1 / ((rank + 12) * (1 + rank / 6_500))
    share = weight / weight.sum()
    tracks = 1 + (0.45 * (share * MEAN_LENGTH * playlists) ** 0.7).astype(np.int64)
    # Each round of as many ranks as there are scenes deals one artist to each: all scenes have stars.
    rounds = np.tile(np.arange(len(SCENES)), (-(-artists // len(SCENES)), 1))
    scene = rng.permuted(rounds, axis=1).ravel()[:artists]
    by_scene = np.argsort(scene, kind="stable")
    popularity = np.cumsum(share[by_scene])
    bounds = np.concatenate([[0.0], popularity[np.cumsum(np.bincount(scene)) - 1]])
    first_track = np.concatenate([[0], np.cumsum(tracks)])
    return World(playlists, seed, copies, scene, first_track, by_scene, popularity, bounds)


def slice_names(playlists: int) -> list[str]:
    """The slices' file names, in order: the number of the first and of the last playlist are in the name."""
    starts = range(0, playlists, PER_SLICE)
    return [f"mpd.slice.{first}-{min(first + PER_SLICE, playlists) - 1}.json" for first in starts]


def scene_of(world: World) -> dict[str, int]:
    """The scene of each artist, by its bare id: the planted answer."""
    return dict(zip(_ids(world, ARTIST, np.arange(len(world.scene))), world.scene.tolist(), strict=True))


def slice_text(world: World, number: int) -> bytes:
    """The whole file of slice `number`, from 0. Raises `UsageError` if the world has no such slice."""
    if not 0 <= number < world.slices:
        raise UsageError(f"no slice {number}: {world.playlists} playlists are slices 0 to {world.slices - 1}")
    draw = _with_copies(world, number, _draw(world, number))
    heads, tails = _playlist_texts(world, number, draw)
    tracks, which = _track_texts(world, draw)
    entries = iter([tracks[at] for at in which.tolist()])
    first = number * PER_SLICE
    pieces = [_FILE_HEAD % f"{first}-{first + len(heads) - 1}"]
    for head, tail, length in zip(heads, tails, draw.length.tolist(), strict=True):
        pieces.append(head)
        # The places run out first, so that the next playlist's entry is not taken from the iterator.
        pieces.extend(chain.from_iterable(zip(_PLACES[:length], entries, strict=False)))
        pieces.append(tail)
    pieces[-1] = pieces[-1].removesuffix(", \n")
    pieces.append(_FILE_TAIL)
    return "".join(pieces).encode("ascii")


# Drawing: which tracks stand in which playlist


def _draw(world: World, number: int) -> _Draw:
    """The playlists of a slice as they are before near-copies replace some."""
    rng = np.random.default_rng([world.seed, number + 1])
    n = min(PER_SLICE, world.playlists - number * PER_SLICE)
    copied = rng.random(n) < world.copies
    copied[0] = False  # so that every slice has an original to be copied
    lengths = rng.lognormal(np.log(54), 0.93, 2 * n + 50).astype(np.int64)
    length = lengths[(lengths >= SHORTEST) & (lengths <= LONGEST)][:n]
    scene = rng.integers(len(SCENES), size=n)
    artist = _draw_artists(world, rng, scene, length)
    return _Draw(scene, length, copied, artist, _draw_tracks(world, rng, artist, length))


def _draw_artists(world: World, rng: np.random.Generator, scene: Ints, length: Ints) -> Ints:
    """An artist for each entry, from the playlist's scenes or from all, by popularity."""
    n, entries = len(scene), int(length.sum())
    playlist = np.repeat(np.arange(n), length)
    second = np.where(rng.random(n) < SECOND_SCENE, rng.integers(len(SCENES), size=n), scene)
    loyal = rng.random(entries) < rng.uniform(*LOYALTY, n)[playlist]
    chosen = np.where(rng.random(entries) < 1 / 3, second[playlist], scene[playlist])
    low = np.where(loyal, world.bounds[chosen], 0)
    high = np.where(loyal, world.bounds[chosen + 1], world.bounds[-1])
    at = np.searchsorted(world.popularity, rng.uniform(low, high), side="right")
    artist = world.by_scene[np.minimum(at, len(world.by_scene) - 1)]
    # People add several tracks of one artist: each entry takes one of the artists drawn for its playlist.
    start = np.cumsum(length) - length
    return artist[start[playlist] + (rng.random(entries) * length[playlist]).astype(np.int64)]


def _draw_tracks(world: World, rng: np.random.Generator, artist: Ints, length: Ints) -> Ints:
    """A track of each entry's artist. Most that a playlist has already are drawn again, a few stand twice."""
    first = world.first_track[artist]
    catalogue = world.first_track[artist + 1] - first
    # The logarithm of a track's place is uniform, so its chance falls as Zipf's law has it.
    track = first + ((catalogue + 1) ** rng.random(len(artist))).astype(np.int64) - 1
    for _ in range(2):
        again = np.ones(len(track), np.bool_)
        again[np.unique(_keys(length, track), return_index=True)[1]] = False
        track[again] = (first + rng.random(len(artist)) * catalogue).astype(np.int64)[again]
    return track


def _keys(length: Ints, item: Ints) -> Ints:
    """One number for each (playlist, item), lower playlists first."""
    return np.repeat(np.arange(len(length)), length) * int(item.max() + 1) + item


def _with_copies(world: World, number: int, own: _Draw) -> _Draw:
    """The slice with its copied playlists filled from originals of one other slice, some tracks changed."""
    if not own.copied.any():
        return own
    rng = np.random.default_rng([world.seed, number + 1, 1])
    other = _draw(world, int(rng.integers(world.slices)))
    n = len(own.length)
    source = np.arange(n)
    source[own.copied] = n + rng.choice(np.flatnonzero(~other.copied), own.copied.sum())
    length, scene, artist, track = (
        np.concatenate([getattr(draw, field) for draw in (own, other)])
        for field in ("length", "scene", "artist", "track")
    )
    start = (np.cumsum(length) - length)[source]
    length = length[source]
    pos = np.arange(length.sum()) - np.repeat(np.cumsum(length) - length, length)
    entry = np.repeat(start, length) + pos
    # Every 7th to 40th track of a copy is another one, so at least 85 % stay.
    every = np.where(own.copied, rng.integers(7, 41, n), LONGEST + 1)
    changed = (pos + 1) % np.repeat(every, length) == 0
    entry[changed] = rng.integers(len(own.track), size=changed.sum())
    return _Draw(scene[source], length, own.copied, artist[entry], track[entry])


# Hashing: ids, names and durations from an index


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


def _track_texts(world: World, draw: _Draw) -> tuple[list[str], Ints]:
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
    playlist = np.unique(_keys(length, item)) // (item.max() + 1)
    counts: list[int] = np.bincount(playlist).tolist()
    return counts


def _playlist_texts(world: World, number: int, draw: _Draw) -> tuple[list[str], list[str]]:
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


# ----------------------------------------------------------------------------------------------------------- stage

MARK = "sample.txt"
"""Beside the slices: the parameters that they were made with."""


def sample(cluster: Cluster, folder: Folder, options: params.Sample) -> int:
    """Write the slices that are not there yet; returns how many that were.

    Raises `StoreError` if the folder holds slices of other parameters.
    """
    from dask import delayed

    mark = f"playlists {options.playlists}, seed {options.seed}, copies {options.copies}\n".encode()
    there = set(folder.names())
    if MARK in there and folder.read(MARK) != mark:
        raise StoreError(
            f"{folder.url}: holds another sample ({folder.read(MARK).decode().strip()}); name another folder"
        )
    if MARK not in there and any(name.endswith(".json") for name in there):
        raise StoreError(f"{folder.url}: holds other slices; name another folder")
    folder.write(MARK, mark)
    left = [number for number, name in enumerate(slice_names(options.playlists)) if name not in there]
    work = [delayed(write_slice)(folder, options, number) for number in left]
    if work:
        cluster.compute("sample", work, lambda size: size, "bytes")
    return len(left)


@lru_cache(maxsize=1)
def _world(options: params.Sample) -> World:
    """One world a worker."""
    return make_world(options.playlists, options.seed, options.copies)


def write_slice(folder: Folder, options: params.Sample, number: int) -> int:
    """The task: one slice; returns its bytes."""
    text = slice_text(_world(options), number)
    folder.write(slice_names(options.playlists)[number], text)
    return len(text)
