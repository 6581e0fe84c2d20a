"""`litlab sweep` parses its options into the arguments of the functions that it calls."""

import inspect

import pytest

from pipelines.runtime.errors import UserError
from sweeps.commands.sweep import make_study_parser, parse_sweep
from sweeps.search.status import best_configuration, sweep_status
from sweeps.search.sweep import sweep


@pytest.mark.parametrize("verb", ["status", "best"])
def test_help_fits_a_terminal(verb: str) -> None:
    lines = make_study_parser(verb).format_help().splitlines()
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 80


def test_every_option_is_an_argument_of_its_function() -> None:
    sweep_options, _ = parse_sweep(["digits-mlp"])
    status, best = (vars(make_study_parser(verb).parse(["digits-mlp"])) for verb in ("status", "best"))

    assert {*vars(sweep_options), "overrides", "command"} == set(inspect.signature(sweep).parameters)
    assert set(status) - {"json"} == set(inspect.signature(sweep_status).parameters)
    assert set(best) == set(inspect.signature(best_configuration).parameters)


def test_keys_of_the_experiment_are_passed_on() -> None:
    options, overrides = parse_sweep(["digits-mlp", "--trainer.max_epochs", "2", "--trials=3", "--data.batch_size=8"])

    assert (options.space, options.trials) == ("digits-mlp", 3)
    assert overrides == ["--trainer.max_epochs", "2", "--data.batch_size=8"]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--trials", "3"], "give one space first"),
        (["digits-mlp", "-c", "my.yaml"], "give one space first"),
        (["digits-mlp", "circles"], "one space at a time"),
        (["digits-mlp", "--trails", "3"], "unknown option --trails: did you mean --trials?"),
        (["digits-mlp", "--trials", "many"], "--trials: invalid int value: 'many'"),
    ],
)
def test_a_mistake_is_refused(args: list[str], message: str) -> None:
    with pytest.raises(UserError) as error:
        parse_sweep(args)

    assert message in str(error.value)
