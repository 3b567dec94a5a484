"""`evaluate`: the order of methods on planted scenes, tables that agree with each other and with loops, and no leak."""

from __future__ import annotations

import copy
import json
import math
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import oracles
import pytest
from click.testing import CliRunner, Result
from small_playlists import packed
from small_store import world
from strategies import write_slices

from recsys_dask import api, schemas
from recsys_dask.cli import program
from recsys_dask.errors import StoreError, UsageError
from recsys_dask.metrics import METRICS, paired
from recsys_dask.models.popularity import Random
from recsys_dask.recommender import Query, Recommender
from recsys_dask.stages import evaluate as stage
from recsys_dask.store.arrays import read_arrays
from recsys_dask.store.tables import Store

METHODS = ("random", "popularity", "coco", "cosine", "count", "ease", "linear")
Rows = list[dict[str, Any]]


def cli(*arguments: Any) -> Result:
    return CliRunner().invoke(program, [str(one) for one in arguments], prog_name="recsys-dask")


def prepared(folder: Path, data: Rows, top: int, near: bool = True) -> Path:
    """A store of which only what an evaluation needs is there."""
    write_slices(folder / "slices", data, 3)
    api.ingest(folder / "slices", folder / "store")
    api.counts(folder / "store", top=top)
    if near:
        api.near_duplicates(folder / "store")
    return folder / "store"


def child_of(store: Path) -> Store:
    return Store.open(str(store / "evaluation"))


def each(store: Path, item: str = "artist") -> dict[tuple[str, str], dict[int, float]]:
    """Each playlist's value by method and metric."""
    found: dict[tuple[str, str], dict[int, float]] = defaultdict(dict)
    for row in Store.open(str(store)).table(f"evaluation_{item}_playlists").to_pylist():
        assert row["pid"] not in found[row["method"], row["metric"]]
        found[row["method"], row["metric"]][row["pid"]] = row["value"]
    return found


def same(one: Rows, other: Rows, rtol: float = 1e-9) -> None:
    assert len(one) == len(other)
    for mine, theirs in zip(one, other, strict=True):
        assert (mine["method"], mine["metric"], mine["n"]) == (theirs["method"], theirs["metric"], theirs["n"])
        for name in ("mean", "low", "high", "difference"):
            assert mine[name] == theirs[name] or math.isclose(mine[name], theirs[name], rel_tol=rtol, abs_tol=rtol) or (
                math.isnan(mine[name]) and math.isnan(theirs[name])
            ), (mine, theirs)  # fmt: skip


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """1,200 playlists with planted scenes, evaluated by some methods."""
    made = prepared(tmp_path_factory.mktemp("planted"), world(1_200, 5, copies=0.1), 600)
    api.evaluate(made, methods=",".join(METHODS))
    return made


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """300 playlists that are not evaluated yet."""
    return prepared(tmp_path_factory.mktemp("few"), world(300, 2), 200)


# ----------------------------------------------------------------------------------------------------------- quality


def test_the_order_on_planted_scenes(store: Path) -> None:
    found = each(store)
    assert {method for method, _ in found} == set(METHODS)

    def gap(better: str, worse: str, metric: str = "ndcg@100") -> Any:
        return paired(*(np.array(list(found[one, metric].values())) for one in (better, worse)))

    for method in ("cosine", "ease", "linear"):
        for metric in ("ndcg@100", "r_precision", "recall@50"):
            mean = np.mean(list(found["popularity", metric].values()))
            assert gap(method, "popularity", metric).low > 0.2 * mean, (method, metric)
    for metric in ("ndcg@100", "r_precision", "recall@50"):
        assert all(gap(method, "random", metric).low > 0 for method in METHODS[1:])
        assert gap("cosine", "coco", metric).low > 0 < gap("coco", "popularity", metric).low


def test_no_near_duplicate_is_tested(store: Path) -> None:
    opened = Store.open(str(store))
    near = set(opened.table("near_duplicates")["pid"].to_pylist())
    tested = set(each(store)["linear", "ndcg@100"])
    assert len(near) > 50 and tested and not tested & near
    assert tested <= set(child_of(store).table("test_playlists")["pid"].to_pylist())


# ------------------------------------------------------------------------------------------------------------ tables


