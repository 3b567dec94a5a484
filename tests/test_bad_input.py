"""What is wrong with an input, a store or a parameter is told in one line, and leaves nothing half done."""

from __future__ import annotations

import gzip
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import recsys_dask as rd
from recsys_dask import api
from recsys_dask.errors import (
    BudgetError,
    ClusterError,
    Fault,
    InputError,
    RecsysDaskError,
    StoreError,
    UsageError,
)
from recsys_dask.formats import mpd
from recsys_dask.runtime import budget
from recsys_dask.runtime.progress import Progress


def may_everything() -> bool:
    """Whether file modes mean nothing to this user."""
    with tempfile.NamedTemporaryFile() as file:
        os.chmod(file.name, 0)
        return os.access(file.name, os.R_OK)


AS_ROOT = may_everything()
DEEP = "[" * 100_000 + "]" * 100_000
GONE = object()
IDS = {kind: f"spotify:{kind}:" for kind in ("artist", "track", "album")}


# ------------------------------------------------------------------------------------------------------ making input


def uri(kind: str, letter: str) -> str:
    return IDS[kind] + letter * 22


def entry(pos: int = 0, letter: str = "a", /, **other: Any) -> dict[str, Any]:
    """An entry; `other` replaces fields, GONE takes one away."""
    fields = {
        "pos": pos,
        "artist_name": f"Artist {letter}",
        "artist_uri": uri("artist", letter),
        "track_name": f"Track {letter}",
        "track_uri": uri("track", letter),
        "album_uri": uri("album", letter),
        "duration_ms": 200_000,
    }
    return {name: value for name, value in (fields | other).items() if value is not GONE}


def playlist(pid: Any, /, **other: Any) -> dict[str, Any]:
    fields = {"pid": pid, "name": "x", "num_tracks": 1, "tracks": [entry()]}
    return {name: value for name, value in (fields | other).items() if value is not GONE}


def full(pid: int) -> dict[str, Any]:
    """A playlist of seven artists among ten."""
    return playlist(pid, num_tracks=7, tracks=[entry(at, "abcdefghij"[(pid + at) % 10]) for at in range(7)])


def text(*playlists: dict[str, Any], **strings: str) -> bytes:
    """A slice; `strings` puts JSON text in the place of the string that is its name."""
    made = json.dumps({"playlists": playlists})
    for name, value in strings.items():
        assert f'"{name}"' in made
        made = made.replace(f'"{name}"', value)
    return made.encode()


