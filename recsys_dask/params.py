"""Every default, one frozen dataclass a stage. The command line and the Python functions are both made from these."""

from __future__ import annotations

import dataclasses
import difflib
import re
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any

from recsys_dask.errors import UsageError

ITEMS = ("artist", "track")
VIEWS = ("article", "full")


def measures() -> tuple[str, ...]:
    """The registered similarity measures: looked up when asked for, so that a new one needs no second entry."""
    from recsys_dask.cooccurrence.measures import MEASURES

    return tuple(MEASURES)


MODELS = ("mf", "mlp", "item2vec")
USUAL_MODELS = ("mf", "mlp")
"""What is trained unless others are asked for."""
PRESETS = ("default", "fast", "article")


FITTED = ("ease", "linear", "als", "blend")
"""Recommenders that `fit` makes."""


def methods() -> tuple[str, ...]:
    """Whatever has a table of similar items: the measures, the models and `linear`."""
    return (*measures(), *MODELS, "linear")


def recommenders() -> tuple[str, ...]:
    """Whatever recommends."""
    return ("popularity", *measures(), *FITTED[:-1], *MODELS, "blend")


def choices(rule: tuple[str, ...] | Callable[[], tuple[str, ...]]) -> tuple[str, ...]:
    """What a parameter may be, registered names looked up."""
    return rule() if callable(rule) else rule


def parameter(
    default: Any,
    help: str,
    *,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] | Callable[[], tuple[str, ...]] | None = None,
) -> Any:
    """A dataclass field with what the command line and the checks need to know of it."""
    return dataclasses.field(default=default, metadata={"help": help, "low": low, "high": high, "choices": choices})


@dataclasses.dataclass(frozen=True)
class Sample:
    """`sample`: generated slices."""

    playlists: int = parameter(1_000, "How many playlists to write.", low=1, high=10_000_000)
    seed: int = parameter(0, "The same seed writes the same bytes.", low=0)
    copies: float = parameter(0.0, "Share of playlists that nearly repeat another one.", low=0.0, high=0.99)


@dataclasses.dataclass(frozen=True)
class Ingest:
    """`ingest`: which files, and how they are read."""

    files: int | None = parameter(None, "Take only the first N files by name.", low=1)
    on_bad_file: str = parameter(
        "stop", "A file that cannot be read stops the run, or is set aside.", choices=("stop", "skip")
    )
    playlist_column: str | None = parameter(
        None, "Parquet, CSV: the column of playlists (default: playlist, pid, user or user_id)."
    )
    item_column: str | None = parameter(
        None, "Parquet, CSV: the column of items (default: item, artist, artist_id, item_id or track_id)."
    )
    name_column: str | None = parameter(
        None, "Parquet, CSV: the column of items' names (default: name, artist_name or item_name, if there)."
    )
    append: bool = parameter(False, "Add the slices that the store lacks; codes stay, counts are brought up to date.")


@dataclasses.dataclass(frozen=True)
class Counts:
    """`counts`: popular artists and tracks."""

    top: int = parameter(10_000, "How many popular artists (tracks) to keep, by mentions.", low=1)


@dataclasses.dataclass(frozen=True)
class NearDuplicates:
    """`near_duplicates`: playlists that nearly repeat an earlier one."""

    near_limit: float = parameter(
        0.5, "A near-duplicate's artists have a Jaccard above this with an earlier playlist's.", low=0.0, high=1.0
    )


@dataclasses.dataclass(frozen=True)
class Split:
    """The hold-out: which playlists are for testing."""

    test_share: float = parameter(0.2, "Share of the playlists that are for testing.", low=0.0, high=1.0)
    most_test: int = parameter(10_000, "Test playlists, at most.", low=1)
    split_seed: int = parameter(0, "Draws the test playlists and what of them is hidden.", low=0)
    keep_near_duplicates: bool = parameter(False, "Train and test on near-duplicate playlists too.")


