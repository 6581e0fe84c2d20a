"""Part a, in several processes: resume after kill -9, a sweep with two workers, and two processes that share a GPU."""

import json
import signal
import socket
from pathlib import Path

import torch

from gpu_parts.callbacks import MARKER, KillOnce
from gpu_parts.place import Place, run_folder

RESUMED = ["fit", "digits-convnet", "--model.dropout=0.2", "--trainer.max_epochs=4"]
DETERMINISTIC = ("--trainer.deterministic=true", {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"})  # as torch demands
SHARED = ["fit", "digits-mlp", "--model.dropout=0", "--trainer.max_epochs=3"]
TOLERANCE = 1e-3  # of a loss, relative


def resumed(place: Place, job: str) -> None:
    """Compare the weights of a training that was killed and resumed with those of an undisturbed one."""
    with place.attempt(job, "resume") as values:
        values |= _resume(place, [*RESUMED, *place.trainer], {})
        assert place.device != "cpu" or values["difference"] == 0, "other weights on a CPU"


def resumed_deterministically(place: Place, job: str) -> None:
    """The same with deterministic algorithms: the weights must be equal."""
    with place.attempt(job, "resume") as values:
        argument, environment = DETERMINISTIC
        values |= _resume(place, [*RESUMED, *place.trainer, argument], environment)
        assert values["difference"] == 0, "other weights with deterministic algorithms"


def _resume(place: Place, arguments: list[str], environment: dict[str, str]) -> dict[str, float]:
    """Return the relative difference of weights between two equal trainings, and after a kill and a resume."""
    first, second, killed = (place.inside(name) for name in ("first", "second", "killed"))
    callback = f"--trainer.callbacks={KillOnce.__module__}.KillOnce"
    settings = {**environment, MARKER: str(first.folder)}  # which exists
    to_kill = {**environment, MARKER: str(place.folder / "marker")}
    twins = [twin.start(*arguments, callback, environment=settings) for twin in (first, second)]
    killed.litlab(*arguments, callback, environment=to_kill, code=-signal.SIGKILL)
    out = killed.litlab("resume", "latest", environment=to_kill)
    folders = [run_folder(twin, place.finish(process)) for twin, process in zip((first, second), twins, strict=True)]
    return {
        "of equal trainings": _difference(*folders),
        "difference": _difference(folders[0], run_folder(killed, out)),
    }


def _difference(one: Path, other: Path) -> float:
    """Return the largest difference of the runs' last weights, relative to the largest weight."""
    first, second = _last_weights(one), _last_weights(other)
    largest = max(float(tensor.abs().max()) for tensor in first)
    return max(float((a - b).abs().max()) for a, b in zip(first, second, strict=True)) / largest


def _last_weights(folder: Path) -> list[torch.Tensor]:
    checkpoint = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True, map_location="cpu")
    return [tensor for tensor in checkpoint["state_dict"].values() if tensor.is_floating_point()]


def sweep(place: Place, job: str) -> None:
    """Let two workers share the device."""
    with place.attempt(job, "sweep"):
        trials = ["--trials=4", "--workers=2", "--confirm=0", "--trainer.max_epochs=2"]
        place.litlab("sweep", "digits-mlp", *trials, *place.trainer)


def two_processes(place: Place, job: str) -> None:
    """Train with two gloo processes that share the device, as if they were on two machines; and with one."""
    with place.attempt(job, "gloo") as values:
        single = place.inside("single")
        alone = single.start(*SHARED, *place.trainer)
        strategy = "--trainer.strategy=lightning.pytorch.strategies.DDPStrategy"
        shared = [strategy, "--trainer.strategy.process_group_backend=gloo", "--trainer.num_nodes=2"]
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = str(probe.getsockname()[1])
        ranks = [place.start(*SHARED, *place.trainer, *shared, environment=_rank(n, port)) for n in range(2)]
        outs = [place.finish(rank) for rank in ranks]
        values["difference"] = _curve_difference(run_folder(single, place.finish(alone)), run_folder(place, outs[0]))
        assert values["difference"] < TOLERANCE, "other losses than those of one process"


def _rank(number: int, port: str) -> dict[str, str]:
    """Return the environment that torchrun gives a process, one on each of two machines."""
    group = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2", "TORCHELASTIC_RUN_ID": port}
    return {**group, "RANK": str(number), "GROUP_RANK": str(number), "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}


def _curve_difference(one: Path, other: Path) -> float:
    """Return the largest relative difference of a loss of an epoch."""
    first, second = _losses(one), _losses(other)
    assert first.keys() == second.keys()
    return max(abs(second[key] - value) / value for key, value in first.items())


def _losses(folder: Path) -> dict[tuple[str, int], float]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    names = ("train/loss", "val/loss")
    return {(name, line["epoch"]): line[name] for line in lines for name in names if name in line}
