"""`litlab decide A B`: train both with the same seeds until an interval tells which one is better."""

import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipelines.commands.options import VerbParser
from pipelines.config.arguments import option_values
from pipelines.runtime.errors import UserError
from pipelines.runtime.log import logger
from pipelines.runtime.status import show_status
from pipelines.runtime.text import format_command
from sweeps.cluster.options import add_place_options
from sweeps.decide.levels import FIRST, LARGEST, MAX_SEEDS

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
    number = f"seeds at which it ends undecided, {FIRST} to {LARGEST} ({MAX_SEEDS})"
    parser.add_argument("--max_seeds", type=int, default=MAX_SEEDS, metavar="N", help=number)
    parser.add_argument("--seed_everything", type=int, default=0, metavar="N", help="the first seed (0)")
    add_place_options(parser)
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
    from sweeps.decide.sides import read_sides

    check_numbers(options.margin, options.max_seeds)
    uris = option_values(overrides, "--tracking_uri")
    uri = uris[-1] if uris else None
    sides = read_sides(names, overrides, uri, parser.option_names)
    from pipelines.runtime.signals import exit_on_sigterm

    exit_on_sigterm()
    show_status("loading torch and the data")
    decision = decide(
        (names[0], names[1]),
        sides,
        margin=options.margin,
        metric=options.metric,
        max_seeds=options.max_seeds,
        first_seed=options.seed_everything,
        workers=options.workers,
        cluster=options.cluster,
        cpus=options.cpus,
        gpus=options.gpus,
        tracking_uri=uri,
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
