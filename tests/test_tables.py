"""Every table and every exported file equals the oracle's, however the work is cut and the slices are printed."""

from __future__ import annotations

import csv
import json
import tempfile
import threading
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import oracles
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import strategies
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from strategies import PRINTINGS, PYTHON2, Printing, write_slices

from recsys_dask import api, params, schemas
from recsys_dask.cooccurrence.measures import MEASURES
from recsys_dask.cooccurrence.plan import Plan
from recsys_dask.errors import InputError
from recsys_dask.runtime import budget, clusters
from recsys_dask.runtime.clusters import Cluster
from recsys_dask.runtime.connecting import connect
from recsys_dask.sampling.text import scene_of
from recsys_dask.stages import export, ingest
from recsys_dask.stages.pairs import pairs
from recsys_dask.stages.sample import make_world, slice_text
from recsys_dask.store import tables
from recsys_dask.store.tables import Store

Data = list[dict[str, Any]]
Rows = list[dict[str, Any]]

ALL = ("playlists", "rows", "artists", "tracks")
ONE_EXPRESSION = {"coco", "count", "cosine", "jaccard", "lift", "conditional"}
"""Measures whose scores numpy and Python round alike."""

NEAR = 1e-12
"""Two scores nearer than this, relatively, may change places in the other measures' rankings."""


