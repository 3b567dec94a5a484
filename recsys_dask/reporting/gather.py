"""What the page tells in numbers: the input and what was dropped, popularity, lengths, trainings, quality, stages."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

import recsys_dask
from recsys_dask import lookup, params
from recsys_dask.arrow import values
from recsys_dask.reporting.names import Catalogue, Missing, missing
from recsys_dask.stages.pairs import threshold
from recsys_dask.store.manifest import command_for
from recsys_dask.store.tables import Store

RANKS = 300
"""Points of the rank-frequency curve, spread evenly over the logarithm of the rank."""

BINS = 40
QUALITY = ("r_precision", "ndcg@100", "recall@50")
MOST_LISTED = 30
"""Files that were set aside, as far as the page lists them."""


@dataclass(frozen=True)
class Kept:
    """How much of something a step kept, and why not the rest."""

    what: str
    kept: int
    of: int
    why: str

    @property
    def share(self) -> float:
        return self.kept / self.of if self.of else 0.0


@dataclass(frozen=True)
class Facts:
    """What was read, by which version, and what became of it."""

    store: str
    package: str
    reader: str
    format: int
    finished_at: str
    n_files: int
    n_bytes: int
    set_aside: list[str]
    n_set_aside: int
    counts: dict[str, int]
    kept: list[Kept] = field(default_factory=list)
    near_duplicates: dict[str, Any] | Missing | None = None


def facts(store: Store, item: str) -> Facts:
    """The head of the page. Tables that are not there are left out."""
    manifest = store.manifest
    tables = {"playlists": "playlists", "rows": "entries", "artists": "distinct artists", "tracks": "distinct tracks"}
    ingest = manifest.stages.get("ingest")
    # What was wrong with a file stands in the notes of the ingest; after an append, of the last one alone.
    notes = [note.removeprefix("set aside: ") for note in (ingest.report.notes if ingest else [])]
    notes = [note for note in notes if any(note.startswith(path) for path in manifest.set_aside)]
    silent = [path for path in manifest.set_aside if not any(note.startswith(path) for note in notes)]
    near = lookup.near_duplicates(store)
    return Facts(
        store=store.folder.url,
        package=manifest.package,
        reader=recsys_dask.__version__,
        format=manifest.format,
        finished_at=max((stage.finished_at for stage in manifest.stages.values()), default=""),
        n_files=len(manifest.inputs),
        n_bytes=sum(file.bytes for file in manifest.inputs),
        set_aside=[*notes, *silent][:MOST_LISTED],
        n_set_aside=len(manifest.set_aside),
        counts={text: manifest.tables[name].rows for name, text in tables.items() if name in manifest.tables},
        kept=_kept(store, item),
        near_duplicates=near or Missing(command_for("near_duplicates", store.folder.url)),
    )


def _kept(store: Store, item: str) -> list[Kept]:
    """What the two views leave out of the input."""
    found = []
    for view in params.VIEWS:
        entry = store.manifest.stages.get(f"pairs:{item}:{view}")
        if entry is None or not store.has(f"pairs_{item}_{view}"):
            continue
        got, made = entry.params, entry.report.facts
        n_playlists, n_items = store.entry("playlists").rows, store.entry(f"{item}s").rows
        if view == "article":
            over = threshold(store, params.Pairs(**got))
            lists = (
                f"more than {got['min_tracks']} tracks, and {got['rows_low']} to {got['rows_high']} rows of these "
                f"{item}s"
            )
            items = f"more than {over:,} mentions"
        else:
            lists = "all playlists"
            items = (
                f"the {made.get('items', 0):,} most mentioned"
                if item == "artist"
                else f"in at least {got['min_playlists']} playlists"
            )
            items = "all" if made.get("items") == n_items else items
        if "playlists" in made:
            found.append(Kept(f"playlists, {view} view", made["playlists"], n_playlists, lists))
        if "items" in made:
            found.append(Kept(f"{item}s, {view} view", made["items"], n_items, items))
    return found


def rank_frequency(catalogue: Catalogue) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Ranks, from 1, and the mentions at them: some hundred points, evenly spread on a logarithmic axis."""
    by_rank = np.sort(catalogue.n_mentions)[::-1]
    by_rank = by_rank[by_rank > 0]
    if not len(by_rank):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    ranks = np.unique(np.round(np.geomspace(1, len(by_rank), RANKS)).astype(np.int64))
    return ranks, by_rank[ranks - 1]


