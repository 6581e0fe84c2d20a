"""A measured run: what the page of results needs of it, as it is stored in a CSV file."""

from collections.abc import Mapping
from dataclasses import dataclass, field

PACKAGES = ("torch", "lightning", "litlab")  # whose versions the page states


@dataclass(frozen=True)
class Row:
    """A finished run of a job.

    Attributes:
        label: The job.
        config_hash: Hash of the configuration; see `identity.JobIdentity`.
        seed: The run's seed.
        date: When it started, such as "2026-11-28".
        seconds: Duration of the whole run, with its test.
        versions: Of python and PACKAGES, by name.
        processor: Number and model of the CPU cores.
        data: Class of the data; "" if the run recorded none, as an explanation.
        data_files: What the data were read from if it matters: "folder" for image files.
        test_size: Number of test examples; None without data.
        test_sha256: Digest of the test set; "" without data.
        metrics: Values by name: all that the run logged, and derived ones that claims name, such as `gap(acc)`.
        absent: Derived metrics that the run does not have.
    """

    label: str
    config_hash: str
    seed: str
    date: str = ""
    seconds: float = 0.0
    versions: Mapping[str, str] = field(default_factory=dict)
    processor: str = ""
    data: str = ""
    data_files: str = ""
    test_size: int | None = None
    test_sha256: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)
    absent: frozenset[str] = frozenset()

    @property
    def key(self) -> tuple[str, str, str]:
        """What a file has one row of: label, configuration and seed."""
        return self.label, self.config_hash, self.seed

    def answers(self, metrics: frozenset[str]) -> bool:
        """Return whether the value of each metric is known, or that the run does not have it."""
        return all(metric in self.metrics or metric in self.absent for metric in metrics if is_derived(metric))


Runs = dict[str, dict[str, Row]]  # by label and seed


def is_derived(metric: str) -> bool:
    """Return whether a metric is computed from others, or is one of a certain epoch; see `metric_value`."""
    return "(" in metric or "@" in metric
