"""The project's folder, git, the user and the CPU. Imports nothing heavy."""

import getpass
import os
import platform
import subprocess
from pathlib import Path

PROJECT_FILES = ("pyproject.toml", ".git")


def checkout() -> Path | None:
    """Return the clone of the repository that litlab runs from; None if it is installed without one."""
    folder = Path(__file__).resolve().parents[2]
    return folder if (folder / "pyproject.toml").is_file() else None


def project_folder() -> Path:
    """Return the nearest folder with a pyproject.toml or .git, from the current one upwards; without one, the current.

    The home folder and the root of the file system are no projects, unless they are the current folder.
    """
    current = Path.cwd()
    for folder in (current, *current.parents):
        if folder != current and folder in (Path.home(), folder.parent):
            break
        if any((folder / name).exists() for name in PROJECT_FILES):
            return folder
    return current


def git(folder: Path, *args: str) -> bytes | None:
    """Return the output of a git command in a folder, or None if it fails. It takes no locks."""
    command = ["git", "--no-optional-locks", "-C", str(folder), *args]
    try:
        done = subprocess.run(command, capture_output=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def cpu_count() -> int:
    """Return the number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def user() -> str:
    """Return the user's name, or the user id if the system has no name for it."""
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):  # a container may run under an id without a name; Windows has no ids
        return str(os.getuid()) if hasattr(os, "getuid") else "unknown"


def processor() -> str:
    """Return number and model of the CPU cores, such as "8 x Intel Xeon"."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{len(names)} x {names[0]}" if names else platform.machine()
