"""A training's state in a store: tensors as safetensors, the rest as JSON, no pickle.

`checkpoint.json` is written last and names the tensors' file with its size and checksum, so that a reader finds the
state of one epoch whole, whenever the writer was stopped.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import recsys_dask
from recsys_dask.errors import StoreError
from recsys_dask.store.arrays import Block, write_blocks
from recsys_dask.store.files import Folder, checksum, os_errors, reason

if TYPE_CHECKING:
    import torch

NAME = "checkpoint.json"
FORMAT = 1


@dataclass(frozen=True)
class Found:
    """What a checkpoint holds. state: nested mappings and lists with tensors; history: one mapping an epoch."""

    state: dict[str, Any]
    history: list[dict[str, Any]]
    parameters: dict[str, Any]
    versions: dict[str, str]


@dataclass(frozen=True)
class Keeper:
    """Saves and loads the checkpoint of one model in one folder.

    model: its name; parameters: all that the training depends on, as JSON; fingerprint: of the items' vocabulary
    """

    folder: Folder
    model: str
    fingerprint: str
    parameters: Mapping[str, Any] = field(default_factory=dict)

    def save(self, state: Mapping[str, Any], history: Sequence[Mapping[str, Any]]) -> None:
        """Put the state after the last epoch of `history` in place of an earlier one. Raises `StoreError`."""
        tensors: dict[str, torch.Tensor] = {}
        packed = _pack(state, tensors, "")
        name = f"epoch-{len(history):04d}.safetensors"
        n_bytes, digest = _write_tensors(self.folder, name, tensors)
        page = {
            "format": FORMAT,
            "model": self.model,
            "fingerprint": self.fingerprint,
            "parameters": dict(self.parameters),
            "versions": versions(),
            "history": list(history),
            "state": packed,
            "tensors": {"name": name, "bytes": n_bytes, "xxh3_128": digest},
        }
        self.folder.write(NAME, json.dumps(page).encode())
        self.folder.remove(*(old for old in self.folder.names() if old.endswith(".safetensors") and old != name))

    def load(self) -> Found | None:
        """What is saved, on the CPU; None if nothing is. Raises `StoreError` for what cannot be gone on from."""
        page = self._page()
        if page is None:
            return None
        where = self.folder.full(NAME)
        wanted = {"model": self.model, "fingerprint": self.fingerprint, "parameters": _plain(self.parameters)}
        words = {"model": "of another model", "fingerprint": "of another vocabulary", "parameters": "made otherwise"}
        for key, value in wanted.items():
            if page[key] != value:
                differs = f": {_difference(page[key], value)}" if key != "fingerprint" else ""
                raise StoreError(f"{where}: a checkpoint {words[key]}{differs}; train again from the start")
        name = str(page["tensors"]["name"])
        try:
            data = self.folder.read(name)
        except OSError as error:
            raise StoreError(f"{self.folder.full(name)}: {reason(error)}; train again from the start") from None
        if len(data) != page["tensors"]["bytes"] or checksum(data) != page["tensors"]["xxh3_128"]:
            raise StoreError(
                f"{self.folder.full(name)}: {len(data):,} bytes, not the {page['tensors']['bytes']:,} written:"
                " truncated or altered; train again from the start"
            )
        from safetensors.torch import load

        return Found(_unpack(page["state"], load(data)), page["history"], page["parameters"], page["versions"])

    def _page(self) -> dict[str, Any] | None:
        where = self.folder.full(NAME)
        try:
            with os_errors():
                page = json.loads(self.folder.read(NAME))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StoreError(f"{where}: cannot be read: {reason(error)}") from None
        except ValueError:
            raise StoreError(f"{where}: is no JSON, truncated perhaps; train again from the start") from None
        needed = {"model", "fingerprint", "parameters", "history", "state", "tensors", "versions"}
        if not isinstance(page, dict) or page.get("format") != FORMAT or not needed <= page.keys():
            raise StoreError(f"{where}: is no checkpoint that this version reads; train again from the start")
        return page


def versions() -> dict[str, str]:
    """Of what made a checkpoint."""
    from importlib.metadata import version

    return {
        "recsys_dask": recsys_dask.__version__,
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "fastai", "safetensors")},
    }


def _plain(value: Any) -> Any:
    """As JSON gives it back."""
    return json.loads(json.dumps(value if not isinstance(value, Mapping) else dict(value)))


def _difference(found: Any, wanted: Any) -> str:
    if not isinstance(found, dict):
        return f"{found}, not {wanted}"
    keys = sorted(key for key in found.keys() | wanted.keys() if found.get(key) != wanted.get(key))
    return ", ".join(f"{key} {found.get(key)}, not {wanted.get(key)}" for key in keys)


def _pack(value: Any, tensors: dict[str, torch.Tensor], path: str) -> Any:
    """`value` as JSON, its tensors under their paths in `tensors`. A mapping's keys may be numbers."""
    import torch

    if isinstance(value, torch.Tensor):
        tensors[path] = value
        return {"tensor": path}
    if isinstance(value, Mapping):
        return {"mapping": [[key, _pack(one, tensors, f"{path}.{key}".lstrip("."))] for key, one in value.items()]}
    if isinstance(value, tuple):
        return {"tuple": [_pack(one, tensors, f"{path}.{at}") for at, one in enumerate(value)]}
    if (isinstance(value, Sequence) and not isinstance(value, str)) or type(value).__name__ == "L":  # fastai's list
        return [_pack(one, tensors, f"{path}.{at}") for at, one in enumerate(value)]
    if hasattr(value, "item"):  # a numpy number
        return value.item()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"{path}: a {type(value).__name__} cannot be saved")


def _unpack(value: Any, tensors: Mapping[str, torch.Tensor]) -> Any:
    if isinstance(value, list):
        return [_unpack(one, tensors) for one in value]
    if not isinstance(value, dict):
        return value
    if "tensor" in value:
        return tensors[value["tensor"]]
    if "tuple" in value:
        return tuple(_unpack(one, tensors) for one in value["tuple"])
    return {key: _unpack(one, tensors) for key, one in value["mapping"]}


def _write_tensors(folder: Folder, name: str, tensors: Mapping[str, torch.Tensor]) -> tuple[int, str]:
    """A safetensors file, a tensor at a time: the library's own `save` would hold all of it twice in memory."""
    blocks = {
        key: Block(str(one.dtype).removeprefix("torch."), one.shape, one.nbytes, partial(_bytes, one))
        for key, one in tensors.items()
    }
    file = write_blocks(folder, name, blocks, {})
    return file.bytes, file.checksum


def _bytes(tensor: torch.Tensor) -> Any:
    import torch

    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
