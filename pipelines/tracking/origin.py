"""Where a run comes from, as tags: the machine, its versions, and the process that owns the run."""

import os
import platform
from collections.abc import Mapping
from importlib.metadata import version

from pipelines.runtime.environment import processor, user
from pipelines.runtime.process import is_process_alive, process_start
from pipelines.tracking.tags import (
    HOST_TAG,
    PLATFORM_TAG,
    PROCESS_TAG,
    PROCESSOR_TAG,
    USER_TAG,
    VERSION_TAG,
)

PACKAGES = ("litlab", "torch", "torchvision", "lightning", "torchmetrics", "mlflow", "numpy")


def machine_tags() -> dict[str, str]:
    """Return user, machine and versions of packages."""
    return {
        USER_TAG: user(),
        HOST_TAG: platform.node(),
        PLATFORM_TAG: platform.platform(),
        PROCESSOR_TAG: processor(),
        f"{VERSION_TAG}.python": platform.python_version(),
        **{f"{VERSION_TAG}.{package}": version(package) for package in PACKAGES},
    }


def process_tags() -> dict[str, str]:
    """Return the tags that identify this process: its id, and its start time, since ids are reused."""
    return {HOST_TAG: platform.node(), PROCESS_TAG: f"{os.getpid()}:{process_start(os.getpid())}"}


def is_here(tags: Mapping[str, str]) -> bool:
    """Return whether a run's process is, or was, on this machine."""
    return tags.get(HOST_TAG) == platform.node()


def is_alive(tags: Mapping[str, str]) -> bool:
    """Return whether the process of a run of this machine is alive, and is not another one with the same id."""
    pid, _, start = tags.get(PROCESS_TAG, "").partition(":")
    return pid.isdigit() and is_process_alive(int(pid), start)
