"""Questions to a store: which item is meant, what is similar to it, and what the store holds."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from recsys_dask import params
from recsys_dask.arrow import bools, values, vectors
from recsys_dask.errors import UnknownItemError
from recsys_dask.store.tables import Store

if TYPE_CHECKING:
    import pyarrow as pa

MOST_CANDIDATES = 8


def one_line(name: str) -> str:
    """A name as one line of a terminal: control characters shown as escapes."""
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in name)


NEAR_AMONG = 20_000
"""A name that nobody has is compared with those of this many items, the most mentioned ones."""


class Vocabulary:
    """The ids and names of a store's artists or tracks, row = code."""

    def __init__(self, store: Store, item: str):
        self.item = item
        table = store.table(f"{item}s", [item, f"{item}_id", f"{item}_name", "n_mentions"]).sort_by(item)
        self.ids: pa.Array = table[f"{item}_id"].combine_chunks()
        self.names: pa.Array = table[f"{item}_name"].combine_chunks()
        self.n_mentions = values(table["n_mentions"])

    @cached_property
    def _folded(self) -> pa.Array:
        import pyarrow.compute as pc

        return pc.utf8_lower(self.names)

    def code(self, query: str) -> int:
        """The item that an id, a URI or a name stands for.

        A name is matched whole, then as a prefix, in either case. Raises `UnknownItemError` for none (with the
        nearest names) and for several (with the candidates).
        """
        import pyarrow.compute as pc

        query = query.encode(errors="replace").decode()  # an argument that is no UTF-8 is a name that nobody has
        bare = query.removeprefix(f"spotify:{self.item}:")
        by_id = pc.index(self.ids, bare).as_py()
        if by_id >= 0:
            return int(by_id)
        if bare != query:
            raise UnknownItemError(f"{query}: no such {self.item} in this store")
        folded = pc.utf8_lower(query).as_py()  # as the names were, whatever Python thinks of İ and Σ
        for found in (pc.equal(self._folded, folded), pc.starts_with(self._folded, folded)):
            codes = np.flatnonzero(found.to_numpy(zero_copy_only=False))
            if len(codes) == 1:
                return int(codes[0])
            if len(codes):
                raise UnknownItemError(
                    f"{query}: {len(codes)} {self.item}s go by that: {self._listed(codes)}; give the id"
                )
        raise UnknownItemError(f"{query}: no such {self.item} in this store{self._nearest(folded)}")

    def _listed(self, codes: Sequence[int] | Any) -> str:
        by_mentions = sorted((int(code) for code in codes), key=lambda code: -self.n_mentions[code])
        shown = [f"{self.ids[code]} ({one_line(self.names[code].as_py())})" for code in by_mentions[:MOST_CANDIDATES]]
        return ", ".join(shown) + (", …" if len(by_mentions) > MOST_CANDIDATES else "")

    def _nearest(self, folded: str) -> str:
        popular = np.argsort(-self.n_mentions, kind="stable")[:NEAR_AMONG]
        names: dict[str, int] = {}
        for code in popular.tolist():
            names.setdefault(self._folded[code].as_py(), code)
        near = difflib.get_close_matches(folded, names, n=3, cutoff=0.6)
        return f"; nearest are {self._listed([names[name] for name in near])}" if near else ""


def similar(store: Store, queries: Sequence[str], item: str, method: str, k: int) -> list[dict[str, Any]]:
    """The best `k` neighbours of each query, rows of query, rank, id, name, score."""
    vocabulary = Vocabulary(store, item)
    codes = [vocabulary.code(query) for query in queries]
    table = store.table(f"similar_{item}_{method}")
    seed = values(table["item"])
    rows = []
    for query, code in zip(queries, codes, strict=True):
        start, end = np.searchsorted(seed, [code, code + 1]).tolist()
        if start == end:
            name = one_line(vocabulary.names[code].as_py())
            raise UnknownItemError(
                f"{query}: {method} has no neighbours of {name}: too rare, or none above the threshold; another "
                "--method may"
            )
        for row in table.slice(start, min(k, end - start)).to_pylist():
            rows.append(
                {
                    "query": query,
                    "rank": row["rank"],
                    "id": vocabulary.ids[row["neighbour"]].as_py(),
                    "name": vocabulary.names[row["neighbour"]].as_py(),
                    "score": row["score"],
                }
            )
    return rows