@pytest.fixture(scope="module", autouse=True)
def unmeasured() -> Iterator[None]:
    """Nothing here is about memory, and to measure it anew in every stage is half the time of a run this small."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clusters, "forget_peak", int)
        yield


def generated(n: int, seed: int = 1) -> Data:
    """The first slice of a small world: planted scenes, odd names, 66 entries a playlist."""
    return json.loads(slice_text(make_world(n, seed), 0))["playlists"]


def opened(store: Path | str) -> Store:
    return Store.open(str(store))


def listed(store: Store, name: str) -> Rows:
    """A whole table, which has the schema that it should have."""
    table = store.table(name)
    assert table.schema.equals(schemas.of(name).arrow()), name
    table.validate(full=True)
    return table.to_pylist()


# ------------------------------------------------------------------------------------------- a store and its oracle


def check_ingest(store: Store, data: Data) -> None:
    assert listed(store, "playlists") == oracles.playlists(data)
    assert listed(store, "rows") == oracles.rows(data)
    assert listed(store, "artists") == oracles.artists(data)
    assert listed(store, "tracks") == oracles.tracks(data)


def check_popular(store: Store, data: Data, top: int) -> None:
    for item in params.ITEMS:
        assert listed(store, f"popular_{item}") == oracles.popular(data, item, top)


WEIGHTS = {"article": [], "full": ["weight", "idf_weight"]}


class View:
    """One view of the pairs by the oracle: computed once, checked against a store."""

    def __init__(self, data: Data, item: str, view: str, **options: Any):
        which = {
            name: options[name]
            for name in ("top", "mentions_over", "mentions_per_million", "min_playlists")
            if name in options
        }
        kept = {name: options[name] for name in ("min_tracks", "rows_low", "rows_high") if name in options}
        self.item, self.view, self.weighted = item, view, view == "full"
        self.ids = oracles.ids(data, item)
        self.items = oracles.view_items(data, item, view, **which)
        self.playlists = oracles.view_playlists(data, item, view, **kept, **which)
        self.pairs = oracles.pairs(self.playlists, self.weighted, len(self.items))
        self.of_item = oracles.pair_items(self.playlists, self.weighted, len(self.items))

    def similar(self, method: str, best: int, threshold: float | None = None) -> Rows:
        return oracles.similar(
            self.pairs, self.of_item, self.ids, method, best, threshold, len(self.playlists), len(self.items)
        )

    def check_pairs(self, store: Store) -> None:
        columns = ["item1", "item2", "n_playlists", *WEIGHTS[self.view]]
        assert listed(store, f"pairs_{self.item}_{self.view}") == [
            dict(zip(columns, (*pair, *sums), strict=True)) for pair, sums in self.pairs.items()
        ]
        columns = ["item", "n_playlists", "pair_total", *WEIGHTS[self.view]]
        none = (0,) * (len(columns) - 1)
        assert listed(store, f"pair_items_{self.item}_{self.view}") == [
            dict(zip(columns, (item, *self.of_item.get(item, none)), strict=True)) for item in self.items
        ]

    def check_similar(self, store: Store, best: int = 20, **coco: Any) -> None:
        for name in (measure.name for measure in MEASURES.values() if measure.view == self.view):
            method, threshold = name, None
            if name == "coco":
                method, threshold = coco.get("score", "coco"), coco.get("threshold", 0.004)
            found = listed(store, f"similar_{self.item}_{name}")
            if method in ONE_EXPRESSION:
                assert found == self.similar(method, best, threshold), name
            else:
                check_ranking(found, self.similar(method, len(self.ids)), self.ids, best)


def check_ranking(found: Rows, whole: Rows, ids: Sequence[str], best: int) -> None:
    """`found` is the `best` of every item of `whole`, which has all neighbours, but for scores that are near."""
    by_item = defaultdict(list)
    for row in found:
        by_item[row["item"]].append(row)
    assert list(by_item) == sorted(by_item)
    ranked = {item: list(rows) for item, rows in groupby(whole, key=lambda row: row["item"])}
    assert by_item.keys() == ranked.keys()
    for item, rows in by_item.items():
        scores = {row["neighbour"]: row["score"] for row in ranked[item]}
        assert [row["rank"] for row in rows] == list(range(1, min(best, len(scores)) + 1))
        assert len({row["neighbour"] for row in rows}) == len(rows)
        score = np.array([row["score"] for row in rows])
        for wanted in ([scores[row["neighbour"]] for row in rows], [row["score"] for row in ranked[item][:best]]):
            np.testing.assert_allclose(score, wanted, rtol=NEAR, atol=1e-15)
        order = [(-row["score"], ids[row["neighbour"]].encode()) for row in rows]
        assert order == sorted(order)


VIEW_OPTIONS = (
    "top mentions_over mentions_per_million min_tracks rows_low rows_high min_playlists"  # of `api.run`
).split()


def check_store(store: Store, data: Data, item: str = "artist", **options: Any) -> dict[str, View]:
    """All tables of a run with these options."""
    check_ingest(store, data)
    check_popular(store, data, options.get("top", 10_000))
    of_view = {name: options[name] for name in VIEW_OPTIONS if name in options}
    views = {view: View(data, item, view, **of_view) for view in params.VIEWS}
    for view in views.values():
        view.check_pairs(store)
        view.check_similar(store, options.get("best", 20), threshold=options.get("score_over", 0.004))
    return views


def read_csv(path: Path) -> list[list[str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def check_exports(folder: Path, store: Store, data: Data, views: dict[str, View], item: str = "artist") -> None:
    """Every file of a run; those of similarities against the store's own tables, which are checked by themselves."""
    suffix = "" if item == "artist" else f"_{item}"
    header, *found = read_csv(folder / f"{item}_counts.csv")
    assert header == [f"{item}_uri", "count", "n_playlists", f"{item}_name"]
    assert found == [
        [row[f"{item}_id"], str(row["n_mentions"]), str(row["n_playlists"]), row[f"{item}_name"]]
        for row in oracles.table(data, item)
    ]
    article = views["article"]
    header, *found = read_csv(folder / f"pairs{suffix}.csv")
    assert header == ["item1", "item2", "count", "normalised_count"]
    assert [[one, other, int(count), float(score)] for one, other, count, score in found] == [
        list(row.values()) for row in oracles.pairs_csv(article.pairs, article.of_item, article.ids)
    ]
    for name in MEASURES:
        text = (folder / f"{name}{suffix}.txt").read_text()
        lines = oracles.similarity_file(listed(store, f"similar_{item}_{name}"), article.ids)
        assert text == "".join(f"{line}\n" for line in lines), name
    assert (folder / f"similar{suffix}.txt").read_bytes() == (folder / f"cosine{suffix}.txt").read_bytes()


