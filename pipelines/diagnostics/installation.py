"""Check that the packages that litlab needs are installed, in the versions that it and its packages require."""

import platform
import shutil
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, metadata, requires, version
from typing import TYPE_CHECKING

from pipelines.diagnostics.check import CheckResult, Context, failed
from pipelines.tracking.origin import git_tags
from pipelines.tracking.tags import COMMIT_TAG, DIRTY_TAG

if TYPE_CHECKING:
    from packaging.requirements import Requirement

INSTALL = "to install it: pip install -e . in litlab's folder, in its own environment"


def check_python(context: Context) -> Iterator[CheckResult]:
    """Check the interpreter against litlab's own metadata."""
    from packaging.specifiers import SpecifierSet

    required = SpecifierSet(metadata("litlab")["Requires-Python"])
    version_here = platform.python_version()
    if version_here in required:
        yield CheckResult("Python", version_here)
    else:
        yield failed("Python", f"{version_here} is not {required}: create the environment again with another Python")


def check_packages(context: Context) -> Iterator[CheckResult]:
    """Check each package that litlab requires against the versions that it allows."""
    wrong = list(_unmet("litlab"))
    count = sum(1 for _ in _requirements("litlab"))
    yield from (failed("packages", f"{text}; {INSTALL}") for text in wrong)
    if not wrong:
        yield CheckResult("packages", f"all {count} that litlab requires are installed, in versions that it allows")


def check_torch_pair(context: Context) -> Iterator[CheckResult]:
    """Check that torchvision was built for this torch, which its metadata name."""
    wrong = [text for text in _unmet("torchvision") if text.startswith("torch ")]
    here = f"torch {version('torch')} and torchvision {version('torchvision')}"
    if wrong:
        yield failed(
            "torch pair", f"{here} do not match: {wrong[0]}; install both at once: pip install torch torchvision"
        )
    else:
        pins = [str(requirement) for requirement in _requirements("torchvision") if requirement.name == "torch"]
        yield CheckResult("torch pair", f"{here}, which requires {pins[0] if pins else 'no certain torch'}")


def check_git(context: Context) -> Iterator[CheckResult]:
    """Check whether runs can record their commit."""
    tags = git_tags()
    if tags:
        changes = "with uncommitted changes" if tags[DIRTY_TAG] == "true" else "nothing uncommitted"
        yield CheckResult("git", f"commit {tags[COMMIT_TAG][:12]}, {changes}")
    else:
        why = "this is not a git checkout" if shutil.which("git") else "git is not installed"
        yield CheckResult("git", f"{why}: runs do not record a commit")


def _requirements(package: str) -> Iterator["Requirement"]:
    """Yield what a package requires on this machine, without its extras."""
    from packaging.requirements import Requirement

    for text in requires(package) or []:
        requirement = Requirement(text)
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            yield requirement


def _unmet(package: str) -> Iterator[str]:
    """Yield a message for each requirement of a package that is missing or has another version."""
    for requirement in _requirements(package):
        name = requirement.name
        try:
            installed = version(name)
        except PackageNotFoundError:
            yield f"{name} is missing"
            continue
        if not requirement.specifier.contains(installed, prereleases=True):
            yield f"{name} {installed} is installed, {package} requires {requirement.specifier}"
