"""Ids to codes over all parts: fixed-width keys, an open-addressing table, and the final order.

An id is held as `words` uint64, its bytes padded with zeros, so that a look-up compares integers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from recsys_dask.arrow import bools, read_only, text_buffers, values, whole
from recsys_dask.formats.copying import copy_bytes
from recsys_dask.kernels import kernel
from recsys_dask.store import tables
from recsys_dask.store.files import Folder

if TYPE_CHECKING:
    import pyarrow as pa

MISSING = -1


def words_for(ids: pa.Array | pa.ChunkedArray) -> int:
    """How many uint64 hold the longest of these ids."""
    offsets, _ = text_buffers(whole(ids))
    return max(1, -(-int(np.diff(offsets).max(initial=0)) // 8))


def keys(ids: pa.Array | pa.ChunkedArray, words: int) -> NDArray[np.uint64]:
    """Ids, an Arrow string array of n, as (n, words) uint64, zero-padded. No id may hold a NUL byte."""
    offsets, data = text_buffers(whole(ids))
    raw = np.zeros(len(ids) * words * 8, np.uint8)
    _pad(read_only(data), read_only(offsets), words * 8, raw)
    return raw.view(np.uint64).reshape(len(ids), words)


@kernel
def _pad(data, offsets, width, raw):  # type: ignore[no-untyped-def]
    for row in range(len(offsets) - 1):
        start = np.int64(offsets[row])
        copy_bytes(raw, row * width, data, start, offsets[row + 1] - start)


@kernel
def hashes(keys):  # type: ignore[no-untyped-def]
    """A 64-bit hash of each key: multiply and fold, the finaliser of MurmurHash3 at the end."""
    out = np.empty(len(keys), np.uint64)
    for row in range(len(keys)):
        h = np.uint64(0x9E3779B97F4A7C15)
        words = keys.shape[1]
        while words > 1 and keys[row, words - 1] == 0:  # padding: one part may pad wider than another
            words -= 1
        for word in range(words):
            h = (h ^ keys[row, word]) * np.uint64(0xFF51AFD7ED558CCD)
            h ^= h >> np.uint64(32)
        h *= np.uint64(0xC4CEB9FE1A85EC53)
        out[row] = h ^ (h >> np.uint64(29))
    return out


@kernel
def _place(slots, hashed):  # type: ignore[no-untyped-def]
    """Enter distinct keys, by their hashes and in their order, into an empty table."""
    mask = np.uint64(len(slots) - 1)
    for row in range(len(hashed)):
        at = hashed[row] & mask
        while slots[at] != 0:
            at = (at + np.uint64(1)) & mask
        slots[at] = row + 1


def grown(array: NDArray[Any], used: int, n: int) -> NDArray[Any]:
    """An array with room for n rows, and some more, so that growing is rare; its first `used` are kept."""
    if n <= len(array):
        return array
    larger = np.empty((max(n, int(len(array) * 1.5)), *array.shape[1:]), array.dtype)
    larger[:used] = array[:used]
    return larger


def _slots_for(slots: NDArray[np.int32], known: NDArray[np.uint64], n: int) -> NDArray[np.int32]:
    """A table that n keys fill to a half at most, with those in it that are known."""
    if 2 * n <= len(slots):
        return slots
    larger = np.zeros(1 << (2 * n).bit_length(), np.int32)
    _place(larger, hashes(known))
    return larger


@kernel
def _find(slots, known, n, keys, hashed, out, add):  # type: ignore[no-untyped-def]
    """The place of each key among the known ones, -1 where it is none, or a new place if `add`. Returns the new n."""
    mask = np.uint64(len(slots) - 1)
    for row in range(len(keys)):
        at = hashed[row] & mask
        out[row] = -1
        while slots[at] != 0:
            place = slots[at] - 1
            same = True
            for word in range(keys.shape[1]):
                if known[place, word] != keys[row, word]:
                    same = False
                    break
            if same:
                out[row] = place
                break
            at = (at + np.uint64(1)) & mask
        if out[row] < 0 and add:
            known[n] = keys[row]
            n += 1
            slots[at] = n
            out[row] = n - 1
    return n


class Index:
    """Distinct keys and their places, in the order in which they were added."""

    def __init__(self, words: int):
        self.n = 0
        self._known = np.empty((1 << 10, words), np.uint64)
        self._slots = np.zeros(1 << 12, np.int32)

    @property
    def keys(self) -> NDArray[np.uint64]:
        """(n, words) uint64, by place."""
        return self._known[: self.n]

    @property
    def words(self) -> int:
        return int(self._known.shape[1])

    def add(self, keys: NDArray[np.uint64]) -> NDArray[np.int32]:
        """Each key's place, int32; unknown ones get the next places."""
        need = self.n + len(keys)
        self._known = grown(self._known, self.n, need)
        self._slots = _slots_for(self._slots, self.keys, need)
        out = np.empty(len(keys), np.int32)
        self.n = _find(self._slots, self._known, self.n, keys, hashes(keys), out, True)
        return out

    def find(self, keys: NDArray[np.uint64]) -> NDArray[np.int32]:
        """Each key's place, int32; `MISSING` for unknown ones."""
        out = np.empty(len(keys), np.int32)
        _find(self._slots, self._known, self.n, keys, hashes(keys), out, False)
        return out


