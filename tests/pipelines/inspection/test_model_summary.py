"""Costs and receptive fields of networks: against torch's own counter, and against the gradient."""

import copy

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from pipelines.config.cli import parse_config
from pipelines.inspection.trace import trace
from tests.experiments import each_experiment

NARROW = {"cifar-resnet9": ["--model.width", "4"]}  # the width does not change receptive fields
SEEN: set[str] = set()  # networks that were compared with their gradient: many experiments share one
PUBLISHED = {"deep-mnist": 3_274_634, "one-conv": 63_250, "small-deep-mnist": 1_327_076, "cifar-base": 1_191_170}
WITH_DATA = each_experiment("backbone")  # which needs the user's images


def build(name, *options):
    data, model = parse_config("inspect", [name, *options]).build()
    return model, tuple(data.input_shape)


# Costs


def assert_costs_agree(model, shape):
    layers = trace(model, shape, only="none").layers
    assert sum(layer.parameters for layer in layers) == sum(value.numel() for value in model.parameters())
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.eval()(torch.zeros(1, *shape))
    assert sum(layer.multiply_adds for layer in layers) == counter.get_total_flops() / 2


@pytest.mark.parametrize("name", WITH_DATA)
def test_parameters_and_multiply_adds_are_those_that_torch_counts(name):
    assert_costs_agree(*build(name))


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_are_those_of_the_literature(name):
    model, shape = build(name)
    assert sum(layer.parameters for layer in trace(model, shape, only="none").layers) == PUBLISHED[name]


# Receptive fields


def linearised(model):
    """A copy with the same windows whose gradient is positive wherever an output depends on an input."""
    twin = copy.deepcopy(model).double().eval()
    for parent in twin.modules():
        for name, layer in list(parent.named_children()):
            kind = type(layer).__name__
            if isinstance(layer, nn.ReLU | nn.LeakyReLU | nn.Tanh | nn.Sigmoid | nn.Dropout):
                setattr(parent, name, nn.Identity())
            elif kind.startswith("MaxPool"):
                arguments = layer.kernel_size, layer.stride, layer.padding, layer.ceil_mode
                setattr(parent, name, getattr(nn, kind.replace("Max", "Avg"))(*arguments))
            elif kind.startswith("AdaptiveMax"):
                setattr(parent, name, getattr(nn, kind.replace("Max", "Avg"))(layer.output_size))
    for value in twin.parameters():
        nn.init.uniform_(value, 0.5, 1.5)
    return twin


def outputs_of_layers(model, inputs):
    """Names and outputs of the calls of layers, in order; of a network without layers, its output."""
    names = {layer: name for name, layer in model.named_modules() if name and not list(layer.children())}
    found = []
    for layer in names:
        layer.register_forward_hook(lambda layer, args, output: found.append((names[layer], output)))
    result = model(inputs)
    return found or [("", result)]


def support(gradient):
    """First and last position on each spatial axis where it is not zero, shape (axes, 2)."""
    where = (gradient if gradient.ndim == 1 else gradient.abs().amax(0)).nonzero()
    return torch.stack([where.amin(0), where.amax(0)], 1) if len(where) else torch.tensor([0, -1])


def interval(layer, place):
    """The receptive field of all channels of an output position, shape (axes, 2)."""
    first, last = (positions(bound, len(layer.output))[..., place] for bound in (layer.reach.first, layer.reach.last))
    ends = torch.stack([first.amin(1), last.amax(1)], 1)
    return ends.long() if ends.isfinite().all() else torch.tensor([0, -1])


