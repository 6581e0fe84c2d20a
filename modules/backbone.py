"""Classifier on top of a published network."""

from typing import final

from modules.base import Classifier
from modules.finetuning import Finetuning


@final
class Backbone(Finetuning, Classifier):
    """Classifier that starts from a network of torchvision or timm, or of any package, with a new head.

    The arguments are those of `Finetuning` and of `Classifier`.
    """
