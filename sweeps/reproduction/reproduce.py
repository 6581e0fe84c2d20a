"""Run the published experiments, judge each published claim, and write the page of results."""

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path

from pipelines.runtime.errors import UserError
from pipelines.runtime.outputs import check_output
from pipelines.runtime.text import redact_credentials
from pipelines.tracking.store import Store
from pipelines.tracking.tags import PROCESSOR_TAG, VERSION_TAG
from sweeps.cluster.options import make_pool
from sweeps.cluster.place import Place
from sweeps.reproduction.claims import TIERS, load_plan
from sweeps.reproduction.jobs import Runs, default_workers, run_missing_jobs
from sweeps.reproduction.measurements import describe_test_sets, measure
from sweeps.reproduction.results_page import MARKS, PAGES, Reproduction, write_pages
from sweeps.reproduction.verdicts import judge

OUT = Path("reproduction")
PACKAGES = ("torch", "lightning", "litlab")  # whose versions the page states


def reproduce(
    ids: Sequence[str] = (),
    *,
    tier: str = "quick",
    seeds: int = 3,
    workers: int | None = None,
    cluster: str | None = None,
    cpus: float | None = None,
    gpus: float | None = None,
    train: bool = True,
    data_dir: str | Path | None = None,
    out: str | Path | None = None,
    tracking_uri: str | None = None,
    command: str = "",
) -> Reproduction:
    """Run published experiments with several seeds, judge their claims, and write the page of results.

    Finished runs with the same configuration are reused. A failed run does not affect the others. Ctrl-C and SIGTERM
    stop the trainings gracefully, a second one at once; then nothing is judged. Must be called in the main thread.

    Args:
        ids: Ids of published experiments; empty selects all.
        tier: "quick": minutes, on data that come with litlab. "full": hours, on the published data.
        seeds: Runs of each experiment, with seeds from 0.
        workers: Trainings in parallel; by default one with a GPU, else as many as there are CPU cores, up to 4. See
            `Place`, as for the three below.
        cluster: A Ray cluster on which to train.
        cpus: CPUs of each training there.
        gpus: GPUs of each training there.
        train: Whether to run what is missing; otherwise only existing runs are judged.
        data_dir: Folder of MNIST and CIFAR-10; by default that of the experiments.
        out: Folder for RESULTS.md and results.html; by default `reproduction` in the current folder.
        tracking_uri: Database or server of the runs; by default MLFLOW_TRACKING_URI, else the project's mlflow.db.
        command: Command line, stated on the page.

    Returns:
        Verdicts, runs, failures, and the files that were written.

    Raises:
        UserError: A value is invalid, a page cannot be written, or the tracking store is lost.
    """
    if seeds < 1:
        raise UserError(f"--seeds {seeds}: expected at least 1")
    if tier not in TIERS:
        raise UserError(f"--tier {tier}: expected {' or '.join(TIERS)}")
    plan = load_plan(tier, ids)
    folder = _output_folder(OUT if out is None else Path(out))
    store = Store(tracking_uri)
    place = Place(cluster, default_workers() if workers is None and cluster is None else workers, cpus, gpus)
    with (
        tempfile.TemporaryDirectory(prefix="litlab-reproduce-") as scratch,
        make_pool(place, Path(scratch)) as pool,
    ):
        runs, failures, signal = run_missing_jobs(plan, store, pool, seeds=seeds, train=train, data_dir=data_dir)
    if signal is not None:
        return Reproduction(plan, runs, failures, stop_signal=signal)
    measurements = measure(plan, store, runs, seeds)
    verdicts = judge(plan, measurements)
    data = {section.title: describe_test_sets(section, runs) for section in plan.sections}
    result = Reproduction(plan, runs, failures, verdicts, data, _facts(runs, seeds), redact_credentials(command))
    return replace(result, pages=write_pages(result, folder))


def _output_folder(folder: Path) -> Path:
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--out {folder}: not a folder")
    for name, mark in zip(PAGES, MARKS, strict=True):
        check_output(folder / name, mark)
    return folder


def _facts(runs: Runs, seeds: int) -> list[str]:
    """Return when, where and with which versions the runs were made."""
    all_runs = [run for of_job in runs.values() for run in of_job.values()]
    facts = [f"{len(all_runs)} runs, seeds 0 to {seeds - 1}. Values are means over the n seeds, with 95 % intervals."]
    if all_runs:
        first, last = (date.fromtimestamp(pick(run.started for run in all_runs) / 1000) for pick in (min, max))
        keys = {package: f"{VERSION_TAG}.{package}" for package in PACKAGES}
        versions = {f"{name} {run.tags[key]}" for run in all_runs for name, key in keys.items() if key in run.tags}
        machines = {run.tags[PROCESSOR_TAG] for run in all_runs if PROCESSOR_TAG in run.tags}
        text = f"Trained from {first} to {last} on {' and '.join(sorted(machines))}"
        facts.append(f"{text}, with {', '.join(sorted(versions))}.")
    return facts
