"""A small trained network, shared by all tests of explanations, and `litlab explain` in this process."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipelines.commands.explain import main
from pipelines.commands.fit import main as fit
from pipelines.explanation.load_target import load_target
from pipelines.explanation.target import Target
from pipelines.runtime.errors import UserError
from pipelines.tracking.store import Store


@dataclass
class Outcome:
    """What a command returned and printed, and the folder of its files."""

    code: int
    out: str
    err: str
    folder: Path


@pytest.fixture(scope="session")
def explained_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """The tracking URI and the id of a run: digits-convnet after three epochs."""
    uri = f"sqlite:///{tmp_path_factory.mktemp('explained_run') / 'mlflow.db'}"
    short = ["--trainer.max_epochs", "3", "--trainer.accelerator", "cpu"]
    assert fit("fit", ["digits-convnet", *short, "--tracking_uri", uri]) == 0
    store = Store(uri)
    (run,) = store.search([store.experiment_id("digits-convnet")], "")
    return uri, run.run_id


@pytest.fixture(scope="session")
def target(explained_run: tuple[str, str]) -> Target:
    """The network of that run."""
    uri, run_id = explained_run
    return load_target(run_id, tracking_uri=uri)


@pytest.fixture
def explain(
    explained_run: tuple[str, str], capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> Callable[..., Outcome]:
    """`litlab explain METHOD ...` on that run, or without RUN_ID if another network is named."""
    uri, run_id = explained_run

    def run_command(method: str, *args: str | Path, run: bool = True) -> Outcome:
        capfd.readouterr()
        named = [run_id, "--tracking_uri", uri] if run else []
        folder = tmp_path / "explain"
        try:
            code = main("explain", [method, *named, *map(str, args), "--out", str(folder)])
            return Outcome(code, *capfd.readouterr(), folder)
        except UserError as error:
            return Outcome(2, capfd.readouterr().out, str(error), folder)

    return run_command
