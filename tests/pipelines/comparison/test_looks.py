"""How often a test set was looked at: the line below the table of `litlab compare`, and its other formats."""

import json

import numpy as np
import pytest

import litlab as lab
from pipelines.comparison.compare import compare
from pipelines.comparison.corrected import corrected_interval
from pipelines.comparison.looks import Looks, ordinal
from pipelines.tracking.tags import CONFIG_HASH_TAG

SAME = {"model": "modules.mlp.MLP", "data": "datamodules.digits.Digits"}
EXAMPLES = 360


@pytest.fixture(autouse=True)
def uri(uri, store, monkeypatch) -> str:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store.uri)
    return store.uri


@pytest.fixture
def tested(write, store):
    """Return a function that writes the runs of one configuration, a seed each, with the size of the test set."""
    from mlflow.entities import Dataset, DatasetInput

    profile = json.dumps({"sizes": {"train": 1, "test": EXAMPLES}})

    def runs(experiment: str, test_set: str, lr: float, *accuracies: float, config: str = "", **metrics: float):
        for seed, accuracy in enumerate(accuracies, 1):
            tags = {"data.sha256.test": test_set, CONFIG_HASH_TAG: config or f"{experiment} {lr}"}
            run_id = write(experiment, {**SAME, "model.lr": str(lr)}, seed, tags, test__acc=accuracy, **metrics)
            data = Dataset("Digits", "digest", "litlab", "{}", profile=profile)
            store.client.log_inputs(run_id, datasets=[DatasetInput(data)])

    return runs


def below(table: str) -> list[str]:
    return [line for line in table.splitlines() if "look" in line]


def test_the_best_of_50_configurations_is_flagged_and_its_corrected_interval_has_the_true_accuracy(
    tested, litlab, records
):
    """All 50 have a true accuracy of 0.95."""
    draws = np.random.default_rng(7).binomial(EXAMPLES, 0.95, 50) / EXAMPLES
    for number, accuracy in enumerate(draws):
        tested("fifty", "a" * 64, number / 100, accuracy)
    best = records("fifty")[0]
    assert (best["mean"], best["test_looks"]) == (draws.max(), 50)
    assert draws[best["test_look"] - 1] == draws.max()
    low, high = corrected_interval([draws.max()], 50, EXAMPLES, (0.0, 1.0))
    assert best["corrected_ci95"] == pytest.approx([low, high])
    assert low < 0.95 < high
    assert below(litlab("compare", "fifty").out) == [
        f"50th look at this test set; network of row 1, corrected: {low:.4f} to {high:.4f}"
    ]


def test_the_line_fits_80_columns_and_all_formats_have_it(tested, litlab, records, monkeypatch):
    tested("formats", "b" * 64, 0.1, 0.95, 0.97, 0.96)
    tested("formats", "b" * 64, 0.2, 0.90, 0.91, 0.93)
    low, high = corrected_interval([0.95, 0.97, 0.96], 2, EXAMPLES, (0.0, 1.0))
    line = f"2nd look at this test set; row 1, corrected: {low:.3f} to {high:.3f}"
    monkeypatch.setenv("COLUMNS", "80")
    for options in ((), ("--long",), ("--format", "md"), ("--format", "latex")):
        (found,) = below(litlab("compare", "formats", *options).out)
        assert found.removeprefix("% ") == line
    assert len(line) <= 80
    rows = records("formats")
    assert [row["test_look"] for row in rows] == [1, 2]
    assert rows[1]["corrected_ci95"][0] < rows[1]["ci95"][0] < rows[1]["ci95"][1] < rows[1]["corrected_ci95"][1]
    header, first, _ = litlab("compare", "formats", "--format", "csv").out.splitlines()
    cells = dict(zip(header.split(","), first.split(","), strict=True))
    assert (cells["test_look"], cells["test_looks"]) == ("1", "2")
    assert float(cells["corrected_ci95_low"]) == pytest.approx(low)
    frame = lab.compare("formats")
    assert frame.attrs["notes"] == [line]
    assert "corrected_ci95_low" not in frame
    assert lab.compare("formats", details=True)["corrected_ci95_high"].iloc[0] == pytest.approx(high)


def test_nothing_is_said_of_one_configuration_and_of_metrics_that_are_not_of_the_test(tested, litlab):
    tested("alone", "c" * 64, 0.1, 0.95, 0.97, val__acc=0.9)
    assert below(litlab("compare", "alone").out) == []
    tested("alone", "c" * 64, 0.2, 0.95, 0.96, val__acc=0.8)
    assert len(below(litlab("compare", "alone").out)) == 1
    assert below(litlab("compare", "alone", "--metric", "val/acc").out) == []


def test_looks_of_other_experiments_count_and_each_test_set_has_its_own(tested, litlab):
    tested("mine", "d" * 64, 0.1, 0.95, 0.97)
    tested("theirs", "d" * 64, 0.2, 0.8)
    tested("theirs", "e" * 64, 0.2, 0.8)
    tested("theirs", "e" * 64, 0.3, 0.9)
    assert below(litlab("compare", "mine").out)[0].startswith("1st of 2 looks at this test set; ")
    both = compare(["mine", "theirs"]).by_data_set().values()
    assert [part.looks.text for part in both] == ["2nd look at this test set"] * 2


def test_one_configuration_of_two_versions_with_different_hashes_is_one_look(tested):
    tested("versions", "f" * 64, 0.1, 0.95, config="of an earlier version")
    tested("versions", "f" * 64, 0.1, 0.95, 0.97, config="of this version")
    assert compare(["versions"]).looks is None
    tested("versions", "f" * 64, 0.2, 0.94)
    assert compare(["versions"]).looks.count == 2


def test_the_best_of_several_losses_with_one_seed_is_partly_chance(tested, litlab):
    tested("losses", "9" * 64, 0.1, 0.95, test__loss=0.2)
    tested("losses", "9" * 64, 0.2, 0.95, test__loss=0.3)
    line = "2nd look at this test set; row 1, the best of them, is partly chance"
    assert below(litlab("compare", "losses", "--metric", "test/loss").out) == [line]


@pytest.mark.parametrize(
    ("number", "text"), [(1, "1st"), (2, "2nd"), (3, "3rd"), (4, "4th"), (11, "11th"), (12, "12th"), (13, "13th")]
)
def test_ordinals_up_to_20(number, text):
    assert ordinal(number) == text
    assert ordinal(number + 100) == text.replace(str(number), str(number + 100))


def test_the_looks_on_a_server_may_be_more_than_were_counted():
    assert Looks(40, False, {1: 2, 2: 40}, {}).text == "40th of at least 40 looks at this test set"


def test_ordinals_above_20():
    assert [ordinal(number) for number in (20, 21, 22, 33, 110)] == ["20th", "21st", "22nd", "33rd", "110th"]