def check_row_table(folder: Path, data: Data, top: int = 10_000, min_tracks: int = 5, rows: int = 500_000) -> None:
    """`playlist_1.csv` …, of `rows` rows each, one after the other."""
    columns = ["pid", "artist_name", "artist_uri", "track_name", "track_uri"]
    found = []
    paths = sorted(folder.glob("playlist_*.csv"), key=lambda path: int(path.stem.partition("_")[2]))
    for number, path in enumerate(paths, 1):
        header, *lines = read_csv(path)
        assert header == columns and path.name == f"playlist_{number}.csv"
        assert len(lines) == rows if number < len(paths) else len(lines) <= rows
        found += [[int(pid), *texts] for pid, *texts in lines]
    assert found == [list(row.values()) for row in oracles.row_table(data, top, min_tracks)]
    assert len(paths) == max(1, -(-len(found) // rows))


# ------------------------------------------------------------------------------------------------ generated slices

TOP = 700


@pytest.fixture(scope="module")
def three_hundred() -> Data:
    return generated(300)


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory: pytest.TempPathFactory, client, three_hundred: Data) -> tuple[Path, Data]:
    """Three files of a hundred playlists or so, run with defaults but for a `top` that leaves something out."""
    folder = tmp_path_factory.mktemp("whole")
    paths = write_slices(folder / "slices", three_hundred, 3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export, "CSV_ROWS", 4_000)
        api.run(folder / "slices", folder / "store", client=client, top=TOP, rows=True, models="none")
    return folder / "store", oracles.read(paths)


@pytest.fixture(scope="module")
def whole_views(whole_run: tuple[Path, Data]) -> dict[str, View]:
    return {view: View(whole_run[1], "artist", view, top=TOP) for view in params.VIEWS}


def test_ingested_tables(whole_run: tuple[Path, Data]) -> None:
    store, data = whole_run
    check_ingest(opened(store), data)
    assert len(data) == 300 and len(oracles.rows(data)) > 15_000


def test_popular(whole_run: tuple[Path, Data]) -> None:
    store, data = whole_run
    check_popular(opened(store), data, TOP)
    assert opened(store).entry("popular_artist").rows == opened(store).entry("popular_track").rows == TOP


@pytest.mark.parametrize("view", params.VIEWS)
def test_pairs(view: str, whole_run: tuple[Path, Data], whole_views: dict[str, View]) -> None:
    whole_views[view].check_pairs(opened(whole_run[0]))
    assert len(whole_views[view].pairs) > 4_000 and len(whole_views[view].items) > 500


@pytest.mark.parametrize("view", params.VIEWS)
def test_similar(view: str, whole_run: tuple[Path, Data], whole_views: dict[str, View]) -> None:
    whole_views[view].check_similar(opened(whole_run[0]))


def test_exports(whole_run: tuple[Path, Data], whole_views: dict[str, View]) -> None:
    store, data = whole_run
    check_exports(store / "export", opened(store), data, whole_views)
    names = {path.name for path in (store / "export").iterdir() if not path.name.startswith("playlist_")}
    assert names == {"artist_counts.csv", "pairs.csv", "similar.txt", *(f"{name}.txt" for name in MEASURES)}


def test_row_table(whole_run: tuple[Path, Data]) -> None:
    store, data = whole_run
    check_row_table(store / "export", data, TOP, rows=4_000)
    assert len(list((store / "export").glob("playlist_*.csv"))) > 2
    assert len(oracles.row_table(data, TOP)) < len(oracles.row_table(data))


def test_parquet_beside_csv(whole_run: tuple[Path, Data], tmp_path: Path, client) -> None:
    store, data = whole_run
    files = api.export(store, tmp_path, client=client, parquet=True, rows=True)
    assert sorted(files) == sorted(str(path) for path in tmp_path.iterdir())
    _, *found = read_csv(tmp_path / "pairs.csv")
    table = pq.read_table(tmp_path / "pairs.parquet")
    assert table.num_rows == len(found) > 0
    assert [list(row.values()) for row in table.to_pylist()] == [
        [one, other, int(count), float(score)] for one, other, count, score in found
    ]
    assert pq.read_table(tmp_path / "playlist_1.parquet").to_pylist() == oracles.row_table(data, TOP)


OPTIONS: dict[str, dict[str, Any]] = {
    "few items": dict(mentions_over=60, rows_low=2, rows_high=12, min_tracks=20, best=3, score_over=0.05),
    "all items": dict(mentions_over=0, rows_low=0, rows_high=1_000, min_tracks=0, best=40, score_over=0.0),
    "per million": dict(mentions_per_million=100_000, rows_low=5, rows_high=40),
    "one row count": dict(mentions_over=20, rows_low=7, rows_high=7),
    "nothing": dict(mentions_over=10**9),
}


@pytest.fixture(scope="module")
def hundred_store(tmp_path_factory: pytest.TempPathFactory, client, three_hundred: Data) -> tuple[Path, Data]:
    folder = tmp_path_factory.mktemp("hundred")
    write_slices(folder / "slices", three_hundred[:100], 2)
    api.run(folder / "slices", folder / "store", client=client, view="article", models="none")
    return folder / "store", three_hundred[:100]


@pytest.mark.parametrize("name", OPTIONS)
def test_article_options(name: str, hundred_store: tuple[Path, Data], tmp_path: Path, client) -> None:
    """The same store, its article view done again with other parameters."""
    store, data = hundred_store
    options = OPTIONS[name]
    api.pairs(store, client=client, view="article", **options)
    view = View(data, "artist", "article", **{name: options[name] for name in VIEW_OPTIONS if name in options})
    assert bool(view.pairs) == (name != "nothing")
    view.check_pairs(opened(store))
    view.check_similar(opened(store), options.get("best", 20), threshold=options.get("score_over", 0.004))
    api.export(store, tmp_path, client=client)
    assert len(read_csv(tmp_path / "pairs.csv")) == 1 + 2 * len(view.pairs)
    lines = oracles.similarity_file(listed(opened(store), "similar_artist_coco"), view.ids)
    assert (tmp_path / "coco.txt").read_text().splitlines() == lines


@pytest.mark.parametrize("count_over", [None, 0, 2, 10**6])
def test_similar_by_raw_count(count_over: int | None, hundred_store: tuple[Path, Data], client) -> None:
    store, data = hundred_store
    api.pairs(store, client=client, view="article", score="count", count_over=count_over, mentions_over=5)
    threshold = 1_000 * len(data) / 1_000_000 if count_over is None else count_over
    view = View(data, "artist", "article", mentions_over=5)
    view.check_similar(opened(store), score="count", threshold=threshold)
    assert bool(listed(opened(store), "similar_artist_coco")) == (count_over != 10**6)


def test_tracks(tmp_path: Path, client, three_hundred: Data) -> None:
    """The same code with tracks as the item: the full view has those of enough playlists, whatever `top` is."""
    data = three_hundred[:60]
    write_slices(tmp_path / "slices", data, 3)
    options = dict(top=400, min_playlists=3, mentions_over=2, rows_low=2, rows_high=40)
    api.run(tmp_path / "slices", tmp_path / "store", client=client, item="track", **options, models="none")
    store = opened(tmp_path / "store")
    views = check_store(store, data, "track", **options)
    assert len(views["article"].pairs) > 500 and len(views["full"].pairs) > 500
    check_exports(tmp_path / "store" / "export", store, data, views, "track")


def test_artists_and_tracks_in_one_store(tmp_path: Path, client, three_hundred: Data) -> None:
    data = three_hundred[100:120]
    write_slices(tmp_path / "slices", data)
    api.run(tmp_path / "slices", tmp_path / "store", client=client, mentions_over=1, models="none")
    api.pairs(tmp_path / "store", client=client, item="track", mentions_over=1, min_playlists=2)
    store = opened(tmp_path / "store")
    check_store(store, data, mentions_over=1)
    check_store(store, data, "track", mentions_over=1, min_playlists=2)


# ------------------------------------------------------------------------------------- however the work is cut

CUT = dict(top=300, mentions_over=8, rows_low=3, rows_high=60)


@pytest.fixture(scope="module")
def ninety(three_hundred: Data) -> Data:
    return three_hundred[200:290]


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory, client, ninety: Data) -> Store:
    """Of one file: what every other way of cutting and printing must give."""
    folder = tmp_path_factory.mktemp("reference")
    write_slices(folder / "slices", ninety)
    api.run(folder / "slices", folder / "store", client=client, rows=True, **CUT, models="none")
    store = opened(folder / "store")
    check_store(store, ninety, **CUT)
    return store


