"""Fixtures: scanned digits, and MNIST files written from them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from datamodules.digits import Digits

Scans = tuple[np.ndarray, np.ndarray]


@pytest.fixture(scope="session")
def scans() -> Scans:
    """1,437 scanned digits: uint8 pixels of shape (N, 28, 28) and labels of shape (N,)."""
    images_NCHW, labels_N = Digits().load(train=True)
    return images_NCHW[:, 0].numpy(), labels_N.numpy()


@pytest.fixture
def mnist_folder(tmp_path: Path, scans: Scans, write_idx: Callable[[Path, np.ndarray], Path]) -> Callable[..., Path]:
    """Function that writes 200 + 60 scans in MNIST's format; an argument such as train_labels replaces a file."""

    def write(**replaced: np.ndarray) -> Path:
        images, labels = scans
        contents = {
            "train_images": images[:200],
            "train_labels": labels[:200],
            "t10k_images": images[200:260],
            "t10k_labels": labels[200:260],
        }
        for name, values in {**contents, **replaced}.items():
            prefix, kind = name.split("_")
            write_idx(tmp_path / "MNIST" / "raw" / f"{prefix}-{kind}-idx{3 if kind == 'images' else 1}-ubyte", values)
        return tmp_path

    return write
