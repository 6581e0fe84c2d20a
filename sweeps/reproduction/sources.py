"""The reports whose claims are judged, from sources.yaml."""

from dataclasses import dataclass
from pathlib import Path

from pipelines.config.experiments import read_yaml

FILE = Path(__file__).with_name("sources.yaml")


@dataclass(frozen=True)
class Report:
    """A report: the letter by which claims cite it, its title, and what it is about."""

    letter: str
    title: str
    about: str


def load_reports() -> list[Report]:
    """Return the reports in the order of their letters."""
    return [Report(letter, **item) for letter, item in sorted(read_yaml(FILE, "letters of reports").items())]
