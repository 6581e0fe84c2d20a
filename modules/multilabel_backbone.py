"""Classifier of images with any number of labels, on top of a published network."""

from typing import final

from modules.finetuning import Finetuning
from modules.multilabel import MultilabelClassifier


@final
class MultilabelBackbone(Finetuning, MultilabelClassifier):
    """Classifier with any number of labels that starts from a published network, with a new head.

    The arguments are those of `Finetuning` and of `MultilabelClassifier`.
    """
