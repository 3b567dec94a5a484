"""Reading a file past the page cache: one that is read once and lies on the disk only costs half of a core there.

To take a page for every 4 KB, to copy it and to give it up again for the next takes as long as to scan it. A file that
the cache has already is read from there.
"""

from __future__ import annotations

import contextlib
import errno
import os

import numpy as np
from numpy.typing import NDArray

BLOCK = 4096
"""What places in memory and file must be a multiple of."""

_PROBES = 8


def aligned(n: int) -> NDArray[np.uint8]:
    """Room for n bytes and a block, which starts where a block may."""
    raw = np.empty(n + 2 * BLOCK, np.uint8)
    return raw[-raw.ctypes.data % BLOCK :]


def read_past_the_cache(path: str, buffer: NDArray[np.uint8], most: int) -> int | None:
    """Read a local file of up to `most` bytes into an `aligned` buffer: its size. None, and nothing is known of the
    buffer, where that is not possible or not worth it. Raises `OSError`."""
    if not (hasattr(os, "O_DIRECT") and hasattr(os, "RWF_NOWAIT")):
        return None
    with contextlib.ExitStack() as opened:
        plain = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        opened.callback(os.close, plain)
        size = os.fstat(plain).st_size
        if not 0 < size <= most or _is_cached(plain, size):
            return None
        try:
            direct = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECT)
        except OSError:
            return None  # a file system that cannot
        opened.callback(os.close, direct)
        try:
            n = os.preadv(direct, [buffer.data[: -(-size // BLOCK) * BLOCK]], 0)
        except OSError as error:
            if error.errno == errno.EINVAL:
                return None  # one that asks for larger blocks
            raise
        return n if n == size else None


def _is_cached(file: int, size: int) -> bool:
    """Does the cache have this file, as far as some of its places tell? Also where the system does not say."""
    byte = bytearray(1)
    for place in range(_PROBES):
        try:
            os.preadv(file, [byte], place * (size - 1) // (_PROBES - 1), os.RWF_NOWAIT)
        except BlockingIOError:
            return False
        except OSError:
            return True
    return True