@dataclass(frozen=True)
class Lengths:
    """A histogram: edges (bins + 1,), counts (bins,); n_longer: playlists beyond the last edge; longest: of all."""

    edges: NDArray[np.int64]
    counts: NDArray[np.int64]
    median: float
    n_longer: int
    longest: int


def lengths(store: Store) -> Lengths | Missing:
    """Entries a playlist."""
    if not store.has("playlists"):
        return missing(store, "playlists")
    entries = np.concatenate(
        [np.zeros(0, np.int64), *(values(part["n_entries"]) for part in store.parts("playlists", ["n_entries"]))]
    )
    if not len(entries):
        return Lengths(np.array([0, 1]), np.array([0]), 0.0, 0, 0)
    longest, most = int(entries.max()), int(np.quantile(entries, 0.995))
    width = max(1, -(-(most + 1) // BINS))
    edges = np.arange(0, most + 1 + width, width)
    counts = np.histogram(entries, edges)[0]
    inside = entries < edges[-1]
    return Lengths(edges, counts, float(np.median(entries)), int((~inside).sum()), longest)


@dataclass(frozen=True)
class Curve:
    """The losses of a training by epoch; NaN where one was not measured."""

    model: str
    epoch: NDArray[np.float64]
    train: NDArray[np.float64]
    valid: NDArray[np.float64]
    note: str


def curves(store: Store, item: str) -> dict[str, Curve | Missing]:
    """One a model, those that the store lacks with the command."""
    found: dict[str, Curve | Missing] = {}
    for model in params.MODELS:
        entry = store.manifest.stages.get(f"train:{item}:{model}")
        if entry is None or not entry.report.history:
            found[model] = missing(store, f"embeddings_{item}_{model}")
            continue
        columns = {
            name: np.array([_number(row.get(name)) for row in entry.report.history])
            for name in ("epoch", "train_loss", "valid_loss")
        }
        found[model] = Curve(
            model, columns["epoch"], columns["train_loss"], columns["valid_loss"], "; ".join(entry.report.notes)
        )
    return found


def _number(value: float | None) -> float:
    return np.nan if value is None else float(value)


@dataclass(frozen=True)
class Quality:
    """A recommender's row: of each metric of `QUALITY` mean, low and high; coverage."""

    method: str
    n: int
    means: list[tuple[float, float, float]]
    coverage: float


def quality(store: Store, item: str) -> list[Quality] | Missing:
    """The recommenders, best first by NDCG."""
    name = f"evaluation_{item}"
    if not store.has(name):
        return missing(store, name)
    of = {(row["method"], row["metric"]): row for row in store.table(name).to_pylist()}
    rows = []
    for method in sorted({method for method, _ in of}):
        cells = [of.get((method, metric), {}) for metric in QUALITY]
        means = [(_number(one.get("mean")), _number(one.get("low")), _number(one.get("high"))) for one in cells]
        covered = _number(of.get((method, "coverage@50"), {}).get("mean"))
        rows.append(Quality(method, int(cells[1].get("n", 0)), means, covered))
    return sorted(rows, key=lambda row: (-np.nan_to_num(row.means[1][0]), row.method))


@dataclass(frozen=True)
class Stage:
    """A finished stage; the shares are of the longest, and of the largest peak."""

    name: str
    seconds: float
    seconds_share: float
    peak_bytes: int
    peak_share: float
    rows: int
    notes: list[str]
    outdated: bool


def stages(store: Store) -> list[Stage]:
    """In the order in which they finished."""
    entries = sorted(store.manifest.stages.items(), key=lambda pair: pair[1].finished_at)
    longest = max((entry.report.seconds for _, entry in entries), default=0) or 1
    peak = max((entry.report.peak_bytes for _, entry in entries), default=0) or 1
    return [
        Stage(
            key.replace(":", " "), entry.report.seconds, entry.report.seconds / longest, entry.report.peak_bytes,
            entry.report.peak_bytes / peak, entry.report.rows, entry.report.notes[:5], store.manifest.is_outdated(key),
        )
        for key, entry in entries
    ]  # fmt: skip
