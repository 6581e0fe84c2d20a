"""The code of a project on a node that does not have its folder, and on one that has it."""

import json
import shutil
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[3] / "examples" / "own-classes"
PROGRAM = """
import json, os, sys
from dataclasses import asdict
from sweeps.cluster.actor import actor_class
from sweeps.cluster.code import pack_code
from sweeps.workers.job import Job
top, current, code = pack_code()
os.environ |= {"SLURM_NTASKS": "3", "SLURM_STEP_NUM_TASKS": "3", "SLURM_PROCID": "2"}  # as where srun starts Ray
settings = {"slots": 1, "gpus": 0, "threads": 1, "timeout_s": None, "system_metrics": False, "variables": {}}
agent = actor_class()(sys.argv[1] or top, current, code, settings)
folder = os.getcwd()
kind, facts = agent.call("check", asdict(Job(["waves"])), [])
job = Job(["waves", "--trainer.max_epochs=1"], experiment="waves", tracking_uri=f"sqlite:///{top}/mlflow.db")
commands = [("start", [0], [asdict(job)])]
trained = []
while kind == "done" and {*trained} <= {"run", "epoch"}:
    events = agent.call("exchange", commands)
    commands = [("answer", number, False) for number, message, _ in events if message[0] == "epoch"]
    trained += [message[0] for _, message, _ in events]
agent.call("close")
print(json.dumps([kind, folder, os.path.exists(folder), facts if kind == "refused" else "", trained]))
"""


@pytest.fixture
def project(tmp_path):
    return Path(shutil.copytree(EXAMPLE, tmp_path / "project"))


@pytest.mark.parametrize(
    "top",
    [pytest.param("/nowhere/on/this/node", marks=pytest.mark.slow), ""],
    ids=["sent", "shared"],
)
def test_an_agent_trains_with_the_classes_of_the_project_also_where_srun_has_started_ray(run_python, project, top):
    outcome = run_python(PROGRAM, top, cwd=project)
    assert outcome.code == 0, outcome.err
    kind, folder, is_left, what, trained = json.loads(outcome.out.splitlines()[-1])
    assert kind == "done", what
    assert trained == ["run", "epoch", "done"]
    assert (folder == str(project)) == (not top)
    assert is_left == (not top), "what was sent is deleted"


def test_litlab_is_found_if_the_project_is_its_own_folder(run_python):
    program = """
import importlib.machinery, sys
from sweeps.cluster.actor import actor_class
settings = {"slots": 1, "gpus": 0, "threads": 1, "timeout_s": None, "system_metrics": False, "variables": {}}
agent = actor_class()(sys.argv[1], "", b"", settings)
agent.call("close")
print(importlib.machinery.PathFinder.find_spec("litlab") is not None)
"""
    outcome = run_python(program, EXAMPLE.parents[1], cwd=EXAMPLE.parents[1])
    assert outcome.code == 0, outcome.err
    assert outcome.out.splitlines()[-1] == "True"
