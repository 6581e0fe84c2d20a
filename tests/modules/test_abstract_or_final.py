"""Abstract or final: a class is there to be subclassed or to be used, never both."""

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
    found = (cls for name in names for cls in vars(import_module(name)).values() if inspect.isclass(cls))
    return sorted({cls for cls in found if issubclass(cls, base) and cls is not base}, key=lambda cls: cls.__name__)


CLASSES = _defined_in(datamodules, LightningDataModule) + _defined_in(modules, LightningModule)


def test_the_known_classes_are_among_those_examined():
    names = {cls.__name__ for cls in CLASSES}
    assert names >= {"ImageDataModule", "Digits", "MNIST", "Classifier", "LinearClassifier", "MLP", "ConvNet"}


@pytest.mark.parametrize("cls", CLASSES)
def test_each_class_is_either_abstract_or_final(cls):
    assert inspect.isabstract(cls) != getattr(cls, "__final__", False)


@pytest.mark.parametrize("cls", CLASSES)
def test_only_abstract_classes_have_subclasses_of_ours(cls):
    ours = [base for base in cls.__mro__[1:] if base in CLASSES]
    assert all(inspect.isabstract(base) for base in ours)


@pytest.mark.parametrize(("cls", "arguments"), [(Classifier, {"num_classes": 10}), (ImageDataModule, {"n_val": 10})])
def test_an_abstract_class_cannot_be_instantiated(cls, arguments):
    with pytest.raises(TypeError, match="abstract"):
        cls(**arguments)
