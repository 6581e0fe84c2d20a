"""Published experiments and their claims, loaded from published/*.yaml and checked.

Each file is a section of the page of results. An experiment has runs, which are litlab commands by label, and claims.
Each claim has one rule, which was written down before its runs; see `verdicts`. So was the number of runs of the full
tier, `seeds` of a run or else of the file's tier; if seeds are added after the results were seen, `exploratory: true`
says so. `{seed}` in a command is the seed of each run.
"""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pipelines.config.experiments import read_yaml
from pipelines.runtime.errors import UserError

FOLDER = Path(__file__).parent / "published"
TIERS = ("quick", "full")
METRIC_RULES = ("value", "greater", "not_greater", "same", "at_least", "at_most", "between")  # judge metrics of runs
OTHER_RULES = ("count", "theory", "not_judged", "refuted_by")
OTHER_VERBS = ("baseline", "explain")  # than fit, which a command does not name
SEED = "{seed}"  # in a command: the run's seed, for data that are drawn anew for each seed
QUICK_SEEDS = 3
RUN_KEYS = ("command", "explains", "exploratory", "seeds", *TIERS)
CLAIM_KEYS = ("says", "asks", "source", "because", "corrected", "quick")  # of a claim, besides its rule


@dataclass(frozen=True)
class PublishedJob:
    """A training, a baseline or an explanation that is run once for each seed.

    Attributes:
        label: Its name in claims.
        verb: "fit", "baseline" or "explain".
        arguments: Arguments of the verb, without the seed and without the run that is explained.
        full_arguments: The same in the full tier; published parameter counts refer to these.
        explains: Label of the job whose run is explained, with the same seed; "" if nothing is.
        seeds: Planned number of runs, with seeds from 0; 1 if the result does not depend on the seed.
        section: Name of the file that it is published in, without suffix.
        metrics: Metrics that claims about it name.
        exploratory: Whether seeds were added after its results had been seen.
    """

    label: str
    verb: str
    arguments: list[str]
    full_arguments: list[str]
    explains: str = ""
    seeds: int = QUICK_SEEDS
    section: str = ""
    metrics: frozenset[str] = frozenset()
    exploratory: bool = False

    @property
    def follows_seed(self) -> bool:
        """Whether its data are drawn anew for each seed."""
        return any(SEED in argument for argument in self.arguments)

    @property
    def is_stochastic(self) -> bool:
        """Whether the result depends on the seed."""
        return self.verb != "baseline" or self.follows_seed

    def arguments_with(self, seed: int | str) -> list[str]:
        """Return the arguments of the run with this seed."""
        return [argument.replace(SEED, str(seed)) for argument in self.arguments]


@dataclass(frozen=True)
class Claim:
    """A statement of a publication, or a question that it leaves open, and how it is judged.

    Attributes:
        text: The statement or the question.
        rule: Name of the rule; see `verdicts`.
        terms: Arguments of the rule: "LABEL METRIC" and numbers.
        is_question: Whether it is a question.
        correction: What is right if the publication is wrong.
        is_judged: Whether it can be judged in this tier.
        refutes: Whether the publication is wrong if the rule holds.
        corrects: Whether the publication is wrong if the tests of the theory pass.
    """

    text: str
    rule: str
    terms: list[Any]
    is_question: bool = False
    correction: str = ""
    is_judged: bool = True
    refutes: bool = False
    corrects: bool = False

    @property
    def labels(self) -> list[str]:
        """Labels of the jobs whose runs it needs."""
        return [label for label, _ in self.metrics]

    @property
    def metrics(self) -> list[tuple[str, str]]:
        """Labels of these jobs, each with the metric that it needs."""
        terms = [term.partition(" ") for term in self.terms if isinstance(term, str)]
        return [(label, metric) for label, _, metric in terms] if self.rule in METRIC_RULES else []


@dataclass(frozen=True)
class Experiment:
    """One experiment of a publication: labels of its jobs, and its claims."""

    id: str
    source: str
    labels: list[str]
    claims: list[Claim]


@dataclass(frozen=True)
class Section:
    """Experiments on the same data.

    Attributes:
        title: Heading on the page of results.
        about: Describes the data.
        columns: Metrics shown for each job, if it has them.
        experiments: The experiments.
    """

    title: str
    about: str
    columns: list[str]
    experiments: list[Experiment]

    @property
    def labels(self) -> list[str]:
        """Labels of the jobs of its experiments."""
        return [label for experiment in self.experiments for label in experiment.labels]


@dataclass(frozen=True)
class Plan:
    """The experiments to reproduce in a tier, and the jobs that they need, by label."""

    tier: str
    sections: list[Section]
    jobs: dict[str, PublishedJob]

    @property
    def experiments(self) -> list[Experiment]:
        return [experiment for section in self.sections for experiment in section.experiments]

    @property
    def claims(self) -> list[Claim]:
        return [claim for experiment in self.experiments for claim in experiment.claims]

    def with_seeds(self, seeds: int) -> "Plan":
        """Return the plan with this number of runs of each job whose result depends on the seed."""
        return replace(self, jobs={label: _planned(job, seeds) for label, job in self.jobs.items()})


