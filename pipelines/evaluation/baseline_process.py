"""scikit-learn's long work in a process of its own: its C code hears no signal, but a process can be ended."""

import multiprocessing
import signal
import time
import warnings
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


class Fitted(NamedTuple):
    """A fitted estimator, the seconds that it took, and what scikit-learn warned of."""

    estimator: Any
    seconds: float
    warnings: list[str]


def fit(estimator: Any, inputs_ND: NDArray[np.float32], targets_N: NDArray[np.int64]) -> Fitted:
    """Fit an estimator of scikit-learn; Ctrl-C and SIGTERM end the work at once."""
    with multiprocessing.get_context("spawn").Pool(1, _leave_signals_to_parent) as pool:  # its end ends the process
        return pool.apply_async(_fit, (estimator, inputs_ND, targets_N)).get()


def _leave_signals_to_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _fit(estimator: Any, inputs_ND: NDArray[np.float32], targets_N: NDArray[np.int64]) -> Fitted:
    began = time.monotonic()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        estimator.fit(inputs_ND, targets_N)
    return Fitted(estimator, time.monotonic() - began, [str(warning.message) for warning in caught])
