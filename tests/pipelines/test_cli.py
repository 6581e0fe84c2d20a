"""The command itself: what it imports, what it says, how it ends."""

import json
import subprocess
import sys

import pytest

from pipelines.cli import VERBS
from pipelines.config.experiments import FOLDER, experiment_names

HEAVY = {"torch", "lightning", "torchvision", "torchmetrics", "mlflow", "optuna", "matplotlib", "sklearn"}


@pytest.mark.parametrize(
    "args",
    [
        ["--help"],
        ["list"],
        ["list", "--json"],
        ["frobnicate"],
        ["ui", "--help"],
        ["doctor", "--help"],
        ["doctor", "--fx"],
        ["inspect", "--help"],
        ["test", "--help"],
        ["predict", "RUN_ID", "missing.png"],
        ["baseline", "svm-cubic", "circles"],
        ["baseline", "pca", "circles", "--C", "1"],
    ],
    ids=" ".join,
)
def test_light_commands_import_nothing_heavy(args):
    program = (
        f"import sys; from pipelines.cli import main\ntry: main({args})\nexcept SystemExit: pass\nprint(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not HEAVY & set(done.stdout.splitlines()[-1].split())


def test_list_names_every_experiment_file_with_its_data_and_model(litlab):
    rows = json.loads(litlab("list", "--json").out)
    assert [row["name"] for row in rows] == sorted(path.stem for path in FOLDER.iterdir())
    assert {"name": "mnist-mlp", "data": "MNIST", "model": "MLP"}.items() <= rows[
        [*experiment_names()].index("mnist-mlp")
    ].items()
    table = litlab("list").out
    assert all(row["name"] in table and row["description"][:30] in table for row in rows)


def test_an_unknown_verb_is_the_users_mistake_and_the_nearest_one_is_named(litlab):
    outcome = litlab("pedict", "x")
    assert outcome.code == 2
    assert "did you mean predict" in outcome.err


@pytest.mark.parametrize("verb", VERBS)
def test_help_fits_a_screen(litlab, verb):
    outcome = litlab(verb, "--help")
    assert outcome.code == 0
    lines = outcome.out.splitlines()
    assert 3 < len(lines) <= 24
    assert max(map(len, lines)) <= 80


def test_the_whole_of_lightnings_help_is_one_flag_away(litlab):
    outcome = litlab("fit", "--full-help")
    assert outcome.code == 0
    assert "--trainer.gradient_clip_val" in outcome.out


def test_help_of_a_model_lists_its_arguments(litlab):
    outcome = litlab("fit", "--model.help", "modules.convnet.ConvNet")
    assert outcome.code == 0
    assert "--model.kernel_size" in outcome.out
    assert "--model.lr_scheduler" in outcome.out


@pytest.mark.parametrize("args", [["list", "--json"], ["--help"]], ids=" ".join)
def test_nobody_reads_on_and_that_is_no_error(args):
    program = f"import sys; from pipelines.cli import main; sys.exit(main({args}))"
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()  # as head does
        assert process.stderr.read() == b""
    assert process.returncode == 141
