"""A playlist of which only the title is known: what playlists of that title hold, then what most playlists hold."""

from __future__ import annotations

import pickle
import unicodedata
from collections import Counter, defaultdict
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_store import Small
from strategies import playlists as awkward
from strategies import write_slices

from recsys_dask import api, schemas
from recsys_dask.recommender import Query, Recommender
from recsys_dask.recommending.titles import normalised
from recsys_dask.stages import titles as stage
from recsys_dask.store.tables import Store


def plain(title: str) -> str:
    """Slowly: runs of letters and digits, and every other sign but _, in lower case, a blank between them."""
    words, last = [], ""
    for sign in unicodedata.normalize("NFKC", title).casefold():
        kind = "word" if sign.isalnum() else "blank" if sign.isspace() or sign == "_" else "sign"
        if kind == "word" and last == "word":
            words[-1] += sign
        elif kind != "blank":
            words.append(sign)
        last = kind
    return " ".join(words)


def counted(playlists, items: dict[str, int], field: str = "artist_uri") -> dict[str, Counter]:
    """How many playlists of each title, of those of several playlists, hold each item."""
    n, held = Counter(), defaultdict(Counter)
    for playlist in playlists:
        title = plain(playlist.get("name") or "")
        n[title] += 1
        held[title].update({items[track[field]] for track in playlist["tracks"] if track[field] in items})
    return {title: of_title for title, of_title in held.items() if title and n[title] >= 2 and of_title}


def ranked_items(store: Store, item: str = "artist") -> dict[str, int]:
    """Code by URI of what may be recommended."""
    ids = store.table(f"{item}s")[f"{item}_id"].to_pylist()
    return {f"spotify:{item}:{ids[code]}": code for code in store.table(f"pair_items_{item}_full")["item"].to_pylist()}


def check(store: Store, playlists, item: str = "artist", best: int = 500) -> None:
    table = store.table(f"titles_{item}")
    assert table.schema.equals(schemas.of(f"titles_{item}").arrow())
    wanted = [
        {"title": title, "item": code, "n_playlists": n}
        for title, held in sorted(counted(playlists, ranked_items(store, item), f"{item}_uri").items())
        for code, n in sorted(held.items(), key=lambda one: (-one[1], one[0]))[:best]
    ]
    assert sorted(table.to_pylist(), key=lambda row: (row["title"], -row["n_playlists"], row["item"])) == wanted
    titles = table["title"].to_pylist()
    assert titles == sorted(titles, key=str.encode)


@pytest.mark.parametrize(
    "title, words",
    [
        ("Rock  &\tROLL!", "rock & roll !"),
        ("", ""),
        (" \n", ""),
        ("snake_case__x", "snake case x"),
        ("ＦＵＬＬ width", "full width"),
        ("Straße", "strasse"),
        ("80's", "80 ' s"),
        ("🎉party🎉", "🎉 party 🎉"),
    ],
)
def test_normalised(title: str, words: str) -> None:
    assert normalised(title) == plain(title) == words


@given(st.text())
def test_normalised_as_slowly(title: str) -> None:
    assert normalised(title) == plain(title)


def test_as_counted_slowly(small: Small) -> None:
    check(small.opened, small.data)
    check(small.opened, small.data, "track")


