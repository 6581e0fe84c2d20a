"""Find a published network by name: of torchvision, of timm, or by class path."""

from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from modules.architecture import Architecture
from modules.imported_networks import ImportedNetwork
from modules.timm_networks import PREFIX, TimmNetwork, is_timm_name, timm_names
from modules.torchvision_networks import TorchvisionNetwork, torchvision_names


def find_network(name: str, arguments: dict[str, Any] | None = None, file: Path | None = None) -> Architecture:
    """Find a network.

    Args:
        name: A name of torchvision (resnet18); else of timm (mobilenetv3_small_050, resnet18.a1_in1k), where the prefix
            "timm/" excludes torchvision's; else the class path of a class or a function that returns a network.
        arguments: Arguments of the function that builds it.
        file: The weights that it will have; None for the published ones.

    Raises:
        ValueError: There is no such network.
    """
    arguments = arguments or {}
    if name in torchvision_names():
        return TorchvisionNetwork(name, arguments, file)
    if is_timm_name(name):
        return TimmNetwork(name, arguments)
    if "." in name and not name.startswith(PREFIX):
        return ImportedNetwork(name, arguments)
    raise ValueError(f"model.name is {name}: no such network{_hint(name)}")


def _hint(name: str) -> str:
    close = get_close_matches(name.removeprefix(PREFIX), sorted({*torchvision_names(), *timm_names()}), n=3)
    meant = f"; did you mean {' or '.join(close)}?" if close else f"; torchvision has {', '.join(torchvision_names())}"
    missing = "" if find_spec("timm") else "; timm's networks need pip install 'litlab[timm]'"
    return f"{meant}{missing}"
