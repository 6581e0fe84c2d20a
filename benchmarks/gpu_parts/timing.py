"""Part b: seconds per epoch of four experiments, with raw loops, with litlab, and with usual Lightning code."""

from collections.abc import Sequence
from itertools import pairwise

import torch

from gpu_parts import usual
from gpu_parts.callbacks import MOMENTS, STEPS, EpochStarts
from gpu_parts.data import full_data
from gpu_parts.place import Place
from gpu_parts.raw import Loop
from gpu_parts.table import VARIANTS
from pipelines.training.fit import fit

EXPERIMENTS = {"mnist-mlp": 5, "mnist-convnet": 5, "cifar-augmented": 3, "cifar-resnet9": 3}  # epochs of litlab
RAW_EPOCHS = 2
USUAL_EPOCHS = 2
PRECISIONS = ("32-true", "bf16-mixed")
TIMER = f"--trainer.callbacks={EpochStarts.__module__}.EpochStarts"
EAGER, CAPTURED, LITLAB, ON_CPU, GRAPH, BLOCKS, USUAL = VARIANTS
ON_CPU_KEYS = ("--data.device=cpu",)
GRAPH_KEYS = ("--trainer.callbacks+=modules.speed.CudaGraph",)
BLOCK_KEYS = (*GRAPH_KEYS, "--trainer.callbacks.steps=16")
SOME = {ON_CPU: ("mnist-mlp", "cifar-resnet9"), BLOCKS: ("mnist-mlp", "mnist-convnet", "cifar-augmented")}
"""Experiments that a variant is limited to."""


def raw(place: Place, job: str) -> None:
    """Time the loops of `gpu_parts.raw`, eager and captured."""
    for precision in PRECISIONS:
        for experiment in EXPERIMENTS:
            for variant in (EAGER, CAPTURED):
                _time_loop(place, job, experiment, precision, variant)


def _time_loop(place: Place, job: str, experiment: str, precision: str, variant: str) -> None:
    with place.attempt(job, f"{experiment}, {variant}") as values:
        values |= {"experiment": experiment, "precision": precision, "variant": variant}
        loop = Loop(place, experiment, precision)
        step = loop.captured_step() if variant == CAPTURED else None
        spans = [loop.epoch(step) for _ in range(_count(place, RAW_EPOCHS))]
        values |= {"training": [span[0] for span in spans], "epochs": [span[1] for span in spans], "steps": loop.steps}
    if place.device == "cuda":
        torch.cuda.empty_cache()


def litlab(place: Place, job: str) -> None:
    """Time fits in one process, without a test; last those whose steps are captured, which can spoil the process."""
    _time_fits(place, job, PRECISIONS[0], LITLAB)
    _time_fits(place, job, PRECISIONS[1], LITLAB)
    _time_fits(place, job, PRECISIONS[0], ON_CPU, ON_CPU_KEYS)
    _time_fits(place, job, PRECISIONS[0], GRAPH, GRAPH_KEYS)
    _time_fits(place, job, PRECISIONS[0], BLOCKS, BLOCK_KEYS)
    _time_fits(place, job, PRECISIONS[1], GRAPH, GRAPH_KEYS)


def _time_fits(place: Place, job: str, precision: str, variant: str, keys: Sequence[str] = ()) -> None:
    for experiment, epochs in EXPERIMENTS.items():
        if experiment not in SOME.get(variant, EXPERIMENTS):
            continue
        with place.attempt(job, f"{experiment}, {precision}, {variant}") as values:
            MOMENTS.clear()
            STEPS.clear()
            values |= {"experiment": experiment, "precision": precision, "variant": variant}
            options = [f"--trainer.precision={precision}", f"--trainer.max_epochs={_count(place, epochs)}"]
            options += [TIMER, "--trainer.limit_test_batches=0", *keys]
            fit(experiment, overrides=[*full_data(place, experiment), *place.trainer, *options])
            values |= {"epochs": [end - start for start, end in pairwise(MOMENTS)], "training": list(STEPS)}


def with_workers(place: Place, job: str) -> None:
    """Time trainings as in tutorials."""
    for experiment in EXPERIMENTS:
        with place.attempt(job, experiment) as values:
            MOMENTS.clear()
            values |= {"experiment": experiment, "precision": PRECISIONS[0], "variant": USUAL}
            usual.train(place, experiment, _count(place, USUAL_EPOCHS))
            values |= {"epochs": [end - start for start, end in pairwise(MOMENTS)], "workers": usual.workers()}


def _count(place: Place, epochs: int) -> int:
    return 2 if place.dry else epochs
