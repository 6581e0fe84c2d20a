"""The job files and commands of docs/SHARED.md and docs/CLUSTERS.md are accepted by the command line."""

import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines.cli import VERBS
from pipelines.commands import resume
from pipelines.config.cli import parse_config
from sweeps.cluster.options import SETTINGS
from sweeps.cluster.place import Place
from sweeps.commands import fit_seeds
from sweeps.commands.sweep import make_study_parser, parse_sweep
from sweeps.search.space_files import read_space

DOCS = Path(__file__).parents[1] / "docs"
SCRIPTS = sorted((DOCS / "jobs").glob("*.sbatch"))
RAY_JOB = DOCS / "jobs" / "sweep-rayjob.yaml"
VALUES = {'"$@"': "digits-mlp", "$SLURM_NNODES": "2", "$SLURM_NTASKS_PER_NODE": "4", "$job": "--name=job-7"}
VALUES |= {'"$address"': "node1:24711"}


def commands(text: str) -> list[list[str]]:
    """Return the litlab commands of a script or a page, with shell variables replaced."""
    for variable, value in VALUES.items():
        text = text.replace(variable, value)
    lines = re.findall(r"^(?: *run=\$\(| *srun | *)(litlab [^#|&>)\n]*)", text.replace("\\\n", ""), flags=re.MULTILINE)
    return [shlex.split(re.sub(r"\d$", "", line)) for line in lines]


def check_arguments(argv: list[str]) -> None:
    """Parse a command with the parser of its verb."""
    verb, *args = argv[1:]
    assert verb in VERBS
    flags = [token for token in args if token.startswith("--")]
    if verb == "sweep" and args[0] in ("status", "best"):
        make_study_parser(args[0]).parse(args[1:])
    elif verb == "sweep":
        options, _ = parse_sweep(args)
        read_space(options.space, {})
        Place(options.cluster, options.workers, options.cpus, options.gpus).check()
    elif verb == "fit" and "--seeds" in args:
        options, keys = fit_seeds.make_parser(verb).parse_known_args(args)
        Place(options.cluster, options.workers, options.cpus, options.gpus).check()
        parse_config(verb, keys)
    elif verb == "fit":
        parse_config(verb, args)
    elif verb == "resume":
        shown = {name for action in resume.make_parser(verb).arguments for name in action.option_strings}
        assert {flag.partition("=")[0] for flag in flags} <= shown
    else:
        assert not flags


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_slurm_job_is_a_valid_script_with_valid_commands(script: Path) -> None:
    subprocess.run(["bash", "-n", script], check=True)
    text = script.read_text()
    found = commands(text)
    assert found
    for argv in found:
        check_arguments(argv)
    assert re.search(r"^#SBATCH --signal=B:USR1@\d+", text, flags=re.MULTILINE)
    assert "USR1" in text.partition("trap ")[2]


@pytest.mark.parametrize("page", ["SHARED.md", "CLUSTERS.md"])
def test_the_commands_of_a_page_are_valid(page: str) -> None:
    blocks = re.findall(r"^```\n(.*?)^```", (DOCS / page).read_text(), flags=re.DOTALL | re.MULTILINE)
    found = [argv for block in blocks for argv in commands(block)]
    assert len(found) >= 3
    for argv in found:
        check_arguments(argv)


def test_the_job_of_a_sweep_on_slurm_gives_ray_a_token_and_shows_it_to_nobody() -> None:
    text = (DOCS / "jobs" / "sweep.sbatch").read_text()
    assert "export RAY_AUTH_TOKEN RAY_AUTH_MODE=token" in text
    for setting in ("RAY_worker_niceness=0", "RAY_memory_monitor_refresh_ms=0", "--include-dashboard false"):
        assert setting in text
    assert "$RAY_AUTH_TOKEN" not in text, "a command line is seen by all users of a machine"
    assert "ray stop" not in text, "it would end the Ray processes of other jobs"


def test_the_kubernetes_job_runs_a_valid_command_and_contains_no_password() -> None:
    job = yaml.safe_load(RAY_JOB.read_text())
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    spec: dict[str, Any] = job["spec"]
    check_arguments(shlex.split(spec["entrypoint"]))
    cluster = spec["rayClusterSpec"]
    pinned = re.search(r"^ray==(.*)$", (DOCS.parent / "constraints.txt").read_text(), flags=re.MULTILINE)
    assert pinned
    assert cluster["rayVersion"] == pinned[1]
    assert cluster["authOptions"] == {"mode": "token"}
    (workers,) = cluster["workerGroupSpecs"]
    assert workers["minReplicas"] <= workers["replicas"] <= workers["maxReplicas"]
    head, worker = (group["template"]["spec"] for group in (cluster["headGroupSpec"], workers))
    environment = {entry["name"]: entry for entry in head["containers"][0]["env"]}
    secrets = [entry for name, entry in environment.items() if re.search("PASSWORD|USERNAME", name)]
    assert len(secrets) == 3
    assert all(entry["valueFrom"]["secretKeyRef"].keys() == {"name", "key"} for entry in secrets)
    assert {entry["name"] for entry in worker["containers"][0]["env"]} <= SETTINGS.keys()
    assert not re.search(r"://[^\s/@]*:[^\s/@]*@", RAY_JOB.read_text())
    for pod in (head, worker):
        (container,) = pod["containers"]
        assert container["image"] == head["containers"][0]["image"]
        assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
