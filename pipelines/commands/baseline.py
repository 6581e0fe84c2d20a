"""`litlab baseline`: fit a method of scikit-learn to the data of an experiment."""

from argparse import Namespace
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipelines.commands.options import VerbParser
from pipelines.config.request import read_request
from pipelines.evaluation.baseline_methods import METHODS, settings_of
from pipelines.runtime.errors import UserError
from pipelines.runtime.status import show_status
from pipelines.runtime.text import format_command

if TYPE_CHECKING:
    from pipelines.evaluation.baseline import BaselineRun

DESCRIPTION = f"""Fit a scikit-learn method to the data of an experiment, and log it to MLflow.
Training, validation and test set and the normalisation are the same as for the
networks. With several values of C, each value is a separate run.

{chr(10).join(f"  {name:<12}{text}" for name, text in METHODS.items())}"""
OPTIONS_OF_OTHERS = {"svm-linear": "--components", "svm-rbf": "--components", "pca": "--C"}


def make_parser(verb: str) -> VerbParser:
    parser = VerbParser(verb, DESCRIPTION, usage="METHOD NAME [--C 0.1 1 10] [--KEY VALUE ...]", needs_arguments=True)
    parser.show_argument("method", metavar="METHOD", choices=list(METHODS), help="one of the above")
    parser.show_argument("experiment", metavar="NAME", help="an experiment, or a YAML file; its data are used")
    values = "for a support vector machine: one run for each value (1)"
    parser.add_argument("--C", type=float, nargs="+", default=[1.0], metavar="C", help=values)
    parser.add_argument("--components", type=int, default=2, metavar="K", help="for pca: number of components (2)")
    parser.add_argument("--name", help="the MLflow experiment (NAME-METHOD)")
    parser.show_argument("--data.n_train", metavar="N", help="or any other key of the data")
    parser.add_tracking_uri()
    return parser


def main(verb: str, argv: Sequence[str]) -> int:
    """Fit, and print the metrics."""
    arguments = parse(argv)
    show_status(f"{arguments.experiment}: loading torch and the data")
    from pipelines.evaluation.baseline import fit_baseline
    from pipelines.runtime.signals import exit_on_sigterm

    exit_on_sigterm()
    _print(fit_baseline(**vars(arguments), command=format_command(verb, argv)))
    return 0


def parse(argv: Sequence[str]) -> Namespace:
    """Return the arguments of `fit_baseline`.

    Raises:
        UserError: The method or an option is wrong, or no experiment is named.
    """
    parser = make_parser("baseline")
    options, names, overrides = parser.parse_with_overrides(argv)
    method, *experiments = names or [argv[0]]
    settings_of(method, C=options.C, components=options.components)
    other = OPTIONS_OF_OTHERS[method]
    if other in {token.partition("=")[0] for token in argv}:
        raise UserError(f"{other} is not an option of {method}")
    if not experiments:
        raise UserError(f"name the experiment whose data to use: litlab baseline {method} NAME")
    overrides = [*experiments[1:], *overrides]
    read_request("baseline", [experiments[0], *overrides], options=parser.option_names)
    return Namespace(method=method, experiment=experiments[0], overrides=overrides, **vars(options))


def _print(runs: "Sequence[BaselineRun]") -> None:
    """Print a line for each run: its metrics on the three sets."""
    from pipelines.runtime.console import Console, format_duration
    from pipelines.tracking.tags import FIT_SECONDS

    console = Console(soft_wrap=True)
    for run in runs:
        metrics = "  ".join(f"{key} {value:.4f}" for key, value in run.metrics.items() if key != FIT_SECONDS)
        seconds = format_duration(run.metrics[FIT_SECONDS])
        console.print(f"{run.experiment}  {run.name:<12} {metrics}  ({seconds})", highlight=False)
