"""`--cluster` and what goes with it: mistakes are refused by name before anything starts."""

import sys

import pytest

from sweeps.cluster.options import make_pool
from sweeps.cluster.place import Place
from sweeps.workers.pool import Pool

SWEEP, SEEDS = ["sweep", "digits-mlp"], ["fit", "digits-mlp", "--seeds", "2"]


@pytest.mark.parametrize("command", [SWEEP, SEEDS, ["reproduce"]], ids=lambda command: command[0])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--cpus", "2"], "--cpus goes with --cluster"),
        (["--gpus", "1"], "--gpus goes with --cluster"),
        (["--cluster", "node7"], "--cluster node7: expected local, auto, or HOST:PORT"),
        (["--cluster", "ray://head:10001"], "call litlab on a node of the cluster"),
        (["--cluster", "local", "--workers", "0"], "--workers 0: expected at least 1"),
        (["--cluster", "local", "--cpus", "0"], "--cpus 0: expected more than 0"),
        (["--cluster", "local", "--gpus", "1.5"], "--gpus 1.5: expected a whole number, or a fraction of one GPU"),
        (["--cluster", "local", "--gpus", "-1"], "--gpus -1: expected a whole number"),
    ],
)
def test_a_mistake_is_refused_by_name(litlab, command, options, message):
    outcome = litlab(*command, *options)
    assert outcome.code == 2
    assert message in outcome.err
    assert len(outcome.err.strip().splitlines()) == 1


@pytest.mark.parametrize("option", ["--cluster=local", "--cpus=1", "--gpus=1", "--stacked", "--workers=2"])
def test_one_fit_refuses_what_is_for_several(litlab, option):
    outcome = litlab("fit", "digits-mlp", option)
    assert outcome.code == 2
    assert f"{option.partition('=')[0]} is for several trainings: it goes with --seeds N" in outcome.err


def test_a_training_over_several_nodes_needs_a_cluster(litlab):
    outcome = litlab(*SEEDS, "--trainer.num_nodes", "2")
    assert outcome.code == 2
    assert outcome.err.strip() == "litlab: trainer.num_nodes is 2: add --cluster (docs/CLUSTERS.md), or set it to 1"


def test_without_ray_one_line_says_what_to_install(litlab, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)  # as if it was not installed
    for name in [name for name in sys.modules if name.startswith("sweeps.cluster.") and "options" not in name]:
        monkeypatch.delitem(sys.modules, name)
    outcome = litlab(*SWEEP, "--cluster", "local")
    assert outcome.code == 2
    assert outcome.err.strip() == 'litlab: --cluster needs Ray: pip install "litlab[ray]"'


def test_without_a_cluster_the_pool_is_that_of_this_machine(tmp_path):
    pool = make_pool(Place(workers=3), tmp_path)
    assert type(pool) is Pool
    assert pool.workers == 3
    assert make_pool(Place(), tmp_path).workers == 1
