"""Named arrays in one safetensors file: mapped where the store is local, so that opening reads nothing but the header.

(The library's own numpy functions copy every array, and map only local files.)
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys_dask.errors import StoreError
from recsys_dask.store.files import Folder, reason
from recsys_dask.store.manifest import FileEntry, entry_of

_TYPES = {"float64": "F64", "int64": "I64", "float32": "F32", "int32": "I32", "uint8": "U8"}
_DTYPES = {code: np.dtype(name) for name, code in _TYPES.items()}


def write_arrays(folder: Folder, path: str, arrays: Mapping[str, NDArray[Any]], meta: Any) -> FileEntry:
    """Arrays of float64, int64, float32, int32 or uint8, and `meta`, plain data as JSON has it."""
    by_width = sorted(arrays, key=lambda name: -arrays[name].itemsize)  # every array begins at a multiple of its width
    header: dict[str, Any] = {"__metadata__": {"meta": json.dumps(meta)}}
    end = 0
    for name in by_width:
        array = arrays[name]
        header[name] = {
            "dtype": _TYPES[array.dtype.name],
            "shape": list(array.shape),
            "data_offsets": [end, end + array.nbytes],
        }
        end += array.nbytes
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    with folder.writing(path) as file:
        file.write(len(head).to_bytes(8, "little"))
        file.write(head)
        for name in by_width:
            if arrays[name].size:
                file.write(np.ascontiguousarray(arrays[name]).reshape(-1).view(np.uint8).data)
    return entry_of(path, 0, file)


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
