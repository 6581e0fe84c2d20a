"""Part d: milliseconds per step of N models that train as one, beside the floor without a framework; a tracked search.

Shapes: N models, B batch size.
"""

import time
from collections.abc import Callable

import torch
import yaml
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional as F

from datamodules.in_memory import InMemoryDataModule
from gpu_parts.data import full_data
from gpu_parts.place import Place
from modules.base import Batch, Classifier
from modules.functional_stack import FunctionalStack
from modules.stacked_metrics import StackedMetrics
from modules.stacked_step import StackedStep
from modules.step_graph import new_graph
from pipelines.config.cli import LitlabCLI, parse_config

EXPERIMENTS = ("digits-mlp", "mnist-mlp", "digits-convnet")
BATCH = ("--data.batch_size=100",)
SIZES = (1, 10, 100, 1000)
DRY_SIZES = (1, 2)
STEPS, WARM_UP = 20, 4
TRIALS, EPOCHS = 100, 3
FLOOR, LITLAB = "floor, CUDA graph", "litlab"


def floors(place: Place, job: str) -> None:
    """Time what the device allows: gradients by torch.func and one fused Adam, captured, on data that are there."""
    _measure(place, job, FLOOR, _floor)


def stacks(place: Place, job: str) -> None:
    """Time litlab's step, with a learning rate for each model, metrics, and a new batch in each step."""
    _measure(place, job, LITLAB, _litlab)


Prepare = Callable[[list[Classifier], Batch, torch.device], Callable[[], object]]


def _measure(place: Place, job: str, variant: str, prepare: Prepare) -> None:
    for experiment in EXPERIMENTS:
        cli = parse_config("fit", [experiment, *full_data(place, experiment), *BATCH])
        for size in DRY_SIZES if place.dry else SIZES:
            with place.attempt(job, f"{size} {experiment}, {variant}") as values:
                values |= {"experiment": experiment, "models": size, "variant": variant}
                models, batch = _models(cli, size), _batches(cli, size)
                device = torch.device(place.device)
                step = prepare([model.to(device) for model in models], tuple(part.to(device) for part in batch), device)
                values["ms"] = 1e3 * _seconds(step, device, 1 if place.dry else STEPS)
            if place.device == "cuda":
                torch.cuda.empty_cache()


def _models(cli: LitlabCLI, size: int) -> list[Classifier]:
    models = [cli.build()[1] for _ in range(size)]
    return [model for model in models if isinstance(model, Classifier)]


def _batches(cli: LitlabCLI, size: int) -> Batch:
    """Return a batch of noise for each model, in the shapes of the data."""
    data, _ = cli.build()
    assert isinstance(data, InMemoryDataModule)
    shape = (size, data.batch_size)
    return torch.randn(*shape, *data.input_shape), torch.randint(0, data.num_classes, shape)


def _seconds(step: Callable[[], object], device: torch.device, count: int) -> float:
    for _ in range(WARM_UP):
        step()
    _wait(device)
    start = time.perf_counter()
    for _ in range(count):
        step()
    _wait(device)
    return (time.perf_counter() - start) / count


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def _floor(models: list[Classifier], batch: Batch, device: torch.device) -> Callable[[], object]:
    net, names = models[0], [name for name, _ in models[0].named_parameters()]
    own = zip(*(model.parameters() for model in models), strict=True)
    stacked = [nn.Parameter(torch.stack([part.detach() for part in parts])) for parts in own]
    optimizer = torch.optim.Adam(stacked, 1e-3, fused=True, capturable=device.type == "cuda")

    def loss(parameters: dict[str, Tensor], inputs: Tensor, labels_B: Tensor) -> Tensor:
        return F.cross_entropy(functional_call(net, parameters, (inputs,)), labels_B)

    gradients = vmap(grad(loss), randomness="different")

    def step() -> None:
        named = {name: whole.detach() for name, whole in zip(names, stacked, strict=True)}
        found = gradients(named, *batch)
        for name, whole in zip(names, stacked, strict=True):
            whole.grad = found[name]
        optimizer.step()

    for _ in range(WARM_UP):
        step()
    graph = new_graph(device)
    graph.capture(step)
    return graph.replay


def _litlab(models: list[Classifier], batch: Batch, device: torch.device) -> Callable[[], object]:
    stack, metrics = FunctionalStack(models), StackedMetrics([model.train_metrics for model in models])
    optimizers = [torch.optim.Adam(model.parameters(), 1e-3 / number) for number, model in enumerate(models, 1)]
    training = StackedStep(stack, optimizers, device)

    def step() -> None:
        for values in training.run(batch, None, shared=False):
            metrics.update(*values)

    return step


def search(place: Place, job: str) -> None:
    """Time a random search of learning rates, tracked in MLflow, as one stack."""
    trials = 2 if place.dry else TRIALS
    space = {
        "experiment": "digits-mlp",
        "sampler": "random",
        "confirm": 0,
        "trials": trials,
        "set": {"trainer.max_epochs": EPOCHS},
        "space": {"model.optimizer.lr": {"low": 0.0003, "high": 0.02, "log": True}},
    }
    (place.folder / "search.yaml").write_text(yaml.safe_dump(space))
    with place.attempt(job, f"{trials} trials of digits-mlp, {EPOCHS} epochs"):
        place.litlab("sweep", "-c", "search.yaml", "--stacked", str(trials), *place.trainer)
