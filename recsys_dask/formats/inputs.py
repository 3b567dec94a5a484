"""Which files an input names: a folder, a glob, a file or a list of them, local or at any fsspec URL."""

from __future__ import annotations

import gzip
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import IO, Any, cast

from recsys_dask.errors import InputError
from recsys_dask.store.files import filesystem
from recsys_dask.store.manifest import InputFile

ENDINGS = (".json", ".json.gz")

Input = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]


def find(source: Input, first: int | None = None) -> list[InputFile]:
    """The input's files sorted by path, the first `first` of them.

    A folder gives its own `*.json` and `*.json.gz`, not those of its subfolders. Raises `InputError` where there is
    nothing to read.
    """
    sources = [source] if isinstance(source, str | os.PathLike) else list(source)
    found: dict[str, InputFile] = {}
    for one in sources:
        for file in _find_one(os.fspath(one)):
            found[file.path] = file
    if not found:
        raise InputError("no input: name a folder, a glob or a file of playlists")
    return sorted(found.values())[:first]


def _find_one(source: str) -> Iterator[InputFile]:
    fs, path = filesystem(source)
    try:
        if any(sign in path for sign in "*?[") and not fs.exists(path):
            names = [name for name in fs.glob(path) if not fs.isdir(name)]
            if not names:
                raise InputError(f"{source}: no file matches; check the pattern")
        elif fs.isdir(path):
            names = [info["name"] for info in fs.ls(path, detail=True) if info["type"] == "file"]
            there = len(names)
            names = [name for name in names if name.endswith(ENDINGS)]
            if not names:
                what = f"{there} files, none of them *.json or *.json.gz" if there else "an empty folder"
                raise InputError(f"{source}: {what}; name the folder that holds mpd.slice.*.json")
        elif fs.exists(path):
            names = [path]
        else:
            raise InputError(f"{source}: no such file or folder; check the path")
        for name in names:
            info = fs.info(name)
            yield InputFile(_named(fs, name), int(info.get("size") or 0), _modified(info))
    except (OSError, ValueError) as error:
        raise InputError(f"{source}: cannot be read: {error}") from None


def _named(fs: Any, name: str) -> str:
    """Full path of a file: of a local one as the operating system knows it, else with its protocol."""
    return str(name) if "file" in fs.protocol else str(fs.unstrip_protocol(name))


def _modified(info: dict[str, Any]) -> str:
    """When a file was last changed, as exactly as its file system tells."""
    for key in ("mtime", "ETag", "etag", "LastModified", "last_modified", "updated"):
        if info.get(key):
            return str(info[key])
    return ""


@contextmanager
def open_plain(path: str) -> Iterator[IO[bytes]]:
    """An input file as a stream of plain bytes, unpacked where its name ends in .gz."""
    fs, place = filesystem(path)
    with fs.open(place, "rb") as raw:
        if path.endswith(".gz"):
            with gzip.open(raw, "rb") as unpacked:
                yield cast(IO[bytes], unpacked)
        else:
            yield raw
