"""The reader of slices: whole files and files cut while they stream by give the same parts and the same faults."""

from __future__ import annotations

import gzip
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import oracles
import pytest
import strategies
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from strategies import PRINTINGS, Printing, write_slices

from recsys_dask.errors import Fault
from recsys_dask.formats import mpd, splitting
from recsys_dask.formats.base import Part
from recsys_dask.runtime.connecting import prepare_kernels
from recsys_dask.runtime.progress import Progress

WHOLE = 10**9
"""More bytes than any file here has."""

CUTS = (1, 40, 200)
"""Budgets of so few bytes that every file here is cut, after each playlist or after some."""


@pytest.fixture(scope="module", autouse=True)
def compiled() -> None:
    prepare_kernels(Progress())


def read(
    paths: Sequence[str], part_bytes: int, block_bytes: int = splitting.BLOCK_BYTES
) -> tuple[list[Part], list[Fault]]:
    """What `mpd.read` delivers, taken apart; parts that a later fault of their file makes void are left out."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(splitting, "BLOCK_BYTES", block_bytes)
        found = list(mpd.read(paths, part_bytes))
    faults = [one for one in found if isinstance(one, Fault)]
    void = {(fault.file,) for fault in faults}
    return [one for one in found if isinstance(one, Part) and one.files not in void], faults


def content(parts: Sequence[Part]) -> dict[str, Any]:
    """Parts as one, without their codes: what does not depend on how a file was cut."""
    playlists, rows = [], []
    vocabulary: dict[str, dict[str, Any]] = {"artists": {}, "tracks": {}}
    for part in parts:
        playlists += [one | {"file": part.files[one["file"]]} for one in part.playlists.to_pylist()]
        artist, track = part.artists["id"].to_pylist(), part.tracks["id"].to_pylist()
        rows += [(one["pid"], one["pos"], artist[one["artist"]], track[one["track"]]) for one in part.rows.to_pylist()]
        for kind, known in vocabulary.items():
            for one in getattr(part, kind).to_pylist():
                before = known.get(one["id"])
                first = one if before is None or one["first_pid"] < before["first_pid"] else before
                sums = {name: one[name] + (before[name] if before else 0) for name in ("n_mentions", "n_playlists")}
                known[one["id"]] = first | sums
    playlists.sort(key=lambda one: one["pid"])
    rows.sort(key=lambda row: row[0])  # a playlist is in one part, by pos there
    return {"playlists": playlists, "rows": rows, **vocabulary}


def expected(paths: Sequence[str]) -> dict[str, Any]:
    """The same from the oracle."""
    data = oracles.read(paths)
    home = {playlist["pid"]: path for path in paths for playlist in oracles.read([path])}
    first: dict[str, dict[str, int]] = {"artist": {}, "track": {}}
    for playlist, entry in oracles.entries(data):
        for item, known in first.items():
            known.setdefault(oracles.bare(entry[f"{item}_uri"]), playlist["pid"])
    artist, track = oracles.ids(data, "artist"), oracles.ids(data, "track")

    def vocabulary(item: str) -> dict[str, Any]:
        found = {}
        for row in oracles.table(data, item):
            id = row.pop(f"{item}_id")
            del row[item]
            if item == "track":
                row["artist_id"] = artist[row.pop("artist")]
            found[id] = row | {"id": id, "name": row.pop(f"{item}_name"), "first_pid": first[item][id]}
        return found

    for found in (artists := vocabulary("artist"), tracks := vocabulary("track")):
        for row in found.values():
            row.pop("artist_name", None), row.pop("track_name", None)
    return {
        "playlists": [one | {"file": home[one["pid"]]} for one in oracles.playlists(data)],
        "rows": [(row["pid"], row["pos"], artist[row["artist"]], track[row["track"]]) for row in oracles.rows(data)],
        "artists": artists,
        "tracks": tracks,
    }


# ---------------------------------------------------------------------------------------------------- same content


@settings(max_examples=60, deadline=None)
@given(
    playlists=strategies.playlists(max_size=6, max_tracks=8),
    printing=strategies.printings(),
    n_files=st.integers(1, 3),
    part_bytes=st.sampled_from((*CUTS, 1_000)) | st.integers(1, 3_000),
    block_bytes=st.sampled_from((1, 16, 1_000, 1 << 20)),
)
def test_cut_anywhere(
    playlists: list[dict[str, Any]], printing: Printing, n_files: int, part_bytes: int, block_bytes: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        paths = write_slices(folder, playlists, n_files, printing)
        whole, no_faults = read(paths, WHOLE)
        cut, none_either = read(paths, part_bytes, block_bytes)
        assert not no_faults and not none_either
        assert content(whole) == content(cut) == expected(paths)
        for part in cut:
            assert part.playlists["pid"].to_pylist() == sorted(part.playlists["pid"].to_pylist())
            assert len(part.playlists) == len(set(part.playlists["pid"].to_pylist()))


@pytest.mark.parametrize("printing", PRINTINGS, ids=lambda printing: printing.name)
def test_every_printing(printing: Printing, tmp_path: Path) -> None:
    paths = write_slices(tmp_path, EIGHT, 2, printing)
    whole, _ = read(paths, WHOLE)
    assert content(whole) == expected(paths)
    for part_bytes in (1, 300):
        cut, faults = read(paths, part_bytes)
        assert not faults and len(cut) >= len(EIGHT) // 2
        assert content(cut) == content(whole)


def test_parts_are_of_about_the_size_asked_for(tmp_path: Path) -> None:
    (path,) = write_slices(tmp_path, [_playlist(pid) for pid in range(200)], 1, Printing("compact"))
    each = len(json.dumps(_playlist(100), separators=(",", ":")))
    for part_bytes in (each * 3, each * 20):
        parts, _ = read([path], part_bytes)
        sizes = [len(part.playlists) for part in parts]
        assert all(0.8 * part_bytes <= n * each <= part_bytes + 2 * each for n in sizes[:-1])
        assert sum(sizes) == 200


def _playlist(pid: int, **more: Any) -> dict[str, Any]:
    entries = [
        {
            "pos": pos,
            "artist_name": f'A "{pid % 3}", ][',
            "artist_uri": f"spotify:artist:{pid % 3:022d}",
            "track_name": "\\",
            "track_uri": f"spotify:track:{(pid + pos) % 5:022d}",
        }
        for pos in range(2)
    ]
    return {"pid": pid, "name": 'a,]}"{[\\', "num_tracks": 2, "tracks": entries} | more


EIGHT = [_playlist(pid) for pid in (5, 3, 8, 1, 9, 2, 7, 4)]


# ------------------------------------------------------------------------------------------------------ the root


def _bytes(*pids: int) -> bytes:
    return b",".join(json.dumps(_playlist(pid), separators=(",", ":")).encode() for pid in pids)


DECOYS = {
    "inside an object": b'{"also":{"playlists":[{"pid":1},7]},"playlists":[%s]}',
    "inside an array": b'{"also":[{"playlists":[7]},[{"playlists":[7]}]],"playlists":[%s]}',
    "behind it": b'{"playlists":[%s],"also":{"playlists":[7]}}',
    "in a text": b'{"also":"\\"playlists\\":[","playlists":[%s]}',
    "as a value": b'{"also":"playlists","and":["playlists","playlists"],"playlists":[%s]}',
    "other arrays": b'{"a":[1,2,{"b":[3,4]}],"playlists":[%s],"c":[[],[[]],5]}',
    "a longer key": b'{"my playlists":[1,2],"playlists2":[3],"":[4],"playlists":[%s]}',
    "a quoted key": b'{"x\\"playlists":[1,2],"\\\\":[3],"playlists":[%s]}',
    "blanks around": b' \r\n{ "playlists"\t:\n [ %s ] }\n ',
    "escaped": b'{"playl\\u0069sts":[%s]}',
    "a key of 5,000 letters": b'{"' + b"x" * 5_000 + b'\\"playlists":[1,2],"playlists":[%s]}',
}


@pytest.mark.parametrize("name", DECOYS)
@pytest.mark.parametrize("part_bytes", [*CUTS, WHOLE])
def test_decoys(name: str, part_bytes: int, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(DECOYS[name] % _bytes(1, 2, 3))
    parts, faults = read([str(path)], part_bytes)
    assert not faults
    assert content(parts) == expected([str(path)])
    assert [one["pid"] for one in content(parts)["playlists"]] == [1, 2, 3]


TWICE = {
    "the same": b'{"playlists":[%s],"playlists":[%s]}',
    "apart": b'{"playlists":[%s],"info":{"a":[1,2]},"also":[3], "playlists" : [%s]}',
    "second empty": b'{"playlists":[%s,%s],"playlists":[]}',
    "first empty": b'{"playlists":[],"playlists":[%s,%s]}',
}


@pytest.mark.parametrize("name", TWICE)
@pytest.mark.parametrize("part_bytes", [*CUTS, WHOLE])
def test_two_lists_of_playlists_are_refused(name: str, part_bytes: int, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(TWICE[name] % (_bytes(1, 2), _bytes(3)))
    parts, (fault,) = read([str(path)], part_bytes)
    assert not parts
    assert fault.file == str(path) and "twice" in fault.message


@pytest.mark.parametrize(
    "part_bytes",
    [*CUTS, pytest.param(WHOLE, marks=pytest.mark.xfail(reason="the decoder takes the last of two, and says nothing"))],
)
@pytest.mark.parametrize(
    "text", [b'{"playlists":[%s],"playl\\u0069sts":[%s]}', b'{"\\u0070laylists":[%s],"playlists":[%s]}']
)
def test_two_lists_one_of_them_escaped(text: bytes, part_bytes: int, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(text % (_bytes(1, 2), _bytes(3)))
    parts, (fault,) = read([str(path)], part_bytes)
    assert not parts and "twice" in fault.message


@pytest.mark.parametrize("part_bytes", [*CUTS, WHOLE])
@pytest.mark.parametrize(
    "text",
    [
        b'{"playlists":null,"playlists":[%s]}',
        b'{"playlists":[%s],"playlists":null}',
        b'{"plays":[%s]}',
        b'{"also":{"playlists":[%s]}}',
        b'{"playlists":{"a":[%s]}}',
        b"[%s]",
        b'[{"playlists":[%s]}]',
        b"12",
        b'"playlists"',
        b"null",
    ],
)
def test_no_list_of_playlists(text: bytes, part_bytes: int, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(text % _bytes(1, 2) if b"%" in text else text)
    parts, (fault,) = read([str(path)], part_bytes)
    assert not parts and fault.file == str(path)
    assert fault in read([str(path)], WHOLE)[1]


# -------------------------------------------------------------------------------------------------------- not JSON

LONG = _bytes(*range(10, 30))
ONE, TWO, THREE = _bytes(1), _bytes(2), _bytes(3)

MALFORMED: dict[str, tuple[bytes, bytes]] = {
    "empty file": (b"", b""),
    "comma before the first": (b'{"playlists":[', b"," + ONE + b"]}"),
    "comma and blanks before the first": (b'{"playlists":[' + b" " * 300, b"," + ONE + b"]}"),
    "two commas": (b'{"playlists":[' + ONE + b",", b"," + TWO + b"]}"),
    "blanks between two commas": (b'{"playlists":[' + ONE + b"," + b" " * 300, b"," + TWO + b"]}"),
    "line ends between two commas": (b'{"playlists":[' + LONG + b",\n\r\n\t", b"," + TWO + b"]}"),
    "comma behind the last": (b'{"playlists":[' + ONE + b"," + TWO + b",", b"]}"),
    "comma and blanks behind the last": (b'{"playlists":[' + LONG + b"," + b" " * 300, b"]}"),
    "only a comma": (b'{"playlists":[', b",]}"),
    "no comma": (b'{"playlists":[' + LONG + b" ", ONE + b"]}"),
    "a bare word in the first": (b'{"playlists":[{"pid":', b'x,"num_tracks":0,"tracks":[]},' + LONG + b"]}"),
    "a bare word in the last": (b'{"playlists":[' + LONG + b',{"pid":', b'x,"num_tracks":0,"tracks":[]}]}'),
    "a bare word between": (b'{"playlists":[' + ONE + b",", b"x," + LONG + b"]}"),
    "a bare word behind": (b'{"playlists":[' + LONG + b"] ", b"x}"),
    "a word behind the root": (b'{"playlists":[' + LONG + b"]} ", b"x"),
    "a second root": (b'{"playlists":[' + LONG + b"]}", b"{}"),
    "wrong before": (b'{"info":{', b',},"playlists":[' + LONG + b"]}"),
    "wrong behind": (b'{"playlists":[' + LONG + b'],"info":{"a":', b"}}"),
    "one brace more": (b'{"playlists":[' + LONG, b"}," + ONE + b"]}"),
    "one bracket more": (b'{"playlists":[' + LONG + b"]", b"]}"),
    "a bracket not opened": (b'{"playlists":[' + LONG + b',{"pid":1,"num_tracks":0,"tracks":[', b"}]}"),
    "a bracket not closed": (
        b'{"playlists":[' + LONG + b',{"pid":1,"num_tracks":0,"tracks":[',
        b"x]," + LONG + b"]}",
    ),
    "a quote not closed": (
        b'{"playlists":[' + LONG + b',{"name":"',
        b'\n","pid":1,"num_tracks":0,"tracks":[]}]}',
    ),
    "a lone quote": (b'{"playlists":[' + LONG + b",", b'" ,' + ONE.replace(b'"', b"'") + b"]}"),
    "a key without quotes": (b'{"playlists":[' + LONG + b",{", b'pid:1,"num_tracks":0,"tracks":[]}]}'),
    "not closed": (b'{"playlists":[' + LONG, b""),
    "nothing behind a comma": (b'{"playlists":[' + LONG + b",", b""),
    "the root not closed": (b'{"playlists":[' + LONG + b"]", b""),
    "a playlist not closed": (b'{"playlists":[' + LONG + b"," + ONE[:-1], b""),
    "broken off in a text": (b'{"playlists":[' + LONG + b',{"name":"abc', b""),
    "broken off behind a backslash": (b'{"playlists":[' + LONG + b',{"name":"abc\\', b""),
    "broken off before": (b'{"info":{"a":[1,2', b""),
}
"""What is right, and what follows from the offending byte on."""

OTHER_PLACE = {"a lone quote", "a word behind the root", "a second root"}
"""Where the decoder notices later what is wrong, or points one byte behind it; both ways must agree all the same."""


@pytest.mark.parametrize("name", MALFORMED)
@pytest.mark.parametrize("part_bytes", [*CUTS, WHOLE])
def test_malformed(name: str, part_bytes: int, tmp_path: Path) -> None:
    good, bad = MALFORMED[name]
    path, other = tmp_path / "a.json", tmp_path / "b.json"
    path.write_bytes(good + bad)
    other.write_bytes(b'{"playlists":[' + THREE + b"]}")
    parts, (fault,) = read([str(path), str(other)], part_bytes)
    assert fault.file == str(path)
    assert fault.message.startswith("not JSON: ")
    if name not in OTHER_PLACE:
        assert fault.where == f"byte {len(good):,}"
    assert fault.where == read([str(path)], WHOLE)[1][0].where
    assert content(parts) == expected([str(other)])  # the other file is none the worse


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    at=st.integers(0, len(LONG) + 15),
    how=st.sampled_from(("broken off", "without", "doubled", "another")),
    part_bytes=st.sampled_from(CUTS),
)
def test_one_byte_wrong(tmp_path: Path, at: int, how: str, part_bytes: int) -> None:
    """Any byte: taken out, put twice, another one, or the file's end. Both ways find the same, or nothing."""
    text = b'{"playlists":[' + LONG + b"]}"
    spoilt = {
        "broken off": text[:at],
        "without": text[:at] + text[at + 1 :],
        "doubled": text[: at + 1] + text[at:],
        "another": text[:at] + b"#" + text[at + 1 :],
    }[how]
    path = tmp_path / "a.json"
    path.write_bytes(spoilt)
    whole, faults = read([str(path)], WHOLE)
    cut, cut_faults = read([str(path)], part_bytes)
    assert [(fault.file, fault.where) for fault in cut_faults] == [(fault.file, fault.where) for fault in faults]
    if not faults:
        assert content(cut) == content(whole)


