"""Tables of (playlist, item[, name]): what they become, whatever files they are cut into, and what is refused."""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
import re
from collections import Counter, defaultdict
from itertools import combinations, pairwise

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import strategies
from hypothesis import given, settings
from hypothesis import strategies as st

import recsys_dask as rd
from recsys_dask.errors import BudgetError, Fault, InputError, StoreError, UsageError
from recsys_dask.formats import interactions
from recsys_dask.formats.inputs import find, format_of
from recsys_dask.formats.interactions import read

MB = 1_000_000

# ----------------------------------------------------------------------------------------------------------- oracle


def expected(rows):
    """playlists, rows and items of (playlist, item, name) triples, as lists of tuples: loops and counters."""
    texts = [str(playlist) for playlist, _, _ in rows]
    if all(isinstance(playlist, int) for playlist, _, _ in rows):
        pids, titles = [playlist for playlist, _, _ in rows], {}
    else:
        rank = {text: place for place, text in enumerate(sorted(set(texts), key=str.encode))}
        pids, titles = [rank[text] for text in texts], {place: text for text, place in rank.items()}
    held = defaultdict(list)
    for pid, (_, item, name) in zip(pids, rows, strict=True):
        held[pid].append((str(item), name or str(item)))
    entries = [(pid, pos, *entry) for pid in sorted(held) for pos, entry in enumerate(held[pid])]
    mentions = Counter(item for _, _, item, _ in entries)
    holders = Counter(item for pid in held for item in {item for item, _ in held[pid]})
    names = {}
    for _, _, item, name in entries:
        names.setdefault(item, name)
    order = sorted(mentions, key=lambda item: (-mentions[item], item.encode()))
    return {
        "playlists": [(pid, titles.get(pid), len(held[pid]), len(held[pid])) for pid in sorted(held)],
        "rows": [(pid, pos, item) for pid, pos, item, _ in entries],
        "items": [(item, names[item], mentions[item], holders[item]) for item in order],
    }


def untyped(rows):
    """Rows as CSV has them: playlists that are whole numbers, all of them, are integers."""
    if all(str(playlist) == "0" or re.fullmatch(r"[1-9]\d*", str(playlist)) for playlist, _, _ in rows):
        return [(int(playlist), item, name) for playlist, item, name in rows]
    return rows


def delivered(parts):
    """The same of what the reader gave."""
    playlists, entries, items, first = [], [], {}, {}
    for part in parts:
        assert part.artists["id"].equals(part.tracks["id"]) and part.tracks["artist_id"].equals(part.tracks["id"])
        assert part.rows["artist"].equals(part.rows["track"])
        playlists += zip(
            *(part.playlists[name].to_pylist() for name in ("pid", "name", "num_tracks", "n_entries")), strict=True
        )
        ids = part.artists["id"].to_pylist()
        entries += [
            (pid, pos, ids[code])
            for pid, pos, code in zip(*(part.rows[name].to_pylist() for name in ("pid", "pos", "artist")), strict=True)
        ]
        for one in part.artists.to_pylist():
            mentions, holders = items.get(one["id"], (0, 0))
            items[one["id"]] = mentions + one["n_mentions"], holders + one["n_playlists"]
            first[one["id"]] = min(first.get(one["id"], (math.inf, "")), (one["first_pid"], one["name"]))
    order = sorted(items, key=lambda item: (-items[item][0], item.encode()))
    return {
        "playlists": sorted(playlists),
        "rows": sorted(entries),
        "items": [(item, first[item][1], *items[item]) for item in order],
    }


def pair_counts(rows):
    """(item, item) by id -> playlists that hold both."""
    held = defaultdict(set)
    for playlist, item, _ in rows:
        held[playlist].add(str(item))
    return Counter(pair for items in held.values() for pair in combinations(sorted(items), 2))


# ------------------------------------------------------------------------------------------------------------ files


