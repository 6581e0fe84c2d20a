"""Checks that need torch, in a process of their own: if torch crashes there, the command reports it and continues.

The process prints a JSON object for each result. If it ends before the last step, that step is the broken one.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from importlib.metadata import requires, version
from pathlib import Path
from typing import Any

from pipelines.diagnostics.check import CheckResult, Context, failed, run_check

TIMEOUT_S = 180.0
STEPS = ("torch", "GPUs", "MNIST", "CIFAR-10")
NVIDIA_DRIVER = Path("/proc/driver/nvidia/version")
REINSTALL = "install both at once: pip install --force-reinstall torch torchvision"


def check_torch_pair(context: Context) -> Iterator[CheckResult]:
    """Check that torchvision was built for this torch, which its metadata name. Imports neither."""
    from packaging.requirements import Requirement

    here = f"torch {version('torch')} and torchvision {version('torchvision')}"
    required = [item for item in map(Requirement, requires("torchvision") or []) if item.name == "torch"]
    if all(item.specifier.contains(version("torch"), prereleases=True) for item in required):
        yield CheckResult("torch pair", f"{here}, which requires {required[0] if required else 'no certain torch'}")
    else:
        yield failed("torch pair", f"{here} do not match: torchvision requires {required[0]}; {REINSTALL}")


def start(data_dir: Path) -> subprocess.Popen[str]:
    """Start the process; `data_dir` is where data sets are."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-P", "-m", __name__, str(data_dir.expanduser())]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


def results(process: subprocess.Popen[str]) -> Iterator[CheckResult]:
    """Wait for the results of the process, and yield them."""
    reason = ""
    try:
        output, _ = process.communicate(timeout=TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        output, _ = process.communicate()
        reason = f"no answer after {TIMEOUT_S:g} s: try python -c 'import torch, torchvision'"
    found = [CheckResult(**json.loads(line)) for line in output.splitlines()]
    yield from found
    if process.returncode:
        code = process.returncode
        ended = f"signal {-code}" if code < 0 else f"exit code {code}"
        reason = reason or f"Python itself ended ({ended}) when torch was used: {REINSTALL}"
        yield failed(STEPS[len(found)], reason)


def main(data_dir: Path) -> None:
    """Run the checks in this process, and print their results. Without a working torch, nothing more can be checked."""
    data_checks = partial(_mnist, data_dir), partial(_cifar, data_dir)
    checks: tuple[Callable[[], CheckResult], ...] = (_torch, _gpus, *data_checks)
    with os.fdopen(os.dup(1), "w") as stdout:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # hide what libraries print
        for step, check in zip(STEPS, checks, strict=True):
            (result,) = run_check(partial(_only, check), step)
            print(json.dumps(asdict(result)), file=stdout, flush=True)
            if step == "torch" and result.state != "ok":
                return


def _only(check: Callable[[], CheckResult]) -> Iterator[CheckResult]:
    yield check()


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
        built = f"torch, built for CUDA {torch.version.cuda}"
        return failed("GPUs", f"{built}, cannot use the driver: {driver}; see nvidia-smi")
    return CheckResult("GPUs", "none: training runs on the CPU")


def _cuda(torch: Any) -> CheckResult:
    names = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    for number in range(len(names)):
        torch.ones(8, device=f"cuda:{number}").sum().item()
    return CheckResult("GPUs", f"{len(names)} by CUDA {torch.version.cuda}, each ran an addition: {', '.join(names)}")


def _mnist(data_dir: Path) -> CheckResult:
    from datamodules.mnist import MNIST, OFFICIAL_SHA256

    if not any((data_dir / "MNIST" / "raw" / name).exists() for name in OFFICIAL_SHA256):
        return _missing("MNIST", data_dir, "mnist-mlp", "MNIST/raw")

    data = MNIST(data_dir=str(data_dir))
    for train in (True, False):
        try:
            data.load(train=train)
        except (ValueError, OSError) as error:
            return failed("MNIST", f"{error}; move it away: litlab fit mnist-mlp downloads it again")
    return CheckResult("MNIST", f"the {len(OFFICIAL_SHA256)} files in {data_dir} are the official ones, by SHA-256")


def _cifar(data_dir: Path) -> CheckResult:
    if not any(any((data_dir / name).glob("*")) for name in ("cifar-10-batches-py", "cifar10")):
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


if __name__ == "__main__":
    main(Path(sys.argv[1]))
