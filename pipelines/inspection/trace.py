"""Trace a blank example through a network: each layer in the order of the calls, its cost and its receptive field.

The network runs unchanged, and every torch function that it calls is observed. So layers, hand-written formulas and
control flow that depends on shapes are all followed; only a path that depends on values is not.
"""

from collections.abc import MutableMapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle
from torch.utils.weak import WeakTensorKeyDictionary

from pipelines.inspection.ops import COSTS, OpCall, SlidingWindow, multiply_adds, tensors
from pipelines.inspection.receptive_field import POINTWISE, RULES, field_size, input_reach, propagate

_FACTS = """data_ptr device dim dtype element_size get_device grad grad_fn hash is_complex is_contiguous is_cuda
is_floating_point is_leaf is_meta is_nested is_sparse layout len ndim ndimension nelement numel requires_grad shape
size storage_offset stride"""
"""Attributes of a tensor that do not depend on its values."""


@dataclass(frozen=True)
class Layer:
    """One call of a layer, or of a function outside of layers.

    Attributes:
        name: Qualified; for a function, its parameters, or else the module that calls it.
        type: Class of the layer, or name of the function.
        output: Shape, without the batch.
        window: Of the only convolution or pooling in it; None if there is not exactly one.
        parameters: Number of those that no earlier row has counted.
        multiply_adds: Per example.
        receptive_field: The largest of its outputs, in input positions per spatial axis; None if unknown.
        note: Such as "shared".
        reach: See `receptive_field.py`.
    """

    name: str
    type: str
    output: tuple[int, ...]
    window: SlidingWindow | None
    parameters: int
    multiply_adds: int
    receptive_field: tuple[int, ...] | None
    note: str = ""
    reach: Tensor | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True)
class Trace:
    """The layers of a network, and remarks on what is unknown about them."""

    layers: list[Layer]
    remarks: list[str]


def trace(model: nn.Module, input_shape: tuple[int, ...]) -> Trace:
    """Trace a blank example through a network in evaluation mode, and leave the network as it was.

    Args:
        model: Maps a batch of inputs to outputs.
        input_shape: Channels and spatial axes, or the length of a vector.

    Raises:
        RuntimeError: The network does not take inputs of that shape.
    """
    observer = _Observer(model, input_shape)
    modes = {module: module.training for module in model.modules()}
    dtype = next((value.dtype for value in model.parameters() if value.is_floating_point()), torch.float32)
    blank = torch.zeros(observer.batch, *input_shape, dtype=dtype)
    with ExitStack() as afterwards:
        afterwards.callback(_restore, modes)
        for handle in observer.watch(model.eval(), blank):
            afterwards.callback(handle.remove)
        with torch.no_grad(), observer:
            model(blank)
    layers = [*observer.layers, *observer.unused_parameters()]
    if len(input_shape) == 1 and not observer.slid:  # entries of a vector are positions only to a sliding window
        layers = [replace(layer, receptive_field=None) for layer in layers]
    return Trace(layers, observer.remarks())


def _restore(modes: dict[nn.Module, bool]) -> None:
    for module, training in modes.items():
        module.training = training


@dataclass
class _Running:
    """The layer that is being computed, and the cost and windows of what it has called."""

    module: nn.Module
    cost: int = 0
    windows: list[SlidingWindow] = field(default_factory=list)


