"""Options of `litlab fit --seeds`."""

import subprocess
import sys

import pytest

from pipelines.runtime.errors import UserError
from sweeps.commands.fit_seeds import _fit, _parse, make_parser


def test_help_fits_a_terminal_and_imports_neither_torch_nor_mlflow():
    page = make_parser("fit").format_help()
    lines = page.splitlines()
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 80
    program = (
        "import sys; from pipelines.cli import main\n"
        "try: main(['fit', 'digits-mlp', '--seeds', '3', '--help'])\n"
        "finally: print({'torch', 'mlflow', 'lightning'} & set(sys.modules))"
    )
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert out == f"{page}set()\n"


def test_options_are_separated_from_the_arguments_of_each_training():
    options, overrides = _parse(
        ["digits-mlp", "--seeds=5", "--model.lr", "0.1", "--seed_everything", "7", "-c", "x.yaml"]
    )
    assert (options.seeds, options.workers, options.seed_everything) == (5, None, 7)
    assert overrides == ["digits-mlp", "--model.lr", "0.1", "-c", "x.yaml"]


def test_stacked_takes_a_number_or_none_and_the_name_comes_before():
    for words, size in (([], 1), (["--stacked"], "auto"), (["--stacked", "4"], 4), (["--stacked=auto"], "auto")):
        assert _parse(["digits-mlp", "--seeds", "5", *words, "--model.lr", "1"])[0].stacked == size
    with pytest.raises(UserError, match="'digits-mlp' is no number; the name comes before --stacked"):
        _parse(["--seeds", "5", "--stacked", "digits-mlp"])


@pytest.mark.parametrize("flag", ["--print_config", "--print_config=skip_null", "--full-help", "--model.help"])
def test_a_flag_that_only_prints_is_refused(flag):
    with pytest.raises(UserError, match="trains nothing: leave out --seeds"):
        _parse(["digits-mlp", "--seeds", "2", flag])


def test_run_ids_are_short_only_where_the_whole_ones_do_not_fit():
    lines = [["seed", "test/acc", "run"], ["0", "0.9806", "a" * 32], ["1", "0.9772", "b" * 32]]
    width = 4 + 2 + 8 + 2 + 32
    assert _fit(lines, width) == lines
    assert _fit(lines, width - 1) == [lines[0], ["0", "0.9806", "a" * 8], ["1", "0.9772", "b" * 8]]
