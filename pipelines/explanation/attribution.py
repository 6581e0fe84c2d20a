"""`litlab explain saliency` and `gradcam`: pixels, and positions in a convolution, that influence the class.

Both are gradients of the logit of the class, computed by captum.

Shapes: N images, C channels, H rows, W columns, K classes.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from pipelines.explanation.figures import draw_images
from pipelines.explanation.images import Images
from pipelines.explanation.results import Explanation
from pipelines.explanation.target import Target
from pipelines.runtime.errors import UserError


def saliency(target: Target, images: Images, *, of_class: str | None = None) -> Explanation:
    """Show the absolute gradient of the class's logit at each pixel, the largest of the channels.

    Args:
        target: The network.
        images: The images.
        of_class: Name or index; by default each image's true class, or the predicted class of a file.

    Raises:
        UserError: There is no such class.
    """
    title = ["saliency", images.description]

    def maps(classes_N: Tensor) -> Tensor:
        return saliency_maps(target.pixels_to_logits(), images.pixels_NCHW, classes_N)

    return _explanation(target, images, of_class, maps, "gradient of each pixel", title, {})


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
    used_layer = layer or _last_convolution(target)
    title = ["gradcam", *([layer] if layer else []), images.description]

    def maps(classes_N: Tensor) -> Tensor:
        return gradcam_maps(target, used_layer, images.pixels_NCHW, classes_N)

    return _explanation(target, images, of_class, maps, f"Grad-CAM at {used_layer}", title, {"layer": layer})


def saliency_maps(network: nn.Module, pixels_NCHW: Tensor, classes_N: Tensor) -> Tensor:
    """Return the largest absolute gradient of the class's logit over the channels, shape (N, H, W), on the CPU.

    `network` maps pixels in [0, 1] to logits.
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


def _last_convolution(target: Target) -> str:
    names = target.layers_of_kind("conv")
    if not names:
        raise UserError(f"{target.name} has no convolution, which Grad-CAM needs; use litlab explain saliency")
    return names[-1]


def _explanation(
    target: Target,
    images: Images,
    of_class: str | None,
    maps: Callable[[Tensor], Tensor],
    method: str,
    words: list[str],
    params: dict[str, Any],
) -> Explanation:
    """Draw the map of each image for its class, and return it with the position of the maximum."""
    with torch.no_grad():
        p_NK = target.probabilities(images.pixels_NCHW)
    classes_N = images.true_or_predicted(p_NK)
    if of_class is not None:
        classes_N = torch.full_like(classes_N, target.class_index(of_class))
        words = [*words, "class", of_class]
    rows, maps_NHW = [], maps(classes_N)
    for source, index, p_K, map_HW in zip(images.sources, classes_N.tolist(), p_NK, maps_NHW, strict=True):
        row = {"image": source, "class": target.classes[index], "probability": float(p_K[index])}
        rows.append(row | _map_statistics(map_HW))
    panels = []
    for pixels_CHW, row in zip(images.pixels_NCHW, rows, strict=True):
        title = f"{row['class']}\n{row['probability']:.2f}"
        panels += [(pixels_CHW, title), (pixels_CHW.mean(0, keepdim=True), "")]
    figure, axes = draw_images(panels)
    for axis, map_HW in zip(axes[1::2], maps_NHW, strict=True):
        axis.imshow(map_HW.numpy(), cmap="inferno", alpha=0.65, interpolation="nearest")
    params = {"of_class": of_class, **params, **images.selection.params()}
    return Explanation(target, " ".join(words), figure, {"how": method, "images": rows}, params)


def _map_statistics(map_HW: Tensor) -> dict[str, float]:
    """Return the position of the maximum, and the share of the map's sum in the highest tenth of its pixels."""
    row, column = divmod(int(map_HW.argmax()), map_HW.shape[1])
    ordered = map_HW.flatten().sort(descending=True).values
    total = float(ordered.sum())
    share = float(ordered[: max(1, len(ordered) // 10)].sum()) / total if total else 0.0
    return {"row": row, "column": column, "in_top_tenth": share}
