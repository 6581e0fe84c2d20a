"""What claims are judged by: values of metrics by seed, parameter counts, results of the theory's tests."""

import math
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

from pipelines.runtime.environment import checkout
from pipelines.runtime.errors import UserError
from pipelines.tracking.store import StoredRun
from pipelines.tracking.tags import SELECTED
from sweeps.reproduction.claims import Plan, Section
from sweeps.reproduction.row import Row, Runs

THEORY = Path("tests/theory")
Values = Mapping[str, float]  # by seed
History = Callable[[str, str], Sequence[tuple[int, float]]]  # of a run id and a metric: epochs and values


class Deterministic(dict[str, float]):
    """Values of a method that does not depend on the seed: the same one for every seed."""


@dataclass(frozen=True)
class Measurements:
    """What claims are judged by.

    Attributes:
        values: Returns the values of a term, "LABEL METRIC", by seed.
        parameters: Returns the number of parameters of a job's network in the full tier.
        theory: Whether all tests in a file of tests/theory pass, by its name; missing files are left out.
        test_size: Returns the number of test examples of a job's runs; None if they record none.
    """

    values: Callable[[str], Values]
    parameters: Callable[[str], int]
    theory: Mapping[str, bool]
    test_size: Callable[[str], int | None] = lambda label: None


def measure(plan: Plan, runs: Runs) -> Measurements:
    """Return what the claims of a plan are judged by. Runs the tests of the theory.

    Raises:
        UserError: The tests of the theory cannot run.
    """
    seeds = max((job.seeds for job in plan.jobs.values()), default=0)

    def values(term: str) -> Values:
        label, _, metric = term.partition(" ")
        known = {seed: run.metrics[metric] for seed, run in runs.get(label, {}).items() if metric in run.metrics}
        if plan.jobs[label].is_stochastic or not known:
            return known
        return Deterministic({str(seed): next(iter(known.values())) for seed in range(seeds)})

    def test_size(label: str) -> int | None:
        return next((run.test_size for run in runs.get(label, {}).values()), None)

    @cache
    def parameters(label: str) -> int:
        from pipelines.config.cli import parse_config

        _, model = parse_config("fit", plan.jobs[label].full_arguments).build()  # reads no data
        return sum(parameter.numel() for parameter in model.parameters())

    theory = _run_theory_tests([claim.terms[0] for claim in plan.claims if claim.rule == "theory"])
    return Measurements(values, parameters, theory, test_size)


def metric_value(run: StoredRun, metric: str, history: History) -> float | None:
    """Return a metric of a run or a quantity computed from metrics; None if the run does not have it.

    Args:
        run: A finished run.
        metric: A name: the last value, for `val/acc` that of the last epoch. `val/acc@3`: in epoch 3 (from 0).
            `log(fit_seconds)`: the natural logarithm. `gap(acc)`: training minus test accuracy at the selected epoch;
            `abs_gap(acc)`: its absolute value. `rise(val/loss)`: the last value minus the lowest.
            `roughness(val/acc)`: the mean absolute change from epoch to epoch in the second half of the training.
        history: Returns epochs and values of a metric of a run.
    """
    match = re.fullmatch(r"(\w+)\((.+)\)", metric)
    function, argument = match.groups() if match else ("", metric)
    if function in ("gap", "abs_gap"):
        train, test = run.metrics.get(f"{SELECTED}/train/{argument}"), run.metrics.get(f"test/{argument}")
        gap = None if train is None or test is None else train - test
        return abs(gap) if gap is not None and function == "abs_gap" else gap
    if function == "log":
        return math.log(run.metrics[argument]) if run.metrics.get(argument, 0) > 0 else None
    name, _, epoch = argument.partition("@")
    if not function and not epoch:
        return run.metrics.get(name)
    values = dict(history(run.run_id, name))
    return values.get(int(epoch)) if epoch else _CURVES[function]([values[index] for index in sorted(values)])


def _rise(values: Sequence[float]) -> float | None:
    return values[-1] - min(values) if values else None


def _roughness(values: Sequence[float]) -> float | None:
    steps = [abs(after - before) for before, after in pairwise(values[max(0, len(values) // 2 - 1) :])]
    return math.fsum(steps) / len(steps) if steps else None


_CURVES = {"rise": _rise, "roughness": _roughness}


def describe_test_sets(section: Section, runs: Runs) -> list[str]:
    """Return a sentence for each kind of test set that the runs of a section used."""
    rows = [row for label in section.labels for row in runs.get(label, {}).values() if row.test_sha256 and row.data]
    kinds: dict[tuple[str, int, str], list[Row]] = {}
    for row in rows:
        kinds.setdefault((row.data, row.test_size or 0, row.data_files), []).append(row)
    return sorted(_describe_test_set(*kind, {row.test_sha256 for row in of_kind}) for kind, of_kind in kinds.items())


def _describe_test_set(data: str, size: int, files: str, digests: set[str]) -> str:
    one = f"test set of {size:,}, SHA-256 {min(digests)[:12]}"
    text = f"Data: {data}, {one if len(digests) == 1 else f'{len(digests)} test sets of {size:,}'}."
    if files == "folder":
        text += " Read from image files: if these were recompressed (JPEG), accuracies are slightly too low."
    return text


def _run_theory_tests(files: Iterable[str]) -> Mapping[str, bool]:
    """Run test files of tests/theory in one pytest process.

    Returns:
        For each file that exists, by its name, whether it has tests and all of them pass.

    Raises:
        UserError: pytest cannot run.
    """
    folder = checkout()
    if folder is None:
        return {}
    existing = sorted({name for name in files if (folder / THEORY / name).is_file()})
    if not existing:
        return {}
    passed = dict[str, list[bool]]()
    with tempfile.TemporaryDirectory(prefix="litlab-theory-") as scratch:
        report = Path(scratch) / "report.xml"
        command = [sys.executable, "-m", "pytest", *(str(THEORY / name) for name in existing)]
        command += ["-q", "-p", "no:cacheprovider", f"--junitxml={report}"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        if not report.is_file():
            raise UserError(f"cannot run the tests in {THEORY}: {(done.stderr or done.stdout).strip()[-500:]}")
        for case in ElementTree.parse(report).iter("testcase"):  # noqa: S314 (as our own pytest wrote it)
            module = case.get("classname", "").rpartition(".")[2]
            passed.setdefault(f"{module}.py", []).append(not case.findall("failure") + case.findall("error"))
    return {name: name in passed and all(passed[name]) for name in existing}
