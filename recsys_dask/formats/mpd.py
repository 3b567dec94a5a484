"""Slices of the Million Playlist Dataset. The scanner reads them; what it finds odd, the strict reader decides on."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from typing import Literal, Protocol

from recsys_dask.errors import Fault
from recsys_dask.formats.base import Part
from recsys_dask.formats.strict import Strict
from recsys_dask.formats.texts import Text, Texts, Wrong


class Collector(Protocol):
    """Takes texts until they make a part; `bytes` is how much it holds."""

    bytes: int

    def add(self, text: Text, first: int) -> int | None:
        """How many playlists are taken from a text, before which its file had `first`; None if it is left to the
        next collector. Raises `Wrong`."""

    def parts(self, paths: Sequence[str]) -> Iterator[Part | Fault]:
        """What was taken, as a part (or several, or none); then it starts afresh."""


def read(
    paths: Sequence[str], part_bytes: int, reader: Literal["scanner", "strict"] | None = None
) -> Iterator[Part | Fault]:
    """A `Reader` as `formats.base` describes it. reader: "strict" leaves the scanner out."""
    collectors: list[Collector] = [Strict()]
    if reader != "strict":
        from recsys_dask.formats.scanner.columns import Scanner

        collectors.insert(0, Scanner())
    collecting = gc.isenabled()
    gc.disable()  # of the strict reader a slice is half a million objects, and not a cycle among them
    try:
        with Texts(paths, part_bytes) as texts:
            for file in range(len(paths)):
                try:
                    yield from _parts_of(texts.of(file), collectors, paths, part_bytes)
                except Wrong as wrong:
                    yield wrong.fault(paths)
        yield from _all_parts(collectors, paths)
    finally:
        if collecting:
            gc.enable()


def _parts_of(
    texts: Iterator[Text], collectors: Sequence[Collector], paths: Sequence[str], part_bytes: int
) -> Iterator[Part | Fault]:
    """What a file completes: the parts of a large one, or the one that it fills. Raises `Wrong`."""
    first = 0
    for text in texts:
        if not text.whole and not first:
            yield from _all_parts(collectors, paths)
        for one in collectors:
            n = one.add(text, first)
            if n is not None:
                first += n
                break
        if not text.whole or one.bytes >= part_bytes:
            yield from one.parts(paths)


def _all_parts(collectors: Sequence[Collector], paths: Sequence[str]) -> Iterator[Part | Fault]:
    for one in collectors:
        yield from one.parts(paths)
