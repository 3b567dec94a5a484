"""What a reader delivers: parts, each with codes of its own, that the ingest merges."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from recsys_dask.errors import Fault, UsageError

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
    strictly: by a format's strict reader, where it has a quicker one
    """

    files: tuple[str, ...]
    playlists: pa.Table
    rows: pa.Table
    artists: pa.Table
    tracks: pa.Table
    strictly: bool = False


Reader = Callable[[Sequence[str], int], Iterator[Part | Fault]]
"""`reader(paths, part_bytes)`: the playlists of some files, in parts of about `part_bytes` of input.

A file that is wrong is wrong as a whole and gives a `Fault`. Files that fit share a part; a larger one has parts of
its own, and if its fault comes after some of them, those are void.
"""


@dataclass(frozen=True)
class Format:
    """A kind of input, read by `read` of the module of formats that `name` names.

    endings: of its files' names, each with how many bytes of JSON slices one byte of such a file stands for
    whole: its files say something together only, and go to one task
    options: the parameters of an ingest that its reader takes
    """

    name: str
    what: str
    endings: Mapping[str, int]
    whole: bool = False
    options: tuple[str, ...] = ()

    def growth(self, path: str) -> int:
        """How many bytes of JSON slices one byte of a file stands for: its longest ending tells."""
        return self.endings[max((ending for ending in self.endings if path.endswith(ending)), key=len)]

    def settings(self, ingest: Any) -> dict[str, Any]:
        """What the reader is told of an ingest's parameters. Raises `UsageError` for those of another format."""
        for form in FORMATS:
            for name in form.options:
                if name not in self.options and getattr(ingest, name) is not None:
                    raise UsageError(
                        f"--{name.replace('_', '-')}: the input is {self.what}; this is for {form.what}, leave it out"
                    )
        return {name: getattr(ingest, name) for name in self.options}

    def reader(self, settings: Mapping[str, Any], spare_bytes: int) -> Reader:
        """The reader, which tasks take by its name; one of whole inputs is told what memory it may take."""
        read = importlib.import_module(f"recsys_dask.formats.{self.name}").read
        return partial(read, spare_bytes=spare_bytes, **settings) if self.whole else partial(read, **settings)


FORMATS = (
    Format("mpd", "JSON slices", {".json": 1, ".json.gz": 8}, options=("reader",)),
    Format(
        "interactions",
        "tables of playlists and items",
        {".parquet": 30, ".csv": 10, ".csv.gz": 40},
        whole=True,
        options=("playlist_column", "item_column", "name_column"),
    ),
)
"""The kinds of input, and which files are of them. Adding one is a module with `read` and an entry here."""
