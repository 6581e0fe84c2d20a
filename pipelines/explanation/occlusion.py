"""`litlab explain occlusion`: the probability of the class while a block of the image is hidden.

Shapes: N images, C channels, H rows, W columns.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import yaml
from torch import Tensor, nn

from pipelines.explanation.figures import draw_images, track
from pipelines.explanation.images import Images
from pipelines.explanation.results import Explanation
from pipelines.explanation.settings import Fill, check_occlusion
from pipelines.explanation.target import Target
from pipelines.runtime.errors import UserError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BATCH = 100  # blocks


def occlusion(
    target: Target,
    images: Images,
    *,
    block: int = 4,
    stride: int = 1,
    fill: Fill = "black",
    stroke: float | None = None,
    boxes: Path | None = None,
) -> Explanation:
    """Slide a block over each image and record the probability of its class.

    Args:
        target: The network.
        images: The images; of a file, the class is the predicted one.
        block: Rows and columns of the block.
        stride: Pixels between two blocks.
        fill: Black, or the image's mean colour.
        stroke: Count the minima on an object: on pixels brighter than this, 0 to 1,
        boxes: or in a box, from a YAML file with `SOURCE: [top, left, bottom, right]` for each image.

    Raises:
        UserError: An option is out of range, or the file of boxes is missing or incomplete.
    """
    check_occlusion(block, stride, stroke=stroke, has_boxes=boxes is not None)
    smallest = min(target.input_shape[1:])
    if not 1 <= block <= smallest:
        raise UserError(f"--block {block}: must be 1 to {smallest}, the size of an image")
    objects_NHW = _object_masks(images, stroke, boxes)
    with torch.no_grad():
        p_NK = target.probabilities(images.pixels_NCHW)
    classes_N = images.true_or_predicted(p_NK)
    settings: dict[str, Any] = {"block": block, "stride": stride, "fill": fill}
    maps_NHW = probability_maps(
        target.pixels_to_logits(), images.pixels_NCHW, classes_N, block=block, stride=stride, fill=fill
    )
    rows: list[dict[str, Any]] = []
    for source, index, p_K, map_HW in zip(images.sources, classes_N.tolist(), p_NK.cpu(), maps_NHW, strict=True):
        row, column = minimum_position(map_HW)
        facts = {"image": source, "class": target.classes[index], "probability": float(p_K[index])}
        rows.append(facts | {"lowest": float(map_HW[row, column]), "row": row, "column": column})
    numbers: dict[str, Any] = {**settings, "lowest_mean": sum(row["lowest"] for row in rows) / len(rows)}
    if objects_NHW is not None:
        numbers |= count_on_object(objects_NHW, [(row["row"], row["column"]) for row in rows], block)
    title = f"occlusion block {block} {fill} {images.description}"
    params = {**settings, "stroke": stroke, "boxes": boxes, **images.selection.params()}
    figure = _draw(images, maps_NHW, objects_NHW, rows)
    return Explanation(target, title, figure, {**numbers, "images": rows}, params)


def probability_maps(
    network: nn.Module, pixels_NCHW: Tensor, classes_N: Tensor, *, block: int, stride: int, fill: Fill = "black"
) -> Tensor:
    """Return the mean probability of the class over the blocks that cover a pixel, shape (N, H, W), on the CPU.

    The edge may cut off the last block of a row. `network` maps pixels in [0, 1] to logits.
    """
    from captum.attr import Occlusion

    attribution = Occlusion(nn.Sequential(network, nn.Softmax(1)))
    maps = []
    for index in track(range(len(pixels_NCHW)), "images"):
        image_1CHW, class_1 = pixels_NCHW[index : index + 1], classes_N[index : index + 1]
        mean_1CHW = image_1CHW.mean((2, 3), keepdim=True).expand_as(image_1CHW)
        with torch.no_grad():
            p_1K = network(image_1CHW).softmax(1)
        drop_1CHW = attribution.attribute(
            image_1CHW,
            sliding_window_shapes=(image_1CHW.shape[1], block, block),
            strides=(1, stride, stride),
            baselines=mean_1CHW if fill == "mean" else 0.0,
            target=class_1,
            perturbations_per_eval=BATCH,
        )
        maps.append((p_1K[0, class_1] - drop_1CHW[0, 0]).detach().cpu())
    return torch.stack(maps)


def minimum_position(map_HW: Tensor) -> tuple[int, int]:
    """Return row and column of the minimum; of several, the first."""
    row, column = divmod(int(map_HW.argmin()), map_HW.shape[1])
    return row, column


def count_on_object(objects_NHW: Tensor, minima: Sequence[tuple[int, int]], block: int) -> dict[str, float]:
    """Count the minima on the object, and how many would be expected at random pixels.

    Args:
        objects_NHW: Whether a pixel belongs to the object.
        minima: Row and column of each image's minimum.
        block: Rows and columns of the block.

    Returns:
        `on_object` counts minima on the object; `block_on_object` those for which a block centred at the minimum
        touches it; `..._by_chance` is the number expected at random pixels.
    """
    before, after = block // 2, block - 1 - block // 2
    padded_NHW = nn.functional.pad(objects_NHW.float(), (before, after, before, after))
    covered_NHW = nn.functional.max_pool2d(padded_NHW[:, None], block, stride=1)[:, 0] > 0
    counts: dict[str, float] = {}
    for name, masks_NHW in {"on_object": objects_NHW, "block_on_object": covered_NHW}.items():
        counts[name] = sum(bool(mask_HW[position]) for mask_HW, position in zip(masks_NHW, minima, strict=True))
        counts[f"{name}_by_chance"] = float(masks_NHW.float().mean((1, 2)).sum())
    return counts


def _object_masks(images: Images, stroke: float | None, boxes_file: Path | None) -> Tensor | None:
    """Return whether a pixel belongs to the object, shape (N, H, W); None if the object is not given."""
    if stroke is not None:
        bright_NHW: Tensor = images.pixels_NCHW.amax(1).cpu() > stroke
        return bright_NHW
    if boxes_file is None:
        return None
    boxes = _read_boxes(boxes_file)
    masks_NHW = torch.zeros(len(images), *images.pixels_NCHW.shape[2:], dtype=torch.bool)
    for mask_HW, source in zip(masks_NHW, images.sources, strict=True):
        match boxes.get(source):
            case [int(top), int(left), int(bottom), int(right)]:
                mask_HW[top : bottom + 1, left : right + 1] = True
            case _:
                raise UserError(f"{boxes_file}: no [top, left, bottom, right] for image {source}")
    return masks_NHW


def _read_boxes(path: Path) -> dict[Any, Any]:
    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{path}: cannot be read ({str(error).splitlines()[0]})") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected, for each image, 12: [top, left, bottom, right]")
    return content


def _range(low: float, high: float) -> str:
    """Format two probabilities with as many digits, 2 to 6, as tell them apart."""
    digits = next((count for count in range(2, 6) if f"{low:.{count}f}" != f"{high:.{count}f}"), 6)
    return f"{low:.{digits}f} to\n{high:.{digits}f}"


def _draw(images: Images, maps_NHW: Tensor, objects_NHW: Tensor | None, rows: Sequence[Mapping[str, Any]]) -> "Figure":
    """Draw each image and its map, with a cross at the minimum and the outline of the object."""
    panels: list[tuple[Tensor | None, str]] = []
    for pixels_CHW, map_HW, row in zip(images.pixels_NCHW, maps_NHW, rows, strict=True):
        panels += [(pixels_CHW, f"{row['class']}\n{row['probability']:.2f}")]
        panels += [(None, _range(row["lowest"], float(map_HW.max())))]
    figure, axes = draw_images(panels)
    for n, row in enumerate(rows):
        axes[2 * n + 1].imshow(maps_NHW[n].numpy(), cmap="viridis", interpolation="nearest")
        for axis in axes[2 * n : 2 * n + 2]:
            axis.plot(row["column"], row["row"], "x", color="red", markersize=5)
            if objects_NHW is not None:
                axis.contour(objects_NHW[n].numpy(), [0.5], colors="orange", linewidths=0.6)
    return figure
