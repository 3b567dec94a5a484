"""The scanner against the strict reader, which shares no code with it: equal tables, or the slice is left to it.

The texts lie between two pages that nobody may touch, so a read before or behind a text's padding ends the process.
"""

from __future__ import annotations

import ctypes
import gzip
import json
import mmap
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from random import Random

import fsspec
import numpy as np
import pytest
from mutations import a_slice, an_id, mutated
from numpy.typing import NDArray

from recsys_dask import api
from recsys_dask.errors import Fault
from recsys_dask.formats import mpd
from recsys_dask.formats.base import Part
from recsys_dask.formats.scanner.columns import Scanner
from recsys_dask.formats.strict import Strict
from recsys_dask.formats.texts import PAD, Text, Wrong
from recsys_dask.store.tables import Store

TABLES = ("playlists", "rows", "artists", "tracks")


def padded(text: bytes) -> NDArray[np.uint8]:
    return np.frombuffer(text + bytes(PAD), np.uint8)


class Guarded:
    """Memory between two pages that may not be touched."""

    ROOM = 1 << 21

    def __init__(self) -> None:
        page = mmap.PAGESIZE
        self._memory = mmap.mmap(-1, self.ROOM + 2 * page)
        start = ctypes.addressof(ctypes.c_char.from_buffer(self._memory))
        protect = ctypes.CDLL(None, use_errno=True).mprotect
        for guard in (start, start + page + self.ROOM):
            assert protect(ctypes.c_void_p(guard), ctypes.c_size_t(page), 0) == 0
        self._usable = np.frombuffer(self._memory, np.uint8)[page : page + self.ROOM]

    def holding(self, text: bytes, at_start: bool) -> NDArray[np.uint8]:
        """The text and its padding, right behind the first guard or right before the second."""
        size = len(text) + PAD
        where = self._usable[:size] if at_start else self._usable[self.ROOM - size :]
        where[:] = padded(text)
        return where


@pytest.fixture(scope="module")
def guarded() -> Guarded:
    return Guarded()


def strictly(texts: Sequence[bytes]) -> Part | None:
    """The part of the strict reader; None if it refuses one of the texts."""
    strict = Strict()
    try:
        for file, text in enumerate(texts):
            strict.add(Text(file, padded(text), len(text), True), 0)
    except Wrong:
        return None
    (part,) = strict.parts([str(file) for file in range(len(texts))]) or (None,)
    return part if isinstance(part, Part) else None


def assert_equal(one: Part, other: Part, told: object) -> None:
    for name in TABLES:
        assert getattr(one, name).equals(getattr(other, name)), (name, told)


def compared(guarded: Guarded, texts: Sequence[bytes], at_start: bool) -> list[str]:
    """What became of each text; those that the scanner took, as one part, are compared."""
    scanner = Scanner()
    became, taken = [], []
    for text in texts:
        held = guarded.holding(text, at_start)
        if scanner.add(Text(len(taken), held, len(text), True), 0) is not None:
            taken.append(text)
            became.append("equal")
        else:
            became.append("both refuse" if strictly([text]) is None else "handed over")
    if taken:
        expected = strictly(taken)
        assert expected is not None, f"the scanner takes what the strict reader refuses: {taken}"
        (part,) = scanner.parts([str(file) for file in range(len(taken))])
        assert isinstance(part, Part)
        pids = part.playlists["pid"].to_pylist()
        if len(set(pids)) == len(pids):  # the ingest refuses a pid in two files, and what is first is then open
            assert_equal(part, expected, taken)
    return became


def fuzz(guarded: Guarded, cases: int, seed: int) -> Counter[str]:
    """So many mutated slices, one to three of them a part; and now and then the unchanged ones."""
    random = Random(seed)
    tally: Counter[str] = Counter()
    while tally.total() < cases:
        ids = [an_id(random) for _ in range(12)]
        slices = [a_slice(random, ids, random.randrange(50)) for _ in range(random.choice([1, 1, 2, 3]))]
        for became, (_, plain) in zip(
            compared(guarded, [text for text, _ in slices], random.random() < 0.5), slices, strict=True
        ):
            assert became == "equal" or (not plain and became == "handed over"), (became, slices)
        for _ in range(8):
            texts = [mutated(text, random) if random.random() < 0.9 else text for text, _ in slices]
            tally.update(compared(guarded, texts, random.random() < 0.5))
    return tally


