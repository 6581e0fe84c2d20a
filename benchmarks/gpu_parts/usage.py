"""Part e: how much of the device a training uses: utilisation, the share of time with a kernel on it, and memory."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from statistics import mean
from typing import Any

import torch

from gpu_parts.data import full_data
from gpu_parts.place import Place
from gpu_parts.raw import Loop
from pipelines.training.fit import fit

EXPERIMENTS = {"mnist-mlp": 12, "cifar-resnet9": 3}  # epochs of litlab
RAW_S = 2.0
INTERVAL_S = 0.1  # NVML's own samples are 0.17 to 1 s apart


def usage(place: Place, job: str) -> None:
    """Measure raw loops, and litlab's fits with what they do before and after the training."""
    for experiment, epochs in EXPERIMENTS.items():
        for name, step in (("raw eager", Loop.step), ("raw captured", None)):
            with place.attempt(job, f"{experiment}, {name}") as values:
                loop = Loop(place, experiment, "32-true")
                chosen = partial(step, loop) if step else loop.captured_step()
                with _sampled(place, values):
                    _repeat(partial(loop.epoch, chosen), place)
        with place.attempt(job, f"{experiment}, litlab") as values, _sampled(place, values):
            options = [f"--trainer.max_epochs={1 if place.dry else epochs}", "--trainer.limit_test_batches=0"]
            fit(experiment, overrides=[*full_data(place, experiment), *place.trainer, *options])


def _repeat(epoch: Callable[[], object], place: Place) -> None:
    end = time.perf_counter() + (0 if place.dry else RAW_S)
    epoch()
    while time.perf_counter() < end:
        epoch()


@contextmanager
def _sampled(place: Place, values: dict[str, Any]) -> Iterator[None]:
    """Add the mean utilisation and the highest memory of the block; nothing on a CPU."""
    if place.device == "cpu":
        yield
        return
    import pynvml

    pynvml.nvmlInit()
    handle = pynvml.nvmlDeviceGetHandleByIndex(0)
    samples: list[int] = []
    ended = threading.Event()

    def sample() -> None:
        while not ended.wait(INTERVAL_S):
            samples.append(pynvml.nvmlDeviceGetUtilizationRates(handle).gpu)

    thread = threading.Thread(target=sample)
    torch.cuda.reset_peak_memory_stats()
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        values["utilisation_percent"] = round(mean(samples)) if samples else None
        values["peak_MB"] = torch.cuda.max_memory_allocated() / 1e6
        values["device_memory_MB"] = pynvml.nvmlDeviceGetMemoryInfo(handle).used / 1e6
