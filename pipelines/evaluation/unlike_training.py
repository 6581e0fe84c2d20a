"""Images that are unlike those of the training: a classifier is as sure of them as of any other."""

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from datamodules.base import ImageDataModule
from datamodules.statistics import brightness_and_contrast
from pipelines.runtime.errors import UserError
from pipelines.runtime.hooks import replace_hook
from pipelines.tracking.store import StoredRun

FAR = 5.0  # standard deviations of the training images
NEAR = 3.0
BLANK = 0.1  # of the mean contrast of the training images


class ImageCheck:
    """Compares brightness and contrast of the images that a data module predicts with those of a run's training.

    Args:
        data: Its batches are observed before they are normalised.
        run: The run; without statistics, as of earlier versions, nothing is unlike.
    """

    def __init__(self, data: ImageDataModule, run: StoredRun | None) -> None:
        self._statistics: dict[str, dict[str, float]] = {}
        if run is not None:
            with suppress(UserError, OSError, ValueError):
                self._statistics = json.loads(run.file("data.json").read_text()).get("images", {})
        self._seen: list[tuple[Tensor, Tensor]] = []
        if self._statistics:
            replace_hook(data, "on_after_batch_transfer", self._observe)

    def _observe(self, original: Callable[..., Any], batch: Sequence[Tensor], *args: Any) -> Any:
        self._seen.append(brightness_and_contrast(batch[0].cpu()))
        return original(batch, *args)

    def warning(self, images: Sequence[Path], *, invert: bool) -> str | None:
        """Return what to say of the images that are far outside of what was trained on; None if none is.

        Args:
            images: Their files, in the order of the batches.
            invert: Whether they were inverted.
        """
        if not self._seen:
            return None
        brightness_N, contrast_N = (torch.cat(column) for column in zip(*self._seen, strict=True))
        usual = self._statistics["contrast"]["mean"]
        far_N = (self._distance("brightness", brightness_N) > FAR) | (self._distance("contrast", contrast_N) > FAR)
        blank_N = (contrast_N < BLANK * usual) & (self._distance("contrast", contrast_N) > 2)
        unlike = (far_N | blank_N).nonzero().flatten().tolist()
        if not unlike:
            return None
        first = unlike[0]
        values = {"brightness": float(brightness_N[first]), "contrast": float(contrast_N[first])}
        numbers = " and ".join(f"{name} {value:.2f} ({self._range(name)})" for name, value in values.items())
        are = "image is" if len(images) == 1 else "images are"
        what = f"{len(unlike)} of {len(images)} {are} unlike those of the training: {images[first]} has {numbers}"
        inverted = float(self._distance("brightness", 1 - brightness_N[unlike]).median())
        if bool(blank_N[unlike].all()):
            return f"{what}: it is nearly blank"
        if inverted < NEAR:
            return f"{what}. They may be inverted: {'leave out' if invert else 'try'} --invert"
        return what

    def _distance(self, name: str, values_N: Tensor) -> Tensor:
        """Return the distance from the mean of the training images in standard deviations."""
        statistics = self._statistics[name]
        return (values_N - statistics["mean"]).abs() / max(statistics["sd"], 1e-3)

    def _range(self, name: str) -> str:
        return f"training: {self._statistics[name]['mean']:.2f} ± {self._statistics[name]['sd']:.2f}"
