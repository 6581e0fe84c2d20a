"""`litlab explain adversarial`: images changed slightly so that the network predicts another class.

Shapes: N pairs of an image and a target class, C channels, H rows, W columns, K classes.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pipelines.explanation.attacks import AttackResult, fgsm_or_pgd, gradient_descent
from pipelines.explanation.figures import draw_images
from pipelines.explanation.images import Images
from pipelines.explanation.results import Explanation
from pipelines.explanation.settings import Attack, attack_settings, check_attack_targets
from pipelines.explanation.target import Target
from pipelines.runtime.errors import UserError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BATCH = 100  # pairs
MAX_DRAWN = 10  # pairs in the picture, except in a table


def adversarial(
    target: Target,
    images: Images,
    *,
    targets: Sequence[str] = (),
    table: bool = False,
    method: Attack = "nearest",
    steps: int | None = None,
    lr: float | None = None,
    strength: float | None = None,
    confidence: float | None = None,
    budget: Sequence[float] | None = None,
) -> Iterator[Explanation]:
    """Change each image slightly so that the network predicts each target. Yield one explanation per budget.

    Args:
        target: The network.
        images: The images; for a table the first test image of each class.
        targets: Classes, by name or index. Only "fgsm" and "pgd" do without: away from the true class.
        table: Use all other classes as targets, and draw a table.
        method: "nearest" and "published" are gradient descent (see attacks.py); "fgsm" and "pgd" stay within a budget.
        steps: Number of steps. Options that are None have the defaults of the method.
        lr: Learning rate of gradient descent.
        strength: Factor of the target's probability in gradient descent.
        confidence: Probability of the target that "nearest" requires.
        budget: Maximum changes of a pixel in [0, 1].

    Raises:
        UserError: The method does not take an option, or a target does not exist.
    """
    given: dict[str, Any] = {"steps": steps, "lr": lr, "strength": strength, "confidence": confidence}
    given |= {"budget": None if budget is None else list(budget)}
    settings = attack_settings(method, **given)
    check_attack_targets(method, targets, images.selection, table=table)
    true_N = images.true_or_predicted(_probabilities(target, images.pixels_NCHW))
    image_N, target_N = _pair(target, true_N, list(targets or target.classes) if table or targets else None)
    sources = [images.sources[index] for index in image_N.tolist()]
    params = {"target": list(targets), "table": table, "method": method, **given, **images.selection.params()}
    for value in settings.pop("budget", [None]):
        options = settings if value is None else {**settings, "budget": value}
        result = attack(target, images.pixels_NCHW[image_N], true_N[image_N], target_N, method, options)
        numbers = {"method": method, **options, "pairs": len(sources), **result.summarize()}
        words = ["adversarial", method, *([f"{value:g}"] if value else []), "table" if table else images.description]
        title = " ".join([*words, *(["to", *targets] if targets else [])])
        figure = _draw_table(target, result) if table else _draw_pairs(target, result)
        yield Explanation(target, title, figure, {**numbers, "images": _rows(target, result, sources)}, params)


def attack(
    target: Target,
    pixels_NCHW: Tensor,
    true_N: Tensor,
    target_N: Tensor | None,
    method: Attack,
    settings: Mapping[str, Any],
) -> AttackResult:
    """Attack an image for each pair, in batches.

    Args:
        target: The network.
        pixels_NCHW: The images.
        true_N: Their true classes.
        target_N: Their target classes; None only for "fgsm" and "pgd", away from the true class.
        method: The attack.
        settings: Arguments of `gradient_descent`, or of `fgsm_or_pgd`.
    """
    network, changed = target.pixels_to_logits(), []
    for pixels, classes in zip(_batches(pixels_NCHW), _batches(true_N if target_N is None else target_N), strict=True):
        if method == "nearest" or method == "published":
            changed.append(gradient_descent(network, pixels, classes, objective=method, **settings))
        else:
            changed.append(fgsm_or_pgd(network, pixels, classes, targeted=target_N is not None, **settings))
    changed_NCHW = torch.cat(changed)
    rounded_NCHW = (changed_NCHW * 255).round() / 255
    before, after, rounded = (_probabilities(target, x_NCHW) for x_NCHW in (pixels_NCHW, changed_NCHW, rounded_NCHW))
    return AttackResult(pixels_NCHW, true_N, target_N, changed_NCHW, before, after, rounded.argmax(1))


def _pair(target: Target, true_N: Tensor, names: Sequence[str] | None) -> tuple[Tensor, Tensor | None]:
    """Return the image and the target of each pair: all targets but the true class, or None for no targets."""
    if names is None:
        return torch.arange(len(true_N)), None
    targets = [target.class_index(name, "--target") for name in names]
    pairs = [(index, other) for index, true in enumerate(true_N.tolist()) for other in targets if other != true]
    if not pairs:
        raise UserError(f"--target {' '.join(names)}: this is the true class of the image")
    image_N, target_N = torch.tensor(pairs).T
    return image_N, target_N.to(true_N.device)


def _batches(values: Tensor) -> tuple[Tensor, ...]:
    batches: tuple[Tensor, ...] = values.split(BATCH)  # type: ignore[no-untyped-call]
    return batches


@torch.no_grad()
def _probabilities(target: Target, pixels_NCHW: Tensor) -> Tensor:
    return torch.cat([target.probabilities(batch) for batch in _batches(pixels_NCHW)])


def _rows(target: Target, result: AttackResult, sources: Sequence[int | str]) -> list[dict[str, Any]]:
    """Return the numbers of each pair."""
    l2_N, linf_N = result.distances()
    rows = []
    for n, source in enumerate(sources):
        p_before, p_after, true = result.before_NK[n].tolist(), result.after_NK[n].tolist(), int(result.true_N[n])
        row = {"image": source, "class": target.classes[true], "seen": target.classes[int(result.after_NK[n].argmax())]}
        row |= {"p_class_before": p_before[true], "p_class_after": p_after[true]}
        if result.target_N is not None:
            aim = int(result.target_N[n])
            row |= {"target": target.classes[aim], "p_target_before": p_before[aim], "p_target_after": p_after[aim]}
        rows.append({**row, "l2": float(l2_N[n]), "linf": float(linf_N[n])})
    return rows


def _draw_table(target: Target, result: AttackResult) -> "Figure":
    """Draw a row for each class and a column for each target, with the original images on the diagonal."""
    assert result.target_N is not None
    count = len(target.classes)
    panels: list[tuple[Tensor | None, str]] = [(None, "")] * count**2
    for n, (true, aim) in enumerate(zip(result.true_N.tolist(), result.target_N.tolist(), strict=True)):
        title = f"{target.classes[aim]}\n{float(result.after_NK[n, aim]):.2f}"
        panels[true * count + aim] = result.changed_NCHW[n], title
        panels[true * count + true] = result.start_NCHW[n], f"{target.classes[true]}\noriginal"
    figure, axes = draw_images(panels, count, size=1.1)
    for axis in axes[:: count + 1]:
        axis.title.set_fontweight("bold")
    return figure


def _draw_pairs(target: Target, result: AttackResult) -> "Figure":
    """Draw each image before and after, and the difference, in which grey is 0."""
    panels = []
    for n in range(min(MAX_DRAWN, len(result))):
        for pixels_CHW, p_K in (
            (result.start_NCHW[n], result.before_NK[n]),
            (result.changed_NCHW[n], result.after_NK[n]),
        ):
            predicted = int(p_K.argmax())
            panels.append((pixels_CHW, f"{target.classes[predicted]} {float(p_K[predicted]):.2f}"))
        difference_CHW = result.changed_NCHW[n] - result.start_NCHW[n]
        largest = float(difference_CHW.abs().max())
        panels.append((difference_CHW / (2 * largest or 1) + 0.5, f"difference\nat most {largest:.3f}"))
    return draw_images(panels)[0]
