"""Arrays and recommenders in a file: the same back, on a disk and elsewhere; anything else is an error of one line."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file
from small_playlists import drawn

from recsys_dask.errors import StoreError
from recsys_dask.models import saved
from recsys_dask.models.als import als
from recsys_dask.models.base import Scorer
from recsys_dask.models.blend import Blend
from recsys_dask.models.folded import FoldedMean, FoldedMF, MeanOfUnits
from recsys_dask.models.itemknn import item_knn
from recsys_dask.models.linear import Shape, linear
from recsys_dask.models.popularity import Popularity, Random
from recsys_dask.store.arrays import read_arrays, write_arrays
from recsys_dask.store.files import Folder, checksum

PLACES = ["local", "memory"]


@pytest.fixture
def folder(request, tmp_path: Path) -> Folder:
    """By the parameter: on the disk, or where files cannot be mapped."""
    if request.param == "local":
        return Folder(str(tmp_path / "store"))
    fsspec.filesystem("memory").store.clear()
    return Folder("memory://bucket/store")


everywhere = pytest.mark.parametrize("folder", PLACES, indirect=True)


def is_mapped(array: Any) -> bool:
    while array is not None and not isinstance(array, np.memmap):
        array = getattr(array, "base", None)
    return array is not None


# ------------------------------------------------------------------------------------------------------------ arrays

SOME = {
    "bytes": np.arange(5, dtype=np.uint8),
    "floats": np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4),
    "none": np.zeros((0, 3), np.float64),
    "doubles": np.array([[np.nan, -0.0], [np.inf, 1e300]]),
    "ints": np.array([-(2**31), 2**31 - 1], np.int32),
    "longs": np.array([2**63 - 1, -(2**63), 0], np.int64),
    "one": np.array(3, np.int64),
    "back": np.arange(6, dtype=np.int32)[::-2],
    "transposed": np.arange(6, dtype=np.float32).reshape(2, 3).T,
    "näme.1": np.ones((1, 2, 3), np.float32),
}


def equal(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    assert set(found) == set(wanted)
    for name, array in wanted.items():
        assert found[name].dtype == array.dtype and found[name].shape == array.shape, name
        assert found[name].tobytes() == array.tobytes(), name


@everywhere
def test_arrays_come_back(folder: Folder) -> None:
    meta = {"a": [1, 2.5, None, "ü\n"], "b": {"c": True}}
    entry = write_arrays(folder, "some/file.safetensors", SOME, meta)
    data = folder.read("some/file.safetensors")
    assert (entry.path, entry.bytes, entry.checksum) == ("some/file.safetensors", len(data), checksum(data))
    found, told = read_arrays(folder, "some/file.safetensors")
    equal(found, SOME)
    assert told == meta
    for name, array in found.items():
        assert array.flags.aligned and not array.flags.writeable, name
        assert is_mapped(array) == folder.is_local, name
        with pytest.raises(ValueError):
            array[...] = 0
    assert folder.names() == ["some/file.safetensors"]


@everywhere
def test_nothing_comes_back_as_nothing(folder: Folder) -> None:
    write_arrays(folder, "file", {}, None)
    assert read_arrays(folder, "file") == ({}, None)


def test_the_library_reads_what_is_written_here_and_the_other_way_round(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    write_arrays(folder, "ours", SOME, {"x": 1})
    equal(load_file(tmp_path / "ours"), SOME)
    plain = {name: np.ascontiguousarray(array).reshape(array.shape) for name, array in SOME.items()}
    save_file(plain, tmp_path / "theirs")
    save_file(plain, tmp_path / "told", {"somebody": "else"})
    for name in ("theirs", "told"):
        found, meta = read_arrays(folder, name)
        equal(found, SOME)
        assert meta is None


def refused(folder: Folder, path: str) -> str:
    """The error of a file, which is one line and names the file and the command that looks at the store."""
    with pytest.raises(StoreError) as error:
        read_arrays(folder, path)
    text = str(error.value)
    assert "\n" not in text and text.startswith(f"{folder.full(path)}: cannot be read (")
    assert text.endswith(f"; see: recsys-dask check {folder.url}")
    return text


@everywhere
def test_a_file_cut_short_anywhere(folder: Folder) -> None:
    write_arrays(folder, "file", {"a": np.arange(3), "b": np.ones(2, np.float32)}, {"x": 1})
    data = folder.read("file")
    for n in range(len(data)):
        folder.write("cut", data[:n])
        assert "no whole file of arrays" in refused(folder, "cut")
    folder.write("cut", data)
    assert read_arrays(folder, "cut")[1] == {"x": 1}


@everywhere
def test_a_file_that_is_missing(folder: Folder) -> None:
    assert re.search("no such file|/store/gone", refused(folder, "gone").lower())


def test_a_folder_and_a_file_without_rights_in_the_place_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    refused(Folder(str(tmp_path)), "folder")


def framed(header: str | bytes, data: bytes = b"") -> bytes:
    header = header.encode() if isinstance(header, str) else header
    return len(header).to_bytes(8, "little") + header + data


def with_array(data: bytes = b"12345678", **changed: Any) -> bytes:
    return framed(json.dumps({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} | changed}), data)


STRANGE = {
    "a number": framed("123"),
    "a list": framed("[]"),
    "a text": framed('"x"'),
    "null": framed("null"),
    "no text": framed(b"\xff\xfe{}"),
    "metadata of another kind": framed('{"__metadata__": 3}'),
    "meta of another kind": framed('{"__metadata__": {"meta": 3}}'),
    "meta that is no JSON": framed('{"__metadata__": {"meta": "{"}}'),
    "an array of another kind": framed('{"a": 1}'),
    "an array without anything": framed('{"a": {}}'),
    "another type": with_array(dtype="F16"),
    "a type that is none": with_array(dtype=["F32"]),
    "another shape": with_array(shape=[3]),
    "a shape that is none": with_array(shape="x"),
    "three offsets": with_array(data_offsets=[0, 4, 8]),
    "offsets that are none": with_array(data_offsets=["0", "8"]),
    "offsets the other way round": with_array(data_offsets=[8, 0]),
    "an offset below the data": with_array(data_offsets=[-4, 4]),
    "a length beyond all": b"\xff" * 8 + b"{}",
    "deep": framed("[" * 100_000),
}


@pytest.mark.parametrize("data", STRANGE.values(), ids=STRANGE)
@everywhere
def test_a_file_that_is_something_else(folder: Folder, data: bytes) -> None:
    folder.write("file", data)
    refused(folder, "file")


@given(st.binary(max_size=40) | st.binary(max_size=40).map(framed))
@example(b"")
def test_any_bytes_are_arrays_or_refused(data: bytes) -> None:
    folder = Folder("memory://bucket/any")
    folder.write("file", data)
    try:
        read_arrays(folder, "file")
    except StoreError:
        refused(folder, "file")


# ------------------------------------------------------------------------------------------------------ recommenders

WORLD = drawn(30, 12, 15, seed=3)


def made() -> dict[str, Scorer]:
    """One of every kind, and more where kinds differ in what they hold."""
    rng = np.random.default_rng(0)
    some = np.arange(0, 15, 2, dtype=np.int32)
    shape, q, b = Shape(2.0, 0.7, 0.15), rng.random((12, 3), np.float32), rng.random(12, np.float32)
    first, second = rng.integers(0, 12, (2, 40)).astype(np.int32)
    layers = tuple(rng.random(shape, np.float32) for shape in ((4, 3), (4,), (3, 4), (3,)))
    plain: dict[str, Scorer] = {
        "Als": als(WORLD.data, some, factors=4, sweeps=1),
        "FoldedMF": FoldedMF(q, b, 2.0),
        "FoldedMean": FoldedMean(q, b, layers, 0.5),
        "FoldedMean without a tower": FoldedMean(q, b),
        "ItemKnn": item_knn(first, second, rng.random(40, np.float32), 12),
        "Kernels": linear(WORLD.data, shape, some, primal=False),
        "MeanOfUnits": MeanOfUnits(q),
        "Popularity": Popularity(b),
        "Random": Random(12, 7),
        "Weights": linear(WORLD.data, shape, some, primal=True),
        "Weights of items alone": linear(WORLD.data, shape, some[:0], primal=True),
    }
    inner = Blend((plain["Kernels"], plain["Als"]), (1.0, 0.5))
    return plain | {"Blend": inner, "Blend of blends": Blend((plain["FoldedMean"], inner, inner), (0.5, 2.0, 1.0))}


MADE = made()


def same(one: Any, other: Any) -> None:
    """Also in types: a tuple stays one, a number a number."""
    assert type(one) is type(other) or isinstance(other, np.memmap)
    if isinstance(one, np.ndarray):
        assert one.dtype == other.dtype and np.array_equal(one, other)
    elif isinstance(one, tuple):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            same(a, b)
    elif type(one).__name__ in saved.KINDS:
        assert vars(one).keys() == vars(other).keys()
        for name, value in vars(one).items():
            same(value, getattr(other, name))
    else:
        assert one == other


def test_every_kind_is_tried() -> None:
    assert {type(one).__name__ for one in MADE.values()} == set(saved.KINDS)


@pytest.mark.parametrize("name", MADE)
@everywhere
def test_a_recommender_comes_back(folder: Folder, name: str) -> None:
    arrays, tree = saved.pack(MADE[name])
    assert all(one and not one.startswith(".") for one in arrays)
    write_arrays(folder, "file", arrays, {"scorer": tree, "how": {"factor": 1 / 3}})
    found, meta = read_arrays(folder, "file")
    assert meta == {"scorer": tree, "how": {"factor": 1 / 3}}
    back = saved.unpack(found, meta["scorer"])
    same(MADE[name], back)
    wanted, scores = MADE[name].scores(WORLD.lists), back.scores(WORLD.lists)
    assert wanted.shape == (30, 12) and scores.dtype == wanted.dtype == np.float32
    assert (scores == wanted).all()


def test_the_arrays_of_an_opened_recommender_are_those_of_the_file(tmp_path: Path) -> None:
    """Nothing is copied on the way."""
    folder = Folder(str(tmp_path))
    arrays, tree = saved.pack(MADE["Weights"])
    write_arrays(folder, "file", arrays, tree)
    found, meta = read_arrays(folder, "file")
    back = saved.unpack(found, meta)
    assert back.by_input is found["by_input"] and is_mapped(back.by_input)


def test_what_is_never_packed_is_not_unpacked() -> None:
    with pytest.raises(KeyError):
        saved.unpack({}, {"kind": "Folder", "fields": {"url": "x"}})
    with pytest.raises(KeyError):
        saved.unpack({}, {"array": "q"})
