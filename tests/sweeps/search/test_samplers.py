"""Samplers and pruners are found by their common names; unknown names and arguments are refused."""

from typing import Any

import optuna
import pytest
from optuna import pruners, samplers

from pipelines.runtime.errors import UserError
from sweeps.search.samplers import make_pruner, make_sampler
from sweeps.search.storage import open_storage
from sweeps.search.trial_state import params_key

SAMPLERS = {
    "random": samplers.RandomSampler,
    "tpe": samplers.TPESampler,
    "TPE": samplers.TPESampler,
    "TPESampler": samplers.TPESampler,
    "cmaes": samplers.CmaEsSampler,
    "CMA-ES": samplers.CmaEsSampler,
    "cma_es": samplers.CmaEsSampler,
    "gp": samplers.GPSampler,
    "qmc": samplers.QMCSampler,
    "nsgaii": samplers.NSGAIISampler,
    "NSGA-III": samplers.NSGAIIISampler,
}
PRUNERS = {
    "none": pruners.NopPruner,
    "median": pruners.MedianPruner,
    "Hyperband": pruners.HyperbandPruner,
    "successivehalving": pruners.SuccessiveHalvingPruner,
    "successive halving": pruners.SuccessiveHalvingPruner,
    "successive_halving": pruners.SuccessiveHalvingPruner,
    "MedianPruner": pruners.MedianPruner,
}


@pytest.fixture(autouse=True)
def _quiet(tmp_path: Any) -> None:
    open_storage(str(tmp_path / "journal"))  # which also silences Optuna


@pytest.mark.parametrize("name", SAMPLERS)
def test_samplers_are_found_by_name(name: str) -> None:
    assert type(make_sampler(name, 0)) is SAMPLERS[name]
    assert type(make_sampler({"name": name}, 3)) is SAMPLERS[name]


@pytest.mark.parametrize("name", PRUNERS)
def test_pruners_are_found_by_name(name: str) -> None:
    assert type(make_pruner(name, 10)) is PRUNERS[name]
    assert type(make_pruner({"name": name}, None)) is PRUNERS[name]


@pytest.mark.parametrize(
    "chosen",
    ["random", "qmc", "cmaes", "nsgaii", *({"name": name, "n_startup_trials": 2} for name in ("tpe", "gp"))],
)
def test_every_sampler_draws_distinct_points_of_the_space(chosen: Any) -> None:
    ranges = {
        "real": optuna.distributions.FloatDistribution(1e-4, 1.0, log=True),
        "whole": optuna.distributions.IntDistribution(1, 64),
        "one": optuna.distributions.CategoricalDistribution([True, False]),
    }
    study = optuna.create_study(sampler=make_sampler(chosen, 0))

    for _ in range(5):
        trial = study.ask(ranges)
        assert params_key(trial.params) == params_key(study.trials[-1].params)
        assert type(study.trials[-1].params["whole"]) is int
        study.tell(trial, trial.params["real"] + trial.params["whole"])

    assert len({params_key(trial.params) for trial in study.trials}) == 5


@pytest.mark.parametrize("name", ["random", "tpe", "cmaes", "gp"])
def test_each_variant_of_a_sampler_draws_other_points(name: str) -> None:
    one = optuna.distributions.FloatDistribution(0.0, 1.0)

    def first(variant: int) -> float:
        study = optuna.create_study(sampler=make_sampler(name, variant))
        return float(study.ask({"x": one}).params["x"])

    assert first(3) == first(3)
    assert len({first(variant) for variant in range(6)}) == 6


def test_a_sampler_gets_the_given_arguments() -> None:
    sampler = make_sampler({"name": "tpe", "n_startup_trials": 3, "seed": 7}, 0)

    assert isinstance(sampler, samplers.TPESampler)
    assert sampler._n_startup_trials == 3


def test_hyperband_gets_the_number_of_epochs_unless_max_resource_is_given() -> None:
    known, given, endless = (
        make_pruner(chosen, epochs)
        for chosen, epochs in (("hyperband", 27), ({"name": "hyperband", "max_resource": 9}, 27), ("hyperband", -1))
    )

    assert [pruner._max_resource for pruner in (known, given, endless)] == [27, 9, "auto"]  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["bayes", "", "base", "partialfixed", "bruteforce"])
def test_an_unknown_sampler_is_refused_with_the_available_ones(name: str) -> None:
    with pytest.raises(UserError, match=r"sampler '\w*': it must be one of cmaes, gp, grid, .*random, tpe") as error:
        make_sampler(name, 0)

    assert "base" not in str(error.value).partition(":")[2]


@pytest.mark.parametrize("name", ["asha", "nop", "patient"])
def test_an_unknown_pruner_is_refused_with_the_available_ones(name: str) -> None:
    with pytest.raises(UserError, match=rf"pruner '{name}': it must be one of hyperband, median, none, "):
        make_pruner(name, 10)


@pytest.mark.parametrize(
    ("make", "chosen", "message"),
    [
        (
            make_sampler,
            {"name": "tpe", "startup": 3},
            "sampler TPESampler has no argument startup; it has .*n_startup_trials",
        ),
        (make_sampler, {"name": "qmc", "qmc_type": "x"}, "sampler QMCSampler: "),
        (make_sampler, {"name": "tpe", "seed": "x"}, "seed 'x': expected a whole number"),
        (make_sampler, {"name": "tpe", "seed": -1}, "seed -1: expected a whole number"),
        (make_sampler, {"name": "random", "seed": None}, "seed None: expected a whole number"),
        (
            make_pruner,
            {"name": "median", "warm": 3},
            "pruner MedianPruner has no argument warm; it has .*n_warmup_steps",
        ),
        (make_pruner, {"name": "median", "n_warmup_steps": -1}, "pruner MedianPruner: "),
        (make_pruner, "percentile", "pruner PercentilePruner needs percentile"),
    ],
)
def test_a_wrong_argument_is_refused_by_name(make: Any, chosen: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        make(chosen, 10)
