"""Classes that got another name."""

import importlib
import pkgutil

import datamodules
import modules
from pipelines.runtime.class_paths import RENAMED_CLASSES, text_with_old_class_paths, with_old_class_paths


def _named(path):
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


def test_both_paths_of_a_renamed_class_are_the_same_class():
    for new, old in RENAMED_CLASSES.items():
        assert _named(new) is _named(old)
        assert f"{_named(new).__module__}.{_named(new).__qualname__}" == new
        assert old not in RENAMED_CLASSES, "the first path of all is the one that runs record"


def test_every_other_name_of_a_class_is_known():
    aliases = {}
    packages = (modules, datamodules)
    found = [item for package in packages for item in pkgutil.iter_modules(package.__path__, f"{package.__name__}.")]
    for module in (importlib.import_module(item.name) for item in found):
        for name, value in vars(module).items():
            if isinstance(value, type) and value.__module__ == module.__name__ and value.__qualname__ != name:
                aliases[f"{module.__name__}.{value.__qualname__}"] = f"{module.__name__}.{name}"
    assert aliases == dict(RENAMED_CLASSES)


def test_the_old_path_replaces_the_new_one_in_values_and_texts():
    new, old = next(iter(RENAMED_CLASSES.items()))
    config = {"class_path": new, "init_args": {"inner": [{"class_path": new}, 1]}}
    assert with_old_class_paths(config) == {"class_path": old, "init_args": {"inner": [{"class_path": old}, 1]}}
    assert config["class_path"] == new
    assert text_with_old_class_paths(new) == old
    assert (
        text_with_old_class_paths(f'[{{"class_path": "{new}"}}, "{new}er"]')
        == f'[{{"class_path": "{old}"}}, "{new}er"]'
    )
