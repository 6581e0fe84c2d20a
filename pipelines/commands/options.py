"""Parse the options of a verb: one parser, which also prints the help page, and one message for an unknown option."""

import argparse
import shutil
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any, NoReturn

from rich_argparse import RawDescriptionRichHelpFormatter

from pipelines.config.arguments import refuse_bare_keys
from pipelines.runtime.errors import UserError
from pipelines.tracking.labels import Labels

MAX_WIDTH = 80
STATUSES = ("running", "finished", "failed", "killed")
RUN_ID: dict[str, Any] = {"metavar": "RUN_ID", "help": "id, first digits of it, name of the run, latest, or best:NAME"}


class HelpFormatter(RawDescriptionRichHelpFormatter):
    """Print descriptions and epilogs as written, and options in 80 columns; in colour on a terminal only."""

    group_name_formatter = str
    text_markup = False
    help_markup = False

    def __init__(self, prog: str, **settings: Any) -> None:
        super().__init__(
            prog, max_help_position=28, width=min(MAX_WIDTH, shutil.get_terminal_size().columns), **settings
        )


class VerbParser(argparse.ArgumentParser):
    """Parser of a verb's options. `-h` prints the help page and exits; a mistake raises UserError.

    Args:
        verb: As typed, such as "compare" or "explain saliency".
        description: What the verb does, in lines of at most 80 characters.
        usage: What follows the verb; by default argparse's own list of options.
        epilog: Keys, examples and exit codes, printed as written.
        needs_arguments: Whether a call without arguments prints the help page and exits with code 2.

    Attributes:
        arguments: Everything on the help page.
        option_names: The options that this parser parses, such as "--metric".
    """

    def __init__(
        self,
        verb: str,
        description: str,
        *,
        usage: str | None = None,
        epilog: str | None = None,
        needs_arguments: bool = False,
    ) -> None:
        self.arguments: list[argparse.Action] = []
        self.option_names: list[str] = []
        self._needs_arguments = needs_arguments
        self._usage = usage and f"%(prog)s {usage}"  # argparse overwrites `usage` while it parses
        self._keys_help = ""
        self._shown = argparse.ArgumentParser(add_help=False)
        super().__init__(
            prog=f"litlab {verb}".strip(),
            description=description,
            epilog=epilog,
            formatter_class=HelpFormatter,
            allow_abbrev=False,
        )

    def add_argument(self, *names: str, **settings: Any) -> argparse.Action:
        action = super().add_argument(*names, **settings)
        if action.help != argparse.SUPPRESS and action.dest != "help":
            self.arguments.append(action)
            self.option_names += [name for name in action.option_strings if name.startswith("--")]
        return action

    def show_argument(self, *names: str, **settings: Any) -> None:
        """Show on the help page an argument that something else parses, such as a key of the configuration."""
        self.arguments.append(self._shown.add_argument(*names, **settings))

    def show_keys(self, help_text: str) -> None:
        """Show that the verb takes keys of a configuration."""
        self._keys_help = help_text

    def add_tracking_uri(self, help_text: str = "where runs are stored (mlflow.db of this project)") -> None:
        """Add `--tracking_uri`, and silently its other spelling."""
        self.add_argument("--tracking_uri", metavar="URI", help=help_text)
        self.add_argument("--tracking-uri", dest="tracking_uri", default=argparse.SUPPRESS, help=argparse.SUPPRESS)

    def add_trust(self, help_text: str = "restore objects in checkpoints (may run code)") -> None:
        """Add `--trust`."""
        self.add_argument("--trust", action="store_true", help=help_text)

    def add_system_metrics(self) -> None:
        """Add `--system_metrics`; see `check_system_metrics`."""
        text = "measure CPU, memory, GPUs ... (needs psutil)"
        self.add_argument("--system_metrics", action="store_true", help=text)

    def add_notify(self) -> None:
        """Add `--notify`."""
        what = "run a shell command at the end (docs/GUIDE.md)"
        self.add_argument("--notify", default="", metavar="COMMAND", help=what)

    def add_labels(self, *, of: str = "the run", short: bool = False) -> None:
        """Add `--tag`, `--note` and `--run_name`; a short page has two lines for them. See `take_labels`."""
        tag, name = f"a tag of {of}; may be repeated", f"name of {of}"
        note = f"description of {of}" + ("; --run_name NAME: its name" if short else "")
        self.add_argument("--tag", dest="tags", action="append", default=[], metavar="KEY=VALUE", help=tag)
        self.add_argument("--note", metavar="TEXT", help=note)
        self.add_argument("--run_name", metavar="NAME", help=argparse.SUPPRESS if short else name)

    def page(self) -> argparse.ArgumentParser:
        """Return a parser of every argument that the help page shows."""
        return argparse.ArgumentParser(
            prog=self.prog,
            usage=self._usage,
            description=self.description,
            epilog=self.epilog,
            formatter_class=HelpFormatter,
            parents=[self, self._shown],
            add_help=False,
        )

    def format_help(self) -> str:
        page = self.page()
        if self._keys_help:
            page.add_argument("--KEY", metavar="VALUE", help=self._keys_help)
        return page.format_help()

    def print_help(self, file: Any = None) -> None:
        print(self.format_help(), end="", file=file)  # argparse would hide that a pipe is closed

    def error(self, message: str) -> NoReturn:
        raise UserError(message.removeprefix("argument "))

    def parse(self, argv: Sequence[str]) -> argparse.Namespace:
        """Parse options and positional arguments in any order.

        Raises:
            UserError: An option is unknown, in which case the nearest one is named, or a value is missing or wrong.
            SystemExit: Help was printed.
        """
        self._check_needs(argv)
        options, unknown = self.parse_known_intermixed_args(list(argv))
        if unknown:
            raise UserError(self._unknown(unknown))
        return options

    def parse_with_overrides(self, argv: Sequence[str]) -> tuple[argparse.Namespace, list[str], list[str]]:
        """Parse the options of a verb that takes keys of a configuration too, such as `--model.lr 0.1`.

        Returns:
            The verb's own options; the leading positional arguments, which the verb only shows; the other arguments,
            as the functions of the rooms take them as `overrides`.

        Raises:
            UserError: A value is missing or wrong. Unknown options are overrides, which `config.request` checks.
            SystemExit: Help was printed.
        """
        self._check_needs(argv)
        options, remaining = self.parse_known_args(list(argv))
        first = next((index for index, token in enumerate(remaining) if token.startswith("-")), len(remaining))
        refuse_bare_keys(remaining[:first])
        return options, remaining[:first], remaining[first:]

    def _check_needs(self, argv: Sequence[str]) -> None:
        if self._needs_arguments and not argv:
            self.print_help()
            self.exit(2)

    def _unknown(self, tokens: Sequence[str]) -> str:
        option = next((token for token in tokens if token.startswith("-")), None)
        if option is None:
            return f"unexpected argument {tokens[0]!r}"
        option = option.partition("=")[0]
        suggestions = get_close_matches(option, self.option_names, n=1)
        options = ", ".join(self.option_names) or "none"
        hint = f"did you mean {suggestions[0]}?" if suggestions else f"the options are {options}"
        return f"unknown option {option}: {hint}"