def check_same(store: Store, reference: Store) -> None:
    """Equal tables, and byte for byte equal files."""
    for name in store.manifest.tables:
        if name.startswith("export_"):
            for one, other in zip(store.files(name), reference.files(name), strict=True):
                assert Path(one).read_bytes() == Path(other).read_bytes(), one
        else:
            assert store.table(name).equals(reference.table(name)), name


RUN_THROUGH = ("python2", "compact", "pretty", "python2-utf8", "python2-gz")
"""The others are ingested only: all that follows is made from those tables."""


@pytest.mark.parametrize("printing", PRINTINGS, ids=lambda printing: printing.name)
def test_printings(printing: Printing, tmp_path: Path, client, ninety: Data, reference: Store) -> None:
    write_slices(tmp_path / "slices", ninety, 3, printing)
    if printing.name in RUN_THROUGH:
        api.run(tmp_path / "slices", tmp_path / "store", client=client, rows=True, **CUT, models="none")
    else:
        api.ingest(tmp_path / "slices", tmp_path / "store", client=client)
    check_same(opened(tmp_path / "store"), reference)


def interleaved(playlists: Data) -> Data:
    """So that every file of some has pids among those of every other, in no order."""
    rng = np.random.default_rng(5)
    return [playlists[place] for place in rng.permutation(len(playlists))]


