"""Checks that need torch, in a process of their own: if torch crashes there, the command reports it and continues.

The process sends its results step by step. If it ends without sending any, the current step is the broken one.
"""

import multiprocessing
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from pipelines.diagnostics.check import CheckResult, failed, run_check

TIMEOUT_S = 180.0
STEPS = ("torch", "GPUs", "MNIST", "CIFAR-10", "checkpoints")
NVIDIA_DRIVER = Path("/proc/driver/nvidia/version")
REINSTALL = "install both at once: pip install --force-reinstall torch torchvision"


class TorchProcess:
    """The process. It starts at once.

    Args:
        data_dir: Where data sets are.
    """

    def __init__(self, data_dir: Path) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, other = context.Pipe()
        self._process = context.Process(target=run_checks, args=(other, data_dir), daemon=True)
        self._process.start()
        other.close()

    def results(self, checkpoints: Sequence[Path]) -> Iterator[CheckResult]:
        """Yield the results as they come; `checkpoints` are checked last."""
        try:
            with suppress(BrokenPipeError, ConnectionResetError):  # what it sent before it ended is still to be read
                self._connection.send(list(checkpoints))
            yield from self._received()
        finally:
            self._process.kill()
            self._process.join()

    def _received(self) -> Iterator[CheckResult]:
        deadline = time.monotonic() + TIMEOUT_S
        for step in STEPS:
            try:
                if not self._connection.poll(max(0.0, deadline - time.monotonic())):
                    yield failed(step, f"no answer after {TIMEOUT_S:g} s: try python -c 'import torch, torchvision'")
                    return
                results: list[CheckResult] | None = self._connection.recv()
            except (EOFError, OSError):
                yield self._broken(step)
                return
            if results is None:  # nothing more can be checked without torch
                return
            yield from results

    def _broken(self, step: str) -> CheckResult:
        self._process.join(TIMEOUT_S)
        code = self._process.exitcode
        how = f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
        return failed(step, f"Python itself ended ({how}) when torch was used: {REINSTALL}")


def run_checks(connection: Connection, data_dir: Path) -> None:
    """Run the checks in this process, and send their results: a list for each step, None if torch does not work."""
    for descriptor in (1, 2):  # hide what libraries print
        os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)
    results = run_check(lambda: [_torch()], STEPS[0])
    connection.send(results)
    if results[0].state != "ok":
        connection.send(None)
        return
    connection.send(run_check(lambda: [_gpus()], STEPS[1]))
    connection.send(run_check(lambda: [_mnist(data_dir)], STEPS[2]))
    connection.send(run_check(lambda: [_cifar(data_dir)], STEPS[3]))
    checkpoints = connection.recv()
    connection.send(run_check(lambda: _checkpoints(checkpoints), STEPS[4]))


def _torch() -> CheckResult:
    """Import both, and run a compiled operator of torchvision, which works only with the torch it was built for."""
    try:
        import torch
        import torchvision

        boxes_N4 = torch.tensor([[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 2.0, 2.0]])
        indices = torchvision.ops.nms(boxes_N4, torch.tensor([0.9, 0.8]), 0.5).tolist()
    except Exception as error:  # ImportError, OSError, RuntimeError: it depends on what is broken
        reason = (str(error).splitlines() or [""])[0]
        return failed("torch", f"cannot be used ({type(error).__name__}: {reason}): {REINSTALL}")
    if indices != [0]:
        return failed("torch", f"torchvision.ops.nms returns {indices}, not [0]: {REINSTALL}")
    return CheckResult("torch", f"{torch.__version__} and torchvision {torchvision.__version__} import and run")


def _gpus() -> CheckResult:
    import torch

    if torch.cuda.is_available():
        return _cuda(torch)
    if torch.backends.mps.is_available():
        return CheckResult("GPUs", "Apple, by MPS")
    driver = NVIDIA_DRIVER.read_text().splitlines()[0] if NVIDIA_DRIVER.is_file() else ""
    if driver and torch.version.cuda is None:
        return failed("GPUs", f"there is a driver ({driver}), but this torch has no CUDA: install one that has")
    if driver:
        return failed(
            "GPUs", f"torch, built for CUDA {torch.version.cuda}, cannot use the driver: {driver}; see nvidia-smi"
        )
    return CheckResult("GPUs", "none: training runs on the CPU")


def _cuda(torch: Any) -> CheckResult:
    names = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    for number in range(len(names)):
        torch.ones(8, device=f"cuda:{number}").sum().item()
    return CheckResult("GPUs", f"{len(names)} by CUDA {torch.version.cuda}, each ran an addition: {', '.join(names)}")


def _mnist(data_dir: Path) -> CheckResult:
    if not (data_dir / "MNIST" / "raw").is_dir():
        return _missing("MNIST", data_dir, "mnist-mlp", "MNIST/raw")
    from datamodules.mnist import MNIST, OFFICIAL_SHA256

    data = MNIST(data_dir=str(data_dir))
    for train in (True, False):
        try:
            data.load(train=train)
        except (ValueError, OSError) as error:
            return failed("MNIST", f"{error}; move it away: litlab fit mnist-mlp downloads it again")
    return CheckResult("MNIST", f"the {len(OFFICIAL_SHA256)} files in {data_dir} are the official ones, by SHA-256")


def _cifar(data_dir: Path) -> CheckResult:
    if not any((data_dir / name).is_dir() for name in ("cifar-10-batches-py", "cifar10")):
        return _missing("CIFAR-10", data_dir, "cifar-base", "cifar-10-batches-py or cifar10/train and cifar10/test")
    from datamodules.cifar10 import CIFAR10

    data = CIFAR10(data_dir=str(data_dir))
    official = data.files == "official"
    try:
        if official:
            data.load(train=True)  # checks each of the files, those of the test set too
        else:
            data.download()  # for image files, only checks that all classes are there
    except (ValueError, OSError) as error:
        return failed("CIFAR-10", f"{error}; move it away: litlab fit cifar-base downloads it again")
    message = "the files are the official ones, by MD5" if official else "image files, all ten classes in both parts"
    return CheckResult("CIFAR-10", f"{message} ({data_dir})")


def _missing(name: str, data_dir: Path, experiment: str, holds: str) -> CheckResult:
    advice = f"litlab fit {experiment} downloads it, or --data_dir FOLDER, the folder that holds {holds}"
    return CheckResult(name, f"not in {data_dir.absolute()}: {advice}")


def _checkpoints(paths: Sequence[Path]) -> list[CheckResult]:
    """Check that the checkpoints of unfinished fits are as they were written."""
    from pipelines.checkpoints.files import find_corruption

    corrupt = [(path, reason) for path in paths if path.is_file() and (reason := find_corruption(path))]
    advice = "litlab resume renames it and continues from the previous one"
    if not paths:
        return [CheckResult("checkpoints", "there are no unfinished fits")]
    results = [failed("checkpoints", f"{path} is damaged, {reason}: {advice}") for path, reason in corrupt]
    return results or [CheckResult("checkpoints", f"those of unfinished fits are undamaged ({len(paths)} files)")]
