"""Shared by all tests: a store of their own for the runs, the command in this process, small data in MNIST's format."""

import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read by torch; small models gain nothing from more

import pytest
import torch
from torch import Tensor

from datamodules.digits import Digits
from pipelines.cli import main


@dataclass
class Outcome:
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def run_id(self) -> str:
        """The run that `litlab fit` says it made."""
        lines = [line for line in self.out.splitlines() if line.startswith("run ")]
        assert lines, self.err
        return lines[0].split()[1]


@pytest.fixture(autouse=True)
def uri(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Every test has its own database; none can reach the project's."""
    uri = f"sqlite:///{tmp_path / 'runs' / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("COLUMNS", "200")
    return uri


@pytest.fixture
def litlab(capfd: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """The command, in this process."""

    def run(*args: str | Path) -> Outcome:
        capfd.readouterr()
        try:
            code = main([str(arg) for arg in args])
        except SystemExit as stop:  # argparse, after its help or --print_config
            code = int(stop.code or 0)
        return Outcome(code, *capfd.readouterr())

    return run


@pytest.fixture(scope="session")
def mnist_format(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """scikit-learn's digits in MNIST's files, for `MNIST(verify=False)`: 1,437 for training, 360 for the test."""
    folder = tmp_path_factory.mktemp("data")
    digits = Digits(n_val=200)
    for part, train in (("train", True), ("t10k", False)):
        images, labels = digits.load(train=train)
        write_idx(folder / f"MNIST/raw/{part}-images-idx3-ubyte", images[:, 0])
        write_idx(folder / f"MNIST/raw/{part}-labels-idx1-ubyte", labels.to(torch.uint8))
    return folder


def write_idx(path: Path, values: Tensor) -> None:
    """Write a uint8 tensor as an IDX file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    header = struct.pack(f">I{values.dim()}I", 0x0800 | values.dim(), *values.shape)
    path.write_bytes(header + values.numpy().tobytes())
