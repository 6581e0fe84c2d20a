"""`litlab completion`: print a script that completes verbs and options in a shell. Completing starts no process."""

import importlib
from argparse import ArgumentParser
from collections.abc import Sequence

from pipelines.commands.explain import make_method_parser
from pipelines.commands.explain_methods import METHODS
from pipelines.commands.options import VerbParser
from pipelines.commands.verbs import VERBS
from pipelines.config.experiments import experiment_names

SHELLS = ("bash", "zsh")
DESCRIPTION = """Print a script that completes verbs, options, experiments and files in a shell.
Print it again after an update of litlab or for new experiments."""
EPILOG = """bash: litlab completion bash > ~/.local/share/bash-completion/completions/litlab
zsh:  litlab completion zsh > ~/.zfunc/_litlab   (a folder in $fpath)"""


def make_parser(verb: str) -> VerbParser:
    parser = VerbParser(verb, DESCRIPTION, epilog=EPILOG, needs_arguments=True)
    parser.add_argument("shell", choices=SHELLS, metavar="SHELL", help=", ".join(SHELLS))
    return parser


def main(verb: str, argv: Sequence[str]) -> int:
    """Print the script."""
    options = make_parser(verb).parse(argv)
    import shtab

    print(shtab.complete(_all_verbs(), options.shell))
    return 0


def _all_verbs() -> ArgumentParser:
    """Return a parser that has every verb with the options of its help page."""
    parser = ArgumentParser(prog="litlab")
    parser.add_argument("--version", action="store_true", help="print the version")
    verbs = parser.add_subparsers()
    for verb, (module, summary) in VERBS.items():
        if verb == "explain":
            methods = verbs.add_parser(verb, help=summary).add_subparsers()
            for method in METHODS:
                page = _completed(make_method_parser(verb, method))
                methods.add_parser(method, help=METHODS[method].summary, parents=[page], add_help=False)
        else:
            page = _completed(importlib.import_module(module).make_parser(verb))
            verbs.add_parser(verb, help=summary, parents=[page], add_help=False)
    return parser


def _completed(parser: VerbParser) -> ArgumentParser:
    """Return the help page of a verb, with the values that its arguments can have."""
    import shtab

    values = {"FILE": shtab.FILE, "IMAGE": shtab.FILE, "DIR": shtab.DIRECTORY}
    for action in parser.arguments:
        if action.metavar in values:
            action.complete = values[action.metavar]  # type: ignore[attr-defined]  # read by shtab
        if action.dest == "experiment":
            action.choices = experiment_names()
    return parser.page()
