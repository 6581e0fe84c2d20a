"""CIFAR-10: 50,000 + 10,000 colour images of 32x32 pixels in ten classes (Krizhevsky, 2009)."""

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
from torchvision.datasets.utils import check_integrity, download_url

from datamodules.base import ImageDataModule
from datamodules.downloads import no_empty_folders
from datamodules.image_cache import DECODER_VERSION, load_images
from datamodules.images import image_names
from datamodules.paths import no_such

SPLITS = ("train", "test")
SUFFIXES = (".png", ".jpg", ".jpeg")


@final
class CIFAR10(ImageDataModule):
    """CIFAR-10 from one of two layouts in `data_dir`, never from both.

    1. `cifar-10-batches-py/`: torchvision's official files. The MD5 of each file is checked before it is unpickled.
       If this folder exists, the other layout is ignored.
    2. `cifar10/{train,test}/<class>/*.{png,jpg,jpeg}`: images of 32x32, decoded once (see `datamodules.image_cache`).

    If neither exists, torchvision downloads the official files. `describe` reports which layout was read.

    Args:
        data_dir: Folder that contains one of the layouts, or into which the official files are downloaded.
        n_val: Number of validation examples, taken from the 50,000 training images.
        **options: Subset, batch size, normalisation and augmentation, see `ImageDataModule`.
    """

    input_shape = (3, 32, 32)
    classes = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

    def __init__(self, data_dir: str = "data", n_val: int = 5000, **options: Any) -> None:
        super().__init__(n_val=n_val, **options)
        self.data_dir = Path(data_dir).expanduser()
        self._official_folder = self.data_dir / str(TorchvisionCIFAR10.base_folder)
        self._image_folder = self.data_dir / "cifar10"
        self._layout: Literal["official", "folder"] | None = None

    @property
    def files(self) -> Literal["official", "folder"] | None:
        """Layout of the files: fixed once they have been read, even if the other layout appears later."""
        if self._official_folder.exists():
            return self._layout or "official"
        return self._layout or ("folder" if self._image_folder.exists() else None)

    def download(self) -> None:
        if self.files == "folder":
            _check_folders(self._image_folder, self.classes)  # check both splits before hours of training
            return
        missing = [path for path, _ in _official_files(self._official_folder) if not path.exists()]
        if not missing:
            return
        official = TorchvisionCIFAR10
        try:
            with no_empty_folders(self.data_dir):
                download_url(official.url, self.data_dir, official.filename, official.tgz_md5)
                _extract(self.data_dir / official.filename, self.data_dir)
        except (RuntimeError, OSError, HTTPException, tarfile.TarError) as error:  # TarError: a malicious archive
            reason = " ".join(str(error).split())  # may span several lines
            raise FileNotFoundError(f"{self._missing_message(missing[0])}; the download failed: {reason}") from error

    def _missing_message(self, missing: Path) -> str:
        return (
            f"{no_such(missing)}. Pass --data.data_dir FOLDER, the folder that contains "
            f"{self._official_folder.name} or {self._image_folder.name}/{{train,test}}/CLASS/*.png (or .jpg)"
        )

    def load(self, *, train: bool) -> tuple[Tensor, Tensor]:
        self._layout = self.files
        if self._layout == "folder":
            return self._read_image_folder("train" if train else "test")
        return self._read_official(train=train)

    def _read_official(self, *, train: bool) -> tuple[Tensor, Tensor]:
        try:
            with warnings.catch_warnings(action="ignore", category=np.exceptions.VisibleDeprecationWarning):
                official = TorchvisionCIFAR10(str(self.data_dir), train=train)  # pickled by a NumPy of 2009
        except RuntimeError as error:  # a file is missing or has the wrong MD5; it was not unpickled
            raise self._file_error() from error
        return torch.from_numpy(official.data.transpose(0, 3, 1, 2)), torch.tensor(official.targets)

    def _file_error(self) -> Exception:
        """Return an error that names the first missing or damaged official file."""
        for path, md5 in _official_files(self._official_folder):
            if not path.exists():
                return FileNotFoundError(self._missing_message(path))
            if not check_integrity(path, md5):
                return ValueError(f"{path}: damaged, or not the official file: its MD5 is not {md5}")
        raise AssertionError("torchvision rejected files whose MD5 are all correct")

    def _read_image_folder(self, split: str) -> tuple[Tensor, Tensor]:
        names = _check_folders(self._image_folder, self.classes)[split]
        pixels_NCHW = load_images(self._image_folder / split, names, self.input_shape, resize=False)
        return pixels_NCHW, torch.tensor([self.classes.index(name.partition("/")[0]) for name in names])

    def describe(self) -> dict[str, Any]:
        """Return the description of the data, the layout of its files, and the version of the reader of image files."""
        reader = {"reader": DECODER_VERSION} if self.files == "folder" else {}
        return {**super().describe(), "files": self.files, **reader}


def _official_files(folder: Path) -> Iterator[tuple[Path, str]]:
    """Yield each of torchvision's files with its MD5."""
    source = TorchvisionCIFAR10
    for name, md5 in [*source.train_list, *source.test_list, (source.meta["filename"], source.meta["md5"])]:
        yield folder / name, md5


def _extract(path: Path, folder: Path) -> None:
    """Extract an archive. Unlike `torchvision.datasets.utils` before 0.29, refuse members that would write elsewhere.

    Raises:
        TarError: A member is neither a file nor a folder, or would be outside the folder.
    """
    inside = folder.resolve()
    with tarfile.open(path) as archive:
        archive.extraction_filter = getattr(tarfile, "data_filter", lambda member, _: member)  # Python 3.11.4 or newer
        for member in archive:
            if not (member.isfile() or member.isdir()) or not (inside / member.name).resolve().is_relative_to(inside):
                raise tarfile.TarError(f"{path}: {member.name} is a link or a special file, or is outside {folder}")
            archive.extract(member, folder)


def _check_folders(root: Path, classes: tuple[str, ...]) -> dict[str, list[str]]:
    """Return the images of the training and of the test folder, as paths relative to it: CLASS/NAME.

    Raises:
        ValueError: A split or a class is missing or empty, or a class is not one of the ten. The message names it.
    """
    images = {}
    for split in SPLITS:
        folder = root / split
        if not folder.is_dir():
            raise ValueError(no_such(folder, "folder"))
        found = {path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")}
        if mismatched := sorted(found.symmetric_difference(classes)):
            problem = "not a class" if mismatched[0] in found else "missing"
            raise ValueError(f"{folder / mismatched[0]}: {problem}; the classes are {', '.join(classes)}")
        by_class = {name: image_names(folder / name, SUFFIXES) for name in classes}
        if empty := [name for name, names in by_class.items() if not names]:
            raise ValueError(f"{folder / empty[0]}: no images; their names must end in .png, .jpg or .jpeg")
        images[split] = [f"{name}/{image}" for name, names in by_class.items() for image in names]
    return images
