"""A process's own memory, as the operating system counts it."""

from __future__ import annotations

import contextlib
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
    """Start measuring the peak anew (Linux; elsewhere it stays that of the whole process)."""
    with contextlib.suppress(OSError), open("/proc/self/clear_refs", "w", encoding="ascii") as switch:
        switch.write("5")
