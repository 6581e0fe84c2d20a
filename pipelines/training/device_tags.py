"""Tags with the GPUs of a training, and with settings of torch that change how precisely they compute."""

from collections import Counter
from typing import Any

import torch
from lightning.pytorch import Trainer

from modules.matmul_precision import EXACT, matmul_precision
from pipelines.tracking.tags import CUDNN_TAG, GPUS_TAG, MATMUL_TAG


def device_tags(trainer: Trainer) -> dict[str, str]:
    """Return the tags of a training that begins, of this machine's devices; float32 is recorded if it is not exact."""
    device = trainer.strategy.root_device
    precision = matmul_precision(device)
    matmul = {} if precision == EXACT else {MATMUL_TAG: precision}
    if device.type != "cuda":
        return matmul
    names = Counter(torch.cuda.get_device_name(device) for device in trainer.device_ids)
    return {
        GPUS_TAG: ", ".join(f"{count} x {name}" for name, count in names.items()),
        CUDNN_TAG: cudnn_settings(),
        **matmul,
    }


def cudnn_settings() -> str:
    """Return cuDNN's version, and its settings that change results."""
    cudnn: Any = torch.backends.cudnn
    operations = {"convolutions": cudnn.conv, "RNNs": cudnn.rnn}
    fast = [name for name, operation in operations.items() if operation.fp32_precision == "tf32"]
    tf32 = f"in {fast[0]} only" if len(fast) == 1 else "on" if fast else "off"
    benchmark = "on" if cudnn.benchmark else "off"
    return f"{cudnn.version()}, TF32 {tf32}, benchmark {benchmark}"
