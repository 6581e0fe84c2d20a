"""`litlab explain adversarial`: images changed a little, so that the network sees another class.

Shapes: N pairs of an image and what is wanted of it, C channels, H rows, W columns, K classes.
"""

import argparse
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from pipelines.explanation import classes, images, output
from pipelines.explanation.attacks import STRENGTH, Pairs, descend, signs, summary
from pipelines.explanation.target import COMMON, Target, parse
from pipelines.runtime.errors import UserError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HELP = (
    """usage: litlab explain adversarial RUN_ID --image IMAGE ... --target C ...
       litlab explain adversarial RUN_ID --table

Changes each image a little, so that the network sees each target in it.

  --target C ...       classes, by number or name
  --table              the first test image of each class, to every other class
  --method nearest     gradient descent: reach --confidence, then come as near
                       as possible to the image,
           published   minimise -STRENGTH * p(target) + ||x - x0||,
           fgsm, pgd   within --budget; without a target, away from the class
  --steps N --lr RATE  of nearest and published (200, 0.01); steps of pgd (20)
  --strength S         of published (500000 / 255), of nearest (1)
  --confidence P       probability of the target that nearest asks for (0.6)
  --budget B ...       most that a pixel may change, of 1 (0.03)"""
    + images.OPTIONS
    + COMMON
)
Method = Literal["nearest", "published", "fgsm", "pgd"]
TOGETHER = 100  # pairs in a batch
SHOWN = 10  # pairs in the picture, but for the table
DEFAULTS: dict[str, dict[str, Any]] = {
    "nearest": {"steps": 200, "lr": 0.01, "strength": 1.0, "confidence": 0.6},
    "published": {"steps": 200, "lr": 0.01, "strength": STRENGTH},
    "fgsm": {"budget": [0.03]},
    "pgd": {"steps": 20, "budget": [0.03]},
}


def main(word: str, argv: Sequence[str]) -> int:
    """`litlab explain adversarial RUN_ID ...`."""
    if {"-h", "--help"} & set(argv):
        print(HELP)
        return 0
    subject, options = parse(word, argv, _parser(word))
    settings = _settings(options)
    chosen = images.choose(subject, options)
    own_N = classes.of_images(chosen, _seen(subject, chosen.pixels_NCHW))
    image_N, wanted_N = _pairs(subject, options, own_N)
    sources = [chosen.sources[index] for index in image_N.tolist()]
    method = options.method
    asked = "table" if options.table else classes.in_short(chosen, options)
    asked += f" to {' '.join(options.target)}" if options.target else ""
    for budget in settings.pop("budget", [None]):  # each is a look of its own
        within = settings if budget is None else {**settings, "budget": budget}
        pairs = attack(subject, chosen.pixels_NCHW[image_N], own_N[image_N], wanted_N, method, within)
        told = summary(pairs)
        numbers = {"method": method, **within, "pairs": len(sources), **told, "images": _rows(subject, pairs, sources)}
        figure = _table(subject, pairs) if options.table else _picture(subject, pairs)
        what = " ".join(["adversarial", method, *([f"{budget:g}"] if budget else []), asked])
        output.keep(subject, what, figure, numbers, options, _caption(subject, method, within, told, pairs))
    return 0


def _parser(word: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"litlab explain {word}", add_help=False, allow_abbrev=False)
    parser.add_argument("--target", nargs="+", default=[])
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--method", choices=DEFAULTS, default="nearest")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--lr", type=float)
    parser.add_argument("--strength", type=float)
    parser.add_argument("--confidence", type=float)
    parser.add_argument("--budget", nargs="+", type=float)
    images.add_options(parser)
    return parser


def _settings(options: argparse.Namespace) -> dict[str, Any]:
    """What the method goes by, with its defaults; refuses what it does not heed."""
    heeded = DEFAULTS[options.method]
    given = {name: getattr(options, name) for name in ("steps", "lr", "strength", "confidence", "budget")}
    for name, value in given.items():
        if value is not None and name not in heeded:
            raise UserError(f"--{name} does not go with --method {options.method}, which has --{', --'.join(heeded)}")
        values = [] if value is None else value if isinstance(value, list) else [value]
        if any(number <= 0 for number in values):
            raise UserError(f"--{name} {value}: it must be above 0")
    if options.confidence is not None and options.confidence >= 1:
        raise UserError(f"--confidence {options.confidence}: below 1")
    if options.table and (options.image or options.images_per_class or options.target):
        raise UserError("--table chooses images and targets itself: no --image, --images-per-class and --target")
    if not (options.table or options.target or options.method in ("fgsm", "pgd")):
        raise UserError(f"--method {options.method} needs --target C, or --table")
    return {name: default if given[name] is None else given[name] for name, default in heeded.items()}


def _pairs(subject: Target, options: argparse.Namespace, own_N: Tensor) -> tuple[Tensor, Tensor | None]:
    """Which image each pair has, and which target; every target that is not an image's own class."""
    if not (options.table or options.target):
        return torch.arange(len(own_N)), None
    names = options.target or list(subject.classes)
    targets = [classes.named(subject, "--target", name) for name in names]
    every = [(i, target) for i, own in enumerate(own_N.tolist()) for target in targets if target != own]
    if not every:
        raise UserError(f"--target {' '.join(names)}: that is the class of the image")
    image_N, wanted_N = torch.tensor(every).T
    return image_N, wanted_N.to(own_N.device)


