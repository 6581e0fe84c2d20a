"""`litlab doctor`: check the installation, and repair what can be repaired."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.commands.options import VerbParser
from pipelines.runtime.log import logger
from pipelines.runtime.text import escape_control_characters

if TYPE_CHECKING:
    from pipelines.diagnostics.check import CheckResult

DESCRIPTION = """Check what a training needs, and print one line for each check: ok, or what to
do. Checks torch with torchvision and GPUs, the databases of runs and studies,
runs marked RUNNING whose process is gone, data that were not sent, data files,
and what each experiment and deleted runs occupy on the disk."""
STYLES = {"ok": "green", "fixed": "cyan", "to do": "bold yellow"}


def make_parser(verb: str) -> VerbParser:
    epilog = "Exit code: 0 if all checks are ok, 1 if something has to be done."
    parser = VerbParser(verb, DESCRIPTION, epilog=epilog)
    fix = """repair what can be repaired: upgrade tables of an older MLflow or Optuna and correct the paths of a project
    that was moved or copied (both after a copy of the database), mark runs without a process as KILLED (litlab resume
    can continue them), delete unfinished files. Prints each repair, and deletes nothing that a user made"""
    parser.add_argument("--fix", action="store_true", help=fix)
    free = "delete permanently the runs that were deleted in MLflow, and their models unless they are registered"
    parser.add_argument("--free", action="store_true", help=free)
    data_dir = "folder of the data sets (%(default)s)"
    parser.add_argument("--data_dir", type=Path, metavar="DIR", default=Path("data"), help=data_dir)
    parser.add_tracking_uri()
    return parser


def main(verb: str, argv: Sequence[str]) -> int:
    """Run the checks, and print each result."""
    options = make_parser(verb).parse(argv)
    from pipelines.diagnostics.check import Context
    from pipelines.diagnostics.doctor import iterate_checks

    n_failed = 0
    for result in iterate_checks(Context(**vars(options))):
        _print(result)
        n_failed += result.state == "to do"
    if n_failed:
        logger.warning(f"{n_failed} to do")
    return 1 if n_failed else 0


def _print(result: "CheckResult") -> None:
    from rich.text import Text

    from pipelines.runtime.console import Console

    state = Text(f"{result.state:<7}", style=STYLES[result.state])
    text = Text(escape_control_characters(f"{result.name:<12}{result.message}"))
    Console(highlight=False, soft_wrap=True).print(state + text)
