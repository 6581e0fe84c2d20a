"""MNIST: 60,000 + 10,000 handwritten digits, 28x28 greyscale (LeCun, Cortes and Burges)."""

from pathlib import Path
from typing import Any, final
from urllib.error import URLError

import torch
from torch import Tensor

from datamodules.base import ImageDataModule
from datamodules.downloads import no_empty_folders
from datamodules.idx import read_idx
from datamodules.paths import no_such

# SHA-256 of the uncompressed files, as unpacked from the archives whose MD5 torchvision checks.
OFFICIAL_SHA256 = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}


@final
class MNIST(ImageDataModule):
    """MNIST in torchvision's files, downloaded by torchvision if they are missing.

    Args:
        data_dir: Folder that contains `MNIST/raw/*-ubyte`, or into which they are downloaded.
        verify: Whether to reject files that are not the official ones. Turn off to read other data in MNIST's format.
        n_val: Number of validation examples, taken from the 60,000 training images.
        **options: Subset, batch size, normalisation and augmentation, see `ImageDataModule`.
    """

    input_shape = (1, 28, 28)
    classes = tuple("0123456789")

    def __init__(self, data_dir: str = "data", verify: bool = True, n_val: int = 5000, **options: Any) -> None:
        super().__init__(n_val=n_val, **options)
        self.data_dir, self.verify = Path(data_dir).expanduser(), verify
        self._raw = self.data_dir / "MNIST" / "raw"

    def download(self) -> None:
        from torchvision.datasets import MNIST as TorchvisionMNIST

        missing = [name for name in OFFICIAL_SHA256 if not (self._raw / name).exists()]
        if not missing:
            return
        if not self.verify and len(missing) < len(OFFICIAL_SHA256):  # torchvision would overwrite the user's own files
            raise FileNotFoundError(
                f"{no_such(self._raw / missing[0])}. It is not downloaded, because data.verify is false and the "
                "download would overwrite your other files"
            )
        try:
            with no_empty_folders(self.data_dir, self._raw.parent, self._raw):
                TorchvisionMNIST(str(self.data_dir), download=True)
        except (RuntimeError, URLError, OSError) as error:
            reason = " ".join(str(error).split())  # may span several lines
            raise FileNotFoundError(
                f"{no_such(self._raw / missing[0])}, and MNIST could not be downloaded ({reason}). "
                "Pass --data.data_dir FOLDER, the folder that contains MNIST/raw"
            ) from error

    def load(self, *, train: bool) -> tuple[Tensor, Tensor]:
        prefix = "train" if train else "t10k"
        images_NHW = self._read(f"{prefix}-images-idx3-ubyte", dimensions=3)
        labels_N = self._read(f"{prefix}-labels-idx1-ubyte", dimensions=1)
        if images_NHW.shape[1:] != (28, 28):
            raise ValueError(
                f"{self._raw / prefix}-images-idx3-ubyte: images of {tuple(images_NHW.shape[1:])}, not (28, 28)"
            )
        if len(images_NHW) == 0:
            raise ValueError(f"{self._raw / prefix}-images-idx3-ubyte: no images")
        if len(images_NHW) != len(labels_N):
            raise ValueError(f"{self._raw}: {len(images_NHW)} {prefix} images but {len(labels_N)} labels")
        if labels_N.max() > 9:
            raise ValueError(f"{self._raw / prefix}-labels-idx1-ubyte: label {int(labels_N.max())}, not one of 0 to 9")
        return images_NHW[:, None], labels_N.to(torch.int64)

    def _read(self, name: str, *, dimensions: int) -> Tensor:
        sha256 = OFFICIAL_SHA256[name] if self.verify else None
        return read_idx(self._raw / name, dimensions=dimensions, sha256=sha256)
