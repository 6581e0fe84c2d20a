"""Observe what a network calls in a forward pass: its layers, and the functions that it calls outside of layers.

The network runs unchanged. So layers, hand-written formulas and control flow that depends on shapes are all followed;
only a path that depends on values is not.
"""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from modules.torch_internals import BILINEAR, LSTM_ON_CPU
from pipelines.inspection.receptive_field import Reach
from pipelines.inspection.windows import SlidingWindow

Shape = Sequence[int]
READS_VALUES = ("allclose", "bool", "equal", "float", "index", "int", "is_nonzero", "item", "numpy", "tolist")
"""Functions that return values of a tensor as something other than a tensor."""


@dataclass(frozen=True)
class Layer:
    """One call of a layer, or of a function outside of layers.

    Attributes:
        name: Qualified; for a function, its parameters, or else the module that calls it.
        type: Class of the layer, or name of the function.
        output: Shape, without the batch.
        window: Of the only convolution or pooling in it; None if there is not exactly one.
        parameters: Number of those that no earlier row has counted.
        multiply_adds: Of convolutions, matrix products and attention.
        note: Such as "shared".
        receptive_field: The largest of its outputs, in input positions per spatial axis; None if unknown.
        reach: Of each of its outputs; None if unknown.
    """

    name: str
    type: str
    output: tuple[int, ...]
    window: SlidingWindow | None
    parameters: int
    multiply_adds: int
    note: str
    receptive_field: tuple[int, ...] | None = None
    reach: Reach | None = field(default=None, repr=False, compare=False)


class _Stop(Exception):  # noqa: N818 (not an error)
    """The rest of the forward pass is not needed."""