def attack(
    subject: Target,
    pixels_NCHW: Tensor,
    own_N: Tensor,
    wanted_N: Tensor | None,
    method: Method,
    settings: dict[str, Any],
) -> Pairs:
    """Change each image, many at a time.

    Args:
        subject: The network.
        pixels_NCHW: An image for each pair.
        own_N: The class of each.
        wanted_N: The targets; None only for "fgsm" and "pgd", away from the own class.
        method: One of --method.
        settings: Arguments of `descend`, or of `signs`.
    """
    network, changed = subject.whole(), []
    aim_N = own_N if wanted_N is None else wanted_N
    for pixels, aim in zip(_parts(pixels_NCHW), _parts(aim_N), strict=True):
        if method == "nearest" or method == "published":
            changed.append(descend(network, pixels, aim, objective=method, counted=_counted, **settings))
        else:
            changed.append(signs(network, pixels, aim, targeted=wanted_N is not None, **settings))
    changed_NCHW = torch.cat(changed)
    rounded_NCHW = (changed_NCHW * 255).round() / 255
    before, after, rounded = (_seen(subject, x_NCHW) for x_NCHW in (pixels_NCHW, changed_NCHW, rounded_NCHW))
    return Pairs(pixels_NCHW, own_N, wanted_N, changed_NCHW, before, after, rounded.argmax(1))


def _parts(every: Tensor) -> tuple[Tensor, ...]:
    parts: tuple[Tensor, ...] = every.split(TOGETHER)  # type: ignore[no-untyped-call]
    return parts


def _counted(steps: int) -> Iterable[int]:
    return output.track(range(steps), "steps")


@torch.no_grad()
def _seen(subject: Target, pixels_NCHW: Tensor) -> Tensor:
    return torch.cat([subject.probabilities(part) for part in _parts(pixels_NCHW)])


def _rows(subject: Target, pairs: Pairs, sources: Sequence[int | str]) -> list[dict[str, Any]]:
    """What is to know of each pair."""
    l2_N, linf_N = pairs.distances()
    seen_N, rows = pairs.after_NK.argmax(1), []
    for n, source in enumerate(sources):
        own = int(pairs.own_N[n])
        row: dict[str, Any] = {"image": source, "class": subject.classes[own], "seen": subject.classes[int(seen_N[n])]}
        row |= {"p_class_before": float(pairs.before_NK[n, own]), "p_class_after": float(pairs.after_NK[n, own])}
        if pairs.wanted_N is not None:
            wanted = int(pairs.wanted_N[n])
            row |= {"target": subject.classes[wanted]}
            row |= {"p_target_before": float(pairs.before_NK[n, wanted])}
            row |= {"p_target_after": float(pairs.after_NK[n, wanted])}
        rows.append({**row, "l2": float(l2_N[n]), "linf": float(linf_N[n])})
    return rows


def _table(subject: Target, pairs: Pairs) -> "Figure":
    """A row for each class, a column for each target; the images themselves on the diagonal."""
    assert pairs.wanted_N is not None
    count = len(subject.classes)
    figure, axes = output.grid(count**2, count, size=0.7)
    for n, (own, wanted) in enumerate(zip(pairs.own_N.tolist(), pairs.wanted_N.tolist(), strict=True)):
        p = float(pairs.after_NK[n, wanted])
        output.show(axes[own * count + wanted], pairs.changed_NCHW[n], f"{subject.classes[wanted]}\n{p:.2f}")
        output.show(axes[own * count + own], pairs.start_NCHW[n], f"{subject.classes[own]}\nas it is")
    for own in range(count):
        axes[own * (count + 1)].title.set_fontweight("bold")
    return figure


def _picture(subject: Target, pairs: Pairs) -> "Figure":
    """Each image before and after, and the difference: grey is none."""
    shown = min(SHOWN, len(pairs.own_N))
    figure, axes = output.grid(3 * shown, min(6, 3 * shown))
    for n in range(shown):
        difference_CHW = pairs.changed_NCHW[n] - pairs.start_NCHW[n]
        for axis, pixels_CHW, p_K in zip(
            axes[3 * n : 3 * n + 2],
            (pairs.start_NCHW[n], pairs.changed_NCHW[n]),
            (pairs.before_NK[n], pairs.after_NK[n]),
            strict=True,
        ):
            seen = int(p_K.argmax())
            output.show(axis, pixels_CHW, f"{subject.classes[seen]} {float(p_K[seen]):.2f}")
        largest = float(difference_CHW.abs().max())
        stretched_CHW = difference_CHW / (2 * largest or 1) + 0.5
        output.show(axes[3 * n + 2], stretched_CHW, f"difference\nat most {largest:.3f}")
    return figure


def _caption(subject: Target, method: str, settings: dict[str, Any], told: dict[str, float], pairs: Pairs) -> str:
    counted = "1 pair" if len(pairs.own_N) == 1 else f"{len(pairs.own_N)} pairs"
    how = ", ".join(f"{name} {value:g}" for name, value in settings.items())
    aim = "another class than the image's own" if pairs.wanted_N is None else "the target"
    said = (
        f"{subject.name}, method {method} ({how}), {counted} of image and target: {aim} is seen in "
        f"{told['success_rate']:.3f} of them, with p > 0.5 in {told['success_rate_above_half']:.3f}, after rounding to "
        f"8 bits in {told['success_rate_8_bits']:.3f}. p(own class) {told['p_own_before']:.3f} before, "
        f"{told['p_own_after']:.3f} after. "
    )
    if pairs.wanted_N is not None:
        said += f"p(target) {told['p_target_before']:.2g} before, {told['p_target_after']:.3f} after. "
    return said + (
        f"Distance of pixels in [0, 1]: L2 {told['l2_mean']:.3f} on average, {told['l2_max']:.3f} at most; L-infinity "
        f"{told['linf_mean']:.3f} on average, {told['linf_max']:.3f} at most. Of pixels from 0 to 255: root mean "
        f"square {255 * told['rms_mean']:.1f}, L-infinity {255 * told['linf_mean']:.0f} on average, "
        f"{255 * told['linf_max']:.0f} at most."
    )
