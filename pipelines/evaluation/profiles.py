"""The reports of profilers (`trainer.profiler`): Lightning prints them, and a run keeps them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.profilers import AdvancedProfiler, Profiler, SimpleProfiler

from pipelines.config.cli import LitlabCLI
from pipelines.runtime.hooks import replace_hook

FOLDER = "profiler"  # of a run's artifacts


def evaluation_profiler(cli: LitlabCLI) -> Profiler | None:
    """Return a profiler for an evaluation, if the configuration has one that only prints a report."""
    profiler = cli.profiler()
    if isinstance(profiler, str):
        return {"simple": SimpleProfiler, "advanced": AdvancedProfiler}.get(profiler, lambda: None)()
    return profiler if isinstance(profiler, SimpleProfiler | AdvancedProfiler) else None


def keep_report(trainer: Trainer, folder: Path | None, stage: str) -> None:
    """Have the report of a trainer's profiler saved in the folder of a run when it is printed.

    Args:
        trainer: Of this process.
        folder: The run's; None in the processes of further devices, which save nothing.
        stage: "fit" or "test", of which the file has its name. A resumed run adds its report.
    """
    profiler: Any = trainer.profiler  # type: ignore[attr-defined]

    def describe(original: Callable[[], None]) -> None:
        if folder is not None and (report := profiler.summary()):  # before the profiler forgets it
            path = folder / FOLDER / f"{stage}.txt"
            path.parent.mkdir(exist_ok=True)
            with path.open("a") as file:
                file.write(f"{report}\n")
        original()

    replace_hook(profiler, "describe", describe)
