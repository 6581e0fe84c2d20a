"""Warnings of Optuna that concern a user are shown, once."""

import pytest

from sweeps.search.messages import show_warnings
from sweeps.search.samplers import make_sampler
from sweeps.search.storage import open_storage


def test_cmaes_says_once_that_it_does_not_search_choices(tmp_path, capfd):
    import optuna
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    storage = open_storage(str(tmp_path / "journal"))
    study = optuna.create_study(storage=storage, sampler=make_sampler("cmaes", 0))
    space = {"lr": FloatDistribution(0.1, 1), "activation": CategoricalDistribution(["relu", "tanh"])}
    for number in range(6):
        study.tell(study.ask(space), number)
    lines = [line for line in capfd.readouterr().err.splitlines() if "activation" in line]
    assert len(lines) == 1
    assert lines[0].startswith("litlab: Optuna: ")
    assert "`CategoricalDistribution` are not supported by `CmaEsSampler`" in lines[0]


def test_only_warnings_that_a_part_is_experimental_are_hidden():

    show_warnings()
    make_sampler("qmc", 0)  # experimental: a warning would be an error
    with pytest.warns(FutureWarning, match="x0"):
        make_sampler({"name": "cmaes", "x0": {"lr": 0.5}}, 0)
