"""The memory that the tasks of an ingest need, from what goes into them."""

from __future__ import annotations

from recsys_dask.runtime.budget import DECODE_EXPANSION

DISTINCT_MARGIN = 1.2
"""Above the estimated number of ids."""

MERGE_BYTES_PER_ID, RANK_BYTES_PER_ID, WRITE_BYTES_PER_ID = 450, 120, 400
"""Memory an id: of a bucket that is merged, its attributes and its places in all parts; of all ids while they are
ranked; of a partition of a vocabulary while it is put together and written. Measured with 2.3 million tracks in 1,000
slices: 420, 102, 340."""

APPEND_BYTES_PER_ID = 170
"""The same where the ids are ranked behind those of a store, which are looked up."""

CODE_BYTES_PER_ID, ARTIST_BYTES_PER_ID, PID_BYTES = 12, 110, 90
"""Of the codes that a worker holds while it recodes, and receives; of the index in which it finds tracks' artists; of a
playlist while pids are compared. Measured: 69 of the last."""

RECODE_BYTES_PER_ROW = 90
"""Measured: 75."""

MERGE_BASE_BYTES = 40_000_000
"""Row groups, metadata and what else does not grow with the input."""


def decode_bytes(group_bytes: int, part_bytes: int) -> int:
    """What a decoding task needs at most: a part, and the file that made it full. group_bytes: of the largest one."""
    return DECODE_EXPANSION * min(group_bytes, 2 * part_bytes)


def merge_bytes(ids: dict[str, int], n_buckets: int, rows: int, playlists: int, vocabulary_rows: int) -> int:
    """What the largest task behind decoding needs: `ids` a kind, a final partition of `rows` rows, one of a
    vocabulary of `vocabulary_rows`."""
    merging = ids["tracks"] // n_buckets * MERGE_BYTES_PER_ID
    ranking = ids["tracks"] * RANK_BYTES_PER_ID
    writing = min(ids["tracks"], vocabulary_rows) * WRITE_BYTES_PER_ID
    last = sum(ids.values()) * CODE_BYTES_PER_ID + ids["artists"] * ARTIST_BYTES_PER_ID
    last += max(writing, rows * RECODE_BYTES_PER_ROW)
    return max(playlists * PID_BYTES, merging, ranking, last) + MERGE_BASE_BYTES


def append_bytes(ids: dict[str, int]) -> int:
    """What ranking needs where ids are ranked behind those of a store."""
    return ids["tracks"] * APPEND_BYTES_PER_ID + MERGE_BASE_BYTES
