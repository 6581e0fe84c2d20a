"""Damage data files: they must be refused with a message that names the file, exit code 2, and no run."""

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
from damage_checkpoints import MaliciousPickle
from PIL import Image

from datamodules.cifar10 import CIFAR10
from datamodules.mnist import OFFICIAL_SHA256

TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS = (f"MNIST/raw/{name}" for name in OFFICIAL_SHA256)
Change = Callable[[bytes], bytes | None]  # None: the file is deleted


@dataclass(frozen=True)
class Source:
    """A folder of intact data, and the arguments of a fit that reads it."""

    name: str
    folder: Path
    arguments: list[str]


@dataclass(frozen=True)
class Damage:
    """A change of one file of a source.

    Attributes:
        name: Name of the damage.
        file: The file.
        change: Changes the content.
        reported: Name that the message must contain; "" for the name of the file.
    """

    name: str
    file: str
    change: Change
    reported: str = ""


def flip(position: float) -> Change:
    """Return a change that flips one bit at a relative position in the file, from 0 to 1."""

    def change(content: bytes) -> bytes:
        changed = bytearray(content)
        changed[int(position * (len(content) - 1))] ^= 4
        return bytes(changed)

    return change


def remove_last_label(content: bytes) -> bytes:
    """Remove the last label of an IDX file, and reduce the count in its header."""
    return content[:4] + struct.pack(">I", len(content) - 9) + content[8:-1]


