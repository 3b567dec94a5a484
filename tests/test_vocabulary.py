"""Ids to codes against dict and sorted; numpy to Arrow and back against `pa.array`."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys_dask import arrow
from recsys_dask.formats.coding import ids_of, intern, tally
from recsys_dask.formats.vocabulary import (
    MISSING,
    Index,
    Merger,
    bucket_of,
    index_of,
    keys,
    order,
    string_order,
    words_for,
)
from recsys_dask.runtime.connecting import prepare_kernels
from recsys_dask.runtime.progress import Progress


@pytest.fixture(scope="module", autouse=True)
def compiled() -> None:
    prepare_kernels(Progress())


BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

_tail = st.text("01Aaz", max_size=3)
ids = st.one_of(
    st.text(BASE62, min_size=22, max_size=22),
    st.text("01Aaz", min_size=1, max_size=3),
    st.builds(str.__add__, st.sampled_from(("00000000", "0000000", "AAAAAAAAaaaaaaaa", "x" * 24)), _tail),
    st.text(st.characters(min_codepoint=1, exclude_categories=["Cs"]), min_size=1, max_size=9),
)
"""Ids of one letter to 27, many with a common start of 8, 16 or 24 bytes, some not ASCII."""

distinct_ids = st.lists(ids, max_size=40, unique=True)


def as_keys(texts: list[str], words: int = 5) -> np.ndarray:
    return keys(pa.array(texts, pa.string()), words)


# ------------------------------------------------------------------------------------------------------------ keys


@settings(deadline=None)
@given(texts=st.lists(ids, max_size=20), cut=st.integers(0, 20), wider=st.integers(0, 2))
def test_keys_are_the_ids_bytes(texts: list[str], cut: int, wider: int) -> None:
    whole = pa.array(texts, pa.string())
    words = words_for(whole)
    assert words == max(1, *(-(-len(text.encode()) // 8) for text in ["", *texts]))
    words += wider
    wanted = [text.encode().ljust(8 * words, b"\0") for text in texts]
    for column, expected in (
        (whole, wanted),
        (whole.slice(cut), wanted[cut:]),
        (whole.slice(0, cut), wanted[:cut]),
        (pa.chunked_array([whole.slice(0, cut), whole.slice(cut)], pa.string()), wanted),
        (pa.chunked_array([whole.slice(cut)], pa.string()), wanted[cut:]),
        (pa.chunked_array([], pa.string()), []),
    ):
        found = keys(column, words)
        assert found.dtype == np.uint64 and found.shape == (len(expected), words)
        assert [row.tobytes() for row in found] == expected


# ----------------------------------------------------------------------------------------------------------- index


@settings(deadline=None)
@given(batches=st.lists(st.lists(ids, max_size=15), max_size=6), asked=st.lists(ids, max_size=15))
def test_index_is_a_dict(batches: list[list[str]], asked: list[str]) -> None:
    index, known = Index(5), {}
    for batch in batches:
        assert index.find(as_keys(batch)).tolist() == [known.get(text, MISSING) for text in batch]
        added = index.add(as_keys(batch))
        assert added.tolist() == [known.setdefault(text, len(known)) for text in batch]
        assert added.dtype == np.int32
        assert index.n == len(known)
    assert index.find(as_keys(asked)).tolist() == [known.get(text, MISSING) for text in asked]
    assert (index.keys == as_keys(list(known))).all() and index.words == 5


@pytest.mark.parametrize("words", [1, 3])
def test_index_grows(words: int) -> None:
    """Past several sizes of its arrays, in steps of very different length, with ids that come again."""
    rng = random.Random(words)
    pool = [rng.randbytes(4).hex() + ("" if words == 1 else f"{n:014d}") for n in range(30_000)]
    index, known = Index(words), {}
    for size in (1, 0, 1_023, 1, 1, 5_000, 3, 20_000, 1, 10_000):
        batch = rng.choices(pool, k=size)
        assert index.add(as_keys(batch, words)).tolist() == [known.setdefault(text, len(known)) for text in batch]
    assert index.n == len(known) > 15_000
    assert index.find(as_keys(pool, words)).tolist() == [known.get(text, MISSING) for text in pool]
    assert index.keys.tobytes() == as_keys(list(known), words).tobytes()


def test_an_empty_index_finds_nothing() -> None:
    assert Index(1).find(as_keys(["a", "b"], 1)).tolist() == [MISSING, MISSING]
    assert Index(1).add(as_keys([], 1)).tolist() == []
    assert Index(1).keys.shape == (0, 1)


@settings(deadline=None)
@given(texts=distinct_ids)
def test_index_of_rows(texts: list[str]) -> None:
    index = index_of(as_keys(texts))
    assert index.find(as_keys(texts[::-1])).tolist() == list(range(len(texts)))[::-1]


@settings(deadline=None)
@given(
    parts=st.lists(st.dictionaries(ids, st.tuples(*[st.integers(0, 2**40)] * 3), max_size=12), max_size=6),
    room=st.integers(0, 20),
)
def test_merger_is_a_dict(parts: list[dict[str, tuple[int, int, int]]], room: int) -> None:
    """Sums of two numbers; and the entry of the lowest third one, the first of those that share it."""
    merger, known, first = Merger(5, room), {}, {}
    for number, part in enumerate(parts):
        numbers = np.array(list(part.values()), np.int64).reshape(-1, 3).T
        places, first_here = merger.add(as_keys(list(part)), number, *numbers)
        for row, (text, (mentions, playlists, pid)) in enumerate(part.items()):
            known.setdefault(text, [0, 0])
            known[text][0] += mentions
            known[text][1] += playlists
            first[text] = min(first.get(text, (pid, number, row)), (pid, number, row))
        assert places.tolist() == [list(known).index(text) for text in part]
        assert first_here.tolist() == [row for row, text in enumerate(part) if first[text][1:] == (number, row)]
    mentions, playlists, entry = merger.numbers()
    assert list(zip(mentions, playlists, strict=True)) == [tuple(sums) for sums in known.values()]
    assert [(one >> 32, one & 0xFFFFFFFF) for one in entry.tolist()] == [first[text][1:] for text in known]
    assert (merger.keys == as_keys(list(known))).all() and merger.n == len(known)


# --------------------------------------------------------------------------------------------------------- buckets


@settings(deadline=None)
@given(texts=distinct_ids, n_buckets=st.integers(1, 9))
def test_buckets(texts: list[str], n_buckets: int) -> None:
    found = bucket_of(as_keys(texts), n_buckets)
    assert all(0 <= bucket < n_buckets for bucket in found)
    assert (bucket_of(as_keys(texts[::-1]), n_buckets)[::-1] == found).all()


@settings(deadline=None)
@given(texts=st.lists(ids, min_size=1, max_size=20), n_buckets=st.integers(2, 9))
def test_a_bucket_depends_on_the_id_alone(texts: list[str], n_buckets: int) -> None:
    """Each part of an ingest is as wide as its own longest id; an id of two parts must meet itself all the same."""
    narrow = words_for(pa.array(texts, pa.string()))
    first = bucket_of(as_keys(texts, narrow), n_buckets)
    assert (bucket_of(as_keys(texts, narrow + 1), n_buckets) == first).all()


def test_buckets_are_even() -> None:
    rng = random.Random(1)
    texts = ["".join(rng.choices(BASE62, k=22)) for _ in range(20_000)]
    sizes = np.bincount(bucket_of(as_keys(texts, 3), 8))
    assert len(sizes) == 8 and sizes.min() > 2_250 and sizes.max() < 2_750


# ----------------------------------------------------------------------------------------------------------- order


@settings(deadline=None)
@given(
    counted=st.dictionaries(ids, st.integers(0, 3) | st.integers(0, 2**62), max_size=40),
    shuffled=st.randoms(use_true_random=False),
)
def test_order_by_falling_mentions_then_id(counted: dict[str, int], shuffled: random.Random) -> None:
    texts = list(counted)
    shuffled.shuffle(texts)
    column = pa.array(texts, pa.string())
    found = order(keys(column, words_for(column)), np.array([counted[text] for text in texts], np.int64))
    wanted = sorted(texts, key=lambda text: (-counted[text], text.encode()))
    assert [texts[row] for row in found] == wanted


@settings(deadline=None)
@given(texts=distinct_ids)
def test_string_order_is_the_rank(texts: list[str]) -> None:
    by_id = sorted(texts, key=str.encode)
    found = string_order(pa.array(texts, pa.string()))
    assert found.dtype == np.int32
    assert found.tolist() == [by_id.index(text) for text in texts]


def test_order_by_very_many_mentions() -> None:
    mentions = np.array([65_534, 65_535, 65_536, 2**40, 65_535, 0, 2**40])
    texts = [*"gfedcba"]
    found = order(as_keys(texts), mentions)
    assert found.tolist() == sorted(range(7), key=lambda row: (-mentions[row], texts[row]))


def test_order_of_many() -> None:
    """Thousands that agree in their first eight bytes, among thousands that do not."""
    rng = random.Random(2)
    texts = list({rng.choice(("00000000", "00000001", "")) + "".join(rng.choices("0aZ", k=9)) for _ in range(9_000)})
    mentions = np.array([rng.randint(1, 5) for _ in texts])
    found = order(as_keys(texts), mentions)
    assert found.tolist() == sorted(range(len(texts)), key=lambda row: (-mentions[row], texts[row].encode()))


# ------------------------------------------------------------------------------------------------- codes of a part


@settings(deadline=None)
@given(texts=st.lists(st.none() | ids, max_size=30))
def test_intern(texts: list[Any]) -> None:
    known, codes = intern(iter(texts), len(texts))
    assert known == list(dict.fromkeys(texts))
    assert [known[code] for code in codes] == texts and codes.dtype == np.int32


@settings(deadline=None)
@given(lists=st.lists(st.lists(st.integers(0, 5), max_size=6), max_size=6))
def test_tally(lists: list[list[int]]) -> None:
    rows = [code for codes in lists for code in codes]
    known = list(dict.fromkeys(rows))  # as `intern` gives codes: each of them occurs
    rows = [known.index(code) for code in rows]
    ends = np.cumsum([len(codes) for codes in lists]).astype(np.int64)
    mentions, playlists, first = tally(np.array(rows, np.int32), ends, len(known))
    assert mentions.tolist() == [rows.count(code) for code in range(len(known))]
    assert playlists.tolist() == [sum(code in codes for codes in lists) for code in known]
    assert first.tolist() == [rows.index(code) for code in range(len(known))]


def test_ids_of_uris() -> None:
    good = [f"spotify:track:{'z' * 21}{letter}" for letter in BASE62]
    found = ids_of(good, "spotify:track:")
    assert [bytes(row).decode() for row in found] == [uri[14:] for uri in good]
    assert ids_of([], "spotify:track:").shape == (0, 22)
    for wrong in (
        "",
        "spotify:track:",
        "z" * 22,
        f"spotify:track:{'z' * 21}",
        f"spotify:track:{'z' * 23}",
        f"spotify:album:{'z' * 22}",
        f"Spotify:track:{'z' * 22}",
        f"spotify:track:{'z' * 21}-",
        f"spotify:track:{'z' * 21}\0",
        f"spotify:track:{'z' * 21}é",
        f"spotify:track:{'z' * 20}é",  # as many bytes as a right one
        f"spotify:track:{'z' * 21}\n",
    ):
        for place in (0, 1, len(good)):
            assert ids_of([*good[:place], wrong, *good[place:], wrong], "spotify:track:") == place, (wrong, place)


# ----------------------------------------------------------------------------------------------------------- arrow


def same(found: pa.Array, wanted: pa.Array) -> None:
    found.validate(full=True)
    assert found.type == wanted.type
    assert found.null_count == wanted.null_count
    assert found.equals(wanted)


NUMBERS = {
    "int8": [-128, 0, 127],
    "int32": [-(2**31), 0, 2**31 - 1],
    "int64": [-(2**63), 0, 2**63 - 1],
    "uint64": [0, 2**64 - 1, 7],
    "float32": [0.5, -1.25, float("inf")],
    "float64": [0.1, -0.0, 1e300],
}


@pytest.mark.parametrize("dtype", NUMBERS)
def test_values(dtype: str) -> None:
    expected = np.array(NUMBERS[dtype], dtype)
    column = pa.array(expected)
    for one, wanted in (
        (column, expected),
        (column.slice(1), expected[1:]),
        (column.slice(1, 1), expected[1:2]),
        (column.slice(3), expected[3:]),
        (pa.chunked_array([column]), expected),
        (pa.chunked_array([column.slice(1), column]), np.concatenate([expected[1:], expected])),
        (pa.chunked_array([column.slice(2), column.slice(0, 0)]), expected[2:]),
        (pa.chunked_array([], column.type), expected[:0]),
        (pa.array([], column.type), expected[:0]),
        (pa.table({"x": column}).slice(1, 2)["x"], expected[1:]),
    ):
        found = arrow.values(one)
        assert found.dtype == wanted.dtype
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("make, dtype", [(arrow.int32, "int32"), (arrow.int64, "int64"), (arrow.float64, "float64")])
@pytest.mark.parametrize("given", ["int32", "int64", "float64", "int16"])
def test_numbers(make: Any, dtype: str, given: str) -> None:
    numbers = np.array([3, -1, 0, 7, 9, 2], given)
    for one in (numbers, numbers[::2], numbers[1:4], numbers[::-1], numbers[:0]):
        same(make(one), pa.array(one.astype(dtype)))
        assert arrow.values(make(one)).tolist() == one.tolist()


@given(pairs=st.lists(st.tuples(st.booleans(), st.booleans()), max_size=40))
def test_bools(pairs: list[tuple[bool, bool]]) -> None:
    value = np.array([one for one, _ in pairs], bool)
    valid = np.array([one for _, one in pairs], bool)
    same(arrow.bools(value), pa.array(value.tolist(), pa.bool_()))
    same(arrow.bools(value, valid), pa.array([one if known else None for one, known in pairs], pa.bool_()))


@given(values=st.lists(st.none() | st.text(max_size=8), max_size=20))
def test_texts(values: list[str | None]) -> None:
    same(arrow.texts(values), pa.array(values, pa.string()))
    same(arrow.texts(tuple(values)), pa.array(values, pa.string()))


@given(values=st.lists(st.none() | st.integers(-(2**63), 2**63 - 1), max_size=20))
def test_optional(values: list[int | None]) -> None:
    same(arrow.optional(values), pa.array(values, pa.int64()))


@given(rows=st.lists(st.tuples(st.text(BASE62, min_size=5, max_size=5), st.booleans()), max_size=20))
def test_fixed(rows: list[tuple[str, bool]]) -> None:
    texts = [text for text, _ in rows]
    raw = np.frombuffer("".join(texts).encode(), np.uint8).reshape(-1, 5)
    valid = np.array([known for _, known in rows], bool)
    same(arrow.fixed(raw), pa.array(texts, pa.string()))
    same(arrow.fixed(raw[::-1]), pa.array(texts[::-1], pa.string()))
    same(arrow.fixed(raw, valid), pa.array([text if known else None for text, known in rows], pa.string()))


@given(chunks=st.lists(st.lists(st.none() | st.text(max_size=4), max_size=4), max_size=4))
def test_whole(chunks: list[list[str | None]]) -> None:
    column = pa.chunked_array([pa.array(chunk, pa.string()) for chunk in chunks], pa.string())
    found = arrow.whole(column)
    assert isinstance(found, pa.Array) and found.to_pylist() == column.to_pylist() and found.type == pa.string()
    assert arrow.whole(found) is found
