"""A process's own memory, as the operating system counts it."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import resource
import sys


def peak_bytes() -> int:
    """The most this process has held at once since the last `forget_peak`, in bytes."""
    with contextlib.suppress(OSError), open("/proc/self/status", encoding="ascii") as status:
        for line in status:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def forget_peak() -> None:
    """Give back what is free and start measuring the peak anew (Linux; elsewhere it stays the whole process's).

    Memory that malloc or Arrow keeps for later would else be counted as the next stage's.
    """
    gc.collect(1)  # the oldest generation is what imports made: walking it takes longer than many a stage
    if "pyarrow" in sys.modules:
        sys.modules["pyarrow"].default_memory_pool().release_unused()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
    with contextlib.suppress(OSError), open("/proc/self/clear_refs", "w", encoding="ascii") as switch:
        switch.write("5")
