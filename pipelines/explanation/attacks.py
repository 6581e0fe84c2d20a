"""Images changed so that a network sees another class: descent on the published objective, and signs of gradients.

An attack takes a network from pixels in [0, 1] to logits, and leaves pixels in [0, 1]; `summary` says what came of it.

Shapes: N images, C channels, H rows, W columns, K classes.
"""

import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

STRENGTH = 500_000 / 255  # published with pixels from 0 to 255, where the distance counts 255 times as much
PGD_STEP = 2.5  # of PGD, in budgets divided by steps, so that the border can be reached (Madry et al., 2018)
Objective = Literal["nearest", "published"]
Steps = Callable[[int], Iterable[int]]


@dataclass
class Pairs:
    """Images and the classes that are wanted of them, before and after.

    Attributes:
        start_NCHW: The images.
        own_N: The class of each.
        wanted_N: The targets; None where any other class will do.
        changed_NCHW: What became of the images.
        before_NK: Probabilities of the images.
        after_NK: Probabilities of what became of them.
        rounded_N: The class that is seen when pixels are rounded to 8 bits.
    """

    start_NCHW: Tensor
    own_N: Tensor
    wanted_N: Tensor | None
    changed_NCHW: Tensor
    before_NK: Tensor
    after_NK: Tensor
    rounded_N: Tensor

    def distances(self) -> tuple[Tensor, Tensor]:
        """L2 and L-infinity distance of each, of pixels in [0, 1]."""
        difference_ND = (self.changed_NCHW - self.start_NCHW).flatten(1)
        return difference_ND.norm(dim=1), difference_ND.abs().amax(1)

    def reached(self, seen_N: Tensor) -> Tensor:
        """Whether these classes are what was wanted, shape (N,)."""
        return seen_N != self.own_N if self.wanted_N is None else seen_N == self.wanted_N


def descend(
    network: nn.Module,
    pixels_NCHW: Tensor,
    targets_N: Tensor,
    *,
    objective: Objective = "nearest",
    strength: float | None = None,
    confidence: float = 0.6,
    steps: int = 200,
    lr: float = 0.01,
    counted: Steps = range,
) -> Tensor:
    """Gradient descent (Adam) from each image towards its target class b, at a small distance; shape (N, C, H, W).

    "published" minimises -strength * p(b) + ||x - x0|| and gives the last x. Where p(b) is so small at x0 that its
    gradient is less than the distance's, it stays there.

    "nearest" minimises strength * max(0, logit(confidence) - logit p(b)) + ||x - x0||: the log-odds have a gradient
    wherever x begins and however high p(b) is, and once the target is reached only the distance counts. It gives the
    nearest x on the way with p(b) of at least `confidence`, or where there is none the x with the highest p(b).

    Args:
        network: Frozen, in evaluation mode.
        pixels_NCHW: Where the descent begins, x0.
        targets_N: Class b of each image.
        objective: Which of the two.
        strength: What the probability counts against the Euclidean distance of pixels in [0, 1]; None is STRENGTH
            for "published", 1 for "nearest".
        confidence: Of "nearest": when the target counts as reached.
        steps: Number of steps.
        lr: Of Adam, in pixels in [0, 1]; it falls to nothing along half a cosine.
        counted: Gives the numbers of the steps, and may draw a progress bar.
    """
    strength = strength if strength is not None else STRENGTH if objective == "published" else 1.0
    x = pixels_NCHW.clone().requires_grad_()
    adam = torch.optim.Adam([x], lr=lr, betas=(0.9, 0.99), eps=1e-12)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adam, steps)
    best = _Best(pixels_NCHW, confidence)
    for _ in counted(steps):
        odds_N = _log_odds(network, x, targets_N)
        best.see(x, odds_N)
        if objective == "published":
            aim_N = -strength * odds_N.sigmoid()
        else:
            aim_N = strength * (torch.tensor(confidence).logit() - odds_N).clamp(min=0)
        (x.grad,) = torch.autograd.grad((aim_N + _distances(x - pixels_NCHW)).sum(), x)
        adam.step()
        schedule.step()
        x.data.clamp_(0, 1)
    with torch.no_grad():
        best.see(x, _log_odds(network, x, targets_N))
    return x.detach() if objective == "published" else best.x


