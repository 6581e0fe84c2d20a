"""The step of stacked models as on a GPU: one draw for all, one update, and captured as a graph."""

import copy

import pytest
import torch
from torch.nn import functional as F
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy

from modules.convnet import ConvNet
from modules.functional_stack import FunctionalStack
from modules.metrics import MeanLoss, SplitMetrics
from modules.mlp import MLP
from modules.mlp_regressor import MLPRegressor
from modules.stacked_dropout import Rates, draw_together
from modules.stacked_metrics import StackedMetrics
from modules.stacked_step import StackedStep
from modules.step_graph import RepeatedStep

CPU = torch.device("cpu")


def optimizers(models):
    return [torch.optim.Adam(model.parameters(), 0.01 * number) for number, model in enumerate(models, 1)]


def test_a_captured_step_trains_as_an_eager_one_and_leaves_smaller_batches_eager():
    """A CPU repeats the step in the place of a graph."""
    torch.manual_seed(0)
    models = [ConvNet((1, 8, 8), 3, channels=(2, 3), kernel_size=3, hidden=(4,), dropout=0.2 * i) for i in (0, 1)]
    batches = [(torch.randn(2, size, 1, 8, 8), torch.randint(0, 3, (2, size))) for size in [6] * 6 + [4] + [6] * 2]
    ends = []
    for captured in (False, True):
        own = copy.deepcopy(models)
        torch.manual_seed(0)
        step = StackedStep(FunctionalStack(own), optimizers(own), CPU, captured)
        outputs = [step.run(batch, None, shared=False)[0][0] for batch in batches]
        ends.append((outputs, [list(model.parameters()) for model in own]))
    torch.testing.assert_close(ends[0], ends[1])


def test_the_captured_batch_is_a_full_one(monkeypatch):
    """The fourth batch, the first that could be captured, is the smaller last one of an epoch."""
    torch.manual_seed(0)
    models, replays = [MLP((4,), 3, hidden=(2,)) for _ in range(2)], []
    replay = RepeatedStep.replay
    monkeypatch.setattr(RepeatedStep, "replay", lambda graph: replays.append(graph) or replay(graph))
    step = StackedStep(FunctionalStack(models), optimizers(models), CPU, captured=True)
    for size in [6, 6, 6, 4] * 2:
        step.run((torch.randn(size, 4), torch.randint(0, 3, (size,))), None, shared=True)
    assert len(replays) == 3


def test_parameters_that_no_optimiser_has_do_not_change():
    torch.manual_seed(0)
    models = [MLP((4,), 3, hidden=(2,)) for _ in range(2)]
    first = copy.deepcopy(models[0])
    heads = [torch.optim.SGD(model.net[3].parameters(), 0.1) for model in models]
    StackedStep(FunctionalStack(models), heads, CPU).run(
        (torch.randn(6, 4), torch.randint(0, 3, (6,))), None, shared=True
    )
    assert torch.equal(models[0].net[1].weight, first.net[1].weight)
    assert not torch.equal(models[0].net[3].weight, first.net[3].weight)


def test_one_draw_for_all_has_the_rate_of_each_model():
    torch.manual_seed(0)
    masks = draw_together((3, 200, 50), Rates((0.0, 0.2, 0.5)), CPU)
    assert masks[0].eq(1).all()
    assert masks[1].unique().tolist() == pytest.approx([0, 1.25])
    assert masks.mean((1, 2)).tolist() == pytest.approx([1, 1, 1], abs=0.03)
    assert masks.eq(0).float().mean((1, 2)).tolist() == pytest.approx([0, 0.2, 0.5], abs=0.02)


def test_metrics_of_all_models_at_once_are_those_of_each():
    torch.manual_seed(0)
    splits = [MLP((4,), 3).val_metrics for _ in range(2)]
    together = StackedMetrics(splits)
    for size in [5] * 40 + [2]:
        outputs, targets = torch.randn(2, size, 3), torch.randint(0, 3, (2, size))
        together.update(outputs, targets)
        for split, *own in zip(splits, outputs, targets, strict=True):
            split.update(*own)
    for ours, split in zip(together.compute(), splits, strict=True):
        torch.testing.assert_close(ours, split.compute())


class RootLoss(MeanLoss):
    def compute(self):
        return super().compute().sqrt()


@pytest.mark.parametrize(
    "metric", [RootLoss(F.cross_entropy), MulticlassAccuracy(3, average="micro", ignore_index=0)], ids=["root", "acc"]
)
def test_metrics_that_count_otherwise_are_left_to_each_model(metric):
    assert not StackedMetrics.takes(SplitMetrics(MetricCollection({"mine": metric})))


def test_other_metrics_than_means_are_left_to_each_model():
    split: SplitMetrics = MLPRegressor((4,)).val_metrics
    assert not StackedMetrics.takes(split)
