"""`litlab tune`: suggest a learning rate or a batch size."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipelines.commands.options import VerbParser
from pipelines.config.request import read_request
from pipelines.runtime.errors import UserError
from pipelines.runtime.status import show_status

if TYPE_CHECKING:
    from pipelines.training.tune import Suggestion

SUBJECTS = ("lr", "batch_size")
DESCRIPTION = """Suggest a learning rate or a batch size for an experiment, with Lightning's
Tuner, and print the command that uses it.
  lr           raise the learning rate step by step, and suggest the one at
               which the loss falls fastest; a figure shows the loss
  batch_size   double the batch size until the memory does not suffice
Suggestion and figure are one MLflow run of the experiment NAME-tune."""


def make_parser(verb: str) -> VerbParser:
    usage = "lr|batch_size NAME [--key KEY] [--KEY VALUE ...]"
    parser = VerbParser(verb, DESCRIPTION, usage=usage, needs_arguments=True)
    parser.show_argument("subject", metavar="SUBJECT", choices=SUBJECTS, help="lr or batch_size")
    parser.show_argument("experiment", metavar="NAME", help="an experiment, or a YAML file like an experiment's")
    parser.show_argument("-c", "--config", metavar="FILE", help="another YAML file; later files take precedence")
    parser.add_argument("--key", metavar="KEY", help="its key, such as model.encoder.lr, if it is not found")
    parser.add_argument("--min", type=float, default=1e-8, metavar="LR", help="lowest learning rate (1e-8)")
    highest = "highest learning rate (1) or batch size (8192)"
    parser.add_argument("--max", type=float, metavar="VALUE", help=highest)
    parser.add_argument("--steps", type=int, default=100, metavar="N", help="training steps of a search for lr (100)")
    parser.show_keys("any key of the experiment, as for litlab fit: --model.dropout 0.3")
    parser.add_tracking_uri()
    return parser


def main(verb: str, argv: Sequence[str]) -> int:
    """Search, and print the suggestion."""
    parser = make_parser(verb)
    options, names, overrides = parser.parse_with_overrides(argv)
    subject, *experiments = names or [""]
    if subject not in SUBJECTS:
        raise UserError(f"name what to tune first: litlab {verb} lr NAME, or litlab {verb} batch_size NAME")
    request = read_request(verb, [*experiments, *overrides], options=parser.option_names)
    show_status(f"{request.name or 'litlab'}: loading torch and the data")
    from pipelines.training.tune import tune

    found = tune(
        "lr" if subject == "lr" else "batch_size",
        None,
        [*experiments, *overrides],
        key=options.key,
        low=options.min,
        high=options.max,
        steps=options.steps,
        tracking_uri=options.tracking_uri,
    )
    _print(found)
    return 0


def _print(found: "Suggestion") -> None:
    from pipelines.tracking.uri import view_command

    print(f"suggested  {found.key} {found.value:g} (it is {found.given})")
    print(f"to use it  {found.command}")
    print(f"run        {found.run_id}")
    print(f"view       {view_command(found.tracking_uri)}")
