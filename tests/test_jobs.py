"""The job files and commands of docs/SHARED.md are accepted by the command line."""

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
from sweeps.commands.sweep import make_study_parser, parse_sweep
from sweeps.search.space_files import read_space

DOCS = Path(__file__).parents[1] / "docs"
SCRIPTS = sorted((DOCS / "jobs").glob("*.sbatch"))
POD = yaml.safe_load((DOCS / "jobs" / "sweep.yaml").read_text())
VALUES = {'"$@"': "digits-mlp", "$SLURM_NNODES": "2", "$SLURM_NTASKS_PER_NODE": "4", "$job": "--name=job-7"}


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


def test_the_commands_of_the_page_are_valid() -> None:
    blocks = re.findall(r"^```\n(.*?)^```", (DOCS / "SHARED.md").read_text(), flags=re.DOTALL | re.MULTILINE)
    found = [argv for block in blocks for argv in commands(block)]
    assert len(found) >= 3
    for argv in found:
        check_arguments(argv)


def test_the_kubernetes_job_runs_a_valid_command_and_contains_no_password() -> None:
    assert (POD["apiVersion"], POD["kind"]) == ("batch/v1", "Job")
    assert POD["spec"]["parallelism"] == POD["spec"]["completions"] == 4
    inside: dict[str, Any] = POD["spec"]["template"]["spec"]
    (container,) = inside["containers"]
    check_arguments([*container["command"], *container["args"]])
    secrets = [entry for entry in container["env"] if re.search("PASSWORD|USERNAME", entry["name"])]
    assert len(secrets) == 3
    assert all(entry["valueFrom"]["secretKeyRef"].keys() == {"name", "key"} for entry in secrets)
    assert not re.search(r"://[^\s/@]*:[^\s/@]*@", (DOCS / "jobs" / "sweep.yaml").read_text())
    mounts = {mount["name"] for mount in container["volumeMounts"]}
    assert mounts == {volume["name"] for volume in inside["volumes"]}
