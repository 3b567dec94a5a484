"""Where compiled kernels lie: a file for each kernel and signature, behind its checksum, put in place whole.

numba's own cache has an index a kernel beside the code. One that is cut short ends every later process with an
`EOFError`, code that is damaged with a crash; and two processes that write at once can leave an index that names the
other's code. Here a file that is cut short, altered, unreadable or of something else counts as none: its kernel is
compiled anew and the file written again, by as many processes as may want to.

This module imports numba at its top, to extend its cache: import it inside functions.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import pickle
import re
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numba
from numba.core import dispatcher
from numba.core.caching import FunctionCache
from numba.core.serialize import dumps

DIGEST_BYTES = 16
_ADDRESS = re.compile(" at 0x[0-9a-f]+")


class KernelFiles:
    """The files of one kernel; what numba calls an `IndexDataCacheFile`, without an index."""

    def __init__(self, folder: str, base: str, source: Any):
        self._folder, self._base = Path(folder), base
        self._head = numba.__version__, source

    def _path(self, key: Any) -> Path:
        name = _ADDRESS.sub("", repr(key))  # of a function among the arguments
        return self._folder / f"{self._base}.{hashlib.blake2b(name.encode(), digest_size=8).hexdigest()}.nbc"

    def load(self, key: Any) -> Any:
        """What was saved for a signature and processor, or None."""
        try:
            kept = self._path(key).read_bytes()
        except OSError:
            return None
        if _digest(kept[DIGEST_BYTES:]) != kept[:DIGEST_BYTES]:
            return None
        head, of, data = pickle.loads(kept[DIGEST_BYTES:])
        return data if (head, of) == (self._head, key) else None

    def save(self, key: Any, data: Any) -> None:
        """Keep it; where that cannot be done, the next process compiles again."""
        path = self._path(key)
        part = path.with_name(f"{path.name}.{secrets.token_hex(6)}.tmp")
        text = dumps((self._head, key, data))
        try:
            part.write_bytes(_digest(text) + text)
            os.replace(part, path)
        except OSError:
            with contextlib.suppress(OSError):
                part.unlink()

    def flush(self) -> None:
        """Forget everything of this kernel."""
        for path in self._folder.glob(f"{self._base}.*.nbc"):
            path.unlink(missing_ok=True)


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=DIGEST_BYTES).digest()


class KernelCache(FunctionCache):
    """numba's cache of a function, in `KernelFiles`."""

    def __init__(self, function: Any):
        super().__init__(function)
        source = self._impl.locator.get_source_stamp()
        self._cache_file: Any = KernelFiles(self._cache_path, self._impl.filename_base, source)


@contextlib.contextmanager
def checksummed() -> Iterator[None]:
    """Within it, functions that ask numba for its cache (`cache=True`, `enable_caching`) get a `KernelCache`."""
    inside: Any = dispatcher
    usual = inside.FunctionCache
    inside.FunctionCache = KernelCache
    try:
        yield
    finally:
        inside.FunctionCache = usual
