"""recsys_dask: playlists in, popular artists, co-occurrence, similarities and recommendations out, on Dask."""

from __future__ import annotations

from typing import Any

__version__ = "0.1.0"

_PUBLIC = {
    "sample": "api",
    "run": "api",
    "plan": "api",
    "ingest": "api",
    "counts": "api",
    "near_duplicates": "api",
    "pairs": "api",
    "train": "api",
    "fit": "api",
    "neighbours": "api",
    "embedding": "api",
    "export": "api",
    "similar": "api",
    "recommend": "api",
    "evaluate": "api",
    "report": "api",
    "Recommender": "recommender",
    "check": "api",
    "info": "api",
    "Store": "store.tables",
    "read_playlists": "formats.lift",
    "RecsysDaskError": "errors",
    "UsageError": "errors",
    "InputError": "errors",
    "StoreError": "errors",
    "TooFewError": "errors",
    "ClusterError": "errors",
    "BudgetError": "errors",
    "TrainingError": "errors",
    "UnknownItemError": "errors",
}
__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> Any:
    """Public names are imported when first used: `import recsys_dask` stays instant."""
    import importlib

    if name in _PUBLIC:
        return getattr(importlib.import_module(f"recsys_dask.{_PUBLIC[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
