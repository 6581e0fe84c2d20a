"""Fit a scikit-learn estimator in a separate process, which signals can end: its C code does not react to them.

A file of its own, since the process imports it: it must not import torch.
"""

import multiprocessing
import signal
import time
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

Fitted = tuple[Any, float, list[str]]  # the estimator, the seconds that fitting took, the warnings of scikit-learn


def fit_in_subprocess(estimator: Any, inputs_ND: NDArray[np.float32], targets_N: NDArray[np.int64]) -> Fitted:
    """Fit an estimator of scikit-learn. Ctrl-C and SIGTERM end the work at once."""
    ignore_interrupt = (signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's
    with multiprocessing.get_context("spawn").Pool(1, signal.signal, ignore_interrupt) as pool:
        return pool.apply_async(_fit, (estimator, inputs_ND, targets_N)).get()  # leaving the pool ends the process


def _fit(estimator: Any, inputs_ND: NDArray[np.float32], targets_N: NDArray[np.int64]) -> Fitted:
    began = time.monotonic()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        estimator.fit(inputs_ND, targets_N)
    return estimator, time.monotonic() - began, [str(warning.message) for warning in caught]
