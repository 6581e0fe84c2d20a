"""Mistakes that can be seen in the command line or the YAML are reported before anything heavy is imported."""

import inspect
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from lightning.pytorch import Trainer

from pipelines.config.arguments import KEYS
from pipelines.config.cli import LitlabCLI
from pipelines.config.suggestions import COMMON_TRAINER_KEYS
from tests.pipelines.test_cli import HEAVY

FILES = {
    "typo.yaml": "modl: {class_path: modules.mlp.MLP}\n",
    "dotted.yaml": "modle.dropout: 0.3\n",
    "broken.yaml": "data: [\n",
    "list.yaml": "- data\n",
    "twice.yaml": "data: {class_path: datamodules.digits.Digits}\nmodel: {dropout: 1}\ndata: 3\n",
    "space.yaml": "experiment: digits-mpl\nspace: {model.dropout: [0.1]}\n",
    "space_key.yaml": "experiment: digits-mlp\nspace: {modl.dropout: [0.1]}\nsampler: grid\n",
}
UNKNOWN_EXPERIMENT = "there is no experiment 'digits-mpl'. Did you mean digits-mlp"
MODL = "unknown key modl.dropout: did you mean model.dropout?"
NO_FILE = "nofile.yaml: no such file"
OF_EXPERIMENTS = ("fit", "fit --seeds 2", "tune lr", "inspect", "baseline svm-rbf")
OF_RUNS = ("test", "validate", "predict", "resume", "explain saliency")
CASES = {
    **{f"{verb} digits-mpl": UNKNOWN_EXPERIMENT for verb in OF_EXPERIMENTS},
    **{f"{verb} nofile.yaml": NO_FILE for verb in OF_EXPERIMENTS},
    **{f"{verb} digits-mlp --modl.dropout 0.3": MODL for verb in OF_EXPERIMENTS},
    **{f"{verb} digits-mlp --modl.dropout=0.3": MODL for verb in OF_EXPERIMENTS},
    **{f"{verb} abcd --modl.dropout 0.3": MODL for verb in OF_RUNS},
    **{f"{verb} abcd model.dropout=0.3": "" for verb in OF_RUNS},
    "fit -c nofile.yaml": NO_FILE,
    "fit digits-mlp --weights nofile.ckpt": "nofile.ckpt: no such file",
    "fit --ckpt_path folder/last": "folder/last: no such file",
    "explain saliency --checkpoint nofile.ckpt": "nofile.ckpt: no such file",
    "explain saliency --torchvision resnet18 --weights no.pth": "no.pth: no such file",
    "fit digits-mlp --tracking_uri ./mlruns": "tracking_uri './mlruns': expected sqlite:///FILE",
    "fit digits-mlp --seeds x": "--seeds: invalid int value: 'x'",
    "tune foo digits-mlp": "name what to tune first",
    "tune lr": "name an experiment first",
    "test a b": "unexpected argument 'b': name one run",
    "predict abcd nofile.png": "nofile.png: no such file",
    "report --fomat x": "unknown option --fomat",
    "explain saliency": "name one network",
    "inspect digits-mlp -c nofile.yaml": NO_FILE,
    "fit -c typo.yaml": "typo.yaml: unknown key modl: did you mean model?",
    "fit digits-mlp -c dotted.yaml": "dotted.yaml: unknown key modle.dropout: did you mean model?",
    "fit -c broken.yaml": "broken.yaml: not readable as YAML",
    "fit list.yaml": "list.yaml: expected keys and values (data, model, trainer), found list",
    "tune lr -c twice.yaml": "twice.yaml: data is given twice, in line 1 and in line 3",
    "fit": "usage: litlab fit",
    "fit --model.dropout 0.3": "name an experiment first",
    "fit digits-mlp digits-convnet": "unexpected argument 'digits-convnet': one experiment at a time",
    "fit digits-mlp --lr 0.1": "unknown key lr: did you mean model.optimizer.lr?",
    "fit digits-mlp --epochs 3": "unknown key epochs: did you mean trainer.max_epochs?",
    "fit digits-mlp --gradient_clip_val 1": "did you mean trainer.gradient_clip_val?",
    "fit digits-mlp --pool max": "unknown key pool: did you mean",  # a key of other experiments
    "fit digits-mlp --tracking-uri x": "unknown key tracking-uri: did you mean tracking_uri?",
    "fit digits-mlp --truts": "unknown key truts: did you mean trust?",
    "fit digits-mlp -x 3": "unknown key -x",
    "fit digits-mlp --frobnicate": "unknown key frobnicate: litlab fit --full-help lists the keys",
    "fit digits-mlp model.dropout=0.3": "model.dropout=0.3: write --model.dropout 0.3",
    "fit --trainer.max_epochs 1 digits-mlp seed_everything=3": "write --seed_everything 3",
    "tune lr digits-mlp trainer.max_epochs=2": "write --trainer.max_epochs 2",
    "sweep digits-mlp trainer.max_epochs=2": "write --trainer.max_epochs 2",
    "sweep nospace": "there is no space 'nospace'",
    "sweep nofile.yaml": NO_FILE,
    "sweep digits-mlp --modl.dropout 0.3": f"digits-mlp: {MODL}",
    "sweep -c space.yaml --trials 1": UNKNOWN_EXPERIMENT,
    "sweep -c space_key.yaml": MODL,
    "register abcd name --modl.dropout 3": MODL,
    "compare --fomat json": "unknown option --fomat: did you mean --format?",
    "explain salency abcd": "did you mean saliency?",
    "pedict abcd": "did you mean predict?",
}
HELP = ("explain saliency", "sweep status", "sweep best", "fit --seeds 2")
PROGRAM = """
import contextlib, io, json, sys
from pipelines.cli import main
outcomes = {}
for case in json.load(sys.stdin):
    out = io.StringIO()
    with contextlib.redirect_stderr(out), contextlib.redirect_stdout(out):
        try:
            code = main(case.split())
        except SystemExit as stop:
            code = stop.code
    outcomes[case] = code, out.getvalue(), [name for name in %r if name in sys.modules]
print(json.dumps(outcomes))
"""


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """Exit code, output and heavy imports of every case, all in one process."""
    folder = tmp_path_factory.mktemp("mistakes")
    for name, text in FILES.items():
        (folder / name).write_text(text)
    command = [sys.executable, "-c", PROGRAM % sorted(HEAVY)]
    cases = [*CASES, *(f"{verb} --help" for verb in HELP)]
    given = {"input": json.dumps(cases), "cwd": folder, "env": {**os.environ, "PYTHONPATH": str(Path.cwd())}}
    done = subprocess.run(command, capture_output=True, text=True, check=True, **given)
    assert {path.name for path in folder.iterdir()} == {*FILES}, "nothing is written"
    return json.loads(done.stdout)


