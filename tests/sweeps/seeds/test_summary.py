"""The tables of several seeds show the metrics of any module, in the order test, selected, others."""

from typing import Any

import pytest

from pipelines.tracking.store import Store, StoredRun
from pipelines.tracking.tags import TEST_METRICS_TAG
from sweeps.seeds.summary import format_test_metrics, metrics_table, seeds_table


def runs_of(tags: dict[str, str], **metrics: float) -> list[StoredRun]:
    named = {key.replace("__", "/"): value for key, value in metrics.items()}
    fixed: dict[str, Any] = {"experiment": "e", "experiment_id": "0", "artifact_uri": "", "status": "FINISHED"}
    return [
        StoredRun(
            Store(opened=False), str(seed), "run", started=0, params={}, tags={"seed": str(seed), **tags},
            metrics={key: value + seed for key, value in named.items()}, **fixed,
        )
        for seed in range(2)
    ]  # fmt: skip


def test_metrics_with_any_names_are_summarised() -> None:
    runs = runs_of(
        {TEST_METRICS_TAG: '["iou"]'},
        train_loss=1,
        val_acc=1,
        selected__val_acc=1,
        selected__train_loss_epoch=1,
        selected_epoch=3,
        test_acc=0.5,
        iou=0.25,
    )
    assert [line[0] for line in metrics_table(runs)[1:]] == [
        "iou", "test_acc", "selected/val_acc", "selected/train_loss_epoch", "selected_epoch",
    ]  # fmt: skip
    assert seeds_table(runs)[0] == ["seed", "iou", "test_acc", "selected/val_acc", "run"]
    assert format_test_metrics(runs).startswith("iou ")


def test_runs_with_neither_a_test_nor_a_selected_epoch_show_all_their_metrics() -> None:
    assert [line[0] for line in metrics_table(runs_of({}, reward=1, fit_seconds=2))[1:]] == ["fit_seconds", "reward"]


@pytest.mark.parametrize("tag", ["nonsense", "3", '{"a": 1}'])
def test_a_tag_that_litlab_did_not_write_is_ignored(tag: str) -> None:
    assert format_test_metrics(runs_of({TEST_METRICS_TAG: tag}, test_acc=1)).startswith("test_acc")
