"""`litlab fit NAME --seeds N --stacked`: the seeds train as one, with the results of separate trainings."""

import pytest

from pipelines.runtime.errors import UserError
from sweeps.seeds.fit_seeds import fit_seeds

DIGITS = ["digits-mlp", "--data.n_train=200", "--model.hidden=[8]", "--model.dropout=0.2", "--trainer.max_epochs=2"]
DIGITS += ["--trainer.enable_progress_bar=false", "--trainer.accelerator=cpu"]


def test_stacked_seeds_have_the_metrics_of_separate_trainings_also_of_the_test_set(tmp_path):
    uris = [f"sqlite:///{tmp_path}/{name}.db" for name in ("separate", "stacked")]
    separate, stacked = (
        fit_seeds(overrides=DIGITS, seeds=2, stacked=size, tracking_uri=uri)
        for size, uri in zip((1, "auto"), uris, strict=True)
    )
    assert not stacked.failed
    assert [run.tags["stacked"] for run in stacked.runs] == ["2", "2"]
    for one, other in zip(separate.runs, stacked.runs, strict=True):
        before, after = (
            {key: value for key, value in run.metrics.items() if key != "fit_seconds"} for run in (one, other)
        )
        assert "test/acc" in before
        assert after == pytest.approx(before, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"stacked": 0}, "--stacked 0: expected at least 1"), ({"stacked": 4, "folds": 2}, "folds have different data")],
)
def test_sizes_and_folds_that_cannot_be_stacked_are_refused(tmp_path, options, message):
    with pytest.raises(UserError, match=message):
        fit_seeds(overrides=DIGITS, seeds=2, tracking_uri=f"sqlite:///{tmp_path}/mlflow.db", **options)
