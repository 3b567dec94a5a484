"""Folders and files anywhere fsspec reaches. A file appears whole under its final name, or not at all.

Who repeats what on S3: botocore a request that got 500, 502, 503, 504 or no connection, 4 times with growing waits
(AWS_MAX_ATTEMPTS and AWS_RETRY_MODE say otherwise); s3fs, above it, one without an answer for 15 s, a body that broke
off, and SlowDown, 5 times. Nothing here repeats anything on top: what still fails stops the run, which goes on from
there when it is started again.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from typing import IO, Any

import xxhash

from recsys_dask.credentials import keep_credentials, masked, options_for
from recsys_dask.errors import InputError, StoreError

BLOCK_BYTES = 1 << 24
"""Of a file that is written to an object store, what is held in memory: a larger one is uploaded in parts."""


Guard = Callable[[], contextlib.AbstractContextManager[None]]
"""Turns what goes wrong with a file that is being written into a `StoreError` that names it."""


class Checked:
    """A file being written, with the size and the checksum (XXH3, 128 bits) of what was written so far."""

    closed = False

    def __init__(self, file: IO[bytes], guard: Guard):
        self._file = file
        self._guard = guard
        self._hash = xxhash.xxh3_128()
        self.bytes = 0

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        self._hash.update(view)
        with self._guard():
            self._file.write(view)
        self.bytes += len(view)
        return len(view)

    def flush(self) -> None:
        """Nothing: a file counts when it is whole."""

    def close(self) -> None:
        """Nothing: who opened the file closes it."""

    @property
    def checksum(self) -> str:
        return self._hash.hexdigest()


def checksum(data: bytes | memoryview) -> str:
    """XXH3 of the bytes, 128 bits in hexadecimal: it finds what a disk or a network did to them, at memory speed."""
    return xxhash.xxh3_128_hexdigest(data)


# ----------------------------------------------------------------------------------------------------------- places

_EXTRAS = {"s3": "s3", "s3a": "s3"}
"""Protocols whose package an extra of ours brings."""

_LIBRARIES = ("botocore", "aiobotocore", "aiohttp", "gcsfs", "google", "azure", "adlfs", "paramiko", "requests")
"""Whose exceptions mean that a place did not answer as it should, though they are no `OSError`."""


def reason(error: BaseException) -> str:
    """Why a place cannot be read or written, in one line and without credentials."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    if type(error).__name__ in ("NoCredentialsError", "PartialCredentialsError"):
        text += "; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, on every worker"
    if text == "Forbidden":  # all that an answer without a body says
        text += ": wrong credentials, or without the rights for this"
    return masked(" ".join(text.split()))


@contextlib.contextmanager
def os_errors() -> Iterator[None]:
    """Errors of the libraries that reach a place become the `OSError` that a local file would give."""
    try:
        yield
    except Exception as error:
        if not isinstance(error, OSError) and type(error).__module__.partition(".")[0] in _LIBRARIES:
            raise OSError(reason(error)) from error
        raise


def filesystem(url: str) -> tuple[Any, str]:
    """The fsspec file system of a URL and the path in it.

    Credentials come from the environment or fsspec's own configuration on every machine, or from the URL; they are
    never part of a task. Nothing is cached of what a place lists, since others write there too. Raises `InputError`
    for a protocol that is unknown or whose package is missing.
    """
    import fsspec

    url = keep_credentials(url)
    try:
        fs, path = fsspec.core.url_to_fs(url, use_listings_cache=False, **options_for(url))
    except ImportError as error:
        extra = _EXTRAS.get(url.partition("://")[0])
        fix = f"pip install recsys-dask[{extra}]" if extra else str(error)
        raise InputError(f"{url}: its package is not installed: {fix}") from None
    except (ValueError, OSError) as error:
        raise InputError(f"{url}: {reason(error)}") from None
    return fs, path


def prefix(url: str, path: str) -> str | None:
    """What stands before a path of a file system in a URL: `s3://`, `sftp://host`; None where it cannot be told."""
    url, path = url.rstrip("/"), path.rstrip("/")
    return url[: len(url) - len(path)] if path and url.endswith(path) else None


_MAGIC = frozenset("*?[")
"""What fsspec takes for a pattern where it takes several paths."""


def checksum_of(folder: Folder, name: str) -> tuple[int, str]:
    """Length and checksum of a file, read a block at a time. Raises `OSError`."""
    found, n = xxhash.xxh3_128(), 0
    with folder.open(name) as file:
        while block := file.read(BLOCK_BYTES):
            found.update(block)
            n += len(block)
    return n, found.hexdigest()


