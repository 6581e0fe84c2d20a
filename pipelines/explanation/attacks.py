"""Attacks: images changed so that a network predicts another class, by gradient descent or by gradient signs.

An attack takes a network from pixels in [0, 1] to logits, and returns pixels in [0, 1].

Shapes: N images, C channels, H rows, W columns, K classes.
"""

import warnings
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from pipelines.explanation.figures import track
from pipelines.explanation.settings import ATTACKS

PGD_STEP = 2.5  # of PGD, in budgets divided by steps, so that the border can be reached (Madry et al., 2018)
Objective = Literal["nearest", "published"]


@dataclass
class AttackResult:
    """Pairs of an image and a target class, before and after an attack.

    Attributes:
        start_NCHW: The images.
        true_N: The true class of each.
        target_N: The target class of each; None if any class but the true one counts.
        changed_NCHW: The changed images.
        before_NK: Probabilities of the images.
        after_NK: Probabilities of the changed images.
        rounded_N: The predicted class after rounding the changed pixels to 8 bits.
    """

    start_NCHW: Tensor
    true_N: Tensor
    target_N: Tensor | None
    changed_NCHW: Tensor
    before_NK: Tensor
    after_NK: Tensor
    rounded_N: Tensor

    def __len__(self) -> int:
        return len(self.true_N)

    def distances(self) -> tuple[Tensor, Tensor]:
        """Return the L2 and the L-infinity distance of each pair, for pixels in [0, 1]."""
        difference_ND = (self.changed_NCHW - self.start_NCHW).flatten(1)
        return difference_ND.norm(dim=1), difference_ND.abs().amax(1)

    def succeeded(self, predicted_N: Tensor) -> Tensor:
        """Return whether these predictions are what the attack aims at, shape (N,)."""
        return predicted_N != self.true_N if self.target_N is None else predicted_N == self.target_N

    def summarize(self) -> dict[str, float]:
        """Return success rates, and mean probabilities and distances over all pairs."""
        predicted_N, rows = self.after_NK.argmax(1), range(len(self))
        succeeded_N = self.succeeded(predicted_N)
        above_half_N = succeeded_N & (self.after_NK.amax(1) > 0.5)
        l2_N, linf_N = self.distances()
        values = {
            "success_rate": succeeded_N.double().mean(),
            "success_rate_above_half": above_half_N.double().mean(),
            "success_rate_8_bits": self.succeeded(self.rounded_N).double().mean(),
            "p_own_before": self.before_NK[rows, self.true_N].mean(),
            "p_own_after": self.after_NK[rows, self.true_N].mean(),
            "l2_mean": l2_N.mean(),
            "l2_max": l2_N.max(),
            "rms_mean": l2_N.mean() / self.start_NCHW[0].numel() ** 0.5,
            "linf_mean": linf_N.mean(),
            "linf_max": linf_N.max(),
        }
        if self.target_N is not None:
            values["p_target_before"] = self.before_NK[rows, self.target_N].mean()
            values["p_target_after"] = self.after_NK[rows, self.target_N].mean()
        return {name: float(value) for name, value in values.items()}


def gradient_descent(
    network: nn.Module,
    pixels_NCHW: Tensor,
    targets_N: Tensor,
    *,
    objective: Objective = "nearest",
    strength: float | None = None,
    confidence: float = 0.6,
    steps: int = 200,
    lr: float = 0.01,
) -> Tensor:
    """Change each image towards its target class b at a small distance, with Adam; shape (N, C, H, W).

    "published" minimises -strength * p(b) + ||x - x0|| and returns the last x. Where p(b) is so small at x0 that its
    gradient is smaller than that of the distance, x stays there.

    "nearest" minimises strength * max(0, logit(confidence) - logit p(b)) + ||x - x0||: the log-odds have a gradient
    at any p(b), and once the target is reached only the distance counts. It returns the nearest x on the way whose
    p(b) is at least `confidence`, or, if there is none, the x with the highest p(b).

    Args:
        network: Frozen, in evaluation mode.
        pixels_NCHW: The images, x0.
        targets_N: Class b of each image.
        objective: "nearest" or "published".
        strength: Factor of the probability, relative to the Euclidean distance of pixels in [0, 1]; None is that of
            ATTACKS.
        confidence: For "nearest": the probability at which the target counts as reached.
        steps: Number of steps.
        lr: Of Adam, for pixels in [0, 1]; it decays to 0 along half a cosine.
    """
    strength = ATTACKS[objective]["strength"] if strength is None else strength
    x = pixels_NCHW.clone().requires_grad_()
    adam = torch.optim.Adam([x], lr=lr, betas=(0.9, 0.99), eps=1e-12)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adam, steps)
    best = _BestImages(pixels_NCHW, confidence)
    for _ in track(range(steps), "steps"):
        log_odds_N = _log_odds(network, x, targets_N)
        best.update(x, log_odds_N)
        if objective == "published":
            loss_N = -strength * log_odds_N.sigmoid()
        else:
            loss_N = strength * (torch.tensor(confidence).logit() - log_odds_N).clamp(min=0)
        (x.grad,) = torch.autograd.grad((loss_N + _euclidean_norm(x - pixels_NCHW)).sum(), x)
        adam.step()
        schedule.step()
        x.data.clamp_(0, 1)
    with torch.no_grad():
        best.update(x, _log_odds(network, x, targets_N))
    return x.detach() if objective == "published" else best.x


