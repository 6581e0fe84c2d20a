"""`litlab explain filters` and `activations`: the weights of a convolution, and its output for an image.

Shapes: N images or filters, C channels, H rows, W columns.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from pipelines.explanation.figures import draw_images
from pipelines.explanation.images import Images, file_name
from pipelines.explanation.results import Explanation
from pipelines.explanation.target import Target
from pipelines.runtime.errors import UserError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_PLANES = 16
MAX_CHANNELS = 64


def filters(target: Target, *, layer: str = "conv1") -> Explanation:
    """Show the weights of a convolution: as images if it has the input's channels, otherwise each plane.

    Args:
        target: The network.
        layer: The convolution.

    Raises:
        UserError: There is no such layer, or it is not a convolution.
    """
    module = target.layer(layer)
    if not isinstance(module, nn.Conv2d):
        raise UserError(f"--layer {layer}: a {type(module).__name__} has no filters; name a convolution, such as conv1")
    weights_NCHW = module.weight.detach().cpu()
    channels = weights_NCHW.shape[1]
    panels, columns = _panels(weights_NCHW, as_images=channels == target.input_shape[0] and channels in (1, 3))
    figure, _ = draw_images([(panel_CHW, "") for panel_CHW in panels], columns, size=0.9)
    norms_N = weights_NCHW.flatten(1).norm(dim=1)
    numbers = {"layer": layer, "shape": list(weights_NCHW.shape), "norms": norms_N.tolist()}
    return Explanation(target, f"filters {layer}", figure, numbers, {"layer": layer})


def _panels(weights_NCHW: Tensor, *, as_images: bool) -> tuple[list[Tensor], int]:
    """Return panels of shape (C, H, W) with pixels in [0, 1], and the number of panels in a row."""
    largest_N = weights_NCHW.abs().amax((1, 2, 3), keepdim=True).clamp(min=1e-12)
    scaled_NCHW = weights_NCHW / largest_N / 2 + 0.5
    if as_images:
        return list(scaled_NCHW), 16
    planes = scaled_NCHW[:MAX_PLANES, :MAX_PLANES]
    return list(planes.flatten(0, 1)[:, None]), planes.shape[1]


def activations(target: Target, images: Images, *, layers: Sequence[str] = ()) -> Iterator[Explanation]:
    """Show the output of each channel of convolutions. Yield one explanation per image.

    Args:
        target: The network.
        images: The images.
        layers: All convolutions by default.

    Raises:
        UserError: There is no such layer, no convolution, or the output has no rows and columns.
    """
    names = layers or target.layers_of_kind("conv")
    if not names:
        raise UserError(f"{target.name} has no convolution: name a layer whose output has rows and columns (--layer)")
    params = {"layer": list(layers), **images.selection.params()}
    for pixels_CHW, source in zip(images.pixels_NCHW, images.sources, strict=True):
        outputs = {name: _maps(target, name, pixels_CHW[None]) for name in names}
        statistics = {name: _map_statistics(maps_CHW) for name, maps_CHW in outputs.items()}
        title = " ".join(["activations image", file_name(source), *layers])
        yield Explanation(target, title, _draw(pixels_CHW, outputs), {"image": source, "layers": statistics}, params)


def _maps(target: Target, name: str, pixels_1CHW: Tensor) -> Tensor:
    """Return the output of a layer for one image, shape (C, H, W), on the CPU."""
    with torch.no_grad():
        maps = target.activations(name, pixels_1CHW)[0].cpu()
    if maps.ndim != 3:
        raise UserError(f"--layer {name}: its output of shape {tuple(maps.shape)} has no rows and columns")
    return maps


def _map_statistics(maps_CHW: Tensor) -> dict[str, Any]:
    return {
        "channels": len(maps_CHW),
        "size": list(maps_CHW.shape[1:]),
        "min": float(maps_CHW.min()),
        "mean": float(maps_CHW.mean()),
        "max": float(maps_CHW.max()),
        "positive_share": float((maps_CHW > 0).float().mean()),
        "never_positive": int((maps_CHW.amax((1, 2)) <= 0).sum()),
    }


def _draw(pixels_CHW: Tensor, outputs: dict[str, Tensor]) -> "Figure":
    """Draw the image, and below it the channels of each layer."""
    columns = min(16, max(map(len, outputs.values())))
    panels: list[tuple[Tensor | None, str]] = [(pixels_CHW, "input"), *[(None, "")] * (columns - 1)]
    for name, maps_CHW in outputs.items():
        low, high = maps_CHW.min(), maps_CHW.max()
        scaled = [(map_HW[None] - low) / (high - low).clamp(min=1e-12) for map_HW in maps_CHW[:MAX_CHANNELS]]
        titles = [name, *[""] * (len(scaled) - 1)]
        panels += [*zip(scaled, titles, strict=True), *[(None, "")] * (-len(scaled) % columns)]
    return draw_images(panels, columns, size=1.0)[0]
