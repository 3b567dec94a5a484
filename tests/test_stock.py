"""fastai without what it only names: everything is there when it is asked for."""

from __future__ import annotations

import subprocess
import sys

USE = """
import sys
from recsys_dask.training import stock
assert not {"sklearn", "matplotlib", "scipy.stats", "torch._dynamo"} & set(sys.modules)

from fastai import imports, metrics, torch_core
from fastai.data.transforms import TrainTestSplitter
train, valid = TrainTestSplitter(test_size=0.5, random_state=0)(list(range(10)))
assert sorted([*train, *valid]) == list(range(10))

import matplotlib, scipy.ndimage, scipy.stats, sklearn.metrics
matplotlib.use("agg")
import matplotlib.pyplot
assert imports.plt.figure is matplotlib.pyplot.figure and imports.ndimage.zoom is scipy.ndimage.zoom
assert metrics.skm.accuracy_score is sklearn.metrics.accuracy_score
assert metrics.scs.spearmanr is scipy.stats.spearmanr
figure, axes = torch_core.subplots(2, 2)
assert axes.shape == (2, 2) and isinstance(figure, matplotlib.pyplot.Figure)
"""

OFF_THE_MAIN_THREAD = """
import threading
def act():
    from recsys_dask.training import stock
one = threading.Thread(target=act)
one.start(); one.join()
import sys, sklearn.metrics
assert sys.modules["sklearn"].__file__ and sys.modules["matplotlib"].__file__
from fastai import metrics
assert metrics.skm is sklearn.metrics
"""

KERNELS_FIRST = """
from recsys_dask import sums
sums.warm()
import sys
assert "scipy.linalg" not in sys.modules
import numba, numpy as np
assert numba.njit(lambda a: np.linalg.inv(a))(2 * np.eye(2))[0, 0] == 0.5
assert sys.modules["scipy.linalg.cython_blas"].__file__
"""


def ran(code: str) -> None:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert not done.returncode, done.stderr


def test_fastai_gets_the_real_ones() -> None:
    ran(USE)


def test_in_another_thread_nothing_stands_in() -> None:
    ran(OFF_THE_MAIN_THREAD)


def test_numba_gets_the_real_linear_algebra() -> None:
    ran(KERNELS_FIRST)
