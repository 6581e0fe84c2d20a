"""Published experiments and their claims, loaded from published/*.yaml and checked.

Each file is a section of the page of results. An experiment has runs, which are litlab commands by label, and claims.
Each claim has one rule, which was written down before its runs; see `rules`. So was the number of runs; see
`published_job`. Further keys of a claim:

- margin: of a value, if it is not the default one.
- paired: whether both sides are compared seed by seed, if it cannot be derived; see `pairing`.
- other_test_set: size of the report's test set, if it is another one than ours, or "unknown"; also of a whole file.
- beyond: true if no report makes the statement.
- differs: why our result is another one.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pipelines.config.experiments import read_yaml
from pipelines.runtime.errors import UserError
from sweeps.reproduction.published_job import PublishedJob, load_job

FOLDER = Path(__file__).parent / "published"
TIERS = ("quick", "full")
METRIC_RULES = ("value", "greater", "not_greater", "same", "at_least", "at_most", "between")  # judge metrics of runs
OTHER_RULES = ("count", "theory", "not_judged", "refuted_by")
CLAIM_KEYS = (  # of a claim, besides its rule
    "says",
    "asks",
    "source",
    "because",
    "corrected",
    "quick",
    "margin",
    "paired",
    "other_test_set",
    "beyond",
    "differs",
)
FILE_KEYS = {"title", "columns", "tiers", "experiments", "other_test_set"}  # the last may be missing
MEASURED, DERIVED, QUESTION, BEYOND = "measured", "derived", "question", "beyond"  # kinds of claims
UNKNOWN = 0  # size of a report's test set


@dataclass(frozen=True)
class Claim:
    """A statement of a publication, or a question that it leaves open, and how it is judged.

    Attributes:
        text: The statement or the question.
        rule: Name of the rule; see `rules`.
        terms: Arguments of the rule: "LABEL METRIC" and numbers.
        is_question: Whether it is a question.
        correction: What is right if the publication is wrong.
        is_judged: Whether it can be judged in this tier.
        refutes: Whether the publication is wrong if the rule holds.
        corrects: Whether the publication is wrong if the tests of the theory pass.
        margin: Of a value, if it is not the default one.
        paired: Whether two sides are compared seed by seed; None to derive it from the jobs.
        other_test_set: Number of examples in the report's test set, or UNKNOWN, if ours is another one; None if it is
            the same.
        is_beyond: Whether no report makes the statement.
        differs: Why our result is another one.
    """

    text: str
    rule: str
    terms: list[Any]
    is_question: bool = False
    correction: str = ""
    is_judged: bool = True
    refutes: bool = False
    corrects: bool = False
    margin: float | None = None
    paired: bool | None = None
    other_test_set: int | None = None
    is_beyond: bool = False
    differs: str = ""

    @property
    def labels(self) -> list[str]:
        """Labels of the jobs whose runs it needs."""
        return [label for label, _ in self.metrics]

    @property
    def metrics(self) -> list[tuple[str, str]]:
        """Labels of these jobs, each with the metric that it needs."""
        terms = [term.partition(" ") for term in self.terms if isinstance(term, str)]
        return [(label, metric) for label, _, metric in terms] if self.rule in METRIC_RULES else []

    @property
    def numbers(self) -> list[float]:
        """Numbers among the arguments of its rule."""
        return [float(term) for term in self.terms if not isinstance(term, str)]

    @property
    def is_asked(self) -> bool:
        """Whether it is answered yes or no, because no publication states it."""
        return self.is_question or self.is_beyond

    @property
    def kind(self) -> str:
        """MEASURED, DERIVED, QUESTION or BEYOND, which are counted apart."""
        if self.is_asked:
            return BEYOND if self.is_beyond else QUESTION
        return DERIVED if self.rule in ("count", "theory") else MEASURED


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
        return replace(self, jobs={label: job.with_seeds(seeds) for label, job in self.jobs.items()})


def load_plan(tier: str, ids: Sequence[str] = ()) -> Plan:
    """Load the published experiments with these ids, by default all, and the jobs that they need.

    Raises:
        UserError: There is no experiment with such an id.
    """
    sections: list[Section] = []
    jobs: dict[str, PublishedJob] = {}
    for path in sorted(FOLDER.glob("*.yaml")):
        content = read_yaml(path, "title, columns, tiers, experiments")
        assert set(content) | {"other_test_set"} == FILE_KEYS, path
        settings = content["tiers"][tier]
        other_data, other_test_set = settings.get("other_data", False), content.get("other_test_set")
        items = [_with_default(item, other_test_set) for item in content["experiments"]]
        experiments = [_experiment(item, path, other_data=other_data) for item in items]
        sections.append(Section(content["title"], settings["about"], content["columns"], experiments))
        for item in content["experiments"]:
            jobs |= {
                label: load_job(label, run, tier, content["tiers"], path.stem) for label, run in item["runs"].items()
            }
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


def _with_default(item: dict[str, Any], other_test_set: int | str | None) -> dict[str, Any]:
    """Return an experiment whose claims have the file's `other_test_set` if they state none."""
    if other_test_set is None:
        return item
    return item | {"claims": [{"other_test_set": other_test_set} | claim for claim in item["claims"]]}


def _experiment(item: dict[str, Any], path: Path, *, other_data: bool) -> Experiment:
    assert set(item) == {"id", "source", "runs", "claims"}, f"{path}: {item['id']}"
    claims = [_claim(claim, f"{path.name}, {item['id']}", other_data=other_data) for claim in item["claims"]]
    return Experiment(item["id"], item["source"], list(item["runs"]), claims)


def _claim(item: dict[str, Any], place: str, *, other_data: bool) -> Claim:
    """Return a claim; `other_data` tells that the tier uses other data, on which few claims can be judged."""
    (rule,) = [key for key in item if key not in CLAIM_KEYS]
    assert rule in METRIC_RULES or rule in OTHER_RULES, f"{place}: {item}"
    correction = item.get("because", item.get("corrected", ""))
    other_test_set = item.get("other_test_set")
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
        margin=item.get("margin"),
        paired=item.get("paired"),
        other_test_set=UNKNOWN if other_test_set == "unknown" else other_test_set,
        is_beyond=item.get("beyond", False),
        differs=item.get("differs", ""),
    )