def load_plan(tier: str, ids: Sequence[str] = ()) -> Plan:
    """Load the published experiments with these ids, by default all, and the jobs that they need.

    Raises:
        UserError: There is no experiment with such an id.
    """
    sections: list[Section] = []
    jobs: dict[str, PublishedJob] = {}
    for path in sorted(FOLDER.glob("*.yaml")):
        content = read_yaml(path, "title, columns, tiers, experiments")
        assert set(content) == {"title", "columns", "tiers", "experiments"}, path
        settings = content["tiers"][tier]
        other_data = settings.get("other_data", False)
        experiments = [_experiment(item, path, other_data=other_data) for item in content["experiments"]]
        sections.append(Section(content["title"], settings["about"], content["columns"], experiments))
        for item in content["experiments"]:
            jobs |= {label: _job(label, run, tier, content["tiers"], path) for label, run in item["runs"].items()}
    plan = Plan(tier, sections, jobs)
    for label, metric in (pair for claim in plan.claims for pair in claim.metrics if pair[0] in jobs):
        jobs[label] = replace(jobs[label], metrics=jobs[label].metrics | {metric})
    for job in [job for job in jobs.values() if job.explains in jobs]:
        jobs[job.label] = replace(job, seeds=jobs[job.explains].seeds)
    used = {label for claim in plan.claims for label in claim.labels} | {job.explains for job in jobs.values()} - {""}
    assert used <= set(jobs), f"claims about unknown jobs: {used - set(jobs)}"
    return _select(plan, ids) if ids else plan


def _select(plan: Plan, ids: Sequence[str]) -> Plan:
    """Return the part of a plan that has these experiments, and the jobs of their claims."""
    known = [experiment.id for experiment in plan.experiments]
    for name in ids:
        if name not in known:
            suggestions = get_close_matches(name, known, n=3, cutoff=0.4)
            hint = f"did you mean {' or '.join(suggestions)}? " if suggestions else ""
            raise UserError(f"there is no published experiment {name!r}; {hint}the experiments are {', '.join(known)}")
    sections = []
    for section in plan.sections:
        if selected := [experiment for experiment in section.experiments if experiment.id in ids]:
            sections.append(replace(section, experiments=selected))
    part = Plan(plan.tier, sections, {})
    needed = {label for section in sections for label in section.labels}
    needed |= {label for claim in part.claims for label in claim.labels}
    needed |= {plan.jobs[label].explains for label in needed}
    return replace(part, jobs={label: job for label, job in plan.jobs.items() if label in needed})


def _experiment(item: dict[str, Any], path: Path, *, other_data: bool) -> Experiment:
    assert set(item) == {"id", "source", "runs", "claims"}, f"{path}: {item['id']}"
    claims = [_claim(claim, f"{path.name}, {item['id']}", other_data=other_data) for claim in item["claims"]]
    return Experiment(item["id"], item["source"], list(item["runs"]), claims)


def _claim(item: dict[str, Any], place: str, *, other_data: bool) -> Claim:
    """Return a claim; `other_data` tells that the tier uses other data, on which few claims can be judged."""
    (rule,) = [key for key in item if key not in CLAIM_KEYS]
    assert rule in METRIC_RULES or rule in OTHER_RULES, f"{place}: {item}"
    correction = item.get("because", item.get("corrected", ""))
    if rule == "refuted_by":
        inner = {key: item[key] for key in CLAIM_KEYS if key in item} | item[rule]
        return replace(_claim(inner, place, other_data=other_data), correction=correction, refutes=True)
    return Claim(
        text=item["asks"] if "asks" in item else item["says"],
        rule=rule,
        terms=item[rule] if isinstance(item[rule], list) else [item[rule]],
        is_question="asks" in item,
        correction=correction,
        is_judged=not other_data or item.get("quick", False) or rule in OTHER_RULES,
        corrects="corrected" in item,
    )


def _job(label: str, run: dict[str, Any], tier: str, tiers: dict[str, dict[str, Any]], path: Path) -> PublishedJob:
    assert set(run) <= set(RUN_KEYS), f"{path}: {label}"
    first = run["command"].split()[0]
    verb = first if first in OTHER_VERBS else "fit"
    arguments, full_arguments = (_arguments(run, name, tiers[name]) for name in (tier, "full"))
    job = PublishedJob(
        label=label,
        verb=verb,
        arguments=arguments,
        full_arguments=[argument.replace(SEED, "0") for argument in full_arguments],
        explains=run.get("explains", ""),
        section=path.stem,
        exploratory=run.get("exploratory", False),
    )
    return _planned(job, run.get("seeds", tiers["full"].get("seeds", QUICK_SEEDS)) if tier == "full" else QUICK_SEEDS)


def _planned(job: PublishedJob, seeds: int) -> PublishedJob:
    return replace(job, seeds=seeds if job.is_stochastic else 1)


def _arguments(run: dict[str, Any], tier: str, settings: dict[str, Any]) -> list[str]:
    """Return the arguments of a job in a tier; of a key that is given twice, the last value counts."""
    name, *own = shlex.split(run["command"])
    own += shlex.split(run.get(tier, ""))
    if name in OTHER_VERBS:
        return own
    tokens = [*shlex.split(settings.get("arguments", "")), *own]
    values = dict(zip(tokens[::2], tokens[1::2], strict=True))
    return [name, *(token for pair in values.items() for token in pair)]
