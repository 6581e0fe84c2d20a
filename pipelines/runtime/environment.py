"""Facts about this project and this machine that a run records; imports nothing heavy."""

import getpass
import os
import platform
import subprocess
from pathlib import Path


def project_folder() -> Path:
    """The project's folder: the checkout that litlab is installed from, or else the current folder."""
    checkout = Path(__file__).resolve().parents[2]
    return checkout if (checkout / "pyproject.toml").is_file() else Path.cwd()


def git(*args: str) -> str | None:
    """Return the output of a git command in the project's folder; None if it fails."""
    command = ["git", "-C", str(project_folder()), *args]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def cpu_count() -> int:
    """How many CPU cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def user() -> str:
    """Return the user's name, or the number where there is no name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container may run under a number that has no name
        return str(os.getuid())


def processor() -> str:
    """Return number and model of the CPU cores."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{len(names)} x {names[0]}" if names else platform.machine()
