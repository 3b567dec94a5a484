"""Held-out quality: a child store's recommenders asked about its test playlists, `evaluation_<item>` of the parent.

score: a method and a block of test playlists -> each playlist's metrics, and which items were recommended, in parallel
sum:   means and bootstrap intervals by method and metric, and of the difference from the default method
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from recsys_dask.arrow import float64, int64, values, vectors
from recsys_dask.compressed import starts_of
from recsys_dask.errors import StoreError
from recsys_dask.holdout.split import hide, known_items, shows_nothing
from recsys_dask.metrics import METRICS, Catalogue, bootstrap, judge, paired, top_k
from recsys_dask.models.base import Ints, Items
from recsys_dask.models.folded import units
from recsys_dask.recommending.inputs import known_lists, place_of
from recsys_dask.recommending.opening import opened
from recsys_dask.recommending.titles import fill_by_title, held_by_title, popular
from recsys_dask.runtime.clusters import Cluster
from recsys_dask.store import tables
from recsys_dask.store.manifest import StageReport, TableEntry
from recsys_dask.store.tables import Store

if TYPE_CHECKING:
    import pyarrow as pa

BLOCK = 500
"""Test playlists whose scores are in memory at a time."""

DEPTH = 500
"""Items that are ranked, or as many as the most that a playlist hides."""

BASELINES = ("random", "popularity")
"""They stay what they are called; the other methods go by a playlist's title where nothing else is shown."""

EACH = [name for name, metric in METRICS.items() if metric.kind == "each"]
COVERAGE = "coverage@50"
COVERED = 50


class Asked(NamedTuple):
    """Test playlists as they are shown to a recommender, and what they hide.

    pid (n,); title (n,): where nothing else is shown, else empty; artist, track: codes of the entries that are left,
    n_entries (n,) of each playlist; hidden_starts (n + 1,), hidden: places among the view's items
    """

    pid: Ints
    title: NDArray[np.object_]
    artist: Items
    track: Items
    n_entries: Ints
    hidden_starts: Ints
    hidden: Items

    def rows(self, low: int, high: int) -> Asked:
        """Playlists [low, high)."""
        starts = starts_of(self.n_entries)
        first, last = starts[low], starts[high]
        cut = slice(self.hidden_starts[low], self.hidden_starts[high])
        return Asked(
            self.pid[low:high], self.title[low:high], self.artist[first:last], self.track[first:last],
            self.n_entries[low:high], self.hidden_starts[low : high + 1] - self.hidden_starts[low], self.hidden[cut],
        )  # fmt: skip


def asked(child: Store, item: str, rule: str, seed: int) -> Asked:
    """The test playlists of a child store. What an item that is hidden came in, all its entries, is hidden with it.

    Raises `StoreError` where no playlist has enough items.
    """
    lists = child.table("test_playlists", ["pid", "name", "n_entries"])
    rows = child.table("test_rows", ["artist", "track"])
    items = values(child.table(f"pair_items_{item}_full", ["item"])["item"])
    pid, n_entries = values(lists["pid"]), values(lists["n_entries"])
    codes = values(rows[item])
    place = place_of(items, codes)
    known = known_items(place, n_entries)
    taken, hidden = hide(known, rule, seed, pid)
    if not taken.any():
        raise StoreError(
            f"{child.folder.url}: none of {len(pid):,} test playlists has enough known {item}s to hide some by "
            f"--hidden {rule}: give a higher --test-share, or ingest more playlists"
        )
    owner = np.repeat(np.arange(len(pid)), n_entries)
    gone = np.unique(known.lists.owners[hidden] << 32 | known.lists.items[hidden])
    left = taken[owner] & ~((place >= 0) & np.isin(owner << 32 | place, gone))
    title = np.zeros(0, object)
    if shows_nothing(rule):  # not what the view leaves out either
        left[:] = False
        title = np.array([name or "" for name in lists["name"].to_pylist()], object)[taken]
    return Asked(
        pid[taken],
        title,
        values(rows["artist"])[left],
        values(rows["track"])[left],
        np.bincount(owner[left], minlength=len(pid))[taken],
        starts_of(np.bincount(known.lists.owners[hidden], minlength=len(pid))[taken]),
        known.lists.items[hidden],
    )


class Scored(NamedTuple):
    """A block's metrics (playlists, EACH) and the items among the first 50 of its lists (N,) bool."""

    each: NDArray[np.float64]
    recommended: NDArray[np.bool_]


