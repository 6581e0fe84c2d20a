"""The methods of `litlab baseline` and their settings. Imports nothing heavy."""

import math
from collections.abc import Sequence
from typing import Any

from pipelines.runtime.errors import UserError

METHODS = {
    "svm-linear": "linear support vector machine (LinearSVC)",
    "svm-rbf": "support vector machine with radial basis functions (SVC)",
    "pca": "principal components, and the reconstruction from them (PCA)",
}


def check_method(method: str) -> None:
    """Raise UserError if there is no such method."""
    if method not in METHODS:
        raise UserError(f"{method!r} is not a baseline; choose from {', '.join(METHODS)}")


def settings_of(method: str, *, C: Sequence[float] = (1.0,), components: int = 2) -> list[dict[str, Any]]:
    """Return the settings to fit, each once; each becomes a run.

    Args:
        method: A key of METHODS.
        C: Inverse strengths of the regularisation, for a support vector machine.
        components: For PCA.

    Raises:
        UserError: There is no such method, or a value is out of range.
    """
    check_method(method)
    if method == "pca":
        return [{"components": components}]
    for value in C:
        if not 0 < value < math.inf:
            raise UserError(f"--C: {value:g} is not above 0")
    return [{"C": value} for value in dict.fromkeys(C)]


def setting_name(setting: dict[str, Any]) -> str:
    """Return a setting as the name of its run, such as "C=10"."""
    return " ".join(f"{key}={value:g}" for key, value in setting.items())
