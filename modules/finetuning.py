"""Abstract module that trains a published network: its weights, frozen parts, and learning rates per layer."""

from pathlib import Path
from typing import Any, Literal

from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer

from modules.base import Batch, Learner
from modules.layer_groups import layer_groups
from modules.networks import find_network
from modules.preprocess import Preprocess
from modules.pretrained_net import PretrainedNet

Freeze = Literal["backbone", "none"] | int


class Finetuning(Learner):
    """Base class of classifiers of images that start from a published network. Its head is replaced.

    The module resizes and normalises images itself, as the weights expect; it takes pixels in [0, 1], so the data must
    not normalise them: `data.normalization: unit`. The published weights are read when a training starts, not when it
    is resumed, nor when a trained model is loaded.

    Args:
        name: Name of a network of torchvision (resnet18) or timm (timm/resnet18.a1_in1k), or the class path of a class
            or function that returns one; see `modules.networks.find_network`.
        pretrained: Whether to start from published weights, which are downloaded if they are missing. Without, all
            weights are random.
        weights: File with the weights to start from, written by torch.save or safetensors; None for the published ones.
        arguments: Arguments of the function that builds the network.
        image_size: Rows and columns to which images are resized; None for those that the weights expect.
        preprocess: Whether to resize and normalise. Without, the network gets the images as the data prepare them.
        freeze: "backbone" trains the head only, "none" everything; a number freezes the backbone for that many epochs.
            Frozen batch norms keep their statistics.
        lr_decay: Factor of the learning rate from each layer to the one before it; the head has the optimiser's rate.
        input_shape: Channels (1 or 3), rows and columns of an image, known from the data.
        **training: Number of classes, loss, optimiser and scheduler, see the other base class.
    """

    def __init__(
        self,
        name: str,
        pretrained: bool = True,
        weights: str | None = None,
        arguments: dict[str, Any] | None = None,
        image_size: int | None = None,
        preprocess: bool = True,
        freeze: Freeze = "none",
        lr_decay: float = 1.0,
        input_shape: tuple[int, ...] | None = None,
        **training: Any,
    ) -> None:
        _check(pretrained, weights, image_size, freeze, lr_decay, input_shape)
        super().__init__(**training)
        self._pretrained, self._freeze, self._lr_decay = pretrained, freeze, lr_decay
        self._file = Path(weights).expanduser() if weights else None
        options: dict[str, Any] = {"image_size": image_size, "preprocess": preprocess}
        try:
            self._architecture = find_network(name, arguments, self._file)
            self.net = PretrainedNet(self._architecture, training["num_classes"], **options)
        except ValueError as error:
            raise ValueError(f"model.name: {error}") from None  # litlab shows the first error of a chain
        self._takes_pixels = preprocess
        self._set_frozen(freeze == "backbone")

    @property
    def image_size(self) -> int | None:
        """Rows and columns to which images are resized; None if they are not."""
        return self.net.preprocess.size if isinstance(self.net.preprocess, Preprocess) else None

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Map images with pixels in [0, 1] to logits of shape (B, K)."""
        logits_BK: Tensor = self.net(images_BCHW)
        return logits_BK

    def load_start(self) -> None:
        """Load the weights to start from, unless others have been loaded, such as those of a checkpoint."""
        if self._pretrained and not self.net.is_loaded:
            self.net.load(self._architecture, self._file)

    def on_fit_start(self) -> None:
        super().on_fit_start()
        self.load_start()  # a checkpoint to continue from has been loaded before

    def on_train_start(self) -> None:
        self._freeze_for_epoch()

    def on_train_epoch_start(self) -> None:
        self._freeze_for_epoch()

    def on_train_end(self) -> None:
        self._set_norms(True)  # Lightning warns of layers in evaluation mode when a training starts

    def _freeze_for_epoch(self) -> None:
        is_frozen = self._freeze == "backbone"
        if isinstance(self._freeze, int):
            is_frozen = self.current_epoch < self._freeze
            self._set_frozen(is_frozen)
        self._set_norms(not is_frozen)

    def _set_frozen(self, is_frozen: bool) -> None:
        for parameter in self.net.backbone_parameters():
            parameter.requires_grad_(not is_frozen)

    def _set_norms(self, training: bool) -> None:
        """Let the batch norms of the backbone update their statistics, or use them as they are."""
        for part in self.net.backbone_parts():
            if isinstance(part, _BatchNorm):
                part.train(training)

    def training_step(self, batch: Batch, batch_idx: int) -> Any:
        images_BCHW = batch[0]
        if self._takes_pixels and batch_idx == 0 and len(images_BCHW):
            _check_pixels(images_BCHW)
        return super().training_step(batch, batch_idx)

    def _build_optimizer(self) -> Optimizer:
        """Build the optimiser; with `lr_decay`, each layer is a parameter group with its own learning rate."""
        if self._lr_decay == 1:
            return super()._build_optimizer()
        head = self.net.head_parameters()
        of_head = set(map(id, head))
        layers = [[item for item in group if id(item) not in of_head] for group in layer_groups(self.net.network)]
        groups = [*filter(None, layers), head]
        optimizer = self._optimizer([{"params": group} for group in groups])
        for depth, group in enumerate(reversed(optimizer.param_groups)):
            group["lr"] = group["lr"] * self._lr_decay**depth
        return optimizer


def _check(
    pretrained: bool,
    weights: str | None,
    image_size: int | None,
    freeze: Freeze,
    lr_decay: float,
    input_shape: tuple[int, ...] | None,
) -> None:
    """Check the arguments of `Finetuning`.

    Raises:
        ValueError: One is out of range, or has no effect beside another one. The message names it.
    """
    if weights and not pretrained:
        raise ValueError("model.weights is a file to start from, but model.pretrained is false: give only one of them")
    if image_size is not None and image_size < 1:
        raise ValueError(f"model.image_size is {image_size}; it must be 1 or more")
    if freeze not in ("backbone", "none") and not (isinstance(freeze, int) and freeze >= 0):
        raise ValueError(f"model.freeze is {freeze!r}; it must be backbone, none or a number of epochs")
    if not 0 < lr_decay <= 1:
        raise ValueError(f"model.lr_decay is {lr_decay}; it must be above 0 and at most 1")
    if lr_decay != 1 and freeze == "backbone":
        raise ValueError("model.lr_decay has no effect if model.freeze is backbone: only the head is trained")
    if input_shape is not None and (len(input_shape) != 3 or input_shape[0] not in (1, 3)):
        raise ValueError(f"the network takes images with 1 or 3 channels; an example has the shape {input_shape}")


def _check_pixels(images_BCHW: Tensor) -> None:
    if not images_BCHW.is_floating_point() or images_BCHW.amin() < 0 or images_BCHW.amax() > 1:
        raise ValueError(
            "the network normalises images itself, from pixels in [0, 1]: set data.normalization to unit; if your data "
            "are normalised as the weights expect, set model.preprocess to false"
        )
