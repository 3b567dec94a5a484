"""Which files an input names: a folder, a glob, a file or a list of them, local or at any fsspec URL."""

from __future__ import annotations

import gzip
import io
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import IO, Any, cast

from recsys_dask.credentials import keep_credentials
from recsys_dask.errors import InputError
from recsys_dask.formats.base import FORMATS, Format
from recsys_dask.store.files import filesystem, os_errors, prefix, reason
from recsys_dask.store.manifest import InputFile

ENDINGS = tuple(ending for form in FORMATS for ending in form.endings)

READ_AHEAD_BYTES = 1 << 23

Input = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]


def find(source: Input, first: int | None = None) -> list[InputFile]:
    """The input's files sorted by path, the first `first` of them; all of one format.

    A folder gives its own files that end as those of a format do, not hidden ones and not those of its subfolders.
    Raises `InputError` where there is nothing to read, and for files of several formats.
    """
    sources = [source] if isinstance(source, str | os.PathLike) else list(source)
    found: dict[str, InputFile] = {}
    for one in sources:
        for file in _find_one(keep_credentials(os.fspath(one))):
            found[file.path] = file
    if not found:
        raise InputError("no input: name a folder, a glob or a file of playlists")
    files = sorted(found.values())[:first]
    format_of(files)
    return files


def by_number(file: InputFile) -> list[tuple[int, str]]:
    """A key that sorts files as people count, slice.999 before slice.1000: neighbours then hold neighbouring pids."""
    return [(int(piece), "") if piece.isdigit() else (-1, piece) for piece in re.split(r"([0-9]+)", file.path)]


def exists(path: str) -> bool:
    """Is this input file still there?"""
    fs, place = filesystem(path)
    return bool(fs.exists(place))


def format_of(files: Sequence[InputFile]) -> Format:
    """The format of an input, by how its files' names end. Raises `InputError` for an unknown one, and for several."""
    found: dict[str, tuple[Format, str]] = {}
    for file in files:
        form = next((form for form in FORMATS if file.path.endswith(tuple(form.endings))), None)
        if form is None:
            raise InputError(f"{file.path}: no known kind of file; those that are read end in {', '.join(ENDINGS)}")
        found.setdefault(form.name, (form, file.path))
    if len(found) > 1:
        examples = " and ".join(f"{form.what} ({path})" for form, path in found.values())
        raise InputError(f"the input has {examples}: name one kind, by a glob such as 'folder/*.json'")
    return next(iter(found.values()))[0]


def _find_one(source: str) -> Iterator[InputFile]:
    fs, path = filesystem(source)
    before = "" if "file" in fs.protocol else prefix(source, path)
    try:
        with os_errors():
            found = _listed(fs, path, source)
        for info in found:
            name = str(info["name"])
            # A local file goes by its full path, any other by its URL.
            full = fs.unstrip_protocol(name) if before is None else before + name
            yield InputFile(full, int(info.get("size") or 0), _modified(info))
    except (OSError, ValueError) as error:
        raise InputError(f"{source}: cannot be read: {reason(error)}; check the address and the rights there") from None


def _listed(fs: Any, path: str, source: str) -> list[dict[str, Any]]:
    """What fsspec says of each file that a path stands for. One listing mostly tells it all: no request a file."""
    if any(sign in path for sign in "*?[") and not fs.exists(path):
        matching = _files(fs, fs.glob(path, detail=True).values())
        if not matching:
            raise InputError(f"{source}: no file matches; check the pattern")
        return matching
    if fs.isdir(path):
        files = _files(fs, fs.ls(path, detail=True))
        fitting = [info for info in files if info["name"].endswith(ENDINGS) and not _hidden(info["name"])]
        if not fitting:
            wanted = ", ".join(f"*{ending}" for ending in ENDINGS)
            what = f"{len(files)} files, none of them {wanted}" if files else "an empty folder"
            raise InputError(f"{source}: {what}; name the folder that holds mpd.slice.*.json")
        return fitting
    try:
        info = fs.info(path)
    except FileNotFoundError as error:
        why = reason(error) if "bucket" in str(error) else "no such file or folder"
        raise InputError(f"{source}: {why}; check the path") from None
    return [info]


def _files(fs: Any, listed: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The files of a listing, each with its size: where the listing does not tell it (of a web server) or tells of a
    link only, it is asked for. A link to nothing counts as a file: reading it will say what is wrong."""
    files = []
    for info in listed:
        if info.get("islink") or (info["type"] == "file" and info.get("size") is None):
            try:
                info = fs.info(info["name"])
            except FileNotFoundError:
                info = {"name": info["name"], "type": "file"}
        if info["type"] == "file":
            files.append(info)
    return files


def _hidden(name: str) -> bool:
    return name.rpartition("/")[2].startswith(".")


def _modified(info: dict[str, Any]) -> str:
    """When a file was last changed, as exactly as its file system tells."""
    for key in ("mtime", "ETag", "etag", "LastModified", "Last-Modified", "last_modified", "updated"):
        if info.get(key):
            return str(info[key])
    return ""


def local_path(path: str) -> str | None:
    """Where an input file lies on this machine; None if it does not."""
    fs, place = filesystem(path)
    return str(place) if "file" in fs.protocol else None


@contextmanager
def open_plain(path: str, ahead: bool = False) -> Iterator[IO[bytes]]:
    """An input file as a stream of plain bytes, unpacked where its name ends in .gz.

    Of a remote file exactly what is asked for is fetched, and nothing of it kept: fsspec's own cache would hold a part
    twice, and 50 MB beyond it. ahead: for readers that ask for little at a time.
    """
    fs, place = filesystem(path)
    packed = path.endswith(".gz")
    with os_errors(), fs.open(place, "rb", cache_type="none") as raw:
        remote = "file" not in fs.protocol
        stream = io.BufferedReader(raw, READ_AHEAD_BYTES) if remote and (ahead or packed) else raw
        if packed:
            with gzip.open(stream, "rb") as unpacked:
                yield cast(IO[bytes], unpacked)
        else:
            yield stream