def write(path, rows, columns=("playlist", "item", "name"), groups=None, names=True):
    """Rows as a Parquet or CSV file, by its ending."""
    columns = columns[: 3 if names else 2]
    if path.name.endswith(".parquet"):
        frame = pd.DataFrame({name: [row[at] for row in rows] for at, name in enumerate(columns)})
        table = pa.Table.from_pandas(frame, preserve_index=False) if rows else empty(columns)
        pq.write_table(table, path, row_group_size=groups or 1 << 20)
        return path
    text = io.StringIO()
    out = csv.writer(text, quoting=csv.QUOTE_MINIMAL)
    out.writerow(columns)
    out.writerows([["" if value is None else value for value in row[: len(columns)]] for row in rows])
    data = text.getvalue().encode()
    path.write_bytes(gzip.compress(data) if path.name.endswith(".gz") else data)
    return path


def empty(columns):
    return pa.table({name: pa.array([], pa.string()) for name in columns})


def cut(folder, rows, n_files, ending, groups=None, seed=0, **options):
    """Rows in files whose names are in their order."""
    folder.mkdir(parents=True, exist_ok=True)
    cuts = sorted(np.random.default_rng(seed).integers(0, len(rows) + 1, n_files - 1).tolist())
    ends = [0, *cuts, len(rows)]
    return [
        str(write(folder / f"part-{at:03d}{ending}", rows[ends[at] : ends[at + 1]], groups=groups, **options))
        for at in range(n_files)
    ]


def everything(paths, part_bytes=64 * MB, **options):
    found = list(read(paths, part_bytes, **options))
    faults = [one for one in found if isinstance(one, Fault)]
    return [one for one in found if not isinstance(one, Fault)], faults


# ----------------------------------------------------------------------------------------------------------- values

texts = st.sampled_from(
    ["a", "b", "Ä b", "10", "9", "09", "-", "-0", "a,b", 'q"', "two\nlines", "%20", "NA", "null", "😀"]
)
integers = st.sampled_from([0, 1, 2, 9, 10, 11, 2**63 - 1])
names = st.none() | st.sampled_from(["X", "Y", "", "Z z", "Ünï", "a\tb"])


@st.composite
def tables(draw):
    playlists = draw(st.sampled_from([texts, integers]))
    items = draw(st.sampled_from([texts, integers]))
    return draw(st.lists(st.tuples(playlists, items, names), min_size=1, max_size=60))


@settings(max_examples=60, deadline=None)
@given(
    tables(),
    st.integers(1, 4),
    st.sampled_from([".parquet", ".csv", ".csv.gz"]),
    st.sampled_from([1, 2_000, 64 * MB]),
    st.integers(1, 30),
    st.booleans(),
)
def test_reader_and_oracle_agree(tmp_path_factory, rows, n_files, ending, part_bytes, groups, with_names):
    if not with_names:
        rows = [(playlist, item, None) for playlist, item, _ in rows]
    paths = cut(tmp_path_factory.mktemp("t"), rows, n_files, ending, groups=groups, names=with_names)
    # An empty Parquet file of texts among files of integers makes no texts of them.
    parts, faults = everything(paths, part_bytes, spare_bytes=100 * MB)
    assert faults == []
    assert delivered(parts) == expected(rows if ending == ".parquet" else untyped(rows))
    assert all(part.files == tuple(paths) for part in parts)
    if part_bytes == 1:
        assert len(parts) == len({playlist for playlist, _, _ in rows})
    bounds = [(part.playlists["pid"][0].as_py(), part.playlists["pid"][-1].as_py()) for part in parts]
    assert all(a[1] < b[0] for a, b in pairwise(bounds))


