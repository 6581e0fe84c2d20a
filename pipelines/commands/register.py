"""`litlab register`: register a run's model in MLflow's model registry."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipelines.commands.options import RUN_ID, VerbParser
from pipelines.config.request import read_request
from pipelines.runtime.errors import UserError
from pipelines.runtime.log import logger

if TYPE_CHECKING:
    from pipelines.tracking.register import RegisteredModel

DESCRIPTION = """Register the model of a run in MLflow's model registry, under a name and a
version, which remain when the run's experiment is deleted. The model takes raw
inputs as they are in the data set, and loads without litlab. If the run has no
model, because its data are not in memory, one is exported now: it takes what
the module's step passes to forward. A run has one version per name: registering
it again only moves the alias."""


def make_parser(verb: str) -> VerbParser:
    usage = "RUN_ID NAME [--alias ALIAS] [--KEY VALUE ...]"
    parser = VerbParser(verb, DESCRIPTION, usage=usage, needs_arguments=True)
    parser.add_argument("run_id", **RUN_ID)
    parser.add_argument("name", metavar="NAME", help="the registered model; created if missing")
    alias = "an alias of this version, such as champion; it is removed from any other version"
    parser.add_argument("--alias", help=alias)
    part = "part of a batch that is the input, an index or a key of a dict"
    parser.add_argument("--input", metavar="KEY", help=part)
    parser.show_keys("a key of the run's configuration, after the options")
    parser.add_trust()
    parser.add_tracking_uri()
    return parser


def main(verb: str, argv: Sequence[str]) -> int:
    """Register the model of a run, and print version, alias and code that loads it."""
    first = next((index for index, token in enumerate(argv) if _is_key(token)), len(argv))
    parser = make_parser(verb)
    options = parser.parse(argv[:first])
    read_request(verb, argv[first:], on_run=True, options=parser.option_names)
    from pipelines.tracking.artifacts import moved_note
    from pipelines.tracking.existing import existing_store
    from pipelines.tracking.register import can_export, check_names, register_model
    from pipelines.tracking.run_names import find_run

    check_names(options.name, options.alias)
    run = find_run(existing_store(options.tracking_uri), options.run_id)
    if can_export(run):
        from pipelines.training.export_run import export_run

        export_run(run, argv[first:], input_key=options.input, trust=options.trust)
    elif argv[first:]:
        raise UserError(f"run {run.run_id} has a model already: {argv[first]} would change nothing")
    model = register_model(run, options.name, alias=options.alias, tracking_uri=options.tracking_uri)
    print(f"model    {model.name}")
    print(f"version  {model.version}" + ("" if model.is_new else " (already registered for this run)"))
    print(f"run      {model.run_id}")
    if model.alias:
        print(f"alias    {model.alias}{_describe_move(model)}")
    print(f"\n{model.loading_code}")
    if note := moved_note(run.store.client, run.store.uri):
        logger.warning(note)
    return 0


def _is_key(token: str) -> bool:
    """Return whether an argument is a key of a configuration, such as --data.data_dir."""
    return token.startswith("--") and "." in token.partition("=")[0]


def _describe_move(model: "RegisteredModel") -> str:
    """Return where the alias pointed before this call."""
    if model.previous_version == model.version:
        return " (unchanged)"
    return f" (was version {model.previous_version})" if model.previous_version else ""
