"""`litlab explain`: its help texts and the mistakes that it reports before it loads anything."""

import importlib
import inspect
import re
import subprocess
import sys

import pytest

from pipelines.commands.explain import main, make_method_parser, make_parser
from pipelines.commands.explain_methods import METHODS
from pipelines.commands.options import VerbParser
from pipelines.runtime.errors import UserError

HEAVY = {"torch", "lightning", "torchvision", "mlflow", "matplotlib", "sklearn", "captum"}


@pytest.mark.parametrize("method", METHODS)
def test_every_method_has_a_line_in_the_overview(method):
    assert f"\n  {method} " in make_parser("explain").format_help()


@pytest.mark.parametrize("argv", [[], ["--help"], *([method, "--help"] for method in METHODS)], ids=" ".join)
def test_help_fits_on_a_screen(argv, capsys):
    try:
        code = main("explain", argv)
    except SystemExit as end:
        code = end.code
    lines = capsys.readouterr().out.splitlines()
    assert code == (0 if argv else 2)
    assert 8 < len(lines) <= 32
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize("method", METHODS)
def test_help_of_a_method_names_every_option(method):
    parser = make_method_parser("explain", method)
    options = [action.option_strings[0] for action in parser._actions if action.dest != "help"]
    for other_spelling in ("--tracking-uri", "--torchvision"):
        options.remove(other_spelling)
    assert len(options) > 6
    page = parser.format_help()
    assert [option for option in options if not re.search(rf"{option}[ ,]", page)] == []


@pytest.mark.parametrize("method", METHODS)
def test_the_options_of_a_method_are_the_arguments_of_its_function(method):
    parser = VerbParser(method, "")
    METHODS[method].add_options(parser)
    options = {action.dest for action in parser.arguments}
    images = {"image", "images_per_class", "invert"}
    function = getattr(importlib.import_module(f"pipelines.explanation.{METHODS[method].module}"), method)
    parameters = inspect.signature(function).parameters.keys() - {"target", "seed"}
    assert parameters == options - images | ({"images"} if images <= options else set())


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["maximize", "RUN"], "'maximize' is not a method (did you mean maximise?)"),
        (["saliency"], "name one network"),
        (["saliency", "RUN", "--torchvision", "alexnet"], "name one network"),
        (["saliency", "RUN", "--image"], "--image: expected at least one argument"),
        (["saliency", "RUN", "--image", "1", "--images-per-class", "2"], "exclude each other"),
        (["maximise", "RUN", "--unit", "0"], "--unit needs --layer"),
        (["maximise", "RUN", "--steps", "x"], "--steps: invalid int value: 'x'"),
        (["maximise", "RUN", "--steps", "0"], "--steps 0: must be above 0"),
        (["adversarial", "RUN"], "needs --target C, or --table"),
        (["occlusion", "RUN", "--stride", "5"], "--stride 5: must be 1 to 4"),
    ],
)
def test_mistakes_are_reported(argv, message):
    with pytest.raises(UserError) as error:
        main("explain", argv)
    assert message in str(error.value)


@pytest.mark.parametrize("argv", [["--help"], ["maximise", "--help"], ["adversarial", "RUN", "--budget", "0.1"]])
def test_help_and_mistakes_import_nothing_heavy(argv):
    program = (
        f"import sys; from pipelines.cli import main\ntry: main(['explain', *{argv}])\nfinally: print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not HEAVY & set(done.stdout.splitlines()[-1].split())
