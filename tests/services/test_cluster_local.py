"""A sweep on a Ray cluster of this machine: the same trials as without Ray, and nothing is left."""

import os
from pathlib import Path

import pytest

pytest.importorskip("ray")
pytestmark = pytest.mark.services


def processes_of(variable):
    """Return the command lines of the processes that have a variable in their environment."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if variable.encode() in (folder / "environ").read_bytes() and int(folder.name) != os.getpid():
                found.append((folder / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue
    return found


@pytest.fixture(scope="module")
def mark():
    """An environment variable that all processes of the cluster inherit."""
    return f"LITLAB_TEST_CLUSTER={os.getpid()}"


def test_a_cluster_of_this_machine_finds_what_a_sweep_without_it_finds(moody, results, run_python, mark, tmp_path):
    name, _, value = mark.partition("=")
    environment = {**os.environ, name: value, "PYTHONPATH": f"{tmp_path}:{Path(__file__).parents[2]}"}
    space = moody({"model.score": [0.25, 0.75, 0.5]}, pruner={"name": "successivehalving"})
    program = "import sys; from litlab.cli import console; console()"
    outcome = run_python(program, "sweep", "-c", space, "--cluster", "local", env=environment, cwd=tmp_path)
    assert outcome.code == 0, outcome.err
    assert "best single trial val/acc 0.7500" in outcome.out
    assert outcome.err == ""
    assert len(results.trials) == 3
    assert {trial.params["model.score"]: trial.value for trial in results.trials if trial.state.name == "COMPLETE"}[
        0.75
    ] == 0.75
    by_state = {"COMPLETE": "FINISHED", "PRUNED": "KILLED"}
    assert sorted(run.info.status for run in results.children()) == sorted(by_state[state] for state in results.states)
    assert not processes_of(mark), "the cluster has left processes"
