"""`litlab explain METHOD`: explain the trained network of a run, and print what was written."""

import shlex
import textwrap
from argparse import Namespace
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.commands.explain_methods import METHODS
from pipelines.commands.options import VerbParser
from pipelines.explanation.settings import check_source
from pipelines.runtime.errors import UserError
from pipelines.runtime.gc_pause import gc_paused_for_import
from pipelines.runtime.text import format_command

if TYPE_CHECKING:
    from pipelines.explanation.results import Explanation
    from pipelines.explanation.target import Target

HELP = """usage: litlab explain METHOD RUN_ID [--option value ...]

Explain the trained network of a run. Writes a picture and its numbers, and logs
both as a child run. The explained run is not changed.

  maximise     the input that maximises a class or a unit
  adversarial  images changed slightly so that another class is predicted
  occlusion    the probability of the class while a block is hidden
  saliency     the influence of each pixel on the class
  gradcam      where a convolution supports the class
  filters      the weights of a convolution
  activations  the output of each convolution for an image
  embedding    test images in the plane, by the output of a layer

  RUN_ID             as printed by litlab fit and shown in the UI. Alternatives:
                     --checkpoint FILE (configuration: -c FILE, or config.yaml
                     in its folder or the folder above); --torchvision NAME
                     (weights: on this machine, or --weights FILE)
  --out DIR          folder of the picture and its numbers (explain)
  --seed N           random seed (0)
  --KEY VALUE        a key of the run's configuration: --data.data_dir FOLDER
  --tracking_uri URI where runs are stored (mlflow.db of this project)

Options of a method: litlab explain METHOD --help"""
COMMON_HELP = """
  --checkpoint FILE, -c FILE, --torchvision NAME, --weights FILE, --out DIR,
  --seed N, --KEY VALUE, --tracking_uri URI: see litlab explain --help"""
PLACES = ("--out", "--tracking_uri", "--tracking-uri", "--data.data_dir")


def main(verb: str, argv: Sequence[str]) -> int:
    """Parse `litlab explain METHOD RUN_ID ...`, write and log the explanations, and print where they are."""
    if not argv or argv[0] in ("-h", "--help"):
        print(HELP)
        return 0 if argv else 2
    name, *tokens = argv
    if name not in METHODS:
        suggestions = get_close_matches(name, METHODS, n=1)
        hint = f" (did you mean {suggestions[0]}?)" if suggestions else ""
        raise UserError(f"{name!r} is not a method{hint}; the methods are {', '.join(METHODS)}")
    run_id = tokens.pop(0) if tokens and not tokens[0].startswith("-") else None
    options, overrides = _parser(verb, name).parse_known_args(tokens)
    check_source(run_id, **_source(options))
    command, arguments = format_command(verb, argv), shlex.join([name, *_without_places(tokens)])
    for explanation in METHODS[name].explain(options, lambda: _load(run_id, options, overrides)):
        _save(explanation, options, command, arguments)
    return 0


def _save(explanation: "Explanation", options: Namespace, command: str, arguments: str) -> None:
    from pipelines.explanation.results import log_run, write_files

    picture = write_files(explanation, options.out, command=command)
    print(f"{textwrap.fill(explanation.caption, 100)}\n")
    print(f"picture  {picture}\nnumbers  {picture.with_suffix('.json')}")
    if explanation.target.run is not None:
        run_id = log_run(explanation, picture, command=command, arguments=arguments, seed=options.seed)
        print(f"run      {run_id}")


def _parser(verb: str, method: str) -> VerbParser:
    parser = VerbParser(f"{verb} {method}", METHODS[method].help_text + COMMON_HELP)
    METHODS[method].add_options(parser)
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("-c", "--config", type=Path)
    parser.add_argument("--torchvision")
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--out", type=Path, default=Path("explain"))
    parser.add_argument("--seed", type=int, default=0)
    return parser


def _source(options: Namespace) -> dict[str, Any]:
    return {name: getattr(options, name) for name in ("checkpoint", "config", "torchvision", "weights")}


def _load(run_id: str | None, options: Namespace, overrides: Sequence[str]) -> "Target":
    with gc_paused_for_import("pipelines.explanation.load_target"):
        from pipelines.explanation.load_target import load_target

    return load_target(
        run_id, **_source(options), overrides=overrides, tracking_uri=options.tracking_uri, seed=options.seed
    )


def _without_places(tokens: Sequence[str]) -> list[str]:
    """Return what is asked, without the options that say where data, runs and pictures are."""
    asked, skip = [], False
    for token in tokens:
        option, equals, _ = token.partition("=")
        if not skip and option not in PLACES:
            asked.append(token)
        skip = option in PLACES and not equals
    return asked
