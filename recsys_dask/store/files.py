"""Folders and files anywhere fsspec reaches. A file appears whole under its final name, or not at all."""

from __future__ import annotations

import contextlib
import io
import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import IO, Any

import xxhash

from recsys_dask.errors import InputError, StoreError


class Checked:
    """A file being written, with the size and the checksum (XXH3, 128 bits) of what was written so far."""

    closed = False

    def __init__(self, file: IO[bytes]):
        self._file = file
        self._hash = xxhash.xxh3_128()
        self.bytes = 0

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        self._hash.update(view)
        self._file.write(view)
        self.bytes += len(view)
        return len(view)

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        """Nothing: who opened the file closes it."""

    @property
    def checksum(self) -> str:
        return self._hash.hexdigest()


def checksum(data: bytes | memoryview) -> str:
    """XXH3 of the bytes, 128 bits in hexadecimal: it finds what a disk or a network did to them, at memory speed."""
    return xxhash.xxh3_128_hexdigest(data)


def filesystem(url: str) -> tuple[Any, str]:
    """The fsspec file system of a URL and the path in it.

    Credentials come from the environment or fsspec's own configuration on every machine: they are never part of a
    task. Raises `InputError` for a protocol that is unknown or whose package is missing.
    """
    import fsspec

    try:
        fs, path = fsspec.core.url_to_fs(url)
    except (ValueError, ImportError) as error:
        raise InputError(f"{url}: {error}") from None
    return fs, path


@dataclass(frozen=True)
class Folder:
    """A place for files, named by its URL or path; picklable, so that a task can open the same place."""

    url: str

    @cached_property
    def _place(self) -> tuple[Any, str]:
        return filesystem(self.url)

    def __reduce__(self) -> tuple[Any, ...]:
        return Folder, (self.url,)

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
        return self.path(name) if self.is_local else self.fs.unstrip_protocol(self.path(name))

    def exists(self, name: str = "") -> bool:
        self.fs.invalidate_cache()
        return bool(self.fs.exists(self.path(name)))

    def read(self, name: str) -> bytes:
        return bytes(self.fs.cat_file(self.path(name)))

    @contextlib.contextmanager
    def open(self, name: str) -> Iterator[IO[bytes]]:
        with self.fs.open(self.path(name), "rb") as file:
            yield file

    def write(self, name: str, data: bytes | memoryview) -> None:
        """Put a whole file in place, over an earlier one of that name. Raises `StoreError` naming the file."""
        with self.writing(name) as file:
            file.write(data)

    @contextlib.contextmanager
    def writing(self, name: str) -> Iterator[Checked]:
        """A file to be written from front to back; it is in place when the block ends without an error.

        Locally a file of a unique temporary name is renamed; an object store shows an object only when it is whole.
        """
        path = self.path(name)
        try:
            if self.is_local:
                os.makedirs(os.path.dirname(path), exist_ok=True)
                temporary = f"{path}.{secrets.token_hex(6)}.tmp"
                try:
                    with open(temporary, "wb") as file:
                        yield Checked(file)
                    os.replace(temporary, path)
                except BaseException:
                    with contextlib.suppress(OSError):
                        os.unlink(temporary)
                    raise
            else:
                buffer = io.BytesIO()
                yield Checked(buffer)
                self.fs.pipe_file(path, buffer.getvalue())
        except OSError as error:
            reason = error.strerror or str(error)
            raise StoreError(
                f"{self.full(name)}: cannot be written: {reason}; make room or get rights there, then run again"
            ) from None

    def names(self, under: str = "") -> list[str]:
        """Every file below, relative to this folder, sorted."""
        root = self.path("").rstrip("/")
        self.fs.invalidate_cache()
        try:
            found = self.fs.find(self.path(under))
        except FileNotFoundError:
            return []
        return sorted(path[len(root) + 1 :] for path in found)

    def remove(self, *names: str) -> None:
        """Take files away; one that is gone already is no error."""
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                self.fs.rm_file(self.path(name))

    def remove_empty_folders(self) -> None:
        """Local folders left without a file."""
        if self.is_local:
            for folder, _, _ in os.walk(self.path(""), topdown=False):
                with contextlib.suppress(OSError):
                    os.rmdir(folder)
