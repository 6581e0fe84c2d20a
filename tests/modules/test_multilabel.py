"""Several labels per example: loss, metrics and probabilities."""

import pytest
import torch
from sklearn.metrics import average_precision_score, f1_score
from torch.nn import functional as F

from modules.multilabel_backbone import MultilabelBackbone


def test_loss_and_metrics_are_those_of_scikit_learn(tiny_network):
    torch.manual_seed(0)
    model = MultilabelBackbone(name=tiny_network, num_classes=3, pretrained=False)
    logits, labels = torch.rand(40, 3), torch.randint(2, (40, 3))  # all within [0, 1], as probabilities would be
    for part in (slice(0, 25), slice(25, 40)):
        model.val_metrics.update(logits[part] - 0.5, labels[part])
    values = model.val_metrics.compute()
    logits = logits - 0.5
    expected = F.binary_cross_entropy_with_logits(logits, labels.float())
    torch.testing.assert_close(values["val/loss"], expected)
    assert values["val/map"].item() == pytest.approx(average_precision_score(labels, logits, average="macro"))
    assert values["val/f1"].item() == pytest.approx(f1_score(labels, logits > 0, average="macro"))


def test_the_metrics_take_logits_between_0_and_1_as_logits(tiny_network):
    model = MultilabelBackbone(name=tiny_network, num_classes=2, pretrained=False)
    model.val_metrics.update(torch.tensor([[0.1, 0.2], [0.3, 0.4]]), torch.ones(2, 2, dtype=torch.int64))
    assert model.val_metrics.compute()["val/f1"] == 1  # sigmoid(0.1) > 0.5


def test_probabilities_of_labels_are_independent(tiny_network):
    model = MultilabelBackbone(name=tiny_network, num_classes=3, pretrained=False).eval()
    images = torch.rand(2, 3, 16, 16)
    torch.testing.assert_close(model.predict_step((images,), 0), model(images).sigmoid())
