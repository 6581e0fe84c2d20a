"""Tags with the GPUs of a training, and with settings of torch that change how precisely they compute."""

from collections import Counter

import torch
from lightning.pytorch import Trainer

from pipelines.tracking.tags import CUDNN_TAG, GPUS_TAG, MATMUL_TAG


def device_tags(trainer: Trainer) -> dict[str, str]:
    """Return the tags of a training that begins, of this machine's devices; float32 is recorded if it is not exact."""
    precision = torch.get_float32_matmul_precision()
    matmul = {} if precision == "highest" else {MATMUL_TAG: precision}
    if trainer.strategy.root_device.type != "cuda":
        return matmul
    names = Counter(torch.cuda.get_device_name(device) for device in trainer.device_ids)
    cudnn = torch.backends.cudnn
    tf32, benchmark = ("on" if is_on else "off" for is_on in (cudnn.allow_tf32, cudnn.benchmark))
    return {
        GPUS_TAG: ", ".join(f"{count} x {name}" for name, count in names.items()),
        CUDNN_TAG: f"{cudnn.version()}, TF32 {tf32}, benchmark {benchmark}",  # type: ignore[no-untyped-call]
        **matmul,
    }
