"""What needs torch, in a process of its own: an installation that crashes there is told, and does not end the command.

Step by step it sends what it finds. Where it ends without a word, the step under way is the broken one.
"""

import multiprocessing
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from pipelines.diagnostics.finding import Finding, guarded, todo

PATIENCE_S = 180.0
STEPS = ("torch", "GPUs", "MNIST", "CIFAR-10", "checkpoints")
DRIVER = Path("/proc/driver/nvidia/version")
AGAIN = "install both at once: pip install --force-reinstall torch torchvision"


class Child:
    """The process, which begins at once.

    Args:
        data_dir: Where data sets are.
    """

    def __init__(self, data_dir: Path) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, other = context.Pipe()
        self._process = context.Process(target=look, args=(other, data_dir), daemon=True)
        self._process.start()
        other.close()

    def findings(self, checkpoints: Sequence[Path]) -> Iterator[Finding]:
        """What it finds, as it comes; `checkpoints` are looked at last."""
        try:
            with suppress(BrokenPipeError, ConnectionResetError):  # what it said before it ended is still to be read
                self._connection.send(list(checkpoints))
            yield from self._received()
        finally:
            self._process.kill()
            self._process.join()

    def _received(self) -> Iterator[Finding]:
        until = time.monotonic() + PATIENCE_S
        for step in STEPS:
            try:
                if not self._connection.poll(max(0.0, until - time.monotonic())):
                    yield todo(step, f"no answer after {PATIENCE_S:g} s: try python -c 'import torch, torchvision'")
                    return
                found: list[Finding] | None = self._connection.recv()
            except (EOFError, OSError):
                yield self._broken(step)
                return
            if found is None:  # without torch there is nothing more to see
                return
            yield from found

    def _broken(self, step: str) -> Finding:
        self._process.join(PATIENCE_S)
        code = self._process.exitcode
        how = f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
        return todo(step, f"Python itself ended ({how}) when torch was used: {AGAIN}")


def look(connection: Connection, data_dir: Path) -> None:
    """What the process does."""
    for number in (1, 2):  # what libraries print is not for the screen
        os.dup2(os.open(os.devnull, os.O_WRONLY), number)
    found = guarded(lambda: [_torch()], STEPS[0])
    connection.send(found)
    if found[0].state != "ok":
        connection.send(None)
        return
    connection.send(guarded(lambda: [_gpus()], STEPS[1]))
    connection.send(guarded(lambda: [_mnist(data_dir)], STEPS[2]))
    connection.send(guarded(lambda: [_cifar(data_dir)], STEPS[3]))
    checkpoints = connection.recv()
    connection.send(guarded(lambda: _damaged(checkpoints), STEPS[4]))


def _torch() -> Finding:
    """Import both, and run a compiled operator of torchvision, which works only with the torch it was built for."""
    try:
        import torch
        import torchvision

        boxes_N4 = torch.tensor([[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 2.0, 2.0]])
        kept = torchvision.ops.nms(boxes_N4, torch.tensor([0.9, 0.8]), 0.5).tolist()
    except Exception as error:  # ImportError, OSError, RuntimeError: it depends on what is broken
        reason = (str(error).splitlines() or [""])[0]
        return todo("torch", f"cannot be used ({type(error).__name__}: {reason}): {AGAIN}")
    if kept != [0]:
        return todo("torch", f"torchvision.ops.nms gives {kept}, not [0]: {AGAIN}")
    return Finding("torch", f"{torch.__version__} and torchvision {torchvision.__version__} can be imported and run")


def _gpus() -> Finding:
    import torch

    if torch.cuda.is_available():
        return _cuda(torch)
    if torch.backends.mps.is_available():
        return Finding("GPUs", "Apple's, by MPS")
    driver = DRIVER.read_text().splitlines()[0] if DRIVER.is_file() else ""
    if driver and torch.version.cuda is None:
        return todo("GPUs", f"a driver is here ({driver}), but this torch is built without CUDA: install one with it")
    if driver:
        return todo(
            "GPUs", f"torch, built for CUDA {torch.version.cuda}, cannot use the driver: {driver}; see nvidia-smi"
        )
    return Finding("GPUs", "none: training runs on the CPU")


def _cuda(torch: Any) -> Finding:
    names = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    for number in range(len(names)):
        torch.ones(8, device=f"cuda:{number}").sum().item()
    return Finding("GPUs", f"{len(names)} by CUDA {torch.version.cuda}, each can add: {', '.join(names)}")


def _mnist(data_dir: Path) -> Finding:
    if not (data_dir / "MNIST" / "raw").is_dir():
        return _not_there("MNIST", data_dir, "mnist-mlp", "MNIST/raw")
    from datamodules.mnist import MNIST, OFFICIAL_SHA256

    data = MNIST(data_dir=str(data_dir))
    for train in (True, False):
        try:
            data.load(train=train)
        except (ValueError, OSError) as error:
            return todo("MNIST", f"{error}; move it away, and litlab fit mnist-mlp downloads it again")
    return Finding("MNIST", f"its {len(OFFICIAL_SHA256)} files in {data_dir} are the official ones, by SHA-256")


def _cifar(data_dir: Path) -> Finding:
    if not any((data_dir / name).is_dir() for name in ("cifar-10-batches-py", "cifar10")):
        return _not_there("CIFAR-10", data_dir, "cifar-base", "cifar-10-batches-py or cifar10/train and cifar10/test")
    from datamodules.cifar10 import CIFAR10

    data = CIFAR10(data_dir=str(data_dir))
    official = data.files == "official"
    try:
        if official:
            data.load(train=True)  # checks each of the files, those of the test set too
        else:
            data.download()  # of image files, only looks whether all classes are there
    except (ValueError, OSError) as error:
        return todo("CIFAR-10", f"{error}; move it away, and litlab fit cifar-base downloads it again")
    said = "its files are the official ones, by MD5" if official else "image files, all ten classes in both parts"
    return Finding("CIFAR-10", f"{said} ({data_dir})")


def _not_there(name: str, data_dir: Path, experiment: str, holds: str) -> Finding:
    advice = f"litlab fit {experiment} downloads it, or --data_dir FOLDER, the folder that holds {holds}"
    return Finding(name, f"not in {data_dir.absolute()}: {advice}")


def _damaged(paths: Sequence[Path]) -> list[Finding]:
    """Whether the checkpoints of fits that are not finished are as they were written."""
    from pipelines.checkpoints.files import find_corruption

    wrong = [(path, said) for path in paths if path.is_file() and (said := find_corruption(path))]
    advice = "litlab resume puts it aside and takes the one before"
    if not paths:
        return [Finding("checkpoints", "no fit here is unfinished")]
    found = [todo("checkpoints", f"{path} is damaged, {said}: {advice}") for path, said in wrong]
    return found or [Finding("checkpoints", f"those of unfinished fits are whole ({len(paths)} files)")]
