"""`litlab explain embedding`: test images in the plane, by the output of a layer, with PCA and with t-SNE.

Shapes: N images, C channels, H rows, W columns, D outputs of a layer.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from modules.metrics import KNNAccuracy
from pipelines.evaluation.plots import panels, scatter_classes
from pipelines.explanation.figures import track
from pipelines.explanation.images import Images
from pipelines.explanation.results import Explanation
from pipelines.explanation.settings import ImageSelection
from pipelines.explanation.target import Target
from pipelines.runtime.errors import UserError

NEIGHBOURS = 10
MIN_IMAGES = 12
BATCH = 100


def embedding(
    target: Target,
    images: Images | None = None,
    *,
    layer: str | None = None,
    count: int = 1000,
    perplexity: float | None = None,
    seed: int = 0,
) -> Explanation:
    """Draw test images by the first two principal components of a layer's output, and by t-SNE.

    The separation of the classes is the share of images most of whose nearest neighbours belong to their own class.

    Args:
        target: The network.
        images: By default random test images.
        layer: By default the last fully connected layer but one, or the only one.
        count: Number of random test images.
        perplexity: Of t-SNE; by default 30, or for few images a quarter of their number.
        seed: Seed of the random test images, and of PCA and t-SNE.

    Raises:
        UserError: There is no such layer, there are too few images, or the perplexity is out of range.
    """
    layer_name = layer or _default_layer(target)
    module = target.layer(layer_name)
    pixels_NCHW, labels_N = _random_test_images(target, count, seed) if images is None else _labelled(target, images)
    if len(labels_N) < MIN_IMAGES:
        raise UserError(f"an embedding needs {MIN_IMAGES} images or more, not {len(labels_N)}")
    perplexity = min(30.0, len(labels_N) / 4) if perplexity is None else perplexity
    if not 0 < 3 * perplexity < len(labels_N):
        raise UserError(f"--perplexity {perplexity:g}: must be above 0, and below a third of {len(labels_N)} images")
    features_ND = layer_features(target, module, pixels_NCHW)
    planes = project(features_ND, perplexity, seed)
    agreement = {name: own_class_share(points, labels_N) for name, points in {"layer": features_ND, **planes}.items()}
    explained = float(planes["PCA"].var(0).sum() / features_ND.var(0).sum())
    figure, axes = panels(2, size=(4.0, 4.25), extra=(0.0, 0.4))
    for axis, (name, points_N2) in zip(axes, planes.items(), strict=True):
        axis.set_axis_off()
        scatter_classes(axis, points_N2, labels_N, target.classes)
        axis.set_title(f"{name}: {agreement[name]:.3f}", fontsize=9)
    numbers: dict[str, Any] = {"layer": layer_name, "count": len(labels_N), "explained_variance": explained}
    numbers |= {f"own_class_{name}": value for name, value in agreement.items()}
    numbers |= {"labels": labels_N.tolist()} | {name: points.round(3).tolist() for name, points in planes.items()}
    params = {"layer": layer, "count": count, "perplexity": perplexity, "seed": seed}
    params |= (ImageSelection() if images is None else images.selection).params()
    return Explanation(target, f"embedding {layer_name}", figure, numbers, params)


def _default_layer(target: Target) -> str:
    names = target.layers_of_kind("fc")
    if not names:
        raise UserError(f"{target.name} has no fully connected layer: name a layer with --layer")
    return names[-2:][0]


def _labelled(target: Target, images: Images) -> tuple[Tensor, NDArray[np.int64]]:
    """Return uint8 pixels of shape (N, C, H, W), and the true class of each image, or the predicted one of files."""
    pixels_NCHW = (images.pixels_NCHW * 255).round().byte().cpu()
    logits_NK = torch.from_numpy(layer_features(target, target.network, pixels_NCHW))
    return pixels_NCHW, images.true_or_predicted(logits_NK).cpu().numpy()


def _random_test_images(target: Target, count: int, seed: int) -> tuple[Tensor, NDArray[np.int64]]:
    """Return uint8 pixels of shape (N, C, H, W), and the class of each; random, since files may be sorted by class."""
    pixels_NCHW, labels_N = target.test_set()
    shuffled = torch.randperm(len(labels_N), generator=torch.Generator().manual_seed(seed))
    drawn = shuffled[: max(count, 0)].sort().values
    return pixels_NCHW[drawn], labels_N[drawn].numpy()


def layer_features(target: Target, layer: nn.Module, images_NCHW: Tensor) -> NDArray[np.float32]:
    """Return the flattened output of a layer for uint8 images, one row per image."""
    rows = []
    with torch.no_grad():
        for start in track(range(0, len(images_NCHW), BATCH), "images"):
            batch = images_NCHW[start : start + BATCH].to(target.device)
            rows.append(target.layer_output(layer, target.normalize(batch.float() / 255)).flatten(1).cpu())
    features: NDArray[np.float32] = torch.cat(rows).numpy()
    return features


def project(features_ND: NDArray[np.float32], perplexity: float, seed: int) -> dict[str, NDArray[np.float32]]:
    """Project rows to the plane, by PCA and by t-SNE of at most 50 principal components."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    components = min(50, *features_ND.shape)
    reduced = PCA(components, random_state=seed).fit_transform(features_ND)
    plane = TSNE(2, perplexity=perplexity, init="pca", random_state=seed).fit_transform(reduced)
    return {"PCA": reduced[:, :2], "t-SNE": plane}


def own_class_share(points_ND: NDArray[np.float32], labels_N: NDArray[np.int64]) -> float:
    """Return the share of points whose nearest neighbours, without themselves, vote for their own class."""
    vote = KNNAccuracy(NEIGHBOURS)
    vote.update(torch.from_numpy(points_ND), torch.from_numpy(labels_N))
    return float(vote.compute())