@pytest.mark.parametrize("seed", range(2))
def test_mutated_slices(guarded: Guarded, seed: int) -> None:
    tally = fuzz(guarded, 2_000, seed)
    assert set(tally) == {"equal", "both refuse", "handed over"}
    assert tally["equal"] > 400 and tally["both refuse"] > 400


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 120))
def test_a_million_mutated_slices(guarded: Guarded, seed: int, capsys: pytest.CaptureFixture[str]) -> None:
    tally = fuzz(guarded, 50_000, seed)
    with capsys.disabled():
        print(f"\nseed {seed}: {dict(tally)}", flush=True)


def entry(pos: int, artist: int, track: int, **more: object) -> dict[str, object]:
    return {
        "pos": pos,
        "artist_name": f"artist {artist}",
        "track_uri": f"spotify:track:{track:022}",
        "artist_uri": f"spotify:artist:{artist:022}",
        "track_name": f"track {track}",
        "album_uri": f"spotify:album:{track % 7:022}",
        "duration_ms": 1_000 + track,
        "album_name": "-",
    } | more


def a_text(*playlists: dict[str, object], **style: object) -> bytes:
    return json.dumps({"info": {}, "playlists": playlists}, **style).encode()  # type: ignore[arg-type]


def a_playlist(pid: int, entries: Sequence[dict[str, object]]) -> dict[str, object]:
    return {"name": f"list {pid}", "pid": pid, "num_tracks": len(entries), "tracks": entries}


def both_ways(paths: Sequence[Path | str], part_bytes: int) -> tuple[list[Part], list[Part]]:
    """The parts of files by both readers; neither finds a fault."""
    found = []
    for reader in ("scanner", "strict"):
        parts = list(mpd.read([str(path) for path in paths], part_bytes, reader))  # type: ignore[arg-type]
        assert not [one for one in parts if isinstance(one, Fault)]
        found.append(parts)
    return found[0], found[1]  # type: ignore[return-value]


@pytest.mark.parametrize("size", [1, 127, 128, 129, 1_000])
def test_playlists_of_any_size_beside_blocks_of_ids(guarded: Guarded, size: int) -> None:
    """Ids are looked up in blocks: playlists end within one, at its end and behind several; more ids than slots."""
    lists = [
        a_playlist(pid, [entry(pos, pid % 9, pid * size + pos) for pos in range(n)])
        for pid, n in enumerate([size, 0, 3, size, 1, size, 0])
    ]
    for style in ({"indent": 4}, {"separators": (",", ":")}):
        assert compared(guarded, [a_text(*lists, **style)], True) == ["equal"]


def test_an_odd_slice_among_others_is_left_to_the_strict_reader(tmp_path: Path) -> None:
    """The others share a part as if it were not there, and what it has is in a part of its own."""
    odd = [entry(0, 1, 1, track_uri="spotify\\u003atrack:" + "1" * 22)]
    contents = [
        a_text(a_playlist(30, [entry(0, 1, 1), entry(1, 2, 2)])),
        a_text(a_playlist(10, odd)).replace(b"\\\\u003a", b"\\u003a"),
        a_text(a_playlist(20, [entry(0, 1, 1, artist_name="earlier, so this name stays"), entry(1, 3, 3)])),
    ]
    paths = []
    for number, content in enumerate(contents):
        paths.append(tmp_path / f"{number}.json")
        paths[-1].write_bytes(content)
    scanned, strict = both_ways(paths, 1 << 20)
    assert [part.files for part in scanned] == [(str(paths[0]), str(paths[2])), (str(paths[1]),)]
    assert scanned[0].artists["name"].to_pylist()[0] == "earlier, so this name stays"
    assert_equal(scanned[0], next(iter(mpd.read([str(paths[0]), str(paths[2])], 1 << 20, "strict"))), "two")
    assert len(strict) == 1 and sum(part.rows.num_rows for part in scanned) == strict[0].rows.num_rows


