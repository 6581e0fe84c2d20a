"""Four small runs, and their page."""

import pytest

from pipelines.commands.fit import main as fit
from tests.pipelines.reporting.pages import Page


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A store with four runs: two configurations, two seeds."""
    uri = f"sqlite:///{tmp_path_factory.mktemp('store') / 'mlflow.db'}"
    for dropout in ("0.1", "0.8"):
        for seed in ("0", "1"):
            short = ["--trainer.max_epochs", "2", "--model.dropout", dropout, "--seed_everything", seed]
            assert fit("fit", ["digits-mlp", *short, "--tracking_uri", uri]) == 0
    return uri


@pytest.fixture(scope="session")
def reported(trained, tmp_path_factory):
    """The page of these runs, and its file."""
    from pipelines.reporting.report import report

    path = tmp_path_factory.mktemp("report") / "digits.html"
    assert report(["digits-mlp"], out=path, tracking_uri=trained).missing == []
    return Page(path.read_text()), path
