"""The `litlab` command: its imports, help, errors and exit codes."""

import json
import re
import shlex
import subprocess
import sys
from importlib.metadata import version

import pytest

from pipelines.commands import fit
from pipelines.commands.verbs import VERBS
from pipelines.config.cli import parse_config
from pipelines.config.experiments import FOLDER, experiment_names

HEAVY = {"torch", "lightning", "torchvision", "torchmetrics", "mlflow", "optuna", "matplotlib", "sklearn"}


@pytest.mark.parametrize(
    "args",
    [
        ["--help"],
        ["--version"],
        ["completion", "bash"],
        ["list"],
        ["list", "--json"],
        ["frobnicate"],
        *([verb, "--help"] for verb in VERBS),
        ["doctor", "--fx"],
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


def test_list_shows_every_experiment_file_with_its_data_and_model(litlab):
    rows = json.loads(litlab("list", "--json").out)
    assert [row["name"] for row in rows] == sorted(path.stem for path in FOLDER.iterdir())
    assert {"name": "mnist-mlp", "data": "MNIST", "model": "MLP"}.items() <= rows[
        [*experiment_names()].index("mnist-mlp")
    ].items()
    table = litlab("list", "--long").out
    assert all(row["name"] in table and row["description"][:30] in table for row in rows)


def test_list_fits_a_screen_and_a_name_selects_experiments(litlab, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    screen = litlab("list").out.splitlines()
    assert len(screen) < 24
    assert max(map(len, screen)) <= 80
    assert {*experiment_names()} <= {*" ".join(screen).split()}
    assert {row["name"] for row in json.loads(litlab("list", "digits", "--json").out)} == {
        "digits-convnet",
        "digits-mlp",
        "paired-digits",
    }
    assert "one shared layer" in litlab("list", "PAIRED").out.replace("\n", "")
    assert litlab("list", "nosuch").code == 2


def test_an_unknown_verb_exits_with_2_and_the_nearest_one_is_suggested(litlab):
    outcome = litlab("pedict", "x")
    assert outcome.code == 2
    assert "did you mean predict" in outcome.err


@pytest.mark.parametrize("option", ["--frobnicate", "-v", "--versoin"])
def test_an_unknown_option_exits_with_2(litlab, option):
    outcome = litlab(option)
    assert outcome.code == 2
    assert f"unknown option {option}: " in outcome.err
    assert ("did you mean --version?" in outcome.err) == (option == "--versoin")


def test_the_version_is_that_of_the_package(litlab):
    assert litlab("--version").out == f"litlab {version('litlab')}\n"


@pytest.mark.parametrize("verb", ["", *VERBS])
def test_a_help_page_fits_34_lines_of_80_characters_and_has_no_escape_codes_in_a_pipe(litlab, verb):
    outcome = litlab(*filter(None, [verb]), "--help")
    assert outcome.code == 0
    lines = outcome.out.splitlines()
    assert 3 < len(lines) <= (46 if verb == "fit" else 34)
    assert max(map(len, lines)) <= 80
    assert "\033" not in outcome.out
    assert lines[0].startswith(f"usage: litlab {verb}")


def test_a_help_page_has_colours_on_a_terminal(litlab, monkeypatch):
    plain = litlab("list", "--help").out
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    coloured = litlab("list", "--help").out
    assert "\033[36m--json\033[0m" in coloured
    assert re.sub(r"\033\[[0-9;]*m", "", coloured) == plain


def test_the_help_of_fit_shows_keys_that_exist_and_every_option_but_those_of_a_section():
    """LightningCLI parses them, so they are written in the help page, too."""
    page = fit.make_parser("fit")
    cli = parse_config("fit", ["mnist-mlp", *shlex.split(" ".join(re.findall(r"^  (--\S+ \S+) ", fit.KEYS, re.M)))])
    config = cli.resolved()
    assert (config["data"]["init_args"]["n_train"], config["model"]["init_args"]["dropout"]) == (250, 0.3)
    known = {name for action in cli.parser._actions for name in action.option_strings}
    elsewhere = {"--full-help", "--seeds", "--trust", "--tag", "--note", "--run_name", "--notify"}  # parsed before
    elsewhere |= {"--from", "--if_needed", "--system_metrics"}
    shown = {name for action in page.arguments for name in action.option_strings} - elsewhere
    assert shown <= known
    sections = ("--trainer", "--data", "--model", "--seeds")
    rest = {name for name in known - shown if name.startswith("--") and not name.startswith(sections)}
    of_lightning = {
        "--weights_only",
        *(f"--{key}{end}" for key in ("optimizer", "lr_scheduler") for end in ("", ".help")),
    }
    assert rest == {"--help", "--description", "--print_shtab", *of_lightning}  # jsonargparse adds --print_shtab


def test_full_help_lists_lightnings_options(litlab):
    outcome = litlab("fit", "--full-help")
    assert outcome.code == 0
    assert "--trainer.gradient_clip_val" in outcome.out


def test_the_help_of_a_model_lists_its_arguments(litlab):
    outcome = litlab("fit", "--model.help", "modules.convnet.ConvNet")
    assert outcome.code == 0
    assert "--model.kernel_size" in outcome.out
    assert "--model.lr_scheduler" in outcome.out


@pytest.mark.parametrize("args", [["list", "--json"], ["list"], ["--help"]], ids=" ".join)
def test_a_closed_output_pipe_exits_with_141_and_prints_no_error(args):
    program = f"import sys; from pipelines.cli import main; sys.exit(main({args}))"
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()  # as `head` does
        assert process.stderr.read() == b""
    assert process.returncode == 141


CONSOLE = """
import atexit, sys, threading, time
from pipelines import cli

def command(argv=None):
    import torch  # taking the interpreter apart after that would print this object's end
    threading.Thread(target=lambda: (time.sleep(0.3), print("thread"))).start()
    atexit.register(print, "exit function")
    print("result")
    {end}

class Printer:
    def __del__(self):
        print("taken apart")

printer = sys.printer = Printer()
cli.main = command
cli.console()
"""


@pytest.mark.parametrize(
    ("end", "code"),
    [
        ("return 0", 0),
        ("sys.exit(143)", 143),
        pytest.param("return 2", 2, marks=pytest.mark.slow),
        pytest.param("sys.exit()", 0, marks=pytest.mark.slow),
        pytest.param("raise ValueError('why')", 1, marks=pytest.mark.slow),
    ],
)
def test_the_command_ends_with_its_code_after_threads_and_exit_functions_but_is_not_taken_apart(end, code):
    done = subprocess.run([sys.executable, "-c", CONSOLE.format(end=end)], capture_output=True, text=True, check=False)
    assert done.returncode == code
    assert done.stdout.split("\n") == ["result", "thread", "exit function", ""]
    assert ("ValueError: why" in done.stderr) == (code == 1)


def test_the_command_itself_exits_with_141_if_its_output_is_closed():
    program = "import sys; from pipelines import cli; sys.argv[1:] = ['list', '--json']; cli.console()"
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 141


def test_an_option_without_an_experiment_is_a_clear_mistake(litlab):
    outcome = litlab("fit", "--trust")
    assert outcome.code == 2
    assert "name an experiment first" in outcome.err
