"""The GPUs of an agent that programs outside of Ray fill, which are left out."""

import os
import time

from sweeps.cluster.shares import fit
from sweeps.workers.gpus import VARIABLE, filled, listed_gpus

WAIT_S = 30.0  # until a GPU is left out


def take_gpus(slots: int, gpus: float) -> tuple[int, dict[str, str]]:
    """Leave to this process those of its GPUs that others do not fill; without a need for GPUs, none.

    Args:
        slots: Trainings in parallel.
        gpus: GPUs of each.

    Returns:
        For how many of the trainings the GPUs are enough, and how full each is that is left out.
    """
    given = (listed_gpus() or []) if gpus else []
    deadline = time.monotonic() + WAIT_S
    while (full := filled(given)) and time.monotonic() < deadline:  # trainings of an agent that was killed end first
        time.sleep(1)
    free = [name for name in given if name not in full]
    os.environ[VARIABLE] = ",".join(free)
    room = fit(len(free), gpus) if gpus else slots
    return min(slots, room), full