def write(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


GOOD = {
    f"mpd.slice.{1_000 * at}-{1_000 * at + 999}.json": text(*map(full, range(1_000 * at, 1_000 * at + 12)))
    for at in (5, 6, 7)
}


# ------------------------------------------------------------------------------------------------- looking at stores


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def visible(store: Path) -> dict[str, bytes]:
    """A store's files but for scratch, where an interrupted run keeps what it goes on from."""
    return {name: content for name, content in files_of(store).items() if not name.startswith("scratch/")}


def check_whole(store: Path) -> None:
    """Nothing half-written, no file that the manifest does not list and none that it lists and that is not there."""
    if not store.is_dir():
        return
    assert [name for name in files_of(store) if name.endswith(".tmp")] == []
    there = set(visible(store)) - {"manifest.json"}
    listed = set()
    if (store / "manifest.json").exists():
        tables = json.loads((store / "manifest.json").read_bytes())["tables"]
        listed = {file["path"] for table in tables.values() for file in table["files"]}
    assert there == listed


def tables_of(store: Path) -> dict[str, Any]:
    opened = rd.Store.open(str(store))
    return {name: opened.table(name) for name in opened.manifest.tables if not name.startswith("export_")}


def same_tables(one: Path, other: Path) -> None:
    mine, others = tables_of(one), tables_of(other)
    assert sorted(mine) == sorted(others)
    for name in mine:
        assert mine[name].equals(others[name]), name


class News(Progress):
    """What a person would have been told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


class Finished(NamedTuple):
    slices: Path
    store: Path


@pytest.fixture(scope="module")
def good(client, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """Three sound slices and the store that `run` made of them."""
    folder = tmp_path_factory.mktemp("good")
    slices = write(folder / "slices", GOOD)
    api.run(slices, folder / "store", client=client, models="none")
    check_whole(folder / "store")
    return Finished(slices, folder / "store")


@pytest.fixture
def kept(good: Finished, tmp_path: Path) -> Path:
    """A copy of the finished store, for a run that fails on it."""
    return Path(shutil.copytree(good.store, tmp_path / "kept"))


def without_advice(said: str) -> str:
    return said.rpartition(" (")[0]


@pytest.fixture
def fails(client, good: Finished, kept: Path, tmp_path: Path) -> Callable[..., str]:
    """Ingest some files into a new store, and beside sound ones into a finished one: both refuse with the same words,
    which are returned, and neither shows a trace of it."""

    def act(files: dict[str, bytes], error: type[RecsysDaskError] = InputError, **parameters: Any) -> str:
        bad = write(tmp_path / "in", files)
        new = tmp_path / "new"
        said = []
        for source, store in ((bad, new), ([bad, good.slices], kept)):
            with pytest.raises(error) as caught:
                api.ingest(source, store, client=client, **parameters)
            said.append(str(caught.value))
            check_whole(store)
        assert not (new / "manifest.json").exists()
        assert visible(kept) == visible(good.store)
        assert without_advice(said[0]) == without_advice(said[1])
        return said[0].replace(f"{bad}/", "")

    return act


# ------------------------------------------------------------------------------------------- nothing there to be read

NOTHING: dict[str, tuple[Callable[[Path], Any], str]] = {
    "missing folder": (lambda folder: folder / "nowhere", r"nowhere: no such file or folder"),
    "missing file": (lambda folder: folder / "mpd.slice.0-999.json", r"no such file or folder"),
    "empty folder": (lambda folder: write(folder / "in", {}), r"in: an empty folder"),
    "no json": (
        lambda folder: write(folder / "in", {"a.txt": b"", "b.md": b""}),
        r"in: 2 files, none of them \*\.json",
    ),
    "only deeper": (lambda folder: write(folder / "in" / "deeper", {"a.json": b"{}"}).parent, r"in: an empty folder"),
    "glob": (lambda folder: str(write(folder / "in", {"a.json": b"{}"}) / "b*.json"), r"b\*\.json: no file matches"),
    "list": (lambda folder: [], r"no input"),
    "one of a list": (lambda folder: [write(folder / "in", {"a.json": text()}), folder / "no"], r"no: no such file"),
    "protocol": (lambda folder: "nosuch://bucket/slices", r"nosuch://bucket/slices"),
}


@pytest.mark.parametrize("name", NOTHING)
def test_nothing_to_read(name: str, client, good: Finished, kept: Path, tmp_path: Path) -> None:
    source, words = NOTHING[name]
    for command in (api.ingest, api.run):
        for store in (tmp_path / "new", kept):
            with pytest.raises(InputError, match=words) as caught:
                command(source(tmp_path), store, client=client)
            assert "\n" not in str(caught.value)
    assert not (tmp_path / "new").exists()
    assert files_of(kept) == files_of(good.store)


# -------------------------------------------------------------------------------------------------- files that are bad


PID = 1_000
"""Of a bad slice's first playlist; always four digits, so that another one moves no byte."""


class Bad(NamedTuple):
    """A slice that is wrong, and the words that its one line must hold."""

    content: bytes
    words: tuple[str, ...]


def bad(content: bytes, *words: str) -> Bad:
    return Bad(content, words)


def in_entry(field: str, value: Any, *words: str) -> Bad:
    """Playlist 1 has pid PID + 1, and its entry 1 is wrong in one field."""
    wrong = entry(1, "b", **{field: value})
    return bad(text(playlist(PID), playlist(PID + 1, tracks=[entry(), wrong])), f"pid {PID + 1}", *words)


def in_playlist(field: str, value: Any, *words: str) -> Bad:
    return bad(text(playlist(PID), playlist(PID + 1, **{field: value})), *words)


def not_an_id(kind: str, value: str) -> Bad:
    return in_entry(f"{kind}_uri", value, "pos 1", f"field {kind}_uri", f"expected spotify:{kind}:", repr(value))


SOUND = text(playlist(PID), playlist(PID + 1))
PACKED = gzip.compress(SOUND, mtime=0)
LONE = {
    "high": r'"a \ud83d z"',
    "low": r'"a \ude00 z"',
    "high at the end": r'"a \ud83d"',
    "two high": r'"\ud83d\ud83d"',
}
NOT_UTF8 = {"latin-1": b"Beyonc\xe9", "surrogate": b"\xed\xa0\xbd", "overlong": b"\xc0\xaf", "cut": b"\xf0\x9f"}
BAD_GZIP = {
    "ends early": (PACKED[:-20], "ends early"),
    "ends in its head": (PACKED[:5], "ends early"),
    "that is none": (SOUND, "zip"),
    "of a wrong sum": (PACKED[:-8] + bytes(4) + PACKED[-4:], "CRC"),
    "broken": (PACKED[:30] + b"\xff\xff\xff" + PACKED[33:], "cannot be read"),
    "of no JSON": (gzip.compress(b"pid\n1\n"), "byte 0: not JSON"),
    "of a truncated slice": (gzip.compress(SOUND[:-40]), f"byte {len(SOUND) - 40}: not JSON"),
}

BAD = {
    "blank": bad(b" \n\n ", "byte 4", "not JSON"),
    "truncated": bad(SOUND[:-40], f"byte {len(SOUND) - 40}:", "truncated"),
    "truncated at the end": bad(SOUND[:-1], f"byte {len(SOUND) - 1}:", "truncated"),
    "not JSON": bad(b"pid,artist\n1,2\n", "byte 0:", "not JSON"),
    "two roots": bad(SOUND + b"\n{}", "byte ", "trailing"),
    "two slices": bad(SOUND + b"\n" + SOUND, "`playlists` twice"),
    "comma": bad(SOUND[:-2] + b",]}", f"byte {len(SOUND) - 1}:", "not JSON"),
    "NaN": bad(text(playlist(PID, extra="NAN"), NAN="NaN"), "byte ", "not JSON"),
    "byte order mark": bad(b"\xef\xbb\xbf" + SOUND, "byte 0:", "not JSON"),
    "UTF-16": bad(SOUND.decode().encode("utf-16"), "byte 0:", "not JSON"),
    "root is a list": bad(b"[]", "object", "array"),
    "root is a string": bad(b'"playlists"', "object", "str"),
    "root is null": bad(b"null", "object", "null"),
    "no playlists": bad(b'{"info": {}, "Playlists": []}', "`playlists`", "missing"),
    "playlists null": bad(b'{"playlists": null}', "field playlists", "array", "null"),
    "playlists an object": bad(b'{"playlists": {}}', "field playlists", "array", "object"),
    "playlists twice": bad(b'{"playlists": [], "playlists": []}', "`playlists` twice"),
    "playlist a number": bad(b'{"playlists": [17]}', "playlist 0", "object", "int"),
    "tracks null": in_playlist("tracks", None, f"playlist 1 (pid {PID + 1})", "field tracks", "array", "null"),
    "no tracks": in_playlist("tracks", GONE, f"playlist 1 (pid {PID + 1})", "`tracks`", "missing"),
    "no num_tracks": in_playlist("num_tracks", GONE, f"playlist 1 (pid {PID + 1})", "`num_tracks`", "missing"),
    "num_tracks null": in_playlist("num_tracks", None, f"playlist 1 (pid {PID + 1})", "field num_tracks", "null"),
    "collaborative a truth value": in_playlist("collaborative", True, f"pid {PID + 1}", "field collaborative", "bool"),
    "collaborative another text": in_playlist("collaborative", "yes", f"pid {PID + 1}", "field collaborative", "yes"),
    "name a number": in_playlist("name", 5, f"pid {PID + 1}", "field name", "int"),
    "no pid": in_playlist("pid", GONE, "playlist 1", "`pid`", "missing"),
    "pid a text": in_playlist("pid", "4", "playlist 1", "field pid", "int", "str"),
    "pid null": in_playlist("pid", None, "playlist 1", "field pid", "null"),
    "pid a fraction": in_playlist("pid", 4.5, "playlist 1", "field pid", "float"),
    "pid a truth value": in_playlist("pid", True, "playlist 1", "field pid", "bool"),
    "pid negative": in_playlist("pid", -1, "playlist 1", "field pid", ">= 0"),
    "pid over 2**63-1": in_playlist("pid", 2**63, "playlist 1", "field pid", str(2**63 - 1)),
    "pid over 2**64": in_playlist("pid", 2**64 + 4, "playlist 1", "field pid", str(2**63 - 1)),
    "pid twice": bad(text(playlist(PID + 1), playlist(PID), playlist(PID + 1)), f"pid {PID + 1}", "twice"),
    "track a number": bad(
        text(playlist(PID + 1, tracks=[5])), f"playlist 0 (pid {PID + 1})", "track 0", "object", "int"
    ),
    "no artist_uri": in_entry("artist_uri", GONE, f"playlist 1 (pid {PID + 1})", "track 1", "`artist_uri`", "missing"),
    "no track_uri": in_entry("track_uri", GONE, f"playlist 1 (pid {PID + 1})", "track 1", "`track_uri`", "missing"),
    "no artist_name": in_entry(
        "artist_name", GONE, f"playlist 1 (pid {PID + 1})", "track 1", "`artist_name`", "missing"
    ),
    "no track_name": in_entry("track_name", GONE, f"playlist 1 (pid {PID + 1})", "track 1", "`track_name`", "missing"),
    "no pos": in_entry("pos", GONE, f"playlist 1 (pid {PID + 1})", "track 1", "`pos`", "missing"),
    "pos negative": in_entry("pos", -1, f"playlist 1 (pid {PID + 1})", "track 1", "field pos", ">= 0"),
    "pos a text": in_entry("pos", "1", f"playlist 1 (pid {PID + 1})", "track 1", "field pos", "str"),
    "artist_name null": in_entry(
        "artist_name", None, f"playlist 1 (pid {PID + 1})", "track 1", "field artist_name", "null"
    ),
    "artist_uri a number": in_entry(
        "artist_uri", 5, f"playlist 1 (pid {PID + 1})", "track 1", "field artist_uri", "int"
    ),
    "track_uri a number": in_entry("track_uri", 5, f"playlist 1 (pid {PID + 1})", "track 1", "field track_uri", "int"),
    "album_uri a number": in_entry("album_uri", 5, f"playlist 1 (pid {PID + 1})", "track 1", "field album_uri", "int"),
    "duration negative": in_entry(
        "duration_ms", -1, f"playlist 1 (pid {PID + 1})", "track 1", "field duration_ms", ">= 0"
    ),
    "artist_uri of a track": not_an_id("artist", uri("track", "b")),
    "track_uri of an artist": not_an_id("track", uri("artist", "b")),
    "album_uri of an artist": not_an_id("album", uri("artist", "b")),
    "artist_uri bare": not_an_id("artist", "b" * 22),
    "artist_uri empty": not_an_id("artist", ""),
    "track_uri local": not_an_id("track", "spotify:local:Artist:Album:Track:183"),
    "id too short": not_an_id("artist", uri("artist", "b")[:-1]),
    "id too long": not_an_id("track", uri("track", "b") + "b"),
    "id with a dash": not_an_id("artist", uri("artist", "b")[:-1] + "-"),
    "id with a blank": not_an_id("track", uri("track", "b")[:-1] + " "),
    "id with an accent": not_an_id("artist", uri("artist", "b")[:-1] + "é"),
    "id of the right number of bytes": not_an_id("artist", uri("artist", "b")[:-2] + "é"),
    "id with a line end": not_an_id("album", uri("album", "b")[:-1] + "\n"),
    **{
        f"surrogate, {name}": bad(
            text(playlist(PID), playlist(PID + 1, name="LONE"), playlist(PID + 2), LONE=value), "byte ", "not JSON"
        )
        for name, value in LONE.items()
    },
    **{
        f"not UTF-8, {name}": bad(
            text(playlist(PID), playlist(PID + 1, tracks=[entry(artist_name="WRONG")])).replace(b"WRONG", value),
            "UTF-8",
        )
        for name, value in NOT_UTF8.items()
    },
    **{f"gz {name}": bad(*value) for name, value in BAD_GZIP.items()},
}


def file_name(name: str) -> str:
    return f"mpd.slice.{list(BAD).index(name):03}.json" + (".gz" if name.startswith("gz ") else "")


def with_own_pids(name: str) -> Bad:
    """The same with pids that no other slice has."""
    if name.startswith("gz "):
        return BAD[name]
    content, words = BAD[name]
    for pid in (PID, PID + 1, PID + 2):
        own = pid + 10 * list(BAD).index(name)
        content = content.replace(b'"pid": %d' % pid, b'"pid": %d' % own)
        words = tuple(re.sub(rf"\bpid {pid}\b", f"pid {own} ", one).replace(" )", ")").rstrip() for one in words)
    return Bad(content, words)


def faults(path: Path, content: bytes, part_bytes: int = 1 << 20) -> list[str]:
    path.write_bytes(content)
    return [
        str(found).replace(str(path), "FILE") for found in mpd.read([str(path)], part_bytes) if type(found) is Fault
    ]


@pytest.mark.parametrize("name", BAD)
def test_bad_file(name: str, tmp_path: Path) -> None:
    """One error, that names the file, the playlist and the field or the byte."""
    content, words = BAD[name]
    (said,) = faults(tmp_path / file_name(name), content)
    assert said.startswith("FILE: ") and "\n" not in said
    for one in words:
        assert one in said


@pytest.mark.parametrize("name", [name for name in BAD if name != "pid twice"])
def test_bad_file_in_pieces(name: str, tmp_path: Path) -> None:
    """A slice larger than the budget is read in pieces: the place of the error is what it is in the whole."""
    path = tmp_path / file_name(name)
    (whole,) = faults(path, BAD[name].content)
    (pieces,) = faults(path, BAD[name].content, 40)
    place, is_text, _ = whole.partition(": not JSON: ")
    assert pieces.startswith(place + is_text) if is_text else pieces == whole


def test_every_bad_file_of_a_run_is_told(fails: Callable[..., str]) -> None:
    """All of them at once, sorted, a line each, the advice once."""
    lines = fails({file_name(name): with_own_pids(name).content for name in BAD}).splitlines()
    assert [line.partition(": ")[0] for line in lines] == sorted(map(file_name, BAD))
    for name, line in zip(BAD, lines, strict=True):
        for words in with_own_pids(name).words:
            assert words in line
    assert [line for line in lines if "--on-bad-file skip" in line] == lines[-1:]


ALONE = [
    "blank",
    "truncated",
    "root is a list",
    "playlists null",
    "tracks null",
    "no artist_uri",
    "id with an accent",
    "pid over 2**63-1",
    "pid twice",
    "surrogate, high",
    "not UTF-8, latin-1",
    "gz ends early",
]


@pytest.mark.parametrize("name", ALONE)
def test_bad_file_alone(name: str, fails: Callable[..., str]) -> None:
    said = fails({file_name(name): BAD[name].content})
    assert said.startswith(f"{file_name(name)}: ") and "\n" not in said
    assert said.endswith(")") and "--on-bad-file skip" in said  # what to do about it


def test_an_empty_file(fails: Callable[..., str]) -> None:
    said = fails({"mpd.slice.0-9.json": b""})
    assert said.startswith("mpd.slice.0-9.json: byte 0: ")


def test_only_empty_files(client, tmp_path: Path) -> None:
    source = write(tmp_path / "in", {"a.json": b"", "b.json": b"", "c.json.gz": b""})
    with pytest.raises(InputError) as caught:
        api.ingest(source, tmp_path / "store", client=client)
    assert [line.partition(": ")[0] for line in str(caught.value).splitlines()] == [
        str(source / name) for name in ("a.json", "b.json", "c.json.gz")
    ]


NESTED = {
    "in an unknown field of the root": (b'{"playlists": [], "deep": ' + DEEP.encode() + b"}", ""),
    "in an unknown field of a playlist": (text(playlist(3), playlist(4, deep="DEEP"), DEEP=DEEP), "playlist 1"),
    "in a track": (text(playlist(3), playlist(4, tracks=[entry(deep="DEEP")]), DEEP=DEEP), "playlist 1"),
    "in the tracks": (text(playlist(3), playlist(4, tracks="DEEP"), DEEP=DEEP), "playlist 1"),
    "in the pid": (text(playlist(3), playlist("DEEP"), DEEP=DEEP), "playlist 1"),
    "behind another error": (text(playlist(3), playlist(4, name=5, deep="DEEP"), DEEP=DEEP), "playlist 1"),
}


@pytest.mark.parametrize("name", NESTED)
def test_nested_deeply(name: str, fails: Callable[..., str]) -> None:
    content, _ = NESTED[name]
    said = fails({"mpd.slice.0-9.json": content})
    assert said.startswith("mpd.slice.0-9.json: ")
    assert len(said) < 300


@pytest.mark.parametrize("name", NESTED)
def test_nested_deeply_says_where(name: str, tmp_path: Path) -> None:
    """An error names the playlist and the field, or the byte."""
    content, where = NESTED[name]
    (said,) = faults(tmp_path / "a.json", content)
    assert re.search(r"byte [\d,]+|playlist \d+|field \w+|pid \d+", said)
    assert where in said or "byte" in said


@pytest.mark.parametrize("name", LONE)
def test_lone_surrogate_says_where(name: str, tmp_path: Path) -> None:
    """The byte is that of the surrogate; the file is not called truncated."""
    content = BAD[f"surrogate, {name}"].content
    (said,) = faults(tmp_path / "a.json", content)
    start = content.index(rb"\u")
    byte = re.search(r"byte ([\d,]+)", said)
    assert "truncated" not in said
    assert byte and start - 1 <= int(byte[1].replace(",", "")) <= start + 12


@pytest.mark.parametrize("name", NOT_UTF8)
def test_invalid_utf8_says_where(name: str, tmp_path: Path) -> None:
    content = BAD[f"not UTF-8, {name}"].content
    (said,) = faults(tmp_path / "a.json", content)
    byte = re.search(r"byte ([\d,]+)", said)
    start = content.index(NOT_UTF8[name])
    assert "playlist 1" in said or (byte and start <= int(byte[1].replace(",", "")) <= start + 8)


@pytest.mark.skipif(AS_ROOT, reason="root reads everything")
def test_unreadable_file(fails: Callable[..., str], tmp_path: Path) -> None:
    write(tmp_path / "in", {"mpd.slice.0-9.json": SOUND})
    os.chmod(tmp_path / "in" / "mpd.slice.0-9.json", 0)
    said = fails({})
    assert said.startswith("mpd.slice.0-9.json: cannot be read: Permission denied")


@pytest.mark.skipif(AS_ROOT, reason="root reads everything")
def test_unreadable_folder(client, tmp_path: Path) -> None:
    source = write(tmp_path / "in", {"a.json": SOUND})
    os.chmod(source, 0)
    try:
        with pytest.raises(InputError, match=r"in: cannot be read"):
            api.ingest(source, tmp_path / "store", client=client)
    finally:
        os.chmod(source, 0o700)


def test_a_link_to_nothing_is_a_file_that_cannot_be_read(client, tmp_path: Path) -> None:
    """A slice whose disk is not mounted must not be passed over in silence."""
    source = write(tmp_path / "in", {"a.json": SOUND})
    (source / "b.json").symlink_to(tmp_path / "not mounted" / "b.json")
    with pytest.raises(InputError, match=r"b\.json"):
        api.ingest(source, tmp_path / "store", client=client)


# ------------------------------------------------------------------------------------------- several of them, and skip

SEVERAL = {
    "mpd.slice.0-9.json": BAD["truncated"].content,
    "mpd.slice.10-19.json": BAD["no artist_uri"].content,
    "mpd.slice.20-29.json.gz": BAD_GZIP["that is none"][0],
    "mpd.slice.30-39.json": BAD["root is a list"].content,
    "mpd.slice.40-49.json": BAD["artist_uri of a track"].content,
    "mpd.slice.50-59.json": BAD["pid negative"].content,
}


def test_a_store_stays_readable_when_a_run_on_it_fails(
    fails: Callable[..., str], kept: Path, good: Finished, tmp_path: Path
) -> None:
    fails(SEVERAL)
    same_tables(kept, good.store)
    assert api.similar(kept, "Artist a") == api.similar(good.store, "Artist a")


def test_a_fault_of_one_file_hides_none_of_another(fails: Callable[..., str]) -> None:
    """Small files are read together: each is judged by itself."""
    wrong = {f"mpd.slice.{at:02}.json": text(playlist(at, tracks=[entry(track_uri="x")])) for at in range(0, 40, 3)}
    right = {f"mpd.slice.{at:02}.json": text(playlist(at)) for at in range(40) if at % 3}
    lines = fails(wrong | right).splitlines()
    assert [line.partition(": ")[0] for line in lines] == sorted(wrong)


def test_skip_sets_bad_files_aside(client, good: Finished, tmp_path: Path) -> None:
    source = write(tmp_path / "in", GOOD | SEVERAL)
    store = tmp_path / "store"
    outcomes = api.run(source, store, client=client, on_bad_file="skip", models="none")
    check_whole(store)
    same_tables(store, good.store)
    aside = [str(source / name) for name in sorted(SEVERAL)]
    notes = outcomes[0].report.notes
    assert [note.partition("set aside: ")[2].partition(": ")[0] for note in notes] == aside
    manifest = json.loads((store / "manifest.json").read_bytes())
    assert manifest["set_aside"] == aside
    assert manifest["stages"]["ingest"]["report"]["notes"] == notes
    assert api.info(store)["set_aside"] == aside

    # Nothing has changed: nothing is done.
    before = visible(store)
    assert not any(one.fresh for one in api.run(source, store, client=client, on_bad_file="skip", models="none"))
    assert visible(store) == before

    # Asked to stop at bad files, it does, and the store stays.
    with pytest.raises(InputError):
        api.run(source, store, client=client, models="none")
    check_whole(store)
    assert visible(store) == before

    # A mended file is noticed.
    write(source, {"mpd.slice.0-9.json": SOUND})
    outcomes = api.ingest(source, store, client=client, on_bad_file="skip")
    assert outcomes[0].fresh and len(outcomes[0].report.notes) == len(SEVERAL) - 1
    assert rd.Store.open(str(store)).table("playlists")["pid"].to_pylist()[:2] == [PID, PID + 1]


def test_skip_of_every_file_leaves_empty_tables(client, tmp_path: Path) -> None:
    source = write(tmp_path / "in", {"a.json": b"x", "b.json": b"[]"})
    outcomes = api.run(source, tmp_path / "store", client=client, on_bad_file="skip", models="none")
    check_whole(tmp_path / "store")
    assert len(outcomes[0].report.notes) == 2
    assert {table.num_rows for table in tables_of(tmp_path / "store").values()} == {0}


def test_mended_after_a_failure(client, good: Finished, tmp_path: Path) -> None:
    """What a failed run has read already is used, and nothing of the bad file is left."""
    name = "mpd.slice.6000-6999.json"
    source = write(tmp_path / "in", GOOD | {name: GOOD[name][:-9]})
    with pytest.raises(InputError, match=re.escape(name)):
        api.run(source, tmp_path / "store", client=client, models="none")
    write(source, {name: GOOD[name]})
    news = News()
    api.run(source, tmp_path / "store", client=client, progress=news, models="none")
    assert "decode: 2 of 3 files are done already" in news.lines
    check_whole(tmp_path / "store")
    same_tables(tmp_path / "store", good.store)


def test_failures_on_different_inputs_leave_nothing_twice(client, tmp_path: Path) -> None:
    """Two runs that fail read one file together with others and alone: a third run must use it once."""
    sizes = [1, 1, *[20] * 7]
    files = {f"{at}.json": text(*map(full, range(100 * at, 100 * at + n))) for at, n in enumerate(sizes)}
    source = write(tmp_path / "in", files | {"9.json": b"bad"})
    for failing in (source, [source / "0.json", source / "9.json"]):
        with pytest.raises(InputError):
            api.ingest(failing, tmp_path / "store", client=client)
    (source / "9.json").unlink()
    api.ingest(source, tmp_path / "store", client=client)
    api.ingest(source, tmp_path / "plain", client=client)
    same_tables(tmp_path / "store", tmp_path / "plain")


# -------------------------------------------------------------------------------------------------------- a pid twice


@pytest.mark.parametrize("n_files", [2, 16])
def test_a_pid_in_two_files_names_both(n_files: int, fails: Callable[..., str]) -> None:
    """Whether the two are read together (16 small ones) or apart."""
    names = [f"mpd.slice.{at:02}.json" for at in range(n_files)]
    files = {name: text(playlist(at)) for at, name in enumerate(names)}
    files[names[1]] = text(playlist(0))
    said = fails(files)
    assert said.startswith(f"{names[1]}: pid 0: ")
    assert f"{names[0]} (" in said and "\n" not in said


def test_a_pid_in_two_files_is_one_thing_wherever_they_stand(client, tmp_path: Path) -> None:
    """What becomes of it must not depend on how files are shared out: neighbours are read together, others apart."""
    seen = {}
    for at in (1, 15):
        names = [f"mpd.slice.{number:02}.json" for number in range(16)]
        files = {name: text(playlist(number)) for number, name in enumerate(names)}
        source = write(tmp_path / f"in{at}", files | {names[at]: text(playlist(0))})
        try:
            outcomes = api.ingest(source, tmp_path / f"store{at}", client=client, on_bad_file="skip")
            seen[at] = f"{len(outcomes[0].report.notes)} set aside"
        except InputError:
            seen[at] = "refused"
    assert seen[1] == seen[15]


def test_a_pid_twice_in_one_file_is_a_bad_file_of_any_size(
    client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the file is read in pieces: it can be set aside."""
    files = {"a.json": text(playlist(8), playlist(3), playlist(8)), "b.json": text(playlist(5))}
    source = write(tmp_path / "in", files)
    monkeypatch.setattr(budget, "LARGEST_PART_BYTES", 300)
    outcomes = api.ingest(source, tmp_path / "store", client=client, on_bad_file="skip")
    assert [note.partition(": pid")[0] for note in outcomes[0].report.notes] == [f"set aside: {source / 'a.json'}"]
    assert rd.Store.open(str(tmp_path / "store")).table("playlists")["pid"].to_pylist() == [5]


# ------------------------------------------------------------------------------------------------------------- stores

STORE_COMMANDS: dict[str, Callable[..., Any]] = {
    "ingest": lambda store, good, out, client: api.ingest(good.slices, store, client=client),
    "run": lambda store, good, out, client: api.run(good.slices, store, client=client, models="none"),
    "counts": lambda store, good, out, client: api.counts(store, client=client),
    "near_duplicates": lambda store, good, out, client: api.near_duplicates(store, client=client),
    "pairs": lambda store, good, out, client: api.pairs(store, client=client),
    "fit": lambda store, good, out, client: api.fit(store, client=client),
    "evaluate": lambda store, good, out, client: api.evaluate(store, client=client),
    "recommend": lambda store, good, out, client: api.recommend(store, ["Artist a"]),
    "recommend a file": lambda store, good, out, client: api.recommend(store, playlists=good.slices, out=out),
    "export": lambda store, good, out, client: api.export(store, out, client=client),
    "similar": lambda store, good, out, client: api.similar(store, "Artist a"),
    "info": lambda store, good, out, client: api.info(store),
}
READING = [name for name in STORE_COMMANDS if name not in ("ingest", "run")]


@pytest.mark.parametrize("command", READING)
@pytest.mark.parametrize("there", ["nothing", "empty folder", "tables without a manifest"])
def test_no_store(command: str, there: str, client, good: Finished, kept: Path, tmp_path: Path) -> None:
    store = tmp_path / "none"
    if there == "empty folder":
        store.mkdir()
    if there == "tables without a manifest":
        store = kept
        (store / "manifest.json").unlink()
    with pytest.raises(StoreError, match=rf"{re.escape(str(store))}: no store here; .*recsys-dask run") as caught:
        STORE_COMMANDS[command](store, good, tmp_path / "out", client)
    assert "\n" not in str(caught.value)
    assert store.exists() == (there != "nothing")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", STORE_COMMANDS)
def test_store_of_another_format(command: str, client, good: Finished, kept: Path, tmp_path: Path) -> None:
    path = kept / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 99, "package": "9.8.7"}))
    before = files_of(kept)
    with pytest.raises(StoreError, match=r"kept: store of format 99, made by recsys_dask 9\.8\.7.*another folder"):
        STORE_COMMANDS[command](kept, good, tmp_path / "out", client)
    assert files_of(kept) == before
    assert not (tmp_path / "out").exists()


NO_MANIFEST = {
    "empty": b"",
    "no JSON": b"{format: 1}",
    "half": b'{"format": 1, "package": "0.1.0", "inp',
    "not UTF-8": b"\xff\xfe",
    "list": b"[]",
    "number": b"1",
    "no format": b'{"package": "0.1.0"}',
    "wrong tables": b'{"format": 1, "package": "0.1.0", "tables": []}',
}


@pytest.mark.parametrize("command", ["run", "pairs", "similar", "info"])
@pytest.mark.parametrize("name", NO_MANIFEST)
def test_a_manifest_that_is_none(name: str, command: str, client, good: Finished, kept: Path, tmp_path: Path) -> None:
    (kept / "manifest.json").write_bytes(NO_MANIFEST[name])
    before = files_of(kept)
    with pytest.raises(StoreError, match=r"manifest\.json: is not a store's manifest") as caught:
        STORE_COMMANDS[command](kept, good, tmp_path / "out", client)
    assert "\n" not in str(caught.value)
    assert files_of(kept) == before


@pytest.mark.parametrize("command", ["ingest", "run"])
def test_a_file_where_the_store_should_be(command: str, client, good: Finished, tmp_path: Path) -> None:
    for store in (tmp_path / "file", tmp_path / "file" / "deeper"):
        (tmp_path / "file").write_text("mine")
        with pytest.raises(StoreError, match=re.escape(str(store))) as caught:
            STORE_COMMANDS[command](store, good, tmp_path / "out", client)
        assert "\n" not in str(caught.value)
        assert (tmp_path / "file").read_text() == "mine"


def test_a_file_where_the_export_should_be(client, good: Finished, kept: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    with pytest.raises(StoreError, match=r"out/.*: cannot be written"):
        api.export(kept, tmp_path / "out", client=client)
    assert (tmp_path / "out").read_text() == "mine"
    assert visible(kept) == visible(good.store)


@pytest.mark.skipif(AS_ROOT, reason="root writes everywhere")
@pytest.mark.parametrize("command", ["ingest", "run", "pairs"])
def test_a_store_that_cannot_be_written(command: str, client, good: Finished, kept: Path, tmp_path: Path) -> None:
    for path in [kept, *kept.rglob("*")]:
        os.chmod(path, 0o500 if path.is_dir() else 0o400)
    try:
        with pytest.raises(StoreError, match=r"kept: cannot be written"):
            if command == "pairs":
                api.pairs(kept, rows_high=20, client=client)
            else:
                STORE_COMMANDS[command](
                    kept, good._replace(slices=write(tmp_path / "in", {"a.json": SOUND})), "", client
                )
    finally:
        for path in [kept, *kept.rglob("*")]:
            os.chmod(path, 0o700)
    assert files_of(kept) == files_of(good.store)


def test_pairs_before_counts(client, good: Finished, tmp_path: Path) -> None:
    store = tmp_path / "store"
    api.ingest(good.slices, store, client=client)
    before = visible(store)
    with pytest.raises(StoreError, match=rf"has no counts yet; first run: recsys-dask counts {re.escape(str(store))}"):
        api.pairs(store, client=client)
    check_whole(store)
    assert visible(store) == before


@pytest.mark.parametrize("command, first", [("export", "counts"), ("similar", "pairs")])
def test_before_the_stage_that_it_needs(command: str, first: str, client, good: Finished, tmp_path: Path) -> None:
    """The message says which command comes first."""
    store = tmp_path / "store"
    api.ingest(good.slices, store, client=client)
    before = visible(store)
    with pytest.raises(StoreError, match=rf"recsys-dask (run|{first})"):
        STORE_COMMANDS[command](store, good, tmp_path / "out", client)
    check_whole(store)
    assert visible(store) == before
    assert not (tmp_path / "out").exists()


def test_a_table_that_the_store_lacks_is_named(client, good: Finished, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"similar_track_cosine"):
        api.similar(good.store, "Track a", item="track")
    with pytest.raises(StoreError, match=r"has no table rowz; it holds artists"):
        rd.Store.open(str(good.store)).table("rowz")


@pytest.mark.parametrize("how", ["missing", "cut", "not Parquet"])
@pytest.mark.parametrize("command", ["similar", "info", "counts", "export"])
def test_a_file_of_the_store_that_is_damaged(
    command: str, how: str, client, good: Finished, kept: Path, tmp_path: Path
) -> None:
    (damaged,) = (kept / "tables" / "artists").iterdir()
    content = damaged.read_bytes()
    damaged.unlink()
    if how != "missing":
        damaged.write_bytes(content[:-30] if how == "cut" else b"mine")
    act = STORE_COMMANDS[command]
    if command == "counts":
        act = lambda *_: api.counts(kept, top=5, client=client)
    with pytest.raises((StoreError, ClusterError), match=re.escape(damaged.name)) as caught:
        act(kept, good, tmp_path / "out", client)
    assert "\n" not in str(caught.value)


def test_a_failed_run_leaves_no_keys_on_the_cluster(client, good: Finished, kept: Path, tmp_path: Path) -> None:
    """Not even while the error is held, as an interactive session holds the last one."""
    for damaged in (kept / "tables" / "rows").iterdir():
        damaged.unlink()
    with pytest.raises(RecsysDaskError) as first:
        api.ingest(write(tmp_path / "in", SEVERAL), tmp_path / "new", client=client)
    with pytest.raises(RecsysDaskError) as second:
        api.pairs(kept, rows_high=20, client=client)
    deadline = time.monotonic() + 3
    while left := client.run_on_scheduler(lambda dask_scheduler: sorted(dask_scheduler.tasks)):
        assert time.monotonic() < deadline, left
        time.sleep(0.05)
    assert first.value and second.value


# --------------------------------------------------------------------------------------------------------- parameters

WRONG_PARAMETERS: dict[str, tuple[str, dict[str, Any], str]] = {
    "unknown, near": ("run", {"row_high": 3}, r"row_high.*rows_high"),
    "unknown, near two": ("pairs", {"mention_over": 3}, r"mention_over.*mentions_over"),
    "unknown": ("ingest", {"zebra": 3}, r"zebra.*known are .*files.*on_bad_file"),
    "of another command": ("counts", {"rows_high": 3}, r"unknown parameter rows_high"),
    "of no parameters at all": ("info", {"k": 3}, r"unknown parameter k"),
    "too low": ("counts", {"top": 0}, r"--top is 0: give at least 1"),
    "negative": ("pairs", {"score_over": -0.5}, r"--score-over is -0\.5: give at least 0"),
    "too high": ("pairs", {"best": 1_001}, r"--best is 1001: give at most 1,000"),
    "no number": ("pairs", {"score_over": float("nan")}, r"--score-over is nan"),
    "a text for a number": ("ingest", {"files": "3"}, r"--files is '3': give int or none"),
    "a fraction for a number": ("counts", {"top": 10.0}, r"--top is 10\.0: give int"),
    "a truth value for a number": ("counts", {"top": True}, r"--top is True: give int"),
    "a number for a truth value": ("run", {"parquet": 1}, r"--parquet is 1: give bool"),
    "nothing for a number": ("counts", {"top": None}, r"--top is None: give int"),
    "wrong choice, near": ("similar", {"method": "cosin"}, r"--method is 'cosin': did you mean cosine"),
    "wrong choice": ("pairs", {"item": "album"}, r"--item is 'album': it is one of artist, track"),
    "wrong view": ("pairs", {"view": "half"}, r"--view is 'half': it is one of article, full"),
    "wrong way with bad files": ("run", {"on_bad_file": "ignore"}, r"--on-bad-file is 'ignore'.*stop, skip"),
    "none to list": ("similar", {"k": 0}, r"-k is 0: give at least 1"),
    "low over high": ("pairs", {"rows_low": 9, "rows_high": 8}, r"--rows-low is 9 and --rows-high 8"),
    "low over the default high": ("run", {"rows_low": 31}, r"--rows-low is 31 and --rows-high 30"),
    "a measure of the other view": ("pairs", {"view": "article", "measure": "cosine"}, r"--view article.*cosine"),
    "workers of another's cluster": ("run", {"workers": 2, "rows_high": 20}, r"--workers.*client="),
    "memory of another's cluster": ("run", {"memory_limit": "2GB", "rows_high": 20}, r"--memory-limit.*client="),
}


@pytest.mark.parametrize("name", WRONG_PARAMETERS)
def test_wrong_parameter(name: str, client, good: Finished, kept: Path, tmp_path: Path) -> None:
    command, parameters, words = WRONG_PARAMETERS[name]
    arguments: dict[str, tuple[Any, ...]] = {
        "run": (good.slices, kept),
        "ingest": (good.slices, kept),
        "similar": (kept, "Artist a"),
    }
    ours = {} if command in ("similar", "info") else {"client": client}
    with pytest.raises(UsageError, match=words) as caught:
        getattr(api, command)(*arguments.get(command, (kept,)), **ours, **parameters)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2
    assert visible(kept) == visible(good.store)
    check_whole(kept)


def test_a_wrong_parameter_makes_no_store(client, good: Finished, tmp_path: Path) -> None:
    for parameters in ({"row_high": 3}, {"top": 0}, {"rows_low": 31}):
        with pytest.raises(UsageError):
            api.run(good.slices, tmp_path / "new", client=client, **parameters, models="none")
    assert not (tmp_path / "new").exists()


MEMORY = {"nonsense": "nonsense", "unit": "2XB", "nothing": "0", "negative": "-1GB", "no number": "nanGB"}


@pytest.mark.parametrize("name", MEMORY)
def test_memory_limit_that_is_none(name: str, good: Finished, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=rf"--memory-limit is '{MEMORY[name]}': give a size"):
        api.run(good.slices, tmp_path / "store", workers=1, memory_limit=MEMORY[name], models="none")
    check_whole(tmp_path / "store")


@pytest.mark.parametrize("limit", ["1e400GB", ""])
def test_memory_limit_that_cannot_be(
    limit: str, good: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_cluster(monkeypatch)
    with pytest.raises(UsageError, match=r"--memory-limit"):
        api.run(good.slices, tmp_path / "store", workers=1, memory_limit=limit, models="none")


@pytest.mark.parametrize("limit", ["1", "1MB", "300MB"])
def test_memory_limit_too_small_is_refused_before_a_cluster_starts(
    limit: str, good: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers that cannot even start would be waited for in vain."""
    no_cluster(monkeypatch)
    with pytest.raises(BudgetError, match=r"--memory-limit at least"):
        api.run(good.slices, tmp_path / "store", workers=1, memory_limit=limit, models="none")
    check_whole(tmp_path / "store")


def no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    import distributed

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a cluster was started")

    monkeypatch.setattr(distributed, "LocalCluster", refuse)


# --------------------------------------------------------------------------------------------------- the command line


def command(*arguments: Any, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "recsys_dask", *map(str, arguments)],
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=timeout,
    )


def ours(done: subprocess.CompletedProcess[str], code: int) -> list[str]:
    """The lines of ours on stderr; no traceback anywhere."""
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    return [line for line in done.stderr.splitlines() if line.startswith("recsys-dask: ")]


@pytest.mark.parametrize(
    "words, arguments",
    [
        (r"nowhere: no such file or folder", ["run", "{in}/nowhere", "{in}/new"]),
        (r"no store here", ["similar", "{in}/new", "Artist a"]),
        (r"store of format 99", ["info", "{kept}"]),
        (r"file/manifest\.json: cannot be read", ["run", "{slices}", "{in}/file"]),
    ],
)
def test_command_line_says_it_in_one_line(
    words: str, arguments: list[str], good: Finished, kept: Path, tmp_path: Path
) -> None:
    path = kept / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 99}))
    (tmp_path / "file").write_text("mine")
    places = {"in": tmp_path, "kept": kept, "slices": good.slices}
    done = command(*[argument.format_map(places) for argument in arguments])
    (line,) = ours(done, 1)
    assert re.search(words, line)
    assert done.stderr.splitlines() == [line] and done.stdout == ""
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    "words, arguments",
    [
        (r"--row-high.*--rows-high", ["run", "{slices}", "{store}", "--row-high", "3"]),
        (r"--top.*many", ["counts", "{store}", "--top", "many"]),
        (r"--method.*cosine", ["similar", "{store}", "Artist a", "--method", "cosin"]),
        (r"rows-low is 9 and --rows-high 8", ["pairs", "{store}", "--rows-low", "9", "--rows-high", "8"]),
        (r"--memory-limit is 'much'", ["pairs", "{store}", "--rows-high", "9", "--memory-limit", "much"]),
    ],
)
def test_command_line_usage(words: str, arguments: list[str], good: Finished) -> None:
    places = {"slices": good.slices, "store": good.store}
    done = command(*[argument.format_map(places) for argument in arguments])
    ours(done, 2)
    assert re.search(words, done.stderr) and done.stdout == ""


