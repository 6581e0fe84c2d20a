"""Run the published experiments, judge each published claim, and write the page of results."""

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from pipelines.runtime.errors import UserError
from pipelines.runtime.outputs import check_output
from pipelines.runtime.text import counted, redact_credentials
from pipelines.tracking.store import Store
from pipelines.tracking.uri import database_file
from sweeps.cluster.options import make_pool
from sweeps.cluster.place import Place
from sweeps.reproduction.claims import TIERS, Plan, load_plan
from sweeps.reproduction.identity import identify_jobs
from sweeps.reproduction.jobs import default_workers, run_missing
from sweeps.reproduction.measured import MeasuredRuns
from sweeps.reproduction.measurement_files import MeasurementFiles
from sweeps.reproduction.measurements import describe_test_sets, measure
from sweeps.reproduction.results_page import MARKS, PAGES, Reproduction, write_pages
from sweeps.reproduction.row import PACKAGES, Runs
from sweeps.reproduction.verdicts import judge
from sweeps.workers.display import LiveDisplay

OUT = Path("reproduction")


def reproduce(
    ids: Sequence[str] = (),
    *,
    tier: str = "quick",
    seeds: int | None = None,
    workers: int | None = None,
    cluster: str | None = None,
    cpus: float | None = None,
    gpus: float | None = None,
    train: bool = True,
    measurements: str | Path | None = None,
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
        seeds: Runs of each experiment, with seeds from 0; by default the number that was planned for each.
        workers: Trainings in parallel; by default one with a GPU, else as many as there are CPU cores, up to 4. See
            `Place`, as for the three below.
        cluster: A Ray cluster on which to train.
        cpus: CPUs of each training there.
        gpus: GPUs of each training there.
        train: Whether to run what is missing; otherwise only existing runs are judged.
        measurements: Folder of CSV files with measured runs, of the full tier. What they have is not run; what is
            missing is added to them.
        data_dir: Folder of MNIST and CIFAR-10; by default that of the experiments.
        out: Folder for RESULTS.md and results.html; by default `reproduction` in the current folder.
        tracking_uri: Database or server of the runs; by default MLFLOW_TRACKING_URI, else the project's mlflow.db.
        command: Command line, stated on the page.

    Returns:
        Verdicts, runs, failures, and the files that were written.

    Raises:
        UserError: A value is invalid, a file cannot be read or written, or the tracking store is lost.
    """
    plan, files = plan_runs(ids, tier, seeds, measurements)
    folder = _output_folder(OUT if out is None else Path(out))
    store = Store(tracking_uri, opened=False)
    place = Place(cluster, default_workers() if workers is None and cluster is None else workers, cpus, gpus)
    with (
        tempfile.TemporaryDirectory(prefix="litlab-reproduce-") as scratch,
        make_pool(place, Path(scratch)) as pool,
        LiveDisplay() as display,
    ):
        if train:
            pool.warm_up()
            pool.check_store(store)
        measured = measure_existing(plan, store, files)
        for line in _status(plan, measured, files):
            display.print(line)
        run = partial(run_missing, plan, measured, store, pool, display, data_dir=data_dir)
        failures, signal = run() if train else ({}, None)
    if signal is not None:
        return Reproduction(plan, measured.runs, failures, stop_signal=signal)
    verdicts = judge(plan, measure(plan, measured.runs))
    data = {section.title: describe_test_sets(section, measured.runs) for section in plan.sections}
    facts = _facts(measured.runs, seeds)
    result = Reproduction(plan, measured.runs, failures, verdicts, data, facts, redact_credentials(command))
    return replace(result, pages=write_pages(result, folder))


def plan_runs(
    ids: Sequence[str], tier: str, seeds: int | None, measurements: str | Path | None
) -> tuple[Plan, MeasurementFiles | None]:
    """Return what to run, and the CSV files; for the arguments see `reproduce`.

    Raises:
        UserError: An argument is invalid.
    """
    if seeds is not None and seeds < 1:
        raise UserError(f"--seeds {seeds}: expected at least 1")
    if tier not in TIERS:
        raise UserError(f"--tier {tier}: expected {' or '.join(TIERS)}")
    if measurements is not None and tier != "full":
        raise UserError(f"--measurements {measurements}: goes with --tier full")
    plan = load_plan(tier, ids)
    files = None if measurements is None else MeasurementFiles(Path(measurements))
    return plan if seeds is None else plan.with_seeds(seeds), files


def measure_existing(plan: Plan, store: Store, files: MeasurementFiles | None, *, adds: bool = True) -> MeasuredRuns:
    """Return what the CSV files have of a plan, and the tracking store has of the rest, which is added to the files.

    The store is not opened if nothing is missing. A database that does not exist is not created.

    Raises:
        UserError: A command or a file is not valid, or the store is unavailable.
    """
    measured = MeasuredRuns(plan, identify_jobs(plan.jobs.values()), store, files, adds=adds)
    measured.read_files()
    database = database_file(store.uri)
    if measured.missing and (database is None or database.exists()):
        measured.read_store()
    return measured


def _status(plan: Plan, measured: MeasuredRuns, files: MeasurementFiles | None) -> list[str]:
    """Return how many runs are planned and finished, and which rows of the CSV files do not count."""
    total, others = len(measured.planned), measured.other
    done = total - len(measured.missing)
    are = "is" if done == 1 else "are"
    lines = [f"{plan.tier} tier: {counted(total, 'run')}, {done} of them {are} already finished"]
    if plan.tier == "quick":
        lines.append("on data that come with litlab: digits instead of MNIST and CIFAR-10, which --tier full uses")
    if files is not None and others:
        labels = ", ".join(dict.fromkeys(row.label for row in others))
        lines.append(f"ignored rows in {files.folder}, of earlier configurations: {len(others)}, of {labels}")
    return lines


def _output_folder(folder: Path) -> Path:
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--out {folder}: not a folder")
    for name, mark in zip(PAGES, MARKS, strict=True):
        check_output(folder / name, mark)
    return folder


def _facts(runs: Runs, seeds: int | None) -> list[str]:
    """Return when, where and with which versions the runs were made."""
    rows = [row for of_job in runs.values() for row in of_job.values()]
    planned = "the number n of seeds was planned before the runs" if seeds is None else f"{counted(seeds, 'seed')} each"
    facts = [f"{counted(len(rows), 'run')}; {planned}. Values are means over the n seeds, with 95 % intervals."]
    if rows:
        first, last = (pick(row.date for row in rows) for pick in (min, max))
        versions = {f"{name} {row.versions[name]}" for row in rows for name in PACKAGES if name in row.versions}
        machines = " and ".join(sorted({row.processor for row in rows} - {""}))
        dates = f"on {first}" if first == last else f"from {first} to {last}"
        text = f"Trained {dates}{f', on {machines}' if machines else ''}"
        facts.append(f"{text}, with {', '.join(sorted(versions))}.")
    return facts