# ------------------------------------------------------------------------------------------------ wrong but JSON

WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no pid": ({"pid": None}, "playlist 20 (pid None), field pid"),
    "pid below 0": ({"pid": -1}, "playlist 20 (pid -1), field pid"),
    "pid too large": ({"pid": 2**63}, f"playlist 20 (pid {2**63}), field pid"),
    "pid a text": ({"pid": "1"}, "playlist 20 (pid 1), field pid"),
    "no num_tracks": ({"num_tracks": None}, "playlist 20 (pid 77), field num_tracks"),
    "num_tracks a fraction": ({"num_tracks": 1.5}, "playlist 20 (pid 77), field num_tracks"),
    "no tracks": ({"tracks": None}, "playlist 20 (pid 77), field tracks"),
    "tracks an object": ({"tracks": {}}, "playlist 20 (pid 77), field tracks"),
    "name a number": ({"name": 7}, "playlist 20 (pid 77), field name"),
    "collaborative a bool": ({"collaborative": True}, "playlist 20 (pid 77), field collaborative"),
    "collaborative another text": ({"collaborative": "yes"}, "playlist 20 (pid 77), field collaborative"),
    "an empty entry": ({"tracks": [_playlist(1)["tracks"][0], {}]}, "playlist 20 (pid 77), track 1"),
    "pos below 0": ({"tracks": [_playlist(1)["tracks"][0] | {"pos": -1}]}, "playlist 20 (pid 77), track 0, field pos"),
    "no artist": (
        {"tracks": [_playlist(1)["tracks"][0] | {"artist_uri": None}]},
        "playlist 20 (pid 77), track 0, field artist_uri",
    ),
    "an artist that is none": (
        {"tracks": [_playlist(1)["tracks"][0] | {"pos": 6, "artist_uri": f"spotify:track:{0:022d}"}]},
        "playlist (pid 77), entry of pos 6, field artist_uri",
    ),
    "an id too short": (
        {"tracks": [_playlist(1)["tracks"][0] | {"pos": 6, "track_uri": "spotify:track:abc"}]},
        "playlist (pid 77), entry of pos 6, field track_uri",
    ),
    "an id with a blank": (
        {"tracks": [_playlist(1)["tracks"][0] | {"pos": 6, "album_uri": f"spotify:album:{0:021d} "}]},
        "playlist (pid 77), entry of pos 6, field album_uri",
    ),
    "an id that is not ASCII": (
        {"tracks": [_playlist(1)["tracks"][0] | {"pos": 6, "track_uri": f"spotify:track:{0:021d}é"}]},
        "playlist (pid 77), entry of pos 6, field track_uri",
    ),
}


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize("part_bytes", [*CUTS, WHOLE])
@pytest.mark.parametrize("gz", [False, True], ids=["plain", "gz"])
def test_wrong_values_name_their_place(name: str, part_bytes: int, gz: bool, tmp_path: Path) -> None:
    change, where = WRONG[name]
    playlists = [_playlist(pid) for pid in range(100, 120)]
    playlists += [_playlist(77) | change, _playlist(200)]
    text = json.dumps({"playlists": playlists}).encode()
    path = tmp_path / ("a.json.gz" if gz else "a.json")
    path.write_bytes(gzip.compress(text) if gz else text)
    parts, (fault,) = read([str(path)], part_bytes)
    assert not parts
    assert (fault.file, fault.where) == (str(path), where)


