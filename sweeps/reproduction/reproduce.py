"""`litlab reproduce`: run the published experiments, and judge each published claim."""

import argparse
import datetime
import shlex
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.reporting import html_page as page
from pipelines.runtime.environment import cpu_count, project_folder
from pipelines.runtime.errors import UserError
from pipelines.runtime.signals import exit_on_sigterm
from pipelines.runtime.text import redact_credentials
from pipelines.tracking.store import Store
from pipelines.tracking.tags import PROCESSOR_TAG, REPRODUCES_TAG
from sweeps.reproduction import claims as published
from sweeps.reproduction import measurements as evidence
from sweeps.reproduction import results_page as results
from sweeps.reproduction import verdicts
from sweeps.reproduction.claims import Plan, PublishedJob
from sweeps.reproduction.measurements import ConfigIdentity, Runs
from sweeps.workers.job import Job

if TYPE_CHECKING:
    from sweeps.workers.batch import JobResult

QUICK_EXPERIMENT = "reproduce-quick"  # where runs of the quick tier go; those of the full tier have their own
MAX_WORKERS = 4
HELP = """usage: litlab reproduce [ID ...] [--tier quick|full] [options]

Runs the published experiments, with several seeds each, and judges each
published claim by a rule that was written down beforehand. Finished runs with
the same configuration are reused; a stopped reproduction goes on.

  ID               some of the experiments (all); a wrong one lists them
  --tier quick     minutes on 2 CPU cores, on data that come with litlab:
                     digits instead of MNIST and CIFAR-10 (the default)
  --tier full      hours, on the published data
  --seeds 3        runs of each experiment
  --workers 2      trainings at a time; they share the CPU cores (all, up to 4)
  --as-is          train nothing: judge what has been run until now
  --data_dir DIR   where MNIST and CIFAR-10 are (data)
  --out DIR        where RESULTS.md and results.html go (reproduction; docs for
                     all of the full tier)
  --tracking_uri URI   where runs are kept (mlflow.db of this project)"""
VERSIONS = ("version.torch", "version.lightning", "version.litlab")


def main(verb: str, argv: Sequence[str]) -> int:
    """`litlab reproduce [ID ...] [--tier quick|full] [--seeds N]`."""
    if {"-h", "--help"} & set(argv):
        print(HELP)
        return 0
    options = _options(argv)
    plan = published.read(options.tier, options.ids)
    whole = options.tier == "full" and not options.ids
    out = options.out or project_folder() / ("docs" if whole else "reproduction")
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out}: not a folder")
    exit_on_sigterm()
    store = Store(options.tracking_uri)
    again = shlex.join(["litlab", verb, *argv])
    with tempfile.TemporaryDirectory(prefix="litlab-reproduce-") as folder:
        runs, ends, stopped = _run(plan, options, store, Path(folder))
    if stopped:
        print("litlab: stopped; the same command goes on from here", file=sys.stderr)
        return 128 + stopped
    failures = {end.job.tags[REPRODUCES_TAG]: end.reason for end in ends if end.status != "FINISHED"}
    outcome = _judge(plan, options, store, runs, failures)
    _write(outcome, out, redact_credentials(again))
    return 1 if failures else 0


