"""What a classifier predicted for each test example, as a small file of its run. Imports neither torch nor Lightning.

Shapes: N test examples in the order of the data, K classes.
"""

import hashlib
import io
import shlex
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.runtime.errors import UserError
from pipelines.runtime.files import write_atomically
from pipelines.tracking.store import StoredRun
from pipelines.tracking.uri import tracking_uri_arguments

FILE = "predictions.npz"
MAX_EXAMPLES = 1_000_000  # about 10 MB; the predictions of more are not kept
TARGETS, PREDICTED = ("labels", "targets", "target", "y"), ("preds", "predictions")  # names of a test step's outputs


@dataclass(frozen=True)
class Predictions:
    """The predictions of one test.

    Attributes:
        targets_N: True classes.
        predicted_N: Predicted classes.
        probabilities_N: Of the predicted class; NaN if it is not known.
        digest: SHA-256 of the test set; "" if the data module has none.
        classes: Their names, in the order of the labels; empty if unknown.
    """

    targets_N: NDArray[np.int64]
    predicted_N: NDArray[np.int64]
    probabilities_N: NDArray[np.float32]
    digest: str = ""
    classes: Sequence[str] = ()

    @property
    def right_N(self) -> NDArray[np.bool_]:
        """Whether each example is classified correctly."""
        right: NDArray[np.bool_] = self.predicted_N == self.targets_N
        return right

    @property
    def targets_digest(self) -> str:
        """SHA-256 of the true classes."""
        return hashlib.sha256(self.targets_N.astype(np.int64).tobytes()).hexdigest()

    def name(self, label: int) -> str:
        """Return the name of a class."""
        return self.classes[label] if 0 <= label < len(self.classes) else str(label)

    def save(self, folder: Path) -> None:
        """Write the file of a run."""
        content = io.BytesIO()
        n = len(self.targets_N)
        np.savez_compressed(
            content,
            index=np.arange(n, dtype=np.int32),
            target=self.targets_N.astype(np.int32),
            prediction=self.predicted_N.astype(np.int32),
            probability=self.probabilities_N.astype(np.float32),
            test_set=np.array(self.digest),
            classes=np.array(list(self.classes), dtype=np.str_),
        )
        write_atomically(folder / FILE, content.getvalue())

    @classmethod
    def read(cls, path: Path) -> "Predictions":
        """Read such a file.

        Raises:
            UserError: It is damaged.
        """
        try:
            with np.load(path, allow_pickle=False) as content:
                return cls(
                    content["target"].astype(np.int64),
                    content["prediction"].astype(np.int64),
                    content["probability"],
                    str(content["test_set"]),
                    [str(name) for name in content["classes"]],
                )
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise UserError(f"{path} is damaged: {error}") from error


def read_predictions(run: StoredRun) -> Predictions:
    """Read the predictions of a run.

    Raises:
        UserError: It has none; the message says how to get them.
    """
    try:
        path = run.file(FILE)
    except UserError as error:
        command = shlex.join(["litlab", "test", run.run_id, *tracking_uri_arguments(run.store.uri)])
        raise UserError(f"run {run.run_id} has no predictions of its test examples: {command} adds them") from error
    return Predictions.read(path)


def predictions_of(
    outputs: Mapping[str, NDArray[Any]], digest: str = "", classes: Sequence[str] = ()
) -> Predictions | None:
    """Return the predictions among a test step's outputs; None if they are not those of a classifier.

    Args:
        outputs: "labels" (or "targets") of shape (N,) with "logits" of shape (N, K) or "preds" of shape (N,).
        digest: See `Predictions`.
        classes: See `Predictions`.
    """
    targets = next((outputs[name] for name in TARGETS if name in outputs), None)
    if targets is None or targets.ndim != 1 or not np.issubdtype(targets.dtype, np.integer):
        return None
    targets_N, logits = targets.astype(np.int64), outputs.get("logits")
    if logits is not None and logits.ndim == 2 and logits.shape[1] > 1 and len(logits) == len(targets):
        shifted_NK = np.exp(logits - logits.max(1, keepdims=True))
        probabilities_N = (shifted_NK.max(1) / shifted_NK.sum(1)).astype(np.float32)
        return Predictions(targets_N, logits.argmax(1), probabilities_N, digest, classes)
    predicted = next((outputs[name] for name in PREDICTED if name in outputs), None)
    if predicted is None or predicted.shape != targets.shape or not np.issubdtype(predicted.dtype, np.integer):
        return None
    unknown_N = np.full(len(targets_N), np.nan, dtype=np.float32)
    return Predictions(targets_N, predicted.astype(np.int64), unknown_N, digest, classes)
