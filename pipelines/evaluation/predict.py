"""`litlab predict`: class and probability of any image files, by a finished run."""

import argparse
import csv
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from datamodules.base import ImageDataModule
from modules.base import Classifier
from pipelines.checkpoints.files import fetch_checkpoint
from pipelines.evaluation.evaluate import bare_trainer
from pipelines.evaluation.load_run import parse_run
from pipelines.runtime.errors import UserError
from pipelines.runtime.signals import reraise_keyboard_interrupt
from pipelines.runtime.silence import silence_lightning

HELP = """usage: litlab predict RUN_ID IMAGE [IMAGE ...] [--out FILE] [--KEY VALUE ...]

Classifies image files with a run's selected checkpoint: file, class and
probability, as CSV. Images of any size and format are made grey or RGB and
resized to what the network takes.

  RUN_ID              as printed by litlab fit and shown in the UI
  --out FILE          where to write (the screen)
  --invert            for images that are dark on light, where the network has
                        learnt light on dark, as MNIST is
  --KEY VALUE         another value for a key of the run's configuration,
                        such as --trainer.accelerator cpu
  --tracking_uri URI  where runs are kept (mlflow.db of this project)"""


def main(verb: str, argv: Sequence[str]) -> int:
    """`litlab predict RUN_ID IMAGE ... [--out FILE.csv]`."""
    if not argv or {"-h", "--help"} & set(argv):
        print(HELP)
        return 0 if argv else 2
    run_id, paths, options, overrides = _split(argv)
    for path in paths:
        if not path.is_file():
            raise UserError(f"{path}: no such file")
    silence_lightning()
    cli, run = parse_run(verb, [run_id, *overrides])
    checkpoint = fetch_checkpoint(run)
    data, model = cli.build()
    if not isinstance(data, ImageDataModule) or not isinstance(model, Classifier):
        raise UserError(f"run {run_id} was not trained to classify images")
    data.predict_on(paths, invert=options.invert)
    trainer = bare_trainer(cli)
    try:
        with reraise_keyboard_interrupt(trainer):
            batches = trainer.predict(model, datamodule=data, ckpt_path=checkpoint, weights_only=True)
    except (ValueError, FileNotFoundError) as error:
        raise UserError(str(error)) from error
    _write(options.out, paths, torch.cat(batches), data.classes)
    return 0


def _split(argv: Sequence[str]) -> tuple[str, list[Path], argparse.Namespace, list[str]]:
    """Run, images, this verb's own options, and what is left for the configuration."""
    parser = argparse.ArgumentParser(prog="litlab predict", allow_abbrev=False, add_help=False)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--invert", action="store_true")
    options, rest = parser.parse_known_args(argv)
    first_key = next((index for index, token in enumerate(rest) if token.startswith("-")), len(rest))
    run_id, *images = rest[:first_key] or [""]
    if not run_id or not images:
        raise UserError("name a run and one image or more: litlab predict RUN_ID IMAGE [IMAGE ...]")
    return run_id, [Path(image) for image in images], options, rest[first_key:]


def _write(out: Path | None, paths: Sequence[Path], probabilities_NK: Tensor, classes: Sequence[str]) -> None:
    confidence_N, class_N = probabilities_NK.max(1)
    rows = [
        (str(path), classes[int(index)], f"{float(confidence):.6f}")
        for path, index, confidence in zip(paths, class_N, confidence_N, strict=True)
    ]
    table = [("file", "class", "probability"), *rows]
    if out is None:
        csv.writer(sys.stdout, lineterminator="\n").writerows(table)
        return
    try:
        with out.open("w", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows(table)
    except OSError as error:
        raise UserError(f"{out}: cannot be written ({error.strerror})") from error
    print(f"{len(rows)} predictions in {out}")
