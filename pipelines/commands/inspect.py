"""`litlab inspect`: the layers of an experiment's network, their sizes, costs and receptive fields."""

import json
from argparse import SUPPRESS
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pipelines.commands.options import VerbParser
from pipelines.config.request import read_request
from pipelines.runtime.errors import UserError
from pipelines.runtime.status import show_status

if TYPE_CHECKING:
    from pipelines.inspection.model_summary import ModelSummary
    from pipelines.inspection.observer import Layer
    from pipelines.inspection.windows import SlidingWindow

DESCRIPTION = """Show the layers of an experiment's network in the order in which they are
called: output size, window, parameters, multiply-adds for one example (of
convolutions, matrix products and attention), and the receptive field (the
maximum number of rows and columns of the input that an output can depend on).
Nothing is trained. If the data module has no input_shape, a batch is read: its
first example is passed to the network."""


def make_parser(verb: str) -> VerbParser:
    parser = VerbParser(
        verb, DESCRIPTION, usage="NAME [--json] [--KEY VALUE ...] | --backbone NAME", needs_arguments=True
    )
    parser.show_argument("experiment", metavar="NAME", help="an experiment, or a YAML file like an experiment's")
    parser.show_argument("-c", "--config", metavar="FILE", help="another YAML file; later files take precedence")
    backbone = "or a network of torchvision or timm, or a class path, with its published head"
    parser.add_argument("--backbone", metavar="NAME", help=backbone)
    parser.add_argument("--torchvision", dest="backbone", help=SUPPRESS)  # as for litlab explain
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    input_help = "part of a batch that is the input: an index, or a key of a dict"
    parser.add_argument("--input", metavar="KEY", help=input_help)
    parser.show_keys("any key of the experiment, as for litlab fit: --model.channels 16")
    return parser


def main(verb: str, argv: Sequence[str]) -> int:
    """Print the summary of a network."""
    parser = make_parser(verb)
    options, experiments, overrides = parser.parse_with_overrides(argv)
    if options.backbone:
        summary = _summarize_backbone(options.backbone, [*experiments, *overrides])
    else:
        request = read_request(verb, [*experiments, *overrides], options=parser.option_names)
        show_status(f"{request.name or 'litlab'}: loading torch")
        from pipelines.inspection.model_summary import summarize_experiment

        summary = summarize_experiment([*experiments, *overrides], options.input)
    if options.json:
        print(json.dumps(summary.as_json(), indent=2))
    else:
        _print(summary)
    return 0


def _summarize_backbone(name: str, others: Sequence[str]) -> "ModelSummary":
    if others:
        raise UserError(f"--backbone {name} names a network; it cannot be combined with {others[0]}")
    show_status(f"{name}: loading torch")
    from pipelines.inspection.model_summary import summarize_backbone

    return summarize_backbone(name)


def _print(summary: "ModelSummary") -> None:
    """Print a table of the layers and the totals below it.

    On a terminal that is too narrow, types and windows are wrapped; elsewhere the table is as wide as it needs to be.
    """
    from rich.table import Table

    from pipelines.runtime.console import Console

    console = Console(soft_wrap=True)
    style: dict[str, Any] = {"box": None, "header_style": "bold", "pad_edge": False, "padding": (0, 1, 0, 0)}
    table = Table(title=summary.experiment, title_justify="left", **style)
    with_notes = any(layer.note for layer in summary.layers)
    for column in ("layer", "type", "output", "window"):
        wraps = console.is_terminal and column in ("type", "window")
        table.add_column(column, no_wrap=not wraps, overflow="fold" if wraps else "ellipsis")
    for column in ("parameters", "multiply-\nadds", "receptive\nfield"):
        table.add_column(column, no_wrap=True, justify="right")
    if with_notes:
        table.add_column("")
    for layer in summary.layers:
        table.add_row(*_cells(layer), *([layer.note] if with_notes else []))
    if not console.is_terminal:
        console.width = max(console.width, console.measure(table, options=console.options.update(width=1000)).maximum)
    console.print(table)
    for line in _totals(summary):
        console.print(line, highlight=False, markup=False)


def _cells(layer: "Layer") -> list[str]:
    return [
        layer.name,
        layer.type,
        _by(layer.output),
        _describe(layer.window) if layer.window else "",
        f"{layer.parameters:,}" if layer.parameters or layer.note == "shared" else "",
        f"{layer.multiply_adds:,}" if layer.multiply_adds else "",
        _by(layer.receptive_field) if layer.receptive_field else "-",
    ]


def _describe(window: "SlidingWindow") -> str:
    """Return the kernel, and what is not the default: "2x2 stride 2", "5x5 pad same"."""
    words = [_by(window.kernel)] if window.kernel else []
    for name, value in (("stride", window.stride), ("dilation", window.dilation)):
        words += [name, _short(value)] if set(value) - {1} else []
    if isinstance(window.padding, str):
        words += ["pad", window.padding]
    elif any(window.padding):
        words += ["pad", _short(window.padding)]
    return " ".join(words)


def _by(sizes: Sequence[int]) -> str:
    return "x".join(map(str, sizes))


def _short(values: tuple[int, ...]) -> str:
    return str(values[0]) if len(set(values)) == 1 else ",".join(map(str, values))


def _totals(summary: "ModelSummary") -> list[str]:
    facts = {"parameters": f"{summary.parameters:,}"}
    if summary.trainable_parameters != summary.parameters:
        facts["trainable parameters"] = f"{summary.trainable_parameters:,}"
    facts["multiply-adds"] = f"{summary.multiply_adds:,} per example"
    if (ratio := summary.parameters_per_example) is not None:
        number = f"{ratio:,.0f}" if ratio >= 100 else f"{ratio:.3g}"
        facts["parameters per training example"] = f"{number} ({summary.train_examples:,} examples)"
    width = max(map(len, facts))
    return [*(f"{name:<{width}}  {value}" for name, value in facts.items()), *summary.remarks]
