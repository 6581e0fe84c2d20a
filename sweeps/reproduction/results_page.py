"""The page of a reproduction: what was published, what came out, and what to think of it; as Markdown and as HTML."""

import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipelines.comparison.formatting import format_mean_sd, markdown_table
from pipelines.comparison.intervals import summarize
from pipelines.reporting import html_page as page
from pipelines.tracking.store import StoredRun
from pipelines.tracking.tags import FIT_SECONDS, SELECTED_EPOCH
from sweeps.reproduction import verdicts
from sweeps.reproduction.claims import Experiment, Plan, PublishedJob, Section
from sweeps.reproduction.verdicts import Verdict

Cells = list[list[str]]  # a table: its first row is the head
NAMES = {
    "test/acc": "test accuracy",
    "test/loss": "test loss",
    "test/knn_acc": "vote of nearest codes",
    "test/loss_y0": "test loss y0",
    "test/loss_y1": "test loss y1",
    "test/loss_y2": "test loss y2",
    "test/changed_by_shift_1": "changed by 1 pixel",
    "selected/val/acc": "validation accuracy",
    "selected/train/acc": "training accuracy",
    "selected/val/distinct_units_1": "distinct units",
    "selected/val/dead_units": "dead units",
    "train/acc": "training accuracy, last epoch",
    SELECTED_EPOCH: "selected epoch",
    FIT_SECONDS: "seconds",
    "mean_high_frequency_share": "share of fine detail",
    "mean_probability": "p(class)",
    "success_rate": "seen as the target",
    "p_own_before": "p(own class) before",
    "p_target_after": "p(target) after",
    "rms_mean": "root mean square of the change",
    "linf_max": "largest change of a pixel",
    "on_object": "minima on the object",
    "on_object_by_chance": "by chance",
}
COUNTED = (SELECTED_EPOCH, FIT_SECONDS, "selected/val/distinct_units_1")  # one decimal is enough
TIERS = {
    "quick": "The quick tier: few epochs, on data that come with litlab. It shows that every experiment runs, and "
    "judges what such data can show; the published data are for --tier full.",
    "full": "The full tier: the published data.",
}
RULES = verdicts.__doc__.partition("\n\n")[2] if verdicts.__doc__ else ""


@dataclass(frozen=True)
class Reproduction:
    """What came of a plan.

    Attributes:
        plan: What was to be reproduced.
        verdicts: Of each experiment's claims, by its id.
        runs: The finished runs of each job, by label and seed.
        failures: Why runs are missing, by label.
        cards: What the data of each section are, by its title; see data.json of a run.
        facts: When, where and with what, one sentence each.
    """

    plan: Plan
    verdicts: Mapping[str, list[Verdict]]
    runs: Mapping[str, Mapping[str, StoredRun]]
    failures: Mapping[str, str]
    cards: Mapping[str, list[str]]
    facts: Sequence[str]

    def counted(self) -> Counter[str]:
        """How many claims came to each verdict."""
        return Counter(verdict.word for found in self.verdicts.values() for verdict in found)


@dataclass(frozen=True)
class Part:
    """A section, ready to be printed."""

    title: str
    about: str
    data: list[str]
    claims: Cells
    runs: Cells
    commands: list[str]
    failures: list[str]


def parts(outcome: Reproduction) -> list[Part]:
    """Each section's tables."""
    return [_part(section, outcome) for section in outcome.plan.sections]


def _part(section: Section, outcome: Reproduction) -> Part:
    labels = [label for one in section.experiments for label in one.labels]
    commands = [command(outcome.plan.jobs[label]) for label in labels]
    failures = [f"{label}: {outcome.failures[label]}" for label in labels if label in outcome.failures]
    claims = [["experiment", "published", "true, where that is wrong", "ours", "verdict"]]
    claims += [row for one in section.experiments for row in _claims(one, outcome.verdicts[one.id])]
    data = outcome.cards.get(section.title, [])
    return Part(section.title, section.about, data, claims, _runs(section, labels, outcome), commands, failures)


