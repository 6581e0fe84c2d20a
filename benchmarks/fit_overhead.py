"""Overhead of litlab: seconds per epoch of mnist-mlp with a raw PyTorch loop, litlab, and usual Lightning code.

    python benchmarks/fit_overhead.py --data-dir data

Each training runs in a separate process, in a temporary folder, on the CPU, with a progress bar as on a terminal. The
three variants alternate. All train 784-256-128-10 with fused Adam on 55,000 images and validate on 5,000 images after
each epoch. The time of an epoch is from its start to the start of the next epoch, so it includes validation,
checkpoints and tracking. The first epoch is not counted.

Run nothing else at the same time: torch's threads spin while they wait for each other, so other processes increase even
the CPU seconds many times over. OMP_NUM_THREADS=1 applies to all variants and makes CPU seconds comparable on a busy
machine.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

if "--one=litlab" in sys.argv:  # as the command does: before torch is imported
    from pipelines.cli import limit_thread_spinning

    limit_thread_spinning()

import torch  # but not lightning: it slows Adam down in every process that imports it, and `raw` must not be affected
from epochs import fit, mark, measure_in_turn, print_epoch_times, report
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision import transforms
from torchvision.datasets import MNIST

N_TRAIN, N_VAL, EVAL_BATCH_SIZE = 55_000, 5_000, 500
MEAN, STD = 0.1307, 0.3081  # of the pixels of MNIST's training set
MAX_USUAL_EPOCHS = 3  # they are slow and vary little
TARGETS = {500: 1.15, 64: 1.5}  # highest ratio of litlab to raw, by batch size


def mlp() -> nn.Sequential:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, 10)
    )


def raw(data_dir: str, batch_size: int, epochs: int) -> None:
    """Train with a hand-written loop, without a framework: normalised tensors in memory, batches taken by index."""
    mnist = MNIST(data_dir)
    x, y = (mnist.data[:, None].float() / 255 - MEAN) / STD, mnist.targets
    train_x, train_y, val_x, val_y = x[:N_TRAIN], y[:N_TRAIN], x[N_TRAIN:], y[N_TRAIN:]
    model = mlp()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
    for epoch in range(epochs):
        mark()
        model.train()
        loss_sum, correct = torch.zeros(()), torch.zeros((), dtype=torch.int64)
        for indices in torch.randperm(N_TRAIN).split(batch_size):
            batch_x, batch_y = train_x[indices], train_y[indices]
            optimizer.zero_grad()
            logits = model(batch_x)
            loss = F.cross_entropy(logits, batch_y)
            loss.backward()
            optimizer.step()
            loss_sum += loss.detach() * len(indices)
            correct += (logits.argmax(1) == batch_y).sum()
        model.eval()
        val_loss_sum, val_correct = torch.zeros(()), torch.zeros((), dtype=torch.int64)
        with torch.no_grad():
            for batch_x, batch_y in zip(val_x.split(EVAL_BATCH_SIZE), val_y.split(EVAL_BATCH_SIZE), strict=True):
                logits = model(batch_x)
                val_loss_sum += F.cross_entropy(logits, batch_y) * len(batch_y)
                val_correct += (logits.argmax(1) == batch_y).sum()
        print(f"epoch {epoch}  loss {loss_sum / N_TRAIN:.4f}  acc {correct / N_TRAIN:.4f}", end="  ")
        print(f"val_loss {val_loss_sum / N_VAL:.4f}  val_acc {val_correct / N_VAL:.4f}")
    mark()


def litlab(data_dir: str, batch_size: int, epochs: int) -> None:
    """Run `litlab fit mnist-mlp`."""
    options = {
        "data.data_dir": data_dir,
        "data.batch_size": batch_size,
        "data.n_val": N_VAL,
        "model.hidden": "[256, 128]",
        "model.lr_scheduler": "null",
        "model.optimizer.lr": 1e-3,
        "trainer.max_epochs": epochs,
    }
    fit("mnist-mlp", options)


def usual(data_dir: str, batch_size: int, epochs: int) -> None:
    """Train as in tutorials: torchvision's dataset and transforms, a DataLoader, metrics logged in each step."""
    from lightning.pytorch import LightningModule, Trainer
    from lightning.pytorch.callbacks import LambdaCallback
    from lightning.pytorch.loggers import MLFlowLogger
    from torch.utils.data import DataLoader, random_split
    from torchmetrics.classification import MulticlassAccuracy

    class Classifier(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = mlp()
            self.train_acc, self.val_acc = MulticlassAccuracy(10), MulticlassAccuracy(10)

        def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
            x, y = batch
            logits = self.net(x)
            loss = F.cross_entropy(logits, y)
            self.train_acc(logits, y)
            self.log("train_loss", loss, prog_bar=True)
            self.log("train_acc", self.train_acc, on_step=False, on_epoch=True)
            return loss

        def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
            x, y = batch
            logits = self.net(x)
            self.val_acc(logits, y)
            self.log("val_loss", F.cross_entropy(logits, y), prog_bar=True)
            self.log("val_acc", self.val_acc, prog_bar=True)

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.Adam(self.parameters(), lr=1e-3, fused=True)

    transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize((MEAN,), (STD,))])
    train, val = random_split(MNIST(data_dir, transform=transform), [N_TRAIN, N_VAL])
    logger = MLFlowLogger("mnist-mlp", tracking_uri="sqlite:///mlflow.db")
    timer = LambdaCallback(on_train_epoch_start=mark, on_train_end=mark)
    trainer = Trainer(max_epochs=epochs, accelerator="cpu", logger=logger, callbacks=[timer])
    trainer.fit(
        Classifier(),
        DataLoader(train, batch_size=batch_size, shuffle=True, num_workers=0),
        DataLoader(val, batch_size=EVAL_BATCH_SIZE, num_workers=0),
    )


VARIANTS: dict[str, Callable[[str, int, int], None]] = {"raw": raw, "litlab": litlab, "usual": usual}


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, default=Path("data"), help="folder that contains MNIST/raw")
    parser.add_argument("--batch-size", type=int, default=500)
    parser.add_argument("--epochs", type=int, default=6, help="per process; the first is not counted")
    parser.add_argument("--repeats", type=int, default=3, help="processes per variant")
    parser.add_argument("--one", choices=VARIANTS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.epochs < 2 or args.repeats < 1 or args.batch_size < 1:
        parser.error("--epochs must be 2 or more, --repeats and --batch-size 1 or more")
    return args


def main() -> int:
    args = parse_arguments()
    if args.one:
        VARIANTS[args.one](str(args.data_dir), args.batch_size, args.epochs)
        print_epoch_times()
        return 0
    try:
        MNIST(str(args.data_dir), download=True)
    except (RuntimeError, OSError) as error:
        print(error, file=sys.stderr)
        print(f"{args.data_dir} has no MNIST, and the download failed: pass --data-dir FOLDER", file=sys.stderr)
        return 2
    options = {"data-dir": args.data_dir.resolve(), "batch-size": args.batch_size, "epochs": args.epochs}
    usual_options = {**options, "epochs": min(args.epochs, MAX_USUAL_EPOCHS)}
    variants = {name: usual_options if name == "usual" else options for name in VARIANTS}
    epochs = measure_in_turn(__file__, variants, args.repeats)
    title = f"mnist-mlp, batch {args.batch_size}, torch {torch.__version__}, {torch.get_num_threads()} threads"
    report(epochs, title, [("litlab", "raw", TARGETS.get(args.batch_size, 1.5)), ("litlab", "usual", 1 / 3)])
    return 0


if __name__ == "__main__":
    sys.exit(main())
