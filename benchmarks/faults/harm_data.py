"""Damaged data files: refused with a message that names the file, exit code 2, and no run."""

import gzip
import pickle
import shutil
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import runs
from bench import Bench, Row
from harm_checkpoints import Evil
from PIL import Image

from datamodules.cifar10 import CIFAR10
from datamodules.mnist import OFFICIAL_SHA256

TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS = (f"MNIST/raw/{name}" for name in OFFICIAL_SHA256)
Change = Callable[[bytes], bytes | None]  # None: the file is deleted


@dataclass(frozen=True)
class Source:
    """A folder of data that is in order, and the arguments of a fit that reads it."""

    name: str
    folder: Path
    arguments: list[str]


@dataclass(frozen=True)
class Harm:
    """What is done to one file of a source, and the name that the message must have (the file's own, by default)."""

    what: str
    file: str
    change: Change
    named: str = ""


def flip(place: float) -> Change:
    """One bit, so far into the file."""

    def change(content: bytes) -> bytes:
        changed = bytearray(content)
        changed[int(place * (len(content) - 1))] ^= 4
        return bytes(changed)

    return change


def without_last(content: bytes) -> bytes:
    """An IDX file of labels with one less, also in its header."""
    return content[:4] + struct.pack(">I", len(content) - 9) + content[8:-1]


