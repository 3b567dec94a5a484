"""A recommender that is opened once: what it takes, what it never gives, what it refuses, and what it does not read."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from small_store import TOP, Small, alike
from strategies import write_slices

from recsys_dask import api, params
from recsys_dask.cli import program
from recsys_dask.errors import InputError, StoreError, UnknownItemError, UsageError
from recsys_dask.recommender import Query, Recommendation, Recommender
from recsys_dask.store.tables import Store


@pytest.fixture(scope="module")
def blend(small: Small) -> Recommender:
    return Recommender.open(str(small.store))


def cli(*arguments: Any) -> Result:
    return CliRunner().invoke(program, [str(one) for one in arguments], prog_name="recsys-dask")


def uris(playlist: dict[str, Any], kind: str = "artist") -> list[str]:
    return [track[f"{kind}_uri"] for track in playlist["tracks"]]


def bare(found: list[str]) -> list[str]:
    return [one.rpartition(":")[2] for one in found]


def ids(ranked: list[Recommendation]) -> list[str]:
    return [one.id for one in ranked]


# ------------------------------------------------------------------------------------------------------------- queries


@pytest.mark.parametrize("method", params.recommenders())
def test_every_method_answers(method: str, small: Small) -> None:
    ready = Recommender.open(small.store, method)
    names = dict(
        zip(*(small.opened.table("artists")[one].to_pylist() for one in ("artist_id", "artist_name")), strict=True)
    )
    for playlist, found in zip(small.data[:20], ready.recommend(small.data[:20], 30), strict=True):
        assert len(found) == 30 == len(set(ids(found)))
        assert [one.rank for one in found] == list(range(1, 31))
        scores = [one.score for one in found]
        assert scores == sorted(scores, reverse=True) and np.isfinite(scores).all()
        assert not set(ids(found)) & set(bare(uris(playlist)))
        assert all(one.name == names[one.id] for one in found)
    assert ready.n_items == TOP and len(ready.codes) == TOP


def test_one_playlist_in_every_form(small: Small, blend: Recommender) -> None:
    playlist = small.data[0]
    both = uris(playlist), uris(playlist, "track")
    forms = [playlist, Query(*both), Query(bare(both[0]), bare(both[1])), [*both[0], *both[1]], Query((), both[1])]
    found = blend.recommend(forms, 40)
    assert alike(found, [found[0]] * len(forms))
    artists = blend.recommend([Query(both[0]), both[0], bare(both[0]), both[0][::-1] * 2], 40)
    assert alike(artists, [artists[0]] * 4)
    assert ids(artists[0]) != ids(found[0]), "what tracks say is of use"


def test_tracks_are_recommended_by_tracks(small: Small) -> None:
    for method in ("als", "cosine", "popularity"):
        ready = Recommender.open(small.store, method, "track")
        for playlist, found in zip(small.data[:10], ready.recommend(small.data[:10], 50), strict=True):
            assert len(found) == 50 and not set(ids(found)) & set(bare(uris(playlist, "track")))
        one, other = ready.recommend([uris(playlist, "track"), bare(uris(playlist, "track"))], 5)
        assert one == other == found[:5]
    for asked, message in (
        (uris(small.data[0]), "the playlist names no track, and tracks are recommended from tracks alone"),
        ([*uris(small.data[0]), "nothing"], "none of the playlist's 1 tracks is known, and tracks are recommended"),
    ):
        with pytest.raises(UnknownItemError, match=f"{asked[0]}: {message}"):
            ready.recommend([asked])


def test_what_is_not_known_is_passed_over(small: Small, blend: Recommender) -> None:
    known = uris(small.data[0])
    found = blend.recommend(
        [known, [*known, "nobody"], ["spotify:artist:" + "0" * 22, *known], ["", "a\0b", "ü" * 300, *known]], 20
    )
    assert alike(found, [found[0]] * 4)
    with pytest.raises(UnknownItemError, match="nobody: none of the playlist's 2 entries is known"):
        blend.recommend([known, ["nobody", "spotify:track:" + "0" * 22]], 20)
    with pytest.raises(UsageError, match="a list of ids"):
        blend.recommend([known[0]])  # a text is no playlist


def test_json_playlists_that_lack_fields(small: Small, blend: Recommender) -> None:
    playlist = small.data[0]
    lacking = {"tracks": [{"track_uri": one} for one in uris(playlist, "track")]}
    whole, lean, empty, null = blend.recommend([playlist, lacking, {}, {"name": None, "tracks": None}], 20)
    assert alike([lean], [whole])
    assert empty == null == blend.recommend([Query()], 20)[0]


def test_many_at_once_as_one_by_one(small: Small) -> None:
    queries = [*small.data[:60], {}, Query(title="rain")]
    for method in ("blend", "cosine", "als"):
        ready = Recommender.open(small.store, method)
        together = ready.recommend(queries * 5, 30)  # more than a block
        assert alike(together, [ready.recommend([query], 30)[0] for query in queries] * 5)


def test_threads_may_share_it(small: Small) -> None:
    queries = small.data[:48]
    expected = Recommender.open(small.store).recommend(queries, 20)
    ready = Recommender.open(small.store)
    with ThreadPoolExecutor(8) as pool:
        assert alike([one for (one,) in pool.map(lambda query: ready.recommend([query], 20), queries)], expected)


def test_only_and_exclude(small: Small, blend: Recommender) -> None:
    playlist = small.data[0]
    (everything,) = blend.recommend([playlist], TOP)
    order = ids(everything)
    some = order[10:60:3]
    (found,) = blend.recommend([playlist], 10, only=[*(f"spotify:artist:{one}" for one in some), "nobody"])
    assert ids(found) == some[:10]
    (found,) = blend.recommend([playlist], 10, exclude=order[:5] + order[6:8])
    assert ids(found) == [order[5], *order[8:17]]
    (found,) = blend.recommend([playlist], 5, only=some, exclude=some[:4])
    assert ids(found) == some[4:9]
    words = rf"leave {len(some)} of the {TOP} artists that blend knows, and k is {len(some) + 1}"
    with pytest.raises(UsageError, match=words):
        blend.recommend([playlist], len(some) + 1, only=some)
    with pytest.raises(UsageError, match="leave 0 of"):
        blend.recommend([playlist], 1, only=[])
    (all_there_are,) = blend.recommend([playlist], 10_000, exclude=[])
    assert all_there_are == everything


# ------------------------------------------------------------------------------------------------------------- opening


def test_opening_reads_no_rows_and_imports_no_torch(small: Small, tmp_path: Path) -> None:
    copy = small.copy(tmp_path)
    store = Store.open(str(copy))
    for name in ("rows", "playlists", "pairs_artist_full", "pairs_artist_article", "similar_artist_cosine"):
        for file in store.files(name):
            Path(file).unlink()
    code = f"""
