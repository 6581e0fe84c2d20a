"""`litlab explain embedding`: test images in the plane, by the output of a layer, with PCA and with t-SNE."""

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from modules.metrics import KNNAccuracy
from pipelines.explanation import classes, images, output
from pipelines.explanation.target import COMMON, Target, parse
from pipelines.runtime.errors import UserError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

HELP = (
    """usage: litlab explain embedding RUN_ID [--layer L] [--count N]

Draws test images in the plane, by the output of a layer: its first two
principal components, and t-SNE. How well the classes are apart is the share
of images whose nearest neighbours, of 10, are mostly of their own class: in
the layer's own space and in the two planes. The class of a file is unknown;
the one that the network sees stands in for it.

  --layer L            as litlab inspect names it, or fc1 (the last layer but
                       one that is fully connected, or the only one)
  --count N            N test images, drawn by --seed, if none are named (1000)
  --perplexity P       of t-SNE (30; for few images, a quarter of them)"""
    + images.OPTIONS
    + COMMON
)
NEIGHBOURS = 10
FEWEST = 12  # images
BATCH = 100
MARKS = "o^sDvP*X<>"


def main(word: str, argv: Sequence[str]) -> int:
    """`litlab explain embedding RUN_ID ...`."""
    if {"-h", "--help"} & set(argv):
        print(HELP)
        return 0
    parser = argparse.ArgumentParser(prog=f"litlab explain {word}", add_help=False, allow_abbrev=False)
    parser.add_argument("--layer")
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--perplexity", type=float)
    images.add_options(parser)
    subject, options = parse(word, argv, parser)
    layer = options.layer or _before_last(subject)
    named = subject.layer(layer)
    pixels_NCHW, labels_N = _images(subject, options)
    if options.perplexity is None:
        options.perplexity = min(30.0, len(labels_N) / 4)
    if not 0 < 3 * options.perplexity < len(labels_N):
        raise UserError(f"--perplexity {options.perplexity:g}: above 0, and below a third of {len(labels_N)} images")
    features_ND = outputs(subject, named, pixels_NCHW)
    planes = embed(features_ND, options.perplexity, options.seed)
    agreement = {name: own_class(points, labels_N) for name, points in {"layer": features_ND, **planes}.items()}
    explained = float(planes["PCA"].var(0).sum() / features_ND.var(0).sum())
    figure, axes = output.grid(2, 2, size=4.0)
    for axis, (name, points_N2) in zip(axes, planes.items(), strict=True):
        _scatter(axis, points_N2, labels_N, subject.classes)
        axis.set_title(f"{name}: {agreement[name]:.3f}", fontsize=9)
    caption = (
        f"{len(labels_N)} images by the {features_ND.shape[1]} outputs of {layer} of {subject.name}. Share whose "
        f"{NEIGHBOURS} nearest neighbours are mostly of their own class: {agreement['layer']:.3f} in the layer, "
        f"{agreement['PCA']:.3f} in the plane of PCA (which holds {explained:.0%} of the variance), "
        f"{agreement['t-SNE']:.3f} in that of t-SNE (perplexity {options.perplexity:g}, seed {options.seed})."
    )
    numbers: dict[str, Any] = {"layer": layer, "count": len(labels_N), "explained_variance": explained}
    numbers |= {f"own_class_{name}": value for name, value in agreement.items()}
    points = {name: points_N2.round(3).tolist() for name, points_N2 in planes.items()}
    output.keep(
        subject, f"{word} {layer}", figure, {**numbers, "labels": labels_N.tolist(), **points}, options, caption
    )
    return 0


def _before_last(subject: Target) -> str:
    names = [name for name in subject.short_names() if name.startswith("fc")]
    if not names:
        raise UserError(f"{subject.name} has no fully connected layer: name one by --layer")
    return names[-2:][0]


def _images(subject: Target, options: argparse.Namespace) -> tuple[Tensor, NDArray[np.int64]]:
    """uint8 pixels of shape (N, C, H, W), and the class of each."""
    if options.image or options.images_per_class is not None:
        chosen = images.choose(subject, options)
        pixels_NCHW = (chosen.pixels_NCHW * 255).round().byte().cpu()
        logits_NK = torch.from_numpy(outputs(subject, subject.network, pixels_NCHW))
        labels_N = classes.of_images(chosen, logits_NK).cpu()
    else:
        pixels_NCHW, labels_N = subject.test_set()  # which may be in the order of the classes
        mixed = torch.randperm(len(labels_N), generator=torch.Generator().manual_seed(options.seed))
        drawn = mixed[: max(options.count, 0)].sort().values
        pixels_NCHW, labels_N = pixels_NCHW[drawn], labels_N[drawn]
    if len(labels_N) < FEWEST:
        raise UserError(f"an embedding needs {FEWEST} images or more, not {len(labels_N)}")
    return pixels_NCHW, labels_N.numpy()


def outputs(subject: Target, layer: nn.Module, images_NCHW: Tensor) -> NDArray[np.float32]:
    """The output of a layer for uint8 images, flat: one row an image."""
    rows = []
    with torch.no_grad():
        for start in output.track(range(0, len(images_NCHW), BATCH), "images"):
            batch = images_NCHW[start : start + BATCH].to(subject.device)
            rows.append(subject.output_of(layer, subject.normalize(batch.float() / 255)).flatten(1).cpu())
    features: NDArray[np.float32] = torch.cat(rows).numpy()
    return features


def embed(features_ND: NDArray[np.float32], perplexity: float, seed: int) -> dict[str, NDArray[np.float32]]:
    """Two numbers for each row, by PCA and by t-SNE of at most 50 principal components."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    components = min(50, *features_ND.shape)
    reduced = PCA(components, random_state=seed).fit_transform(features_ND)
    plane = TSNE(2, perplexity=perplexity, init="pca", random_state=seed).fit_transform(reduced)
    return {"PCA": reduced[:, :2], "t-SNE": plane}


def own_class(points_ND: NDArray[np.float32], labels_N: NDArray[np.int64]) -> float:
    """Share of points whose nearest neighbours, without themselves, vote for their own class."""
    vote = KNNAccuracy(NEIGHBOURS)
    vote.update(torch.from_numpy(points_ND), torch.from_numpy(labels_N))
    return float(vote.compute())


def _scatter(axis: "Axes", points_N2: NDArray[np.float32], labels_N: NDArray[np.int64], names: Sequence[str]) -> None:
    for number in range(len(names)):
        if (labels_N == number).any():
            x, y = points_N2[labels_N == number].T
            mark = MARKS[number // 10 % len(MARKS)] if len(names) > 10 else MARKS[number % len(MARKS)]
            axis.scatter(x, y, s=8, alpha=0.7, color=f"C{number % 10}", marker=mark, linewidths=0)
    for number, name in enumerate(names):  # over all points
        if (labels_N == number).any():
            box = {"facecolor": "white", "alpha": 0.7, "edgecolor": f"C{number % 10}", "pad": 1.5}
            x, y = np.median(points_N2[labels_N == number], axis=0)
            axis.text(x, y, name, ha="center", va="center", fontsize=8, bbox=box)