def test_command_line_with_bad_files(good: Finished, tmp_path: Path) -> None:
    source = write(tmp_path / "in", GOOD | SEVERAL)
    done = command("ingest", source, tmp_path / "store", "--workers", 1)
    lines = ours(done, 1)
    assert [line.removeprefix("recsys-dask: ").partition(": ")[0] for line in lines] == [
        str(source / name) for name in sorted(SEVERAL)
    ]
    assert done.stdout == ""
    check_whole(tmp_path / "store")
    assert not (tmp_path / "store" / "manifest.json").exists()

    done = command("ingest", source, tmp_path / "store", "--workers", 1, "--on-bad-file", "skip")
    assert ours(done, 0) == []
    assert [line.strip().partition(": ")[2].partition(": ")[0] for line in lines_with(done.stdout, "set aside")] == [
        str(source / name) for name in sorted(SEVERAL)
    ]
    opened, whole = rd.Store.open(str(tmp_path / "store")), rd.Store.open(str(good.store))
    for name in ("playlists", "rows", "artists", "tracks"):
        assert opened.table(name).equals(whole.table(name))


def test_command_line_with_too_little_memory(good: Finished, tmp_path: Path) -> None:
    done = command("ingest", good.slices, tmp_path / "store", "--workers", 1, "--memory-limit", "300MB")
    (line,) = ours(done, 1)
    assert "--memory-limit at least" in line


def test_command_line_shows_the_traceback_when_asked(tmp_path: Path) -> None:
    done = command("info", tmp_path, "--debug")
    assert done.returncode == 1
    assert "Traceback" in done.stderr and "StoreError" in done.stderr


def lines_with(output: str, words: str) -> Iterable[str]:
    return [line for line in output.splitlines() if words in line]