def test_the_tables_agree(store: Path) -> None:
    """Means and differences of the one are those of the other's values; the result and the command tell the same."""
    opened, found = Store.open(str(store)), each(store)
    table = opened.table("evaluation_artist")
    rows = table.to_pylist()
    for name in ("evaluation_artist", "evaluation_artist_playlists"):
        assert opened.table(name).schema.equals(schemas.of(name).arrow())
        order = [tuple(row[one] for one in schemas.of(name).order) for row in opened.table(name).to_pylist()]
        assert order == sorted(set(order))
    assert str(api.evaluate(store, methods=",".join(METHODS))) == str(rows)
    metrics = [name for name, metric in METRICS.items() if metric.kind == "each"]
    assert {(row["method"], row["metric"]) for row in rows} == {
        (method, metric) for method in METHODS for metric in [*metrics, "coverage@50"]
    }
    for row in rows:
        if row["metric"] == "coverage@50":
            assert 0 < row["mean"] <= 1 and row["low"] is row["high"] is row["difference"] is None
            continue
        value = np.array(list(found[row["method"], row["metric"]].values()))
        default = np.array(list(found["linear", row["metric"]].values()))
        assert row["n"] == np.isfinite(value).sum()
        if not row["n"]:
            assert row["metric"].startswith("diversity") and math.isnan(row["mean"])  # no model was trained
            continue
        assert row["mean"] == pytest.approx(np.nanmean(value)) and row["low"] <= row["mean"] <= row["high"]
        assert row["difference"] == pytest.approx(np.nanmean(default - value), abs=1e-12)
        assert row["difference_low"] <= row["difference"] <= row["difference_high"]
    of = {(row["method"], row["metric"]): row["mean"] for row in rows}
    assert of["random", "coverage@50"] > of["linear", "coverage@50"] > of["popularity", "coverage@50"]
    shown = cli("evaluate", store, "--methods", ",".join(METHODS))
    assert shown.exit_code == 0
    lines = shown.stdout.splitlines()
    assert [line.split()[0] for line in lines[1:-1]] == sorted(METHODS, key=lambda one: -of[one, "ndcg@100"])
    assert lines[-1].startswith(f"{len(found['linear', 'ndcg@100']):,} test playlists; intervals of 95%")
    as_json = cli("evaluate", store, "--methods", ",".join(METHODS), "--json")
    plain = [{name: None if value != value else value for name, value in row.items()} for row in rows]
    assert json.loads(as_json.stdout, parse_constant=pytest.fail) == plain  # JSON has no NaN


def by_hand(store: Path, rule: str = "fifth") -> tuple[dict[int, tuple[set[int], set[int]]], list[int]]:
    """pid -> given and hidden codes, checked against the child's test rows; and the codes that are ranked."""
    child = child_of(store)
    ranked = child.table("pair_items_artist_full")["item"].to_pylist()
    asked = stage.asked(child, "artist", rule, 0)
    rows: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for row in child.table("test_rows").to_pylist():
        rows[row["pid"]].append((row["artist"], row["track"]))
    found, start = {}, 0
    for at, (pid, n) in enumerate(zip(asked.pid.tolist(), asked.n_entries.tolist(), strict=True)):
        hidden = {ranked[one] for one in asked.hidden[asked.hidden_starts[at] : asked.hidden_starts[at + 1]].tolist()}
        span = slice(start, start + n)
        left = list(zip(asked.artist[span].tolist(), asked.track[span].tolist(), strict=True))
        assert left == [entry for entry in rows[pid] if entry[0] not in hidden], "all entries of a hidden artist go"
        found[pid] = {one for one, _ in left} & set(ranked), hidden
        start += n
    assert start == len(asked.artist)
    return found, ranked


def test_a_fifth_is_hidden(store: Path) -> None:
    found, ranked = by_hand(store)
    pids = child_of(store).table("test_playlists")["pid"].to_pylist()
    distinct: dict[int, set[int]] = {pid: set() for pid in pids}
    for row in child_of(store).table("test_rows").to_pylist():
        distinct[row["pid"]] |= {row["artist"]} & set(ranked)
    assert list(found) == [pid for pid in pids if len(distinct[pid]) >= 10]
    for pid, (given, hidden) in found.items():
        assert given | hidden == distinct[pid] and not given & hidden and len(hidden) == len(distinct[pid]) // 5


