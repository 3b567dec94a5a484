"""What a reader delivers: parts, each with codes of its own, that the ingest merges."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from recsys_dask.errors import Fault

if TYPE_CHECKING:
    import pyarrow as pa


class Part(NamedTuple):
    """Some whole playlists as four Arrow tables; artists and tracks go by their row in this part's own tables.

    files: the paths that the playlists came from
    playlists: as in the store, by pid, and `file` (int32), the place of its path in `files`
    rows: pid, pos, artist, track, by pid and pos
    artists: id, name, n_mentions, n_playlists, first_pid
    tracks: id, name, artist_id, album_id, duration_ms, n_mentions, n_playlists, first_pid
    The other attributes of an artist or track are those of its first entry by (pid, pos); `first_pid` is its pid.
    """

    files: tuple[str, ...]
    playlists: pa.Table
    rows: pa.Table
    artists: pa.Table
    tracks: pa.Table


Reader = Callable[[Sequence[str], int], Iterator[Part | Fault]]
"""`reader(paths, part_bytes)`: the playlists of some files, in parts of about `part_bytes` of input.

A file that is wrong is wrong as a whole and gives a `Fault`. Files that fit share a part; a larger one has parts of
its own, and if its fault comes after some of them, those are void.
"""