def test_types_of_columns(tmp_path):
    rows = [(3, "x", None), (1, "y", None), (3, "x", None), (2, "z", None)]
    want = expected(rows)
    kinds = {
        "int8": pa.array([3, 1, 3, 2], pa.int8()),
        "uint64": pa.array([3, 1, 3, 2], pa.uint64()),
    }
    items = {
        "large": pa.array(["x", "y", "x", "z"], pa.large_string()),
        "view": pa.array(["x", "y", "x", "z"], pa.string_view()),
        "categories": pa.array(["x", "y", "x", "z"]).dictionary_encode(),
    }
    for name, playlist in kinds.items():
        for other, item in items.items():
            path = tmp_path / f"{name}-{other}.parquet"
            pq.write_table(pa.table({"other": [1.5] * 4, "item": item, "playlist": playlist}), path)
            parts, faults = everything([str(path)])
            assert not faults and delivered(parts) == want


def test_integers_and_texts_in_one_input_are_texts(tmp_path):
    one = write(tmp_path / "1.parquet", [(10, "x", None), (9, "y", None)])
    two = write(tmp_path / "2.csv", [("b", "x", None), ("10", "z", None)])
    parts, faults = everything([str(one), str(two)])
    assert not faults
    assert delivered(parts) == expected([("10", "x", None), ("9", "y", None), ("b", "x", None), ("10", "z", None)])


def test_columns_by_name_and_by_order_of_preference(tmp_path):
    frame = pd.DataFrame({"user_id": [1], "pid": [2], "track_id": ["t"], "artist": ["a"], "artist_name": ["N"]})
    frame.to_csv(tmp_path / "x.csv", index=False)
    path = str(tmp_path / "x.csv")
    (part,), _ = everything([path])
    assert (part.rows["pid"][0].as_py(), part.artists["id"][0].as_py(), part.artists["name"][0].as_py()) == (
        2,
        "a",
        "N",
    )
    (part,), _ = everything([path], playlist_column="user_id", item_column="track_id", name_column="track_id")
    assert (part.rows["pid"][0].as_py(), part.artists["id"][0].as_py(), part.artists["name"][0].as_py()) == (
        1,
        "t",
        "t",
    )


def test_a_byte_order_mark_and_windows_lines(tmp_path):
    path = tmp_path / "x.csv"
    path.write_bytes("\ufeffpid,item\r\n5,x\r\n6,y\r\n".encode())
    parts, faults = everything([str(path)])
    assert not faults and delivered(parts) == expected([(5, "x", None), (6, "y", None)])


# ------------------------------------------------------------------------------------------------------------- bad


def frame(**columns):
    return pa.table(columns)


BAD_TABLES = {
    "null playlist": (frame(pid=[1, None], item=["a", "b"]), "row 2, column pid: is null"),
    "null item": (frame(pid=[1, 2, 3], item=["a", "b", None]), "row 3, column item: is null"),
    "only nulls": (frame(pid=[1], item=pa.nulls(1)), "row 1, column item: is null"),
    "empty item": (frame(pid=[1, 2], item=["a", ""]), "row 2, column item: is empty"),
    "empty playlist": (frame(pid=["", "2"], item=["a", "b"]), "row 1, column pid: is empty"),
    "negative playlist": (frame(pid=[1, -5], item=["a", "b"]), "row 2, column pid: is negative: '-5'"),
    "negative item": (frame(pid=[1, 2], item=[7, -1]), "row 2, column item: is negative: '-1'"),
    "large playlist": (
        frame(pid=pa.array([1, 2**63], pa.uint64()), item=["a", "b"]),
        "row 2, column pid: is above 2⁶³−1: '9223372036854775808'",
    ),
    "NUL": (frame(pid=[1, 2], item=["a", "b\0"]), "row 2, column item: holds a NUL character"),
    "long": (frame(pid=[1], item=["ä" * 33]), "row 1, column item: is longer than 64 bytes"),
    "floats": (frame(pid=[1.0], item=["a"]), "column pid: holds double: give text or integers"),
    "float items": (frame(pid=[1], item=[1.0]), "column item: holds double"),
    "lists": (frame(pid=[1], item=[["a"]]), "column item: holds list"),
    "no playlist": (
        frame(a=[1], item=["a"]),
        "has no column playlist, pid, user or user_id: name it with --playlist-column; its columns are a, item",
    ),
    "no item": (frame(pid=[1], b=["a"]), "has no column item, artist"),
    "twice": (
        pa.Table.from_arrays([pa.array([1]), pa.array(["a"]), pa.array(["a"])], ["pid", "item", "item"]),
        "has the column item 2 times",
    ),
    "not UTF-8": (
        pa.table(
            {
                "pid": [1, 2],
                "item": pa.Array.from_buffers(
                    pa.string(), 2, [None, pa.py_buffer(np.array([0, 1, 2], np.int32)), pa.py_buffer(b"a\xff")]
                ),
            }
        ),
        "row 2, column item: is not UTF-8",
    ),
}


