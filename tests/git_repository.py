"""A git repository for tests."""

import subprocess
from pathlib import Path

SETTINGS = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "init.defaultBranch=main")


def git(folder: Path, *args: str) -> str:
    """Run git in a folder; return what it prints."""
    return subprocess.run(["git", "-C", folder, *SETTINGS, *args], check=True, capture_output=True, text=True).stdout


def make_repository(folder: Path) -> None:
    """Make a folder a repository, with all its files in the first commit."""
    git(folder, "init")
    git(folder, "add", ".")
    git(folder, "commit", "-m", "first")
