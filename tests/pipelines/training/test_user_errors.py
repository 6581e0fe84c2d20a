"""An author's mistake: a traceback of the author's files, then one line; litlab's own refusals stay one line."""

import pytest

from pipelines.tracking.store import Store

FAULTY = "tests.fixtures.strangers.faulty"
CLASSES = "tests.fixtures.strangers.classes"


@pytest.fixture
def fit(litlab, tmp_path):
    """Run `litlab fit` with a module and a data module."""

    def run(model, data=f"{CLASSES}.Points", *more):
        (tmp_path / "it.yaml").write_text(
            f"data: {{class_path: {data}}}\nmodel: {{class_path: {model}}}\n"
            "trainer: {max_epochs: 1, accelerator: cpu}"
        )
        return litlab("fit", "-c", tmp_path / "it.yaml", *more)

    return run


def shown_files(text):
    return [line.split('"')[1] for line in text.splitlines() if line.startswith('  File "')]


@pytest.mark.parametrize(
    ("part", "line"),
    [
        ("InInit", "litlab: ValueError: too many values to unpack (expected 2)"),
        ("InTorch", "litlab: KeyError:"),
        ("InSetup", "litlab: ValueError: too many values to unpack (expected 2)"),
        ("InPrepareData", "litlab: KeyError: 'key'"),
    ],
)
def test_a_mistake_before_there_is_a_run_shows_the_place_and_exits_with_2(fit, tmp_path, part, line):
    name = f"{FAULTY}.{part}"
    is_data = part in ("InSetup", "InPrepareData")
    outcome = fit(f"{CLASSES}.Net", name) if is_data else fit(name)
    assert outcome.code == 2
    assert {path.rpartition("/")[2] for path in shown_files(outcome.err)} == {"faulty.py"}
    assert outcome.err.splitlines()[-1].startswith(line)
    assert not (tmp_path / "runs" / "mlflow.db").exists()


@pytest.mark.parametrize(
    ("part", "line"),
    [
        ("InTrainingStep", "litlab: AttributeError: 'InTrainingStep' object has no attribute 'typo'"),
        ("InValidationStep", "litlab: AttributeError: 'InValidationStep' object has no attribute 'typo'"),
        ("WithoutMessage", "litlab: NotImplementedError"),
        ("InTrainDataloader", "litlab: AttributeError: 'InTrainDataloader' object has no attribute 'typo'"),
        ("InAWorker", "litlab: IndexError: list index out of range"),
    ],
)
def test_a_mistake_in_a_run_shows_the_place_and_exits_with_1(fit, part, line):
    name = f"{FAULTY}.{part}"
    outcome = fit(name) if "Step" in part or part == "WithoutMessage" else fit(f"{CLASSES}.Net", name)
    assert outcome.code == 1
    assert {path.rpartition("/")[2] for path in shown_files(outcome.err)} == {"faulty.py"}
    assert line in outcome.err.splitlines()
    assert "No epoch was finished: correct the error and run the same command again" in outcome.err
    assert "To continue" not in outcome.err
    assert "Metrics logged so far" not in outcome.err


def test_metrics_are_said_to_be_kept_if_there_are_some(fit):
    outcome = fit(f"{FAULTY}.InTheSecondEpoch", f"{CLASSES}.Points", "--trainer.max_epochs", "2")
    assert outcome.code == 1
    assert "failed. Metrics logged so far are kept." in outcome.err
    assert "To continue: litlab resume" in outcome.err


@pytest.mark.parametrize("name", ["TensorBoardLogger", "NeptuneLogger", "[CSVLogger,CometLogger]"])
def test_a_logger_whose_package_is_missing_is_a_mistake_before_there_is_a_run(fit, tmp_path, name):
    outcome = fit(f"{CLASSES}.Net", f"{CLASSES}.Points", "--trainer.logger", name)
    assert outcome.code == 2
    assert "trainer.logger" in outcome.err
    assert not (tmp_path / "runs" / "mlflow.db").exists()


def test_what_lightning_refuses_at_the_first_step_is_a_mistake_in_a_failed_run(fit, tables):
    outcome = fit(f"{FAULTY}.DictWithoutLoss")
    assert outcome.code == 2
    assert "the 'loss' key needs to be present" in outcome.err
    assert outcome.err.splitlines()[-1].endswith("failed.")
    (run,) = Store().search([Store().experiment_id("it")], "")
    assert run.status == "FAILED"


def test_an_error_of_lightning_on_behalf_of_a_module_is_its_message_and_the_whole_traceback_can_be_shown(
    fit, monkeypatch
):
    outcome = fit(f"{FAULTY}.WithoutGradient")
    assert outcome.code == 1
    assert shown_files(outcome.err) == []
    assert "litlab: RuntimeError: element 0 of tensors does not require grad" in outcome.err
    assert "LITLAB_TRACEBACK=1 shows all of it" in outcome.err
    monkeypatch.setenv("LITLAB_TRACEBACK", "1")
    assert any("torch/autograd" in path for path in shown_files(fit(f"{FAULTY}.WithoutGradient").err))


def test_a_message_of_several_lines_is_shown_in_full(fit):
    outcome = fit(f"{FAULTY}.LoadsOtherWeights")
    assert outcome.code == 1
    assert 'Missing key(s) in state_dict: "weight", "bias"' in outcome.err
    assert 'Unexpected key(s) in state_dict: "other.weight"' in outcome.err


def test_a_mistake_in_validation_is_found_before_the_first_epoch(fit):
    assert "epoch" not in fit(f"{FAULTY}.InValidationStep").out


def test_a_refusal_of_litlab_stays_one_line_even_in_an_authors_class(fit):
    outcome = fit(f"{FAULTY}.RefusedByLitlab")
    assert outcome.code == 2
    assert outcome.err == "litlab: RefusedByLitlab needs data with classes, at least 2; there are 1\n"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("import no_such_package\n", "litlab: ModuleNotFoundError: No module named 'no_such_package'"),
        ("from torch import no_such_name\n", "litlab: ImportError: cannot import name 'no_such_name'"),
        ("undefined\n", "litlab: NameError: name 'undefined' is not defined"),
        ("class X(\n", "litlab: SyntaxError: '(' was never closed"),
    ],
)
def test_an_import_that_fails_shows_why(fit, tmp_path, monkeypatch, text, line):
    (tmp_path / "failing_import.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    outcome = fit("failing_import.X")
    assert outcome.code == 2
    assert "failing_import.py" in outcome.err
    assert outcome.err.splitlines()[-1].startswith(line)
