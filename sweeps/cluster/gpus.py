"""The GPUs of an agent that programs outside of Ray fill, which are left out. Asks nvidia-smi."""

import os
import subprocess
import time
from collections.abc import Sequence

from sweeps.cluster.shares import fit

QUERY = ["nvidia-smi", "--query-gpu=index,uuid,memory.used,memory.total", "--format=csv,noheader,nounits"]
WAIT_S = 30.0  # until a GPU is left out
MAX_USED = 0.5  # share of a GPU's memory that others may use before it is left out


def take_gpus(slots: int, gpus: float) -> tuple[int, dict[str, str]]:
    """Leave to this process those of its GPUs that others do not fill; without a need for GPUs, none.

    Args:
        slots: Trainings in parallel.
        gpus: GPUs of each.

    Returns:
        For how many of the trainings the GPUs are enough, and how full each is that is left out.
    """
    given = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name and gpus]
    deadline = time.monotonic() + WAIT_S
    while (used := _used(given)) and time.monotonic() < deadline:  # trainings of an agent that was killed end first
        time.sleep(1)
    free = [name for name in given if name not in used]
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(free)
    room = fit(len(free), gpus) if gpus else slots
    return min(slots, room), {name: f"{taken:.0f} of {total:.0f} MiB" for name, (taken, total) in used.items()}


def _used(given: Sequence[str]) -> dict[str, tuple[float, float]]:
    """Return the used and the total memory of those of the GPUs that are filled."""
    memory = _memory() if given else {}
    return {name: memory[name] for name in given if name in memory and memory[name][0] > MAX_USED * memory[name][1]}


def _memory() -> dict[str, tuple[float, float]]:
    """Return the used and the total memory of each GPU in MiB, by its index and by its UUID; empty if unknown."""
    try:
        lines = subprocess.run(QUERY, capture_output=True, text=True, timeout=30, check=True).stdout.splitlines()
        rows = [[cell.strip() for cell in line.split(",")] for line in lines]
        amounts = [(row, (float(row[2]), float(row[3]))) for row in rows]
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return {}
    return {name: amount for row, amount in amounts for name in row[:2]}
