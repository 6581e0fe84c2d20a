"""The layers of a network in the order of its definition, for learning rates that differ between them."""

from collections.abc import Iterator, Sequence

from torch import nn

CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


def layer_groups(network: nn.Module) -> list[list[nn.Parameter]]:
    """Return the parameters of each layer, from the input to the output.

    A layer is an entry of a Sequential or a ModuleList, or a module outside of these. One that only has vectors, such
    as a norm, belongs to the layer before it. Parameters that are in no layer, such as the position embedding of a
    transformer, belong to the first one.
    """
    groups: list[list[nn.Parameter]] = [[]]
    seen: set[int] = set()
    for block in _blocks(network):
        parameters = [parameter for parameter in block.parameters() if id(parameter) not in seen]
        seen.update(map(id, parameters))
        if _has_matrix(parameters) and _has_matrix(groups[-1]):
            groups.append(parameters)
        else:
            groups[-1] += parameters
    groups[0] += [parameter for parameter in network.parameters() if id(parameter) not in seen]
    return groups


def _has_matrix(parameters: Sequence[nn.Parameter]) -> bool:
    return any(parameter.ndim > 1 for parameter in parameters)


def _blocks(module: nn.Module) -> Iterator[nn.Module]:
    for child in module.children():
        holds_layers = type(module) not in CONTAINERS and any(type(part) in CONTAINERS for part in child.modules())
        if type(child) in CONTAINERS or holds_layers:
            yield from _blocks(child)
        else:
            yield child
