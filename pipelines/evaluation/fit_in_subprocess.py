"""Fit a scikit-learn estimator in a process of its own, which signals can end: its C code does not react to them.

A file of its own, since the process imports it: it must not import torch.
"""

import multiprocessing
import signal
import time
import warnings
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


class FittedEstimator(NamedTuple):
    """A fitted estimator, the seconds that fitting took, and the warnings of scikit-learn."""

    estimator: Any
    seconds: float
    warnings: list[str]


def fit_in_subprocess(estimator: Any, inputs_ND: NDArray[np.float32], targets_N: NDArray[np.int64]) -> FittedEstimator:
    """Fit an estimator of scikit-learn. Ctrl-C and SIGTERM end the work at once."""
    with multiprocessing.get_context("spawn").Pool(1, _ignore_interrupt) as pool:  # leaving it ends the process
        return pool.apply_async(_fit, (estimator, inputs_ND, targets_N)).get()


def _ignore_interrupt() -> None:
    """Leave Ctrl-C to the parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _fit(estimator: Any, inputs_ND: NDArray[np.float32], targets_N: NDArray[np.int64]) -> FittedEstimator:
    began = time.monotonic()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        estimator.fit(inputs_ND, targets_N)
    return FittedEstimator(estimator, time.monotonic() - began, [str(warning.message) for warning in caught])
