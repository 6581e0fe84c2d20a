"""What a random crop, a random flip and standardisation cost for 50,000 CIFAR-sized images, against torchvision's way.

    python benchmarks/augmentation.py

litlab's works on whole batches, with one draw per image. torchvision's v2 transforms draw once per call, so that a draw
per image means a call per image; that is what a Dataset with a transform does. The medians are of `--repeats` passes.
"""

import argparse
import time
from collections.abc import Callable
from statistics import median

import torch
from rich.console import Console
from rich.table import Table
from torchvision.transforms import v2

from datamodules.augment import random_crop, random_flip
from datamodules.normalize import Normalize

N, PADDING = 50_000, 4
MEAN, STD = (0.49, 0.48, 0.45), (0.25, 0.24, 0.26)


def litlab(images_NCHW: torch.Tensor, batch_size: int) -> None:
    """Whole batches, as `ImageDataModule` does."""
    normalize = Normalize(torch.tensor(MEAN), torch.tensor(STD))
    for batch in torch.split(images_NCHW, batch_size):
        normalize(random_flip(random_crop(batch, PADDING)))


def usual(images_NCHW: torch.Tensor, batch_size: int) -> None:
    """One call per image, then a batch of them."""
    transform = v2.Compose(
        [
            v2.RandomCrop(32, padding=PADDING),
            v2.RandomHorizontalFlip(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(MEAN, STD),
        ]
    )
    for batch in torch.split(images_NCHW, batch_size):
        torch.stack([transform(image) for image in batch])


def seconds(work: Callable[[], None], repeats: int) -> list[float]:
    """Wall time of each repetition."""
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return times


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=500)
    options = parser.parse_args()
    images_NCHW = torch.randint(0, 256, (N, 3, 32, 32), dtype=torch.uint8)
    few = images_NCHW[: N // 10]  # the usual way is slow, and even
    ours = seconds(lambda: litlab(images_NCHW, options.batch_size), options.repeats)
    theirs = [10 * t for t in seconds(lambda: usual(few, options.batch_size), options.repeats)]
    table = Table(title=f"crop, flip, standardise {N:,} images, {torch.get_num_threads()} threads", box=None)
    for column in ("way", "s (median)", "lowest to highest", "x litlab"):
        table.add_column(column, justify="left" if column == "way" else "right")
    for name, times in (("litlab", ours), ("usual", theirs)):
        spread = f"{min(times):.2f} to {max(times):.2f}"
        table.add_row(name, f"{median(times):.2f}", spread, f"{median(times) / median(ours):.1f}")
    Console().print(table)


if __name__ == "__main__":
    main()
