"""Facts about this project and this machine that a run records; imports nothing heavy."""

import getpass
import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

PACKAGES = ("litlab", "torch", "torchvision", "lightning", "torchmetrics", "mlflow", "numpy")


def project_folder() -> Path:
    """The project's folder: the checkout that litlab is installed from, or else the current folder."""
    checkout = Path(__file__).resolve().parents[2]
    return checkout if (checkout / "pyproject.toml").is_file() else Path.cwd()


def git_tags() -> dict[str, str]:
    """Commit of the project and whether there are uncommitted changes; nothing outside a git checkout."""
    commit = _git("rev-parse", "HEAD")
    if commit is None:
        return {}
    dirty = bool(_git("status", "--porcelain", "--untracked-files=normal"))
    return {"mlflow.source.git.commit": commit, "git.commit": commit, "git.dirty": str(dirty).lower()}


def _git(*args: str) -> str | None:
    command = ["git", "-C", str(project_folder()), *args]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def cpu_count() -> int:
    """How many CPU cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def machine_tags() -> dict[str, str]:
    """Who, where, and with which versions."""
    versions = {f"version.{package}": version(package) for package in PACKAGES}
    return {
        "mlflow.user": _user(),
        "machine.host": platform.node(),
        "machine.platform": platform.platform(),
        "machine.processor": _processor(),
        "version.python": platform.python_version(),
        **versions,
    }


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container may run under a number that has no name
        return str(os.getuid())


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{len(names)} x {names[0]}" if names else platform.machine()