class Observer(TorchFunctionMode):
    """Observe one forward pass of a network, which is left as it was.

    Args:
        model: In evaluation mode.
        tensors: Replace the parameters and buffers of these names.
        limit: Stop after so many calls, or at a function that does not pass NaN on.

    Attributes:
        layers: In the order in which the calls end, then the parameters that none of them uses.
        nan: Where the output of each call is NaN.
        lost: The first function, if any, that does not pass NaN on, or reads values.
        known: Number of calls before that function.
    """

    def __init__(self, model: nn.Module, tensors: Mapping[str, Tensor], limit: int | None = None) -> None:
        super().__init__()
        self.layers: list[Layer] = []
        self.nan: list[Tensor] = []
        self.lost, self.known = "", 0
        self._model, self._tensors, self._limit = model, dict(tensors), limit
        self._flops = FlopCounterMode(display=False, custom_mapping=_MORE_FLOPS)
        self._names = {module: name for name, module in model.named_modules()}
        self._uncounted = dict(model.named_parameters())  # that no layer has counted
        self._used: set[str] = set()
        # What does not depend on the input, by id, and the parameters in it. Tensors are held, so that ids stay unique.
        self._constants = {id(value): (value, {name} & self._uncounted.keys()) for name, value in tensors.items()}
        self._containers: list[str] = []  # running modules that are not layers
        self._layer: nn.Module | None = None  # the running layer; the counter before it, and the windows in it:
        self._before, self._windows = 0, list[SlidingWindow]()
        self._paused = False

    def run(self, *args: Any, **kwargs: Any) -> None:
        """Run the network on the arguments of its forward pass."""
        with ExitStack() as stack:
            for module in self._names:
                stack.callback(module.register_forward_pre_hook(self._enter).remove)
                stack.callback(module.register_forward_hook(self._leave).remove)
            attention = sdpa_kernel(SDPBackend.MATH)  # others stop NaN
            for context in (suppress(_Stop), torch.no_grad(), attention, self._flops, self):
                stack.enter_context(context)
            torch.func.functional_call(self._model, self._tensors, args, kwargs)
        for name, value in self._uncounted.items():
            note = "" if name in self._used else "not used by forward"
            self.layers.append(Layer(name, "Parameter", tuple(value.shape), None, value.numel(), 0, note))

    def _enter(self, module: nn.Module, args: Any) -> None:
        if self._layer is not None:
            return
        if module is self._model or not _is_layer(module):
            self._containers.append(self._names[module])
        else:
            self._layer, self._before, self._windows = module, self._flops.get_total_flops(), []

    def _leave(self, module: nn.Module, args: Any, output: Any) -> None:
        if self._layer is None:
            self._containers.pop()
        elif self._layer is module:
            windows = [window for window in self._windows if window.kernel] or self._windows
            parameters = self._parameters_of(list(module.parameters()))
            self._layer, self._paused = None, True
            self._add(self._names[module], type(module).__name__, windows, parameters, self._before, tensors(output))
            self._paused = False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        before, name, kwargs = self._flops.get_total_flops(), _name(func), kwargs or {}
        try:
            result = func(*args, **kwargs)
        except (RuntimeError, ValueError):  # for example, a constant of the network is float32
            self._lose(name)
            raise
        if not self._paused:
            inputs, outputs = tensors((args, kwargs)), tensors(result)
            parameters = self._parameters_of(inputs)
            dependent = [value for value in inputs if id(value) not in self._constants]
            self._follow(name, parameters, dependent, outputs)
            window = SlidingWindow.of(name, args, kwargs)
            windows = [window] if window else []
            costs = self._flops.get_total_flops() > before
            if self._layer is not None:
                self._windows += windows
            elif outputs and (costs or (dependent and (windows or parameters or name == "interpolate"))):
                title = ", ".join(sorted(parameters)) or self._containers[-1] or "forward"
                self._add(title, name, windows, parameters, before, outputs)
        return result

    def _follow(self, function: str, parameters: set[str], dependent: list[Tensor], outputs: list[Tensor]) -> None:
        """Record which tensors depend on the input, and whether NaN shows it."""
        self._used |= parameters
        for value in outputs:
            if dependent:
                self._constants.pop(id(value), None)
            else:
                self._constants[id(value)] = value, parameters
        reads = bool(dependent) and not outputs and function in READS_VALUES
        if reads or (not all(map(_has_nan, outputs)) and any(map(_has_nan, dependent))):
            self._lose(function)

    def _lose(self, function: str) -> None:
        self.lost = self.lost or function
        if self._limit is not None:
            raise _Stop

    def _add(
        self,
        name: str,
        kind: str,
        windows: list[SlidingWindow],
        parameters: set[str],
        before: int,
        outputs: list[Tensor],
    ) -> None:
        value = outputs[0] if outputs else torch.empty(0)
        new = [self._uncounted.pop(name) for name in parameters & self._uncounted.keys()]
        count, note = sum(map(torch.numel, new)), "shared" if parameters and not new else ""
        window, cost = windows[0] if len(windows) == 1 else None, (self._flops.get_total_flops() - before) // 2
        self.layers.append(Layer(name, kind, tuple(value.shape[1:]), window, count, cost, note))
        self.nan.append(value.isnan())
        self.known += not self.lost
        if len(self.layers) == self._limit:
            raise _Stop

    def _parameters_of(self, values: list[Tensor]) -> set[str]:
        return set().union(*(self._constants[id(value)][1] for value in values if id(value) in self._constants))


def tensors(values: Any) -> list[Tensor]:
    """Return the tensors in nested lists, tuples and dicts."""
    if isinstance(values, Tensor):
        return [values]
    items = values.values() if isinstance(values, Mapping) else values if isinstance(values, list | tuple) else ()
    return [value for item in items for value in tensors(item)]


def _has_nan(value: Tensor) -> bool:
    return bool(value.sum().isnan())


def _is_layer(module: nn.Module) -> bool:
    """Return whether a module has no submodules, or does not call them."""
    return not list(module.children()) or isinstance(module, nn.MultiheadAttention)


def _name(func: Any) -> str:
    """Return the name without underscores; for a getter, such as that of Tensor.shape, the name of the attribute."""
    name = str(getattr(func, "__name__", ""))
    return str(func.__self__.__name__) if name == "__get__" else name.strip("_")


def _row_products(_first: Shape, second: Shape, *_rest: Any, out_shape: Shape, **_options: Any) -> int:
    """Return the operations of a matrix or vector by a vector, or of a bilinear form, by the shapes."""
    return 2 * prod(out_shape) * prod(second if len(second) == 1 else second[1:])


def _lstm(inputs: Shape, of_inputs: Shape, of_state: Shape, *_rest: Any, **_options: Any) -> int:
    """Return the operations of the products with both weights in each step, by the shapes."""
    return 2 * prod(inputs[:-1]) * (prod(of_inputs) + prod(of_state))


_MORE_FLOPS = {
    LSTM_ON_CPU: _lstm,
    **dict.fromkeys([torch.ops.aten.mv, torch.ops.aten.dot, BILINEAR], _row_products),
}
