"""Generated slices: the real set's printing and shape, the same bytes anywhere, planted scenes, odd names."""

from __future__ import annotations

import json
import pickle
import re
import subprocess
import sys
import time
from collections import Counter
from hashlib import sha256
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp

from recsys_dask.errors import UsageError
from recsys_dask.sampling.text import AWKWARD, scene_of, slice_text
from recsys_dask.sampling.world import SCENES, World, make_world, slice_names

PLAYLIST = (
    "name collaborative pid modified_at num_tracks num_albums num_followers tracks num_edits duration_ms "
    "num_artists description"
).split()
TRACK = "pos artist_name track_uri artist_uri track_name album_uri duration_ms album_name".split()


def playlists_of(world: World) -> list[dict[str, Any]]:
    return [one for number in range(world.slices) for one in json.loads(slice_text(world, number))["playlists"]]


@pytest.fixture(scope="module")
def world() -> World:
    return make_world(3_000, seed=1)


@pytest.fixture(scope="module")
def playlists(world: World) -> list[dict[str, Any]]:
    return playlists_of(world)


def tracks_of(playlists: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [track for one in playlists for track in one["tracks"]]


def incidence(playlists: list[dict[str, Any]], field: str) -> tuple[sp.csr_array, list[str]]:
    """Distinct playlist × item, items by falling mentions."""
    mentions = Counter(track[field] for track in tracks_of(playlists))
    items = [item for item, _ in mentions.most_common()]
    code = {item: at for at, item in enumerate(items)}
    rows = {(at, code[track[field]]) for at, one in enumerate(playlists) for track in one["tracks"]}
    row, column = np.array(sorted(rows)).T
    return sp.csr_array((np.ones(len(row)), (row, column)), shape=(len(playlists), len(items))), items


# Printing and shape


def test_printed_as_python_2_printed_it(world: World) -> None:
    text = slice_text(world, 1)
    assert text == json.dumps(json.loads(text), indent=4, separators=(", ", ": ")).encode("ascii")
    assert text.startswith(
        b'{\n    "info": {\n        "generated_on": "2017-12-03 08:41:42.057563", \n'
        b'        "slice": "1000-1999", \n'
        b'        "version": "v1"\n    }, \n    "playlists": [\n        {\n            "name": "'
    )
    assert text.endswith(b"\n        }\n    ]\n}")


def test_fields_and_their_order(playlists: list[dict[str, Any]]) -> None:
    assert [one["pid"] for one in playlists] == list(range(3_000))
    assert {tuple(one) for one in playlists} == {tuple(PLAYLIST), tuple(PLAYLIST[:-1])}
    assert {tuple(track) for track in tracks_of(playlists)} == {tuple(TRACK)}
    assert {one["collaborative"] for one in playlists} == {"true", "false"}
    for one in playlists:
        assert [track["pos"] for track in one["tracks"]] == list(range(one["num_tracks"]))
        assert one["num_followers"] >= 1 and one["num_edits"] >= 1
        assert one["modified_at"] % 86_400 == 0
    assert 0.01 < np.mean(["description" in one for one in playlists]) < 0.1


def test_sums_are_true(playlists: list[dict[str, Any]]) -> None:
    for one in playlists:
        assert one["num_artists"] == len({track["artist_uri"] for track in one["tracks"]})
        assert one["num_albums"] == len({track["album_uri"] for track in one["tracks"]})
        assert one["duration_ms"] == sum(track["duration_ms"] for track in one["tracks"])


def test_lengths(playlists: list[dict[str, Any]]) -> None:
    lengths = [one["num_tracks"] for one in playlists]
    assert min(lengths) >= 5 and max(lengths) <= 250
    assert 63 < np.mean(lengths) < 70
    assert np.median(lengths) < 55


def test_names_of_files() -> None:
    assert slice_names(1_000) == ["mpd.slice.0-999.json"]
    assert slice_names(2_001) == [
        "mpd.slice.0-999.json",
        "mpd.slice.1000-1999.json",
        "mpd.slice.2000-2000.json",
    ]


@pytest.mark.parametrize("n", [1, 2, 40, 1_001])
@pytest.mark.parametrize("copies", [0.0, 0.9])
def test_short_slices(n: int, copies: float) -> None:
    world = make_world(n, 4, copies)
    last = json.loads(slice_text(world, world.slices - 1))
    first = 1_000 * (world.slices - 1)
    assert last["info"]["slice"] == f"{first}-{n - 1}"
    assert [one["pid"] for one in last["playlists"]] == list(range(first, n))


@pytest.mark.parametrize("wrong", [(0, 1), (10, -1), (10, 1, 1.0), (10, 1, -0.1), (10, 1, float("nan"))])
def test_out_of_range(wrong: tuple[Any, ...]) -> None:
    with pytest.raises(UsageError):
        make_world(*wrong)


@pytest.mark.parametrize("number", [-1, 3])
def test_no_such_slice(world: World, number: int) -> None:
    with pytest.raises(UsageError, match="slices 0 to 2"):
        slice_text(world, number)


# One seed, one set of bytes


def test_any_order_and_any_process(world: World) -> None:
    texts = [slice_text(world, number) for number in range(3)]
    again = pickle.loads(pickle.dumps(make_world(3_000, 1)))
    assert [slice_text(again, number) for number in (2, 0, 1)] == [texts[2], texts[0], texts[1]]
    code = (
        "import sys, hashlib; from recsys_dask.sampling.text import slice_text;"
        "from recsys_dask.sampling.world import make_world;"
        "print(hashlib.sha256(slice_text(make_world(3_000, 1), 1)).hexdigest(), 'dask' in sys.modules)"
    )
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert child.stdout.split() == [sha256(texts[1]).hexdigest(), "False"]


def test_seeds_and_slices_differ(world: World) -> None:
    other = make_world(3_000, 2)
    assert slice_text(world, 0) != slice_text(other, 0)
    assert not scene_of(world).keys() & scene_of(other).keys()
    bodies = [json.loads(slice_text(world, number))["playlists"] for number in range(2)]
    assert [one["num_tracks"] for one in bodies[0]] != [one["num_tracks"] for one in bodies[1]]


# Ids and names


def test_ids_are_distinct_and_belong_together(world: World, playlists: list[dict[str, Any]]) -> None:
    kinds = ("artist", "track", "album")
    found: dict[str, set[str]] = {kind: set() for kind in kinds}
    facts: dict[str, set[tuple[Any, ...]]] = {kind: set() for kind in kinds}
    for track in tracks_of(playlists):
        for kind in kinds:
            found[kind].add(track[f"{kind}_uri"])
        facts["artist"].add((track["artist_uri"], track["artist_name"]))
        facts["album"].add((track["album_uri"], track["album_name"], track["artist_uri"]))
        facts["track"].add(tuple(track[field] for field in TRACK[1:]))
    for kind in kinds:
        assert all(re.fullmatch(f"spotify:{kind}:[0-9A-Za-z]{{22}}", uri) for uri in found[kind])
        assert len(facts[kind]) == len(found[kind])  # an id has one name, one album, one artist
    bare = [uri.rpartition(":")[2] for kind in kinds for uri in found[kind]]
    assert len(set(bare)) == len(bare)
    assert len(scene_of(world)) == len(world.scene)
    assert len({name for _, name in facts["artist"]}) == len(facts["artist"])


def test_sizes_are_plausible(playlists: list[dict[str, Any]]) -> None:
    tracks = tracks_of(playlists)
    artists = Counter(track["artist_uri"] for track in tracks)
    assert 7_000 < len(artists) < 11_000
    assert 22_000 < len({track["track_uri"] for track in tracks}) < 40_000
    assert 0.01 < artists.most_common(1)[0][1] / len(tracks) < 0.02  # the real set: 1.3 %
    twice = sum(one["num_tracks"] - len({track["track_uri"] for track in one["tracks"]}) for one in playlists)
    assert 0.001 < twice / len(tracks) < 0.05


def test_awkward_names_are_everywhere(playlists: list[dict[str, Any]]) -> None:
    for field in ("artist_name", "track_name", "album_name"):
        assert set(AWKWARD) <= {track[field] for track in tracks_of(playlists)}, field
    for field in ("name", "description"):
        assert set(AWKWARD) <= {one.get(field) for one in playlists[:1_000]}, field
    names = Counter(track["artist_name"] for track in tracks_of(playlists))
    popular = [name for name, _ in names.most_common(300)]
    assert np.mean([bool(re.fullmatch(r"((The|DJ) )?\w+ (& )?\w+", name)) for name in popular]) > 0.95


# What is planted


@pytest.mark.parametrize("seed", [1, 2])
def test_cosine_finds_the_scenes_and_raw_counts_do_not(
    seed: int, playlists: list[dict[str, Any]], world: World
) -> None:
    if seed != 1:
        world = make_world(3_000, seed)
        playlists = playlists_of(world)
    held, items = incidence(playlists, "artist_uri")
    planted = scene_of(world)
    scene = np.array([planted[uri.rpartition(":")[2]] for uri in items])
    assert set(scene.tolist()) == set(range(len(SCENES)))
    n, top = held.sum(axis=0), 300
    counts = (held[:, :top].T @ held).toarray()
    counts[np.arange(top), np.arange(top)] = 0

    def share(score: np.ndarray) -> float:
        nearest = np.argsort(-score, axis=1, kind="stable")[:, :10]
        return float((scene[nearest] == scene[:top, None]).mean())

    assert share(counts / np.sqrt(np.outer(n[:top], n))) >= 0.98
    assert share(counts) < 0.85


def twins(playlists: list[dict[str, Any]]) -> np.ndarray:
    """For each playlist, the largest share of its distinct tracks that another one holds."""
    held, _ = incidence(playlists, "track_uri")
    common = (held @ held.T).toarray()
    np.fill_diagonal(common, 0)
    return common.max(axis=1) / held.sum(axis=1)


def test_copies_only_when_asked_for(playlists: list[dict[str, Any]]) -> None:
    assert (twins(playlists[:2_000]) > 0.7).mean() < 0.005
    world = make_world(2_000, seed=1, copies=0.3)
    copied = playlists_of(world)
    near = twins(copied) > 0.8
    assert 0.3 < near.mean() < 0.65  # the copies and their originals
    assert near.mean() > 0.3 and twins(copied)[near].mean() > 0.9
    assert [one["pid"] for one in copied] == list(range(2_000))
    assert len({one["num_tracks"] for one in copied}) > 100
    assert slice_text(world, 1) == slice_text(make_world(2_000, 1, 0.3), 1)
    test_sums_are_true(copied)


def test_fast_enough() -> None:
    """A world that is not small is made and written at well over 25 MB/s."""
    start = time.perf_counter()
    world = make_world(100_000, seed=3)
    size = sum(len(slice_text(world, number)) for number in (5, 50, 99))
    assert size / (time.perf_counter() - start) > 25e6