def _claims(experiment: Experiment, found: Sequence[Verdict]) -> Cells:
    """A row for each claim; the experiment's name stands in the first of them."""
    name = f"{experiment.id} ({experiment.source})"
    return [
        [name if number == 0 else "", verdict.claim.text, verdict.true, verdict.ours, verdict.word]
        for number, verdict in enumerate(found)
    ]


def _runs(section: Section, labels: Sequence[str], outcome: Reproduction) -> Cells:
    """A row for each job: the mean of each column over the seeds, and the spread between them."""
    have = [label for label in labels if outcome.runs.get(label)]
    found = {label: list(outcome.runs[label].values()) for label in have}
    columns = [key for key in section.columns if any(key in run.metrics for runs in found.values() for run in runs)]
    head = ["run", "n", *(NAMES.get(key, key.replace("/", " ")) for key in columns)]
    rows = [[label, str(len(found[label])), *(_cell(found[label], key) for key in columns)] for label in have]
    return [head, *rows] if rows else []


def _cell(runs: Sequence[StoredRun], metric: str) -> str:
    values = [run.metrics[metric] for run in runs if metric in run.metrics]
    if not values:
        return ""
    of = summarize(values)
    if metric == "parameters":
        return f"{of.mean:,.0f}"
    if metric in COUNTED:
        return format_mean_sd(of.mean, of.sd or None, ".1f")
    return verdicts.spreading(of)


def command(job: PublishedJob) -> str:
    """As a person types it."""
    if job.looks_at:
        word, *options = job.arguments
        return f"{shlex.join(['litlab', job.verb, word, 'RUN_ID', *options])}  # of {job.looks_at}"
    return shlex.join(["litlab", job.verb, *job.arguments])


def summary(outcome: Reproduction) -> str:
    """The verdicts in a sentence."""
    counted = outcome.counted()
    words = (verdicts.CONFIRMED, verdicts.NOT, verdicts.CORRECTED, verdicts.NOT_JUDGED)
    answers = (verdicts.YES, verdicts.NO, verdicts.OPEN)
    said = ", ".join(f"{counted[word]} {word}" for word in words if counted[word])
    asked = ", ".join(f"{counted[word]} {word}" for word in answers if counted[word])
    return f"Of {sum(counted[word] for word in words)} claims: {said}." + (
        f" Open questions: {asked}." if asked else ""
    )


def markdown(outcome: Reproduction, again: str) -> str:
    """The page as Markdown.

    Args:
        outcome: What came out.
        again: The command that makes it.
    """
    facts = [f"Made by `{again}`.", TIERS[outcome.plan.tier], *outcome.facts, f"**{summary(outcome)}**"]
    lines = ["# Results", "", *(line for fact in facts for line in (fact, ""))]
    lines += ["How each claim is judged:", "", RULES.strip(), ""]
    for part in parts(outcome):
        lines += [f"## {part.title}", "", part.about, "", *(line for text in part.data for line in (text, ""))]
        lines += [markdown_table(part.claims, padded=False), ""] if len(part.claims) > 1 else []
        lines += [markdown_table(part.runs, padded=False), ""] if part.runs else []
        lines += ["Not run:", "", *(f"- {text}" for text in part.failures), ""] if part.failures else []
        lines += ["```", *part.commands, "```", ""] if part.commands else []
    return "\n".join(lines).rstrip() + "\n"


def html(outcome: Reproduction, again: str) -> str:
    """The page as HTML, which needs nothing else; see `markdown`."""
    context = {
        "title": f"Published experiments, {outcome.plan.tier} tier",
        "summary": summary(outcome),
        "facts": [TIERS[outcome.plan.tier], *outcome.facts],
        "again": again,
        "parts": parts(outcome),
        "rules": [" ".join(rule.split()) for rule in RULES.replace("\n\n", "\n- ").strip("- \n").split("\n- ")],
    }
    return page.render("reproduction.html", context)