@pytest.mark.parametrize("name", BAD_TABLES)
def test_bad_parquet(tmp_path, name):
    table, message = BAD_TABLES[name]
    path = tmp_path / "bad.parquet"
    pq.write_table(table, path, row_group_size=1)
    good = write(tmp_path / "good.parquet", [(1, "a", None)])
    parts, (fault,) = everything([str(path), str(good)])
    assert str(fault).startswith(f"{path}: {message}")
    assert "\n" not in str(fault)
    assert delivered(parts) == expected([(1, "a", None)])


BAD_CSV = {
    "null": (b"pid,item\n1,a\n,b\n", "row 2, column pid: is empty"),
    "empty item": (b'pid,item\n1,a\n2,""\n', "row 2, column item: is empty"),
    "negative": (b"pid,item\n1,a\n-2,b\n", "row 2, column pid: is negative: -2"),
    "negative item": (b"pid,item\n1,7\n2,-7\n", "row 2, column item: is negative: -7"),
    "large": (b"pid,item\n9223372036854775807,a\n9223372036854775808,b\n", "row 2, column pid: is above 2⁶³−1"),
    "NUL": (b"pid,item\n1,a\0\n", "row 1, column item: holds a NUL character"),
    "short row": (b"pid,item\n1,a\n2\n", "row 2: has 1 columns, expected 2: '2'"),
    "long row": (b"pid,item\n1,a,b\n", "row 1: has 3 columns, expected 2: '1,a,b'"),
    "not UTF-8": (b"pid,item\n1,a\n2,\xff\n", "is not UTF-8"),
    "header not UTF-8": (b"p\xffd,item\n1,a\n", "header: is not UTF-8"),
    "nothing": (b"", "is empty: a CSV file starts with the names of its columns"),
    "no header": (b"1,a\n2,b\n", "has no column playlist, pid, user or user_id: name it with --playlist-column"),
    "JSON": (b'{"playlists": []}', "has no column playlist"),
}


@pytest.mark.parametrize("name", BAD_CSV)
@pytest.mark.parametrize("ending", [".csv", ".csv.gz"])
def test_bad_csv(tmp_path, name, ending):
    data, message = BAD_CSV[name]
    path = tmp_path / f"bad{ending}"
    path.write_bytes(gzip.compress(data) if ending.endswith(".gz") else data)
    good = write(tmp_path / "good.csv", [(1, "7", None)])
    parts, (fault,) = everything([str(good), str(path)])
    assert message in str(fault) and str(fault).startswith(f"{path}: ")
    assert "\n" not in str(fault)
    assert delivered(parts) == expected([(1, "7", None)])


def test_negative_texts_among_texts_are_ids(tmp_path):
    path = tmp_path / "x.csv"
    path.write_bytes(b"pid,item\n-2,-7\nx,b\n")
    parts, faults = everything([str(path)])
    assert not faults and delivered(parts) == expected([("-2", "-7", None), ("x", "b", None)])


