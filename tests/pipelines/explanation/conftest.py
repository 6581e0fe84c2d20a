"""A small network that was really trained, once for all tests of looking inside, and the command in this process."""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipelines.commands.fit import main as fit
from pipelines.explanation.explain import main
from pipelines.explanation.target import Target, parse
from pipelines.runtime.errors import UserError
from pipelines.tracking.store import Store


@dataclass
class Looked:
    """What a command did, and the files that it wrote."""

    code: int
    out: str
    err: str
    folder: Path


@pytest.fixture(scope="session")
def looked_at(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """The store and the id of a run: digits-convnet after three epochs."""
    uri = f"sqlite:///{tmp_path_factory.mktemp('looked_at') / 'mlflow.db'}"
    assert fit("fit", ["digits-convnet", "--trainer.max_epochs", "3", "--tracking_uri", uri]) == 0
    store = Store(uri)
    (run,) = store.search([store.experiment_id("digits-convnet")], "")
    return uri, run.run_id


@pytest.fixture(scope="session")
def subject(looked_at: tuple[str, str]) -> Target:
    """The network of that run, ready to be looked at."""
    uri, run_id = looked_at
    return parse("maximise", [run_id, "--tracking_uri", uri], argparse.ArgumentParser())[0]


@pytest.fixture
def explain(looked_at: tuple[str, str], capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Callable[..., Looked]:
    """`litlab explain WORD ...` on that run, or without RUN_ID where another network is named."""
    uri, run_id = looked_at

    def look(word: str, *args: str | Path, run: bool = True) -> Looked:
        capfd.readouterr()
        named = [run_id, "--tracking_uri", uri] if run else []
        folder = tmp_path / "explain"
        try:
            code = main("explain", [word, *named, *map(str, args), "--out", str(folder)])
            return Looked(code, *capfd.readouterr(), folder)
        except UserError as error:
            return Looked(2, capfd.readouterr().out, str(error), folder)

    return look
