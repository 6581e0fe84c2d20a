"""Hand-written loops on data that are on the device: the lowest time of an epoch, eager and as one CUDA graph.

They do what an epoch of litlab does: shuffle, augment, normalise, train, add up loss and accuracy, validate. Learning
rates are constant, and nothing is logged or saved.

Shapes: N examples of a set, B batch size.
"""

import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from datamodules.base import ImageDataModule
from gpu_parts.data import full_data
from gpu_parts.place import Place
from modules.base import Classifier
from pipelines.config.cli import parse_config

EVAL_BATCH = 500
WARM_UP = 3  # steps before a graph is captured


class Loop:
    """A training of an experiment without a framework.

    Args:
        place: Where it runs.
        experiment: Name of the experiment; a classifier of images.
        precision: "32-true" or "bf16-mixed".
    """

    def __init__(self, place: Place, experiment: str, precision: str) -> None:
        data, model = parse_config("fit", [experiment, *full_data(place, experiment)]).build()
        assert isinstance(data, ImageDataModule)
        assert isinstance(model, Classifier)
        data.setup("fit")
        assert data.normalize is not None
        self._device, self._bf16 = torch.device(place.device), precision == "bf16-mixed"
        self._data, self._model, self._normalize = data, model.to(self._device), data.normalize.to(self._device)
        self._train, self._val = (
            (part.inputs.to(self._device), part.targets.to(self._device)) for part in (data.train_set, data.val_set)
        )
        self._optimizer = model._optimizer(model.parameters())
        for group in self._optimizer.param_groups:
            if "capturable" in group:
                group["capturable"] = place.device == "cuda"
        self._loss_sum, self._correct = torch.zeros((), device=self._device), torch.zeros((), device=self._device)
        self.steps = -(-len(self._train[1]) // data.batch_size)

    def epoch(self, step: Callable[[Tensor], None] | None = None) -> tuple[float, float]:
        """Train for an epoch and validate; return the seconds of the training, and of both.

        Args:
            step: Trains a batch of the full size, given its indices; default: `step`.
        """
        start = time.perf_counter()
        self._model.train()
        for batch in torch.randperm(len(self._train[1]), device=self._device).split(self._data.batch_size):
            (step if step and len(batch) == self._data.batch_size else self.step)(batch)
        float(self._loss_sum)  # waits for the device
        trained = time.perf_counter()
        self._model.eval()
        with torch.no_grad():
            votes = [self._predict(images).argmax(1) for images in self._val[0].split(EVAL_BATCH)]
        float((torch.cat(votes) == self._val[1]).float().mean())
        return trained - start, time.perf_counter() - start

    def step(self, batch_B: Tensor) -> None:
        """Train on the examples with these indices."""
        labels_B = self._train[1][batch_B]
        with self._autocast():
            logits = self._model(self._normalize(self._data.augment(self._train[0][batch_B])))
            loss = self._model.training_loss(logits.float(), labels_B)
        self._optimizer.zero_grad()
        loss.backward()
        self._optimizer.step()
        self._loss_sum += loss.detach()
        self._correct += (logits.argmax(1) == labels_B).sum()

    def captured_step(self) -> Callable[[Tensor], None]:
        """Return `step` as a CUDA graph; on a CPU, as it is."""
        if self._device.type == "cpu":
            return self.step
        batch_B = torch.arange(self._data.batch_size, device=self._device)
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UP):
                self.step(batch_B)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self.step(batch_B)
        return partial(_replay, graph, batch_B)

    def _predict(self, images: Tensor) -> Tensor:
        with self._autocast():
            logits: Tensor = self._model(self._normalize(images))
        return logits

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self._device.type, torch.bfloat16, enabled=self._bf16)


def _replay(graph: "torch.cuda.CUDAGraph", batch_B: Tensor, indices_B: Tensor) -> None:
    batch_B.copy_(indices_B)
    graph.replay()
