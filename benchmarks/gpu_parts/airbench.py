"""Part c: cifar-airbench, tracked, and airbench's own script on the same images, if they are in the folder of the data.

The folder of the data has CIFAR-10 in one of the layouts of `datamodules.cifar10`, and perhaps `airbench94_muon.py` of
github.com/KellerJordan/cifar10-airbench, which is run as it is.
"""

import subprocess
import sys
from typing import Any

import torch

from datamodules.cifar10 import CIFAR10
from gpu_parts.callbacks import MOMENTS, STEPS
from gpu_parts.data import REAL, full_data
from gpu_parts.place import MAX_ERROR, Place
from gpu_parts.timing import TIMER
from pipelines.training.fit import FitResult, fit

EXPERIMENT, SCRIPT = "cifar-airbench", "airbench94_muon.py"
PIPES: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
SEEDS = 5
N_VAL = 1000  # images that validate; the script trains on all
KEYS = ("--model.test_views=flip_shift", "--trainer.precision=bf16-mixed", TIMER)


def litlab(place: Place, job: str) -> None:
    """Train with several seeds; the first training decodes the images. Seconds are those of the training steps."""
    images = [f"--data.data_dir={place.data_dir / REAL}", f"--data.n_val={N_VAL}"]
    if not place.dry and not has_images(place):
        place.save(job, "images", ok=True, error="", seconds=0, note="no CIFAR-10 in --data-dir")
        return
    keys = [*full_data(place, EXPERIMENT), "--trainer.max_epochs=2", "--model.widths=[4]"] if place.dry else images
    for graph in ([], ["--trainer.callbacks+=modules.speed.CudaGraph"]):
        for seed in range(1 if place.dry else SEEDS):
            with place.attempt(job, f"{EXPERIMENT}, seed {seed}{', CudaGraph' * bool(graph)}") as values:
                MOMENTS.clear()
                STEPS.clear()
                options = [*place.trainer, *KEYS, *keys, *graph, f"--seed_everything={seed}"]
                result = fit(EXPERIMENT, overrides=options)
                assert isinstance(result, FitResult)
                values |= {"accuracy": result.metrics["test/acc"], "steps": sum(STEPS), "epochs": list(STEPS)}
                values |= {"with validation": MOMENTS[-1] - MOMENTS[0]}


def has_images(place: Place) -> bool:
    return CIFAR10(str(place.data_dir / REAL)).files is not None


def script(place: Place, job: str) -> None:
    """Run airbench's script until it has printed some trainings. Its seconds are those of its own table."""
    source = place.data_dir / REAL / SCRIPT
    if not source.is_file() or not has_images(place):
        place.save(job, "script", ok=True, error="", seconds=0, note=f"no {SCRIPT} and CIFAR-10 in --data-dir")
        return
    with place.attempt(job, "images"):
        _write_images(place)
    found, lines = 0, []
    with subprocess.Popen([sys.executable, str(source)], cwd=place.folder, **PIPES) as process:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line)
            cells = [cell.strip() for cell in line.split("|")]
            if "eval" not in cells:
                continue
            if found:  # the first one warms up
                values = {"accuracy": float(cells[5]), "steps": float(cells[6])}
                place.save(job, f"{SCRIPT}, run {found - 1}", ok=True, error="", seconds=values["steps"], **values)
            found += 1
            if found > SEEDS:
                break
        process.kill()
    if found <= SEEDS:
        place.save(job, SCRIPT, ok=False, error="".join(lines)[-MAX_ERROR:], seconds=0)


def _write_images(place: Place) -> None:
    """Write the images in the format that the script caches: (N, H, W, C) in uint8."""
    data = CIFAR10(str(place.data_dir / REAL))
    data.download()
    folder = place.folder / "cifar10"
    folder.mkdir()
    for train, name in ((True, "train.pt"), (False, "test.pt")):
        images_NCHW, labels_N = data.load(train=train)
        content = {"images": images_NCHW.permute(0, 2, 3, 1).contiguous(), "labels": labels_N, "classes": data.classes}
        torch.save(content, folder / name)
