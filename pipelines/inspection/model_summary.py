"""Summarize a network: its layers, their sizes, costs and receptive fields."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lightning.pytorch import LightningDataModule, LightningModule
from torch import Tensor, nn

from datamodules.base import ImageDataModule
from datamodules.in_memory import InMemoryDataModule
from datamodules.normalize import identity
from modules.networks import find_network
from pipelines.config.cli import parse_config
from pipelines.config.example_batch import describe, example_batch, first_example
from pipelines.inspection.observer import Layer
from pipelines.inspection.trace import Trace, trace, trace_call
from pipelines.runtime.errors import UserError
from pipelines.runtime.silence import silence_lightning
from pipelines.runtime.text import kind_and_message


@dataclass(frozen=True)
class ModelSummary:
    """The network of an experiment.

    Attributes:
        experiment: Name of the experiment.
        layers: In the order in which they are called.
        parameters: Number of parameters, each counted once.
        trainable_parameters: Those that require a gradient.
        multiply_adds: Per example.
        train_examples: Number of training examples; None if unknown.
        remarks: What is unknown, and why.
    """

    experiment: str
    layers: list[Layer]
    parameters: int
    trainable_parameters: int
    multiply_adds: int
    train_examples: int | None
    remarks: list[str]

    @property
    def parameters_per_example(self) -> float | None:
        return self.parameters / self.train_examples if self.train_examples else None

    def as_json(self) -> dict[str, Any]:
        """Return the summary as plain types; what is unknown is None."""
        layers = [_layer_as_json(layer) for layer in self.layers]
        return {**vars(self), "layers": layers, "parameters_per_example": self.parameters_per_example}


def summarize_experiment(experiment: Sequence[str], input_key: str | None = None) -> ModelSummary:
    """Summarize the network of an experiment. Nothing is trained.

    The network is traced on a blank example, if the data module has an `input_shape`; nothing is read or downloaded
    then. Otherwise it is traced on the first example of a batch.

    Args:
        experiment: As on the command line: a name or path, or `-c FILE`, and values for keys, such as
            `["cifar-base", "--model.channels", "16"]`.
        input_key: The part of a batch that is the input of `forward`; see `part_of_batch`. By default what the module's
            step passes, or else the first part.

    Raises:
        UserError: The experiment or a key is wrong, or its network does not take examples of its data.
    """
    silence_lightning()
    cli = parse_config("inspect", experiment, training=False)
    data, model = cli.build()
    if input_key is None and isinstance(getattr(data, "input_shape", None), tuple | list):
        return summarize_model(cli.config.name, data, model)
    example = example_batch(cli, data, model)
    traced = _trace_example(model, *example.forward_arguments(input_key))
    return _summary(cli.config.name, data, model, traced)


def summarize_backbone(name: str) -> ModelSummary:
    """Summarize a published network with its published head, for images of the size that its weights expect.

    Args:
        name: See `modules.networks.find_network`.

    Raises:
        UserError: There is no such network.
    """
    try:
        architecture = find_network(name)
        network, size = architecture.build(), architecture.input_format.size
        traced = trace(network, (3, size, size))
    except (ValueError, RuntimeError) as error:
        raise UserError(f"--backbone {name}: {str(error).removeprefix(f'{name}: ')}") from error
    return _summary(name, None, network, traced)


def summarize_model(experiment: str, data: LightningDataModule | None, model: LightningModule) -> ModelSummary:
    """Trace a network on a blank example of the shape of the data.

    Args:
        experiment: Name for the summary.
        data: Has `input_shape`. Set up, if its files are there, to count the training examples.
        model: Left as it is.

    Raises:
        UserError: The data module has no input_shape, or the network does not take that shape.
    """
    shape = getattr(data, "input_shape", None)
    if shape is None:
        source = "without data there is" if data is None else f"{type(data).__name__} has"
        raise UserError(f"{source} no input_shape, the shape of one example")
    try:
        traced = trace(model, tuple(shape))
    except (RuntimeError, ValueError, IndexError) as error:
        raise UserError(f"{type(model).__name__} fails on an example of shape {tuple(shape)}: {error}") from error
    return _summary(experiment, data, model, traced)


def _trace_example(model: LightningModule, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Trace:
    """Trace the first example of a batch.

    Raises:
        UserError: The network does not take it.
    """
    first_args, first_kwargs = first_example(args), first_example(kwargs)
    try:
        if len(args) == 1 and not kwargs and isinstance(args[0], Tensor) and args[0].is_floating_point():
            return trace(model, tuple(args[0].shape[1:]))
        return trace_call(model, first_args, first_kwargs)
    except Exception as error:  # of the module
        described = ", ".join([*map(describe, args), *(f"{name}={describe(value)}" for name, value in kwargs.items())])
        raise UserError(
            f"{type(model).__name__}.forward fails on {described} ({kind_and_message(error)}); --input KEY names the "
            "part of a batch that it takes"
        ) from error


def _summary(experiment: str, data: LightningDataModule | None, model: nn.Module, traced: Trace) -> ModelSummary:
    train_examples, why_unknown = _count_examples(data)
    return ModelSummary(
        experiment,
        traced.layers,
        sum(parameter.numel() for parameter in model.parameters()),
        sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad),
        sum(layer.multiply_adds for layer in traced.layers),
        train_examples,
        [*traced.remarks, *why_unknown],
    )


def _count_examples(data: LightningDataModule | None) -> tuple[int | None, list[str]]:
    """Return the number of training examples, by the configuration or files that are there, or why it is unknown."""
    n_train = getattr(data, "n_train", None)
    if isinstance(n_train, int):
        return n_train, []
    if isinstance(data, ImageDataModule):
        data.normalize = identity(data.input_shape[0])  # or setup would fit it, for nothing
    if not isinstance(data, InMemoryDataModule):
        return None, []
    try:
        data.setup("fit")  # without prepare_data, which would download
    except (ValueError, OSError, RuntimeError) as error:
        return None, [f"number of training examples unknown: {error}"]
    return len(data.train_set), []


def _layer_as_json(layer: Layer) -> dict[str, Any]:
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
