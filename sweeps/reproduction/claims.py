"""What was published, and how each claim is judged: read from published/*.yaml, and checked.

A file is a section: its experiments have runs (commands of litlab, by label) and claims. A claim has one rule, written
down before its runs; see `verdicts`.
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
RULES = ("figure", "greater", "not_greater", "same", "at_least", "at_most", "between")  # of what runs have measured
BESIDE = ("count", "theory", "not_judged", "refuted_by")
OTHER_VERBS = ("baseline", "explain")
SAID = ("says", "asks", "source", "because", "corrected", "quick")


@dataclass(frozen=True)
class PublishedJob:
    """A training, or a baseline, that is run once for each seed.

    Attributes:
        label: What claims call it.
        verb: "fit", "baseline" or "explain".
        arguments: Of the verb, without the seed, and without the run that is looked at.
        as_published: Of the verb, as in the full tier: what parameters are counted of.
        looks_at: The label of the job whose run is looked at, of the same seed.
    """

    label: str
    verb: str
    arguments: list[str]
    as_published: list[str]
    looks_at: str = ""

    @property
    def has_chance(self) -> bool:
        """Whether its result depends on the seed."""
        return self.verb != "baseline"


@dataclass(frozen=True)
class Claim:
    """A sentence of a publication, or a question that it leaves open, and how it is judged.

    Attributes:
        text: What it says, or asks.
        question: Whether it asks.
        rule: The name of the rule.
        terms: What the rule looks at: labels and metrics, and numbers.
        because: What is to be said where the publication is wrong.
        judged: Whether it can be judged in this tier.
        refutes: Whether the publication is wrong if the rule holds.
        corrects: Whether the publication is wrong in what the rule shows to be otherwise, such as a test of the theory.
    """

    text: str
    question: bool
    rule: str
    terms: list[Any]
    because: str = ""
    judged: bool = True
    refutes: bool = False
    corrects: bool = False

    @property
    def labels(self) -> list[str]:
        """The jobs whose runs it needs."""
        return [term.split()[0] for term in self.terms if isinstance(term, str)] if self.rule in RULES else []


@dataclass(frozen=True)
class Experiment:
    """One experiment of a publication."""

    id: str
    source: str
    labels: list[str]
    claims: list[Claim]


@dataclass(frozen=True)
class Section:
    """Experiments on the same data."""

    title: str
    about: str
    columns: list[str]
    experiments: list[Experiment]


@dataclass(frozen=True)
class Plan:
    """What is to be reproduced in a tier."""

    tier: str
    sections: list[Section]
    jobs: dict[str, PublishedJob]


def read(tier: str, ids: Sequence[str] = (), folder: Path = FOLDER) -> Plan:
    """The experiments with these ids, or all, and the jobs that they need.

    Raises:
        UserError: There is no such id.
    """
    sections: list[Section] = []
    jobs: dict[str, PublishedJob] = {}
    for path in sorted(folder.glob("*.yaml")):
        content = read_yaml(path, "title, columns, tiers, experiments")
        assert set(content) == {"title", "columns", "tiers", "experiments"}, path
        chosen = content["tiers"][tier]
        experiments = [
            _experiment(item, path, other_data=chosen.get("other_data", False)) for item in content["experiments"]
        ]
        sections.append(Section(content["title"], chosen["about"], content["columns"], experiments))
        for item in content["experiments"]:
            jobs |= {label: _job(label, run, tier, content["tiers"]) for label, run in item["runs"].items()}
    plan = Plan(tier, sections, jobs)
    strangers = {label for _, one in _experiments(plan) for claim in one.claims for label in claim.labels}
    strangers |= {job.looks_at for job in jobs.values() if job.looks_at}
    assert strangers <= set(jobs), f"claims about jobs that are nowhere: {strangers - set(jobs)}"
    return _only(plan, ids) if ids else plan


def names(plan: Plan) -> list[str]:
    """The ids of a plan's experiments."""
    return [one.id for _, one in _experiments(plan)]


def _experiments(plan: Plan) -> list[tuple[Section, Experiment]]:
    return [(section, one) for section in plan.sections for one in section.experiments]


def _only(plan: Plan, ids: Sequence[str]) -> Plan:
    known = names(plan)
    for wanted in ids:
        if wanted not in known:
            near = get_close_matches(wanted, known, n=3, cutoff=0.4)
            hint = f"did you mean {' or '.join(near)}? " if near else ""
            raise UserError(f"there is no published experiment {wanted!r}; {hint}they are {', '.join(known)}")
    sections = []
    for section in plan.sections:
        chosen = [one for one in section.experiments if one.id in ids]
        sections += [Section(section.title, section.about, section.columns, chosen)] if chosen else []
    needed = {label for section in sections for one in section.experiments for label in one.labels}
    needed |= {label for section in sections for one in section.experiments for c in one.claims for label in c.labels}
    needed |= {plan.jobs[label].looks_at for label in needed}
    return Plan(plan.tier, sections, {label: job for label, job in plan.jobs.items() if label in needed})


def _experiment(item: dict[str, Any], path: Path, *, other_data: bool) -> Experiment:
    assert set(item) == {"id", "source", "runs", "claims"}, f"{path}: {item['id']}"
    claims = [_claim(claim, f"{path.name}, {item['id']}", other_data=other_data) for claim in item["claims"]]
    return Experiment(item["id"], item["source"], list(item["runs"]), claims)


def _claim(item: dict[str, Any], where: str, *, other_data: bool) -> Claim:
    (rule,) = [key for key in item if key not in SAID]
    assert rule in RULES or rule in BESIDE, f"{where}: {item}"
    because = item.get("because", item.get("corrected", ""))
    if rule == "refuted_by":
        inner = {key: item[key] for key in SAID if key in item} | item[rule]
        return replace(_claim(inner, where, other_data=other_data), because=because, refutes=True)
    terms = item[rule] if isinstance(item[rule], list) else [item[rule]]
    judged = not other_data or item.get("quick", False) or rule in BESIDE
    question = "asks" in item
    text = item["asks"] if question else item["says"]
    return Claim(text, question, rule, terms, because, judged, corrects="corrected" in item)


def _job(label: str, run: dict[str, str], tier: str, tiers: dict[str, dict[str, str]]) -> PublishedJob:
    def arguments(of: str) -> list[str]:
        name, *own = shlex.split(run["command"])
        more = shlex.split(run.get(of, ""))
        if name in OTHER_VERBS:
            return [*own, *more]
        of_all = shlex.split(tiers[of].get("arguments", ""))
        words = [*of_all, *own, *more]
        given = dict(zip(words[::2], words[1::2], strict=True))  # of a key that comes twice, the last value
        return [name, *(word for pair in given.items() for word in pair)]

    first = run["command"].split()[0]
    verb = first if first in OTHER_VERBS else "fit"
    return PublishedJob(label, verb, arguments(tier), arguments("full"), run.get("looks_at", ""))
