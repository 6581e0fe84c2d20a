"""`litlab decide A B`: train both with the same seeds until an interval tells which one is better."""

import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipelines.commands.options import VerbParser
from pipelines.config.arguments import option_values
from pipelines.config.request import read_request
from pipelines.runtime.errors import UserError
from pipelines.runtime.log import logger
from pipelines.runtime.status import show_status
from pipelines.runtime.text import format_command
from sweeps.cluster.options import add_cluster_options

if TYPE_CHECKING:
    from sweeps.decide.decision import Decision

DESCRIPTION = """Which of two configurations is better? Trains both with the same seeds, looks
after 3, 4, 5, 6, 8, 10 ... seeds, and stops as soon as the 95 % interval of the
difference tells: better, or equal within the margin. The interval stays valid
under these looks. Run the same command again to continue after a stop."""
EPILOG = "litlab decide mnist-mlp mnist-convnet --margin 0.005 --workers 2"


def make_parser(verb: str) -> VerbParser:
    usage = "A B --margin M [--metric NAME] [--KEY VALUE ...]"
    parser = VerbParser(verb, DESCRIPTION, usage=usage, epilog=EPILOG, needs_arguments=True)
    sides = "experiments, YAML files, or runs, whose configurations count"
    parser.show_argument("experiment", nargs="*", metavar="A B", help=sides)
    margin = "largest difference that does not matter"
    parser.add_argument("--margin", type=float, metavar="M", help=margin)
    metric = "val/acc ... (the metric that selects the epoch)"
    parser.add_argument("--metric", metavar="NAME", help=metric)
    number = "seeds at which it ends undecided, 3 to 100 (30)"
    parser.add_argument("--max_seeds", type=int, default=30, metavar="N", help=number)
    parser.add_argument("--seed_everything", type=int, default=0, metavar="N", help="the first seed (0)")
    workers = "trainings in parallel; they share CPU cores and GPUs (1)"
    parser.add_argument("--workers", type=int, metavar="N", help=workers)
    add_cluster_options(parser, short=True)
    parser.show_argument("--tracking_uri", metavar="URI", help="where runs are stored (mlflow.db of this project)")
    parser.show_keys("a key of both, such as --trainer.max_epochs 5")
    return parser


def main(verb: str, argv: Sequence[str]) -> int:
    """Decide, and print the verdict."""
    parser = make_parser(verb)
    options, names, overrides = parser.parse_with_overrides(argv)
    if len(names) != 2:
        raise UserError(f"expected two experiments, YAML files or runs, got {' '.join(names) or 'none'}")
    if options.margin is None:
        raise UserError("--margin is missing: the largest difference that does not matter, such as --margin 0.005")
    from sweeps.decide.decide import check_numbers, decide
    from sweeps.decide.sides import arguments_of

    check_numbers(options.margin, options.max_seeds)
    uris = option_values(overrides, "--tracking_uri")
    for name in names:
        read_request(
            verb,
            [*arguments_of(name, uris[-1] if uris else None), *overrides],
            options=parser.option_names,
        )
    from pipelines.runtime.signals import exit_on_sigterm

    exit_on_sigterm()
    show_status("loading torch and the data")
    decision = decide(
        *names,
        margin=options.margin,
        metric=options.metric,
        max_seeds=options.max_seeds,
        first_seed=options.seed_everything,
        workers=options.workers,
        cluster=options.cluster,
        cpus=options.cpus,
        gpus=options.gpus,
        overrides=overrides,
        tracking_uri=uris[-1] if uris else None,
        command=format_command(verb, argv),
    )
    return _report(decision)


def _report(decision: "Decision") -> int:
    """Print the verdict, or why there is none; return the exit code."""
    from pipelines.tracking.uri import tracking_uri_arguments
    from sweeps.decide.decision import evidence, headline

    done = "Seeds that are done are kept. Run the same command again to continue."
    if decision.stop_signal is not None:
        logger.warning("stopped. %s", done)
        return 128 + decision.stop_signal
    if decision.failed:
        for result in decision.failed:
            logger.error("%s, seed %s failed: %s", result.job.experiment, result.job.seed, result.reason)
        logger.warning("undecided. %s", done)
        return 1
    parents = [parent for parent in decision.parents if parent is not None]
    compare = shlex.join(["litlab", "compare", *parents, *tracking_uri_arguments(decision.tracking_uri)])
    lines = {"verdict": headline(decision), "": evidence(decision), "run": decision.run_id, "compare": compare}
    for name, text in lines.items():
        print(f"{name:<10}  {text}")
    return 0
