"""Rows of batches put in another order, against pyarrow's `take`; and Arrow files in scratch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys_dask.errors import StoreError
from recsys_dask.formats.gathering import Rows, gathered
from recsys_dask.runtime.connecting import prepare_kernels
from recsys_dask.runtime.progress import Progress
from recsys_dask.store import scratch
from recsys_dask.store.files import Folder

SCHEMA = pa.schema([("id", pa.string()), ("name", pa.string()), ("n", pa.int64()), ("code", pa.int32())])

row = st.tuples(st.text(max_size=9), st.none() | st.text(max_size=3), st.none() | st.integers(-9, 9), st.integers(0, 9))
batches = st.lists(st.lists(row, max_size=8), min_size=1, max_size=4)


@pytest.fixture(scope="module", autouse=True)
def compiled() -> None:
    prepare_kernels(Progress())


def batch_of(rows: list[Any]) -> pa.RecordBatch:
    return pa.record_batch([pa.array([one[k] for one in rows], SCHEMA.types[k]) for k in range(4)], schema=SCHEMA)


@settings(deadline=None)
@given(batches=batches, cut=st.integers(0, 3), shuffled=st.randoms(use_true_random=False))
def test_gathered_is_take(batches: list[list[Any]], cut: int, shuffled: Any) -> None:
    """Some rows of some slices, in any order."""
    found = [batch_of(rows).slice(cut) for rows in batches]
    chosen = [(k, i) for k, batch in enumerate(found) for i in range(batch.num_rows)]
    shuffled.shuffle(chosen)
    chosen = chosen[: shuffled.randint(0, len(chosen))]
    pieces = []
    for k, batch in enumerate(found):
        to = [place for place, (of, _) in enumerate(chosen) if of == k]
        rows = np.array([chosen[place][1] for place in to], np.int64)
        pieces.append(Rows(batch, rows, np.array(to, np.int64)))
    made = gathered(SCHEMA, len(chosen), lambda: pieces)
    made.validate(full=True)
    starts = np.cumsum([0, *(batch.num_rows for batch in found)])
    wanted = pa.Table.from_batches(found).take(pa.array([starts[k] + i for k, i in chosen], pa.int64()))
    assert made.to_pylist() == wanted.to_pylist()
    fewer = gathered(SCHEMA.remove(0), len(chosen), lambda: pieces)
    assert fewer.to_pylist() == wanted.drop_columns(["id"]).to_pylist()


@pytest.mark.parametrize("place", ["local", "memory"])
def test_scratch_files(place: str, tmp_path: Path) -> None:
    folder = Folder(str(tmp_path) if place == "local" else f"memory://{tmp_path.name}")
    some = [("a", None, 1, 2), ("", "é", None, 3)]
    tables = [batch_of(some), pa.Table.from_batches([batch_of(some[1:])]), batch_of([]), SCHEMA.empty_table()]
    cuts = scratch.write(folder, "scratch/one.arrow", tables)
    for number, wanted in enumerate(tables):
        assert scratch.read(folder, "scratch/one.arrow", cuts, number).to_pylist() == wanted.to_pylist()
    found = scratch.read_some(folder, "scratch/one.arrow", cuts, 1, 4)
    assert [one.to_pylist() for one in found] == [one.to_pylist() for one in tables[1:]]
    assert scratch.read(folder, "scratch/one.arrow").to_pylist() == tables[0].to_pylist()
    whole = folder.read("scratch/one.arrow")
    for left in (whole[: cuts[3]], whole[: cuts[2] + 64], b"", bytes(len(whole))):
        folder.write("scratch/one.arrow", left)
        with pytest.raises(StoreError, match=r"one\.arrow: cannot be read .*; remove .*scratch, then run again"):
            scratch.read_some(folder, "scratch/one.arrow", cuts, 0, 4)
    with pytest.raises(StoreError, match=r"two\.arrow: is missing; remove .*scratch, then run again"):
        scratch.read(folder, "scratch/two.arrow")
