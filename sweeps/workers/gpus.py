"""The NVIDIA GPUs of this machine's trainings: which there are, which other programs fill, and the share of each slot.

They are named as in CUDA_VISIBLE_DEVICES: by index, or by UUID, which also names a part of a GPU (MIG). nvidia-smi is
asked, since a process that has asked CUDA cannot change which GPUs it sees.
"""

import math
import os
import re
import subprocess
from collections.abc import Sequence

from pipelines.runtime.errors import UserError
from pipelines.runtime.log import logger

VARIABLE = "CUDA_VISIBLE_DEVICES"
MAX_USED = 0.5  # share of a GPU's memory that others may use before it is left out
LIST = ["-L"]
MEMORY = ["--query-gpu=index,uuid,memory.used,memory.total", "--format=csv,noheader,nounits"]
PART = "MIG-"  # with which the name of a part of a GPU begins


def listed_gpus() -> list[str] | None:
    """Return the GPUs of CUDA_VISIBLE_DEVICES; None if it is not set. As in CUDA, an index of -1 ends the list."""
    if (text := os.environ.get(VARIABLE)) is None:
        return None
    names = [name.strip() for name in text.split(",")]
    end = next((number for number, name in enumerate(names) if name in ("", "-1")), len(names))
    return names[:end]


class TrainingGpus:
    """The GPUs of a pool's trainings.

    Attributes:
        names: Those of `gpus_to_use`.
    """

    def __init__(self) -> None:
        self.names, self._warnings = gpus_to_use()

    def check(self, accelerator: str, devices: int) -> None:
        """Check that trainings can have so many of the GPUs; those on the CPU use none.

        Raises:
            UserError: See `check_devices`.
        """
        if accelerator == "cpu":
            self._warnings.clear()
        else:
            check_devices(self.names, devices)
            self.warn()

    def warn(self) -> None:
        """Name the GPUs that other programs fill, once."""
        while self._warnings:
            logger.warning(self._warnings.pop(0))


def gpus_to_use() -> tuple[list[str], list[str]]:
    """Return the GPUs for trainings, and warnings of those that are filled; none without GPUs or nvidia-smi.

    Those of CUDA_VISIBLE_DEVICES are taken as they are. Otherwise GPUs that other programs fill are left out, unless
    all of them are.
    """
    if (listed := listed_gpus()) is not None:
        return listed, []
    names = _names()
    full = filled(names)
    free = [name for name in names if name not in full]
    left_out = "is left out" if free else "is used, as all are"
    warnings = [f"GPU {name} {left_out}: {used} are in use by other programs" for name, used in full.items()]
    return free or names, warnings


def filled(names: Sequence[str]) -> dict[str, str]:
    """Return those of the GPUs that others fill, and how much of their memory is in use."""
    memory = _memory() if names else {}
    full = {name: memory[name] for name in names if name in memory and memory[name][0] > MAX_USED * memory[name][1]}
    return {name: f"{used:.0f} of {total:.0f} MiB" for name, (used, total) in full.items()}


def share_of(gpus: Sequence[str], slot: int, devices: int) -> list[str]:
    """Return the GPUs of a training, so that different slots use different ones as long as there are enough.

    Args:
        gpus: All of them.
        slot: Index of the slot.
        devices: GPUs of each training.
    """
    first = slot * devices
    return [gpus[(first + offset) % len(gpus)] for offset in range(min(devices, len(gpus)))]


def sharers(gpus: Sequence[str], slots: int) -> int:
    """Return how many slots, with one GPU each, share the GPU that most use; see `share_of`."""
    return math.ceil(slots / len(gpus)) if gpus else slots


def check_devices(gpus: Sequence[str], devices: int) -> None:
    """Check that a training can have so many of the GPUs.

    Raises:
        UserError: Several of them are parts of GPUs.
    """
    if devices > 1 and any(name.startswith(PART) for name in gpus):
        raise UserError(f"trainer.devices is {devices}, but CUDA gives a process one part of a GPU (MIG): set it to 1")


def _names() -> list[str]:
    """Return the UUIDs of all GPUs; of one that is divided, those of its parts."""
    names: list[str] = []
    whole = ""  # the GPU of the last line
    for kind, name in re.findall(r"UUID: ((?:GPU|MIG)-)(\S+?)\)", _ask(LIST)):
        if kind == PART and names and names[-1] == whole:
            names.pop()
        whole = "" if kind == PART else kind + name
        names.append(kind + name)
    return names


def _memory() -> dict[str, tuple[float, float]]:
    """Return the used and the total memory of each GPU in MiB, by its index and by its UUID; empty if unknown."""
    try:
        rows = [[cell.strip() for cell in line.split(",")] for line in _ask(MEMORY).splitlines()]
        amounts = [(row, (float(row[2]), float(row[3]))) for row in rows]
    except (ValueError, IndexError):
        return {}
    return {name: amount for row, amount in amounts for name in row[:2]}


def _ask(arguments: Sequence[str]) -> str:
    """Return what nvidia-smi prints; "" if it is missing or fails."""
    try:
        done = subprocess.run(["nvidia-smi", *arguments], capture_output=True, text=True, timeout=30, check=True)  # noqa: S607
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout
