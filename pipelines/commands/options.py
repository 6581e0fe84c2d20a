"""Parse the options of a verb: one parser, one way to print help, one message for an unknown option."""

import argparse
from collections.abc import Sequence
from difflib import get_close_matches
from typing import NoReturn

from pipelines.runtime.errors import UserError


class VerbParser(argparse.ArgumentParser):
    """Parser of a verb's options. `-h` prints the verb's help text and exits; a mistake raises UserError.

    Args:
        verb: As typed, such as "compare" or "explain saliency".
        help_text: What `-h` prints: at most 24 lines of 80 characters.
        tracking_uri: Whether the verb takes `--tracking_uri`.
    """

    def __init__(self, verb: str, help_text: str, *, tracking_uri: bool = True) -> None:
        super().__init__(prog=f"litlab {verb}", add_help=False, allow_abbrev=False)
        self._help_text = help_text
        self.add_argument("-h", "--help", action="help", default=argparse.SUPPRESS)
        if tracking_uri:
            self.add_argument("--tracking_uri", "--tracking-uri")

    def format_help(self) -> str:
        return f"{self._help_text}\n"

    def error(self, message: str) -> NoReturn:
        raise UserError(message.removeprefix("argument "))

    def add_comparison_arguments(self) -> None:
        """Add what selects runs and groups them in rows: names, `--by`, `--metric` and `--filter`."""
        self.add_argument("names", nargs="*")
        self.add_argument("--by", nargs="+", action="extend", default=[])
        self.add_argument("--metric")
        self.add_argument("--filter", default="")

    def parse(self, argv: Sequence[str]) -> argparse.Namespace:
        """Parse options and positional arguments in any order.

        Raises:
            UserError: An option is unknown, in which case the nearest one is named, or a value is missing or wrong.
            SystemExit: Help was printed.
        """
        options, unknown = self.parse_known_intermixed_args(list(argv))
        if unknown:
            raise UserError(self._unknown(unknown))
        return options

    def parse_with_overrides(self, argv: Sequence[str]) -> tuple[argparse.Namespace, list[str], list[str]]:
        """Parse the options of a verb that takes keys of a configuration too, such as `--model.lr 0.1`.

        Returns:
            The verb's own options; the leading positional arguments, which the verb must not declare; the other
            arguments, as the functions of the rooms take them as `overrides`.

        Raises:
            UserError: A value is missing or wrong. Unknown options are overrides: the configuration checks them.
            SystemExit: Help was printed.
        """
        options, remaining = self.parse_known_args(list(argv))
        first = next((index for index, token in enumerate(remaining) if token.startswith("-")), len(remaining))
        return options, remaining[:first], remaining[first:]

    def _unknown(self, tokens: Sequence[str]) -> str:
        option = next((token for token in tokens if token.startswith("-")), None)
        if option is None:
            return f"unexpected argument {tokens[0]!r}"
        option = option.partition("=")[0]
        known = [name for action in self._actions for name in action.option_strings if name.startswith("--")]
        known = [name for name in known if name != "--help"]
        suggestions = get_close_matches(option, known, n=1)
        hint = f"did you mean {suggestions[0]}?" if suggestions else f"the options are {', '.join(known) or 'none'}"
        return f"unknown option {option}: {hint}"
