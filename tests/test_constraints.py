"""Both files of constraints fit pyproject.toml: the oldest versions are its lower bounds."""

import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
PARTS = [PROJECT["dependencies"], *(EXTRAS[name] for name in ("postgresql", "ray", "system", "test"))]
DEPENDENCIES = [Requirement(text) for part in PARTS for text in part]


def pinned(name: str) -> dict[str, str]:
    lines = [line.split("==") for line in (ROOT / name).read_text().splitlines() if "==" in line]
    return {canonicalize_name(package): version for package, version in lines}


@pytest.mark.parametrize("dependency", [one for one in DEPENDENCIES if one.name != "litlab"], ids=lambda one: one.name)
def test_both_sets_of_versions_are_those_of_pyproject(dependency):
    name = canonicalize_name(dependency.name)
    (lowest,) = [Version(bound.version) for bound in dependency.specifier if bound.operator == ">="]
    assert Version(pinned("constraints-oldest.txt")[name]) == lowest
    assert dependency.specifier.contains(pinned("constraints.txt")[name])
