"""Fixtures for all tests: a tracking store per test, the command in this process, small data in MNIST's format."""

import gc
import importlib
import multiprocessing
import os
import shutil
import signal
import sqlite3
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read by torch; small models gain nothing from more
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # in the background of a shell; child processes inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)

import numpy as np
import pytest

from pipelines.cli import main
from pipelines.config.experiments import describe_experiment
from pipelines.runtime import figure_style
from pipelines.runtime.log import configure_logging
from pipelines.runtime.process import GC_THRESHOLDS
from pipelines.tracking.store import Store
from sweeps.workers import pool
from tests import quick_disk, small_figures
from tests.mlflow_server import Server, free_tcp_port
from tests.warm import COMMAND, WarmProcess, WarmServer

if TYPE_CHECKING:
    import sqlalchemy
    from lightning.pytorch import Trainer

LONG = ("tests/sweeps/", "tests/test_", "tests/pipelines/")  # files with tests that take seconds; the longest first
configure_logging()  # messages are printed in tests that call no command, too


@dataclass
class Outcome:
    """Exit code and output of a command."""

    code: int
    out: str
    err: str

    @property
    def run_id(self) -> str:
        """The run id that `litlab fit` has printed."""
        lines = [line for line in self.out.splitlines() if line.startswith("run ")]
        assert lines, self.err
        return lines[0].split()[1]


def pytest_sessionstart(session: pytest.Session) -> None:
    """Import what nearly all tests need, but not in a process that only distributes the tests to others."""
    if session.config.getoption("numprocesses", None) and not hasattr(session.config, "workerinput"):
        return
    for name in ("mlflow", "lightning.pytorch", "mlflow.store.db.utils"):
        importlib.import_module(name)


@pytest.fixture(scope="session", autouse=True)
def imports_of_workers() -> None:
    """Let the fork server of sweeps import what their trainings on digits need, once for all of them."""
    pool.PRELOAD += ["datamodules.digits", "sklearn.datasets", "modules.mlp", "torch._dynamo", "torch.export._trace"]
    pool.PRELOAD += [quick_disk.__name__, small_figures.__name__]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run long files first, so that no process waits at the end for another one with a long file."""
    items.sort(key=lambda item: [not item.nodeid.startswith(folder) for folder in LONG])


def pytest_collection_finish() -> None:
    """Do not search the millions of objects of the imported modules for garbage, again and again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)


@pytest.fixture
def full_size_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw the figures of this process with the resolution that users get."""
    monkeypatch.setattr(figure_style, "STYLE_FILE", small_figures.STYLE_FILE)


@pytest.fixture(scope="module")
def garbage_of_earlier_files_stays() -> None:
    """Leave what earlier files have left out of searches: Lightning's search for a batch size makes one per try."""
    gc.freeze()


def pytest_unconfigure() -> None:
    """Let libraries find their objects when they check for leaks."""
    gc.unfreeze()


@pytest.fixture(autouse=True)
def environment_is_restored() -> Iterator[None]:
    """Restore the environment variables after each test: Lightning leaves its seed there, for later trainings."""
    os.environ.pop("PL_GLOBAL_SEED", None)  # from a fixture of a module
    before = dict(os.environ)
    yield
    for name in os.environ.keys() - before.keys():
        del os.environ[name]
    os.environ.update(before)