@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(data=st.data())
def test_of_awkward_playlists(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("awkward")
    drawn = data.draw(awkward(min_size=4, max_size=12, max_tracks=8))
    for playlist in drawn:
        if data.draw(st.booleans()):
            playlist["name"] = data.draw(st.sampled_from(["Mix", "mix", " MIX ", "mix!", "é", "e\u0301", ""]))
    write_slices(folder / "slices", drawn, data.draw(st.integers(1, 4)))
    with pytest.MonkeyPatch.context() as patch:
        best = data.draw(st.sampled_from([1, 3, 500]))
        patch.setattr(stage, "BEST", best)
        patch.setattr(stage, "ROW_GROUP", 2)
        store = folder / "store"
        api.run(folder / "slices", store, models="none", recommender="none", view="full", measure="cosine", top=30)
        opened = Store.open(str(store))
        if opened.entry("pair_items_artist_full").rows < 2 or len([one for one in drawn if one["tracks"]]) < 2:
            return
        api.fit(store, method="ease")
    opened = Store.open(str(store))
    check(opened, drawn, best=best)
    ready = Recommender.open(opened, "popularity")
    for title, held in counted(drawn, ranked_items(opened)).items():
        (found,) = ready.recommend([Query(title=title)], 1_000)
        assert found[0].score >= max(held.values())


def unaligned(table: pa.Table) -> pa.Table:
    """As it may come from another worker: every buffer at an odd address."""
    buffers: list[pickle.PickleBuffer] = []
    head = pickle.dumps(table, protocol=5, buffer_callback=buffers.append)
    return pickle.loads(head, buffers=[memoryview(b"." + buffer.raw())[1:] for buffer in buffers])


def test_tables_of_other_workers_are_added_without_a_complaint(capfd: pytest.CaptureFixture[str]) -> None:
    table = pa.table({"title": ["a", "a", "b"], "item": pa.array([1, 1, 2], pa.int32()), "n_playlists": [1, 2, 3]})
    unaligned(table).group_by("title").aggregate([("item", "sum")])
    assert "poorly aligned" in capfd.readouterr().err
    for parts in [table], [table, table]:
        added = stage.added([unaligned(one) for one in parts])
        assert sorted(row["n_playlists"] for row in added.to_pylist()) == [3 * len(parts)] * 2
    assert capfd.readouterr().err == ""


def test_a_playlist_without_tracks_gets_its_title_s_then_the_popular(small: Small) -> None:
    store = small.opened
    items = ranked_items(store)
    of_title = counted(small.data, items)
    held = Counter(
        code
        for playlist in small.data
        for code in {items[track["artist_uri"]] for track in playlist["tracks"] if track["artist_uri"] in items}
    )
    ids = store.table("artists")["artist_id"].to_pylist()
    title = max(of_title, key=lambda one: len(of_title[one]))

    def wanted(counts: Counter) -> list[str]:
        return [ids[code] for code in sorted(items.values(), key=lambda code: (-counts[code], -held[code], code))]

    for method in ("blend", "cosine", "als", "popularity"):
        ready = Recommender.open(store, method)
        queries = [Query(title=title.upper() + "  "), Query(title="of nobody"), Query(), {"name": title, "tracks": []}]
        found = [[one.id for one in ranked] for ranked in ready.recommend(queries, len(items))]
        assert found == [wanted(of_title[title]), wanted(Counter()), wanted(Counter()), wanted(of_title[title])]
    assert found[0] != found[1]


def test_a_playlist_with_tracks_is_not_asked_for_its_title(small: Small) -> None:
    ready = Recommender.open(small.opened, "linear")
    playlist = small.data[0]
    titled, untitled = ready.recommend([playlist, {**playlist, "name": None}], 20)
    assert titled == untitled


def test_titles_of_other_pairs(small: Small, tmp_path: Path) -> None:
    """Titles that were counted before the pairs were made of fewer artists: what is left of them."""
    copy = small.copy(tmp_path)
    before = counted(small.data, ranked_items(small.opened))
    api.counts(copy, top=50)
    api.pairs(copy)
    store = Store.open(str(copy))
    items = ranked_items(store)
    ids = store.table("artists")["artist_id"].to_pylist()
    title = max(before, key=lambda one: len(before[one]))
    (found,) = Recommender.open(store, "cosine").recommend([Query(title=title)], 1_000)
    assert {one.id for one in found} == {ids[code] for code in items.values()} and len(found) == 50
    for one in found:
        assert int(one.score) == before[title][ids.index(one.id)]