def test_a_field_left_out(tmp_path: Path) -> None:
    for name in ("pid", "num_tracks", "tracks"):
        playlist = _playlist(5)
        del playlist[name]
        path = tmp_path / "a.json"
        path.write_text(json.dumps({"playlists": [_playlist(1), playlist]}))
        for part_bytes in (1, WHOLE):
            _, (fault,) = read([str(path)], part_bytes)
            assert fault.where == ("playlist 1" if name == "pid" else "playlist 1 (pid 5)")
            assert f"`{name}`" in fault.message
    for name in ("pos", "artist_name", "artist_uri", "track_name", "track_uri"):
        playlist = _playlist(5)
        del playlist["tracks"][1][name]
        path.write_text(json.dumps({"playlists": [_playlist(1), playlist]}))
        for part_bytes in (1, WHOLE):
            _, (fault,) = read([str(path)], part_bytes)
            assert fault.where == "playlist 1 (pid 5), track 1"
            assert f"`{name}`" in fault.message


@pytest.mark.parametrize("part_bytes", [*CUTS, WHOLE])
def test_bytes_that_are_no_text(part_bytes: int, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b'{"playlists":[' + LONG + b"," + ONE.replace(b'"name":"a', b'"name":"\xff') + b"]}")
    parts, (fault,) = read([str(path)], part_bytes)
    assert not parts and fault.file == str(path) and "UTF-8" in fault.message


