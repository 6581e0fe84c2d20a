"""`litlab reproduce`: run the published experiments, and judge each published claim."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from pipelines.commands.options import VerbParser
from pipelines.runtime.log import logger
from pipelines.runtime.status import show_status
from pipelines.runtime.text import counted, format_command
from sweeps.cluster.options import add_cluster_options

DESCRIPTION = """Run the published experiments with several seeds each, and judge each published
claim as reproduced, exceeded, contradicted, corrected or undecided, by a rule
that was written down before the runs. Finished runs with the same
configuration are reused. Run the same command again to continue after a stop."""


def make_parser(verb: str) -> VerbParser:
    parser = VerbParser(verb, DESCRIPTION)
    add = parser.add_argument
    add("ids", nargs="*", metavar="ID", help="published experiments (all); an unknown id lists them")
    tier = """quick: minutes on 2 CPU cores, on data that come with litlab, digits instead of MNIST and CIFAR-10 (the
    default); full: hours, on the published data"""
    add("--tier", choices=("quick", "full"), default="quick", help=tier)
    add("--seeds", type=int, metavar="N", help="runs of each experiment (as planned: 3; full tier 3 to 10)")
    workers = "trainings in parallel; they share the CPU cores (one for each core, at most 4; with a GPU, one)"
    add("--workers", type=int, metavar="N", help=workers)
    add_cluster_options(parser)
    add("--as-is", dest="train", action="store_false", help="train nothing: judge the runs that exist")
    kept = "CSV files of measured runs: read, and missing runs added (full tier)"
    add("--measurements", type=Path, metavar="DIR", help=kept)
    add("--dry_run", action="store_true", help="only count the missing runs, and the hours that they take")
    add("--data_dir", type=Path, metavar="DIR", help="folder of MNIST and CIFAR-10 (data)")
    add("--data-dir", dest="data_dir", type=Path, default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    out = "folder for RESULTS.md and results.html (reproduction)"
    add("--out", type=Path, metavar="DIR", help=out)
    parser.add_tracking_uri()
    return parser


def main(verb: str, argv: Sequence[str]) -> int:
    """Reproduce, and print the summary."""
    options = make_parser(verb).parse(argv)
    if options.dry_run:
        return _print_outlook(options)
    from pipelines.runtime.signals import exit_on_sigterm

    exit_on_sigterm()
    show_status("looking for finished runs")
    from sweeps.reproduction.reproduce import reproduce
    from sweeps.reproduction.results_page import summary_sentence

    arguments = {key: value for key, value in vars(options).items() if key != "dry_run"}
    result = reproduce(**arguments, command=format_command(verb, argv))
    if result.stop_signal is not None:
        logger.warning("stopped. Run the same command again to continue.")
        return 128 + result.stop_signal
    print(*result.pages, summary_sentence(result), sep="\n")
    return 1 if result.failures else 0


def _print_outlook(options: argparse.Namespace) -> int:
    """Print a table of what would be run, by section."""
    show_status("looking for finished runs")
    from pipelines.runtime.console import numeric_table, table_console
    from sweeps.reproduction.outlook import look_ahead

    keys = ("ids", "tier", "seeds", "measurements", "tracking_uri")
    sections = look_ahead(**{key: getattr(options, key) for key in keys})
    numbers = [(one.planned, one.planned - one.missing, one.missing, one.hours) for one in sections]
    total = [sum(column) for column in zip(*numbers, strict=True)]
    names = [*(one.section for one in sections), "all"]
    lines = [
        [name, *(f"{value:,}" for value in row[:3]), f"{row[3]:.1f}"]
        for name, row in zip(names, [*numbers, total], strict=True)
    ]
    table_console().print(numeric_table("", [["section", "planned", "measured", "missing", "hours"], *lines]))
    print("hours: of the missing runs, one after another, as long as earlier runs of the same job")
    if unknown := sum(one.unknown for one in sections):
        print(f"without {counted(unknown, 'run')} of jobs of which no run is known")
    if outdated := sum(one.outdated for one in sections):
        print(f"ignored rows, of earlier configurations: {outdated}")
    return 0
