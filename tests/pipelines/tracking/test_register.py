"""`litlab register`: registered models remain when their experiment is deleted."""

import json
import subprocess
import sys

import pytest
import torch
from mlflow import MlflowClient

from datamodules.digits import Digits
from modules.mlp import MLP
from pipelines.commands.fit import main as fit
from pipelines.tracking.run import Run
from pipelines.tracking.store import Store

LOADER = """
import sys

OURS = {"pipelines", "modules", "datamodules", "sweeps"}


class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in OURS:
            raise ImportError(f"{name} is hidden")


sys.meta_path.insert(0, Refuse())
import json

import mlflow
import torch

uri, experiment_id, *models = sys.argv[1:]
mlflow.set_tracking_uri(uri)
torch.manual_seed(0)
images = torch.randint(0, 256, (5, 1, 28, 28), dtype=torch.uint8)
logits = [mlflow.pytorch.load_model(model)(images).tolist() for model in models]
mlflow.delete_experiment(experiment_id)
logits.append(mlflow.pytorch.load_model(models[-1])(images).tolist())
assert not (OURS | {"lightning"}) & {name.partition(".")[0] for name in sys.modules}
print(json.dumps(logits))
"""


def logits(uri, experiment_id, *models):
    """Return the logits of five images by each model, and by the last one once its experiment is deleted.

    They are from a process that cannot import litlab.
    """
    command = [sys.executable, "-P", "-W", "ignore", "-c", LOADER, uri, experiment_id, *models]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A store with two runs that have a model; each test uses its own names."""
    uri = f"sqlite:///{tmp_path_factory.mktemp('store') / 'mlflow.db'}"
    for seed in ("0", "1"):
        short = ["--trainer.max_epochs", "1", "--seed_everything", seed, "--tracking_uri", uri]
        assert fit("fit", ["digits-mlp", *short]) == 0
    store = Store(uri)
    return uri, [run.run_id for run in store.search([store.experiment_id("digits-mlp")], "", ["tags.seed ASC"])]


@pytest.fixture
def uri(trained, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", trained[0])
    return trained[0]


@pytest.fixture
def run_id(uri, trained):
    return trained[1][0]


@pytest.fixture
def other(uri, trained):
    return trained[1][1]


def test_a_model_predicts_as_its_checkpoint_without_litlab_and_after_its_experiment_is_deleted(litlab, uri, run_id):
    outcome = litlab("register", run_id, "digits", "--alias", "champion")
    assert (outcome.code, outcome.err) == (0, "")
    client = MlflowClient(uri)
    (logged,) = client.get_run(run_id).outputs.model_outputs
    experiment_id = client.get_run(run_id).info.experiment_id
    models = f"runs:/{run_id}/digits-mlp", f"models:/{logged.model_id}", "models:/digits/1", "models:/digits@champion"
    of_run, *others = logits(uri, experiment_id, *models)
    client.restore_experiment(experiment_id)  # fails unless it was deleted
    assert others == [of_run] * 4
    data = Digits()
    data.setup("fit")
    torch.manual_seed(0)
    images = torch.randint(0, 256, (5, 1, 28, 28), dtype=torch.uint8)
    checkpoint = Store(uri).find(run_id).file("checkpoints/best.ckpt")
    model = MLP.load_from_checkpoint(checkpoint, map_location="cpu", weights_only=True).eval()
    expected = model(data.normalize(images))
    assert len(expected.unique(dim=0)) == 5
    torch.testing.assert_close(torch.tensor(of_run), expected, atol=1e-5, rtol=1e-5)


def test_the_printed_code_loads_the_model(litlab, run_id, run_python):
    printed = litlab("register", run_id, "digits", "--alias", "champion").out.partition("import mlflow")
    program = "".join([*printed[1:], "import torch; print(model(torch.zeros(2, 1, 28, 28, dtype=torch.uint8)).shape)"])
    done = run_python(program)
    assert done.out.strip() == str(torch.Size([2, 10])), done.err


def test_a_version_records_its_origin(litlab, uri, run_id):
    litlab("register", run_id, "recorded")
    client = MlflowClient(uri)
    (version,) = client.search_model_versions("name = 'recorded'")
    run = client.get_run(run_id)
    (logged,) = run.outputs.model_outputs
    assert (version.run_id, version.source) == (run_id, f"models:/{logged.model_id}")
    for words in ("digits-mlp, seed 0", f"test/acc {run.data.metrics['test/acc']:.4f}", "selected/val/loss"):
        assert words in version.description
    assert run.data.tags["litlab.command"] in version.description
    assert version.tags["data.sha256.test"] == run.data.tags["data.sha256.test"]
    assert version.tags["seed"] == "0"


def test_registering_a_run_again_creates_no_second_version_and_moves_the_alias(litlab, uri, run_id, other):
    litlab("register", run_id, "moved", "--alias", "champion")
    second = litlab("register", other, "moved", "--alias", "champion")
    assert "version  2\n" in second.out
    assert "alias    champion (was version 1)" in second.out
    again = litlab("register", run_id, "moved", "--alias", "champion")
    assert again.code == 0
    assert "version  1 (already registered for this run)" in again.out
    assert "(unchanged)" in litlab("register", run_id, "moved", "--alias", "champion").out
    client = MlflowClient(uri)
    assert len(client.search_model_versions("name = 'moved'")) == 2
    assert client.get_model_version_by_alias("moved", "champion").run_id == run_id


def test_the_store_can_be_given_on_the_command_line(litlab, trained, monkeypatch, tmp_path):
    uri, (run_id, _) = trained
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'other.db'}")
    outcome = litlab("register", run_id, "elsewhere", "--tracking_uri", uri)
    assert outcome.code == 0, outcome.err
    assert len(MlflowClient(uri).search_model_versions("name = 'elsewhere'")) == 1
    assert not (tmp_path / "other.db").exists()


def test_one_run_can_be_registered_under_two_names(litlab, uri, run_id):
    assert litlab("register", run_id, "one").code == litlab("register", run_id, "two").code == 0
    assert {model.name for model in MlflowClient(uri).search_registered_models()} >= {"one", "two"}


@pytest.mark.parametrize(
    "wrong",
    [["a/b"], ["a:b"], ["a@b"], ["a?b"], [""], ["ok", "--alias", "v1"], ["ok", "--alias", "latest"]],
    ids=" ".join,
)
def test_an_invalid_name_or_alias_is_refused_before_anything_is_created(litlab, uri, run_id, wrong):
    outcome = litlab("register", run_id, *wrong)
    assert outcome.code == 2
    assert repr(wrong[0]) in outcome.err or f"--alias {wrong[-1]}" in outcome.err
    assert not {model.name for model in MlflowClient(uri).search_registered_models()} & {wrong[0], "ok"}


def test_keys_that_would_change_nothing_are_refused(litlab, uri, run_id):
    outcome = litlab("register", run_id, "keys", "--data.batch_size", "3")
    assert outcome.code == 2
    assert "has a model already: --data.batch_size would change nothing" in outcome.err


def test_runs_without_a_model_are_refused_with_an_alternative(litlab, uri, run_id):
    store = Store(uri)
    experiment = Run(store, "digits-mlp", "seeds", {"litlab.parent": "seeds"})
    empty = Run(store, "digits-mlp", "seeds", {"litlab.parent": "seeds"})
    killed = Run(store, "digits-mlp", "killed", {})
    killed.finish("KILLED")
    searched = Run(store, "digits-mlp", "trial", {"stage": "search", "study": "mine"})
    searched.finish("FINISHED")
    store.tag(run_id, "mlflow.parentRunId", experiment.run_id)
    expected = {
        experiment.run_id: run_id,
        empty.run_id: "none of its runs has one",
        killed.run_id: "is KILLED and has no model",
        searched.run_id: "litlab compare digits-mlp --filter",
        "0" * 32: "there is no run",
    }
    for named, words in expected.items():
        outcome = litlab("register", named, "x")
        assert outcome.code == 2
        assert words in outcome.err
    assert "x" not in {model.name for model in store.client.search_registered_models()}
