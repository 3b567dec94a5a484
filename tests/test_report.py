"""The report: a page of real stores, of one with hostile names and of a large one, read as HTML and in a browser.

The browser is Chromium, from $CHROMIUM or the PATH: `apt-get install chromium`; `scripts/test` does it where it may.
"""

from __future__ import annotations

import base64
import json
import os
import re
import shlex
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pytest
from click.testing import CliRunner

import recsys_dask as rd
from recsys_dask import api, params
from recsys_dask.cli import program
from recsys_dask.reporting import atlas as atlases
from recsys_dask.reporting import gather, names, projection
from recsys_dask.reporting.page import page
from recsys_dask.reporting.scenes import by_scene, scenes
from recsys_dask.store import manifest as manifests
from recsys_dask.store.manifest import StageEntry, StageReport, TableEntry
from recsys_dask.store.tables import Store, write_part

HOSTILE = [
    "<script>window.broken = 1</script>",
    "</script><img src=x onerror='window.broken = 2'>",
    "$$\\frac{a}{b}$$ \\[x\\]",
    "\u202eright to left, overridden",
    "فيروز والأخوان رحباني",
    "ABC" + "x" * 10_000,
    "two\nlines\tand \x07 bells",
    "{{ 7 * 7 }} {% raw %} &amp; \"quotes' & `ticks`",
    "@name{safe} $index %s",
    "Beyoncé 👩‍👩‍👧",
]
HISTORY: list[dict[str, float | None]] = [
    {"epoch": 1.0, "train_loss": 5.0, "valid_loss": 4.5},
    {"epoch": 2.0, "train_loss": 4.0, "valid_loss": None},
]


class Tags(HTMLParser):
    """Elements with their attributes, and the text outside scripts and styles."""

    def __init__(self, html: str):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._inside = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = tag if tag in ("script", "style") else self._inside

    def handle_endtag(self, tag: str) -> None:
        self._inside = "" if tag == self._inside else self._inside

    def handle_data(self, data: str) -> None:
        self.text += "" if self._inside else data


