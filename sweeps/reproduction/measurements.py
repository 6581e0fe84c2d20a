"""What claims are judged by: finished runs, what they have measured, parameter counts, tests of the theory."""

import json
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import product
from pathlib import Path
from xml.etree import ElementTree

from pipelines.config.identity import config_hash, flatten_config
from pipelines.config.matching import ConfigMatcher, saved_configs
from pipelines.runtime.class_paths import class_paths
from pipelines.runtime.environment import project_folder
from pipelines.runtime.errors import UserError
from pipelines.runtime.silence import silence_lightning
from pipelines.tracking.query import find_runs
from pipelines.tracking.store import Store, StoredRun
from pipelines.tracking.tags import CONFIG_HASH_TAG, EXPLAIN_TAG, OLD_EXPLAIN_TAG, PARENT_RUN_TAG
from sweeps.reproduction import verdicts
from sweeps.reproduction.claims import PublishedJob, Section

THEORY = Path("tests/theory")
GIVEN = ("method", "C", "components", "model", "data", "trainer.max_epochs")  # keys that a run of any version has
Runs = dict[str, dict[str, StoredRun]]  # by label and seed


@dataclass(frozen=True)
class ConfigIdentity:
    """What a job's configuration says of itself.

    Attributes:
        hash: Equal for runs that differ only in the seed and the place of the data; of a look, what is asked.
        files: Whether its data come from files, so that it needs to know where.
        looks_at: The label of the job whose run is looked at.
        matcher: Tells which runs of other versions have the same configuration; None for a look.
        given: Params that they all have, by which they are searched for.
    """

    hash: str
    files: bool
    looks_at: str = ""
    matcher: ConfigMatcher | None = None
    given: Mapping[str, str] = field(default_factory=dict)


def look(jobs: Collection[PublishedJob]) -> dict[str, ConfigIdentity]:
    """Parse each job's command; by label.

    Raises:
        UserError: A command is wrong.
    """
    silence_lightning()
    known = {job.label: _look(job) for job in jobs if not job.looks_at}
    looks = [job for job in jobs if job.looks_at]
    return known | {
        job.label: ConfigIdentity(shlex.join(job.arguments), known[job.looks_at].files, job.looks_at) for job in looks
    }


def _look(job: PublishedJob) -> ConfigIdentity:
    from pipelines.config.cli import parse_config
    from pipelines.config.defaults import config_defaults

    if job.verb == "baseline":
        from pipelines.commands import baseline
        from pipelines.evaluation.baseline import baseline_config, recorded_baseline
        from pipelines.evaluation.baseline_methods import settings_of

        asked = baseline.parse(job.arguments)
        cli = parse_config(job.verb, [asked.experiment, *asked.overrides])
        (setting,) = settings_of(asked.method, C=asked.C, components=asked.components)
        config, read = baseline_config(asked.method, setting, cli), recorded_baseline
    else:
        cli = parse_config(job.verb, job.arguments)
        config, read = cli.resolved(), saved_configs
    known = config_hash(config)
    given = {key: str(value) for key, value in flatten_config(config).items() if key in GIVEN and value is not None}
    matcher = ConfigMatcher(known, config, lambda: config_defaults(cli), read)
    return ConfigIdentity(known, "data_dir" in config["data"].get("init_args", {}), matcher=matcher, given=given)


def finished(store: Store, known: Mapping[str, ConfigIdentity], seeds: int) -> Runs:
    """The finished and tested runs of each job, the latest of each of the seeds from 0, and the looks at these runs."""
    runs: Runs = {}
    for label, one in known.items():
        if one.looks_at:
            continue
        latest = _latest_tested(find_runs(store, [], f"tags.`{CONFIG_HASH_TAG}` = '{one.hash}'").runs)
        if any(str(seed) not in latest for seed in range(seeds)):
            latest = _latest_tested([*_of_other_versions(store, one), *latest.values()])
        runs[label] = {str(seed): latest[str(seed)] for seed in range(seeds) if str(seed) in latest}
    for label, one in known.items():
        if one.looks_at:
            looks = {seed: _latest_look(store, run, one.hash) for seed, run in runs[one.looks_at].items()}
            runs[label] = {seed: found for seed, found in looks.items() if found}
    return runs


def _latest_tested(runs: Iterable[StoredRun]) -> dict[str, StoredRun]:
    """Return the latest tested run of each seed."""
    tested = [run for run in runs if any(key.startswith("test/") for key in run.metrics)]
    return {run.seed: run for run in sorted(tested, key=lambda run: run.started)}


