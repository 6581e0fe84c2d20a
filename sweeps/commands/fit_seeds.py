"""`litlab fit NAME --seeds N`, or `--folds N`: train one configuration with several seeds, or on several folds."""

import argparse
import shlex
import shutil
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipelines.commands.options import VerbParser, check_system_metrics, take_labels
from pipelines.config.arguments import option_values, without_option
from pipelines.config.request import read_request
from pipelines.runtime.errors import UserError
from pipelines.runtime.log import logger
from pipelines.runtime.status import show_status
from pipelines.runtime.text import format_command
from sweeps.cluster.options import add_place_options, add_stacked

if TYPE_CHECKING:
    from sweeps.seeds.fit_seeds import SeedsResult

MAX_ROWS = 30  # seeds up to which each gets a row
DESCRIPTION = """Train one configuration with several seeds. A parent run has the mean, the
standard deviation and the 95 % interval of each metric; each seed is a child
run. The same command continues after a stop; a larger N adds seeds.

With --folds, each N-th of the training data validates once (docs/DATA.md)."""


def make_parser(verb: str) -> VerbParser:
    usage = "NAME --seeds N | --folds N [--workers W] [--KEY VALUE ...]"
    parser = VerbParser(verb, DESCRIPTION, usage=usage, epilog="NAME, -c FILE, --KEY VALUE: see litlab fit --help")
    parser.add_argument("--seeds", type=int, metavar="N", help="number of seeds, 1 to 1000; with --folds, as many")
    parser.add_argument("--folds", type=int, metavar="N", help="number of folds, each with a seed of its own")
    parser.add_argument("--seed_everything", type=int, metavar="N", help="the first seed (0)")
    add_place_options(parser)
    add_stacked(parser)
    help_text = "a run whose configuration the keys change"
    parser.add_argument("--from", dest="from_run", metavar="RUN_ID", help=help_text)
    parser.add_system_metrics()
    parser.add_labels(of="the summary run")
    parser.add_notify()
    return parser


def main(verb: str, argv: Sequence[str]) -> int:
    """Train with several seeds, and print the summary."""
    options, overrides = _parse(argv)
    check_system_metrics(options)
    labels = take_labels(options)
    read_request(verb, overrides, on_run=options.from_run is not None, options=make_parser(verb).option_names)
    if options.from_run is not None:
        from sweeps.seeds.origin import with_origin

        uris = option_values(overrides, "--tracking_uri")
        overrides, labels = with_origin(options.from_run, overrides, labels, uris[-1] if uris else None)
    from pipelines.runtime.signals import exit_on_sigterm

    exit_on_sigterm()
    show_status("loading torch and the data")
    from sweeps.seeds.fit_seeds import fit_seeds

    result = fit_seeds(
        seeds=options.folds if options.seeds is None else options.seeds,
        folds=options.folds,
        workers=options.workers,
        cluster=options.cluster,
        cpus=options.cpus,
        gpus=options.gpus,
        stacked=options.stacked,
        first_seed=options.seed_everything,
        overrides=overrides,
        labels=labels,
        system_metrics=options.system_metrics,
        command=format_command(verb, without_option(argv, "--notify")),
        notify=options.notify,
    )
    _print_result(result)
    done = f"{len(result.runs)} of {len(result.seeds)} seeds are done"
    if result.stop_signal is not None:
        logger.warning("stopped; %s. Run the same command again to continue.", done)
        return 128 + result.stop_signal
    if result.failed:
        logger.warning("%s. Run the same command again to retry the others.", done)
        return 1
    if len(result.runs) < len(result.seeds):
        logger.warning("%s: the runs of the others were deleted, or are sent by litlab sync", done)
    return 1 if result.refused else 0


def _parse(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Return the options of this command, and the arguments of each training."""
    options, overrides = make_parser("fit").parse_known_args(list(argv))
    for flag in (token.partition("=")[0] for token in overrides):
        if flag in ("--print_config", "--full-help") or (flag.startswith("--") and flag.endswith(".help")):
            raise UserError(f"{flag} trains nothing: leave out --seeds and --folds")
        if flag == "--if_needed":
            raise UserError("--if_needed is for one run; several seeds that were stopped continue without it")
    return options, overrides


def _print_result(result: "SeedsResult") -> None:
    """Print the tables of metrics and seeds, and the next commands."""
    from pipelines.runtime.console import Console, numeric_table
    from pipelines.tracking.ui_view import command_or_address
    from pipelines.tracking.uri import tracking_uri_arguments
    from sweeps.seeds.summary import metrics_table, seeds_table

    console = Console(soft_wrap=True, width=200, highlight=False)  # the terminal wraps longer lines; ids stay whole
    if result.runs:
        title = f"{result.experiment}, {result.name}"
        console.print(numeric_table(title, metrics_table(result.runs)))
    if 0 < len(result.runs) <= MAX_ROWS:
        console.print(numeric_table("", _fit(seeds_table(result.runs), shutil.get_terminal_size().columns)))
    uri = tracking_uri_arguments(result.tracking_uri)
    lines = {
        "run": result.run_id,
        "compare": shlex.join(["litlab", "compare", result.run_id, *uri]),
        "view": command_or_address(result.tracking_uri, result.experiment),
    }
    for name, value in lines.items():
        console.print(f"{name:<10}  {value}", markup=False)


def _fit(lines: list[list[str]], width: int) -> list[list[str]]:
    """Return the lines of a table whose last column has run ids, which are short if the table would be wider."""
    from pipelines.runtime.console import SHORT_ID

    columns = [max(map(len, column)) for column in zip(*lines, strict=True)]
    if sum(columns) + 2 * (len(columns) - 1) <= width:
        return lines
    return [[*cells, last[:SHORT_ID]] for *cells, last in lines]