def test_files_that_are_none(tmp_path):
    (tmp_path / "a.parquet").write_bytes(b"PAR1 this is none PAR1")
    whole = write(tmp_path / "b.parquet", [(at, f"i{at}", None) for at in range(5_000)]).read_bytes()
    (tmp_path / "b.parquet").write_bytes(whole[: len(whole) // 2])
    packed = gzip.compress(b"pid,item\n" + b"".join(b"%d,%d\n" % (at, at * 7) for at in range(5_000)))
    (tmp_path / "c.csv.gz").write_bytes(packed[: len(packed) // 2])
    (tmp_path / "d.csv.gz").write_bytes(b"pid,item\n1,2\n")
    paths = sorted(str(path) for path in tmp_path.iterdir())
    parts, faults = everything([*paths, str(tmp_path / "e.csv")])
    assert parts == []
    assert [fault.file for fault in faults] == [*paths, str(tmp_path / "e.csv")]
    assert faults[2].message == "the compressed file ends early"
    assert "gzip" in faults[3].message and "No such file" in faults[4].message
    assert not any("\n" in str(fault) for fault in faults)


def test_budget(tmp_path):
    rows = [(f"{at:040d}", "a", None) for at in range(2_000)]
    path = str(write(tmp_path / "x.parquet", rows))
    with pytest.raises(BudgetError, match=r"2,000 playlists or more need 0 MB .*--memory-limit"):
        everything([path], spare_bytes=100_000)
    one = str(write(tmp_path / "y.parquet", [("p", f"i{at}", None) for at in range(5_000)]))
    with pytest.raises(BudgetError, match=r"playlist p has 5,000 rows"):
        everything([one], spare_bytes=100_000)


def test_temporary_files_without_room(tmp_path, monkeypatch):
    def full(self, *_):
        raise OSError(28, "No space left on device")

    path = str(write(tmp_path / "x.parquet", [(1, "a", None)]))
    monkeypatch.setattr(interactions.Path, "open", full)
    with pytest.raises(StoreError, match=r"No space left on device; make room there, or set TMPDIR"):
        everything([path])


# ----------------------------------------------------------------------------------------------------------- formats


def test_one_format_an_input(tmp_path):
    strategies.write_slices(tmp_path, [], 1)
    assert format_of(find(tmp_path)).name == "mpd"
    write(tmp_path / "t.csv", [(1, "a", None)])
    with pytest.raises(InputError, match=r"JSON slices \(.*slice.* and tables .*t\.csv.*by a glob"):
        find(tmp_path)
    assert format_of(find(str(tmp_path / "*.csv"))).name == "interactions"
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(InputError, match=r"notes\.txt: no known kind of file; those that are read end in \.json"):
        find(tmp_path / "notes.txt")
    (tmp_path / ".hidden.json").write_text("")
    (tmp_path / "t.csv").unlink()
    assert len(find(tmp_path)) == 1


def test_links(tmp_path):
    strategies.write_slices(tmp_path / "elsewhere", [], 1)
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a.json").symlink_to(tmp_path / "elsewhere/mpd.slice.0-999.json")
    (folder / "b.json").symlink_to(tmp_path / "nowhere")
    (folder / "c.json").symlink_to(tmp_path / "elsewhere")
    for source in (folder, folder / "*.json"):
        a, b = find(source)
        assert (a.path, b.path) == (str(folder / "a.json"), str(folder / "b.json"))
        assert a.bytes == (folder / "a.json").stat().st_size and b.bytes == 0


def test_a_table_is_no_frame_of_slices(tmp_path):
    with pytest.raises(InputError, match=r"t\.csv: is no slice; dask\.dataframe\.read_parquet and read_csv"):
        rd.read_playlists(write(tmp_path / "t.csv", [(1, "a", None)]))


def test_columns_are_for_tables(tmp_path, client):
    strategies.write_slices(tmp_path / "in", [], 1)
    with pytest.raises(UsageError, match="--item-column: the input is JSON slices"):
        rd.ingest(tmp_path / "in", tmp_path / "store", client=client, item_column="x")


# ------------------------------------------------------------------------------------------------------- whole runs


def sampled(seed=1, n=6_000, n_playlists=300, n_items=80):
    rng = np.random.default_rng(seed)
    playlist = rng.integers(0, n_playlists, n)
    item = np.minimum(rng.pareto(1.0, n) * 5, n_items - 1).astype(int)
    return [
        (f"user {p * 7919 % n_playlists}", f"Artist, no. {i}" if i % 3 else f"id{i}", f"name {i} {at % 2}")
        for at, (p, i) in enumerate(zip(playlist.tolist(), item.tolist(), strict=True))
    ]


TABLES = "playlists rows artists tracks popular_artist pairs_artist_full pair_items_artist_full similar_artist_cosine"


@pytest.fixture(scope="module")
def made(tmp_path_factory, client):
    """The rows, and the store that a run makes of them in one file."""
    rows, folder = sampled(), tmp_path_factory.mktemp("made")
    write(folder / "table.parquet", rows)
    rd.run(folder / "table.parquet", folder / "store", client=client, models="none")
    return rows, rd.Store.open(folder / "store")


def test_run_and_oracle_agree(made):
    rows, store = made
    want = expected(rows)
    assert [tuple(row.values()) for row in store.table("artists").to_pylist()] == [
        (code, *row) for code, row in enumerate(want["items"])
    ]
    ids = [row[0] for row in want["items"]]
    assert [row["track_id"] for row in store.table("tracks").to_pylist()] == ids
    assert store.table("tracks")["artist"].to_pylist() == list(range(len(ids)))
    found = [(row["pid"], row["pos"], ids[row["artist"]]) for row in store.table("rows").to_pylist()]
    assert found == want["rows"]
    playlists = [tuple(row.values())[:4] for row in store.table("playlists").to_pylist()]
    assert playlists == want["playlists"]
    pairs = {
        tuple(sorted((ids[row["item1"]], ids[row["item2"]]))): row["n_playlists"]
        for row in store.table("pairs_artist_full").to_pylist()
    }
    assert pairs == pair_counts(rows)


@pytest.mark.parametrize("ending, n_files, groups", [(".parquet", 7, 97), (".csv", 3, None), (".csv.gz", 5, None)])
def test_no_matter_how_it_is_cut(made, tmp_path, client, monkeypatch, ending, n_files, groups):
    rows, store = made
    cut(tmp_path / "in", rows, n_files, ending, groups=groups)
    rd.run(tmp_path / "in", tmp_path / "store", client=client, models="none")
    again = rd.Store.open(tmp_path / "store")
    for name in TABLES.split():
        assert again.table(name).equals(store.table(name)), name


def test_similar_by_name_and_the_files(made):
    _, store = made
    found = rd.similar(store.folder.url, "id0", k=3)
    assert [row["rank"] for row in found] == [1, 2, 3]
    assert rd.similar(store.folder.url, "Artist, no. 1", k=3)[0]["query"] == "Artist, no. 1"
    name = store.table("artists")["artist_name"][5].as_py()
    assert rd.similar(store.folder.url, name, k=1)
    with open(store.folder.path("export/pairs.csv"), newline="") as file:
        pairs = list(csv.DictReader(file))
    known = set(store.table("artists")["artist_id"].to_pylist())
    assert pairs and {row["item1"] for row in pairs} <= known and {row["item2"] for row in pairs} <= known
    with open(store.folder.path("export/similar.txt")) as file:
        words = {word for line in file for word in line.rstrip("\n").split(" ")}
    assert "Artist,%20no.%201" in words
    assert {word.replace("%20", " ") for word in words} <= known


def test_what_is_wrong_is_said_once_and_set_aside_on_demand(tmp_path, client):
    folder = tmp_path / "in"
    cut(folder, sampled(n=500), 2, ".csv")
    (folder / "bad-1.csv").write_bytes(b"playlist,item,name\nx,,y\n")
    (folder / "bad-2.csv").write_bytes(b"a,b\nx,y\n")
    with pytest.raises(InputError) as caught:
        rd.ingest(folder, tmp_path / "store", client=client)
    first, second = str(caught.value).splitlines()
    assert "bad-1.csv: row 1, column item: is empty" in first and "bad-2.csv: has no column" in second
    assert not (tmp_path / "store/manifest.json").exists()
    rd.ingest(folder, tmp_path / "store", client=client, on_bad_file="skip")
    store = rd.Store.open(tmp_path / "store")
    assert store.table("rows").num_rows == 500
    assert [path.rpartition("/")[2] for path in store.manifest.set_aside] == ["bad-1.csv", "bad-2.csv"]


def test_other_columns_are_another_ingest(tmp_path, client):
    (tmp_path / "t.csv").write_bytes(b"pid,item,other\n1,a,x\n2,b,x\n2,b,y\n")
    rd.ingest(tmp_path / "t.csv", tmp_path / "store", client=client)
    (outcome,) = rd.ingest(tmp_path / "t.csv", tmp_path / "store", client=client)
    assert not outcome.fresh
    (outcome,) = rd.ingest(tmp_path / "t.csv", tmp_path / "store", client=client, item_column="other")
    assert outcome.fresh
    store = rd.Store.open(tmp_path / "store")
    assert store.table("artists")["artist_id"].to_pylist() == ["x", "y"]
    assert store.manifest.stages["ingest"].params["item_column"] == "other"


def test_a_file_more_after_an_interruption_starts_over(tmp_path, client, monkeypatch):
    """What an interrupted ingest of two files left says nothing of three."""
    folder, rows = tmp_path / "in", sampled(n=300)
    cut(folder, rows[:200], 2, ".csv")
    (folder / "z.csv").write_bytes(b"a,b\n")
    with pytest.raises(InputError):  # leaves the parts of the good ones in scratch
        rd.ingest(folder, tmp_path / "store", client=client)
    write(folder / "z.csv", rows[200:])
    rd.ingest(folder, tmp_path / "store", client=client)
    ids = rd.Store.open(tmp_path / "store").table("artists")["artist_id"].to_pylist()
    assert ids == [row[0] for row in expected(rows)["items"]]


# ---------------------------------------------------------------------------------------------------- challenge set


def test_a_challenge_set_reads_as_slices(tmp_path, client):
    def track(pos, n):
        return {
            "pos": pos,
            "artist_name": f"Artist {n}",
            "track_uri": f"spotify:track:{n:022d}",
            "artist_uri": f"spotify:artist:{n:022d}",
            "track_name": f"Track {n}",
            "album_uri": f"spotify:album:{n:022d}",
            "duration_ms": 1,
            "album_name": "",
        }

    challenge = {
        "date": "2018-01-16 08:47:28.198015",
        "version": "v1",
        "name": "challenge",
        "description": "",
        "playlists": [
            {"name": "only a name", "num_holdouts": 11, "pid": 1_000_002, "num_tracks": 11, "tracks": [],
             "num_samples": 0},
            {"num_holdouts": 48, "pid": 1_000_000, "num_tracks": 53, "num_samples": 2,
             "tracks": [track(0, 5), track(17, 6)]},
            {"name": "both", "num_holdouts": 1, "pid": 1_000_001, "num_tracks": 2, "num_samples": 1,
             "tracks": [track(0, 5)]},
        ],
    }  # fmt: skip
    (tmp_path / "challenge_set.json").write_text(json.dumps(challenge))
    rd.ingest(tmp_path / "challenge_set.json", tmp_path / "store", client=client)
    store = rd.Store.open(tmp_path / "store")
    playlists = store.table("playlists").select(["pid", "name", "num_tracks", "n_entries"]).to_pylist()
    assert [tuple(row.values()) for row in playlists] == [
        (1_000_000, None, 53, 2),
        (1_000_001, "both", 2, 1),
        (1_000_002, "only a name", 11, 0),
    ]
    assert store.table("rows")["pos"].to_pylist() == [0, 17, 0]
