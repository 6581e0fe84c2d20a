"""`litlab validate` and `test` of a module that draws random numbers: why the values differ from those recorded."""

import pytest

pytestmark = pytest.mark.usefixtures("tables")
NOTE = "draw random numbers, and these are others than in the training"


@pytest.fixture
def fit(strangers, litlab, tmp_path):
    """Return a function that trains a module and data of loops.py, and returns the run id."""

    def run(model, data):
        path = tmp_path / "it.yaml"
        path.write_text(
            f"data: {{class_path: loops.{data}}}\nmodel: {{class_path: loops.{model}}}\n"
            "trainer: {max_epochs: 1, accelerator: cpu}\n"
        )
        outcome = litlab("fit", "-c", path)
        assert outcome.code == 0, outcome.err
        return outcome.run_id

    return run


def test_values_that_differ_because_a_step_draws_random_numbers_are_explained(fit, litlab):
    run_id = fit("NoisyValidation", "Data")
    for verb, step in (("validate", "validation_step"), ("test", "test_step")):
        outcome = litlab(verb, run_id)
        assert outcome.code == 0
        assert outcome.err == f"litlab: note: {step} or the data {NOTE}\n"


def test_values_that_differ_because_the_data_draw_random_numbers_are_explained(fit, litlab):
    run_id = fit("Net", "NoisyData")
    assert NOTE in litlab("validate", run_id).err
    assert litlab("test", run_id).err == "", "the test set is not augmented"


def test_a_loader_that_only_shuffles_is_not_said_to_draw(fit, litlab):
    run_id = fit("Net", "TwoLoaders")
    assert litlab("validate", run_id).err == ""