def _options(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="litlab reproduce", allow_abbrev=False, add_help=False)
    parser.add_argument("ids", nargs="*")
    parser.add_argument("--tier", choices=published.TIERS, default="quick")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--workers", type=int)
    parser.add_argument("--as-is", action="store_true")
    parser.add_argument("--data_dir", "--data-dir", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--tracking_uri", "--tracking-uri")
    options = parser.parse_args(list(argv))
    options.workers = options.workers if options.workers is not None else _usual_workers()
    for name in ("seeds", "workers"):
        if getattr(options, name) < 1:
            raise UserError(f"--{name} {getattr(options, name)}: expected at least 1")
    return options


def _usual_workers() -> int:
    """As many as there are CPU cores; a GPU is for one training at a time."""
    import torch

    return 1 if torch.cuda.is_available() else min(cpu_count(), MAX_WORKERS)


def _run(plan: Plan, options: argparse.Namespace, store: Store, folder: Path) -> "tuple[Runs, list[JobResult], int]":
    """Make the runs that are missing; returns all there are, how the new ones ended, and the signal that stopped it."""
    from sweeps.workers.batch import graceful_shutdown, run_jobs
    from sweeps.workers.display import LiveDisplay
    from sweeps.workers.pool import Pool

    with Pool(options.workers, folder) as pool, LiveDisplay() as screen:
        if not options.as_is:
            pool.warm_up()
        known = evidence.look(plan.jobs.values())
        runs = evidence.finished(store, known, options.seeds)
        wanted = [
            (job, seed) for seed in range(options.seeds) for job in plan.jobs.values() if job.has_chance or not seed
        ]
        reused = sum(str(seed) in runs[job.label] for job, seed in wanted)
        screen.print(f"{plan.tier} tier, {options.seeds} seeds: {len(wanted)} runs, {reused} of them are there already")
        if plan.tier == "quick":
            screen.print(
                "on data that come with litlab: digits instead of MNIST and CIFAR-10, which are for --tier full"
            )
        ends: list[JobResult] = []
        with graceful_shutdown(pool) as signals:
            for looks in (False, True):  # at runs, which have to be there
                missing = [
                    _spec(plan.tier, job, seed, known[job.label], runs, options, store)
                    for job, seed in wanted
                    if bool(job.looks_at) == looks and str(seed) not in runs[job.label]
                    if not looks or str(seed) in runs[job.looks_at]
                ]
                if options.as_is or signals or not missing:
                    continue
                title = f"looks of {plan.tier}" if looks else f"reproduce {plan.tier}"
                ends += run_jobs(pool, missing, store, screen, title=title, reused=reused)
                reused += len(missing)
                runs = evidence.finished(store, known, options.seeds)
    return runs, ends, signals[0] if signals else 0


def _spec(
    tier: str,
    job: PublishedJob,
    seed: int,
    known: ConfigIdentity,
    runs: Runs,
    options: argparse.Namespace,
    store: Store,
) -> Job:
    place = ["--data.data_dir", str(options.data_dir)] if known.files and options.data_dir else []
    arguments = [*job.arguments, *place]
    if job.looks_at:
        arguments.insert(1, runs[job.looks_at][str(seed)].run_id)
    name = f"{job.arguments[1]}-{job.arguments[0]}" if job.verb == "baseline" else job.looks_at or job.arguments[0]
    return Job(
        arguments=arguments,
        seed=seed,
        experiment=QUICK_EXPERIMENT if tier == "quick" else name,
        tracking_uri=store.uri,
        run_name=f"{job.label} seed={seed}",
        tags={REPRODUCES_TAG: job.label},
        test=True,
        verb=job.verb,
    )


def _judge(
    plan: Plan, options: argparse.Namespace, store: Store, runs: Runs, failures: dict[str, str]
) -> results.Reproduction:
    claims = [claim for section in plan.sections for one in section.experiments for claim in one.claims]
    by = verdicts.Evidence(
        evidence.values(store, plan.jobs, runs, options.seeds),
        evidence.parameters(plan.jobs),
        evidence.theory(claim.terms[0] for claim in claims if claim.rule == "theory"),
    )
    judged = {
        one.id: [verdicts.judge(claim, by) for claim in one.claims]
        for section in plan.sections
        for one in section.experiments
    }
    return results.Reproduction(
        plan,
        judged,
        runs,
        failures,
        evidence.dataset_descriptions(store, plan.sections, runs),
        _facts(options.seeds, runs),
    )


def _facts(seeds: int, runs: Runs) -> list[str]:
    """When, where and with what."""
    every = [run for of_label in runs.values() for run in of_label.values()]
    facts = [f"{len(every)} runs, seeds 0 to {seeds - 1}; figures are means over the seeds, ± the standard deviation."]
    if every:
        first, last = (datetime.date.fromtimestamp(pick(run.started for run in every) / 1000) for pick in (min, max))
        versions = sorted(
            {f"{key.removeprefix('version.')} {run.tags[key]}" for run in every for key in VERSIONS if key in run.tags}
        )
        machines = sorted({run.tags[PROCESSOR_TAG] for run in every if PROCESSOR_TAG in run.tags})
        facts.append(f"Trained from {first} to {last} on {' and '.join(machines)}, with {', '.join(versions)}.")
    return facts


def _write(outcome: results.Reproduction, out: Path, again: str) -> None:
    """The page, as Markdown and HTML, and the verdicts in a line."""
    out.mkdir(parents=True, exist_ok=True)
    for name, text in (
        ("RESULTS.md", results.markdown(outcome, again)),
        ("results.html", results.html(outcome, again)),
    ):
        page.write(out / name, text)
        print(f"{out / name}")
    print(results.summary(outcome))
