"""`litlab register`: register a run's model in MLflow's model registry."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipelines.commands.options import RUN_ID, VerbParser

if TYPE_CHECKING:
    from pipelines.tracking.register import RegisteredModel

DESCRIPTION = """Register the model of a run in MLflow's model registry, under a name and a
version, which remain when the run's experiment is deleted. The model takes raw
inputs as they are in the data set, and loads without litlab. A run has one
version per name: registering it again only moves the alias."""


def make_parser(verb: str) -> VerbParser:
    parser = VerbParser(verb, DESCRIPTION, needs_arguments=True)
    parser.add_argument("run_id", **RUN_ID)
    parser.add_argument("name", metavar="NAME", help="the registered model; created if missing")
    alias = "an alias of this version, such as champion; it is removed from any other version"
    parser.add_argument("--alias", help=alias)
    parser.add_tracking_uri()
    return parser


def main(verb: str, argv: Sequence[str]) -> int:
    """Register the model of a run, and print version, alias and code that loads it."""
    options = make_parser(verb).parse(argv)
    from pipelines.tracking.register import register_model

    model = register_model(**vars(options))
    print(f"model    {model.name}")
    print(f"version  {model.version}" + ("" if model.is_new else " (already registered for this run)"))
    print(f"run      {model.run_id}")
    if model.alias:
        print(f"alias    {model.alias}{_describe_move(model)}")
    print(f"\n{model.loading_code}")
    return 0


def _describe_move(model: "RegisteredModel") -> str:
    """Return where the alias pointed before this call."""
    if model.previous_version == model.version:
        return " (unchanged)"
    return f" (was version {model.previous_version})" if model.previous_version else ""