IDX = [
    Damage("wrong magic number", TRAIN_IMAGES, lambda content: b"\0\0\x0d\x03" + content[4:]),
    Damage("wrong size in the header", TRAIN_IMAGES, lambda content: content[:7] + b"\1" + content[8:]),
    Damage("truncated", TRAIN_IMAGES, lambda content: content[: len(content) // 3]),
    Damage("empty", TRAIN_IMAGES, lambda content: b""),
    Damage("zeros", TRAIN_IMAGES, lambda content: bytes(len(content))),
    Damage("extra byte", TRAIN_LABELS, lambda content: content + b"\0"),
    Damage("still compressed", TRAIN_LABELS, gzip.compress),
    Damage("truncated archive", TRAIN_LABELS, lambda content: gzip.compress(content)[:-20]),
    Damage("label 200", TRAIN_LABELS, lambda content: content[:20] + b"\xc8" + content[21:]),
    Damage("label missing", TRAIN_LABELS, remove_last_label, reported="MNIST/raw"),
    Damage("truncated", TEST_IMAGES, lambda content: content[:16]),
    Damage("label missing", TEST_LABELS, remove_last_label, reported="MNIST/raw"),
    Damage("deleted", TEST_LABELS, lambda content: None),
]
OFFICIAL = [
    Damage("flipped bit in a pixel", TRAIN_IMAGES, flip(0.7)),
    Damage("flipped bit in a label", TRAIN_LABELS, flip(0.3)),
    Damage("flipped bit in a pixel", TEST_IMAGES, flip(0.5)),
]
CIFAR_FOLDER = [
    Damage("truncated", "cifar10/train/cat/003.jpg", lambda content: content[: len(content) // 2]),
    Damage("empty", "cifar10/train/ship/000.jpg", lambda content: b""),
    Damage("garbage", "cifar10/test/dog/001.jpg", lambda content: bytes(range(256)) * 2),
    Damage("another image size", "cifar10/test/frog/002.jpg", lambda content: _jpeg(np.zeros((16, 16, 3), np.uint8))),
]
CIFAR_BATCHES = [
    Damage("truncated", "cifar-10-batches-py/data_batch_1", lambda content: content[:-1000]),
    Damage("empty", "cifar-10-batches-py/data_batch_1", lambda content: b""),
    Damage("pickle that runs code", "cifar-10-batches-py/data_batch_1", lambda content: None),
]
FOLDER = [
    Damage("truncated", "one/003.png", lambda content: content[: len(content) // 2]),
    Damage("flipped bit", "zero/005.png", flip(0.5)),
    Damage("text", "one/000.png", lambda content: b"not an image\n"),
    Damage("zeros", "zero/000.png", lambda content: bytes(len(content))),
]


def total(quick: bool) -> int:
    return 5 if quick else len(IDX) + len(OFFICIAL) + len(CIFAR_FOLDER) + len(CIFAR_BATCHES) + len(FOLDER)


def table(bench: Bench) -> list[Row]:
    """Return a row for each data source."""
    has_mnist = all((bench.data_dir / "MNIST/raw" / name).is_file() for name in OFFICIAL_SHA256)
    mnist = _official(bench) if has_mnist else _idx(bench)
    idx = [damage for damage in IDX if not has_mnist or damage.name != "label 200"]  # the digest fails first
    plans: list[tuple[str, Source, list[Damage]]] = [
        ("official MNIST files" if has_mnist else "generated IDX files", mnist, idx + (OFFICIAL if has_mnist else [])),
        ("generated folders of CIFAR-10 as JPEG files", _cifar_folder(bench), CIFAR_FOLDER),
        ("other files in place of the official CIFAR-10 batches", _cifar_batches(bench), CIFAR_BATCHES),
        ("generated folder of PNG files", _image_folder(bench), FOLDER),
    ]
    if has_mnist:
        plans.insert(1, ("generated IDX files", _idx(bench), [damage for damage in IDX if damage.name == "label 200"]))
    return [_row(bench, title, source, damages[:1] if bench.quick else damages) for title, source, damages in plans]


def _row(bench: Bench, title: str, source: Source, damages: list[Damage]) -> Row:
    lost = _fit_intact(bench, source)
    for losses in bench.run_parallel(
        [partial(_fit_damaged, bench, source, number, damage) for number, damage in enumerate(damages)]
    ):
        lost += losses
    names = ", ".join(dict.fromkeys(damage.name for damage in damages))
    return Row(f"damaged data, {title}: {names}", str(len(damages)), "refused by name, exit code 2, no run", lost)


def _fit_intact(bench: Bench, source: Source) -> list[str]:
    """Check that a fit on the intact files succeeds; skip CIFAR-10 batches, which cannot have the official digests."""
    if source.name == "batches":
        return []
    project = bench.project(f"data-{source.name}")
    command = bench.litlab("fit", *source.arguments, "--data.data_dir", source.folder, uri=project.uri)
    return [f"intact {source.name}: {command.last_line}"] if command.exit_code() else []


def _fit_damaged(bench: Bench, source: Source, number: int, damage: Damage) -> list[str]:
    label = f"data-{source.name}-{number}"
    project, folder = bench.project(label), bench.subfolder(f"{label}-files")
    shutil.copytree(source.folder, folder, copy_function=lambda one, other: Path(other).symlink_to(one))
    content = damage.change((folder / damage.file).read_bytes())
    if damage.name == "pickle that runs code":
        content = pickle.dumps(MaliciousPickle(project.folder / "malicious"))
    (folder / damage.file).unlink()
    if content is not None:
        (folder / damage.file).write_bytes(content)
    command = bench.litlab("fit", *source.arguments, "--data.data_dir", folder, uri=project.uri, log=f"{label}.txt")
    code, lost = command.exit_code(), list[str]()
    lost += [] if code == 2 else [f"exit code {code}: {command.last_line}"]
    reported = str(folder / (damage.reported or damage.file)) in command.last_line
    lost += [] if reported else [f"not reported: {command.last_line}"]
    lost += [f"a run, {run.info.status}" for run in runs.all_runs(project.uri)]
    lost += ["the pickle was executed"] if (project.folder / "malicious").exists() else []
    bench.step()
    return [f"{source.name}, {damage.name}: {message}" for message in lost]


def _official(bench: Bench) -> Source:
    arguments = ["mnist-mlp", "--trainer.max_epochs", "1", "--data.n_train", "1000"]
    return Source("mnist", _linked(bench, "mnist", bench.data_dir / "MNIST/raw"), arguments)


def _linked(bench: Bench, name: str, raw: Path) -> Path:
    folder = bench.subfolder(name)
    (folder / "MNIST/raw").mkdir(parents=True)
    for file in OFFICIAL_SHA256:
        (folder / "MNIST/raw" / file).symlink_to(raw / file)
    return folder


def _idx(bench: Bench) -> Source:
    """Generate small files in the format of MNIST."""
    folder = bench.subfolder("idx")
    (folder / "MNIST/raw").mkdir(parents=True)
    generator = np.random.default_rng(bench.seed)
    for images, labels, count in ((TRAIN_IMAGES, TRAIN_LABELS, 300), (TEST_IMAGES, TEST_LABELS, 60)):
        pixels = generator.integers(0, 256, (count, 28, 28), np.uint8)
        (folder / images).write_bytes(struct.pack(">4I", 0x803, count, 28, 28) + pixels.tobytes())
        numbers = bytes(index % 10 for index in range(count))
        (folder / labels).write_bytes(struct.pack(">2I", 0x801, count) + numbers)
    few = ["--data.verify", "false", "--data.n_val", "60", "--data.batch_size", "60", "--trainer.max_epochs", "1"]
    return Source("idx", folder, ["mnist-mlp", *few])


def _pictures(folder: Path, count: int, side: int, suffix: str, seed: int) -> None:
    folder.mkdir(parents=True)
    generator = np.random.default_rng(seed)
    for index in range(count):
        pixels = generator.integers(0, 256, (side, side, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{index:03}{suffix}")


def _jpeg(pixels: np.ndarray) -> bytes:
    from io import BytesIO

    file = BytesIO()
    Image.fromarray(pixels).save(file, "jpeg")
    return file.getvalue()


def _cifar_folder(bench: Bench) -> Source:
    folder = bench.subfolder("cifar")
    for number, name in enumerate(CIFAR10.classes):
        _pictures(folder / "cifar10/train" / name, 12, 32, ".jpg", number)
        _pictures(folder / "cifar10/test" / name, 4, 32, ".jpg", 100 + number)
    return Source("cifar", folder, ["cifar-base", "--data.n_val", "20", "--trainer.max_epochs", "1"])


def _cifar_batches(bench: Bench) -> Source:
    folder = bench.subfolder("batches")
    (folder / "cifar-10-batches-py").mkdir(parents=True)
    for name in (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch", "batches.meta"):
        content = {"data": np.zeros((20, 3072), np.uint8), "labels": [0] * 20}
        (folder / "cifar-10-batches-py" / name).write_bytes(pickle.dumps(content))
    return Source("batches", folder, ["cifar-base", "--data.n_val", "20", "--trainer.max_epochs", "1"])


def _image_folder(bench: Bench) -> Source:
    folder = bench.subfolder("pictures")
    for number, name in enumerate(("zero", "one")):
        _pictures(folder / name, 20, 28, ".png", number)
    data = ["--data", "datamodules.image_folder.ImageFolder", "--data.size", "28", "--trainer.max_epochs", "1"]
    return Source("folder", folder, ["digits-convnet", *data])