class Merger:
    """Distinct keys of many parts with what they add up to, and where each was first.

    A row is a key's words and then mentions, playlists, first pid, and the part and row it is from, so that an entry
    touches one or two cache lines.
    """

    def __init__(self, words: int, room: int = 1 << 10):
        """room: about how many keys there will be: growing takes as long as the rest."""
        self.n = 0
        self.words = words
        self._rows = np.empty((room, words + 4), np.uint64)
        self._slots = np.zeros(1 << (2 * room).bit_length(), np.int32)

    def add(
        self,
        keys: NDArray[np.uint64],
        part: int,
        mentions: NDArray[np.int64],
        playlists: NDArray[np.int64],
        pid: NDArray[np.int64],
    ) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """A part's distinct keys, (m, words), with their numbers, (m,). Returns each key's place, int32, and the rows
        that are the first of their keys as far as is known by now."""
        need = self.n + len(keys)
        self._rows = grown(self._rows, self.n, need)
        if 2 * need > len(self._slots):  # else the keys would be copied in vain
            self._slots = _slots_for(self._slots, self.keys, need)
        out, first = np.empty(len(keys), np.int32), np.empty(len(keys), np.bool_)
        numbers = read_only(mentions), read_only(playlists), read_only(pid)
        self.n = _merge(self._slots, self._rows, self.n, keys, hashes(keys), part, *numbers, out, first)
        return out, np.flatnonzero(first)

    @property
    def keys(self) -> NDArray[np.uint64]:
        """(n, words) uint64, by place."""
        return np.ascontiguousarray(self._rows[: self.n, : self.words])

    def numbers(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """By place, (n,) each: mentions, playlists, and the first entry, its part times 2³² and its row there."""
        mentions, playlists, _, first = self._rows[: self.n, self.words :].T.astype(np.int64)
        return mentions, playlists, first


@kernel
def _merge(slots, rows, n, keys, hashed, part, mentions, playlists, pid, out, first):  # type: ignore[no-untyped-def]
    """As `_find` with `add`, and every key's numbers added to its row. Returns the new n."""
    mask = np.uint64(len(slots) - 1)
    words = keys.shape[1]
    for row in range(len(keys)):
        at = hashed[row] & mask
        place = -1
        while slots[at] != 0:
            place = slots[at] - 1
            same = True
            for word in range(words):
                if rows[place, word] != keys[row, word]:
                    same = False
                    break
            if same:
                break
            place = -1
            at = (at + np.uint64(1)) & mask
        entry = np.uint64(part << 32 | row)
        first[row] = place < 0 or np.uint64(pid[row]) < rows[place, words + 2]
        if place < 0:
            place = n
            n += 1
            slots[at] = n
            for word in range(words):
                rows[place, word] = keys[row, word]
            rows[place, words] = mentions[row]
            rows[place, words + 1] = playlists[row]
            rows[place, words + 2] = pid[row]
            rows[place, words + 3] = entry
        else:
            rows[place, words] += np.uint64(mentions[row])
            rows[place, words + 1] += np.uint64(playlists[row])
            if first[row]:
                rows[place, words + 2] = pid[row]
                rows[place, words + 3] = entry
        out[row] = place
    return n


def bucket_of(keys: NDArray[np.uint64], n_buckets: int) -> NDArray[np.uint16]:
    """Which of `n_buckets` a key belongs to, by the upper half of its hash (places use the lower one)."""
    found = (hashes(keys) >> np.uint64(32)) % np.uint64(n_buckets)
    return found.astype(np.uint16)  # of 16 bits, numpy sorts fast


def order(keys: NDArray[np.uint64], n_mentions: NDArray[np.int64]) -> NDArray[np.int64]:
    """The rows by falling mentions, ties by the id's bytes.

    Sorting by the first four bytes does nearly all of it; only rows that agree in those are compared in full.
    """
    head = keys[:, 0].byteswap()  # as big-endian numbers, words compare like the bytes they hold
    by_id = np.argsort((head >> np.uint64(32)).astype(np.uint16), kind="stable")  # of 16 bits: a radix sort
    by_id = by_id[np.argsort((head >> np.uint64(48)).astype(np.uint16)[by_id], kind="stable")]
    first = (head >> np.uint64(32))[by_id]
    tied = np.flatnonzero(first[1:] == first[:-1])
    if len(tied):
        rows = np.union1d(tied, tied + 1)
        among = by_id[rows]
        by_id[rows] = among[np.lexsort(keys[among].byteswap().T[::-1])]
    most = np.iinfo(np.uint16).max
    mentions = n_mentions[by_id]
    by_mentions = np.argsort((most - np.minimum(mentions, most)).astype(np.uint16), kind="stable")
    many = by_mentions[: np.count_nonzero(mentions >= most)]
    many[:] = many[np.argsort(-mentions[many], kind="stable")]
    return by_id[by_mentions]


def index_of(keys: NDArray[np.uint64]) -> Index:
    """An index in which every key's place is its row."""
    index = Index(keys.shape[1])
    index.add(keys)
    return index


def string_order(ids: pa.Array | pa.ChunkedArray) -> NDArray[np.int32]:
    """The rank of each id among the sorted ids, int32: what ties are broken by."""
    n = len(ids)
    out = np.empty(n, np.int32)
    out[order(keys(ids, words_for(ids)), np.zeros(n, np.int64))] = np.arange(n, dtype=np.int32)
    return out


def rank_ids(folder: Folder, vocabulary: list[str], items: str, item: str) -> NDArray[np.int32]:
    """The task: the rank by id of each item of a table's column `item`, int32 (N,). vocabulary, items: files."""
    import pyarrow as pa

    codes = values(tables.read_file(folder, items, ["item"])["item"])
    wanted = []
    for path in vocabulary:
        table = tables.read_file(folder, path, [item, f"{item}_id"])
        wanted.append(table.filter(bools(np.isin(values(table[item]), codes))))
    found = pa.concat_tables(wanted).sort_by(item)
    return string_order(found[f"{item}_id"])


def warm() -> None:
    """Compile the kernels."""
    from recsys_dask.arrow import fixed

    known = Index(1)
    known.add(keys(fixed(np.ones((3_000, 1), np.uint8)), 1))  # as many as make it grow
    known.find(known.keys)
    ones = np.ones(known.n, np.int64)
    Merger(1).add(known.keys, 0, ones, ones, ones)