@pytest.mark.parametrize("case", CASES)
def test_a_mistake_in_the_command_line_or_the_yaml_imports_nothing_heavy(outcomes, case):
    code, output, imported = outcomes[case]
    assert code == 2
    assert CASES[case] in output
    assert imported == []


def test_an_unknown_run_sampler_or_pruner_is_refused_before_torch_is_imported(uri, tables):
    cases = [f"{verb} no-such-run" for verb in OF_RUNS]
    cases += ["sweep digits-mlp --sampler nosuch", "sweep digits-mlp --pruner nosuch"]
    command = [sys.executable, "-c", PROGRAM % ["torch"]]
    done = subprocess.run(command, capture_output=True, text=True, check=True, input=json.dumps(cases))
    for case, (code, output, imported) in json.loads(done.stdout).items():
        assert (code, imported) == (2, []), case
        assert "no run 'no-such-run'" in output or "it must be one of" in output


@pytest.mark.parametrize("verb", HELP)
def test_the_help_of_a_verbs_verb_imports_nothing_heavy(outcomes, verb):
    code, output, imported = outcomes[f"{verb} --help"]
    assert (code, imported) == (0, [])
    assert output.startswith("usage: litlab ")


def test_a_mistake_takes_a_fraction_of_a_second_of_cpu():
    start = os.times()
    command = [sys.executable, "-m", "litlab", "fit", "digits-mpl"]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 2
    end = os.times()
    seconds = end.children_user + end.children_system - start.children_user - start.children_system
    assert seconds < 0.6  # 0.07 on a quiet machine


def test_the_names_that_are_checked_early_are_those_of_the_parser():
    parser = LitlabCLI(["--model=modules.mlp.MLP", "--data=datamodules.digits.Digits"], default_name="x").parser
    top_level = {key.partition(".")[0] for key in parser.get_defaults().keys()}  # noqa: SIM118  # a Namespace
    assert {*KEYS} == top_level - {"config", "seed_everything", "data", "model", "trainer"}
    assert {*COMMON_TRAINER_KEYS} <= inspect.signature(Trainer).parameters.keys()


def test_an_experiment_may_stand_after_the_options_also_with_a_checkpoint(litlab, tmp_path):
    """Its configuration is then not that of the run that --ckpt_path names."""
    outcome = litlab("fit", "--ckpt_path", "0123abcd", "digits-mpl")
    assert outcome.code == 2
    assert UNKNOWN_EXPERIMENT in outcome.err
    assert "no runs in" in litlab("fit", "--ckpt_path", "0123abcd").err