@dataclasses.dataclass(frozen=True)
class Pairs:
    """`pairs`: the two views."""

    item: str = parameter("artist", "What is counted and compared.", choices=ITEMS)
    view: str | None = parameter(None, "Only this view of the pairs (default: both).", choices=VIEWS)
    mentions_over: int | None = parameter(
        None, "article view: items with more mentions than this (default: scaled to the input).", low=0
    )
    mentions_per_million: int = parameter(
        10_000, "article view: the threshold on mentions at a million playlists.", low=0
    )
    min_tracks: int = parameter(5, "article view: playlists whose num_tracks exceeds this.", low=0)
    rows_low: int = parameter(5, "article view: fewest rows left in a playlist.", low=0)
    rows_high: int = parameter(30, "article view: most rows left in a playlist.", low=0)
    min_playlists: int = parameter(5, "full view of tracks: in at least this many playlists.", low=1)


@dataclasses.dataclass(frozen=True)
class Similar:
    """`pairs`: the similarity tables."""

    item: str = parameter("artist", "What is compared.", choices=ITEMS)
    measure: str | None = parameter(None, "Only this measure's similarity table (default: all).", choices=measures)
    best: int = parameter(20, "How many similar items to keep an item.", low=1, high=1_000)
    score: str = parameter("normalised", "coco: by normalised count, or by raw count.", choices=("normalised", "count"))
    score_over: float = parameter(0.004, "coco by normalised count: scores above this.", low=0.0)
    count_over: int | None = parameter(
        None, "coco by raw count: counts above this (default: 1,000 per million playlists).", low=0
    )


@dataclasses.dataclass(frozen=True)
class Train:
    """`train`: the models. None: what the preset has."""

    item: str = parameter("artist", "What gets vectors.", choices=ITEMS)
    model: str | None = parameter(None, "Only this model (default: mf and mlp).", choices=MODELS)
    preset: str = parameter(
        "default",
        "default: the best vectors, from whole playlists of the full view; fast: sooner; article: fastai's "
        "collaborative filtering on rows and negatives of the article view.",
        choices=PRESETS,
    )
    epochs: int | None = parameter(None, "Passes over the playlists (default: by their number; article: 5).", low=1)
    factors: int | None = parameter(None, "Dimensions of the vectors (default: mf 50, mlp 128).", low=1, high=4_096)
    rate: float | None = parameter(None, "Highest learning rate of the one cycle.", low=0.0)
    decay: float | None = parameter(None, "Weight decay.", low=0.0)
    batch: int | None = parameter(None, "Playlists a batch (article: rows, 4,096).", low=1)
    valid: float | None = parameter(
        None, "Share that validates (default: one playlist in fifty, 2,000 at most; article: 0.2 of the rows).",
        low=0.0, high=0.9,
    )  # fmt: skip
    ratio: float = parameter(2.0, "article: negatives a positive.", low=0.0)
    train_rows_low: int = parameter(5, "article: fewest rows left in a playlist.", low=0)
    train_rows_high: int = parameter(40, "article: most rows left in a playlist.", low=0)
    early_stop: int | None = parameter(None, "Stop after so many epochs without a lower validation loss.", low=1)
    best_epoch: bool = parameter(False, "Keep the epoch of the lowest validation loss, not the last one.")
    seed: int = parameter(0, "The same seed gives the same vectors on the CPU.", low=0)
    device: str | None = parameter(None, "cpu or cuda (default: cuda where there is one).")
    train_on: str | None = parameter(
        None, "client or worker (default: a worker that offers the resource GPU, else the client).",
        choices=("client", "worker"),
    )  # fmt: skip
    resume: bool = parameter(False, "Insist on the checkpoint of an interrupted training: an error if it is unusable.")

    NOT_OF_THE_RESULT: typing.ClassVar = ("model", "device", "train_on", "resume")
    """What the vectors do not depend on, and what is in the step's name."""


@dataclasses.dataclass(frozen=True)
class Neighbours:
    """`neighbours`: the nearest items by a model's vectors."""

    item: str = parameter("artist", "What is compared.", choices=ITEMS)
    model: str | None = parameter(None, "Only this model (default: all that are trained).", choices=MODELS)
    best: int = parameter(20, "How many similar items to keep an item.", low=1, high=1_000)
    metric: str | None = parameter(
        None, "cosine, euclidean or dot (default: cosine; of the article's preset euclidean).",
        choices=("cosine", "euclidean", "dot"),
    )  # fmt: skip
    index: str = parameter(
        "auto", "auto: pynndescent above 5,000 items; exact: every pair is compared.",
        choices=("auto", "pynndescent", "exact"),
    )  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Models:
    """`run`: how far it goes."""

    models: str = parameter(
        "usual",
        "Which models to train: usual (mf and mlp), all, none or one.",
        choices=("usual", "all", "none", *MODELS),
    )
    recommender: str | None = parameter(
        None,
        "Which recommender to fit, or none (default: of artists blend, if mlp is trained).",
        choices=("none", *FITTED),
    )


