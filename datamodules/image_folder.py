"""User-provided images, one folder per class."""

import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, final

import torch
from torch import Tensor
from torchvision.datasets.folder import IMG_EXTENSIONS as ENDINGS

from datamodules.base import ImageDataModule, image_shape
from datamodules.folds import Fold
from datamodules.image_cache import DECODER_VERSION, load_images
from datamodules.images import image_names
from datamodules.in_memory import require_positive
from datamodules.paths import no_such
from datamodules.split import TEST_DIVISOR, TEST_SEED, VAL_DIVISOR, stratified_split

VAL_NAMES = ("val", "valid", "validation")
SPLIT_NAMES = ("train", *VAL_NAMES, "test")


@final
class ImageFolder(ImageDataModule):
    """Images of any size and format, resized to one size and held in memory, one folder per class.

    Two layouts are supported. Images may be in class folders or in folders inside them:

    - `data_dir/train/<class>/`, and optionally `data_dir/val/<class>/` and `data_dir/test/<class>/`, with the same
      classes. "val" may also be called "valid" or "validation".
    - `data_dir/<class>/`.

    Without a test folder, a stratified test set is split off, the same in all runs on the same files. Resizing does not
    keep the aspect ratio; `litlab predict` reads new images in the same way. Images are decoded once (see
    `datamodules.image_cache`). Hidden files and files without an image suffix are ignored.

    Args:
        data_dir: Folder with the images.
        size: Rows and columns of the model's input images; one number for square images. Each image takes
            channels * rows * columns bytes of memory.
        channels: 3 for RGB, 1 for greyscale.
        n_val: Number of validation examples, taken from the training images; 1/10 of them by default. Not allowed with
            a validation folder, which is the complete validation set.
        class_names: Class folders to read, in the order of the labels; all class folders by default. They are saved
            with the run, so that its model keeps its class names and predicts without the folder. Names that differ
            only in their Unicode form (NFC or NFD) name the same class.
        n_test: Number of test examples, taken first; 1/5 of all images by default. Not allowed with a test folder.
        **options: Subset, batch size, normalisation and augmentation, see `ImageDataModule`.

    Raises:
        FileNotFoundError: `data_dir` does not exist.
        ValueError: The folder has neither layout, or its splits have different classes. The message names the problem.
    """

    def __init__(
        self,
        data_dir: str,
        size: int | tuple[int, int] = 64,
        channels: Literal[1, 3] = 3,
        class_names: list[str] | None = None,
        n_val: int | None = None,
        n_test: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__(n_val=1 if n_val is None else n_val, **options)  # `split` computes the default from the images
        require_positive(n_test=n_test)
        self.input_shape = image_shape(channels, size)
        self.data_dir = Path(data_dir).expanduser()
        folder_not_needed = class_names is not None and not self.data_dir.is_dir()
        self.folders = {} if folder_not_needed else _split_folders(self.data_dir)
        self.classes = tuple(class_names or _common_classes(self.folders))
        _require_different(self.classes)
        self._n_val, self._n_test = n_val, n_test
        for split, num_examples in (("val", n_val), ("test", n_test)):
            if num_examples is not None and split in self.folders:
                folder = self.folders[split]
                raise ValueError(f"data.n_{split} is {num_examples}, but {folder} is the complete {split} set")

    def derived_arguments(self) -> dict[str, Any]:
        try:
            return {"class_names": list(_common_classes(self.folders))} if self.folders else {}
        except ValueError:  # the splits have different classes, so that the names must be given
            return {}

    def load(self, *, train: bool) -> tuple[Tensor, Tensor]:
        """Load the training images followed by those of the validation folder, if there is one, or the test images."""
        self.folders = self.folders or _split_folders(self.data_dir)
        if "test" in self.folders and not train:
            return self._read("test")
        images, labels = self._read("train")
        if "test" not in self.folders:
            indices = self._split_off_test(labels)[0 if train else 1]
            images, labels = images[indices], labels[indices]
        self._num_before_val = len(labels)
        if "val" in self.folders and train:
            val_images, val_labels = self._read("val")
            images, labels = torch.cat([images, val_images]), torch.cat([labels, val_labels])
        return images, labels

    def split(self, labels_N: Tensor) -> tuple[Tensor, Tensor]:
        if "val" not in self.folders:
            n_val = self._n_val or max(len(self.classes), len(labels_N) // VAL_DIVISOR)
            self._require_two_per_class(labels_N, "validation")
            return self._stratified_split(labels_N, n_val)
        train, val = torch.arange(len(labels_N)).tensor_split([self._num_before_val])
        return self._subset(train, labels_N), val

    def split_fold(self, labels_N: Tensor, fold: Fold) -> tuple[Tensor, Tensor]:
        if "val" in self.folders or self._n_val is not None:
            other = self.folders.get("val", f"data.n_val {self._n_val}")
            raise ValueError(f"data.folds is {fold.folds}, which makes the validation sets; leave out {other}")
        return super().split_fold(labels_N, fold)

    def _split_off_test(self, labels_N: Tensor) -> tuple[Tensor, Tensor]:
        """Return the indices of the training and validation images, and those of the test images."""
        n_test = self._n_test or max(len(self.classes), len(labels_N) // TEST_DIVISOR)
        self._require_two_per_class(labels_N, "the test set")
        try:
            return stratified_split(labels_N, n_val=n_test, n_train=None, seed=TEST_SEED)
        except ValueError as error:
            raise ValueError(
                f"{self.folders['train']}: cannot split off data.n_test={n_test} test images ({error})"
            ) from error

    def _subset(self, train: Tensor, labels_N: Tensor) -> Tensor:
        if self.n_train is None or self.n_train == len(train):
            return train
        if not len(self.classes) <= self.n_train < len(train):
            allowed = f"{len(self.classes)} (one per class) to {len(train)}"
            raise ValueError(f"data.n_train is {self.n_train}; with {self.folders['train']} it must be {allowed}")
        return self._limit_training(train, labels_N)

    def _require_two_per_class(self, labels_N: Tensor, purpose: str) -> None:
        """Require at least two images of each class, so that both splits have one.

        Raises:
            ValueError: A class has fewer. The message names its folder.
        """
        counts = torch.bincount(labels_N, minlength=len(self.classes)).tolist()
        for name, count in zip(self.classes, counts, strict=True):
            if count < 2:
                raise ValueError(
                    f"{self.folders['train'] / name}: {count} image to share between training and {purpose}; "
                    "at least 2 are needed, or 3 if both validation and test images are taken from it"
                )

    def _read(self, split: str) -> tuple[Tensor, Tensor]:
        """Load all images of a split's folder, ordered by class, and their labels.

        Raises:
            ValueError: A class has no folder or no images.
        """
        folder, names, labels = self.folders[split], list[str](), list[int]()
        folders = _class_folders(folder)
        for label, name in enumerate(self.classes):
            if _nfc(name) not in folders:
                raise ValueError(f"{folder / name}: no such folder, but {name} is one of data.class_names")
            images = [f"{own}/{image}" for own in folders[_nfc(name)] for image in image_names(folder / own, ENDINGS)]
            if not images:
                raise ValueError(f"{folder / name}: no images; their names must end in {', '.join(ENDINGS)}")
            names += images
            labels += [label] * len(images)
        return load_images(folder, names, self.input_shape, resize=True), torch.tensor(labels)

    def describe(self) -> dict[str, Any]:
        """Return the description of the data, its folder, its classes, and the version of the reader of its images."""
        own = {"folder": str(self.data_dir.resolve()), "classes": list(self.classes), "reader": DECODER_VERSION}
        return {**super().describe(), **own}


def _split_folders(root: Path) -> dict[str, Path]:
    """Return the folder of each split: "train", "val" and "test"; only "train" if the class folders are in the root."""
    if not root.is_dir():
        raise FileNotFoundError(f"{no_such(root, 'folder')}; --data.data_dir must be the folder with your images")
    names = _visible_folders(root)
    splits = [name for name in names if name in SPLIT_NAMES]
    others = [name for name in names if name not in SPLIT_NAMES]
    # A folder "train" without folders in it is a class, as in "train" and "car".
    if others and (not splits or (splits == ["train"] and not _visible_folders(root / "train"))):
        return {"train": root}
    if others:
        raise ValueError(
            f"{root / others[0]}: unexpected next to {splits[0]}; class folders belong in {root / 'train'}"
        )
    if "train" not in splits:
        raise ValueError(f"{root}: neither class folders, nor a folder train with class folders{_hint(root)}")
    val_names = [name for name in splits if name in VAL_NAMES]
    if len(val_names) > 1:
        raise ValueError(f"{root}: {' and '.join(val_names)} are names of the same split; keep one of them")
    return {"val" if name in val_names else name: root / name for name in splits}


def _hint(root: Path) -> str:
    """Return which folder may be meant by one that has images, as a class folder has, and stands beside others."""
    parent = root.absolute().parent
    has_images = any(path.suffix.lower() in ENDINGS for path in root.iterdir())
    is_class = has_images and len(_visible_folders(parent)) > 1
    return f". It has images: if it is the folder of a class, --data.data_dir is {parent}" if is_class else ""


def _common_classes(folders: dict[str, Path]) -> tuple[str, ...]:
    """Return the sorted names of the classes.

    Raises:
        ValueError: The splits have different classes, or there are fewer than two.
    """
    classes = _class_folders(folders["train"])
    for folder in folders.values():
        names = _class_folders(folder)
        if mismatched := sorted(names.keys() ^ classes.keys()):
            present, absent = (folder, folders["train"]) if mismatched[0] in names else (folders["train"], folder)
            raise ValueError(f"class {mismatched[0]} has a folder in {present}, but none in {absent}")
    if len(classes) < 2:
        few = "1 class folder" if classes else "no class folders"
        raise ValueError(f"{folders['train']}: {few}; at least 2 are needed{_hint(folders['train'])}")
    return tuple(classes)


def _class_folders(folder: Path) -> dict[str, list[str]]:
    """Return the names of the folders of each class, sorted.

    A class has several if their names differ only in their Unicode form: macOS may write "e" and an accent for "é".
    """
    found: dict[str, list[str]] = {}
    for name in _visible_folders(folder):
        found.setdefault(_nfc(name), []).append(name)
    return dict(sorted(found.items()))


def _nfc(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _require_different(names: Sequence[str]) -> None:
    """Refuse a class that is given twice, perhaps in two Unicode forms.

    Raises:
        ValueError: The message names it.
    """
    normalized = list(map(_nfc, names))
    if repeated := [name for name in normalized if normalized.count(name) > 1]:
        raise ValueError(f"data.class_names: {repeated[0]} is given twice")


def _visible_folders(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