def _of_other_versions(store: Store, one: ConfigIdentity) -> list[StoredRun]:
    """Return the finished runs of a configuration with another hash, such as one without a key that was added later."""
    found: list[StoredRun] = []
    for values in product(*(class_paths(value) for value in one.given.values())):
        given = [f"params.{key} = '{value}'" for key, value in zip(one.given, values, strict=True)]
        wanted = " AND ".join([*given, f"tags.`{CONFIG_HASH_TAG}` != '{one.hash}'"])
        found += find_runs(store, [], wanted).runs
    return [run for run in found if one.matcher is not None and one.matcher.matches(run)]


def _latest_look(store: Store, run: StoredRun, asked: str) -> StoredRun | None:
    """The last finished look at a run that asked this."""
    found: list[StoredRun] = []
    for tag in (EXPLAIN_TAG, OLD_EXPLAIN_TAG):
        same = f"tags.{PARENT_RUN_TAG} = '{run.run_id}' AND tags.`{tag}` = '{asked}'"
        found += store.search([run.experiment_id], f"{same} AND attributes.status = 'FINISHED'")
    return max(found, key=lambda one: one.started, default=None)


def values(store: Store, jobs: Mapping[str, PublishedJob], runs: Runs, seeds: int) -> Callable[[str], verdicts.Values]:
    """The values of a term, "LABEL METRIC", by seed; those of a method without chance count alike for every seed."""

    def history(run_id: str, metric: str) -> Sequence[tuple[int, float]]:
        return [(item.step, item.value) for item in store.client.get_metric_history(run_id, metric)]

    def of(term: str) -> verdicts.Values:
        label, _, metric = term.partition(" ")
        measured = {seed: verdicts.measure(run, metric, history) for seed, run in runs.get(label, {}).items()}
        there = {seed: value for seed, value in measured.items() if value is not None}
        if jobs[label].has_chance or not there:
            return there
        return verdicts.Certain({str(seed): next(iter(there.values())) for seed in range(seeds)})

    return of


def parameters(jobs: Mapping[str, PublishedJob]) -> Callable[[str], int]:
    """The number of parameters of a job's network, as published; no data are read."""

    @cache
    def of(label: str) -> int:
        from pipelines.config.cli import parse_config

        _, model = parse_config("fit", jobs[label].as_published).build()
        return sum(parameter.numel() for parameter in model.parameters())

    return of


def theory(files: Iterable[str]) -> Callable[[str], bool | None]:
    """Whether all tests of a file pass; None if the file is not there. The tests of all the files run at once."""
    folder = project_folder()
    there = sorted({name for name in files if (folder / THEORY / name).is_file()})
    if not there:
        return lambda name: None
    with tempfile.TemporaryDirectory(prefix="litlab-theory-") as scratch:
        report = Path(scratch) / "report.xml"
        command = [sys.executable, "-m", "pytest", *(str(THEORY / name) for name in there)]
        command += ["-q", "-p", "no:cacheprovider", f"--junitxml={report}"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        if not report.is_file():
            raise UserError(f"the tests of the theory cannot run: {(done.stderr or done.stdout).strip()[-500:]}")
        passed = _passed(report)
    return lambda name: passed.get(Path(name).stem, False) if name in there else None


def _passed(report: Path) -> dict[str, bool]:
    """By the name of a file, whether there are tests of it, and all of them passed."""
    passed: dict[str, bool] = {}
    for case in ElementTree.parse(report).iter("testcase"):  # noqa: S314 (as our own pytest wrote it)
        name = case.get("classname", "").rpartition(".")[2]
        passed[name] = passed.get(name, True) and len(case.findall("failure") + case.findall("error")) == 0
    return passed


def dataset_descriptions(store: Store, sections: Iterable[Section], runs: Runs) -> dict[str, list[str]]:
    """Which data the runs of each section have seen, as sentences; see data.json of a run."""
    said = {}
    for section in sections:
        labels = [label for one in section.experiments for label in one.labels]
        of_section = [run for label in labels for run in runs.get(label, {}).values()]
        by_test = {run.tags.get("data.sha256.test", ""): run for run in of_section}
        said[section.title] = sorted({text for run in by_test.values() for text in [_card(store, run)] if text})
    return said


def _card(store: Store, run: StoredRun) -> str:
    try:
        card = json.loads(store.find(run.run_id).file("data.json").read_text())
    except (UserError, ValueError):
        return ""  # somebody has deleted it
    digest = card["sha256"].get("test", "")[:12]
    text = f"Data: {card['source']}, test set of {card['sizes'].get('test', 0):,}, SHA-256 {digest}."
    if card.get("files") == "folder":
        text += " Read from image files: if those were compressed again (JPEG), accuracies come out a little low."
    return text