def positions(values, dimensions):
    """Channels and the first, middle and last position, of outputs (N, C, ...) or (N, features)."""
    flat = values.flatten(2) if dimensions > 1 else values[..., None]
    return flat[..., [0, flat.shape[-1] // 2, -1]]


def assert_fields_agree_with_the_gradient(model, shape):
    """For three output positions of each layer, each with an example of its own, so that one backward pass does."""
    rows = trace(model, shape).layers
    rows = [row for row in rows if row.name in dict(model.named_modules())] or rows[-1:]
    inputs = torch.zeros(3 * len(rows), *shape, dtype=torch.float64, requires_grad=True)
    outputs = outputs_of_layers(linearised(model), inputs)
    assert [row.name for row in rows] == [name or rows[-1].name for name, _ in outputs]
    cells = [positions(value, value.ndim - 1).sum(1).view(-1, 3, 3)[i] for i, (_, value) in enumerate(outputs)]
    (gradients,) = torch.autograd.grad(torch.cat([cell.diagonal() for cell in cells]).sum(), inputs)
    for row, of_row in zip(rows, gradients.unflatten(0, (-1, 3)), strict=True):
        for place in range(3):
            assert torch.equal(support(of_row[place]), interval(row, place)), (row, place)


@pytest.mark.parametrize("name", WITH_DATA)
def test_receptive_fields_are_those_of_the_gradient(name):
    model, shape = build(name, *NARROW.get(name, []))
    if (alike := f"{linearised(model)} {shape}") not in SEEN:
        assert_fields_agree_with_the_gradient(model, shape)
        SEEN.add(alike)


class Halves(nn.Module):
    """The upper and the lower half are read by one layer."""

    def __init__(self):
        super().__init__()
        self.trunk = nn.Sequential(nn.Conv2d(1, 2, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2))
        self.read, self.top = nn.Linear(2 * 4 * 4, 3), nn.Linear(6, 2)

    def forward(self, x):
        halves = self.trunk(x).chunk(2, dim=2)
        return self.top(torch.cat([self.read(half.flatten(1)) for half in halves], 1))


class Residual(nn.Module):
    """A sum of two paths, in place, and joined channels."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(2, 2, 3, padding=1), nn.Conv2d(2, 2, (1, 5), padding=(0, 2))
        self.last = nn.Conv2d(4, 1, 3, stride=2)

    def forward(self, x):
        y = self.first(x) * 2
        y += x
        return self.last(torch.cat([self.second(y), x], 1))


class Windows(nn.Module):
    """Three networks slide over a vector."""

    def __init__(self):
        super().__init__()
        parts = [nn.Conv1d(1, 2, 2), nn.ReLU(), nn.MaxPool1d(2, padding=1), nn.Flatten(), nn.Linear(4, 1)]
        self.nets = nn.ModuleList(nn.Sequential(*copy.deepcopy(parts)) for _ in range(3))

    def forward(self, x):
        return torch.stack([net(x.unsqueeze(1))[:, 0] for net in self.nets], 1)


NETWORKS = {
    "strides and dilation": ((1, 13, 9), [nn.Conv2d(1, 2, 3, 2, 1), nn.Conv2d(2, 2, 3, padding=2, dilation=2)]),
    "the same size by dilation": ((1, 6, 6), [nn.Conv2d(1, 1, 3, padding="same", dilation=2)]),
    "zeros around": ((1, 6, 6), [nn.ZeroPad2d((0, 1, 2, 3)), nn.Conv2d(1, 2, 2)]),
    "mirrors around": ((1, 6, 6), [nn.Conv2d(1, 2, 3, padding=1, padding_mode="reflect")]),
    "pools": ((2, 9, 11), [nn.MaxPool2d(3, 2, 1, ceil_mode=True), nn.AvgPool2d((2, 1)), nn.AdaptiveAvgPool2d(2)]),
    "adaptive pooling of uneven parts": ((1, 7, 10), [nn.AdaptiveMaxPool2d((3, 4)), nn.Conv2d(1, 1, 2)]),
    "transposed": ((1, 5, 5), [nn.ConvTranspose2d(1, 2, 3, 2, 1, 1), nn.ConvTranspose2d(2, 1, 2, 3, dilation=2)]),
    "enlarged": ((1, 4, 4), [nn.MaxPool2d(2), nn.Upsample(scale_factor=3), nn.Conv2d(1, 1, 3, padding=1)]),
    "groups": ((4, 6, 6), [nn.Conv2d(4, 4, 3, groups=2), nn.BatchNorm2d(4), nn.Conv2d(4, 8, 3, groups=4)]),
    "through a code": ((1, 4, 4), [nn.Flatten(), nn.Linear(16, 8), nn.Unflatten(1, (2, 2, 2)), nn.Conv2d(2, 1, 1)]),
    "there and back": ((1, 4, 4), [nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Unflatten(1, (2, 2, 2)), nn.MaxPool2d(2)]),
    "a sequence": ((2, 12), [nn.Conv1d(2, 3, 3, padding="same"), nn.MaxPool1d(2), nn.Flatten(), nn.Linear(18, 1)]),
    "a volume": ((1, 4, 5, 6), [nn.Conv3d(1, 2, (1, 2, 3)), nn.MaxPool3d(2)]),
    "halves": ((1, 16, 8), [Halves()]),
    "residual": ((2, 9, 9), [Residual()]),
    "windows on a vector": ((4,), [Windows()]),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_costs_and_receptive_fields_of_all_kinds_of_networks_agree_with_torch(name):
    shape, layers = NETWORKS[name]
    model = nn.Sequential(*copy.deepcopy(layers))
    assert_costs_agree(model, shape)
    assert_fields_agree_with_the_gradient(model, shape)


@pytest.mark.parametrize(("kernels", "side"), [([7], 7), ([3, 3, 3], 7), ([5, 3], 7), ([3, 3, 3, 3], 9)])
def test_a_chain_of_kernels_sees_one_pixel_and_what_each_kernel_adds(kernels, side):
    model = nn.Sequential(*(nn.Conv2d(1, 1, kernel, padding="same") for kernel in kernels))
    assert trace(model, (1, 28, 28)).layers[-1].receptive_field == (side, side)


def test_the_second_convolution_of_the_cifar_network_sees_14x14():
    layers = [layer for layer in trace(*build("cifar-base")).layers if layer.type == "Conv2d"]
    assert layers[1].receptive_field == (14, 14)


def test_no_layer_sees_more_than_the_image():
    model = nn.Sequential(nn.Conv2d(1, 1, 9, padding=8), nn.ConvTranspose2d(1, 1, 9))
    assert [layer.receptive_field for layer in trace(model, (1, 5, 6)).layers] == [(5, 6), (5, 6)]
