"""Anybody's own images: one folder per class."""

from pathlib import Path
from typing import Any, Literal, final

import torch
from torch import Tensor
from torchvision.datasets.folder import IMG_EXTENSIONS

from datamodules.base import ImageDataModule, require_positive
from datamodules.decoded import decode
from datamodules.images import image_names
from datamodules.split import stratified_split, stratified_subset

TEST_SEED = 0  # fixes the test part for good: it is no parameter, so that no run can choose its own test set
TEST_SHARE, VAL_SHARE = 5, 10  # one in so many, where the user names no number
VAL_NAMES = ("val", "valid", "validation")
PART_NAMES = ("train", *VAL_NAMES, "test")


@final
class ImageFolder(ImageDataModule):
    """Images of any size and format, resized to one size and held in memory, one folder per class.

    Two layouts are read, with images in the class folders or in folders inside them:

    - `data_dir/train/<class>/`, and where you have them `data_dir/val/<class>/` and `data_dir/test/<class>/`, with the
      same classes. "valid" and "validation" are other names of "val".
    - `data_dir/<class>/`.

    Without a test folder, a stratified part is set aside, the same one in all runs on the same files. Images are
    squashed to the size, their aspect ratio is not kept: `litlab predict` reads new ones in the same way. They are
    decoded once (see `datamodules.decoded`); hidden files, and files with other endings than an image's, are ignored.

    Args:
        data_dir: The folder.
        size: Rows and columns of the images that the model sees; one number for square ones. All images together take
            channels * rows * columns bytes each.
        channels: 3 for colour, 1 for grey.
        n_val: Number of validation examples, taken from the training images; a tenth of them by default. Not with a
            validation folder, which is the validation set as it is.
        class_names: The class folders to read, in the order of the labels; all that are there by default. A run keeps
            them: its model says the same names whatever becomes of the folder, which a prediction does not need.
        n_test: Number of test examples, taken first; a fifth of all by default. Not with a test folder.
        **options: Subset, batch size, normalisation and augmentation of `ImageDataModule`.

    Raises:
        FileNotFoundError: There is no such folder.
        ValueError: The folder has neither layout, or its parts have different classes; the message names what is wrong.
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
        super().__init__(n_val=1 if n_val is None else n_val, **options)  # what `split` takes is known with the images
        rows, columns = (size, size) if isinstance(size, int) else size
        require_positive(size=min(rows, columns), n_test=n_test)
        self.input_shape = (channels, rows, columns)
        self.data_dir = Path(data_dir).expanduser()
        known = class_names is not None and not self.data_dir.is_dir()
        self.folders = {} if known else _part_folders(self.data_dir)
        self.classes = tuple(class_names or _common_classes(self.folders))
        self._n_val, self._n_test = n_val, n_test
        for part, given in (("val", n_val), ("test", n_test)):
            if given is not None and part in self.folders:
                raise ValueError(f"data.n_{part} is {given}, but {self.folders[part]} is the whole {part} set")

    def load(self, *, train: bool) -> tuple[Tensor, Tensor]:
        """The images of the training folder and then those of the validation folder, or those of the test set."""
        self.folders = self.folders or _part_folders(self.data_dir)
        if "test" in self.folders and not train:
            return self._read("test")
        images, labels = self._read("train")
        if "test" not in self.folders:
            part = self._set_aside(labels)[0 if train else 1]
            images, labels = images[part], labels[part]
        self._n_before_val = len(labels)
        if "val" in self.folders and train:
            val_images, val_labels = self._read("val")
            images, labels = torch.cat([images, val_images]), torch.cat([labels, val_labels])
        return images, labels

    def split(self, labels_N: Tensor) -> tuple[Tensor, Tensor]:
        if "val" not in self.folders:
            n_val = self._n_val or max(len(self.classes), len(labels_N) // VAL_SHARE)
            self._require_two_of_each(labels_N, "validation")
            return stratified_split(labels_N, n_val=n_val, n_train=self.n_train, seed=self.split_seed)
        train, val = torch.arange(len(labels_N)).tensor_split([self._n_before_val])
        return self._subset(train, labels_N), val

    def _set_aside(self, labels_N: Tensor) -> tuple[Tensor, Tensor]:
        """Indices of what is for training and validation, and of the test part."""
        n_test = self._n_test or max(len(self.classes), len(labels_N) // TEST_SHARE)
        self._require_two_of_each(labels_N, "the test")
        try:
            return stratified_split(labels_N, n_val=n_test, n_train=None, seed=TEST_SEED)
        except ValueError as error:
            raise ValueError(
                f"{self.folders['train']}: no test part of data.n_test={n_test} images ({error})"
            ) from error

    def _subset(self, train: Tensor, labels_N: Tensor) -> Tensor:
        if self.n_train is None or self.n_train == len(train):
            return train
        if not len(self.classes) <= self.n_train < len(train):
            allowed = f"{len(self.classes)} (one per class) to {len(train)}"
            raise ValueError(f"data.n_train is {self.n_train}; {self.folders['train']} allows {allowed}")
        return torch.tensor(sorted(stratified_subset(train.tolist(), labels_N.numpy(), self.n_train, self.split_seed)))

    def _require_two_of_each(self, labels_N: Tensor, purpose: str) -> None:
        """Refuse to share one image of a class between two parts."""
        counts = torch.bincount(labels_N, minlength=len(self.classes)).tolist()
        for name, count in zip(self.classes, counts, strict=True):
            if count < 2:
                raise ValueError(
                    f"{self.folders['train'] / name}: {count} image to share between training and {purpose}; "
                    "at least 2 are needed, 3 where both validation and test images are taken from it"
                )

    def _read(self, part: str) -> tuple[Tensor, Tensor]:
        """All images of a part's folder, by class, and their labels.

        Raises:
            ValueError: A class has no image.
        """
        folder, names, labels = self.folders[part], list[str](), list[int]()
        for label, name in enumerate(self.classes):
            if not (folder / name).is_dir():
                raise ValueError(f"{folder / name}: no such folder, but {name} is one of data.class_names")
            images = image_names(folder / name, IMG_EXTENSIONS)
            if not images:
                raise ValueError(f"{folder / name}: no image in it; their names end in {', '.join(IMG_EXTENSIONS)}")
            names += [f"{name}/{image}" for image in images]
            labels += [label] * len(images)
        return decode(folder, names, self.input_shape, resize=True), torch.tensor(labels)

    def card(self) -> dict[str, Any]:
        """What this data is, and where it was."""
        return {**super().card(), "folder": str(self.data_dir.resolve()), "classes": list(self.classes)}


def _part_folders(root: Path) -> dict[str, Path]:
    """The folder of each part, by "train", "val" and "test"; of "train" alone where the classes are in the root."""
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: no such folder; --data.data_dir is the one that holds your images")
    names = _visible_folders(root)
    parts, others = [name for name in names if name in PART_NAMES], [name for name in names if name not in PART_NAMES]
    if others and (not parts or (parts == ["train"] and not _visible_folders(root / "train"))):  # trains, and cars
        return {"train": root}
    if others:
        raise ValueError(f"{root / others[0]}: neither training nor test images; beside it there is {parts[0]}")
    if "train" not in parts:
        raise ValueError(f"{root}: neither a folder for each class in it, nor the folder train with one for each class")
    vals = [name for name in parts if name in VAL_NAMES]
    if len(vals) > 1:
        raise ValueError(f"{root}: {' and '.join(vals)} are names of the same part")
    return {"val" if name in vals else name: root / name for name in parts}


def _common_classes(folders: dict[str, Path]) -> tuple[str, ...]:
    """The names of the class folders, sorted, which must be the same in all parts."""
    classes = _visible_folders(folders["train"])
    for folder in folders.values():
        there = _visible_folders(folder)
        if strange := sorted(set(there).symmetric_difference(classes)):
            where, not_where = (folder, folders["train"]) if strange[0] in there else (folders["train"], folder)
            raise ValueError(f"class {strange[0]} has a folder in {where}, but none in {not_where}")
    if len(classes) < 2:
        raise ValueError(f"{folders['train']}: {len(classes)} class folders in it; at least 2 are needed")
    return tuple(classes)


def _visible_folders(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
