"""Appended slices: codes never change, and counts and pairs brought up to date equal a full recount."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from recsys_dask import InputError, Store, api
from recsys_dask.sampling.text import slice_text
from recsys_dask.sampling.world import make_world

OPTIONS: dict[str, Any] = {"top": 300, "mentions_over": 5}


@pytest.fixture(scope="module")
def playlists() -> list[dict[str, Any]]:
    """120 playlists in an order of their own, so that every append brings pids between those there are."""
    made: list[dict[str, Any]] = json.loads(slice_text(make_world(120, 4), 0))["playlists"]
    random.Random(1).shuffle(made)
    return made


def put(folder: Path, name: str, playlists: list[dict[str, Any]]) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(json.dumps({"playlists": playlists}))


def by_id(store: Store, item: str) -> dict[str, pd.DataFrame]:
    """All of a store's tables with ids instead of codes, in an order that no code shows in."""
    ids = {kind: store.pandas(f"{kind}s").set_index(kind)[f"{kind}_id"] for kind in ("artist", "track")}
    out = {}
    for name in store.manifest.tables:
        frame = store.pandas(name) if not name.startswith("export") else pd.DataFrame()
        for column in frame.columns:
            kind = column if column in ids else item if column in ("item", "item1", "item2", "neighbour") else None
            if kind:
                frame[column] = frame[column].map(ids[kind])
        if "item2" in frame:
            frame[["item1", "item2"]] = np.sort(frame[["item1", "item2"]].to_numpy(object), axis=1)
        out[name] = frame.sort_values(list(frame.columns)).reset_index(drop=True)
    return out


@pytest.mark.parametrize("item", ["artist", "track"])
def test_appends_equal_a_full_recount(tmp_path: Path, client, playlists: list, item: str) -> None:
    options = OPTIONS | {"item": item, "min_playlists": 2}
    put(tmp_path / "slices", "a.json", playlists[:80])
    api.run(tmp_path / "slices", tmp_path / "store", client=client, **options, models="none")
    before = Store.open(str(tmp_path / "store")).pandas(f"{item}s").set_index(f"{item}_id")[item]
    updated = []
    for name, some in (("b.json", playlists[80:90]), ("c.json", playlists[90:])):
        put(tmp_path / "slices", name, some)
        outcomes = api.run(
            tmp_path / "slices", tmp_path / "store", append=True, client=client, **options, models="none"
        )
        updated += [one.key for one in outcomes if one.report.notes == ["updated from the appended slices"]]
    assert updated.count(f"pairs:{item}:article") == 2
    assert updated.count(f"pairs:{item}:full") == (2 if item == "artist" else 0)  # tracks: N grows, and every idf
    api.run(tmp_path / "slices", tmp_path / "whole", client=client, **options, models="none")
    store, whole = Store.open(str(tmp_path / "store")), Store.open(str(tmp_path / "whole"))
    found, wanted = by_id(store, item), by_id(whole, item)
    assert found.keys() == wanted.keys()
    for name, frame in wanted.items():
        pd.testing.assert_frame_equal(found[name], frame, obj=name)
    after = store.pandas(f"{item}s").set_index(f"{item}_id")[item]
    assert after.loc[before.index].equals(before)
    assert sorted(after) == list(range(len(after)))


def test_an_appended_store_is_finished_for_a_plain_run(tmp_path: Path, client, playlists: list) -> None:
    put(tmp_path / "slices", "a.json", playlists[:60])
    api.run(tmp_path / "slices", tmp_path / "store", client=client, **OPTIONS, models="none")
    put(tmp_path / "slices", "b.json", playlists[60:70])
    put(tmp_path / "slices", "empty.json", [])
    outcomes = api.run(tmp_path / "slices", tmp_path / "store", append=True, client=client, **OPTIONS, models="none")
    assert any(one.fresh for one in outcomes)
    for append in (False, True):
        again = api.run(tmp_path / "slices", tmp_path / "store", append=append, client=client, **OPTIONS, models="none")
        assert not any(one.fresh for one in again)


def test_changed_and_gone_slices_are_named(tmp_path: Path, client, playlists: list) -> None:
    for name, some in (("a.json", playlists[:20]), ("b.json", playlists[20:40]), ("c.json", playlists[40:60])):
        put(tmp_path / "slices", name, some)
    api.ingest(tmp_path / "slices", tmp_path / "store", client=client)
    put(tmp_path / "slices", "a.json", playlists[:19])
    (tmp_path / "slices" / "b.json").unlink()
    with pytest.raises(InputError, match=r"a\.json: changed since.*\n.*b\.json: is gone.*--rebuild"):
        api.ingest(tmp_path / "slices", tmp_path / "store", append=True, client=client)
    api.ingest(tmp_path / "slices", tmp_path / "store", append=True, rebuild=True, client=client)
    assert Store.open(str(tmp_path / "store")).entry("playlists").rows == 39


def test_a_pid_that_the_store_has_is_refused(tmp_path: Path, client, playlists: list) -> None:
    put(tmp_path / "slices", "a.json", playlists[:20])
    api.ingest(tmp_path / "slices", tmp_path / "store", client=client)
    put(tmp_path / "slices", "b.json", playlists[19:40])
    with pytest.raises(InputError, match=rf"b\.json: pid {playlists[19]['pid']}: is in the store already"):
        api.ingest(tmp_path / "slices", tmp_path / "store", append=True, client=client)
    assert Store.open(str(tmp_path / "store")).entry("playlists").rows == 20
