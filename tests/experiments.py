"""Which experiments of litlab stand for the others in tests of all of them."""

from typing import Any

import pytest
import yaml

from pipelines.config.experiments import experiment_names, find_experiment


def each_experiment(*but: str) -> list[Any]:
    """Return all experiments as parameters; only the first of each pair of data and model classes is not slow."""
    parameters: dict[str, Any] = {}
    seen = set()
    for name in (name for name in experiment_names() if name not in but):
        settings = yaml.safe_load(find_experiment(name).read_text())
        classes = (settings["data"]["class_path"], settings["model"]["class_path"])
        parameters[name] = pytest.param(name, marks=pytest.mark.slow) if classes in seen else name
        seen.add(classes)
    return list(parameters.values())