IDX = [
    Harm("a wrong magic number", TRAIN_IMAGES, lambda content: b"\0\0\x0d\x03" + content[4:]),
    Harm("a wrong size in the header", TRAIN_IMAGES, lambda content: content[:7] + b"\1" + content[8:]),
    Harm("truncated", TRAIN_IMAGES, lambda content: content[: len(content) // 3]),
    Harm("empty", TRAIN_IMAGES, lambda content: b""),
    Harm("zeros", TRAIN_IMAGES, lambda content: bytes(len(content))),
    Harm("too long", TRAIN_LABELS, lambda content: content + b"\0"),
    Harm("still compressed", TRAIN_LABELS, gzip.compress),
    Harm("a truncated archive", TRAIN_LABELS, lambda content: gzip.compress(content)[:-20]),
    Harm("label 200", TRAIN_LABELS, lambda content: content[:20] + b"\xc8" + content[21:]),
    Harm("a short file of labels", TRAIN_LABELS, without_last, named="MNIST/raw"),
    Harm("truncated", TEST_IMAGES, lambda content: content[:16]),
    Harm("a short file of labels", TEST_LABELS, without_last, named="MNIST/raw"),
    Harm("deleted", TEST_LABELS, lambda content: None),
]
OFFICIAL = [
    Harm("a flipped bit of a pixel", TRAIN_IMAGES, flip(0.7)),
    Harm("a flipped bit of a label", TRAIN_LABELS, flip(0.3)),
    Harm("a flipped bit of a pixel", TEST_IMAGES, flip(0.5)),
]
CIFAR_FOLDER = [
    Harm("truncated", "cifar10/train/cat/003.jpg", lambda content: content[: len(content) // 2]),
    Harm("empty", "cifar10/train/ship/000.jpg", lambda content: b""),
    Harm("garbage", "cifar10/test/dog/001.jpg", lambda content: bytes(range(256)) * 2),
    Harm("another size", "cifar10/test/frog/002.jpg", lambda content: _jpeg(np.zeros((16, 16, 3), np.uint8))),
]
CIFAR_BATCHES = [
    Harm("truncated", "cifar-10-batches-py/data_batch_1", lambda content: content[:-1000]),
    Harm("empty", "cifar-10-batches-py/data_batch_1", lambda content: b""),
    Harm("a pickle that runs code", "cifar-10-batches-py/data_batch_1", lambda content: None),
]
FOLDER = [
    Harm("truncated", "one/003.png", lambda content: content[: len(content) // 2]),
    Harm("a flipped bit", "zero/005.png", flip(0.5)),
    Harm("text", "one/000.png", lambda content: b"not an image\n"),
    Harm("zeros", "zero/000.png", lambda content: bytes(len(content))),
]


def total(quick: bool) -> int:
    return 5 if quick else len(IDX) + len(OFFICIAL) + len(CIFAR_FOLDER) + len(CIFAR_BATCHES) + len(FOLDER)


def table(bench: Bench) -> list[Row]:
    """A row for each source of data."""
    real = all((bench.data_dir / "MNIST/raw" / name).is_file() for name in OFFICIAL_SHA256)
    mnist = _official(bench) if real else _idx(bench)
    idx = [harm for harm in IDX if not real or harm.what != "label 200"]  # which a digest hides: in files of our own
    plans: list[tuple[str, Source, list[Harm]]] = [
        ("MNIST's own files" if real else "IDX files written by code", mnist, idx + (OFFICIAL if real else [])),
        ("CIFAR-10, folders of JPEG files written by code", _cifar_folder(bench), CIFAR_FOLDER),
        ("CIFAR-10, files in the place of the official ones", _cifar_batches(bench), CIFAR_BATCHES),
        ("a folder of PNG files written by code", _image_folder(bench), FOLDER),
    ]
    if real:
        plans.insert(1, ("IDX files written by code", _idx(bench), [harm for harm in IDX if harm.what == "label 200"]))
    return [_row(bench, title, source, harms[:1] if bench.quick else harms) for title, source, harms in plans]


def _row(bench: Bench, title: str, source: Source, harms: list[Harm]) -> Row:
    lost = _in_order(bench, source)
    for said in bench.side_by_side(
        [partial(_refused, bench, source, number, harm) for number, harm in enumerate(harms)]
    ):
        lost += said
    what = ", ".join(dict.fromkeys(harm.what for harm in harms))
    return Row(f"damaged data, {title}: {what}", str(len(harms)), "refused by name, exit code 2, no run", lost)


def _in_order(bench: Bench, source: Source) -> list[str]:
    """The same files without harm are trained on; those that cannot be official are not."""
    if source.name == "batches":
        return []
    project = bench.project(f"data-{source.name}")
    command = bench.litlab("fit", *source.arguments, "--data.data_dir", source.folder, uri=project.uri)
    return [f"{source.name} without harm: {command.last}"] if command.end() else []


def _refused(bench: Bench, source: Source, number: int, harm: Harm) -> list[str]:
    label = f"data-{source.name}-{number}"
    project, folder = bench.project(label), bench.place(f"{label}-files")
    shutil.copytree(source.folder, folder, copy_function=lambda one, other: Path(other).symlink_to(one))
    content = harm.change((folder / harm.file).read_bytes())
    if harm.what == "a pickle that runs code":
        content = pickle.dumps(Evil(project.folder / "evil"))
    (folder / harm.file).unlink()
    if content is not None:
        (folder / harm.file).write_bytes(content)
    command = bench.litlab("fit", *source.arguments, "--data.data_dir", folder, uri=project.uri, log=f"{label}.txt")
    code, lost = command.end(), list[str]()
    lost += [] if code == 2 else [f"exit code {code}: {command.last}"]
    lost += [] if str(folder / (harm.named or harm.file)) in command.last else [f"not named: {command.last}"]
    lost += [f"a run, {run.info.status}" for run in runs.every(project.uri)]
    lost += ["the pickle has run"] if (project.folder / "evil").exists() else []
    bench.step()
    return [f"{source.name}, {harm.what}: {said}" for said in lost]


def _official(bench: Bench) -> Source:
    arguments = ["mnist-mlp", "--trainer.max_epochs", "1", "--data.n_train", "1000"]
    return Source("mnist", _linked(bench, "mnist", bench.data_dir / "MNIST/raw"), arguments)


def _linked(bench: Bench, name: str, raw: Path) -> Path:
    folder = bench.place(name)
    (folder / "MNIST/raw").mkdir(parents=True)
    for file in OFFICIAL_SHA256:
        (folder / "MNIST/raw" / file).symlink_to(raw / file)
    return folder


def _idx(bench: Bench) -> Source:
    """Small files in MNIST's format."""
    folder = bench.place("idx")
    (folder / "MNIST/raw").mkdir(parents=True)
    chance = np.random.default_rng(bench.seed)
    for images, labels, count in ((TRAIN_IMAGES, TRAIN_LABELS, 300), (TEST_IMAGES, TEST_LABELS, 60)):
        pixels = chance.integers(0, 256, (count, 28, 28), np.uint8)
        (folder / images).write_bytes(struct.pack(">4I", 0x803, count, 28, 28) + pixels.tobytes())
        numbers = bytes(index % 10 for index in range(count))
        (folder / labels).write_bytes(struct.pack(">2I", 0x801, count) + numbers)
    few = ["--data.verify", "false", "--data.n_val", "60", "--data.batch_size", "60", "--trainer.max_epochs", "1"]
    return Source("idx", folder, ["mnist-mlp", *few])


def _pictures(folder: Path, count: int, side: int, suffix: str, seed: int) -> None:
    folder.mkdir(parents=True)
    chance = np.random.default_rng(seed)
    for index in range(count):
        pixels = chance.integers(0, 256, (side, side, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{index:03}{suffix}")


def _jpeg(pixels: np.ndarray) -> bytes:
    from io import BytesIO

    file = BytesIO()
    Image.fromarray(pixels).save(file, "jpeg")
    return file.getvalue()


def _cifar_folder(bench: Bench) -> Source:
    folder = bench.place("cifar")
    for number, name in enumerate(CIFAR10.classes):
        _pictures(folder / "cifar10/train" / name, 12, 32, ".jpg", number)
        _pictures(folder / "cifar10/test" / name, 4, 32, ".jpg", 100 + number)
    return Source("cifar", folder, ["cifar-base", "--data.n_val", "20", "--trainer.max_epochs", "1"])


def _cifar_batches(bench: Bench) -> Source:
    folder = bench.place("batches")
    (folder / "cifar-10-batches-py").mkdir(parents=True)
    for name in (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch", "batches.meta"):
        content = {"data": np.zeros((20, 3072), np.uint8), "labels": [0] * 20}
        (folder / "cifar-10-batches-py" / name).write_bytes(pickle.dumps(content))
    return Source("batches", folder, ["cifar-base", "--data.n_val", "20", "--trainer.max_epochs", "1"])


def _image_folder(bench: Bench) -> Source:
    folder = bench.place("pictures")
    for number, name in enumerate(("zero", "one")):
        _pictures(folder / name, 20, 28, ".png", number)
    data = ["--data", "datamodules.image_folder.ImageFolder", "--data.size", "28", "--trainer.max_epochs", "1"]
    return Source("folder", folder, ["digits-convnet", *data])