@pytest.mark.parametrize("method", ["popularity", "count", "cosine"])
def test_as_counted_by_hand(method: str, store: Path) -> None:
    """R-precision, recall and NDCG of test playlists, from the training playlists as sets."""
    asked, ranked = by_hand(store)
    place = {code: at for at, code in enumerate(ranked)}
    playlists: dict[int, set[int]] = defaultdict(set)
    for row in child_of(store).table("rows").to_pylist():
        if row["artist"] in place:
            playlists[row["pid"]].add(place[row["artist"]])
    held = np.zeros((len(playlists), len(ranked)))
    for at, items in enumerate(playlists.values()):
        held[at, list(items)] = 1
    both, n = held.T @ held, held.sum(0)
    similar = {"count": both, "cosine": both / np.sqrt(np.outer(n, n)), "popularity": np.tile(n, (len(n), 1))}[method]
    np.fill_diagonal(similar, 0)
    values, n_same = each(store), 0
    some = list(asked)[:60]
    for pid in some:
        given, hidden = ({place[code] for code in codes} for codes in asked[pid])
        scores = n if method == "popularity" else similar[sorted(given)].sum(0)
        best = oracles.top_k(scores.tolist(), given, 500)
        expected = {
            "r_precision": oracles.r_precision(best, hidden),
            "recall@50": oracles.recall(best, hidden, 50),
            "ndcg@100": oracles.ndcg(best, hidden, 100),
        }
        n_same += all(math.isclose(values[method, name][pid], value) for name, value in expected.items())
    assert n_same >= (len(some) if method != "cosine" else 0.95 * len(some))  # of cosine sums, some are nearly tied


# ------------------------------------------------------------------------------------------------------- how often


def test_repeatable_and_another_split_differs(few: Path, client, tmp_path: Path) -> None:
    once = api.evaluate(few, methods="random,popularity,cosine,linear")
    one = each(few)
    rebuilt = api.evaluate(few, methods="random,popularity,cosine,linear", rebuild=True)
    assert str(once) == str(rebuilt)  # NaN is NaN in words
    cluster = api.evaluate(few, methods="random,popularity,cosine,linear", rebuild=True, client=client)
    same(once, cluster, 1e-6)
    other = api.evaluate(few, methods="random,popularity,cosine,linear", split_seed=1)
    assert set(each(few)["linear", "ndcg@100"]) != set(one["linear", "ndcg@100"])
    assert str(other) != str(once)


def test_random_depends_on_no_batch() -> None:
    lists = packed([({0, 2}, set()), ({1}, set()), (set(), set()), ({0, 2}, set()), ({3, 4}, set())])
    together = Random(50, 0).scores(lists)
    for row in range(lists.n):
        mine = np.arange(lists.n) == row
        assert np.array_equal(Random(50, 0).scores(lists.where(mine)), together[row : row + 1])
    assert len(np.unique(together, axis=0)) == 4 and not np.array_equal(Random(50, 1).scores(lists), together)
    assert Random(50, 0).scores(packed([])).shape == (0, 50)


def test_only_what_is_new_is_done(few: Path) -> None:
    api.evaluate(few, methods="linear,popularity")
    child = few / "evaluation/manifest.json"
    before, whole = json.loads(child.read_bytes())["stages"], (few / "manifest.json").read_bytes()
    api.evaluate(few, methods="linear,popularity")
    assert (few / "manifest.json").read_bytes() == whole and json.loads(child.read_bytes())["stages"] == before
    rows = api.evaluate(few, methods="als,linear,coco")
    after = json.loads(child.read_bytes())["stages"]
    assert {key: after[key] for key in before} == before
    assert {"fit:artist:als", "similar:artist:coco"} <= after.keys() - before.keys()
    assert {row["method"] for row in rows} == {"als", "linear", "coco"}
    assert cli("check", few / "evaluation").exit_code == 0 and cli("check", few).exit_code == 0