def take_labels(options: argparse.Namespace) -> Labels:
    """Return the labels among the options, and remove them from there.

    Raises:
        UserError: A label is not valid.
    """
    given = vars(options)
    return Labels.parse(given.pop("tags"), given.pop("note"), given.pop("run_name"))


def check_system_metrics(options: argparse.Namespace) -> None:
    """Check that system metrics can be measured, if they are asked for.

    Raises:
        UserError: psutil is missing.
    """
    if options.system_metrics:
        from pipelines.tracking.system_metrics import check_available

        check_available()


def add_comparison_arguments(parser: VerbParser) -> None:
    """Add the arguments of `compare` and `report` that select runs and group them in rows."""
    add = parser.add_argument
    add("names", nargs="*", metavar="NAME", help="an experiment, a study or a run")
    by = "one row for each value of these keys (data.n_train); runs that agree in seed and all other keys are paired"
    add("--by", nargs="+", action="extend", default=[], metavar="KEY", help=by)
    add("--metric", help="test/acc, selected/val/loss, fit_seconds ...")
    mode = "whether lower (min) or higher (max) values of the metric are better; by default, its name tells"
    add("--mode", choices=("min", "max"), help=mode)
    baseline = "row that others are compared with: its number, or a run's id or name (the best row with n > 1)"
    add("--baseline", metavar="ROW", help=baseline)
    add_run_filters(parser, of_any_status=False)


def find_run_id(text: str, tracking_uri: str | None, *, any_status: bool = False) -> str:
    """Return the id of the run that an argument names. It is called before torch is imported: mistakes are seen sooner.

    Args:
        text: See `find_run`.
        tracking_uri: By default the project's mlflow.db.
        any_status: Whether the latest run may be one that failed, although others did not.

    Raises:
        UserError: There is no such run, or the store cannot be reached.
    """
    from pipelines.tracking.existing import existing_store
    from pipelines.tracking.run_names import find_run

    return find_run(existing_store(tracking_uri), text, any_status=any_status).run_id


def add_run_filters(parser: VerbParser, *, of_any_status: bool = True) -> None:
    """Add the options that select runs; see `tracking.listing.list_runs`."""
    add = parser.add_argument
    if of_any_status:
        add("--status", choices=STATUSES, metavar="STATUS", help="running, finished, failed or killed")
    add("--filter", dest="filter_string", default="", metavar="FILTER", help='such as "metrics.test/acc > 0.9"')
    add("--tag", dest="tags", action="append", default=[], metavar="K=V", help="runs with this tag; may be repeated")
    add("--since", metavar="AGE", help="not older than 90m, 12h, 7d, 2w, or a date")
    add("--user", metavar="NAME", help="runs of this user")


def check_run_filters(options: dict[str, Any]) -> None:
    """Check the options of `add_run_filters`, and replace the tags by a mapping.

    Raises:
        UserError: A tag has no value.
    """
    if wrong := [tag for tag in options["tags"] if "=" not in tag]:
        raise UserError(f"--tag {wrong[0]}: give a key and a value, such as --tag stage=confirm")
    options["tags"] = dict(tag.split("=", 1) for tag in options["tags"])


def combine_filters(options: dict[str, Any]) -> None:
    """Put the options of `add_run_filters` together in one filter, `filter_string`.

    Raises:
        UserError: A tag has no value, or `--since` is invalid.
    """
    check_run_filters(options)
    from pipelines.tracking.listing import run_conditions

    tags, since, user = (options.pop(name) for name in ("tags", "since", "user"))
    conditions = run_conditions(tags, since, user)
    options["filter_string"] = " and ".join(filter(None, [options["filter_string"], conditions]))