class _Observer(TorchFunctionMode):
    """Observe each module and each torch function that a forward pass calls."""

    def __init__(self, model: nn.Module, input_shape: tuple[int, ...]) -> None:
        super().__init__()
        self.layers: list[Layer] = []
        self.slid = False
        self._input = input_reach(input_shape)
        self.batch, self._axes = len(self._input), len(self._input) // 2
        self._model = model
        self._names = {module: name for name, module in model.named_modules()}
        self._parameters = dict(model.named_parameters())
        # Of tensors that depend on the input, a reach, or None where it is unknown:
        self._reaches: MutableMapping[Tensor, Tensor | None] = WeakTensorKeyDictionary()
        # Of all others, the names of the parameters that they are computed from:
        self._sources: MutableMapping[Tensor, frozenset[str]] = WeakTensorKeyDictionary()
        for name, parameter in self._parameters.items():
            self._sources[parameter] = frozenset([name])
        self._counted: set[str] = set()  # parameters that a row has counted
        self._used: set[str] = set()
        self._lost = False  # no reach is known from here on
        self._unknown: dict[str, str] = {}  # functions, and what is unknown from them on
        self._running: _Running | None = None
        self._containers: list[str] = []  # running modules that are not layers

    def watch(self, model: nn.Module, blank: Tensor) -> list[RemovableHandle]:
        """Register `blank` as the input, and hook all modules."""
        self._reaches[blank] = self._input
        hooks = [module.register_forward_pre_hook(self._enter) for module in model.modules()]
        return hooks + [module.register_forward_hook(self._leave) for module in model.modules()]

    def _enter(self, module: nn.Module, args: Any) -> None:
        if self._running is None:
            if module is not self._model and _is_layer(module):
                self._running = _Running(module)
            else:
                self._containers.append(self._names[module])

    def _leave(self, module: nn.Module, args: Any, output: Any) -> None:
        if self._running is None:
            self._containers.pop()
        elif self._running.module is module:
            done, self._running = self._running, None
            names = [name for parameter in module.parameters() for name in self._sources[parameter]]
            windows = [window for window in done.windows if window.kernel] or done.windows
            window = windows[0] if len(windows) == 1 else None
            self._add(self._names[module], type(module).__name__, names, output, window, done.cost)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if inputs := tensors((args, kwargs)):
            reaches = {id(value): self._reaches[value] for value in inputs if value in self._reaches}
            known = {key: reach for key, reach in reaches.items() if reach is not None}
            call = OpCall(_name(func), func, args, kwargs or {}, result, known)
            self._observe(call, inputs, depends=bool(reaches), known=len(known) == len(reaches))
        return result

    def _observe(self, call: OpCall, inputs: list[Tensor], *, depends: bool, known: bool) -> None:
        """Record a call.

        Args:
            call: The call.
            inputs: All tensors among its arguments.
            depends: Whether one of them depends on the input.
            known: Whether the reaches of all that do are known.
        """
        parts: frozenset[str] = frozenset().union(*(self._sources.get(value, frozenset()) for value in inputs))
        self._used |= parts
        if depends and parts and call.name not in COSTS and call.name not in RULES:
            self._unknown.setdefault(call.name, "multiply-adds and receptive fields")
        outputs = tensors(call.result)
        if depends:
            self._follow(call, outputs, known)
        else:
            for value in outputs:
                self._sources[value] = parts
        cost = multiply_adds(call) * (1 if depends else self.batch)
        window = SlidingWindow.of(call)
        self.slid |= window is not None and bool(window.kernel)
        if self._running is not None:
            self._running.cost += cost
            self._running.windows += [window] if window else []
        elif outputs and (cost or (depends and (window or parts or call.name == "interpolate"))):
            name = ", ".join(sorted(parts)) or self._containers[-1] or "forward"
            self._add(name, call.name, list(parts), outputs, window, cost)

    def _follow(self, call: OpCall, outputs: list[Tensor], known: bool) -> None:
        """Record the reaches of the outputs of a call."""
        in_place = _is_in_place(call)
        if in_place and (call.name not in POINTWISE or not outputs or call.reach(outputs[0]) is None):
            self._lose(call.name, "receptive fields")
        elif not outputs and not in_place and call.name not in _FACTS.split():
            self._lose(call.name, "receptive fields, and the path that other values take,")
        if not known or self._lost:
            reaches: list[Tensor | None] = [None] * len(outputs)
        else:
            reaches = propagate(call)
            if any(reach is None for reach in reaches):
                self._unknown.setdefault(call.name, "receptive fields")
        for value, reach in zip(outputs, reaches, strict=True):
            self._set_reach(value, reach)

    def _set_reach(self, value: Tensor, reach: Tensor | None) -> None:
        before = self._reaches.get(value)
        if before is not None and (reach is None or not torch.equal(before, reach)):  # changed in place
            storage = value.untyped_storage().data_ptr()
            for other in list(self._reaches):
                if other.untyped_storage().data_ptr() == storage:
                    self._reaches[other] = None
        self._reaches[value] = reach

    def _lose(self, function: str, what: str) -> None:
        self._lost = True
        self._unknown[function] = what

    def _add(
        self, name: str, kind: str, parameters: list[str], output: Any, window: SlidingWindow | None, cost: int
    ) -> None:
        """Add a row for a call, with the names of its parameters and its cost for the batch."""
        value = (tensors(output) or [torch.empty(0)])[0]
        reach = self._reaches.get(value)
        size = None if reach is None else field_size(reach, self._axes)
        if size is None and value in self._reaches and not self._unknown:
            self._unknown[name] = "receptive fields"  # examples are mixed, or memory is shared
        new = set(parameters) - self._counted
        self._counted |= new
        row = Layer(
            name,
            kind,
            tuple(value.shape[1:]),
            window,
            sum(self._parameters[part].numel() for part in new),
            cost // self.batch,
            size,
            "shared" if parameters and not new else "",
            reach,
        )
        self.layers.append(row)

    def unused_parameters(self) -> list[Layer]:
        """Return rows for parameters that no layer has."""
        return [
            Layer(
                name,
                "Parameter",
                tuple(value.shape),
                None,
                value.numel(),
                0,
                None,
                "" if name in self._used else "not used by forward",
            )
            for name, value in self._parameters.items()
            if name not in self._counted
        ]

    def remarks(self) -> list[str]:
        return [f"{what} are unknown from {function} on" for function, what in self._unknown.items()]


def _is_layer(module: nn.Module) -> bool:
    """Return whether a module has no submodules, or does not call them."""
    return not list(module.children()) or isinstance(module, nn.MultiheadAttention)


def _is_in_place(call: OpCall) -> bool:
    """Return whether a call works in place: relu_ and x[i] = y do, add and __add__ do not."""
    name = str(getattr(call.func, "__name__", ""))
    return name == "__setitem__" or (name.endswith("_") and not name.endswith("__")) or "out" in call.kwargs


def _name(func: Any) -> str:
    """Return the name without underscores; for a getter, such as that of Tensor.shape, the name of the attribute."""
    name = str(getattr(func, "__name__", ""))
    return str(func.__self__.__name__) if name == "__get__" else name.strip("_")
