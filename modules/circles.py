"""One small network written in four ways, to show what autograd, torch.nn and torch.optim each do for you.

Shapes: B batch size, D input features, H hidden units, K classes.
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
    """MLP with one tanh hidden layer and softmax, D -> H -> K, trained by SGD, in one of four stages.

    1. "manual": forward pass, backward pass and optimiser step are written by hand;
    2. "autograd": the backward pass is autograd's;
    3. "nn": the layers and the loss are also torch's;
    4. "optim": the optimiser step is also torch's.

    With the same seed, all stages have the same initial weights and gradients and, up to rounding, the same results.

    Args:
        input_shape: Number of input features, D, as a tuple.
        num_classes: Number of classes, K.
        stage: One of the four stages.
        hidden: Number of hidden units, H.
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
        return self.hidden_activations(x_BD) @ self.W_KH.T + self.b_K

    def hidden_activations(self, x_BD: Tensor) -> Tensor:
        """Return the hidden activations of the hand-written forward pass, shape (B, H)."""
        return torch.tanh(x_BD @ self.W_HD.T + self.b_H)

    def gradients(self, batch: Batch) -> tuple[Tensor, list[Tensor]]:
        """Return the loss and its gradient with respect to each of `parameters()`, as computed in this stage."""
        x_BD, labels_B = batch
        if self.stage == "manual":
            return self._manual_gradients(x_BD, labels_B)
        logits_BK = self(x_BD)
        if self.stage == "autograd":
            loss = (logits_BK.logsumexp(1) - logits_BK[torch.arange(len(labels_B)), labels_B]).mean()
        else:
            loss = F.cross_entropy(logits_BK, labels_B)
        return loss, list(torch.autograd.grad(loss, list(self.parameters())))

    @torch.no_grad()
    def _manual_gradients(self, x_BD: Tensor, labels_B: Tensor) -> tuple[Tensor, list[Tensor]]:
        B = len(x_BD)
        h_BH = self.hidden_activations(x_BD)
        logits_BK = h_BH @ self.W_KH.T + self.b_K
        shifted_BK = logits_BK - logits_BK.amax(1, keepdim=True)  # avoids overflow in exp
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
            loss, weight = self._scale_for_uneven_batch(loss, batch)
            gradients = [weight * gradient for gradient in gradients]
        for parameter, gradient in zip(self.parameters(), gradients, strict=True):
            # DDP averages gradients in `backward`, which does not run here.
            parameter.grad = self.trainer.strategy.reduce(gradient, reduce_op="mean").to(parameter.dtype)
        optimizer = self.optimizers()
        assert not isinstance(optimizer, list)
        optimizer.step()
        return {"loss": loss.detach()}

    def configure_optimizers(self) -> torch.optim.Optimizer:
        if self.stage == "optim":
            return torch.optim.SGD(self.parameters(), lr=self.lr)
        return HandWrittenSGD(self.parameters(), self.lr)


class HandWrittenSGD(torch.optim.Optimizer):
    """Plain SGD, written by hand. It is a torch optimiser so that the Trainer counts its steps.

    Args:
        parameters: Parameters to update.
        lr: Learning rate.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float) -> None:
        super().__init__(parameters, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Subtract the gradient times the learning rate from each parameter."""
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter -= group["lr"] * parameter.grad