def evaluate(
    cluster: Cluster, store: Store, child: Store, item: str, methods: Sequence[str], rule: str, seed: int, level: float,
    default: str, token: str,
) -> tuple[dict[str, TableEntry], StageReport]:  # fmt: skip
    """The tables `evaluation_<item>`, of means, and `evaluation_<item>_playlists`, of each playlist's values."""
    from dask import delayed

    known = asked(child, item, rule, seed)
    n = len(known.pid)
    # not of a model that an earlier evaluation has left: what was measured before changes nothing
    model = "mf" if "mf" in methods else "mlp" if {"mlp", "blend"} & set(methods) else None
    blocks = [(n * at // cluster.n_threads, n * (at + 1) // cluster.n_threads) for at in range(cluster.n_threads)]
    with cluster.measured() as so_far:
        shared = delayed(child, name=f"child-{token}", traverse=False)
        parts = [delayed(known.rows(low, high), name=f"asked-{low}-{token}", traverse=False) for low, high in blocks]
        work = [
            delayed(score_block)(shared, item, method, part, model, dask_key_name=f"score-{method}-{at}-{token}")
            for method in methods
            for at, part in enumerate(parts)
        ]
        done = cluster.compute("evaluate", work, lambda scored: len(scored.each), "playlists")
        found = {
            method: _together(done[at * len(blocks) : (at + 1) * len(blocks)]) for at, method in enumerate(methods)
        }
        name = f"evaluation_{item}"
        entries = {
            one: TableEntry([tables.write_part(store.folder, one, token, 0, table, compression="zstd")])
            for one, table in (
                (name, summary(found, default, level)),
                (f"{name}_playlists", by_playlist(found, known.pid)),
            )
        }
        seconds, peak = so_far()
    rows = sum(entry.rows for entry in entries.values())
    size = sum(entry.bytes for entry in entries.values())
    return entries, StageReport(rows, size, 2, seconds, peak, facts={"playlists": n})


def _together(parts: Sequence[Scored]) -> Scored:
    return Scored(np.concatenate([part.each for part in parts]), np.any([part.recommended for part in parts], axis=0))


def score_block(child: Store, item: str, method: str, block: Asked, model: str | None) -> Scored:
    """The task: one method's recommendations for some test playlists, judged. model: whose vectors tell how diverse."""
    known, ready = opened(child, item, method)
    held = values(child.table(f"pair_items_{item}_full", ["n_playlists"])["n_playlists"])
    catalogue = Catalogue(held, child.entry("playlists").rows, _unit_vectors(child, item, model))
    artist_of = _artist_of(child, known.items) if item == "track" else None
    depth = max(DEPTH, int(np.diff(block.hidden_starts).max(initial=0)))
    titled = len(block.title) > 0 and method not in BASELINES
    if titled:
        of_title, everyone = held_by_title(child, item, block.title.tolist()), popular(child, item)
    each, recommended = [np.zeros((0, len(EACH)))], np.zeros(len(known.items), bool)
    for low in range(0, len(block.pid), BLOCK):
        high = min(low + BLOCK, len(block.pid))
        part = block.rows(low, high)
        lists = known_lists(known, item, part.artist, part.track, part.n_entries)
        scores = ready.scores(lists)
        if titled:
            fill_by_title(scores, range(high - low), of_title[low:high], known.items, everyone)
        places = top_k(scores, lists.starts, lists.items, depth)
        ranked = judge(places, part.hidden_starts, part.hidden, artist_of)
        each.append(np.stack([METRICS[name].function(ranked, catalogue) for name in EACH], 1))
        first = places[:, :COVERED]
        recommended[first[first >= 0]] = True
    return Scored(np.concatenate(each), recommended)


def _unit_vectors(child: Store, item: str, model: str | None) -> NDArray[np.float32] | None:
    """None where the model has not all of the items."""
    n_items = child.entry(f"pair_items_{item}_full").rows
    name = f"embeddings_{item}_{model}"
    if model is None or child.entry(name).rows != n_items:
        return None
    return units(vectors(child.table(name, ["vector"])["vector"]))


def _artist_of(child: Store, items: Items) -> Items:
    return values(child.table("tracks", ["artist"])["artist"])[items]


# ----------------------------------------------------------------------------------------------------------- tables


def summary(found: dict[str, Scored], default: str, level: float) -> pa.Table:
    """A row a method and metric: mean, interval, and the paired difference of the default from it."""
    import pyarrow as pa

    best = found.get(default)
    rows: list[tuple[Any, ...]] = []
    for method in sorted(found):
        each = found[method].each
        own = bootstrap(each, level)
        apart = paired(best.each, each, level) if best is not None else None
        for at, metric in enumerate(EACH):
            there = int((~np.isnan(each[:, at])).sum())
            gap = (None,) * 3 if apart is None else tuple(float(one[at]) for one in apart)
            rows.append((method, metric, there, float(own.mean[at]), float(own.low[at]), float(own.high[at]), *gap))
        covered = float(found[method].recommended.mean()) if len(found[method].recommended) else 0.0
        rows.append((method, COVERAGE, len(each), covered, *(None,) * 5))
    columns = list(zip(*sorted(rows, key=lambda row: row[:2]), strict=True))
    names = "method metric n mean low high difference difference_low difference_high".split()
    kinds = [pa.string(), pa.string(), pa.int64()] + [pa.float64()] * 6
    return pa.table({name: pa.array(column, kind) for name, column, kind in zip(names, columns, kinds, strict=True)})


def by_playlist(found: dict[str, Scored], pid: Ints) -> pa.Table:
    """A row a method, metric and test playlist."""
    import pyarrow as pa

    methods, metrics = sorted(found), sorted(EACH)
    order = np.argsort(pid, kind="stable")
    columns = [found[method].each[order][:, EACH.index(metric)] for method in methods for metric in metrics]
    n = len(pid)
    names = [(method, metric) for method in methods for metric in metrics]
    at = int64(np.repeat(np.arange(len(names)), n))
    return pa.table(
        {
            "method": pa.array([method for method, _ in names], pa.string()).take(at),
            "metric": pa.array([metric for _, metric in names], pa.string()).take(at),
            "pid": int64(np.tile(pid[order], len(names))),
            "value": float64(np.concatenate(columns)),
        }
    )
