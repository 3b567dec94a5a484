"""The benchmark's peers make the same tables and the same pair counts, on awkward playlists."""

from __future__ import annotations

import json
import random
from collections import Counter
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.csv
import pytest

from benchmarks import ingest_peers, pairs_peers

NAMES = [
    'say "hi"',
    "two\nlines\ttabbed",
    "back\\slash, comma",
    "ünïcödé ☃",
    "😀🎧",
    "",
    "null",
    " é ",
    "\u0000\u2028",
]
"""Of playlists, artists and tracks."""


def uri(kind: str, rng: random.Random) -> str:
    letters = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
    return f"spotify:{kind}:" + "".join(rng.choices(letters, k=22))


def make_playlists(rng: random.Random) -> list[dict[str, Any]]:
    """Sixty playlists: ids with several names, albums, artists; tracks twice in a playlist; gaps in pids."""
    artists = [uri("artist", rng) for _ in range(25)]
    tracks = [uri("track", rng) for _ in range(80)]
    albums = [uri("album", rng) for _ in range(30)]
    playlists = []
    for number in range(60):
        entries = [
            {
                "pos": pos,
                "artist_name": rng.choice(NAMES),
                "track_uri": rng.choice(tracks),
                "artist_uri": artists[min(int(rng.expovariate(0.2)), 24)],
                "track_name": rng.choice(NAMES),
                "album_uri": rng.choice(albums),
                "duration_ms": rng.randrange(500_000),
                "album_name": rng.choice(NAMES),
            }
            for pos in range(rng.choice([0, 1, 5, 6, 20]))
        ]
        if len(entries) > 5:
            entries.append({**entries[0], "pos": len(entries)})
            rng.shuffle(entries)
        for entry in entries:
            if rng.random() < 0.1:
                del entry[rng.choice(["album_uri", "duration_ms"])]
        playlist = {
            "name": rng.choice(NAMES),
            "collaborative": rng.choice(["true", "false"]),
            "pid": number * 7 + 2**40 * (number > 50),
            "modified_at": 1_500_000_000 + number,
            "num_tracks": len(entries),
            "num_followers": rng.randrange(9),
            "tracks": entries,
            "num_edits": 1,
        }
        if number % 7 == 0:
            playlist["description"] = rng.choice(NAMES)
        if number % 11 == 0:
            del playlist[rng.choice(["name", "collaborative", "modified_at", "num_followers"])]
        playlists.append(playlist)
    return playlists


@pytest.fixture(scope="module")
def playlists() -> list[dict[str, Any]]:
    return make_playlists(random.Random(3))


