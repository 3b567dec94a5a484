"""Slices in the form of the Million Playlist Dataset, made up: popular artists, planted scenes, odd names.

A `World` holds what the slices share: how popular each artist is, its scene, how many tracks it has. Ids,
names and durations are hashes of an index: nothing is kept for a track, and any process makes the same bytes.

The constants follow the published figures of the real set: 1,000,000 playlists of 66 tracks, 2.3
million tracks, 295,860 artists, of whom the first has 1.3 % of all mentions, the 100th 0.13 %.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from recsys_dask.errors import UsageError

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

PER_SLICE = 1_000
SHORTEST, LONGEST, MEAN_LENGTH = 5, 250, 66
LOYALTY = 0.36, 0.92  # the share of a playlist's artists that come from its scenes lies between these two
SECOND_SCENE = 0.3  # so many playlists have one, and take a third of their scenes' artists from it
ALBUM_TRACKS = 4
ARTIST, TRACK, ALBUM = range(3)  # what an index, and so an id or a name, is of

SCENES = tuple(str.split("country hip-hop rock latin indie metal jazz dance folk soul pop gospel"))


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


class Draw(NamedTuple):
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


def draw(world: World, number: int) -> Draw:
    """The playlists of a slice as they are before near-copies replace some."""
    rng = np.random.default_rng([world.seed, number + 1])
    n = min(PER_SLICE, world.playlists - number * PER_SLICE)
    copied = rng.random(n) < world.copies
    copied[0] = False  # so that every slice has an original to be copied
    lengths = rng.lognormal(np.log(54), 0.93, 2 * n + 50).astype(np.int64)
    length = lengths[(lengths >= SHORTEST) & (lengths <= LONGEST)][:n]
    scene = rng.integers(len(SCENES), size=n)
    artist = _draw_artists(world, rng, scene, length)
    return Draw(scene, length, copied, artist, _draw_tracks(world, rng, artist, length))


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
        again[np.unique(keys(length, track), return_index=True)[1]] = False
        track[again] = (first + rng.random(len(artist)) * catalogue).astype(np.int64)[again]
    return track


def keys(length: Ints, item: Ints) -> Ints:
    """One number for each (playlist, item), lower playlists first."""
    return np.repeat(np.arange(len(length)), length) * int(item.max() + 1) + item


def with_copies(world: World, number: int, own: Draw) -> Draw:
    """The slice with its copied playlists filled from originals of one other slice, some tracks changed."""
    if not own.copied.any():
        return own
    rng = np.random.default_rng([world.seed, number + 1, 1])
    other = draw(world, int(rng.integers(world.slices)))
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
    return Draw(scene[source], length, own.copied, artist[entry], track[entry])


# Hashing: ids, names and durations from an index
