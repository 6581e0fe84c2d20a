"""Published networks, with weights that are on this machine. Nothing is downloaded."""

from pathlib import Path

from torch import nn

from modules.architecture import Architecture, State, load_into
from modules.imported_networks import ImportedNetwork
from modules.networks import find_network
from pipelines.runtime.errors import UserError


def load_classifier(name: str, file: Path | None) -> tuple[nn.Module, nn.Module, tuple[int, int, int], tuple[str, ...]]:
    """Load a published classifier.

    Args:
        name: A name of torchvision or timm, such as alexnet, or the class path of a function that returns a network.
        file: The weights; None searches the folders where torchvision and timm keep what they have downloaded. A
            function has its own.

    Returns:
        The network, the normalisation of pixels in [0, 1], the shape of an image, and the names of the classes.

    Raises:
        UserError: There is no such classifier, or its weights are missing or do not fit.
    """
    from torchvision import transforms

    try:
        architecture = find_network(name, None, file)
        network = architecture.build()
        state, source = _weights(architecture, file)
        load_into(network, state, but=[], name=name, source=source)
    except (ValueError, OSError) as error:
        raise UserError(f"--backbone {name}: {str(error).removeprefix(f'{name}: ')}") from error
    expected = architecture.input_format
    normalize = transforms.Normalize(expected.mean, expected.std)
    return network, normalize, (3, expected.size, expected.size), _classes(architecture, network)


def _weights(architecture: Architecture, file: Path | None) -> tuple[State, str]:
    """Return weights, and where they come from."""
    if path := file or architecture.cached():
        return architecture.read(path), str(path)
    if isinstance(architecture, ImportedNetwork):
        return architecture.download(), architecture.source
    raise ValueError(f"no weights on this machine. Download them from {architecture.source}, and give --weights FILE")


def _classes(architecture: Architecture, network: nn.Module) -> tuple[str, ...]:
    """Return the names of the classes, or their numbers if there is another number of them."""
    head = network.get_submodule(architecture.heads(network)[0])
    count = head.out_channels if isinstance(head, nn.Conv2d) else head.out_features
    assert isinstance(count, int)
    names = architecture.categories
    return names if len(names) == count else tuple(map(str, range(count)))