import json, sys
from recsys_dask import Recommender
ready = Recommender.open({str(copy)!r})
found = ready.recommend([json.load(open({str(tmp_path / "one.json")!r}))], 20)
print(json.dumps(found[0]))
heavy = "torch fastai dask distributed pynndescent".split()
print([name for name in heavy if name in sys.modules])
"""
    (tmp_path / "one.json").write_text(json.dumps(small.data[5]))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    answer, imported = done.stdout.splitlines()
    assert imported == "[]", done.stderr
    (expected,) = Recommender.open(small.store).recommend([small.data[5]], 20)
    assert alike([[Recommendation(*one) for one in json.loads(answer)]], [expected])


@pytest.mark.parametrize(
    "given, words",
    [
        ({"method": "blendd"}, "--method is 'blendd': did you mean blend"),
        ({"method": "random"}, "--method is 'random'"),
        ({"method": "ALS"}, "--method is 'ALS'.*it is one of popularity, .*blend"),
        ({"item": "album"}, "--item is 'album': it is one of artist, track"),
    ],
)
def test_methods_that_there_are_not(given: dict[str, str], words: str, small: Small) -> None:
    with pytest.raises(UsageError, match=words):
        Recommender.open(small.store, **given)


@pytest.mark.parametrize(
    "method, item, command",
    [
        ("blend", "track", r"fit \S+ --item track --method blend"),
        ("linear", "track", r"fit \S+ --item track --method linear"),
        ("mf", "track", r"train \S+ --item track --model mf"),
    ],
)
def test_a_store_that_lacks_it(method: str, item: str, command: str, small: Small) -> None:
    with pytest.raises(StoreError, match=f"has no table .*make it with: recsys-dask {command}$"):
        Recommender.open(small.store, method, item)


def test_a_store_whose_models_are_older_than_its_tables(small: Small, tmp_path: Path) -> None:
    """Pairs of other artists, then slices appended."""
    copy = small.copy(tmp_path)
    api.counts(copy, top=TOP // 2)
    api.pairs(copy)
    for method, command in (
        ("blend", "fit {} --method blend"),
        ("linear", "fit {} --method linear"),
        ("mlp", "train {} --model mlp"),
    ):
        with pytest.raises(StoreError, match=f"its {method} is older than.*recsys-dask {command.format(copy)}$"):
            Recommender.open(copy, method)
    assert len(Recommender.open(copy, "cosine").recommend([small.data[0]], 10_000)[0]) < TOP // 2
    shown = cli("recommend", copy, "--items", uris(small.data[0])[0])
    assert shown.exit_code == 1 and shown.stderr.count("\n") == 1 and "run again: recsys-dask fit" in shown.stderr
    grown = small.copy(tmp_path / "grown")
    more = [{**playlist, "pid": playlist["pid"] + 5_000} for playlist in small.data[:20]]
    write_slices(tmp_path / "more", more)
    (tmp_path / "more/mpd.slice.0-999.json").rename(tmp_path / "more/mpd.slice.5000-5999.json")
    api.ingest([small.slices, tmp_path / "more"], grown, append=True)
    with pytest.raises(StoreError, match="its als is older than"):
        Recommender.open(grown, "als")
    of_tables = ("cosine", "--view full"), ("popularity", "--view full"), ("coco", "--measure coco")
    for method, option in of_tables:
        with pytest.raises(StoreError, match=f"its {method} is older than.*recsys-dask pairs {grown} {option}$"):
            Recommender.open(grown, method)
    api.counts(grown)
    api.pairs(grown)
    assert Recommender.open(grown, "cosine").recommend([small.data[0]], 5)[0]


# ------------------------------------------------------------------------------------------------------------- command


def test_the_command_as_python(small: Small, blend: Recommender) -> None:
    asked = bare(uris(small.data[0]))[:6]
    (expected,) = blend.recommend([asked], 12)
    shown = cli("recommend", small.store, "--items", *asked, "-k", 12, "--json")
    assert shown.exit_code == 0 and shown.stderr == ""
    rows = json.loads(shown.stdout)
    query = {"query": " ".join(asked)}
    assert rows == api.recommend(small.store, asked, k=12) == [query | one._asdict() for one in expected]
    for_people = cli("recommend", small.store, "--items", *asked, "-k", 12).stdout.splitlines()
    assert [line.split()[:3:2] for line in for_people] == [[str(one.rank), one.id] for one in expected]


def unasked(rows: list[dict]) -> list[dict]:
    """Without what was asked."""
    return [{name: value for name, value in row.items() if name != "query"} for row in rows]


def test_the_command_takes_names_and_uris(small: Small) -> None:
    tracks = small.data[0]["tracks"]
    artists = {track["artist_uri"]: track["artist_name"] for track in tracks}
    table = small.opened.table("artists")["artist_name"].to_pylist()
    unique = {uri: name for uri, name in artists.items() if sum(one.lower() == name.lower() for one in table) == 1}
    assert len(unique) > 5
    by_uri = unasked(api.recommend(small.store, list(unique), method="linear", k=10))
    names = [name.upper() for name in unique.values()]
    assert by_uri == unasked(api.recommend(small.store, names, method="linear", k=10))
    mixed = [*unique, tracks[0]["track_uri"]]
    assert unasked(api.recommend(small.store, mixed, method="linear", k=10)) != by_uri
    of_track = api.recommend(small.store, [tracks[0]["track_uri"]], method="als", item="track", k=10)
    assert tracks[0]["track_uri"][14:] not in {row["id"] for row in of_track}


def test_the_command_names_what_it_passes_over(small: Small) -> None:
    known = uris(small.data[0])[:3]
    unknown = ["Nobody Of That Name", "spotify:artist:" + "0" * 22, "spotify:track:" + "1" * 22]
    shown = cli("recommend", small.store, "--items", *known, *unknown, "--json")
    assert shown.exit_code == 0 and unasked(json.loads(shown.stdout)) == unasked(api.recommend(small.store, known))
    lines = shown.stderr.splitlines()
    assert len(lines) == 3
    for line, one in zip(lines, unknown, strict=True):
        assert line.startswith(f"passed over: {one}: no such "), line
    for some in (unknown, unknown[2:], ["\udcff"]):
        shown = cli("recommend", small.store, "--items", *some)
        assert shown.exit_code == 1 and shown.stdout == ""
        assert shown.stderr.count("\n") == 1 and shown.stderr.startswith("recsys-dask: ")


def test_the_command_s_only_and_exclude(small: Small, tmp_path: Path) -> None:
    asked = uris(small.data[0])[:5]
    order = [row["id"] for row in api.recommend(small.store, asked, k=60)]
    (tmp_path / "only").write_text("\n".join(f" spotify:artist:{one} " for one in order[::3]) + "\n\n")
    (tmp_path / "not").write_text("\r\n".join(order[:6]))
    limits = {"only": str(tmp_path / "only"), "exclude": str(tmp_path / "not")}
    assert [row["id"] for row in api.recommend(small.store, asked, k=10, **limits)] == order[6:36:3]
    shown = cli("recommend", small.store, "--items", *asked, "-k", 60, "--only", tmp_path / "only")
    assert shown.exit_code == 2 and "allow more, or give a lower -k" in shown.stderr
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    for name in ("bytes", "missing", "."):
        with pytest.raises(InputError, match=r"--only .*: cannot be read .*; give a text file of one id a line"):
            api.recommend(small.store, asked, only=str(tmp_path / name))


@pytest.mark.parametrize(
    "given, words",
    [
        ([], "give --items of one playlist, or a file of --playlists"),
        (["--items", "x", "--playlists", "y"], "give --items of one playlist, or a file of --playlists"),
        (["--items", "x", "--challenge"], "give --playlists and --out"),
        (["--playlists", "y"], "give --out"),
    ],
)
def test_usage(given: list[str], words: str, small: Small) -> None:
    shown = cli("recommend", small.store, *given)
    assert shown.exit_code == 2 and shown.stderr.count("\n") == 1 and words in shown.stderr