class _BestImages:
    """For each pair the nearest image that reaches the target, or the one with the highest probability of it."""

    def __init__(self, pixels_NCHW: Tensor, confidence: float) -> None:
        self.x, self._start = pixels_NCHW.clone(), pixels_NCHW
        self._required_log_odds = torch.tensor(confidence).logit()
        self._rank_N = torch.full((len(pixels_NCHW),), torch.inf, device=pixels_NCHW.device)

    @torch.no_grad()
    def update(self, x: Tensor, log_odds_N: Tensor) -> None:
        missing_N = (self._required_log_odds - log_odds_N).clamp(min=0)
        max_distance = self._start[0].numel() ** 0.5  # ranks any image that reaches the target before all others
        rank_N = torch.where(missing_N > 0, max_distance + missing_N, _euclidean_norm(x - self._start))
        better_N = rank_N < self._rank_N
        self._rank_N[better_N], self.x[better_N] = rank_N[better_N], x[better_N]


def fgsm_or_pgd(
    network: nn.Module,
    pixels_NCHW: Tensor,
    classes_N: Tensor,
    *,
    budget: float,
    targeted: bool,
    steps: int = 1,
) -> Tensor:
    """Apply captum's FGSM (one step) or PGD (several): no pixel changes by more than the budget; shape (N, C, H, W).

    Args:
        network: Frozen, in evaluation mode.
        pixels_NCHW: The images.
        classes_N: The target classes if targeted, otherwise the true classes, to move away from.
        budget: L-infinity distance, for pixels in [0, 1].
        targeted: Whether to decrease the cross-entropy of the classes, or to increase it.
        steps: More than 1 are PGD, with steps of PGD_STEP * budget / steps.
    """
    from captum.robust import FGSM, PGD

    loss = nn.CrossEntropyLoss(reduction="none")
    fgsm, pgd = FGSM(network, loss, 0.0, 1.0), PGD(network, loss, 0.0, 1.0)
    fgsm.zero_thresh = pgd.fgsm.zero_thresh = 0.0  # captum's 1e-6 would skip images of which the network is certain
    start = pixels_NCHW.clone()  # captum sets requires_grad on its input, and warns of it
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Input Tensor .* did not already require gradients")
        if steps == 1:
            changed: Tensor = fgsm.perturb(start, budget, classes_N, targeted=targeted)
        else:
            step = PGD_STEP * budget / steps
            changed = pgd.perturb(start, budget, step, steps, classes_N, targeted=targeted)
    return changed.detach()


def _log_odds(network: nn.Module, x_NCHW: Tensor, classes_N: Tensor) -> Tensor:
    """Return the log-odds, log p - log(1 - p), of each image's class, exact where p is near 0 or 1."""
    logits_NK: Tensor = network(x_NCHW)
    class_logits_N = logits_NK.gather(1, classes_N[:, None])[:, 0]
    return class_logits_N - logits_NK.scatter(1, classes_N[:, None], -torch.inf).logsumexp(1)


def _euclidean_norm(difference_NCHW: Tensor) -> Tensor:
    """Return the Euclidean norm of each image, shape (N,). Its gradient at 0 is 0."""
    norms_N: Tensor = torch.linalg.vector_norm(difference_NCHW.flatten(1), dim=1)
    return norms_N
