"""Data of the benchmark: MNIST, or noise in its format, and noise in place of CIFAR-10's images.

What a training costs does not depend on the pixels, and 60,000 image files would take a minute to write and decode.
"""

import struct
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from datamodules.base import ImageDataModule
from datamodules.cifar10 import CIFAR10
from datamodules.mnist import OFFICIAL_SHA256
from gpu_parts.place import Place
from pipelines.config.experiments import describe_experiment

PER_CLASS = {"train": 40, "test": 10}  # image files
MNIST_SIZES = {"train": 60_000, "t10k": 10_000}
DRY_SIZE = 300
CLASSES = 10
REAL = "source"  # link to the folder that the user gave


def prepare(folder: Path, source: Path, *, dry: bool) -> str:
    """Put the data into a folder; return what its MNIST is.

    Args:
        folder: New folder, which gets `MNIST/raw`, small images in the layout of CIFAR-10, and a link to the source.
        source: Folder that contains `MNIST/raw`, if there is one.
        dry: Whether to take few images instead.
    """
    _write_image_files(folder / "cifar10")
    (folder / REAL).symlink_to(source, target_is_directory=True)
    raw, original = folder / "MNIST" / "raw", source / "MNIST" / "raw"
    if not dry and all((original / name).is_file() for name in OFFICIAL_SHA256):
        raw.parent.mkdir()
        raw.symlink_to(original, target_is_directory=True)
        return "the original images"
    raw.mkdir(parents=True)
    for part, size in MNIST_SIZES.items():
        _write_idx(raw, part, size // 200 if dry else size)
    return "noise"


def _write_idx(raw: Path, part: str, size: int) -> None:
    numbers = np.random.default_rng(size)
    images = numbers.integers(0, 256, (size, 28, 28), dtype=np.uint8)
    labels = np.arange(size, dtype=np.uint8) % CLASSES
    (raw / f"{part}-images-idx3-ubyte").write_bytes(struct.pack(">4I", 0x803, *images.shape) + images.tobytes())
    (raw / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">2I", 0x801, size) + labels.tobytes())


def _write_image_files(folder: Path) -> None:
    numbers = np.random.default_rng(0)
    for split, count in PER_CLASS.items():
        for name in CIFAR10.classes:
            (folder / split / name).mkdir(parents=True, exist_ok=True)
            for index in range(count):
                pixels = numbers.integers(0, 256, (32, 32, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / split / name / f"{index:03}.png")


@final
class SyntheticImages(ImageDataModule):
    """Noise of CIFAR-10's shapes and sizes, a different mean brightness per class, so that there is something to learn.

    Args:
        n_val: Number of validation examples, taken from the training images.
        n_images: Number of training images; a fifth of it are test images.
        **options: See `ImageDataModule`.
    """

    input_shape = (3, 32, 32)
    classes = tuple("0123456789")

    def __init__(self, n_val: int = 5000, n_images: int = 50_000, **options: Any) -> None:
        super().__init__(n_val=n_val, **options)
        self._n_images = n_images

    def load(self, *, train: bool) -> tuple[Tensor, Tensor]:
        size = self._n_images if train else self._n_images // 5
        numbers = torch.Generator().manual_seed(int(train))
        labels_N = torch.arange(size) % CLASSES
        noise = torch.randint(0, 166, (size, *self.input_shape), dtype=torch.uint8, generator=numbers)
        return noise + (labels_N * 10).to(torch.uint8)[:, None, None, None], labels_N


def small_data(place: Place, experiment: str) -> list[str]:
    """Return the arguments of an experiment's own data module, on few images where it reads colour images."""
    source = describe_experiment(experiment)["data"]
    if source not in ("MNIST", "PairedDigits", "CIFAR10"):
        return []
    verify = [] if source == "CIFAR10" else ["--data.verify=false"]
    small = ["--data.n_val=100", "--data.batch_size=20"] if place.dry or source == "CIFAR10" else []
    return [f"--data.data_dir={place.data_dir}", *verify, *small]


def full_data(place: Place, experiment: str) -> list[str]:
    """Return the arguments of an experiment on as many images as its data set has; in a dry run, on few."""
    if describe_experiment(experiment)["data"] != "CIFAR10":
        return small_data(place, experiment)
    small = [f"--data.n_images={DRY_SIZE}", "--data.n_val=100"] if place.dry else []
    small += ["--data.batch_size=100"] if place.dry and experiment == "cifar-airbench" else []
    narrow = ["--model.width=8"] if place.dry and experiment == "cifar-resnet9" else []
    return [f"--data={__name__}.SyntheticImages", *small, *narrow]