def first_model(store: Store, item: str) -> str:
    """The first model that is trained, of none the first that may be."""
    return next((one for one in params.MODELS if store.has(f"embeddings_{item}_{one}")), params.MODELS[0])


def embedding(store: Store, queries: Sequence[str], item: str, model: str | None) -> NDArray[np.float32]:
    """The vectors of some items, float32 (queries, factors); model: None, the first that is trained."""
    model = model or first_model(store, item)
    vocabulary = Vocabulary(store, item)
    codes = [vocabulary.code(query) for query in queries]
    table = store.table(f"embeddings_{item}_{model}", ["item", "vector"])
    known = values(table["item"])
    places = np.searchsorted(known, codes)
    for query, code, place in zip(queries, codes, places, strict=True):
        if place == len(known) or known[place] != code:
            name = one_line(vocabulary.names[code].as_py())
            raise UnknownItemError(f"{query}: {model} has no vector of {name}: too rare for the view it is trained on")
    return vectors(table["vector"])[places]


def info(store: Store) -> dict[str, Any]:
    """What a store holds: its input, stages with parameters and times, tables with sizes, most frequent pairs."""
    manifest = store.manifest
    return {
        "store": store.folder.url,
        "format": manifest.format,
        "package": manifest.package,
        "input": {"files": len(manifest.inputs), "bytes": sum(file.bytes for file in manifest.inputs)},
        "set_aside": manifest.set_aside,
        "stages": {
            key: {
                "params": entry.params,
                "finished_at": entry.finished_at,
                "seconds": round(entry.report.seconds, 3),
                "peak_bytes": entry.report.peak_bytes,
                "notes": entry.report.notes,
                "history": entry.report.history,
            }
            for key, entry in sorted(manifest.stages.items(), key=lambda pair: pair[1].finished_at)
        },
        "tables": {
            name: {"rows": entry.rows, "bytes": entry.bytes, "files": len(entry.files)}
            for name, entry in sorted(manifest.tables.items())
        },
        "near_duplicates": near_duplicates(store),
        "frequent_pairs": {
            name: _frequent_pairs(store, name, name.split("_")[1])
            for name in manifest.tables
            if name.startswith("pairs_") and store.has(name)
        },
    }


def near_duplicates(store: Store) -> dict[str, Any] | None:
    """How many playlists nearly repeat an earlier one, and their share; None where that was not asked of these rows."""
    made = store.manifest.stages.get("near_duplicates")
    if made is None or store.manifest.is_outdated("near_duplicates"):
        return None
    facts = made.report.facts
    return {**facts, "share": facts["near_duplicates"] / max(facts["playlists"], 1)}


def _frequent_pairs(store: Store, name: str, item: str, top: int = 5) -> list[dict[str, Any]]:
    """The pairs of most playlists, read a file at a time."""
    best: list[tuple[int, int, int]] = []
    for part in store.parts(name, ["item1", "item2", "n_playlists"]):
        count = values(part["n_playlists"])
        rows = np.argsort(-count, kind="stable")[:top]
        best += [(-int(count[row]), part["item1"][int(row)].as_py(), part["item2"][int(row)].as_py()) for row in rows]
        best = sorted(best)[:top]
    names = _names(store, item, {code for _, one, other in best for code in (one, other)})
    return [{"n_playlists": -count, "items": [names[one], names[other]]} for count, one, other in best]


def _names(store: Store, item: str, codes: set[int]) -> dict[int, str]:

    found: dict[int, str] = {}
    for part in store.parts(f"{item}s", [item, f"{item}_name"]):
        part = part.filter(bools(np.isin(values(part[item]), list(codes))))
        found |= zip(part[item].to_pylist(), part[f"{item}_name"].to_pylist(), strict=True)
    return found
