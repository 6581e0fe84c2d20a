"""`litlab fit --folds`: every example validates once, the test set stays closed until all folds are trained."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from datamodules.diabetes import Diabetes
from datamodules.digits import Digits
from datamodules.folds import Fold
from pipelines.comparison.compare import compare
from pipelines.comparison.corrected import corrected_interval
from pipelines.comparison.intervals import paired_difference, summarize
from pipelines.runtime.errors import UserError
from pipelines.tracking import measured
from pipelines.tracking.store import Store
from sweeps.search.space_files import read_space
from sweeps.search.sweep import sweep
from sweeps.seeds.fit_seeds import SeedsResult, fit_seeds

QUICK = ["--trainer.max_epochs", "1", "--trainer.accelerator", "cpu", "--data.n_train", "300"]


class FragileDigits(Digits):  # type: ignore[misc]
    """Digits whose last fold cannot be read while a file exists."""

    def __init__(self, broken: str, **options: Any) -> None:
        super().__init__(**options)
        self.broken = Path(broken)

    def load(self, *, train: bool) -> Any:
        if self.fold is not None and self.fold.fold == 2 and self.broken.exists():
            raise ValueError("the disk of this fold is away")
        return super().load(train=train)


def train(*arguments: str, folds: int = 3, seeds: int = 3) -> SeedsResult:
    return fit_seeds("digits-mlp", seeds=seeds, folds=folds, overrides=[*QUICK, *arguments])


def test_every_training_example_validates_in_exactly_one_fold():
    labels = Digits().load(train=True)[1]
    validated = torch.cat([Fold(4, fold, 0).split(len(labels), strata_N=labels)[1] for fold in range(4)])
    assert torch.equal(validated.sort().values, torch.arange(len(labels)))
    data = Digits(folds=4, fold=1)
    data.setup("fit")
    assert len(data.train_set) + len(data.val_set) == len(labels)
    train_labels, val_labels = (torch.bincount(part.targets) for part in (data.train_set, data.val_set))
    assert torch.all((train_labels - 3 * val_labels).abs() <= 4)  # stratified


def test_no_group_is_in_two_folds_and_rows_of_a_table_have_folds_too():
    groups = torch.arange(200) % 23
    parts = [Fold(5, fold, 0).split(200, strata_N=torch.arange(200) % 2, groups_N=groups)[1] for fold in range(5)]
    assert torch.equal(torch.cat(parts).sort().values, torch.arange(200))
    found = [{*groups[part].tolist()} for part in parts]
    assert sum(map(len, found)) == 23
    tables = [Diabetes(folds=3, fold=fold) for fold in range(3)]
    for table in tables:
        table.setup("fit")
    digests = [table.describe()["sha256"] for table in tables]
    assert len({digest["folds"] for digest in digests}) == 1
    assert len({digest["val"] for digest in digests}) == 3
    assert sum(len(table.val_set) for table in tables) == len(tables[0].train_set) + len(tables[0].val_set)
    with pytest.raises(ValueError, match="there are only 23 groups"):
        Fold(24, 0, 0).split(200, strata_N=None, groups_N=groups)


@pytest.mark.parametrize("options", [{"folds": 3, "fold": 3}, {"folds": 1}, {"folds": 3, "fold": -1}, {"fold": 1}])
def test_a_fold_that_does_not_exist_is_refused(options):
    with pytest.raises(ValueError, match=r"data\.folds"):
        Digits(**options)


def test_folds_are_one_row_with_their_mean_and_are_compared_fold_by_fold(uri):
    first, second = train(), train("--model.dropout", "0.6")
    for metric in ("test/acc", "selected/val/acc"):
        compared = compare([], metric=metric)
        assert sum("share training examples" in note for note in compared.notes) == 1
    looks = compare([], metric="test/acc").looks
    assert looks is not None
    assert looks.count == 2, "the folds of a configuration are one look at the test set"
    whole = [
        corrected_interval([*row.values.values()], 2, 360, (0, 1), 1 / 2) for row in compare([], metric="test/acc").rows
    ]
    assert [*looks.intervals.values()] == whole, "the error of a test set of 360 examples is in the interval"
    assert json.loads(first.runs[0].file("data.json").read_text())["sizes"] == {"train": 300, "val": 479, "test": 360}
    assert [row.summary.n for row in compared.rows] == [3, 3]
    values = {run.repeat: run.metrics["selected/val/acc"] for run in first.runs}
    assert [*values] == ["0, fold 0", "1, fold 1", "2, fold 2"]
    other = {run.repeat: run.metrics["selected/val/acc"] for run in second.runs}
    expected = [summarize(list(part.values()), (0, 1), overlap=1 / 2).ci95 for part in (values, other)]
    assert {row.summary.ci95 for row in compared.rows} == {*expected}
    assert compared.rows[1].difference.paired
    parent = Store().find(first.run_id)
    assert parent.metrics["selected/val/acc"] == pytest.approx(sum(values.values()) / 3)
    assert parent.name == "n_train=300 max_epochs=1 accelerator=cpu, 3 folds, seeds 0 to 2"
    assert (parent.metrics["n"], parent.params["data.folds"]) == (3, "3")
    assert all("test/acc" in run.metrics for run in first.runs)


def test_the_test_set_stays_closed_until_every_fold_is_trained(uri, tmp_path):
    broken = tmp_path / "broken"
    broken.touch()
    data = ["--data", f"{__name__}.FragileDigits", "--data.broken", str(broken)]
    first = train(*data)
    assert [result.job.seed for result in first.failed] == [2]
    assert [measured.test_metrics(run.metrics, run.tags) for run in first.runs] == [{}, {}]
    broken.unlink()
    now = first.runs[0].tags.get("git.commit")  # None outside of a git checkout
    Store().tag(first.runs[0].run_id, "git.commit", "0" * 40)
    second = train(*data)
    assert second.run_id == first.run_id
    assert [run.run_id for run in second.runs][:2] == [run.run_id for run in first.runs]
    assert all("test/acc" in measured.test_metrics(run.metrics, run.tags) for run in second.runs)
    other_code = [run.tags.get("resumed.git.commit") for run in second.runs]
    assert other_code == [now, None, None], "the code that tests a run is recorded if it is not that of the training"


@pytest.mark.slow
def test_the_value_of_a_trial_is_the_mean_over_its_folds(uri, tmp_path):
    path = tmp_path / "folded.yaml"
    path.write_text("{experiment: digits-mlp, folds: 2, space: {model.dropout: [0.0, 0.5]}, sampler: grid, confirm: 0}")
    result = sweep(path, overrides=QUICK)
    assert result.best is not None
    runs = [Store().find(run_id) for run_id in result.best.runs]
    assert [run.repeat for run in runs] == ["0, fold 0", "1, fold 1"]
    assert result.best.value == pytest.approx(sum(run.metrics["selected/val/acc"] for run in runs) / 2)
    assert not any(measured.test_metrics(run.metrics, run.tags) for run in runs)


@pytest.mark.parametrize(("folds", "seeds"), [(1, 3), (3, 4)])
def test_seeds_must_be_a_multiple_of_at_least_two_folds(folds, seeds, uri):
    with pytest.raises(UserError, match="--folds"):
        train(folds=folds, seeds=seeds)


def test_folds_need_a_data_module_that_has_them(uri):
    with pytest.raises(UserError, match="has no arguments folds and fold"):
        fit_seeds("circles", seeds=2, folds=2)


def test_a_space_fixes_its_folds_itself(tmp_path):
    path = tmp_path / "folded.yaml"
    path.write_text("{experiment: digits-mlp, folds: 5, space: {model.dropout: [0.1]}, sampler: grid}")
    assert read_space(str(path), {}).seeds == 5
    path.write_text("{experiment: digits-mlp, space: {data.fold: [0, 1]}, sampler: grid}")
    with pytest.raises(UserError, match="set folds: N in the space"):
        read_space(str(path), {})


def test_intervals_of_folds_are_wider_by_the_examples_that_they_share():
    """Nadeau and Bengio (2003): the variance of the mean of K folds is s² (1 / K + 1 / (K - 1))."""
    values = {"0": 0.90, "1": 0.92, "2": 0.94, "3": 0.96, "4": 0.88}
    usual, corrected = summarize(list(values.values())), summarize(list(values.values()), overlap=1 / 4)
    half = [(summary.ci95[1] - summary.ci95[0]) / 2 for summary in (usual, corrected)]
    assert half[1] / half[0] == pytest.approx((5 * (1 / 5 + 1 / 4)) ** 0.5)
    assert half[1] == pytest.approx(2.776445 * 0.0316228 * 0.45**0.5, rel=1e-5)  # t(0.975, 4)
    reference = {key: value - 0.01 for key, value in values.items()}
    reference["0"] = 0.91
    paired = [paired_difference(values, reference, overlap=overlap).ci95 for overlap in (0, 1 / 4)]
    assert (paired[1][1] - paired[1][0]) / (paired[0][1] - paired[0][0]) == pytest.approx(1.5)
