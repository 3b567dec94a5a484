"""Every playlist of a file continued: as the recommender does one by one, in the challenge's form, and bad files."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from small_store import Small

from recsys_dask import api, continuation
from recsys_dask.cli import program
from recsys_dask.errors import InputError, RecsysDaskError, StoreError, UsageError
from recsys_dask.recommender import Query, Recommender


def cli(*arguments: Any) -> Result:
    return CliRunner().invoke(program, [str(one) for one in arguments], prog_name="recsys-dask")


def rows(path: Path | str) -> list[list[str]]:
    return [line.split(",") for line in Path(path).read_text().splitlines()]


def challenge(small: Small) -> list[dict[str, Any]]:
    """Playlists as the challenge set has them: titles alone, tracks alone, a few tracks, nothing at all."""
    shown = []
    for at, playlist in enumerate(small.data[:40]):
        one = {"pid": 1_000_000 + 7 * at, "num_holdouts": 20, "num_tracks": 99, "tracks": [], "num_samples": 0}
        if at % 4 != 3:
            one["name"] = playlist["name"]
        if at % 4:
            one["tracks"] = playlist["tracks"][: 5 * (at % 4)]
        shown.append(one)
    shown[5].pop("tracks")
    shown[9].pop("tracks")
    shown[9].pop("name")
    shown[6]["tracks"] = [{"artist_uri": "spotify:artist:" + "0" * 22, "track_uri": "spotify:track:" + "0" * 22}]
    return shown[::-1]


@pytest.fixture(scope="module")
def file(small: Small, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("challenge") / "challenge_set.json"
    path.write_text(json.dumps({"date": "2018", "name": "challenge_set.json", "playlists": challenge(small)}))
    return path


@pytest.mark.parametrize("block", [7, 256])
def test_a_slice_as_one_by_one(block: int, small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(continuation, "BLOCK", block)
    slice_ = sorted(small.slices.iterdir())[0]
    made = api.recommend(small.store, playlists=slice_, out=tmp_path / "new/ranked.csv", method="cosine", k=25)
    assert made == str(tmp_path / "new/ranked.csv") and os.listdir(tmp_path / "new") == ["ranked.csv"]
    playlists = json.loads(slice_.read_text())["playlists"]
    found = Recommender.open(small.store, "cosine").recommend(playlists, 25)
    assert len(playlists) > 7
    assert rows(made) == [
        [str(playlist["pid"]), *(one.id for one in ranked)] for playlist, ranked in zip(playlists, found, strict=True)
    ]
    shown = cli("recommend", small.store, "--playlists", slice_, "--out", tmp_path / "b.csv", "--method", "cosine", "-k", 25)  # fmt: skip  # noqa: E501
    assert shown.exit_code == 0 and shown.stdout == f"{tmp_path / 'b.csv'}\n"
    assert rows(tmp_path / "b.csv") == rows(made)


def test_playlists_that_lack_names_or_tracks(small: Small, file: Path, tmp_path: Path) -> None:
    """In the order of the file; what nothing is known of gets what its title has, or the popular."""
    (tmp_path / "packed.json.gz").write_bytes(gzip.compress(file.read_bytes()))
    ready = Recommender.open(small.store, "cosine")
    asked = challenge(small)
    nothing = {one["pid"] for one in asked if len(one.get("tracks", ())) < 2}
    queries = [Query(title=one.get("name") or "") if one["pid"] in nothing else one for one in asked]
    expected = [
        [str(one["pid"]), *(item.id for item in ranked)]
        for one, ranked in zip(asked, ready.recommend(queries, 30), strict=True)
    ]
    assert len(nothing) > 10
    for path in (file, tmp_path / "packed.json.gz"):
        made = api.recommend(small.store, playlists=path, out=tmp_path / "out.csv", method="cosine", k=30)
        assert rows(made) == expected


def test_only_and_exclude(small: Small, file: Path, tmp_path: Path) -> None:
    ids = small.opened.table("artists")["artist_id"].to_pylist()
    (tmp_path / "only").write_text("\n".join(ids[:80]))
    (tmp_path / "not").write_text("\n".join(ids[:40]))
    limits = {"only": str(tmp_path / "only"), "exclude": str(tmp_path / "not"), "method": "als"}
    made = api.recommend(small.store, playlists=file, out=tmp_path / "out.csv", k=20, **limits)
    assert all(set(row[1:]) <= set(ids[40:80]) and len(row) > 10 for row in rows(made))
    with pytest.raises(UsageError, match="leave 40 of"):
        api.recommend(small.store, playlists=file, out=tmp_path / "none.csv", k=41, **limits)
    assert not (tmp_path / "none.csv").exists()


@pytest.mark.parametrize("method", ["als", "cosine"])
def test_the_challenge_s_form(method: str, small: Small, file: Path, tmp_path: Path) -> None:
    """A line for the team, then a row a playlist: 500 distinct tracks by URI, none of its seeds."""
    given = ["--playlists", file, "--item", "track", "--method", method, "--challenge"]
    shown = cli("recommend", small.store, *given, "--team", "us,we@example.org", "--out", tmp_path / "out.csv")
    assert shown.exit_code == 0, shown.stderr
    head, *found = rows(tmp_path / "out.csv")
    assert head == ["team_info", "us", "we@example.org"]
    known = {f"spotify:track:{one}" for one in small.opened.table("tracks")["track_id"].to_pylist()}
    for playlist, (pid, *tracks) in zip(challenge(small), found, strict=True):
        assert int(pid) == playlist["pid"] and len(tracks) == 500 == len(set(tracks))
        assert set(tracks) <= known - {track["track_uri"] for track in playlist.get("tracks", ())}
    ready = Recommender.open(small.store, method, "track")
    playlist = challenge(small)[10]
    assert len(playlist["tracks"]) > 1
    (ranked,) = ready.recommend([playlist], 50)
    assert [one.removeprefix("spotify:track:") for one in found[10][1:51]] == [one.id for one in ranked]


def test_what_the_challenge_s_form_needs(small: Small, file: Path, tmp_path: Path) -> None:
    given = {"playlists": file, "out": tmp_path / "out.csv", "challenge": True, "method": "cosine"}
    with pytest.raises(UsageError, match="give --item track"):
        api.recommend(small.store, **given)
    (tmp_path / "only").write_text("\n".join(small.opened.table("tracks")["track_id"].to_pylist()[:502]))
    with pytest.raises(StoreError, match=r"pid \d+: \d+ tracks are left to recommend and the challenge asks for 500"):
        api.recommend(small.store, **given, item="track", only=str(tmp_path / "only"))
    assert sorted(os.listdir(tmp_path)) == ["only"]


TRACK = {"artist_uri": "spotify:artist:" + "a" * 22, "track_uri": "spotify:track:" + "a" * 22}
BAD = {
    "not JSON": (b"pid,tracks\n1,2\n", "byte 0: not JSON"),
    "empty": (b"", "byte 0: not JSON"),
    "truncated": (json.dumps({"playlists": [{"pid": 1, "tracks": [TRACK] * 3}]}).encode()[:-20], "byte .*: not JSON"),
    "a list": (b"[]", "Expected `object`, got `array`"),
    "no playlists": (b'{"info": {}}', "missing required field `playlists`"),
    "an empty list": (b'{"playlists": []}', "holds no playlists"),
    "no pid": (json.dumps({"playlists": [{"pid": 0}, {"name": "x", "tracks": [TRACK]}]}).encode(), "playlist 1.*pid"),
    "a pid that is text": (b'{"playlists": [{"pid": "7"}]}', "pid.*Expected `int`, got `str`"),
    "a pid below 0": (b'{"playlists": [{"pid": -1}]}', "pid.*Expected `int` >= 0"),
    "a track without its URI": (b'{"playlists": [{"pid": 4, "tracks": [{"artist_uri": "a"}]}]}', "pid 4.*`track_uri`"),
    "a pid twice": (b'{"playlists": [{"pid": 3}, {"pid": 5}, {"pid": 3}]}', "pid 3: is there twice"),
    "not UTF-8": (b'{"playlists": [{"pid": 3, "name": "\xff"}]}', "UTF-8"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files(name: str, small: Small, tmp_path: Path) -> None:
    content, words = BAD[name]
    (tmp_path / "bad.json").write_bytes(content)
    with pytest.raises(InputError, match=words) as caught:
        api.recommend(small.store, playlists=tmp_path / "bad.json", out=tmp_path / "out.csv", method="cosine")
    assert str(caught.value).startswith(str(tmp_path / "bad.json"))
    shown = cli("recommend", small.store, "--playlists", tmp_path / "bad.json", "--out", tmp_path / "out.csv")
    assert shown.exit_code == 1 and shown.stderr == f"recsys-dask: {caught.value}\n"
    assert os.listdir(tmp_path) == ["bad.json"]


def test_files_that_are_none(small: Small, tmp_path: Path) -> None:
    (tmp_path / "cut.json.gz").write_bytes(gzip.compress(b'{"playlists": []}' * 99)[:-9])
    (tmp_path / "table.csv").write_text("playlist,item\n1,a\n")
    (tmp_path / "empty").mkdir()
    for name in ("cut.json.gz", "table.csv", "empty", "missing.json", "no*.json"):
        with pytest.raises(RecsysDaskError, match=name.replace("*", r"\*")) as caught:
            api.recommend(small.store, playlists=tmp_path / name, out=tmp_path / "out.csv", method="cosine")
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="slices: stands for 3 files; name one"):
        api.recommend(small.store, playlists=small.slices, out=tmp_path / "out.csv", method="cosine")
    assert not (tmp_path / "out.csv").exists()


def test_places_that_cannot_be_written(small: Small, file: Path, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("mine")
    (tmp_path / "folder").mkdir()
    for out in ("taken/out.csv", "folder", "folder/"):
        with pytest.raises(RecsysDaskError, match=str(tmp_path)) as caught:
            api.recommend(small.store, playlists=file, out=f"{tmp_path}/{out}", method="cosine")
        assert "\n" not in str(caught.value)
    assert (tmp_path / "taken").read_text() == "mine" and os.listdir(tmp_path / "folder") == []
    assert sorted(os.listdir(tmp_path)) == ["folder", "taken"]


def test_an_earlier_file_is_replaced_whole_or_not_at_all(
    small: Small, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "out.csv").write_text("earlier")
    monkeypatch.setattr(continuation, "BLOCK", 5)
    real, calls = Recommender.rank, []

    def rank(*given: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise StoreError("gone")
        return real(*given)

    with monkeypatch.context() as patch:
        patch.setattr(Recommender, "rank", rank)
        with pytest.raises(StoreError, match="gone"):
            api.recommend(small.store, playlists=file, out=tmp_path / "out.csv", method="cosine")
    assert os.listdir(tmp_path) == ["out.csv"] and (tmp_path / "out.csv").read_text() == "earlier"
    api.recommend(small.store, playlists=file, out=tmp_path / "out.csv", method="cosine")
    assert len(rows(tmp_path / "out.csv")) == 40
