"""What training takes from fastai, imported in half the time.

fastai's modules import all that its plots, metrics and splitters may ever call: matplotlib, scikit-learn, scipy.stats,
seconds of a training that calls none of them. While they are imported, stand-ins lie in those places; each imports the
real one when it is first asked for something. Afterwards nobody finds a stand-in: `import sklearn` is the real one.

This module imports torch and fastai at its top: import it inside functions.
"""

from __future__ import annotations

import contextlib
import importlib
import operator
import sys
import threading
import types
from collections.abc import Iterator
from typing import Any

NAMED = (
    "matplotlib",
    "matplotlib.pyplot",
    "scipy.ndimage",
    "scipy.stats",
    "sklearn",
    "sklearn.metrics",
    "sklearn.model_selection",
)
"""Modules of which fastai's own, as they are imported, do no more than take names."""


class _Name:
    """Something of a module that is not imported yet: it can be called, and names of its own be taken from it."""

    def __init__(self, module: str, name: str):
        self._module, self._name = module, name

    def __getattr__(self, name: str) -> _Name:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Name(self._module, f"{self._name}.{name}")

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return operator.attrgetter(self._name)(importlib.import_module(self._module))(*arguments, **named)


class _StandIn(types.ModuleType):
    """In a module's place: gives names while fastai is imported, and what the module has from then on."""

    waiting = True

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Name(self.__name__, name) if self.waiting else getattr(importlib.import_module(self.__name__), name)


@contextlib.contextmanager
def _stand_ins() -> Iterator[None]:
    """Stand-ins for what nobody imported yet. In the main thread only: in a worker others may import at this moment."""
    alone = threading.current_thread() is threading.main_thread()
    mine = {name: _StandIn(name) for name in NAMED if alone and name not in sys.modules}
    for name, module in mine.items():
        parent, _, last = name.rpartition(".")
        if parent in mine:
            setattr(mine[parent], last, module)
    sys.modules.update(mine)
    try:
        yield
    finally:
        for name, module in mine.items():
            module.waiting = False
            if sys.modules.get(name) is module:
                del sys.modules[name]


with _stand_ins():
    from fastai import optimizer
    from fastai.callback.core import Callback, CancelFitException
    from fastai.callback.schedule import Learner  # with fit_one_cycle and lr_find
    from fastai.collab import EmbeddingDotBias, EmbeddingNN
    from fastai.data.core import DataLoaders
    from fastai.layers import Embedding
    from fastai.optimizer import Adam, OptimWrapper
    from fastai.tabular.model import emb_sz_rule

__all__ = [
    "Adam", "Callback", "CancelFitException", "DataLoaders", "Embedding", "EmbeddingDotBias", "EmbeddingNN", "Learner",
    "OptimWrapper", "emb_sz_rule", "optimizer",
]  # fmt: skip