@dataclasses.dataclass(frozen=True)
class Fit:
    """`fit`: recommenders in closed form, and the blend of them and mlp."""

    item: str = parameter("artist", "What is recommended.", choices=ITEMS)
    method: str = parameter("blend", "Which one; a blend's parts come before it.", choices=FITTED)
    best: int = parameter(20, "How many similar items to keep an item.", low=1, high=1_000)
    seed: int = parameter(0, "The same seed gives the same recommendations on the CPU.", low=0)
    device: str | None = parameter(None, "cpu or cuda (default: cuda where there is one).")


@dataclasses.dataclass(frozen=True)
class Recommend:
    """`recommend`: what is asked."""

    method: str = parameter("blend", "Which recommender.", choices=recommenders)
    item: str = parameter("artist", "What is recommended.", choices=ITEMS)
    k: int = parameter(100, "How many items to recommend.", low=1, high=10_000)
    only: str | None = parameter(None, "A file of ids, one a line: nothing else is recommended.")
    exclude: str | None = parameter(None, "A file of ids, one a line: these are not recommended.")
    challenge: bool = parameter(
        False, "--playlists: the form of the RecSys Challenge 2018, 500 tracks a playlist (with --item track)."
    )
    team: str = parameter("recsys_dask,nobody@example.org", "--challenge: name and address in the file's first line.")


@dataclasses.dataclass(frozen=True)
class Evaluate:
    """`evaluate`: held-out quality."""

    item: str = parameter("artist", "What is recommended.", choices=ITEMS)
    methods: str = parameter("all", "all, or some with commas between them.")
    hidden: str = parameter(
        "fifth",
        "What a test playlist hides: fifth, a random fifth of its distinct items; first:K or random:K, all but K.",
    )
    level: float = parameter(0.95, "Of the intervals.", low=0.5, high=0.999)


@dataclasses.dataclass(frozen=True)
class Vectors:
    """`embedding`: what is asked."""

    model: str | None = parameter(None, "Whose vectors (default: the first that is trained).", choices=MODELS)
    item: str = parameter("artist", "What is asked about.", choices=ITEMS)


@dataclasses.dataclass(frozen=True)
class Export:
    """`export`: which files."""

    item: str = parameter("artist", "What to export.", choices=ITEMS)
    parquet: bool = parameter(False, "Write pairs.parquet beside pairs.csv.")
    rows: bool = parameter(False, "Write the article's row table, playlist_1.csv … of 500,000 rows.")


@dataclasses.dataclass(frozen=True)
class Report:
    """`report`: what the page tells."""

    item: str = parameter("artist", "What it is about.", choices=ITEMS)
    model: str | None = parameter(None, "Whose vectors the map shows (default: the first trained).", choices=MODELS)
    searched: int = parameter(
        2_000, "How many of the most mentioned items the map and the search hold.", low=1, high=5_000
    )


@dataclasses.dataclass(frozen=True)
class Redo:
    """What is finished."""

    rebuild: bool = parameter(False, "Do all steps of this command again, finished or not.")


@dataclasses.dataclass(frozen=True)
class Lookup:
    """`similar`: what is asked."""

    method: str = parameter("cosine", "Whose similarity table to ask.", choices=methods)
    item: str = parameter("artist", "What is asked about.", choices=ITEMS)
    k: int = parameter(20, "How many similar items to list.", low=1)