def test_what_was_coded_of_an_odd_slice_is_taken_back(guarded: Guarded) -> None:
    """It has earlier names for ids that are known, many new ids, and is wrong only at its end."""
    first = a_text(*(a_playlist(pid, [entry(pos, pos, pid * 40 + pos) for pos in range(40)]) for pid in range(60, 90)))
    names = {"artist_name": "earlier", "track_name": "earlier"}
    odd = a_text(
        *(a_playlist(pid, [entry(pos, pos, pid * 99 + pos, **names) for pos in range(40)]) for pid in range(59))
    )
    third = a_text(*(a_playlist(pid, [entry(pos, pos, pid + pos) for pos in range(40)]) for pid in range(90, 99)))
    assert compared(guarded, [first, odd, third], True) == ["equal"] * 3
    assert compared(guarded, [first, odd[:-1] + b",}", third], True) == ["equal", "both refuse", "equal"]
    assert compared(guarded, [odd[:-1] + b",}", first], False) == ["both refuse", "equal"]


@pytest.mark.parametrize("place", ["", "memory:/"], ids=["a path", "fsspec"])
@pytest.mark.parametrize("ending", [".json", ".json.gz"])
@pytest.mark.parametrize("part_bytes", [1_000, 20_000, 1 << 20])
def test_files_packed_and_cut(tmp_path: Path, place: str, ending: str, part_bytes: int) -> None:
    """A file larger than a part is cut between playlists, one of which is odd: only its piece goes to the other."""
    lists = [a_playlist(pid, [entry(pos, pos, pid * 10 + pos) for pos in range(pid % 9)]) for pid in range(200)]
    lists[50]["tracks"] = [entry(7, 1, 1, duration_ms=2**40)]  # valid, and more than the scanner takes
    content = a_text(*lists, indent=4)
    path = f"{place}{tmp_path}/slice{ending}"
    with fsspec.open(path, "wb") as file:
        file.write(gzip.compress(content) if ending.endswith("gz") else content)
    scanned, strict = both_ways([path], part_bytes)
    assert [part.strictly for part in scanned].count(True) == 1
    assert len(scanned) == len(strict) and (len(scanned) > 1) == (part_bytes < len(content))
    for one, other in zip(scanned, strict, strict=True):
        assert_equal(one, other, part_bytes)


def test_the_user_is_told_of_files_that_were_handed_over(tmp_path: Path) -> None:
    (tmp_path / "slices").mkdir()
    for number, duration in enumerate([1, 2**31, 2]):
        text = a_text(a_playlist(number, [entry(0, 1, 1, duration_ms=duration)]))
        (tmp_path / "slices" / f"{number}.json").write_bytes(text)
    api.ingest(tmp_path / "slices", tmp_path / "store")
    report = Store.open(str(tmp_path / "store")).manifest.stages["ingest"].report
    assert report.notes == ["1 of 3 files have what only the strict reader knows, which is slower"]
    assert report.facts["strictly_read"] == 1
    api.ingest(tmp_path / "slices", tmp_path / "strict", reader="strict")
    report = Store.open(str(tmp_path / "strict")).manifest.stages["ingest"].report
    assert report.notes == [] and report.facts["strictly_read"] == 3


def test_a_store_by_either_reader(client, tmp_path: Path) -> None:
    """The tables of a store do not tell by which reader it was made; the manifest does."""
    api.sample(tmp_path / "slices", playlists=2_500, seed=3, client=client)
    for reader in ("scanner", "strict"):
        api.ingest(tmp_path / "slices", tmp_path / reader, reader=reader, client=client)
    one, other = (Store.open(str(tmp_path / reader)) for reader in ("scanner", "strict"))
    for name in TABLES:
        assert one.table(name).equals(other.table(name)), name
    assert one.manifest.stages["ingest"].report.facts["strictly_read"] == 0
    assert other.manifest.stages["ingest"].report.facts["strictly_read"] == 3
    before = other.manifest.stages["ingest"]
    api.ingest(tmp_path / "slices", tmp_path / "strict", client=client)
    assert Store.open(str(tmp_path / "strict")).manifest.stages["ingest"] == before  # nothing to be done again