def data_of(html: str) -> dict[str, Any]:
    """What the page's own script reads."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.DOTALL)
    assert found
    return json.loads(found[1])


def commands_in(html: str) -> list[list[str]]:
    """The commands that the page tells to run."""
    text = re.findall(r"<code>(recsys-dask .*?)</code>", html)
    return [shlex.split(one.replace("&#39;", "'").replace("&amp;", "&")) for one in text]


# --------------------------------------------------------------------------------------------------------------- stores


def enter(
    store: Store, key: str, tables: dict[str, pa.Table], report: StageReport | None = None, **params_: Any
) -> None:
    """A stage as if it had been done, with its tables."""
    entries = {name: TableEntry([write_part(store.folder, name, "made", 0, one)]) for name, one in tables.items()}
    store.manifest.tables |= entries
    made_from = {"ingest": store.manifest.stages["ingest"].fingerprint} if key != "ingest" else {}
    store.manifest.stages[key] = StageEntry(
        f"of-{key}", params_, list(tables), report or StageReport(seconds=1.5, peak_bytes=10**8),
        "2026-01-01T00:00:00+00:00", made_from,
    )  # fmt: skip
    manifests.save(store.folder, store.manifest)


def embeddings(items: np.ndarray[Any, Any], rng: np.random.Generator, scene: np.ndarray[Any, Any]) -> pa.Table:
    vectors = (rng.normal(size=(scene.max() + 1, 16))[scene] + 0.4 * rng.normal(size=(len(items), 16))).astype(
        np.float32
    )
    return pa.table(
        {
            "item": pa.array(items, pa.int32()),
            "vector": pa.array(list(vectors), pa.list_(pa.float32())),
            "bias": pa.nulls(len(items), pa.float32()),
        }
    )


def similar(items: np.ndarray[Any, Any], among: int, rng: np.random.Generator) -> pa.Table:
    n = 20
    return pa.table(
        {
            "item": pa.array(np.repeat(items, n), pa.int32()),
            "rank": pa.array(np.tile(np.arange(1, n + 1), len(items)), pa.int32()),
            "neighbour": pa.array(rng.integers(0, among, n * len(items)), pa.int32()),
            "score": pa.array(np.tile(np.linspace(1, 0.1, n), len(items))),
        }
    )


def evaluation() -> pa.Table:
    rows = [
        {"method": method, "metric": metric, "n": 60, "mean": mean, "low": mean - 0.05, "high": mean + 0.05}
        for method, mean in (("popularity", 0.2), ("cosine", 0.4))
        for metric in gather.QUALITY
    ]
    rows += [{"method": m, "metric": "coverage@50", "n": 60, "mean": 0.3} for m in ("popularity", "cosine")]
    rows = [row | dict.fromkeys(("difference", "difference_low", "difference_high")) for row in rows]
    return pa.Table.from_pylist(rows, schema=pa.schema(
        [("method", pa.string()), ("metric", pa.string()), ("n", pa.int64())]
        + [(c, pa.float64()) for c in ("mean", "low", "high", "difference", "difference_low", "difference_high")]
    ))  # fmt: skip


class Made(NamedTuple):
    bare: Path
    full: Path
    hostile: dict[str, str]  # name -> artist_id


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A store after `ingest` alone, and one of a whole run with a model and an evaluation; hostile names in both."""
    folder = tmp_path_factory.mktemp("report")
    api.sample(folder / "sample", playlists=200, seed=5)
    (path,) = (folder / "sample").glob("mpd.slice.*")
    data = json.loads(path.read_bytes())
    count: dict[str, int] = {}
    for one in data["playlists"]:
        for track in one["tracks"]:
            count[track["artist_uri"]] = count.get(track["artist_uri"], 0) + 1
    popular = sorted(count, key=lambda uri: (-count[uri], uri))
    name_of = dict(zip(popular, HOSTILE, strict=False))
    for one in data["playlists"]:
        for track in one["tracks"]:
            track["artist_name"] = name_of.get(track["artist_uri"], track["artist_name"])
    slices = folder / "slices & <b>more"
    slices.mkdir()
    (slices / "mpd.slice.0-199.json").write_text(json.dumps(data))
    (slices / "mpd.slice.200-<i>.json").write_text('{"playlists": [')
    api.ingest(slices, folder / "bare", on_bad_file="skip")
    api.run(slices, folder / "full", models="none", on_bad_file="skip")
    store = Store.open(str(folder / "full"))
    rng = np.random.default_rng(0)
    items = np.arange(store.entry("artists").rows)
    report = StageReport(seconds=12, peak_bytes=10**9, history=HISTORY, notes=["2 epochs"])
    enter(store, "train:artist:mf", {"embeddings_artist_mf": embeddings(items[:400], rng, items[:400] % 5)}, report)
    enter(store, "neighbours:artist:mf", {"similar_artist_mf": similar(items[:400], 400, rng)})
    enter(store, "evaluate:artist", {"evaluation_artist": evaluation()})
    return Made(folder / "bare", folder / "full", {name: uri.rpartition(":")[2] for uri, name in name_of.items()})


