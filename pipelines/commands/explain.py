"""`litlab explain METHOD`: explain the trained network of a run, and print what was written."""

import shlex
import textwrap
from argparse import SUPPRESS, Namespace
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.commands.explain_methods import METHODS, explain
from pipelines.commands.options import RUN_ID, VerbParser, find_run_id
from pipelines.config.request import read_request
from pipelines.explanation.settings import check_source
from pipelines.runtime.errors import UserError
from pipelines.runtime.log import logger
from pipelines.runtime.status import show_status
from pipelines.runtime.text import format_command

if TYPE_CHECKING:
    from pipelines.explanation.results import Explanation
    from pipelines.explanation.target import Target

DESCRIPTION = """Explain the trained network of a run. Writes a picture and its numbers, and logs
both as a child run. The explained run is not changed."""
METHOD_EPILOG = """--checkpoint FILE, -c FILE, --backbone NAME, --weights FILE, --input KEY,
--forward NAME, --out DIR, --seed N, --trust, --KEY VALUE, --tracking_uri URI:
see litlab explain --help"""
PLACES = ("--out", "--tracking_uri", "--tracking-uri", "--data.data_dir")


def make_parser(verb: str) -> VerbParser:
    """Return the parser of the overview; `make_method_parser` has those of the methods."""
    methods = "\n".join(f"  {name:<12} {method.summary}" for name, method in METHODS.items())
    parser = VerbParser(
        verb,
        f"{DESCRIPTION}\n\n{methods}",
        usage="METHOD RUN_ID [--option value ...]",
        needs_arguments=True,
    )
    parser.show_argument("method", metavar="METHOD", help="one of the above (METHOD --help has its options)")
    parser.show_argument("run_id", **RUN_ID | {"help": "as printed by litlab fit; without it:"})
    _add_common_options(parser)
    return parser


def make_method_parser(verb: str, method: str) -> VerbParser:
    parser = VerbParser(
        f"{verb} {method}", METHODS[method].description, usage="RUN_ID [--option value ...]", epilog=METHOD_EPILOG
    )
    METHODS[method].add_options(parser)
    _add_common_options(parser, shown=False)
    return parser


def _add_common_options(parser: VerbParser, *, shown: bool = True) -> None:
    def add(*names: str, text: str, **settings: Any) -> None:
        parser.add_argument(*names, help=text if shown else SUPPRESS, **settings)

    add("--checkpoint", type=Path, metavar="FILE", text="one with its config.yaml, or with -c")
    add("-c", "--config", type=Path, metavar="FILE", text="the configuration of the checkpoint")
    add("--backbone", metavar="NAME", text="a network of torchvision or timm, or a class path")
    parser.add_argument("--torchvision", dest="backbone", help=SUPPRESS)  # its name in earlier versions
    add("--weights", type=Path, metavar="FILE", text="other weights of that network")
    add("--input", metavar="KEY", text="part of a batch that holds images, index or key (first)")
    add("--forward", default="forward", metavar="NAME", text="method that maps images to logits (%(default)s)")
    add("--out", type=Path, default=Path("explain"), metavar="DIR", text="folder of picture and numbers (%(default)s)")
    add("--seed", type=int, default=0, metavar="N", text="random seed (%(default)s)")
    parser.add_trust() if shown else parser.add_trust(SUPPRESS)
    if shown:
        parser.show_keys("a key of the run's configuration, as for litlab fit")
    parser.add_tracking_uri() if shown else parser.add_tracking_uri(SUPPRESS)


def main(verb: str, argv: Sequence[str]) -> int:
    """Write and log the explanations, and print where they are."""
    if not argv or argv[0] in ("-h", "--help"):
        make_parser(verb).parse(argv)
    name, *tokens = argv
    if name not in METHODS:
        suggestions = get_close_matches(name, METHODS, n=1)
        hint = f" (did you mean {suggestions[0]}?)" if suggestions else ""
        raise UserError(f"{name!r} is not a method{hint}; the methods are {', '.join(METHODS)}")
    run_id = tokens.pop(0) if tokens and not tokens[0].startswith("-") else None
    parser = make_method_parser(verb, name)
    options, overrides = parser.parse_known_args(tokens)
    check_source(run_id, **_source(options))
    for path in filter(None, (options.checkpoint, options.config, options.weights)):
        if not path.is_file():
            raise UserError(f"{path}: no such file")
    read_request(verb, overrides, on_run=True, options=parser.option_names)
    show_status(f"{name}: loading torch and the network")
    command, arguments = format_command(verb, argv), shlex.join([name, *_without_places(tokens)])
    for explanation in explain(name, options, lambda: _load(run_id, options, overrides)):
        _save(explanation, options, command, arguments)
    return 0


def _save(explanation: "Explanation", options: Namespace, command: str, arguments: str) -> None:
    from pipelines.explanation.results import log_run, write_files
    from pipelines.tracking.uri import is_writable

    picture = write_files(explanation, options.out, command=command)
    print(f"{textwrap.fill(explanation.caption, 100)}\n")
    print(f"picture  {picture}\nnumbers  {picture.with_suffix('.json')}")
    run = explanation.target.run
    if run is not None and not is_writable(run.store.uri):
        logger.warning("not logged as a run: %s cannot be written", run.store.uri)
    elif run is not None:
        run_id = log_run(explanation, picture, command=command, arguments=arguments, seed=options.seed)
        print(f"run      {run_id}")


def _source(options: Namespace) -> dict[str, Any]:
    return {name: getattr(options, name) for name in ("checkpoint", "config", "backbone", "weights")}


def _load(run_id: str | None, options: Namespace, overrides: Sequence[str]) -> "Target":
    run_id = find_run_id(run_id, options.tracking_uri) if run_id else None
    from pipelines.explanation.load_target import load_target

    given = {"tracking_uri": options.tracking_uri, "trust": options.trust, "seed": options.seed}
    parts = {"input_key": options.input, "forward": options.forward}
    return load_target(run_id, **_source(options), **given, **parts, overrides=overrides)


def _without_places(tokens: Sequence[str]) -> list[str]:
    """Return what is asked, without the options that say where data, runs and pictures are."""
    asked, skip = [], False
    for token in tokens:
        option, equals, _ = token.partition("=")
        if not skip and option not in PLACES:
            asked.append(token)
        skip = option in PLACES and not equals
    return asked
