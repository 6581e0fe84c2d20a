"""`litlab baseline`: fit a method of scikit-learn to the data of an experiment."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipelines.commands.options import VerbParser
from pipelines.evaluation.baseline_methods import METHODS, check_method, settings_of
from pipelines.runtime.errors import UserError
from pipelines.runtime.gc_pause import gc_paused_for_import
from pipelines.runtime.text import format_command

if TYPE_CHECKING:
    from pipelines.evaluation.baseline import BaselineRun

HELP = f"""usage: litlab baseline METHOD NAME [--C 0.1 1 10] [--KEY VALUE ...]

Fit a scikit-learn method to the data of an experiment, and log it to MLflow.
Training, validation and test set and the normalisation are the same as for the
networks. With several values of C, each value is a separate run.

{chr(10).join(f"  {name:<12}{text}" for name, text in METHODS.items())}

  NAME or PATH        the experiment whose data to use (litlab list shows them)
  --C 0.1 1 10        for a support vector machine: one run for each value (1)
  --components 2      for pca: number of components (2)
  --data.n_train 250  any key of the data
  --tracking_uri URI  where runs are stored (mlflow.db of this project)
  --name NAME         the MLflow experiment (NAME-METHOD)"""
OPTIONS_OF_OTHERS = {"svm-linear": "--components", "svm-rbf": "--components", "pca": "--C"}


@dataclass(frozen=True)
class BaselineArguments:
    """What `litlab baseline` was asked to do; see `fit_baseline`."""

    method: str
    experiment: str
    overrides: list[str]
    C: list[float]
    components: int
    name: str | None
    tracking_uri: str | None


def main(verb: str, argv: Sequence[str]) -> int:
    """Parse `litlab baseline METHOD NAME [--C ...] [--components ...]`, fit, and print the metrics."""
    if not argv:
        print(HELP)
        return 2
    arguments = parse(argv)
    with gc_paused_for_import("pipelines.evaluation.baseline"):
        from pipelines.evaluation.baseline import fit_baseline
    from pipelines.runtime.signals import exit_on_sigterm

    exit_on_sigterm()
    runs = fit_baseline(**vars(arguments), command=format_command(verb, argv))
    _print(runs)
    return 0


def parse(argv: Sequence[str]) -> BaselineArguments:
    """Parse the arguments of `litlab baseline`.

    Raises:
        UserError: The method or an option is wrong, or no experiment is named.
    """
    parser = VerbParser("baseline", HELP)
    parser.add_argument("--C", type=float, nargs="+", default=[1.0])
    parser.add_argument("--components", type=int, default=2)
    parser.add_argument("--name")
    method, *rest = argv
    if method in ("-h", "--help"):
        parser.parse_known_args([method])
    check_method(method)
    options, experiments, overrides = parser.parse_with_overrides(rest)
    other = OPTIONS_OF_OTHERS[method]
    if other in {token.partition("=")[0] for token in rest}:
        raise UserError(f"{other} is not an option of {method}")
    if not experiments:
        raise UserError(f"name the experiment whose data to use: litlab baseline {method} NAME")
    settings_of(method, C=options.C, components=options.components)
    return BaselineArguments(method, experiments[0], [*experiments[1:], *overrides], **vars(options))


def _print(runs: "Sequence[BaselineRun]") -> None:
    """Print a line for each run: its metrics on the three sets."""
    from rich.console import Console

    from pipelines.runtime.console import format_duration
    from pipelines.tracking.tags import FIT_SECONDS

    console = Console(soft_wrap=True)
    for run in runs:
        metrics = "  ".join(f"{key} {value:.4f}" for key, value in run.metrics.items() if key != FIT_SECONDS)
        seconds = format_duration(run.metrics[FIT_SECONDS])
        console.print(f"{run.experiment}  {run.name:<12} {metrics}  ({seconds})", highlight=False)