def n_cuts(sizes: Sequence[int], target: int) -> int:
    """How many partitions of at least `target` rows, but for the last, things of these sizes make."""
    n, filled = 0, target
    for size in sizes:
        if filled >= target:
            n, filled = n + 1, 0
        filled += size
    return n


@pytest.mark.parametrize(
    "n_files, mixed, groups, share, n_partitions",
    [
        (7, False, 1, 1, 1),  # one part
        (2, False, 2, 1, 2),
        (7, False, 3, 7, 3),
        (7, False, 7, 99, 7),
        (3, True, 1, 7, 1),  # one part again
        (3, True, 3, 5, 5),
        (7, True, 7, 7, 7),
        (4, True, 2, 25, 20),
    ],
)
def test_partitions(
    n_files: int,
    mixed: bool,
    groups: int,
    share: int,
    n_partitions: int,
    tmp_path: Path,
    cluster: Cluster,
    monkeypatch: pytest.MonkeyPatch,
    ninety: Data,
    reference: Store,
) -> None:
    """Files in groups, one part each, recoded into partitions of a `share`th of the rows. A partition starts where a
    part does, or, where the parts' pids overlap, anywhere."""
    playlists = interleaved(ninety) if mixed else ninety
    names = [f"mpd.slice.{number}000-{number}999.json" for number in range(n_files)]
    held = [[int(place) for place in part] for part in np.array_split(np.arange(len(playlists)), n_files)]
    for name, places in zip(names, held, strict=True):
        (tmp_path / name).write_text(PYTHON2.text([playlists[place] for place in places], name))

    def grouped(files: Sequence[Any], part_bytes: int, n_threads: int) -> list[list[Any]]:
        return [[files[int(place)] for place in part] for part in np.array_split(np.arange(len(files)), groups)]

    lengths = [len(playlist["tracks"]) for playlist in playlists]
    parts = [
        sum(sum(lengths[place] for place in held[file]) for file in group) for group in grouped(range(n_files), 0, 0)
    ]
    by_pid = [len(playlist["tracks"]) for playlist in ninety]
    target = max(1, min(sum(lengths) // share, sum(lengths) // (2 * cluster.n_threads)))
    wanted = n_cuts(by_pid if mixed and groups > 1 else parts, target)
    assert abs(wanted - n_partitions) <= (3 if mixed and groups > 1 else 0)

    monkeypatch.setattr(ingest, "groups_of", grouped)
    monkeypatch.setattr(ingest, "PARTITION_ROWS", sum(lengths) // share)
    api.run(tmp_path, tmp_path / "store", client=cluster.client, rows=True, **CUT, models="none")
    store = opened(tmp_path / "store")
    assert len(store.entry("rows").files) == len(store.entry("playlists").files) == wanted
    check_same(store, reference)


def test_small_vocabulary_files_and_buckets(
    tmp_path: Path, client, monkeypatch: pytest.MonkeyPatch, ninety: Data, reference: Store
) -> None:
    """Vocabularies merged in many hash buckets, and written in many files."""
    paths = write_slices(tmp_path / "slices", interleaved(ninety), 3)
    monkeypatch.setattr(ingest, "BUCKET_BYTES", sum(Path(path).stat().st_size for path in paths) // 5)
    monkeypatch.setattr(ingest, "VOCABULARY_ROWS", 200)
    api.run(tmp_path / "slices", tmp_path / "store", client=client, rows=True, **CUT, models="none")
    store = opened(tmp_path / "store")
    assert len(store.entry("artists").files) > 2 and len(store.entry("tracks").files) > 9
    check_same(store, reference)


def test_ids_of_many_lengths_in_buckets(tmp_path: Path, client, monkeypatch: pytest.MonkeyPatch) -> None:
    """A table's ids are of any length: those that two parts share meet, however long the others of each part are."""
    pairs_ = [(pid, f"i{k}" if pid < 100 or k else f"a-long-one-of-{pid}") for pid in range(200) for k in range(20)]
    lines = "".join(f"{pid},{item}\n" for pid, item in pairs_)
    (tmp_path / "table.csv").write_text(f"playlist,item\n{lines}")
    monkeypatch.setattr(ingest, "BUCKET_BYTES", 2_000)
    monkeypatch.setattr(budget, "LARGEST_PART_BYTES", 4_000)
    api.ingest(tmp_path / "table.csv", tmp_path / "store", client=client)
    found = {row["artist_id"]: row["n_mentions"] for row in listed(opened(tmp_path / "store"), "artists")}
    assert found == Counter(item for _, item in pairs_)
    assert opened(tmp_path / "store").entry("artists").rows == len(found)


@pytest.mark.parametrize(
    "part_bytes, gz, mixed", [(20_000, False, True), (300_000, False, False), (20_000, True, False)]
)
def test_one_file_larger_than_the_budget(
    part_bytes: int,
    gz: bool,
    mixed: bool,
    tmp_path: Path,
    client,
    monkeypatch: pytest.MonkeyPatch,
    ninety: Data,
    reference: Store,
) -> None:
    """Parts of some thousand bytes: the file is split between playlists while it is read."""
    printing = Printing("gz" if gz else "plain", indent=4, separators=(", ", ": "), gz=gz)
    write_slices(tmp_path / "slices", interleaved(ninety) if mixed else ninety, 1, printing)
    monkeypatch.setattr(budget, "LARGEST_PART_BYTES", part_bytes)
    api.run(tmp_path / "slices", tmp_path / "store", client=client, rows=True, **CUT, models="none")
    store = opened(tmp_path / "store")
    assert len(store.entry("rows").files) > 1
    check_same(store, reference)


@pytest.fixture(scope="session")
def one_worker() -> Iterator[Cluster]:
    with connect(params.Cluster(workers=1, memory_limit="1GB")) as made:
        yield made


@pytest.mark.parametrize("n_files", [1, 3])
def test_one_worker(n_files: int, one_worker: Cluster, tmp_path: Path, ninety: Data, reference: Store) -> None:
    write_slices(tmp_path / "slices", ninety, n_files)
    api.run(tmp_path / "slices", tmp_path / "store", client=one_worker.client, rows=True, **CUT, models="none")
    check_same(opened(tmp_path / "store"), reference)


@pytest.fixture(scope="module")
def in_ten(tmp_path_factory: pytest.TempPathFactory, client, ninety: Data) -> Store:
    """The reference's tables in some ten partitions."""
    folder = tmp_path_factory.mktemp("ten")
    write_slices(folder / "slices", interleaved(ninety), 2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ingest, "PARTITION_ROWS", len(oracles.rows(ninety)) // 10)
        api.ingest(folder / "slices", folder / "store", client=client)
    api.counts(folder / "store", client=client, top=CUT["top"])
    return opened(folder / "store")


@pytest.mark.parametrize("view", params.VIEWS)
@pytest.mark.parametrize("ranges", ["one", "five", "five, uneven"])
@pytest.mark.parametrize("groups", [1, 3, 9])
def test_plans(view: str, ranges: str, groups: int, cluster: Cluster, in_ten: Store, reference: Store) -> None:
    """Ranges of items and groups of partitions: with nine, the tree that adds them up has two levels."""
    n = reference.entry(f"pair_items_artist_{view}").rows
    bounds = {"one": (0, n), "five": np.linspace(0, n, 6).astype(int).tolist(), "five, uneven": (0, 1, 1, 40, n - 1, n)}
    options = params.Pairs(**{name: value for name, value in CUT.items() if name != "top"})
    plan = Plan(groups, tuple(bounds[ranges]))
    entries, report = pairs(cluster, in_ten, options, view, f"plan-{groups}-{ranges[-3:]}", plan)
    assert len(entries[f"pairs_artist_{view}"].files) == len(plan.spans)
    for name, entry in entries.items():
        found = pa.concat_tables(tables.read_file(in_ten.folder, file.path) for file in entry.files)
        assert found.equals(reference.table(name)), name
    assert report.rows == reference.entry(f"pairs_artist_{view}").rows


def test_no_key_is_used_twice(tmp_path: Path, cluster: Cluster, monkeypatch: pytest.MonkeyPatch, ninety: Data) -> None:
    """A scheduler takes equal keys for one task, whoever sends them: two runs of one input must have none in common."""
    write_slices(tmp_path / "slices", ninety[:5], 2)
    seen: list[set[str]] = []

    def noting(original: Any) -> Any:
        def noted(self: Cluster, *args: Any) -> Any:
            (work,) = (arg for arg in args if isinstance(arg, list))
            seen[-1].update(str(key) for one in work for key in one.__dask_graph__())
            return original(self, *args)

        return noted

    for name in ("compute", "persist"):
        monkeypatch.setattr(Cluster, name, noting(getattr(Cluster, name)))
    for name in ("first", "second"):
        seen.append(set())
        api.run(tmp_path / "slices", tmp_path / name, client=cluster.client, rows=True, **CUT, models="none")
    assert len(seen[0]) > 30 and len(seen[0]) == len(seen[1])
    assert seen[0].isdisjoint(seen[1]), sorted(seen[0] & seen[1])


def test_two_runs_at_once(tmp_path: Path, cluster: Cluster, ninety: Data, reference: Store) -> None:
    """One input into two stores on one cluster: neither may take the other's tasks for its own."""
    from distributed import Client

    write_slices(tmp_path / "slices", ninety, 3)
    failed = []

    def one(name: str, client: Client) -> None:
        try:
            api.run(tmp_path / "slices", tmp_path / name, client=client, rows=True, **CUT, models="none")
        except Exception as error:
            failed.append(error)

    with Client(cluster.client.scheduler.address, set_as_default=False) as other:
        threads = [threading.Thread(target=one, args=args) for args in (("first", cluster.client), ("second", other))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not failed
    for name in ("first", "second"):
        check_same(opened(tmp_path / name), reference)


# ------------------------------------------------------------------------------------------------ awkward playlists


@settings(
    max_examples=12,
    deadline=None,
    phases=(Phase.explicit, Phase.reuse, Phase.generate),  # every example is a run: to make one smaller takes minutes
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(
    playlists=strategies.playlists(max_size=8, max_tracks=14),
    printing=strategies.printings(),
    n_files=st.integers(1, 3),
    cut=st.sampled_from(("as it is", "in parts", "in rows")),
    options=st.fixed_dictionaries(
        {
            "top": st.sampled_from((10_000, 5)),
            "mentions_over": st.integers(0, 3),
            "min_tracks": st.sampled_from((0, 3)),
            "rows_low": st.sampled_from((0, 2)),
            "rows_high": st.sampled_from((5, 1_000)),
            "min_playlists": st.integers(1, 2),
            "best": st.sampled_from((2, 20)),
            "score_over": st.sampled_from((0.0, 0.1)),
            "item": st.sampled_from(params.ITEMS),
        }
    ),
)
def test_awkward_playlists(
    client, playlists: Data, printing: Printing, n_files: int, cut: str, options: dict[str, Any]
) -> None:
    """Pids in any order and interleaved between files, texts of any characters, entries that share a `pos`."""
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        folder = Path(name)
        paths = write_slices(folder / "slices", playlists, n_files, printing)
        if cut == "in parts":
            patch.setattr(budget, "LARGEST_PART_BYTES", 700)
        elif cut == "in rows":
            patch.setattr(ingest, "PARTITION_ROWS", 5)
        api.run(folder / "slices", folder / "store", client=client, rows=True, **options, models="none")
        store, data = opened(folder / "store"), oracles.read(paths)
        item = options["item"]
        views = check_store(store, data, **options)
        check_exports(folder / "store" / "export", store, data, views, item)
        check_row_table(folder / "store" / "export", data, options["top"], options["min_tracks"])


def entry(pos: int, artist: str, track: str, name: str = "n", track_name: str = "t", **more: Any) -> dict[str, Any]:
    return {
        "pos": pos,
        "artist_name": name,
        "artist_uri": f"spotify:artist:{artist * 22}",
        "track_name": track_name,
        "track_uri": f"spotify:track:{track * 22}",
    } | more


def playlist(pid: int, *entries: dict[str, Any]) -> dict[str, Any]:
    return {"pid": pid, "num_tracks": len(entries), "tracks": list(entries)}


def small_run(folder: Path, client, *files: Data, **options: Any) -> Store:
    (folder / "slices").mkdir()
    for number, playlists in enumerate(files):
        (folder / "slices" / f"{number}.json").write_text(json.dumps({"playlists": playlists}))
    low = dict(mentions_over=0, min_tracks=0, rows_low=0, rows_high=1_000, rows=True)
    api.run(folder / "slices", folder / "store", client=client, **low | options, models="none")
    return opened(folder / "store")


def test_pids_interleaved_between_files(tmp_path: Path, client) -> None:
    """The first name is that of the lowest (pid, pos), which is in the second file, behind another there."""
    first = [playlist(9, entry(0, "a", "x", "of 9")), playlist(3, entry(1, "a", "x", "of 3"), entry(0, "b", "y"))]
    second = [
        playlist(7, entry(0, "c", "x", "c")),
        playlist(2, entry(5, "a", "x", "2 at 5"), entry(4, "a", "x", "2 at 4", "its name", duration_ms=7)),
        playlist(2**63 - 1, entry(2**63 - 1, "b", "y"), entry(0, "a", "z")),
    ]
    store = small_run(tmp_path, client, first, second)
    check_store(store, first + second, mentions_over=0, min_tracks=0, rows_low=0, rows_high=1_000)
    artist = listed(store, "artists")[0]
    assert (artist["artist_id"], artist["artist_name"]) == ("a" * 22, "2 at 4")
    track = listed(store, "tracks")[0]
    assert (track["track_name"], track["duration_ms"], track["album_id"]) == ("its name", 7, None)


NAMES = (
    "comma, semicolon;",
    '"quoted"',
    '"',
    "line\nend",
    "line\r\nend",
    "carriage\rreturn",
    "\r",
    "",
    " ",
    "\t",
    "null",
    "nul \0 byte",
    "’ é 😀 \u2028 \ufeff",
    "=1+1",
    "\\",
)


def test_names_that_trouble_csv(tmp_path: Path, client) -> None:
    """Read back by a CSV reader, every file gives the names as they were."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    data = [
        playlist(pid, *(entry(pos, letters[pos], letters[pos], name, name) for pos, name in enumerate(NAMES)))
        for pid in range(2)
    ]
    store = small_run(tmp_path, client, data)
    options = dict(mentions_over=0, min_tracks=0, rows_low=0, rows_high=1_000)
    views = check_store(store, data, **options)
    check_row_table(tmp_path / "store" / "export", data, min_tracks=0)
    check_exports(tmp_path / "store" / "export", store, data, views)


@pytest.mark.parametrize(
    "files, item",
    [
        ([[], []], "artist"),
        ([[]], "track"),
        ([[playlist(1), playlist(0)], [], [playlist(2)]], "artist"),
        ([[playlist(5)]], "track"),
    ],
)
def test_nothing_to_count(files: list[Data], item: str, tmp_path: Path, client) -> None:
    """No playlists at all, or none with an entry: every table is there, and empty or of playlists alone."""
    store = small_run(tmp_path, client, *files, item=item)
    data = [one for playlists in files for one in playlists]
    views = check_store(store, data, item, mentions_over=0, min_tracks=0, rows_low=0, rows_high=1_000)
    check_exports(tmp_path / "store" / "export", store, data, views, item)
    check_row_table(tmp_path / "store" / "export", data, min_tracks=0)


@pytest.mark.parametrize("cut", [False, True], ids=["whole", "cut"])
def test_a_pid_twice(cut: bool, tmp_path: Path, client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever both are: in two parts of one file, in one part of two files, in two parts."""
    if cut:
        monkeypatch.setattr(budget, "LARGEST_PART_BYTES", 10)
    one, other = playlist(4, entry(0, "a", "x")), playlist(5, entry(0, "b", "x"))
    for number, files in enumerate([[[one, other, one]], [[one], [other, one]], [[other], [one], [one]]]):
        folder = tmp_path / str(number)
        folder.mkdir()
        with pytest.raises(InputError, match="pid 4: is there twice") as caught:
            small_run(folder, client, *files)
        holders = [n for n, playlists in enumerate(files) for p in playlists if p["pid"] == 4]
        for holder in holders:
            assert str(folder / "slices" / f"{holder}.json") in str(caught.value)


# ---------------------------------------------------------------------------------------------------- planted scenes


def test_cosine_finds_the_planted_scenes_and_raw_counts_less_so(tmp_path: Path, client) -> None:
    """Of the 300 most mentioned artists: how many of their ten nearest are of their own scene."""
    n, seed, top = 3_000, 1, 300
    api.sample(tmp_path / "slices", playlists=n, seed=seed, client=client)
    api.ingest(tmp_path / "slices", tmp_path / "store", client=client)
    api.counts(tmp_path / "store", client=client)
    api.pairs(tmp_path / "store", client=client, view="full")
    store, planted = opened(tmp_path / "store"), scene_of(make_world(n, seed))
    scene = [planted[id] for id in store.table("artists")["artist_id"].to_pylist()]

    def share(method: str) -> float:
        found = [row for row in listed(store, f"similar_artist_{method}") if row["item"] < top and row["rank"] <= 10]
        assert len(found) == 10 * top
        return float(np.mean([scene[row["item"]] == scene[row["neighbour"]] for row in found]))

    cosine, count = share("cosine"), share("count")
    assert cosine >= 0.95
    assert count < 0.9 and count < cosine
