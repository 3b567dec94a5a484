"""Every table of a store: its columns, their types and units, its order. The store refuses a table that differs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa

STORE_FORMAT = 1
"""Raised whenever a table's columns or meaning change: a store of another format is refused, not guessed at."""

WEIGHT_BITS = 30
"""Weights are kept as integers of 2⁻³⁰, so that their sums are exact in any order."""


@dataclass(frozen=True)
class Column:
    """A column: its Arrow type (`vector`: a list of float32, equally long in all rows) and what it means."""

    name: str
    dtype: str
    meaning: str


@dataclass(frozen=True)
class Table:
    """A table: its columns, and those that its rows are in the order of."""

    columns: tuple[Column, ...]
    order: tuple[str, ...]

    def arrow(self) -> pa.Schema:
        """The table as a pyarrow schema."""
        import pyarrow as pa

        return pa.schema([pa.field(c.name, _arrow_type(c.dtype)) for c in self.columns])

    @property
    def names(self) -> list[str]:
        return [column.name for column in self.columns]


def _arrow_type(dtype: str) -> pa.DataType:
    import pyarrow as pa

    return pa.list_(pa.float32()) if dtype == "vector" else pa.type_for_alias(dtype)


def _table(order: str, *columns: tuple[str, str, str]) -> Table:
    return Table(tuple(Column(*column) for column in columns), tuple(order.split()))


PLAYLISTS = _table(
    "pid",
    ("pid", "int64", "the playlist's number in the input"),
    ("name", "string", "its title; null where the input has none"),
    ("num_tracks", "int64", "the field as it stands in the input"),
    ("n_entries", "int64", "how many entries were found"),
    ("n_followers", "int64", "null where the input has none"),
    ("modified_at", "int64", "Unix seconds; null where the input has none"),
    ("collaborative", "bool", "null where the input has none"),
)
ROWS = _table(
    "pid pos",
    ("pid", "int64", "the playlist"),
    ("pos", "int64", "the entry's place in the playlist"),
    ("artist", "int32", "code in `artists`"),
    ("track", "int32", "code in `tracks`"),
)
ARTISTS = _table(
    "artist",
    ("artist", "int32", "dense code, by falling n_mentions and then artist_id on a first ingest"),
    ("artist_id", "string", "the 22 characters behind spotify:artist:"),
    ("artist_name", "string", "its name in the entry of the lowest (pid, pos)"),
    ("n_mentions", "int64", "entries, every one counted"),
    ("n_playlists", "int64", "distinct playlists"),
)
TRACKS = _table(
    "track",
    ("track", "int32", "dense code, by falling n_mentions and then track_id on a first ingest"),
    ("track_id", "string", "the 22 characters behind spotify:track:"),
    ("track_name", "string", "its name in the entry of the lowest (pid, pos), as the three columns that follow"),
    ("artist", "int32", "code in `artists`"),
    ("album_id", "string", "the 22 characters behind spotify:album:; null where the input has none"),
    ("duration_ms", "int64", "milliseconds; null where the input has none"),
    ("n_mentions", "int64", "entries, every one counted"),
    ("n_playlists", "int64", "distinct playlists"),
)
_PAIR = (
    ("item1", "int32", "code, below item2"),
    ("item2", "int32", "code"),
    ("n_playlists", "int64", "playlists of the view that hold both"),
)
_PAIR_ITEM = (
    ("item", "int32", "code"),
    ("n_playlists", "int64", "playlists of the view that hold it"),
    ("pair_total", "int64", "sum of the counts of its pairs"),
)
_WEIGHTS = (
    ("weight", "int64", "sum over those playlists of 1/√n_u, in 2⁻³⁰; n_u: distinct items of the view in one"),
    ("idf_weight", "int64", "sum over those playlists of (ln N − ln(1 + n_u))², in 2⁻³⁰; N: items of the view"),
)
SIMILAR = _table(
    "item rank",
    ("item", "int32", "code"),
    ("rank", "int32", "from 1, best first; equal scores by the neighbour's id"),
    ("neighbour", "int32", "code"),
    ("score", "float64", "by the method"),
)

EMBEDDINGS = _table(
    "item",
    ("item", "int32", "code"),
    ("vector", "vector", "the item's vector"),
    ("bias", "float32", "the item's bias; null where the model has none"),
)
NEAR_DUPLICATES = _table(
    "pid",
    ("pid", "int64", "a playlist that nearly repeats an earlier one by its distinct artists"),
    ("of", "int64", "the first playlist by pid that it nearly repeats and that is no near-duplicate itself"),
    ("jaccard", "float64", "of the two sets of artists, above the limit"),
)


TITLES = _table(
    "title n_playlists item",
    ("title", "string", "a playlist's title in lower case, one blank between its words and signs"),
    ("item", "int32", "code"),
    ("n_playlists", "int64", "playlists of that title that hold it; most first, the best 500 of a title"),
)
EVALUATION = _table(
    "method metric",
    ("method", "string", "the recommender"),
    ("metric", "string", "the metric"),
    ("n", "int64", "test playlists for which it is defined"),
    ("mean", "float64", "over these playlists; of coverage the one value"),
    ("low", "float64", "of the bootstrap interval; null for coverage, as the five that follow"),
    ("high", "float64", "of the bootstrap interval"),
    ("difference", "float64", "the default recommender's mean on the same playlists less this one's"),
    ("difference_low", "float64", "of its bootstrap interval"),
    ("difference_high", "float64", "of its bootstrap interval"),
)
SCORES = _table(
    "method metric pid",
    ("method", "string", "the recommender"),
    ("metric", "string", "the metric"),
    ("pid", "int64", "the test playlist"),
    ("value", "float64", "of the playlist; NaN where it is not defined"),
)


def of(name: str) -> Table:
    """The schema of a table by its name, such as `rows` or `pairs_artist_full`. Raises `KeyError`."""
    plain = {"playlists": PLAYLISTS, "rows": ROWS, "artists": ARTISTS, "tracks": TRACKS}
    plain |= {"near_duplicates": NEAR_DUPLICATES, "test_playlists": PLAYLISTS, "test_rows": ROWS}
    if name in plain:
        return plain[name]
    family, _, rest = name.rpartition("_artist") if "_artist" in name else name.rpartition("_track")
    item = "artist" if "_artist" in name else "track"
    weights = _WEIGHTS if rest == "_full" else ()
    if family == "popular":
        return ARTISTS if item == "artist" else TRACKS
    if family == "pairs":
        return _table("item1 item2", *_PAIR, *weights)
    if family == "pair_items":
        return _table("item", *_PAIR_ITEM, *weights)
    if family == "similar":
        return SIMILAR
    if family == "titles":
        return TITLES
    if family == "evaluation":
        return SCORES if rest else EVALUATION
    if family == "embeddings":
        return EMBEDDINGS
    raise KeyError(name)
