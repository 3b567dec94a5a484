"""Named arrays in one safetensors file: mapped where the store is local, so that opening reads nothing but the header.

(The library's own numpy functions copy every array, and map only local files.)
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from recsys_dask.errors import StoreError
from recsys_dask.store.files import Checked, Folder, reason
from recsys_dask.store.manifest import FileEntry, entry_of

_TYPES = {
    "float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16",
    "int64": "I64", "int32": "I32", "int16": "I16", "int8": "I8", "uint8": "U8", "bool": "BOOL",
}  # fmt: skip
_ARRAYS = {name: np.dtype(name) for name in ("float64", "int64", "float32", "int32", "uint8")}
"""What is read as arrays, and written from them."""

_DTYPES = {_TYPES[name]: dtype for name, dtype in _ARRAYS.items()}


class Block(NamedTuple):
    """An array to be written: its type as numpy names it, its shape and size, and what gives its bytes."""

    dtype: str
    shape: Sequence[int]
    n_bytes: int
    data: Callable[[], Any]


def write_blocks(folder: Folder, path: str, blocks: Mapping[str, Block], head: Mapping[str, Any]) -> Checked:
    """A safetensors file, a block at a time and in their order. head: what its header says beside the blocks."""
    header, end = dict(head), 0
    for name, one in blocks.items():
        header[name] = {
            "dtype": _TYPES[one.dtype],
            "shape": list(one.shape),
            "data_offsets": [end, end + one.n_bytes],
        }
        end += one.n_bytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with folder.writing(path) as file:
        file.write(len(text).to_bytes(8, "little"))
        file.write(text)
        for one in blocks.values():
            if one.n_bytes:
                file.write(one.data())
    return file


def write_arrays(folder: Folder, path: str, arrays: Mapping[str, NDArray[Any]], meta: Any) -> FileEntry:
    """Arrays of float64, int64, float32, int32 or uint8, and `meta`, plain data as JSON has it."""
    by_width = sorted(arrays, key=lambda name: -arrays[name].itemsize)  # every array begins at a multiple of its width
    blocks = {
        name: Block(
            _ARRAYS[arrays[name].dtype.name].name,
            arrays[name].shape,
            arrays[name].nbytes,
            partial(_bytes, arrays[name]),
        )
        for name in by_width
    }
    return entry_of(path, 0, write_blocks(folder, path, blocks, {"__metadata__": {"meta": json.dumps(meta)}}))


def _bytes(array: NDArray[Any]) -> Any:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def read_arrays(folder: Folder, path: str) -> tuple[dict[str, NDArray[Any]], Any]:
    """The arrays, read-only, and `meta`, None in a file of another writer.

    Raises `StoreError` for a file that is missing, cut short or none of these.
    """
    try:
        data: Any = (
            np.memmap(folder.path(path), np.uint8, "r")
            if folder.is_local
            else np.frombuffer(folder.read(path), np.uint8)
        )
        start = 8 + int.from_bytes(data[:8].tobytes(), "little")
        if start > len(data):
            raise ValueError(f"it ends after {len(data):,} bytes")
        header = json.loads(data[8:start].tobytes())
        meta = json.loads(header.pop("__metadata__", {}).get("meta", "null"))
        found = {}
        for name, one in header.items():
            low, high = one["data_offsets"]
            if not 0 <= low <= high <= len(data) - start:
                raise ValueError(f"it ends after {len(data):,} bytes, and {name} would be elsewhere")
            if one["dtype"] not in _DTYPES:
                raise ValueError(f"{name} is of type {one['dtype']}, not of {', '.join(_DTYPES)}")
            found[name] = data[start + low : start + high].view(_DTYPES[one["dtype"]]).reshape(one["shape"])
        return found, meta
    except OSError as error:
        why = reason(error)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        why = f"no whole file of arrays: {' '.join(str(error).split())}"
    raise StoreError(f"{folder.full(path)}: cannot be read ({why}); see: recsys-dask check {folder.url}")
