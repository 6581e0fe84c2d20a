"""Every class is either abstract, to be subclassed, or final, to be instantiated."""

import inspect
import pkgutil
from importlib import import_module

import pytest
from lightning.pytorch import LightningDataModule, LightningModule

import datamodules
import modules
from datamodules.base import ImageDataModule
from modules.base import Classifier


def _defined_in(package, base: type) -> list[type]:
    names = [f"{package.__name__}.{info.name}" for info in pkgutil.iter_modules(package.__path__)]
    classes = (cls for name in names for cls in vars(import_module(name)).values() if inspect.isclass(cls))
    return sorted({cls for cls in classes if issubclass(cls, base) and cls is not base}, key=lambda cls: cls.__name__)


CLASSES = _defined_in(datamodules, LightningDataModule) + _defined_in(modules, LightningModule)


def test_known_classes_are_found():
    names = {cls.__name__ for cls in CLASSES}
    assert names >= {"ImageDataModule", "Digits", "MNIST", "Classifier", "LinearClassifier", "MLP", "ConvNet"}


@pytest.mark.parametrize("cls", CLASSES)
def test_each_class_is_either_abstract_or_final(cls):
    assert inspect.isabstract(cls) != getattr(cls, "__final__", False)


@pytest.mark.parametrize("cls", CLASSES)
def test_only_abstract_classes_have_subclasses(cls):
    bases = [base for base in cls.__mro__[1:] if base in CLASSES]
    assert all(inspect.isabstract(base) for base in bases)


@pytest.mark.parametrize(("cls", "arguments"), [(Classifier, {"num_classes": 10}), (ImageDataModule, {"n_val": 10})])
def test_an_abstract_class_cannot_be_instantiated(cls, arguments):
    with pytest.raises(TypeError, match="abstract"):
        cls(**arguments)
