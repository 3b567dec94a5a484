"""The distinct ids of a kind and their codes: an open-addressing table whose keys are three uint64.

An id is 22 bytes; they need not be a number in base 62 that 128 bits hold, so they are kept as they are.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from recsys_dask.formats.scanner.masks import load64
from recsys_dask.formats.texts import PAD
from recsys_dask.kernels import kernel

KEY, PID, POS, NAME, NAME_END, DURATION, ALBUM, ARTIST, N_COLUMNS = 0, 3, 4, 5, 6, 7, 8, 11, 12
"""The columns of `entries`, uint64 an id: its bytes; of its first entry by pid and pos, which gives the rest, these
two; the places of the name in `names`; and of a track its duration, the album's bytes and its artist's code."""

N, N_SLOTS, N_BYTES, N_UNDO = range(4)
"""In `sizes`: ids, slots in use of `slots`, bytes in use of `names`, rows in use of `undo`."""

_U = np.uint64
_LOW_32, _LOW_48 = _U(0xFFFFFFFF), _U(0xFFFFFFFFFFFF)
_A, _B, _C, _D = _U(0x9E3779B97F4A7C15), _U(0xC2B2AE3D27D4EB4F), _U(0x165667B19E3779F9), _U(0xD6E8FEB86659FD93)
_FIRST_SLOTS = 1 << 13


class Vocabulary(NamedTuple):
    """entries: (room, N_COLUMNS) uint64; names: UTF-8, end to end; slots: the upper half of a hash, and a code + 1 in
    the lower one, 0 where free; undo: rows of `entries` as they were before this scan, with their codes behind; sizes:
    int64, what of these is in use. There is room for what a scan may bring."""

    entries: NDArray[np.uint64]
    names: NDArray[np.uint8]
    slots: NDArray[np.uint64]
    undo: NDArray[np.uint64]
    sizes: NDArray[np.int64]


def new_vocabulary() -> Vocabulary:
    """One without ids, and without room."""
    return Vocabulary(
        np.empty((0, N_COLUMNS), np.uint64),
        np.empty(PAD, np.uint8),
        np.zeros(_FIRST_SLOTS, np.uint64),
        np.empty((0, N_COLUMNS + 1), np.uint64),
        np.array([0, _FIRST_SLOTS, 0, 0], np.int64),
    )


def with_room(known: Vocabulary, ids: int, text: int) -> Vocabulary:
    """The same with room for so many more ids, and bytes of their names. Memory that is not written to is not taken."""
    n, n_slots, n_bytes, _ = known.sizes.tolist()
    entries, names, slots, undo, sizes = known
    sizes[N_UNDO] = 0
    if n + ids > len(entries):
        entries = np.empty((2 * (n + ids), N_COLUMNS), np.uint64)
        entries[:n] = known.entries[:n]
    if n_bytes + text + PAD > len(names):
        names = np.empty(2 * (n_bytes + text) + PAD, np.uint8)
        names[:n_bytes] = known.names[:n_bytes]
    most = 1 << (2 * (n + ids)).bit_length()
    if most > len(slots):
        slots = np.empty(most, np.uint64)
        slots[:n_slots] = known.slots[:n_slots]
    if ids > len(undo):
        undo = np.empty((ids, N_COLUMNS + 1), np.uint64)
    return Vocabulary(entries, names, slots, undo, sizes)


@kernel(forceinline=True)
def third_word(b, at):  # type: ignore[no-untyped-def]
    """The last six bytes of the id at b[at], as a uint64."""
    return load64(b, at + 16) & _LOW_48


@kernel(forceinline=True)
def hash_of(first, second, third):  # type: ignore[no-untyped-def]
    """A 64-bit hash of an id's three words: multiply, fold, multiply."""
    h = (first * _A) ^ (second * _B) ^ (third * _C)
    h = (h ^ (h >> _U(29))) * _D
    return h ^ (h >> _U(32))


@kernel
def _enter_all(entries, slots, sizes):  # type: ignore[no-untyped-def]
    """Every id anew, into empty slots."""
    n_slots = sizes[N_SLOTS]
    slots[:n_slots] = _U(0)
    mask = _U(n_slots - 1)
    for code in range(sizes[N]):
        h = hash_of(entries[code, KEY], entries[code, KEY + 1], entries[code, KEY + 2])
        at = h & mask
        while slots[at] != _U(0):
            at = (at + _U(1)) & mask
        slots[at] = (h & ~_LOW_32) | _U(code + 1)


@kernel(forceinline=True)
def touch(entries, slots, sizes, h):  # type: ignore[no-untyped-def]
    """Fetch what `enter` will look at; a number, so that this is not left out."""
    slot = slots[h & _U(sizes[N_SLOTS] - 1)]
    if slot == _U(0):
        return slot
    return entries[np.int64(slot & _LOW_32) - 1, PID]


@kernel(forceinline=True)
def enter(entries, slots, sizes, b, at, h):  # type: ignore[no-untyped-def]
    """The code of the id at b[at], whose hash is h; an unknown one gets the next."""
    first, second, third = load64(b, at), load64(b, at + 8), third_word(b, at)
    mask = _U(sizes[N_SLOTS] - 1)
    tag = h & ~_LOW_32
    place = h & mask
    while slots[place] != _U(0):
        slot = slots[place]
        if slot & ~_LOW_32 == tag:
            code = np.int64(slot & _LOW_32) - 1
            if entries[code, KEY] == first and entries[code, KEY + 1] == second and entries[code, KEY + 2] == third:
                return code
        place = (place + _U(1)) & mask
    code = sizes[N]
    entries[code, KEY] = first
    entries[code, KEY + 1] = second
    entries[code, KEY + 2] = third
    slots[place] = tag | _U(code + 1)
    sizes[N] = code + 1
    if 2 * sizes[N] > sizes[N_SLOTS]:
        sizes[N_SLOTS] *= 2
        _enter_all(entries, slots, sizes)
    return code


@kernel
def keep(entries, undo, sizes, code):  # type: ignore[no-untyped-def]
    """Remember the row of an id before it is written over."""
    row = sizes[N_UNDO]
    undo[row, :N_COLUMNS] = entries[code]
    undo[row, N_COLUMNS] = _U(code)
    sizes[N_UNDO] = row + 1


@kernel
def take_back(entries, slots, undo, sizes, n, n_bytes):  # type: ignore[no-untyped-def]
    """Undo a scan before which there were n ids, and n_bytes of names."""
    for row in range(sizes[N_UNDO] - 1, -1, -1):
        entries[np.int64(undo[row, N_COLUMNS])] = undo[row, :N_COLUMNS]
    sizes[N] = n
    sizes[N_BYTES] = n_bytes
    sizes[N_UNDO] = 0
    _enter_all(entries, slots, sizes)
