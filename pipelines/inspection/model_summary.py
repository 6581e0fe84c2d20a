"""`litlab inspect`: the layers of an experiment's network, their sizes, costs and receptive fields."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lightning.pytorch import LightningDataModule, LightningModule
from rich.console import Console
from rich.table import Table

from datamodules.base import ImageDataModule
from datamodules.normalize import identity
from pipelines.config.cli import parse_config
from pipelines.inspection.ops import SlidingWindow
from pipelines.inspection.trace import Layer, trace
from pipelines.runtime.errors import UserError
from pipelines.runtime.silence import silence_lightning

HELP = """usage: litlab inspect NAME [--json] [--KEY VALUE ...]

Shows the layers of an experiment's network in the order in which they are
called: size of the output, window, parameters, multiply-adds for one example,
and the receptive field: the rows and columns of the input that an output can
depend on, at most. Nothing is trained or downloaded.

  NAME or PATH         an experiment, or a YAML file like theirs
  -c, --config FILE    one more YAML file; later ones win
  --json               print one JSON object instead of a table
  --model.channels 16  any key of the experiment, as for litlab fit"""


@dataclass(frozen=True)
class ModelSummary:
    """What `litlab inspect` says of an experiment."""

    experiment: str
    layers: list[Layer]
    parameters: int
    trainable_parameters: int
    multiply_adds: int
    """Per example."""
    train_examples: int | None
    remarks: list[str]

    @property
    def parameters_per_example(self) -> float | None:
        return self.parameters / self.train_examples if self.train_examples else None


def main(verb: str, argv: Sequence[str]) -> int:
    """`litlab inspect NAME | PATH | -c FILE [--json] [--key value ...]`."""
    if not argv or {"-h", "--help"} & set(argv):
        print(HELP)
        return 0 if argv else 2
    silence_lightning()
    cli = parse_config(verb, [token for token in argv if token != "--json"])
    data, model = cli.build()
    anatomy = examine(cli.config.name, data, model)
    if "--json" in argv:
        print(json.dumps(as_json(anatomy), indent=2))
    else:
        _show(anatomy)
    return 0


def examine(experiment: str, data: LightningDataModule, model: LightningModule) -> ModelSummary:
    """Trace the network on the shape of the data.

    Raises:
        UserError: The data do not say their shape, or the network does not take it.
    """
    shape = getattr(data, "input_shape", None)
    if shape is None:
        raise UserError(f"{type(data).__name__} has no input_shape, the shape of one example")
    try:
        traced = trace(model, tuple(shape))
    except (RuntimeError, ValueError, IndexError) as error:
        raise UserError(f"{type(model).__name__} fails on an example of shape {tuple(shape)}: {error}") from error
    train_examples, why_not = _count_examples(data)
    return ModelSummary(
        experiment,
        traced.layers,
        sum(parameter.numel() for parameter in model.parameters()),
        sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad),
        sum(layer.multiply_adds for layer in traced.layers),
        train_examples,
        [*traced.remarks, *why_not],
    )


def _count_examples(data: LightningDataModule) -> tuple[int | None, list[str]]:
    """How many there are to train on, from the configuration or from files that are there, and why that is unknown."""
    n_train = getattr(data, "n_train", None)
    if isinstance(n_train, int):
        return n_train, []
    if isinstance(data, ImageDataModule):
        data.normalize = identity(data.input_shape[0])  # or setup would fit it, for nothing
    try:
        data.setup("fit")  # without prepare_data, which would download
    except (ValueError, OSError, RuntimeError) as error:
        return None, [f"number of training examples unknown: {error}"]
    part = getattr(data, "train_set", None)
    return (None, []) if part is None else (len(part), [])


def as_json(anatomy: ModelSummary) -> dict[str, Any]:
    """Plain types; what is unknown is None."""
    rows = [_row_as_json(layer) for layer in anatomy.layers]
    return {**vars(anatomy), "layers": rows, "parameters_per_example": anatomy.parameters_per_example}


def _row_as_json(layer: Layer) -> dict[str, Any]:
    window = layer.window
    return {
        "name": layer.name,
        "type": layer.type,
        "output": layer.output,
        "kernel": (window and window.kernel) or None,
        "stride": (window and window.stride) or None,
        "padding": window and window.padding,
        "dilation": (window and window.dilation) or None,
        "parameters": layer.parameters,
        "multiply_adds": layer.multiply_adds,
        "receptive_field": layer.receptive_field,
        "note": layer.note or None,
    }


def _show(anatomy: ModelSummary) -> None:
    console = Console(soft_wrap=True)
    table = Table(title=anatomy.experiment, title_justify="left", box=None, header_style="bold", pad_edge=False)
    with_notes = any(layer.note for layer in anatomy.layers)
    for column in ("layer", "type", "output", "window"):
        table.add_column(column, no_wrap=True)
    for column in ("parameters", "multiply-adds", "receptive\nfield"):
        table.add_column(column, no_wrap=True, justify="right")
    if with_notes:
        table.add_column("")
    for layer in anatomy.layers:
        table.add_row(*_cells(layer), *([layer.note] if with_notes else []))
    console.width = max(console.width, console.measure(table, options=console.options.update(width=1000)).maximum)
    console.print(table)
    for line in _totals(anatomy):
        console.print(line, highlight=False, markup=False)


def _cells(layer: Layer) -> list[str]:
    return [
        layer.name,
        layer.type,
        _by(layer.output),
        _describe(layer.window) if layer.window else "",
        f"{layer.parameters:,}" if layer.parameters or layer.note == "shared" else "",
        f"{layer.multiply_adds:,}" if layer.multiply_adds else "",
        _by(layer.receptive_field) if layer.receptive_field else "-",
    ]


def _describe(window: SlidingWindow) -> str:
    """Kernel, and what is not the usual: 2x2 stride 2, 5x5 pad same."""
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


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _totals(anatomy: ModelSummary) -> list[str]:
    facts = {"parameters": f"{anatomy.parameters:,}"}
    if anatomy.trainable_parameters != anatomy.parameters:
        facts["of them trainable"] = f"{anatomy.trainable_parameters:,}"
    facts["multiply-adds"] = f"{anatomy.multiply_adds:,} per example"
    if (ratio := anatomy.parameters_per_example) is not None:
        facts["parameters per training example"] = f"{_number(ratio)} ({anatomy.train_examples:,} examples)"
    width = max(map(len, facts))
    return [*(f"{name:<{width}}  {value}" for name, value in facts.items()), *anatomy.remarks]