def test_what_was_evaluated_before_changes_nothing(few: Path) -> None:
    """A model that another evaluation trained does not make lists diverse."""
    before = api.evaluate(few, methods="popularity", rebuild=True, split_seed=7)
    api.train(few / "evaluation", model="mf", epochs=1, factors=4)
    assert str(api.evaluate(few, methods="popularity", rebuild=True, split_seed=7)) == str(before)


@pytest.mark.parametrize("rule, n_given", [("first:5", 5), ("random:5", 5), ("first:1", 1), ("random:15", 15)])
def test_the_challenge_s_cases(rule: str, n_given: int, few: Path) -> None:
    rows = api.evaluate(few, methods="popularity,linear", hidden=rule)
    of = {(row["method"], row["metric"]): row for row in rows}
    assert of["linear", "ndcg@100"]["mean"] > of["popularity", "ndcg@100"]["mean"]
    asked, ranked = by_hand(few, rule)
    assert of["linear", "ndcg@100"]["n"] == len(asked) > 10
    order: dict[int, list[int]] = defaultdict(list)
    for row in child_of(few).table("test_rows").to_pylist():
        if row["artist"] in ranked and row["artist"] not in order[row["pid"]]:
            order[row["pid"]].append(row["artist"])
    for pid, (given, hidden) in asked.items():
        assert len(given) == n_given and given | hidden == set(order[pid]) and not given & hidden
        if rule.startswith("first"):
            assert given == set(order[pid][:n_given])


def test_models_of_the_article(tmp_path: Path) -> None:
    """They are evaluated as the store has them: trained on the article's view, recommending from the full one."""
    made = prepared(tmp_path, world(150), 80, near=False)
    api.pairs(made)
    api.train(made, preset="article", model="mf", epochs=1, factors=4)
    api.train(made, preset="article", model="mlp", epochs=1, factors=4)
    rows = api.evaluate(made, methods="mf,mlp,linear", keep_near_duplicates=True)
    assert {row["method"] for row in rows} == {"mf", "mlp", "linear"}
    stages = child_of(made).manifest.stages
    assert (
        stages["train:artist:mlp"].params["preset"] == "article" and stages["train:artist:mlp"].params["factors"] == 4
    )
    assert "similar:artist:coco" not in stages