@pytest.mark.parametrize("part_bytes", [*CUTS, WHOLE])
def test_packed_files_that_break_off(part_bytes: int, tmp_path: Path) -> None:
    packed = gzip.compress(b'{"playlists":[' + LONG + b"]}")
    for name, content_ in {"early": packed[:-20], "no": b"not gzip at all", "bent": packed[:60] + b"#####"}.items():
        path = tmp_path / f"{name}.json.gz"
        path.write_bytes(content_)
        parts, (fault,) = read([str(path)], part_bytes)
        assert not parts and fault.file == str(path)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    good = tmp_path / "b.json"
    good.write_bytes(b'{"playlists":[' + ONE + b"]}")
    parts, (fault,) = read([str(tmp_path / "a.json"), str(good)], WHOLE)
    assert fault.file == str(tmp_path / "a.json") and "cannot be read" in fault.message
    assert content(parts) == expected([str(good)])


def test_a_pid_twice(tmp_path: Path) -> None:
    """In one file it is the reader's to find, in two the ingest's: see test_tables and test_bad_input."""
    first, second = tmp_path / "a.json", tmp_path / "b.json"
    first.write_bytes(b'{"playlists":[' + _bytes(1, 2) + b"]}")
    second.write_bytes(b'{"playlists":[' + _bytes(3, 2) + b"]}")
    _, faults = read([str(first), str(second)], WHOLE)
    assert not faults
    first.write_bytes(b'{"playlists":[' + _bytes(1, 2, 1) + b"]}")
    _, (fault,) = read([str(first)], WHOLE)
    assert (fault.file, fault.where) == (str(first), "pid 1")


def test_the_collector_is_left_as_it_was(tmp_path: Path) -> None:
    import gc

    path = tmp_path / "a.json"
    path.write_bytes(b'{"playlists":[' + LONG + b"]}")
    assert gc.isenabled()
    reading = mpd.read([str(path)], 1)
    next(reading)
    reading.close()
    assert gc.isenabled()
