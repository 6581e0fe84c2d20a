"""A published network with a new head, behind the preprocessing that its weights expect.

Shapes: B batch size, C channels, H rows, W columns, K outputs.
"""

from pathlib import Path
from typing import Any

from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor, nn

from modules.architecture import Architecture, load_into, replace_heads
from modules.preprocess import Preprocess


class PretrainedNet(nn.Module):
    """A published network with a new head, behind the preprocessing that its weights expect.

    It starts with random weights; `load` loads others, unless the weights have been loaded in another way, such as from
    a checkpoint.

    Args:
        architecture: The network.
        num_outputs: Outputs of the new head.
        image_size: Rows and columns of the network's input; None for those of the weights.
        preprocess: Whether to preprocess.

    Attributes:
        is_loaded: Whether weights have been loaded.
    """

    def __init__(
        self, architecture: Architecture, num_outputs: int, *, image_size: int | None, preprocess: bool
    ) -> None:
        super().__init__()
        self.is_loaded = False
        format_, network = architecture.input_format, architecture.build(image_size)
        self.preprocess = Preprocess(format_, image_size) if preprocess else nn.Identity()
        self.heads = architecture.heads(network)
        replace_heads(network, self.heads, num_outputs)
        self.network = network
        self.register_load_state_dict_post_hook(_mark_as_loaded)  # type: ignore[no-untyped-call]

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Map images with pixels in [0, 1] to outputs of shape (B, K)."""
        outputs_BK: Tensor = self.network(self.preprocess(images_BCHW))
        return outputs_BK

    def load(self, architecture: Architecture, file: Path | None) -> None:
        """Load the weights of a file, or the published ones, except for the head.

        Raises:
            ValueError, OSError: They cannot be read or downloaded, or are those of another network.
        """
        with isolate_rng():
            state = architecture.read(file) if file else architecture.download()
        load_into(self.network, state, but=self.heads, source=str(file or architecture.source))
        self.is_loaded = True

    def backbone_parts(self) -> list[nn.Module]:
        """Return all modules that are neither the head nor hold it."""
        heads = [self.network.get_submodule(head) for head in self.heads]
        return [part for part in self.network.modules() if not any(head in part.modules() for head in heads)]

    def head_parameters(self) -> list[nn.Parameter]:
        return [parameter for head in self.heads for parameter in self.network.get_submodule(head).parameters()]

    def backbone_parameters(self) -> list[nn.Parameter]:
        heads = set(map(id, self.head_parameters()))
        return [parameter for parameter in self.network.parameters() if id(parameter) not in heads]


def _mark_as_loaded(net: nn.Module, _: Any) -> None:
    net.is_loaded = True  # type: ignore[assignment]