@pytest.mark.parametrize("rule", ["first:0", "random:0"])
def test_of_playlists_that_show_nothing(rule: str, few: Path) -> None:
    """All but the baselines go by the title, as `recommend` does."""
    rows = api.evaluate(few, methods="popularity,random,cosine,linear", hidden=rule)
    of = {(row["method"], row["metric"]): row for row in rows}
    values, child = each(few), child_of(few)
    assert values["cosine", "ndcg@100"] == values["linear", "ndcg@100"]
    assert of["random", "ndcg@100"]["mean"] < of["popularity", "ndcg@100"]["mean"] < of["cosine", "ndcg@100"]["mean"]
    ids = child.table("artists")["artist_id"].to_pylist()
    ranked = {ids[code] for code in child.table("pair_items_artist_full")["item"].to_pylist()}
    held: dict[int, set[str]] = defaultdict(set)
    for row in child.table("test_rows").to_pylist():
        held[row["pid"]] |= {ids[row["artist"]]} & ranked if row["artist"] >= 0 else set()
    title = {row["pid"]: row["name"] for row in child.table("test_playlists").to_pylist()}
    assert len(set(title.values())) > 5 and any(held.values())
    asked = [pid for pid in sorted(title) if held[pid]]
    for method, queries in ("cosine", [Query(title=title[pid] or "") for pid in asked]), ("popularity", [Query()]):
        lists = Recommender.open(child, method).recommend(queries, 100)
        for pid, found in zip(asked, lists * (len(asked) // len(lists)), strict=True):
            hits = len(held[pid] & {one.id for one in found[: len(held[pid])]})
            assert math.isclose(values[method, "r_precision"][pid], hits / len(held[pid]))


def test_tracks(few: Path) -> None:
    api.pairs(few, item="track", view="full", min_playlists=3)
    rows = api.evaluate(few, item="track", methods="popularity,cosine,linear")
    of = {(row["method"], row["metric"]): row for row in rows}
    assert of["popularity", "r_precision"]["mean"] < of["cosine", "r_precision"]["mean"]
    assert child_of(few).manifest.stages["pairs:track:full"].params["min_playlists"] == 3
    assert len(each(few, "track")) == 3 * len({metric for _, metric in each(few, "track")})


# ---------------------------------------------------------------------------------------------------------- refused


@pytest.mark.parametrize(
    "given, words",
    [
        ({"methods": "linear,cosin"}, "--methods is 'linear,cosin': did you mean cosine"),
        ({"methods": ""}, "--methods is '': it is one of popularity, .*blend, random"),
        ({"hidden": "third"}, "what to hide is 'third': give fifth, first:K or random:K"),
        ({"hidden": "first:-1"}, "what to hide is 'first:-1'"),
        ({"level": 1.0}, "--level is 1.0: give at most 0.999"),
        ({"item": "album"}, "--item is 'album'"),
    ],
)
def test_bad_parameters(given: dict[str, Any], words: str, few: Path) -> None:
    before = (few / "manifest.json").read_bytes()
    with pytest.raises(UsageError, match=words):
        api.evaluate(few, **given)
    shown = cli("evaluate", few, *[one for name, value in given.items() for one in (f"--{name}", value)])
    assert shown.exit_code == 2 and "Traceback" not in shown.stderr
    assert (few / "manifest.json").read_bytes() == before


def test_nothing_left_to_test(few: Path, tmp_path: Path) -> None:
    for given, words in (
        ({"test_share": 0.0}, "left to test"),
        ({"test_share": 1.0}, "left to train on"),
        ({"hidden": "first:9999"}, "none of 60 test playlists has enough known artists to hide some by --hidden first"),
    ):
        with pytest.raises(StoreError, match=words) as caught:
            api.evaluate(few, methods="popularity", **given)
        assert "\n" not in str(caught.value)
    bare = prepared(tmp_path, world(20), 50, near=False)
    with pytest.raises(StoreError, match="no near_duplicates yet; first run: recsys-dask near-duplicates"):
        api.evaluate(bare, methods="popularity")
    api.evaluate(bare, methods="popularity", keep_near_duplicates=True, hidden="first:1")


# ------------------------------------------------------------------------------------------------------------- leak


def test_what_is_hidden_changes_no_fitted_number(tmp_path: Path) -> None:
    """Other tracks, some of them new and some of other playlists, where test playlists hide theirs."""
    data = world(260, 9)
    options = {"methods": "cosine,coco,linear,als,ease", "keep_near_duplicates": True}
    one = prepared(tmp_path / "one", data, 150, near=False)
    before = api.evaluate(one, **options)
    child = child_of(one)
    ids = child.table("artists")["artist_id"].to_pylist()
    hidden = {pid: {ids[code] for code in codes} for pid, (_, codes) in by_hand(one)[0].items()}
    others, n_changed = copy.deepcopy(data), 0
    for playlist in others:
        for n, track in enumerate(playlist["tracks"]):
            if track["artist_uri"][15:] not in hidden.get(playlist["pid"], ()):
                continue
            n_changed += 1
            if n % 2:
                end = f"{playlist['pid']:011d}{n:011d}"
                track |= {"artist_uri": f"spotify:artist:{end}", "track_uri": f"spotify:track:{end}"}
            else:
                pos, donor = track["pos"], data[(playlist["pid"] * 7 + 1) % len(data)]["tracks"]
                track |= {**donor[n % len(donor)], "pos": pos}
    assert len(hidden) > 25 and n_changed > 200
    two = prepared(tmp_path / "two", others, 150, near=False)
    after = api.evaluate(two, **options)
    assert str(before) != str(after)
    changed = child_of(two)
    assert child.table("test_rows") != changed.table("test_rows")
    names = [name for name in child.manifest.tables if not name.startswith(("test_", "recommender_"))]
    assert len(names) > 8 and sorted(child.manifest.tables) == sorted(changed.manifest.tables)
    for name in names:
        assert child.table(name).equals(changed.table(name)), name
    for method in ("linear", "als", "ease"):
        (mine, how), (theirs, other) = (
            read_arrays(store.folder, store.entry(f"recommender_artist_{method}").files[0].path)
            for store in (child, changed)
        )
        assert how == other and mine.keys() == theirs.keys()
        assert all(np.array_equal(mine[name], theirs[name]) for name in mine), method