@dataclass(frozen=True)
class Folder:
    """A place for files, named by its URL or path; picklable, so that a task can open the same place.

    `url` is without credentials, whatever it was made from.
    """

    url: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "url", keep_credentials(self.url))

    @cached_property
    def _place(self) -> tuple[Any, str]:
        return filesystem(self.url)

    def __reduce__(self) -> tuple[Any, ...]:
        # A worker's working folder may be another.
        return Folder, (self.path("") if self.is_local else self.url,)

    @property
    def fs(self) -> Any:
        return self._place[0]

    @cached_property
    def is_local(self) -> bool:
        from fsspec.implementations.local import LocalFileSystem

        return isinstance(self.fs, LocalFileSystem)

    def path(self, name: str) -> str:
        """The path of a file of this folder, within its file system."""
        return f"{self._place[1].rstrip('/')}/{name}" if name else self._place[1]

    def full(self, name: str) -> str:
        """The same with its protocol: what other libraries open."""
        path = self.path(name)
        if self.is_local:
            return path
        before = prefix(self.url, self._place[1])
        return str(self.fs.unstrip_protocol(path)) if before is None else before + path

    def exists(self, name: str = "") -> bool:
        with os_errors():
            return bool(self.fs.exists(self.path(name)))

    def read(self, name: str, start: int | None = None, end: int | None = None) -> bytes:
        """A whole file, or its bytes [start, end). Raises `OSError`, `FileNotFoundError` among them."""
        with os_errors():
            return bytes(self.fs.cat_file(self.path(name), start=start, end=end))

    @contextlib.contextmanager
    def open(self, name: str) -> Iterator[IO[bytes]]:
        with os_errors(), self.fs.open(self.path(name), "rb") as file:
            yield file

    def write(self, name: str, data: bytes | memoryview) -> None:
        """Put a whole file in place, over an earlier one of that name. Raises `StoreError` naming the file."""
        with self.writing(name) as file:
            file.write(data)

    @contextlib.contextmanager
    def writing(self, name: str) -> Iterator[Checked]:
        """A file to be written from front to back; it is in place when the block ends without an error.

        Locally a file of a unique temporary name is renamed. An object store shows an object only when it is whole:
        a small one is put at once, a larger one uploaded in parts that are given up on an error.
        """
        guard = partial(self._guarded, name)
        with guard():
            file, finish, give_up = _local(self.path(name)) if self.is_local else _remote(self.fs, self.path(name))
        checked = Checked(file, guard)
        try:
            yield checked
            with guard():
                finish()
        except BaseException:
            with contextlib.suppress(Exception):
                give_up()
            raise

    @contextlib.contextmanager
    def _guarded(self, name: str) -> Iterator[None]:
        try:
            with os_errors():
                yield
        except OSError as error:
            raise StoreError(
                f"{self.full(name)}: cannot be written: {reason(error)}; make room or get rights there, then run again"
            ) from None

    def names(self, under: str = "", depth: int | None = None) -> list[str]:
        """Every file below, `depth` folders deep, relative to this folder, sorted."""
        return sorted(self.sizes(under, depth))

    def sizes(self, under: str = "", depth: int | None = None) -> dict[str, int]:
        """The same with each file's bytes."""
        root = self.path("").rstrip("/")
        try:
            with os_errors():
                found = self.fs.find(self.path(under), maxdepth=depth, detail=True)
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise StoreError(f"{self.full(under)}: cannot be listed: {reason(error)}; get rights there") from None
        return {path[len(root) + 1 :]: int(info.get("size") or 0) for path, info in found.items()}

    def remove(self, *names: str) -> None:
        """Take files away; one that is gone already is no error. Raises `StoreError`."""
        try:
            with os_errors():
                if self.is_local or len(names) == 1 or not _MAGIC.isdisjoint(self.path("")):
                    for name in names:
                        with contextlib.suppress(FileNotFoundError):
                            self.fs.rm_file(self.path(name))
                elif names:
                    # One request takes away a thousand objects.
                    self.fs.rm([self.path(name) for name in names])
        except FileNotFoundError:
            for name in names:  # somewhere that one which is gone stops the others
                self.remove(name)
        except OSError as error:
            raise StoreError(f"{self.url}: {names[0]} cannot be removed: {reason(error)}; get rights there") from None

    def remove_empty_folders(self, under: str) -> None:
        """A local folder and those in it, as far as they are left without a file."""
        if self.is_local:
            for folder, _, _ in os.walk(self.path(under), topdown=False):
                with contextlib.suppress(OSError):
                    os.rmdir(folder)


Opened = tuple[IO[bytes], Callable[[], None], Callable[[], None]]
"""A file to write, how it comes into place, and how it goes away instead."""


def _local(path: str) -> Opened:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    temporary = f"{path}.{secrets.token_hex(6)}.tmp"
    file = open(temporary, "wb")  # noqa: SIM115 - closed by one of the two below

    def finish() -> None:
        file.close()
        os.replace(temporary, path)

    def give_up() -> None:
        with contextlib.suppress(OSError):
            file.close()  # a full disk fails here again
        os.unlink(temporary)

    return file, finish, give_up


def _remote(fs: Any, path: str) -> Opened:
    try:
        file = fs.open(path, "wb", block_size=BLOCK_BYTES)
    except NotImplementedError:
        raise OSError("this kind of place can only be read") from None

    def give_up() -> None:
        # An upload that is given up is never seen; one that cannot even be given up (no rights, no connection) is
        # not seen either, but takes room until the bucket's own rules for unfinished uploads clear it away.
        try:
            file.discard()
        finally:
            file.closed = True  # else the garbage collector would close it, that is, commit it

    return file, file.close, give_up
