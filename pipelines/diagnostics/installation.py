"""Whether what litlab needs is installed, in the versions that it and its packages ask for."""

import platform
import shutil
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, metadata, requires, version
from typing import TYPE_CHECKING

from pipelines.diagnostics.finding import Finding, Place, todo
from pipelines.tracking.origin import git_tags
from pipelines.tracking.tags import DIRTY_TAG

if TYPE_CHECKING:
    from packaging.requirements import Requirement

INSTALL = "pip install -e . in litlab's folder, in its own environment, installs what is missing"


def python(place: Place) -> Iterator[Finding]:
    """The interpreter, against what litlab's own metadata ask for."""
    from packaging.specifiers import SpecifierSet

    wanted = SpecifierSet(metadata("litlab")["Requires-Python"])
    here = platform.python_version()
    if here in wanted:
        yield Finding("Python", here)
    else:
        yield todo("Python", f"{here} is not {wanted}: make the environment anew with another Python")


def packages(place: Place) -> Iterator[Finding]:
    """Every package that litlab names, against the versions that it allows."""
    wrong = list(_wrong("litlab"))
    count = sum(1 for _ in _needed("litlab"))
    yield from (todo("packages", f"{text}; {INSTALL}") for text in wrong)
    if not wrong:
        yield Finding("packages", f"all {count} that litlab names are here, in versions that it allows")


def pair(place: Place) -> Iterator[Finding]:
    """Torch and torchvision belong together: a torchvision says which torch it was built for."""
    wrong = [text for text in _wrong("torchvision") if text.startswith("torch ")]
    here = f"torch {version('torch')} and torchvision {version('torchvision')}"
    if wrong:
        yield todo(
            "torch pair", f"{here} do not match: {wrong[0]}; install both at once: pip install torch torchvision"
        )
    else:
        asked = next((str(need) for need in _needed("torchvision") if need.name == "torch"), "no torch by name")
        yield Finding("torch pair", f"{here}, which asks for {asked}")


def git(place: Place) -> Iterator[Finding]:
    """Whether runs can say which commit they are from."""
    tags = git_tags()
    if tags:
        changes = "with changes that are not committed" if tags[DIRTY_TAG] == "true" else "nothing uncommitted"
        yield Finding("git", f"commit {tags['git.commit'][:12]}, {changes}")
    else:
        why = "this is no checkout" if shutil.which("git") else "there is no git"
        yield Finding("git", f"{why}: runs do not say which commit they are from")


def _needed(package: str) -> Iterator["Requirement"]:
    """What a package needs on this machine, without its extras."""
    from packaging.requirements import Requirement

    needs = [Requirement(text) for text in requires(package) or []]
    yield from (need for need in needs if need.marker is None or need.marker.evaluate({"extra": ""}))


def _wrong(package: str) -> Iterator[str]:
    """What is missing or has another version than a package asks for, in words."""
    for need in _needed(package):
        try:
            here = version(need.name)
        except PackageNotFoundError:
            yield f"{need.name} is missing"
            continue
        if not need.specifier.contains(here, prereleases=True):
            yield f"{need.name} {here} is here, {package} asks for {need.specifier}"
