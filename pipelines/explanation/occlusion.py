"""`litlab explain occlusion`: the probability of the class while a block of the image is hidden.

Shapes: N images, C channels, H rows, W columns.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
import yaml
from torch import Tensor, nn

from pipelines.explanation import classes, images, output
from pipelines.explanation.target import COMMON, Target, parse
from pipelines.runtime.errors import UserError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HELP = (
    """usage: litlab explain occlusion RUN_ID [--image IMAGE ...] [--block SIZE]

Slides a block over each image and records the probability of its class; a
pixel of the map is the mean over the blocks that cover it. Where the map is
lowest, the network looks. An image without a label has the class it is given.

  --block SIZE         rows and columns of the block (4)
  --stride PIXELS      between two blocks (1)
  --fill black|mean    what a block is filled with; mean is the image's colour
  --stroke LEVEL       count the minima that lie on an object: of pixels that
                       are brighter than LEVEL, 0 to 1,
  --boxes FILE         or in a box, from a YAML file with, for each image,
                       12: [top, left, bottom, right], in pixels from 0"""
    + images.OPTIONS
    + COMMON
)
TOGETHER = 100  # blocks in one pass
Fill = Literal["black", "mean"]


def main(word: str, argv: Sequence[str]) -> int:
    """`litlab explain occlusion RUN_ID ...`."""
    if {"-h", "--help"} & set(argv):
        print(HELP)
        return 0
    subject, options = parse(word, argv, _parser(word))
    _require(subject, options)
    chosen = images.choose(subject, options)
    objects_NHW = _objects(chosen, options)
    with torch.no_grad():
        p_NK = subject.probabilities(chosen.pixels_NCHW)
    classes_N = classes.of_images(chosen, p_NK)
    settings = {name: getattr(options, name) for name in ("block", "stride", "fill")}
    maps_NHW = probability_maps(subject.whole(), chosen.pixels_NCHW, classes_N, **settings)
    rows = [_row(subject, *each) for each in zip(chosen.sources, classes_N.tolist(), p_NK.cpu(), maps_NHW, strict=True)]
    numbers: dict[str, Any] = {**settings, "lowest_mean": _mean(rows, "lowest")}
    if objects_NHW is not None:
        numbers |= on_object(objects_NHW, [(row["row"], row["column"]) for row in rows], options.block)
    what = f"occlusion block {options.block} {options.fill} {classes.in_short(chosen, options)}"
    figure = _picture(chosen, maps_NHW, objects_NHW, rows)
    output.keep(subject, what, figure, {**numbers, "images": rows}, options, _caption(subject, rows, numbers))
    return 0


def _parser(word: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"litlab explain {word}", add_help=False, allow_abbrev=False)
    parser.add_argument("--block", type=int, default=4)
    parser.add_argument("--stride", type=int, default=1)
    parser.add_argument("--fill", choices=("black", "mean"), default="black")
    parser.add_argument("--stroke", type=float)
    parser.add_argument("--boxes", type=Path)
    images.add_options(parser)
    return parser


def _require(subject: Target, options: argparse.Namespace) -> None:
    smallest = min(subject.input_shape[1:])
    if not 1 <= options.block <= smallest:
        raise UserError(f"--block {options.block}: 1 to {smallest}, the size of an image")
    if not 1 <= options.stride <= options.block:
        raise UserError(f"--stride {options.stride}: 1 to {options.block}, the size of the block")
    if options.boxes and options.stroke is not None:
        raise UserError("--stroke and --boxes: one of them")


def probability_maps(
    network: nn.Module, pixels_NCHW: Tensor, classes_N: Tensor, *, block: int, stride: int, fill: Fill = "black"
) -> Tensor:
    """Mean probability of each image's class over the blocks that cover a pixel, shape (N, H, W), on the CPU.

    Args:
        network: Pixels in [0, 1] to logits.
        pixels_NCHW: The images.
        classes_N: The class of each.
        block: Rows and columns that are hidden; the last block of a row may be cut off by the edge.
        stride: Pixels between two blocks; at most `block`.
        fill: What is put there: black, or the image's own mean colour.
    """
    from captum.attr import Occlusion

    occlusion = Occlusion(nn.Sequential(network, nn.Softmax(1)))
    maps = []
    for index in output.track(range(len(pixels_NCHW)), "images"):
        image_1CHW, class_1 = pixels_NCHW[index : index + 1], classes_N[index : index + 1]
        mean_1CHW = image_1CHW.mean((2, 3), keepdim=True).expand_as(image_1CHW)
        with torch.no_grad():
            p_1K = network(image_1CHW).softmax(1)
        drop_1CHW = occlusion.attribute(
            image_1CHW,
            sliding_window_shapes=(image_1CHW.shape[1], block, block),
            strides=(1, stride, stride),
            baselines=mean_1CHW if fill == "mean" else 0.0,
            target=class_1,
            perturbations_per_eval=TOGETHER,
        )
        maps.append((p_1K[0, class_1] - drop_1CHW[0, 0]).detach().cpu())
    return torch.stack(maps)


def lowest(map_HW: Tensor) -> tuple[int, int]:
    """Row and column of the minimum; of several, the first."""
    row, column = divmod(int(map_HW.argmin()), map_HW.shape[1])
    return row, column


def on_object(objects_NHW: Tensor, minima: Sequence[tuple[int, int]], block: int) -> dict[str, float]:
    """How many minima lie on the object, and how many would, were each at a random pixel.

    Args:
        objects_NHW: Whether a pixel is of the object.
        minima: Row and column of each image's minimum.
        block: Rows and columns of the block.

    Returns:
        `on_object` counts minima that are pixels of the object; `block_on_object` those where a block centred at the
        minimum covers such a pixel; `..._by_chance` is the number to be expected of random pixels.
    """
    before, after = block // 2, block - 1 - block // 2
    padded_NHW = nn.functional.pad(objects_NHW.float(), (before, after, before, after))
    near_NHW = nn.functional.max_pool2d(padded_NHW[:, None], block, stride=1)[:, 0] > 0
    counts: dict[str, float] = {}
    for name, masks_NHW in {"on_object": objects_NHW, "block_on_object": near_NHW}.items():
        counts[name] = sum(bool(mask_HW[place]) for mask_HW, place in zip(masks_NHW, minima, strict=True))
        counts[f"{name}_by_chance"] = float(masks_NHW.float().mean((1, 2)).sum())
    return counts


def _objects(chosen: images.Images, options: argparse.Namespace) -> Tensor | None:
    """Whether a pixel is of the object, shape (N, H, W), if somebody says what the object is."""
    if options.stroke is not None:
        bright_NHW: Tensor = chosen.pixels_NCHW.amax(1).cpu() > options.stroke
        return bright_NHW
    if options.boxes is None:
        return None
    boxes = _read_boxes(options.boxes)
    masks_NHW = torch.zeros(len(chosen), *chosen.pixels_NCHW.shape[2:], dtype=torch.bool)
    for mask_HW, source in zip(masks_NHW, chosen.sources, strict=True):
        match boxes.get(source):
            case [int(top), int(left), int(bottom), int(right)]:
                mask_HW[top : bottom + 1, left : right + 1] = True
            case _:
                raise UserError(f"{options.boxes}: no [top, left, bottom, right] for image {source}")
    return masks_NHW


def _read_boxes(path: Path) -> dict[Any, Any]:
    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{path}: cannot be read ({str(error).splitlines()[0]})") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: for each image it has to say 12: [top, left, bottom, right]")
    return content


def _row(subject: Target, source: int | str, number: int, p_K: Tensor, map_HW: Tensor) -> dict[str, Any]:
    row, column = lowest(map_HW)
    return {
        "image": source,
        "class": subject.classes[number],
        "probability": float(p_K[number]),
        "lowest": float(map_HW[row, column]),
        "row": row,
        "column": column,
    }


def _picture(
    chosen: images.Images, maps_NHW: Tensor, objects_NHW: Tensor | None, rows: Sequence[dict[str, Any]]
) -> "Figure":
    """Each image beside its map, with a cross at the minimum and the object's outline."""
    figure, axes = output.grid(2 * len(rows), min(10, 2 * len(rows)))
    for number, row in enumerate(rows):
        left, right = axes[2 * number : 2 * number + 2]
        output.show(left, chosen.pixels_NCHW[number], f"{row['class']}\n{row['probability']:.2f}")
        right.imshow(maps_NHW[number].numpy(), cmap="viridis", interpolation="nearest")
        right.set_title(f"{row['lowest']:.2f} to\n{float(maps_NHW[number].max()):.2f}", fontsize=7)
        for axis in (left, right):
            axis.plot(row["column"], row["row"], "x", color="red", markersize=5)
            if objects_NHW is not None:
                axis.contour(objects_NHW[number].numpy(), [0.5], colors="orange", linewidths=0.6)
    return figure


def _caption(subject: Target, rows: Sequence[dict[str, Any]], numbers: dict[str, Any]) -> str:
    block, count = numbers["block"], len(rows)
    said = (
        f"Occlusion of {subject.name}: mean probability of the class over the {block} x {block} blocks "
        f"({numbers['fill']}, every {numbers['stride']} pixels) that cover a pixel; yellow is high, each map has its "
        f"own scale, the cross is the minimum. Mean probability of the class: {_mean(rows, 'probability'):.3f} as it "
        f"is, {numbers['lowest_mean']:.3f} at the minimum."
    )
    if "on_object" in numbers:
        said += (
            f" On the object (outlined): {numbers['on_object']} of {count} minima "
            f"({numbers['on_object_by_chance']:.1f} expected of random pixels); a block centred there touches it: "
            f"{numbers['block_on_object']} of {count} ({numbers['block_on_object_by_chance']:.1f})."
        )
    return said


def _mean(rows: Sequence[dict[str, Any]], key: str) -> float:
    return float(sum(row[key] for row in rows)) / len(rows)
