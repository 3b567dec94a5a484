"""A fitted recommender as named arrays and plain data, and back."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys_dask.models.als import Als
from recsys_dask.models.base import Scorer
from recsys_dask.models.blend import Blend
from recsys_dask.models.folded import FoldedMean, FoldedMF, MeanOfUnits
from recsys_dask.models.itemknn import ItemKnn
from recsys_dask.models.linear import Kernels, Weights
from recsys_dask.models.popularity import Popularity, Random

KINDS: dict[str, Any] = {
    kind.__name__: kind
    for kind in (Als, Blend, FoldedMF, FoldedMean, ItemKnn, Kernels, MeanOfUnits, Popularity, Random, Weights)
}


def pack(scorer: Scorer) -> tuple[dict[str, NDArray[Any]], Any]:
    """Arrays by name, and the rest as JSON has it."""
    arrays: dict[str, NDArray[Any]] = {}
    return arrays, _packed(scorer, arrays, "")


def _packed(value: Any, arrays: dict[str, NDArray[Any]], name: str) -> Any:
    if isinstance(value, np.ndarray):
        arrays[name] = value
        return {"array": name}
    if isinstance(value, tuple):
        return [_packed(one, arrays, f"{name}.{at}") for at, one in enumerate(value)]
    if type(value).__name__ in KINDS:
        fields = {
            field.name: _packed(getattr(value, field.name), arrays, f"{name}.{field.name}".lstrip("."))
            for field in dataclasses.fields(value)
        }
        return {"kind": type(value).__name__, "fields": fields}
    return value


def unpack(arrays: Mapping[str, NDArray[Any]], tree: Any) -> Any:
    """What `pack` was given. Raises `KeyError` for what it never gives."""
    if isinstance(tree, list):
        return tuple(unpack(arrays, one) for one in tree)
    if not isinstance(tree, dict):
        return tree
    if "array" in tree:
        return arrays[tree["array"]]
    return KINDS[tree["kind"]](**{name: unpack(arrays, one) for name, one in tree["fields"].items()})