@dataclasses.dataclass(frozen=True)
class Cluster:
    """Where the work is done: `LOCAL` fields shape a cluster of this machine, `REMOTE` ones name a running one."""

    scheduler: str | None = parameter(
        None, "A running Dask cluster, tcp://host:port or tls://host:port (default: Dask's configuration, else local)."
    )
    wait_s: float = parameter(60.0, "Seconds to wait for a first worker of a running cluster.", low=0.0)
    tls_ca_file: str | None = parameter(None, "tls://: the certificate (PEM) that signs the cluster's certificates.")
    tls_cert: str | None = parameter(None, "tls://: this client's certificate (PEM).")
    tls_key: str | None = parameter(None, "tls://: the key of --tls-cert (PEM).")
    workers: int | None = parameter(None, "Local worker processes (default: one a core).", low=1, high=1_024)
    threads: int | None = parameter(None, "Threads a local worker (default: 1).", low=1, high=1_024)
    memory_limit: str | None = parameter(
        None, "Memory a local worker may use, such as 2GB (default: its share of the machine)."
    )

    LOCAL: typing.ClassVar = ("workers", "threads", "memory_limit")
    REMOTE: typing.ClassVar = ("scheduler", "tls_ca_file", "tls_cert", "tls_key")

    def __post_init__(self) -> None:
        """Raises `UsageError` for options that contradict each other."""
        address, local, tls = self.scheduler, self.given(*self.LOCAL), self.given(*self.REMOTE[1:])
        if address is not None and not re.fullmatch(r"(tcp|tls)://[^/@]+:\d+/?", str(address)):
            raise UsageError("--scheduler is no address of a Dask scheduler: give tcp://host:port or tls://host:port")
        if local and (address or tls):
            raise UsageError(
                f"{', '.join(local)}: for a local cluster, not for a running one; leave out these or --scheduler"
            )
        if tls and len(tls) < 3:
            raise UsageError(f"{', '.join(tls)} alone: give --tls-ca-file, --tls-cert and --tls-key together")
        if tls and str(address or "tls").startswith("tcp"):
            raise UsageError(f"{', '.join(tls)}: certificates go with tls://, and --scheduler is {address}")

    def given(self, *names: str) -> list[str]:
        """Those of some options that are set, as the command line spells them."""
        return [spelled(name) for name in names if getattr(self, name) is not None]


def _types(cls: type) -> dict[str, tuple[type, ...]]:
    """Field name -> the types that its annotation admits, None's included."""
    hints = typing.get_type_hints(cls)
    return {
        name: typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,) for name, hint in hints.items()
    }


def spelled(name: str) -> str:
    """A parameter as the command line spells it."""
    return ("--" if len(name) > 1 else "-") + name.replace("_", "-")


def make(*classes: type, values: Mapping[str, Any]) -> list[Any]:
    """`values` dealt out to one instance of each class; a name that several classes have goes to each of them.

    Raises `UsageError` for a name that none of them has (with the near matches), a wrong type, and a value out of
    range.
    """
    known = {field.name for cls in classes for field in dataclasses.fields(cls)}
    for name in values:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=3)
            hint = f"did you mean {' or '.join(near)}?" if near else f"known are {', '.join(sorted(known)) or 'none'}"
            raise UsageError(f"unknown parameter {name}: {hint}")
    return [
        check(cls(**{f.name: values[f.name] for f in dataclasses.fields(cls) if f.name in values})) for cls in classes
    ]


def check(params: Any) -> Any:
    """`params` back, or a `UsageError` that names the parameter, its value and what it may be."""
    admitted = _types(type(params))
    for field in dataclasses.fields(params):
        name, value, rule = field.name, getattr(params, field.name), field.metadata
        kinds = admitted[name]
        fits = isinstance(value, kinds) or (float in kinds and isinstance(value, int))
        if not fits or (isinstance(value, bool) and bool not in kinds):
            wanted = " or ".join("none" if kind is types.NoneType else kind.__name__ for kind in kinds)
            raise UsageError(f"{spelled(name)} is {value!r}: give {wanted}")
        if value is None:
            continue
        if rule["choices"] and value not in (allowed := choices(rule["choices"])):
            near = difflib.get_close_matches(str(value), allowed, n=1)
            hint = f"did you mean {near[0]}? It" if near else "it"
            raise UsageError(f"{spelled(name)} is {value!r}: {hint} is one of {', '.join(allowed)}")
        low, high = rule["low"], rule["high"]
        if low is not None and not value >= low:
            raise UsageError(f"{spelled(name)} is {value}: give at least {low:,}")
        if high is not None and not value <= high:
            raise UsageError(f"{spelled(name)} is {value}: give at most {high:,}")
    return params
