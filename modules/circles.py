"""One small network, four ways: what autograd, torch.nn and torch.optim each take off your hands.

Shapes: B examples of a batch, D numbers of an input, H hidden units, K classes.
"""

from collections.abc import Iterable
from typing import Any, Literal, final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from modules.base import Batch, Classifier
from modules.layers import require_widths

Stage = Literal["manual", "autograd", "nn", "optim"]


@final
class CirclesMLP(Classifier):
    """A tanh hidden layer and softmax, D -> H -> K, trained by gradient descent, in four stages.

    1. "manual": forward pass, backward pass and step are written out;
    2. "autograd": the backward pass is torch's;
    3. "nn": so are the layers and the loss;
    4. "optim": so is the step.

    The same seed gives all of them the same first weights, gradients and, but for rounding, results.

    Args:
        input_shape: How many numbers an input has.
        num_classes: K.
        stage: Which of the four.
        hidden: H.
        lr: Learning rate.
    """

    def __init__(
        self, input_shape: tuple[int], num_classes: int, stage: Stage = "manual", hidden: int = 10, lr: float = 0.03
    ) -> None:
        super().__init__(num_classes)
        require_widths("hidden", [hidden])
        if stage not in ("manual", "autograd", "nn", "optim"):
            raise ValueError(f"model.stage is {stage!r}; it must be manual, autograd, nn or optim")
        if lr <= 0:
            raise ValueError(f"model.lr is {lr}; it must be above 0")
        self.stage, self.lr = stage, lr
        self.automatic_optimization = stage == "optim"
        first, second = nn.Linear(input_shape[0], hidden), nn.Linear(hidden, num_classes)
        if stage in ("nn", "optim"):
            self.net = nn.Sequential(first, nn.Tanh(), second)
        else:
            self.W_HD, self.b_H = nn.Parameter(first.weight.detach()), nn.Parameter(first.bias.detach())
            self.W_KH, self.b_K = nn.Parameter(second.weight.detach()), nn.Parameter(second.bias.detach())

    def forward(self, x_BD: Tensor) -> Tensor:
        if self.stage in ("nn", "optim"):
            logits_BK: Tensor = self.net(x_BD)
            return logits_BK
        return self.hidden_units(x_BD) @ self.W_KH.T + self.b_K

    def hidden_units(self, x_BD: Tensor) -> Tensor:
        """Activations of the hidden layer in the hand-written forward pass, shape (B, H)."""
        return torch.tanh(x_BD @ self.W_HD.T + self.b_H)

    def gradients(self, batch: Batch) -> tuple[Tensor, list[Tensor]]:
        """The loss, and its gradient with respect to each of `parameters()`, as this stage computes them."""
        x_BD, labels_B = batch
        if self.stage == "manual":
            return self._by_hand(x_BD, labels_B)
        logits_BK = self(x_BD)
        if self.stage == "autograd":
            loss = (logits_BK.logsumexp(1) - logits_BK[torch.arange(len(labels_B)), labels_B]).mean()
        else:
            loss = F.cross_entropy(logits_BK, labels_B)
        return loss, list(torch.autograd.grad(loss, list(self.parameters())))

    @torch.no_grad()
    def _by_hand(self, x_BD: Tensor, labels_B: Tensor) -> tuple[Tensor, list[Tensor]]:
        B = len(x_BD)
        h_BH = self.hidden_units(x_BD)
        logits_BK = h_BH @ self.W_KH.T + self.b_K
        shifted_BK = logits_BK - logits_BK.amax(1, keepdim=True)  # or exp would overflow
        p_BK = shifted_BK.exp() / shifted_BK.exp().sum(1, keepdim=True)
        y_BK = F.one_hot(labels_B, self.b_K.numel()).to(p_BK.dtype)
        loss = -((shifted_BK - shifted_BK.exp().sum(1, keepdim=True).log()) * y_BK).sum(1).mean()

        d_logits_BK = (p_BK - y_BK) / B
        d_W_KH, d_b_K = d_logits_BK.T @ h_BH, d_logits_BK.sum(0)
        d_preactivations_BH = (d_logits_BK @ self.W_KH) * (1 - h_BH**2)
        d_W_HD, d_b_H = d_preactivations_BH.T @ x_BD, d_preactivations_BH.sum(0)
        return loss, [d_W_HD, d_b_H, d_W_KH, d_b_K]

    def training_step(self, batch: Batch, batch_idx: int) -> Any:
        if self.stage == "optim":
            return super().training_step(batch, batch_idx)
        with torch.no_grad():
            self._step(batch, self.train_metrics)
        loss, gradients = self.gradients(batch)
        if self._is_uneven():
            loss, share = self._weigh(loss, batch)
            gradients = [share * gradient for gradient in gradients]
        for parameter, gradient in zip(self.parameters(), gradients, strict=True):
            # Each process has seen its own part of the batch; what DDP averages in `backward` is averaged here.
            parameter.grad = self.trainer.strategy.reduce(gradient, reduce_op="mean").to(parameter.dtype)
        step = self.optimizers()
        assert not isinstance(step, list)
        step.step()
        return {"loss": loss.detach()}

    def configure_optimizers(self) -> torch.optim.Optimizer:
        if self.stage == "optim":
            return torch.optim.SGD(self.parameters(), lr=self.lr)
        return HandWrittenSGD(self.parameters(), self.lr)


class HandWrittenSGD(torch.optim.Optimizer):
    """A step against the gradient, written out; an optimiser only so that the Trainer counts the steps.

    Args:
        parameters: What to change.
        lr: Learning rate.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float) -> None:
        super().__init__(parameters, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Change each parameter by its gradient times the learning rate."""
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter -= group["lr"] * parameter.grad
