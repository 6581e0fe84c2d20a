"""Cost of augmentation, tracking and reduced precision: seconds per epoch of cifar-augmented and of a raw loop.

    python benchmarks/cifar.py --data-dir data

The raw loop trains the same network (litlab's layers, SGD, batch 64) in float32 on normalised tensors in memory,
without augmentation and without a framework. litlab crops, flips, standardises, validates, tracks and saves
checkpoints, once in float32 and once with bf16-mixed precision. There are --n-train training images and 5,000
validation images. --accuracy trains both precisions with three seeds each, and compares accuracies instead of times.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

if any(token.startswith("--one=litlab") for token in sys.argv):  # as the command does: before torch is imported
    from pipelines.cli import limit_thread_spinning

    limit_thread_spinning()

import torch
from epochs import fit, mark, measure_in_turn, print_epoch_times, report
from fresh import LITLAB
from torch.nn import functional as F

N_VAL, BATCH, EVAL_BATCH, LR = 5_000, 64, 500, 0.1
REDUCED = {"trainer.precision": "bf16-mixed"}
SEEDS = 3


def raw(args: argparse.Namespace) -> None:
    """Train with a hand-written loop, without a framework and without augmentation."""
    from datamodules.cifar10 import CIFAR10
    from modules.convnet import ConvNet

    data = CIFAR10(str(args.data_dir), n_val=N_VAL, n_train=args.n_train)
    data.setup("fit")
    assert data.normalize is not None
    parts = [(data.normalize(part.inputs), part.targets) for part in (data.train_set, data.val_set)]
    (train_x, train_y), (val_x, val_y) = parts
    net = ConvNet((3, 32, 32), 10, channels=(32, 64, 64), kernel_size=5, hidden=(1000,)).net
    optimizer = torch.optim.SGD(net.parameters(), lr=LR)
    for epoch in range(args.epochs):
        mark()
        net.train()
        loss_sum, correct = torch.zeros(()), torch.zeros((), dtype=torch.int64)
        for indices in torch.randperm(len(train_y)).split(BATCH):
            optimizer.zero_grad()
            logits = net(train_x[indices])
            loss = F.cross_entropy(logits, train_y[indices])
            loss.backward()
            optimizer.step()
            loss_sum += loss.detach() * len(indices)
            correct += (logits.argmax(1) == train_y[indices]).sum()
        net.eval()
        with torch.no_grad():
            val = torch.cat([net(x).argmax(1) for x in val_x.split(EVAL_BATCH)])
        print(f"epoch {epoch}  loss {loss_sum / len(train_y):.4f}  acc {correct / len(train_y):.4f}", end="  ")
        print(f"val_acc {(val == val_y).float().mean():.4f}")
    mark()


def litlab(args: argparse.Namespace, **overrides: str) -> None:
    """Run `litlab fit cifar-augmented`."""
    options = {"data.data_dir": args.data_dir, "data.n_val": N_VAL, "data.n_train": args.n_train}
    fit("cifar-augmented", {**options, "trainer.max_epochs": args.epochs, **overrides})


VARIANTS = {"raw": raw, "litlab": litlab, "litlab-bf16": lambda args: litlab(args, **REDUCED)}


def accuracies(args: argparse.Namespace) -> int:
    """Train both precisions with the same seeds, and run `litlab compare` on them."""
    with tempfile.TemporaryDirectory() as folder:
        uri = ["--tracking_uri", f"sqlite:///{folder}/mlflow.db"]
        options = {"data.data_dir": args.data_dir, "data.n_train": args.n_train, "trainer.max_epochs": args.epochs}
        arguments = [f"--{key}={value}" for key, value in options.items()]
        for extra in ([], [f"--{key}={value}" for key, value in REDUCED.items()]):
            command = ["fit", "cifar-augmented", "--seeds", str(SEEDS), *arguments, *extra, *uri]
            subprocess.run([sys.executable, *LITLAB, *command], check=True, stdout=subprocess.DEVNULL)
        compare = ["compare", "cifar-augmented", "--by", "trainer.precision", *uri]
        return subprocess.run([sys.executable, *LITLAB, *compare], check=False).returncode


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, default=Path("data"), help="folder that contains CIFAR-10")
    parser.add_argument("--n-train", type=int, default=10_000)
    parser.add_argument("--epochs", type=int, default=3, help="per process; the first is not counted")
    parser.add_argument("--repeats", type=int, default=2, help="processes per variant")
    parser.add_argument("--accuracy", action="store_true", help="compare accuracies over seeds instead of seconds")
    parser.add_argument("--one", choices=VARIANTS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.data_dir = args.data_dir.resolve()
    if args.one:
        VARIANTS[args.one](args)
        print_epoch_times()
        return 0
    if args.accuracy:
        return accuracies(args)
    options = {"data-dir": args.data_dir, "n-train": args.n_train, "epochs": args.epochs}
    epochs = measure_in_turn(__file__, dict.fromkeys(VARIANTS, options), args.repeats)
    title = f"cifar-augmented, {args.n_train:,} images, torch {torch.__version__}, {torch.get_num_threads()} threads"
    report(epochs, title, [("litlab", "raw", 1.1), ("litlab-bf16", "raw", 0.5)])
    return 0


if __name__ == "__main__":
    sys.exit(main())