@pytest.fixture(scope="module")
def paths(playlists: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three slices, whose names are not in the order of their pids, playlists shuffled, and an empty one."""
    folder = tmp_path_factory.mktemp("slices")
    found = []
    for number, start in enumerate((40, 0, 60, 20)):
        part = playlists[start : start + 20]
        random.Random(number).shuffle(part)
        found.append(folder / f"mpd.slice.{number}.json")
        slice_ = {"info": {"slice": str(number), "version": "v1"}, "playlists": part}
        found[-1].write_text(json.dumps(slice_, indent=4))
    return found


@pytest.fixture(scope="module")
def by_arrow(paths: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("pyarrow_json")
    ingest_peers.pyarrow_json(paths, out)
    return out


def expected_tables(playlists: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """The tables in plain Python."""
    entries = [
        (playlist["pid"], entry)
        for playlist in sorted(playlists, key=lambda playlist: playlist["pid"])
        for entry in sorted(playlist["tracks"], key=lambda entry: entry["pos"])
    ]
    codes: dict[str, dict[str, int]] = {}
    tables: dict[str, list[dict[str, Any]]] = {}
    for kind in ("artist", "track"):
        mentions = Counter(entry[f"{kind}_uri"] for _, entry in entries)
        in_playlists = Counter(found for found, _ in {(entry[f"{kind}_uri"], pid) for pid, entry in entries})
        ranked = sorted(mentions, key=lambda found: (-mentions[found], found))
        codes[kind] = {found: code for code, found in enumerate(ranked)}
        tables[f"{kind}s"] = []
        for found, code in codes[kind].items():
            first = next(entry for _, entry in entries if entry[f"{kind}_uri"] == found)
            row = {kind: code, f"{kind}_id": found[-22:], f"{kind}_name": first[f"{kind}_name"]}
            if kind == "track":
                album = first.get("album_uri")
                row |= {"artist": codes["artist"][first["artist_uri"]], "album_id": album and album[-22:]}
                row["duration_ms"] = first.get("duration_ms")
            row |= {"n_mentions": mentions[found], "n_playlists": in_playlists[found]}
            tables[f"{kind}s"].append(row)
    tables["rows"] = [
        {"pid": pid, "pos": entry["pos"], **{kind: codes[kind][entry[f"{kind}_uri"]] for kind in codes}}
        for pid, entry in entries
    ]
    tables["playlists"] = [
        {
            "pid": playlist["pid"],
            "name": playlist.get("name"),
            "num_tracks": playlist["num_tracks"],
            "n_entries": len(playlist["tracks"]),
            "n_followers": playlist.get("num_followers"),
            "modified_at": playlist.get("modified_at"),
            "collaborative": {"true": True, "false": False, None: None}[playlist.get("collaborative")],
        }
        for playlist in sorted(playlists, key=lambda playlist: playlist["pid"])
    ]
    return tables


def test_the_input_is_awkward(playlists: list[dict[str, Any]]) -> None:
    entries = [(playlist["pid"], entry) for playlist in playlists for entry in playlist["tracks"]]
    for kind in ("artist", "track"):
        pairs = {(entry[f"{kind}_uri"], entry[f"{kind}_name"]) for _, entry in entries}
        assert len(pairs) > len({found for found, _ in pairs})
    assert len({(pid, entry["track_uri"]) for pid, entry in entries}) < len(entries)


def test_pyarrow_json_is_right(by_arrow: Path, playlists: list[dict[str, Any]]) -> None:
    expected = expected_tables(playlists)
    for name, table in ingest_peers.read_tables(by_arrow).items():
        assert table.to_pylist() == expected[name], name


@pytest.mark.parametrize("library", ["msgspec", "polars", "duckdb"])
def test_ingest_peers_agree(library: str, by_arrow: Path, paths: list[Path], tmp_path: Path) -> None:
    pytest.importorskip(library)
    getattr(ingest_peers, f"{library}_json")(paths, tmp_path)
    expected = ingest_peers.read_tables(by_arrow)
    for name, table in ingest_peers.read_tables(tmp_path).items():
        assert table.equals(expected[name]), name


def test_article(
    by_arrow: Path,
    paths: list[Path],
    playlists: list[dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ingest_peers, "CSV_ROWS", 100)
    counts = ingest_peers.article(paths, tmp_path)
    artists = ingest_peers.read_tables(by_arrow)["artists"].to_pydict()
    assert {found[-22:]: n for found, n in counts.items()} == dict(
        zip(artists["artist_id"], artists["n_mentions"], strict=True)
    )
    n_rows = sum(len(playlist["tracks"]) for playlist in playlists if playlist["num_tracks"] > 5)
    n_files = -(-n_rows // 100)
    options = pyarrow.csv.ParseOptions(newlines_in_values=True)
    read = [
        pyarrow.csv.read_csv(tmp_path / f"playlist_{number}.csv", parse_options=options)
        for number in range(1, n_files + 1)
    ]
    assert n_files > 2 and len(list(tmp_path.glob("playlist_*.csv"))) == n_files
    assert [table.num_rows for table in read] == [100] * (n_files - 1) + [n_rows - 100 * (n_files - 1)]
    assert read[0].column_names == ["pid", "artist_name", "artist_uri", "track_name", "track_uri"]


def expected_pairs(held: set[tuple[int, int]]) -> list[tuple[int, int, int]]:
    counts: Counter[tuple[int, int]] = Counter()
    for playlist in {playlist for playlist, _ in held}:
        counts.update(combinations(sorted(item for of, item in held if of == playlist), 2))
    return sorted((*pair, n) for pair, n in counts.items())


PEERS = [("counter", "counter", None), ("scipy", "scipy_product", "scipy.sparse")]
PEERS += [("polars", "polars_join", "polars"), ("duckdb", "duckdb_join", "duckdb")]


@pytest.mark.parametrize("_, peer, library", PEERS)
def test_pair_peers(_: str, peer: str, library: str | None) -> None:
    if library:
        pytest.importorskip(library)
    rng = np.random.default_rng(5)
    held = sorted(set(map(tuple, (rng.integers(0, (40, 30), (300, 2)) * (1, 3)).tolist())))
    for case in (held, [(7, 4)], []):
        playlist, item = np.array(case, np.int64).reshape(-1, 2).T
        item1, item2, n = getattr(pairs_peers, peer)(playlist.copy(), item.copy())
        assert list(zip(item1.tolist(), item2.tolist(), n.tolist(), strict=True)) == expected_pairs(set(case))


@pytest.mark.parametrize("stage, _, library", PEERS)
def test_pair_stages(stage: str, _: str, library: str | None, by_arrow: Path, tmp_path: Path) -> None:
    if library:
        pytest.importorskip(library)
    rows = ingest_peers.read_tables(by_arrow)["rows"].to_pydict()
    for popular in (np.array([9, 1, 2, 3, 5, 8]), [0, 999_999], []):
        out = tmp_path / f"{len(popular)}.parquet"
        getattr(pairs_peers, f"{stage}_stage")(by_arrow / "rows", popular, out)
        kept = set(map(int, popular))
        held = {(pid, item) for pid, item in zip(rows["pid"], rows["artist"], strict=True) if item in kept}
        found = pairs_peers.read_pairs(out).to_pydict()
        assert list(found) == ["item1", "item2", "n_playlists"]
        assert list(zip(*found.values(), strict=True)) == expected_pairs(held)
