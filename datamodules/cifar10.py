"""CIFAR-10: 50,000 + 10,000 colour photographs, 32x32, of ten classes (Krizhevsky, 2009)."""

import tarfile
import warnings
from collections.abc import Iterator
from http.client import HTTPException
from pathlib import Path
from typing import Any, Literal, final

import numpy as np
import torch
from torch import Tensor
from torchvision.datasets import CIFAR10 as TorchvisionCIFAR10
from torchvision.datasets.utils import check_integrity

from datamodules.base import ImageDataModule
from datamodules.decoded import decode
from datamodules.images import image_names

PARTS = ("train", "test")
SUFFIXES = (".png", ".jpg", ".jpeg")


@final
class CIFAR10(ImageDataModule):
    """CIFAR-10, from one of two layouts in `data_dir`, never from both.

    1. `cifar-10-batches-py/`: torchvision's official files, of which each one's MD5 is checked before it is unpickled.
       Where this folder exists, no other is looked at.
    2. `cifar10/{train,test}/<class>/*.{png,jpg,jpeg}`: images of 32x32, decoded once (see `datamodules.decoded`).

    Where there is neither, torchvision downloads the official files. The run's card says which were read.

    Args:
        data_dir: The folder that holds, or will hold, one of them.
        n_val: Number of validation examples, taken from the 50,000 training images.
        **options: Subset, batch size, normalisation and augmentation of `ImageDataModule`.
    """

    input_shape = (3, 32, 32)
    classes = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

    def __init__(self, data_dir: str = "data", n_val: int = 5000, **options: Any) -> None:
        super().__init__(n_val=n_val, **options)
        self.data_dir = Path(data_dir).expanduser()
        self._chosen: Literal["official", "folder"] | None = None

    @property
    def _official(self) -> Path:
        return self.data_dir / str(TorchvisionCIFAR10.base_folder)

    @property
    def _folder(self) -> Path:
        return self.data_dir / "cifar10"

    @property
    def files(self) -> Literal["official", "folder"] | None:
        """Which layout is read: once it has been, always the same, whatever is downloaded meanwhile."""
        if self._official.exists():
            return self._chosen or "official"
        return self._chosen or ("folder" if self._folder.exists() else None)

    def download(self) -> None:
        if self.files == "folder":
            _check_folders(self._folder, self.classes)  # both parts, before hours of training and not after
            return
        missing = [path for path, _ in _official_files(self._official) if not path.exists()]
        if not missing:
            return
        try:
            TorchvisionCIFAR10(str(self.data_dir), download=True)
        except (RuntimeError, OSError, HTTPException, tarfile.TarError) as error:  # the last of an evil archive
            reason = " ".join(str(error).split())  # of several lines
            raise FileNotFoundError(f"{self._nothing_there(missing[0])}; the download failed: {reason}") from error

    def _nothing_there(self, missing: Path) -> str:
        return (
            f"{missing}: no such file. Pass --data.data_dir FOLDER, the folder that holds {self._official.name} or "
            f"{self._folder.name}/{{train,test}}/CLASS/*.png (or .jpg)"
        )

    def load(self, *, train: bool) -> tuple[Tensor, Tensor]:
        self._chosen = self.files
        if self._chosen == "folder":
            return self._read_folder("train" if train else "test")
        return self._read_official(train=train)

    def _read_official(self, *, train: bool) -> tuple[Tensor, Tensor]:
        try:
            with warnings.catch_warnings(action="ignore", category=np.exceptions.VisibleDeprecationWarning):
                official = TorchvisionCIFAR10(str(self.data_dir), train=train)  # pickled by a NumPy of 2009
        except RuntimeError as error:  # a file is missing or has another MD5; nothing was unpickled from it
            raise self._complaint() from error
        return torch.from_numpy(official.data.transpose(0, 3, 1, 2)), torch.tensor(official.targets)

    def _complaint(self) -> Exception:
        for path, md5 in _official_files(self._official):
            if not path.exists():
                return FileNotFoundError(self._nothing_there(path))
            if not check_integrity(path, md5):
                return ValueError(f"{path}: damaged, or not the official file: its MD5 is not {md5}")
        raise AssertionError("torchvision refused files that are all in order")

    def _read_folder(self, part: str) -> tuple[Tensor, Tensor]:
        names = _check_folders(self._folder, self.classes)[part]
        pixels_NCHW = decode(self._folder / part, names, self.input_shape, resize=False)
        return pixels_NCHW, torch.tensor([self.classes.index(name.partition("/")[0]) for name in names])

    def card(self) -> dict[str, Any]:
        """What this data is, and in which files it was."""
        return {**super().card(), "files": self.files}


def _official_files(folder: Path) -> Iterator[tuple[Path, str]]:
    """Each of torchvision's files, and its MD5."""
    source = TorchvisionCIFAR10
    for name, md5 in [*source.train_list, *source.test_list, (source.meta["filename"], source.meta["md5"])]:
        yield folder / name, md5


def _check_folders(root: Path, classes: tuple[str, ...]) -> dict[str, list[str]]:
    """The images of the training and of the test folder, as paths from it: class first.

    Raises:
        ValueError: A part or a class is missing or empty, or a class is not one of the ten; the message names it.
    """
    images = {}
    for part in PARTS:
        folder = root / part
        if not folder.is_dir():
            raise ValueError(f"{folder}: no such folder, beside {root}")
        found = {path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")}
        if strange := sorted(found.symmetric_difference(classes)):
            raise ValueError(f"{folder / strange[0]}: {'not a class' if strange[0] in found else 'missing'}; {classes}")
        by_class = {name: image_names(folder / name, SUFFIXES) for name in classes}
        if empty := [name for name, names in by_class.items() if not names]:
            raise ValueError(f"{folder / empty[0]}: no images in it, neither .png nor .jpg")
        images[part] = [f"{name}/{image}" for name, names in by_class.items() for image in names]
    return images
