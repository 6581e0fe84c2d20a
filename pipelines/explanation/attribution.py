"""`litlab explain saliency` and `gradcam`: pixels, and positions in a convolution, that influence the class.

Both are gradients of the logit of the class, computed by captum.

Shapes: N images, C channels, H rows, W columns, K classes.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from pipelines.explanation.figures import draw_image, panel_grid
from pipelines.explanation.images import Images
from pipelines.explanation.results import Explanation
from pipelines.explanation.target import Target
from pipelines.runtime.errors import UserError

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def saliency(target: Target, images: Images, *, of_class: str | None = None) -> Explanation:
    """Show the absolute gradient of the class's logit at each pixel, the largest of the channels.

    Args:
        target: The network.
        images: The images.
        of_class: Name or index; by default each image's true class, or the predicted class of a file.

    Raises:
        UserError: There is no such class.
    """
    p_NK, classes_N = _classes(target, images, of_class)
    maps_NHW = saliency_maps(target.pixels_to_logits(), images.pixels_NCHW, classes_N)
    title = ["saliency", images.description]
    params = {"of_class": of_class, **images.selection.params()}
    return _explanation(target, images, maps_NHW, p_NK, classes_N, "gradient of each pixel", title, params)


def gradcam(target: Target, images: Images, *, layer: str | None = None, of_class: str | None = None) -> Explanation:
    """Show where a convolution supports the class: Grad-CAM, enlarged to the image.

    Args:
        target: The network.
        images: The images.
        layer: By default the last convolution.
        of_class: Name or index; by default each image's true class, or the predicted class of a file.

    Raises:
        UserError: There is no such class or layer, or the layer's output has no rows and columns.
    """
    p_NK, classes_N = _classes(target, images, of_class)
    used_layer = layer or _last_convolution(target)
    maps_NHW = gradcam_maps(target, used_layer, images.pixels_NCHW, classes_N)
    title = ["gradcam", *([layer] if layer else []), images.description]
    params = {"of_class": of_class, "layer": layer, **images.selection.params()}
    return _explanation(target, images, maps_NHW, p_NK, classes_N, f"Grad-CAM at {used_layer}", title, params)


def saliency_maps(network: nn.Module, pixels_NCHW: Tensor, classes_N: Tensor) -> Tensor:
    """Return the largest absolute gradient of the class's logit over the channels, shape (N, H, W), on the CPU.

    Args:
        network: Maps pixels in [0, 1] to logits.
        pixels_NCHW: The images.
        classes_N: The class of each.
    """
    from captum.attr import Saliency

    gradients_NCHW = Saliency(network).attribute(pixels_NCHW.clone().requires_grad_(), target=classes_N, abs=True)
    largest_NHW: Tensor = gradients_NCHW.detach().amax(1).cpu()
    return largest_NHW


def gradcam_maps(target: Target, layer: str, pixels_NCHW: Tensor, classes_N: Tensor) -> Tensor:
    """Return Grad-CAM of the class's logit at a layer, enlarged to the image; shape (N, H, W), on the CPU.

    Raises:
        UserError: The layer does not exist, or its output has no rows and columns.
    """
    from captum.attr import LayerAttribution, LayerGradCam

    module = target.layer(layer)
    with torch.no_grad():
        shape = tuple(target.activations(layer, pixels_NCHW[:1]).shape)
    if len(shape) != 4:
        raise UserError(f"--layer {layer}: its output of shape {shape[1:]} has no rows and columns")
    maps = LayerGradCam(target.pixels_to_logits(), module).attribute(
        pixels_NCHW.clone().requires_grad_(), target=classes_N, relu_attributions=True
    )
    size = tuple(pixels_NCHW.shape[2:])
    enlarged_NHW: Tensor = LayerAttribution.interpolate(maps, size, "bilinear").detach()[:, 0].cpu()
    return enlarged_NHW


def _classes(target: Target, images: Images, of_class: str | None) -> tuple[Tensor, Tensor]:
    """Return probabilities of shape (N, K), and the class to explain of each image."""
    with torch.no_grad():
        p_NK = target.probabilities(images.pixels_NCHW)
    classes_N = images.true_or_predicted(p_NK)
    if of_class is not None:
        classes_N = torch.full_like(classes_N, target.class_index(of_class))
    return p_NK, classes_N


def _last_convolution(target: Target) -> str:
    names = target.layers_of_kind("conv")
    if not names:
        raise UserError(f"{target.name} has no convolution, which Grad-CAM needs; use litlab explain saliency")
    return names[-1]


def _explanation(
    target: Target,
    images: Images,
    maps_NHW: Tensor,
    p_NK: Tensor,
    classes_N: Tensor,
    method: str,
    title: Sequence[str],
    params: dict[str, Any],
) -> Explanation:
    """Draw the maps, and describe them."""
    names = [target.classes[index] for index in classes_N.tolist()]
    p_N = p_NK.gather(1, classes_N[:, None])[:, 0].tolist()
    rows = [
        {"image": source, "class": name, "probability": p, **_map_statistics(map_HW)}
        for source, name, p, map_HW in zip(images.sources, names, p_N, maps_NHW, strict=True)
    ]
    caption = (
        f"{method[0].upper()}{method[1:]}, for the logit of the class named above each image, of {target.name}. Left "
        f"the image, right the map over it: bright is high, each map has its own scale. The highest tenth of the "
        f"pixels holds {sum(row['in_top_tenth'] for row in rows) / len(rows):.0%} of a map's sum, on average."
    )
    of_class = params["of_class"]
    words = [*title, *([] if of_class is None else ["class", of_class])]
    figure = _draw(images.pixels_NCHW, maps_NHW, [f"{name}\n{p:.2f}" for name, p in zip(names, p_N, strict=True)])
    return Explanation(target, " ".join(words), figure, {"how": method, "images": rows}, caption, params)


def _map_statistics(map_HW: Tensor) -> dict[str, float]:
    """Return the position of the maximum, and the share of the map's sum in the highest tenth of its pixels."""
    row, column = divmod(int(map_HW.argmax()), map_HW.shape[1])
    ordered = map_HW.flatten().sort(descending=True).values
    total = float(ordered.sum())
    share = float(ordered[: max(1, len(ordered) // 10)].sum()) / total if total else 0.0
    return {"row": row, "column": column, "in_top_tenth": share}


def _draw(pixels_NCHW: Tensor, maps_NHW: Tensor, titles: Sequence[str]) -> "Figure":
    figure, axes = panel_grid(2 * len(titles), min(10, 2 * len(titles)))
    for n, title in enumerate(titles):
        left, right = axes[2 * n : 2 * n + 2]
        draw_image(left, pixels_NCHW[n], title)
        draw_image(right, pixels_NCHW[n].mean(0, keepdim=True))
        right.imshow(maps_NHW[n].numpy(), cmap="inferno", alpha=0.65, interpolation="nearest")
    return figure
