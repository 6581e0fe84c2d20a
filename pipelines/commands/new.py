"""`litlab new`: make a project from a template."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from pipelines.commands.options import VerbParser
from pipelines.config.new_project import Template, new_project

DESCRIPTION = """Make a project in a new folder: a module, a data module, an experiment, a search
space and a test, all of which run at once. Its runs are in its own mlflow.db.

image    labelled images (scikit-learn's digits) and a convolutional network
tabular  regression on a table (scikit-learn's diabetes data)
blank    random numbers, and plain Lightning classes to replace"""


def make_parser(verb: str) -> VerbParser:
    parser = VerbParser(verb, DESCRIPTION, needs_arguments=True)
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="new folder; its name is the project's")
    parser.add_argument("--template", choices=get_args(Template), default="image", help="what to begin with (image)")
    return parser


def main(verb: str, argv: Sequence[str]) -> int:
    """Make the project, and print what to do next."""
    options = make_parser(verb).parse(argv)
    name = new_project(options.folder, options.template)
    print(f"{options.folder}: a project that trains, sweeps and passes its test. Next:")
    for command in (
        f"cd {shlex.quote(str(options.folder))}",
        f"litlab fit {shlex.quote(name)}",
        f"litlab sweep {shlex.quote(name)}",
        "python -m pytest",
    ):
        print(f"  {command}")
    return 0
