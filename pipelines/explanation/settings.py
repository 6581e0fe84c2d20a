"""Options of the methods: presets, defaults and checks.

Imports neither torch nor matplotlib, so that the command reports a mistake before it loads a network.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pipelines.runtime.errors import UserError

Prior = Literal["norm", "fourier"]
Attack = Literal["nearest", "published", "fgsm", "pgd"]
Fill = Literal["black", "mean"]

PRESETS = {"simonyan": {"scale": 1000.0, "lr": 0.33, "steps": 1000}}
PRIORS = ("norm", "fourier")
FILLS = ("black", "mean")
PUBLISHED_STRENGTH = 500_000 / 255  # published for pixels from 0 to 255, where the distance is 255 times as large
ATTACKS: dict[str, dict[str, Any]] = {  # the options that each attack takes, with their defaults
    "nearest": {"steps": 200, "lr": 0.01, "strength": 1.0, "confidence": 0.6},
    "published": {"steps": 200, "lr": 0.01, "strength": PUBLISHED_STRENGTH},
    "fgsm": {"budget": [0.03]},
    "pgd": {"steps": 20, "budget": [0.03]},
}


@dataclass(frozen=True)
class ImageSelection:
    """Which images to explain: named ones, or the first test images of each class.

    Attributes:
        image: Indices of the test set, or image files.
        images_per_class: Number of test images of each class, if `image` is empty; None means 1.
        invert: Whether to invert files, which are dark on light where the training images are light on dark.

    Raises:
        UserError: Both are given, or the number is below 1.
    """

    image: Sequence[str] = ()
    images_per_class: int | None = None
    invert: bool = False

    def __post_init__(self) -> None:
        if self.image and self.images_per_class is not None:
            raise UserError("--image and --images-per-class exclude each other")
        if self.images_per_class is not None and self.images_per_class < 1:
            raise UserError(f"--images-per-class {self.images_per_class}: must be 1 or more")

    @property
    def is_empty(self) -> bool:
        """Whether neither images nor a number of images is given."""
        return not self.image and self.images_per_class is None

    def params(self) -> dict[str, Any]:
        """Return the options as params of a run."""
        return {"image": list(self.image), "images_per_class": self.images_per_class, "invert": self.invert}


def check_source(
    run_id: str | None,
    *,
    checkpoint: Path | None = None,
    config: Path | None = None,
    backbone: str | None = None,
    weights: Path | None = None,
) -> None:
    """Raise a UserError unless exactly one network is named, to which configuration and weights belong."""
    if sum(map(bool, (run_id, checkpoint, backbone))) != 1:
        raise UserError("name one network: RUN_ID, --checkpoint FILE or --backbone NAME")
    if weights and not backbone:
        raise UserError("--weights needs --backbone; give a litlab checkpoint with --checkpoint FILE")
    if config and not checkpoint:
        raise UserError("-c needs --checkpoint; a run has its own configuration")


def check_units(classes: Sequence[str], layer: str | None, units: Sequence[str]) -> None:
    """Raise a UserError unless either classes or the units of a layer are named."""
    if classes and (layer or units):
        raise UserError("--class names the network's outputs; it cannot be combined with --layer and --unit")
    if units and not layer:
        raise UserError("--unit needs --layer; for classes use --class")


def maximise_settings(
    preset: str,
    prior: Prior,
    *,
    weight: float | None = None,
    scale: float | None = None,
    lr: float | None = None,
    steps: int | None = None,
    has_spectrum: bool = False,
) -> dict[str, Any]:
    """Return weight, scale, lr and steps, with the preset's values for those that are None.

    The weight stays None where it has to be measured: with the Fourier prior.

    Raises:
        UserError: A value is not positive, or spectrum images are given for another prior.
    """
    given = {"scale": scale, "lr": lr, "steps": steps}
    defaults = PRESETS[preset]
    settings: dict[str, Any] = {name: defaults[name] if value is None else value for name, value in given.items()}
    settings = {"weight": 1.0 if weight is None and prior == "norm" else weight, **settings}
    for name, value in settings.items():
        if value is not None and value <= 0:
            raise UserError(f"--{name} {value}: must be above 0")
    if has_spectrum and prior != "fourier":
        raise UserError("--spectrum needs --prior fourier")
    return settings


def attack_settings(method: Attack, **given: Any) -> dict[str, Any]:
    """Return the options of an attack, with defaults for those that are None.

    Args:
        method: One of ATTACKS.
        **given: `steps`, `lr`, `strength`, `confidence` and `budget`, which is a list.

    Raises:
        UserError: The attack does not take an option, or a value is out of range.
    """
    defaults = ATTACKS[method]
    given = {name: value for name, value in given.items() if value is not None}
    for name, value in given.items():
        if name not in defaults:
            raise UserError(f"--{name} does not apply to --method {method}, which takes --{', --'.join(defaults)}")
        if any(number <= 0 for number in (value if isinstance(value, list) else [value])):
            raise UserError(f"--{name} {value}: must be above 0")
    if given.get("confidence", 0) >= 1:
        raise UserError(f"--confidence {given['confidence']}: must be below 1")
    return defaults | given


def check_attack_targets(method: Attack, targets: Sequence[str], selection: ImageSelection, *, table: bool) -> None:
    """Raise a UserError unless an attack has targets, by name or by `table`, or can do without."""
    if table and (targets or not selection.is_empty):
        raise UserError("--table selects images and targets itself: omit --image, --images-per-class and --target")
    if not (table or targets or method in ("fgsm", "pgd")):
        raise UserError(f"--method {method} needs --target C, or --table")


def check_occlusion(block: int, stride: int, *, stroke: float | None = None, has_boxes: bool = False) -> None:
    """Raise a UserError unless the stride fits the block. Whether it fits into an image is checked with the network."""
    if block >= 1 and not 1 <= stride <= block:
        raise UserError(f"--stride {stride}: must be 1 to {block}, the size of the block")
    if has_boxes and stroke is not None:
        raise UserError("--stroke and --boxes exclude each other")
