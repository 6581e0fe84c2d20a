"""Time of random crop, random flip and standardisation of 50,000 CIFAR-sized images: litlab and torchvision.

    python benchmarks/augmentation.py

litlab augments a batch at a time, with random parameters for each image. torchvision's v2 transforms draw random
parameters once per call, so they are called for each image, as a Dataset with a transform does. Times are medians of
`--repeats` passes.
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
    """Augment a batch at a time, as `ImageDataModule` does."""
    normalize = Normalize(torch.tensor(MEAN), torch.tensor(STD))
    for batch in torch.split(images_NCHW, batch_size):
        normalize(random_flip(random_crop(batch, PADDING)))


def torchvision_per_image(images_NCHW: torch.Tensor, batch_size: int) -> None:
    """Call the transform for each image, then stack a batch."""
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
    """Return the wall time of each repetition, in seconds."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return times


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=500)
    options = parser.parse_args()
    images_NCHW = torch.randint(0, 256, (N, 3, 32, 32), dtype=torch.uint8)
    subset = images_NCHW[: N // 10]  # one call per image is slow, and its time is proportional to the number of images
    ours = seconds(lambda: litlab(images_NCHW, options.batch_size), options.repeats)
    theirs = [10 * t for t in seconds(lambda: torchvision_per_image(subset, options.batch_size), options.repeats)]
    table = Table(title=f"crop, flip, standardise {N:,} images, {torch.get_num_threads()} threads", box=None)
    for column in ("variant", "s (median)", "lowest to highest", "x litlab"):
        table.add_column(column, justify="left" if column == "variant" else "right")
    for name, times in (("litlab", ours), ("torchvision", theirs)):
        spread = f"{min(times):.2f} to {max(times):.2f}"
        table.add_row(name, f"{median(times):.2f}", spread, f"{median(times) / median(ours):.1f}")
    Console().print(table)


if __name__ == "__main__":
    main()
