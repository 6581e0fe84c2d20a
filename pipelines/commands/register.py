"""`litlab register`: register a run's model in MLflow's model registry."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipelines.commands.options import VerbParser

if TYPE_CHECKING:
    from pipelines.tracking.register import RegisteredModel

HELP = """usage: litlab register RUN_ID NAME [--alias ALIAS] [--tracking_uri URI]

Register the model of a run in MLflow's model registry, under a name and a
version, which remain when the run's experiment is deleted. The model takes raw
inputs as they are in the data set, and loads without litlab. A run has one
version per name: registering it again only moves the alias.

  RUN_ID              as printed by litlab fit and shown in the UI
  NAME                the registered model; created if missing
  --alias ALIAS       an alias of this version, such as champion; it is removed
                        from any other version
  --tracking_uri URI  where runs are stored (default: mlflow.db of this project)"""


def main(verb: str, argv: Sequence[str]) -> int:
    """Parse `litlab register`, register the model, and print version, alias and code that loads it."""
    parser = VerbParser(verb, HELP)
    parser.add_argument("run_id", metavar="RUN_ID")
    parser.add_argument("name", metavar="NAME")
    parser.add_argument("--alias")
    if not argv:
        parser.print_help()
        return 2
    options = parser.parse(argv)
    from pipelines.tracking.register import register_model

    model = register_model(options.run_id, options.name, alias=options.alias, tracking_uri=options.tracking_uri)
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