class _Best:
    """The nearest of the images seen that reach the target, or the one that comes closest to reaching it."""

    def __init__(self, pixels_NCHW: Tensor, confidence: float) -> None:
        self.x, self._start = pixels_NCHW.clone(), pixels_NCHW
        self._enough = torch.tensor(confidence).logit()
        self._rank_N = torch.full((len(pixels_NCHW),), torch.inf, device=pixels_NCHW.device)

    @torch.no_grad()
    def see(self, x: Tensor, odds_N: Tensor) -> None:
        missing_N = (self._enough - odds_N).clamp(min=0)
        farthest = self._start[0].numel() ** 0.5  # so any that reaches the target is before any that does not
        rank_N = torch.where(missing_N > 0, farthest + missing_N, _distances(x - self._start))
        better_N = rank_N < self._rank_N
        self._rank_N = torch.where(better_N, rank_N, self._rank_N)
        self.x[better_N] = x[better_N]


def signs(
    network: nn.Module,
    pixels_NCHW: Tensor,
    classes_N: Tensor,
    *,
    budget: float,
    targeted: bool,
    steps: int = 1,
) -> Tensor:
    """FGSM (one step) or PGD (several) of captum: no pixel changes by more than the budget; shape (N, C, H, W).

    Args:
        network: Frozen, in evaluation mode.
        pixels_NCHW: Where it begins.
        classes_N: The classes to be seen if targeted, otherwise the true ones, not to be seen.
        budget: L-infinity distance, in pixels in [0, 1].
        targeted: Whether to lower the cross-entropy of the classes, or to raise it.
        steps: 1 is FGSM; more are PGD, with steps of PGD_STEP * budget / steps.
    """
    from captum.robust import FGSM, PGD

    loss = nn.CrossEntropyLoss(reduction="none")
    one, many = FGSM(network, loss, 0.0, 1.0), PGD(network, loss, 0.0, 1.0)
    one.zero_thresh = many.fgsm.zero_thresh = 0.0  # captum's 1e-6 would leave images alone of which the network is sure
    start = pixels_NCHW.clone()  # captum asks for gradients of what it is given, and warns that it does
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Input Tensor .* did not already require gradients")
        if steps == 1:
            changed: Tensor = one.perturb(start, budget, classes_N, targeted=targeted)
        else:
            step = PGD_STEP * budget / steps
            changed = many.perturb(start, budget, step, steps, classes_N, targeted=targeted)
    return changed.detach()


def summary(pairs: Pairs) -> dict[str, float]:
    """Success rates, and means over all pairs of probabilities and distances."""
    seen_N, rows = pairs.after_NK.argmax(1), range(len(pairs.own_N))
    reached_N = pairs.reached(seen_N)
    certain_N = reached_N & (pairs.after_NK.amax(1) > 0.5)
    l2_N, linf_N = pairs.distances()
    told = {
        "success_rate": reached_N.double().mean(),
        "success_rate_above_half": certain_N.double().mean(),
        "success_rate_8_bits": pairs.reached(pairs.rounded_N).double().mean(),
        "p_own_before": pairs.before_NK[rows, pairs.own_N].mean(),
        "p_own_after": pairs.after_NK[rows, pairs.own_N].mean(),
        "l2_mean": l2_N.mean(),
        "l2_max": l2_N.max(),
        "rms_mean": l2_N.mean() / pairs.start_NCHW[0].numel() ** 0.5,
        "linf_mean": linf_N.mean(),
        "linf_max": linf_N.max(),
    }
    if pairs.wanted_N is not None:
        told["p_target_before"] = pairs.before_NK[rows, pairs.wanted_N].mean()
        told["p_target_after"] = pairs.after_NK[rows, pairs.wanted_N].mean()
    return {name: float(value) for name, value in told.items()}


def _log_odds(network: nn.Module, x_NCHW: Tensor, classes_N: Tensor) -> Tensor:
    """Log-odds, log p - log(1 - p), of each image's class, exact where p is near 0 or 1."""
    logits_NK: Tensor = network(x_NCHW)
    own_N = logits_NK.gather(1, classes_N[:, None])[:, 0]
    return own_N - logits_NK.scatter(1, classes_N[:, None], -torch.inf).logsumexp(1)


def _distances(difference_NCHW: Tensor) -> Tensor:
    """Euclidean length, whose gradient at 0 is 0."""
    lengths_N: Tensor = torch.linalg.vector_norm(difference_NCHW.flatten(1), dim=1)
    return lengths_N