@pytest.fixture(scope="module")
def written(made: Made, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of the whole run, of 300 artists: fewer than have vectors or neighbours."""
    out = tmp_path_factory.mktemp("page") / "report.html"
    assert api.report(made.full, out, searched=300) == str(out)
    return out


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a store of 300,000 artists with long names, every method and both models, as large as it may be."""
    folder = tmp_path_factory.mktemp("large")
    store = Store.open_or_new(str(folder / "store"))
    rng = np.random.default_rng(0)
    n, seen = 300_000, 10_000
    items = np.arange(n)
    mentions = np.maximum(850_000 / (items + 3) ** 1.1, 1).astype(np.int64)
    titles = ["宇多田ヒカル" * 3, "The Long Winded Orchestra of the Northern Provinces", "Ab", "Motörhead & friends"]
    artists = {
        "artist": pa.array(items, pa.int32()),
        "artist_id": pa.array([f"{at:022d}" for at in range(n)]),
        "artist_name": pa.array([f"{titles[at % 4]} {at}" for at in range(n)]),
        "n_mentions": pa.array(mentions),
        "n_playlists": pa.array(mentions),
    }
    length = rng.integers(5, 250, 100_000)
    playlists = {
        "pid": pa.array(np.arange(len(length))), "name": pa.nulls(len(length), pa.string()),
        "num_tracks": pa.array(length), "n_entries": pa.array(length), "n_followers": pa.nulls(len(length), pa.int64()),
        "modified_at": pa.nulls(len(length), pa.int64()), "collaborative": pa.nulls(len(length), pa.bool_()),
    }  # fmt: skip
    enter(store, "ingest", {"artists": pa.table(artists), "playlists": pa.table(playlists)})
    one, other = np.triu_indices(300, 1)
    both = (mentions[one] * (0.05 + 0.5 * (one % 8 == other % 8))).astype(np.int64) // 4
    held = {"item": items[:seen], "n_playlists": mentions[:seen], "pair_total": mentions[:seen]}
    pairs = {"item1": one, "item2": other, "n_playlists": both}
    for table, size in ((held, seen), (pairs, len(one))):
        table |= {"weight": np.ones(size, int), "idf_weight": np.ones(size, int)}
    enter(store, "pairs:artist:full", {"pairs_artist_full": pa.table(pairs), "pair_items_artist_full": pa.table(held)})
    for method in params.methods():
        stage = manifests.stage_for(f"similar_artist_{method}")
        enter(store, stage, {f"similar_artist_{method}": similar(items[:seen], seen, rng)})
    for model in params.MODELS:
        vectors = embeddings(items[:seen], rng, rng.integers(0, 12, seen))
        enter(store, f"train:artist:{model}", {f"embeddings_artist_{model}": vectors}, StageReport(history=HISTORY))
    enter(store, "evaluate:artist", {"evaluation_artist": evaluation()})
    out = folder / "large.html"
    with pytest.MonkeyPatch.context() as patch:  # t-SNE of 5,000 takes a minute, and the page is as large without
        patch.setattr(atlases, "plane", lambda vectors: np.round(np.tanh(vectors[:, :2]), 4))
        api.report(store.folder.url, out, searched=5_000)
    return out


# ----------------------------------------------------------------------------------------------------------- as a text


def test_nothing_comes_from_the_network(written: Path) -> None:
    tags = Tags(written.read_text()).tags
    places = [(tag, value) for tag, of in tags for name, value in of.items() if name in ("src", "href", "srcset")]
    assert places and all(value and value.startswith(("#", "data:")) for _, value in places)
    assert not {"iframe", "object", "embed", "base", "form"} & {tag for tag, _ in tags}
    (policy,) = [of["content"] for tag, of in tags if of.get("http-equiv") == "Content-Security-Policy"]
    assert policy and policy.startswith("default-src 'none'") and "http" not in policy


def test_every_section_and_plot_is_there(written: Path) -> None:
    html = written.read_text()
    ids = [of["id"] for _, of in Tags(html).tags if "id" in of]
    assert len(ids) == len(set(ids))
    assert {"input", "popularity", "scenes", "map", "similar", "quality", "training", "stages", "query"} <= set(ids)
    targets = {plot["target_id"] for plot in data_of(html)["plots"]}
    assert targets == {one for one in ids if one and one.startswith("plot-")}
    assert targets >= {f"plot-{name}" for name in "ranks lengths scenes map curve-mf quality-0 quality-2".split()}


def test_names_are_escaped(written: Path) -> None:
    html = written.read_text()
    tags = Tags(html)
    assert "img" not in {tag for tag, _ in tags.tags}
    # The data, bokeh's script and ours.
    assert html.count("<script") == html.count("</script>") == 3
    assert HOSTILE[0] in tags.text and HOSTILE[1] in tags.text
    assert "x" * 200 not in html
    searched = data_of(html)["search"]["names"]
    assert {HOSTILE[0], HOSTILE[1], HOSTILE[2], HOSTILE[3], HOSTILE[4], HOSTILE[7], "two lines and bells"} <= set(
        searched
    )
    assert max(map(len, searched)) == names.MOST_LETTERS
    inside = [of.get("title") for tag, of in tags.tags if tag == "bdi"]
    assert HOSTILE[0] in inside


def test_what_was_set_aside_is_told_with_its_reason(written: Path, made: Made) -> None:
    text = Tags(written.read_text()).text
    assert "mpd.slice.200-<i>.json" in text and "slices & <b>more" in text
    found = gather.facts(Store.open(str(made.full)), "artist")
    (told,) = found.set_aside
    assert found.n_set_aside == 1 and len(told) > len(Store.open(str(made.full)).manifest.set_aside[0])


def test_a_store_of_slices_alone_says_what_to_run(made: Made, tmp_path: Path) -> None:
    html = Path(api.report(made.bare, tmp_path / "bare.html")).read_text()
    told = commands_in(html)
    for _, name, *arguments in told:
        program.commands[name].make_context(name, list(arguments))  # raises click.UsageError
    assert {name for _, name, *_ in told} >= {"near-duplicates", "pairs", "train", "evaluate"}
    assert ["recsys-dask", "train", str(made.bare), "--model", "mlp"] in told
    assert {plot["target_id"] for plot in data_of(html)["plots"]} == {"plot-ranks", "plot-lengths"}
    assert len(html) < 2_000_000


def test_a_store_of_artists_asked_for_tracks(made: Made) -> None:
    html = page(Store.open(str(made.full)), params.Report(item="track", searched=50))
    told = commands_in(html)
    assert ["recsys-dask", "evaluate", str(made.full), "--item", "track"] in told
    assert "Map of the tracks" in html


def test_the_same_store_gives_the_same_page(made: Made, written: Path) -> None:
    again = page(Store.open(str(made.full)), params.Report(searched=300))
    assert _without_ids(again) == _without_ids(written.read_text())


def _without_ids(html: str) -> str:
    """bokeh numbers its models within a process."""
    data = re.sub(r'"(id|docid|roots|root_id)":("[^"]*"|\{[^}]*\})', "", json.dumps(data_of(html)))
    return re.sub(r'"p?\d+"|[0-9a-f]{8}-[0-9a-f-]{27}', "", data) + Tags(html).text


def test_the_command_line_does_the_same(made: Made, tmp_path: Path) -> None:
    out = tmp_path / "cli.html"
    shown = CliRunner().invoke(program, ["report", str(made.full), str(out), "--searched", "40"])
    assert shown.exit_code == 0, shown.output
    assert shown.stdout == f"{out}\n"
    rd.report(str(made.full), out=tmp_path / "python.html", searched=40)
    assert _without_ids(out.read_text()) == _without_ids((tmp_path / "python.html").read_text())
    assert [one.name for one in sorted(tmp_path.iterdir())] == ["cli.html", "python.html"]


def test_an_output_folder_that_is_not_there(made: Made, tmp_path: Path) -> None:
    shown = CliRunner().invoke(program, ["report", str(made.full), str(tmp_path / "not" / "there.html")])
    assert (shown.exit_code, shown.stdout) == (1, "")
    assert shown.stderr == (
        f"recsys-dask: {tmp_path}/not/there.html: its folder is not there; make it with: mkdir -p {tmp_path}/not\n"
    )
    for out in (tmp_path, f"{tmp_path}/"):
        shown = CliRunner().invoke(program, ["report", str(made.full), str(out)])
        assert shown.exit_code == 2
        assert "is a folder; name the file" in shown.stderr and len(shown.stderr.splitlines()) == 1
    shown = CliRunner().invoke(program, ["report", str(tmp_path / "no store"), str(tmp_path / "r.html")])
    assert shown.exit_code == 1 and "no store here" in shown.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_is_not_trained(made: Made) -> None:
    html = page(Store.open(str(made.full)), params.Report(model="mlp", searched=20))
    assert ["recsys-dask", "train", str(made.full), "--model", "mlp"] in commands_in(html)
    assert 'id="plot-map"' not in html


def test_a_page_of_300_000_artists_is_small(large: Path) -> None:
    assert 2_000_000 < large.stat().st_size < 5_000_000
    data = data_of(large.read_text())
    assert data["search"]["searched"] == 5_000
    assert "5,000 most mentioned of 300,000 artists" in Tags(large.read_text()).text


# ------------------------------------------------------------------------------------------------------------ gathered


def test_neighbours_on_the_page_are_those_of_the_tables(made: Made, written: Path) -> None:
    store, search = Store.open(str(made.full)), data_of(written.read_text())["search"]
    vocabulary = store.table("artists").to_pylist()
    popular = sorted(vocabulary, key=lambda row: (-row["n_mentions"], row["artist"]))[:300]
    assert search["names"][:300] == [names.shown(row["artist_name"]) for row in popular]
    for method in ("cosine", "mf", "coco"):
        places = np.frombuffer(base64.b64decode(search["neighbours"][method]), "<u2").reshape(300, -1)
        table = store.table(f"similar_artist_{method}").to_pylist()
        for at in (0, 7, 299):
            wanted = [row["neighbour"] for row in table if row["item"] == popular[at]["artist"]][: atlases.BEST]
            found = [search["names"][one] for one in places[at].tolist() if one != atlases.ABSENT]
            assert found == [names.shown(vocabulary[code]["artist_name"]) for code in wanted]


def test_names_beyond_the_budget_are_left_out_from_the_end(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store.open(str(made.full))
    catalogue = names.Catalogue(store, "artist")
    whole = atlases.atlas(store, "artist", catalogue, 50)
    monkeypatch.setattr(atlases, "NAMES_BYTES", 3_000)
    cut = atlases.atlas(store, "artist", catalogue, 50)
    assert cut.names == whole.names[: len(cut.names)] and len(cut.names) < len(whole.names)
    for method, places in cut.neighbours.items():
        there = places != atlases.ABSENT
        assert (places[there] == whole.neighbours[method][there]).all() and places[there].max() < len(cut.names)
        assert (np.diff(there.astype(int), axis=1) <= 0).all()


def test_scenes_stand_side_by_side() -> None:
    rng = np.random.default_rng(1)
    scene = rng.permutation(np.arange(40) % 5)
    cosine = 0.1 + 0.4 * (scene[:, None] == scene) + 0.1 * rng.random((40, 40))
    order = by_scene((cosine + cosine.T) / 2)
    assert sorted(order.tolist()) == list(range(40))
    assert (np.diff(scene[order]) != 0).sum() == 4
    for n in range(3):
        assert by_scene(np.ones((n, n))).tolist() == list(range(n))


def test_the_heat_map_is_of_the_pairs(made: Made) -> None:
    store = Store.open(str(made.full))
    found = scenes(store, "artist", names.Catalogue(store, "artist"), 12)
    assert not isinstance(found, names.Missing)
    held = {row["item"]: row["n_playlists"] for row in store.table("pair_items_artist_full").to_pylist()}
    top = sorted(held, key=lambda code: (-held[code], code))[:12]
    name = {row["artist"]: names.shown(row["artist_name"]) for row in store.table("artists").to_pylist()}
    assert sorted(found.names) == sorted(name[code] for code in top)
    code_of = {name[code]: code for code in top}
    for row in store.table("pairs_artist_full").to_pylist():
        if row["item1"] in top and row["item2"] in top:
            at = found.names.index(name[row["item1"]]), found.names.index(name[row["item2"]])
            assert found.n_playlists[at] == found.n_playlists[at[::-1]] == row["n_playlists"]
            expected = row["n_playlists"] / (held[row["item1"]] * held[row["item2"]]) ** 0.5
            assert found.cosine[at] == pytest.approx(expected)
    assert len(code_of) == 12 and np.isnan(np.diag(found.cosine)).all()


@pytest.mark.parametrize("n", [0, 1, 2, 3, 9, 10, 200])
def test_the_plane_is_the_same_again_and_finite(n: int) -> None:
    vectors = np.random.default_rng(n).normal(size=(n, 8)).astype(np.float32)
    vectors[: n // 3] = 0
    found = projection.plane(vectors)
    assert found.shape == (n, 2) and found.dtype == np.float32
    assert (np.abs(found) <= 1).all()
    assert (found == projection.plane(vectors)).all()
    assert projection.groups(vectors).shape == (n,)


def test_alike_vectors_are_near_on_the_plane() -> None:
    rng = np.random.default_rng(2)
    scene = np.arange(240) % 6
    found = projection.plane((rng.normal(size=(6, 20))[scene] + 0.3 * rng.normal(size=(240, 20))).astype(np.float32))
    apart = ((found[:, None] - found) ** 2).sum(2)
    np.fill_diagonal(apart, np.inf)
    assert (scene[apart.argmin(1)] == scene).mean() > 0.95


def test_rank_frequency_is_thinned_and_exact(made: Made) -> None:
    catalogue = names.Catalogue(Store.open(str(made.full)), "artist")
    ranks, mentions = gather.rank_frequency(catalogue)
    every = sorted(catalogue.n_mentions.tolist(), reverse=True)
    assert ranks[0] == 1 and ranks[-1] == len(every) and len(ranks) <= gather.RANKS
    assert mentions.tolist() == [every[rank - 1] for rank in ranks.tolist()]


def test_lengths_count_every_playlist(made: Made) -> None:
    store = Store.open(str(made.full))
    found = gather.lengths(store)
    assert not isinstance(found, names.Missing)
    entries = store.table("playlists")["n_entries"].to_pylist()
    assert found.counts.sum() + found.n_longer == len(entries) and found.longest == max(entries)
    assert found.median == np.median(entries)


def test_names_as_they_are_shown() -> None:
    assert names.shown("") == names.shown(" \n ") == "(no name)"
    assert names.shown("a" * 80) == "a" * 80
    assert names.shown("a" * 81) == "a" * 79 + "…"
    assert names.shown("a\x00b\u2028c  d") == "a b c d"


# ---------------------------------------------------------------------------------------------------------- a browser


def chromium() -> str | None:
    candidates = [os.environ.get("CHROMIUM"), "chromium", "chromium-browser", "google-chrome"]
    return next((path for one in candidates if one and (path := shutil.which(one))), None)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    path = chromium()
    if path is None:
        pytest.skip("no Chromium: apt-get install chromium, or name one in $CHROMIUM")
    with playwright.sync_playwright() as running:
        started = running.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-dev-shm-usage"])
        yield started
        started.close()


class Opened(NamedTuple):
    page: Any
    faults: list[str]
    requests: list[str]


BLOCKED = """window.blocked = [];
  const noted = (list) => window.blocked.push(...list.getEntries().map((one) => one.duration));
  new PerformanceObserver(noted).observe({ type: "longtask", buffered: true });"""


def opened(browser: Any, path: Path, **options: Any) -> Opened:
    """A page once all its plots are drawn."""
    shown = browser.new_context(**{"viewport": {"width": 1200, "height": 900}, **options}).new_page()
    faults: list[str] = []
    requests: list[str] = []
    shown.on("console", lambda one: faults.append(one.text) if one.type in ("error", "warning") else None)
    shown.on("pageerror", lambda one: faults.append(str(one)))
    shown.on("request", lambda one: requests.append(one.url))
    shown.add_init_script(BLOCKED)
    shown.goto(path.as_uri())
    shown.wait_for_selector("html[data-drawn]", state="attached")
    return Opened(shown, faults, requests)


PAINTED = """() => [...document.querySelectorAll(".plot")].map(plot => {
  const canvases = [];
  const look = (node) => {
    if (node.shadowRoot) [...node.shadowRoot.querySelectorAll("*")].forEach(look);
    if (node.tagName === "CANVAS") canvases.push(node);
  };
  plot.querySelectorAll("*").forEach(look);
  const painted = canvases.some(one => one.width && one.height &&
    one.getContext("2d").getImageData(0, 0, one.width, one.height).data.some(value => value));
  return [plot.id, painted];
})"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1200, 390])
def test_the_page_in_a_browser(browser: Any, written: Path, scheme: str, width: int) -> None:
    """No fault in the console, no request, every plot painted, nothing wider than the window; pictures with
    RECSYS_DASK_SCREENSHOTS, a folder."""
    size = {"width": width, "height": 844}
    found = opened(browser, written, color_scheme=scheme, viewport=size, has_touch=width < 600)
    painted = dict(found.page.evaluate(PAINTED))
    assert len(painted) == 8 and all(painted.values()), painted
    assert found.page.evaluate("document.documentElement.scrollWidth") == width
    back = found.page.evaluate("getComputedStyle(document.body).backgroundColor")
    light = sum(map(int, re.findall(r"\d+", back)[:3])) / 3
    assert light > 200 if scheme == "light" else light < 60
    if folder := os.environ.get("RECSYS_DASK_SCREENSHOTS"):
        found.page.screenshot(path=f"{folder}/{scheme}-{width}.png", full_page=True)
    assert found.faults == []
    assert found.requests == [written.as_uri()]
    assert found.page.evaluate("window.broken") is None


def test_search_finds_an_artist_and_its_neighbours(browser: Any, written: Path) -> None:
    found = opened(browser, written)
    shown, search = found.page, data_of(written.read_text())["search"]
    shown.fill("#query", "beyonce")
    assert shown.locator("#hits li").all_inner_texts()[0].startswith("Beyoncé")
    shown.keyboard.press("Enter")
    assert shown.locator("#hits").is_hidden()
    at = search["names"].index(HOSTILE[9])
    assert shown.locator("#found h3 bdi").inner_text() == HOSTILE[9]
    assert shown.locator("#found h4").all_inner_texts() == search["methods"]
    places = np.frombuffer(base64.b64decode(search["neighbours"]["cosine"]), "<u2").reshape(300, -1)[at]
    card = shown.locator("#found .cards > div").nth(search["methods"].index("cosine"))
    wanted = [search["names"][one] for one in places.tolist() if one != atlases.ABSENT]
    assert card.locator("li bdi").all_text_contents() == wanted
    x, y = np.frombuffer(base64.b64decode(search["places"]), "<f4").reshape(-1, 2)[at].tolist()
    centre = """() => { const m = Bokeh.documents.map(d => d.get_model_by_name("map")).find(Boolean);
        const s = Bokeh.documents.map(d => d.get_model_by_name("picked")).find(Boolean);
        const middle = (range) => (range.start + range.end) / 2;
        return [middle(m.x_range), middle(m.y_range), s.data.x[0], s.data.y[0]] }"""
    assert shown.evaluate(centre) == pytest.approx([x, y, x, y], abs=1e-6)
    card.locator("button").first.click()  # a neighbour is looked up in its turn
    assert shown.locator("#found h3 bdi").text_content() == card.locator("button").first.text_content() or wanted[0]
    assert shown.locator("#query").input_value() == wanted[0]
    shown.fill("#query", "nobody of this name")
    assert shown.locator("#hits li").all_inner_texts() == ["none on this page"]
    shown.fill("#query", "<script>")
    shown.locator("#hits li").first.click()
    assert shown.locator("#found h3 bdi").text_content() == HOSTILE[0]
    assert found.faults == [] and shown.evaluate("window.broken") is None


def test_hovering_shows_names_as_text(browser: Any, written: Path) -> None:
    found = opened(browser, written)
    for name in (HOSTILE[0], HOSTILE[1], HOSTILE[8]):
        found.page.fill("#query", name[:20])
        found.page.keyboard.press("Enter")
        found.page.locator("#plot-map").scroll_into_view_if_needed()
        canvas = found.page.evaluate("""() => { const v = [...Bokeh.index.roots].find((v) => v.model.name === "map");
            const b = v.canvas_view.el.getBoundingClientRect(), f = v.frame_view.bbox;
            return [b.left + f.left + f.width / 2, b.top + f.top + f.height / 2] }""")
        found.page.mouse.move(canvas[0] - 3, canvas[1] - 3)
        found.page.mouse.move(*canvas, steps=3)
        found.page.wait_for_function(
            """(name) => [...document.querySelectorAll(".bk-Tooltip")].some((one) =>
               one.shadowRoot.textContent.includes(name) && !one.shadowRoot.querySelector("script, img"))""",
            arg=name, timeout=5_000,
        )  # fmt: skip
    assert found.faults == [] and found.page.evaluate("window.broken") is None
    assert found.requests == [written.as_uri()]


def test_a_page_without_models_in_a_browser(browser: Any, made: Made, tmp_path: Path) -> None:
    found = opened(browser, Path(api.report(made.bare, tmp_path / "bare.html", searched=30)))
    assert all(dict(found.page.evaluate(PAINTED)).values())
    found.page.fill("#query", "a")
    found.page.keyboard.press("Enter")
    assert found.page.locator("#found h3").count() == 1
    assert found.faults == []


def test_a_page_of_300_000_artists_opens_without_a_stutter(browser: Any, large: Path) -> None:
    """Nothing holds it up for 2 s, and each keystroke of a search in the 5,000 names is answered within 0.2 s: on a
    machine that does other things."""
    found = opened(browser, large)
    assert max(found.page.evaluate("window.blocked"), default=0) < 2_000
    assert all(dict(found.page.evaluate(PAINTED)).values())
    took = found.page.evaluate("""() => { const box = document.getElementById("query"), start = performance.now();
        for (const text of ["t", "th", "the", "the l", "宇多", "motorhead"]) {
          box.value = text; box.dispatchEvent(new Event("input")); }
        return (performance.now() - start) / 6 }""")
    assert took < 200
    assert found.page.locator("#hits li").count() == 8
    assert found.faults == []