@pytest.fixture(autouse=True)
def uri(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Give every test its own database, cache, state and folder of unsent data; none can reach the project's."""
    uri = f"sqlite:///{tmp_path / 'runs' / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("LITLAB_UNSENT", str(tmp_path / "unsent"))
    monkeypatch.setenv("LITLAB_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return uri


@pytest.fixture(scope="session", autouse=True)
def tables_are_copied() -> Iterator[None]:
    """Copy the tables of all databases of runs from the first one: MLflow's migrations take a second.

    Their version, for which MLflow reads all migrations whenever it opens a database, is read once.
    """
    import sqlalchemy
    from mlflow.store.db import utils as db_utils

    migrate, tables = db_utils._initialize_tables, sqlite3.connect(":memory:", check_same_thread=False)

    def initialize(engine: "sqlalchemy.Engine") -> None:
        is_new = engine.dialect.name == "sqlite" and not sqlalchemy.inspect(engine).get_table_names()
        has_tables = tables.execute("SELECT count(*) FROM sqlite_master").fetchone() != (0,)
        if not (is_new and has_tables):
            migrate(engine)
        if is_new:
            with closing(engine.raw_connection()) as connection:
                if has_tables:
                    tables.backup(connection.driver_connection)
                else:
                    connection.driver_connection.backup(tables)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(db_utils, "_initialize_tables", initialize)
        patch.setattr(db_utils, "_get_latest_schema_revision", cache(db_utils._get_latest_schema_revision))
        yield
    tables.close()


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database of runs with its tables, whose creation takes a second."""
    path = tmp_path_factory.mktemp("empty") / "mlflow.db"
    Store(f"sqlite:///{path}")
    return path


@pytest.fixture
def tables(uri: str, empty_store: Path) -> None:
    """Start the test with a database that has its tables; for files in which nearly every test creates runs."""
    path = Path(uri.removeprefix("sqlite:///"))
    path.parent.mkdir()
    shutil.copy(empty_store, path)


@pytest.fixture
def mlflow_store() -> Iterator[Callable[[str], None]]:
    """`mlflow.set_tracking_uri`, which sets it for the process; it is reset after the test."""
    import mlflow

    yield mlflow.set_tracking_uri
    mlflow.set_tracking_uri(None)


@pytest.fixture(scope="session")
def mlflow_server() -> Callable[..., AbstractContextManager[Server]]:
    """Return a context manager that runs a server in a folder; its database is there unless another is given."""

    @contextmanager
    def serve(folder: Path, database: str = "") -> Iterator[Server]:
        server = Server(folder, database or f"sqlite:///{folder}/mlflow.db")
        try:
            server.start()
            yield server
        finally:
            server.kill()

    return serve


@pytest.fixture(scope="session")
def free_port() -> Callable[[], int]:
    """Return a function that finds a free port."""
    return free_tcp_port


@pytest.fixture
def litlab(capfd: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Return a function that runs the command in this process."""

    def run(*args: str | Path) -> Outcome:
        capfd.readouterr()
        try:
            code = main([str(arg) for arg in args])
        except SystemExit as stop:  # argparse, after its help or --print_config
            code = int(stop.code or 0)
        return Outcome(code, *capfd.readouterr())

    return run


@pytest.fixture
def strangers(monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make the modules of `tests/fixtures/strangers`, which know nothing of litlab, importable; return their folder."""
    folder = Path(__file__).parent / "fixtures" / "strangers"
    monkeypatch.syspath_prepend(str(folder))
    paths = [str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))  # for processes that a test starts
    return folder


@pytest.fixture
def tiny_network(monkeypatch: pytest.MonkeyPatch) -> str:
    """Make the package of a small published network importable; return the class path of its function."""
    folder = str(Path(__file__).parent / "fixtures" / "networks")
    monkeypatch.syspath_prepend(folder)
    paths = [folder, *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))  # for processes that a test starts
    return "tiny_network.build"


@pytest.fixture(scope="session")
def start_python() -> Iterator[Callable[..., subprocess.Popen[Any]]]:
    """Return a function that starts `python -c PROGRAM ARGUMENTS`, see `tests.warm`. It takes options of Popen."""
    server = WarmServer() if sys.platform == "linux" else None

    def start(program: str, *args: str | Path, **options: Any) -> subprocess.Popen[Any]:
        arguments = [str(arg) for arg in args]
        if server is None:
            return subprocess.Popen([sys.executable, "-c", program, *arguments], **options)
        return WarmProcess(server, program, *arguments, **options)

    yield start
    if server is not None:
        server.close()


@pytest.fixture(scope="session")
def run_python(start_python: Callable[..., subprocess.Popen[Any]]) -> Callable[..., Outcome]:
    """Return a function that runs `python -c PROGRAM ARGUMENTS` to its end."""

    def run(program: str, *args: str | Path, **options: Any) -> Outcome:
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        process = start_python(program, *args, **pipes, **options)
        try:
            out, err = process.communicate(timeout=300)
        finally:
            process.kill()
        return Outcome(process.returncode, out, err)

    return run


@pytest.fixture(scope="session")
def start_litlab(start_python: Callable[..., subprocess.Popen[Any]]) -> Callable[..., subprocess.Popen[Any]]:
    """Return a function that starts the command in another process, with options of Popen."""
    return partial(start_python, COMMAND)


@pytest.fixture
def at_once() -> Callable[..., None]:
    """Return a function that runs `work` in several processes, with a barrier as last argument; all must succeed."""
    fork = multiprocessing.get_context("fork")

    def run(number: int, work: Callable[..., None], *args: Any) -> None:
        barrier = fork.Barrier(number)
        processes = [fork.Process(target=work, args=(*args, barrier)) for _ in range(number)]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        assert [process.exitcode for process in processes] == [0] * number

    return run


@pytest.fixture
def set_precision() -> Iterator[Callable[[Any, str], None]]:
    """Return a function that sets `fp32_precision` of a part of `torch.backends`, until the end of the test."""
    with ExitStack() as stack:

        def set_until_end(backend: Any, precision: str) -> None:
            stack.callback(setattr, backend, "fp32_precision", backend.fp32_precision)
            backend.fp32_precision = precision

        yield set_until_end


@pytest.fixture
def make_trainer(tmp_path: Path) -> "Callable[..., Trainer]":
    """Return a function that creates a quiet Trainer on the CPU, which writes no files."""
    from lightning.pytorch import Trainer

    def make(**kwargs: Any) -> Trainer:
        quiet: dict[str, Any] = {
            "logger": False,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "num_sanity_val_steps": 0,
        }
        return Trainer(**{"accelerator": "cpu", "devices": 1, "default_root_dir": tmp_path, **quiet, **kwargs})

    return make


@pytest.fixture(scope="session")
def write_idx() -> Callable[[Path, np.ndarray], Path]:
    """Return a function that writes an array as an IDX file of unsigned bytes."""

    def write(path: Path, values: np.ndarray) -> Path:
        header = struct.pack(f">I{values.ndim}I", 0x0800 | values.ndim, *values.shape)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(header + values.astype(np.uint8).tobytes())
        return path

    return write


@pytest.fixture(scope="session")
def mnist_format(tmp_path_factory: pytest.TempPathFactory, write_idx: Callable[[Path, np.ndarray], Path]) -> Path:
    """scikit-learn's digits in MNIST's file format, for `MNIST(verify=False)`: 1,437 for training, 360 for test."""
    from datamodules.digits import Digits

    folder = tmp_path_factory.mktemp("data")
    for part, train in (("train", True), ("t10k", False)):
        images, labels = Digits().load(train=train)
        write_idx(folder / f"MNIST/raw/{part}-images-idx3-ubyte", images[:, 0].numpy())
        write_idx(folder / f"MNIST/raw/{part}-labels-idx1-ubyte", labels.numpy())
    return folder


@pytest.fixture(scope="session")
def cifar_format(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """scikit-learn's digits as 32x32 colour images in CIFAR-10's folders: per class 40 for training, 10 for test."""
    from PIL import Image

    from datamodules.cifar10 import CIFAR10
    from datamodules.digits import Digits

    folder = tmp_path_factory.mktemp("colour")
    for part, train, count in (("train", True, 40), ("test", False, 10)):
        images, labels = Digits().load(train=train)
        for number, name in enumerate(CIFAR10.classes):
            (folder / "cifar10" / part / name).mkdir(parents=True)
            for index, pixels in enumerate(images[labels == number][:count]):
                picture = Image.fromarray(pixels[0].numpy()).resize((32, 32)).convert("RGB")
                picture.save(folder / "cifar10" / part / name / f"{index:04}.png")
    return folder


@pytest.fixture(scope="session")
def small(mnist_format: Path, cifar_format: Path) -> Callable[[str], list[str]]:
    """Return a function with the arguments that run an experiment on small data in its format, without a download."""
    mnist_args = ["--data.data_dir", str(mnist_format), "--data.verify", "false", "--data.n_val", "200"]
    cifar_args = ["--data.data_dir", str(cifar_format), "--data.n_val", "100"]
    folders = ["--data.data_dir", str(cifar_format / "cifar10"), "--data.size", "32"]
    folder_args = [*folders, "--model.pretrained", "false", "--model.image_size", "32"]
    sources = {"MNIST": mnist_args, "PairedDigits": mnist_args, "CIFAR10": cifar_args, "ImageFolder": folder_args}

    def arguments(name: str) -> list[str]:
        return [name, *sources.get(describe_experiment(name)["data"], [])]

    return arguments
