"""What a module takes from its data module: `num_classes` and `input_shape`; modules without a data module."""

import pytest

from pipelines.config.cli import parse_config
from pipelines.runtime.errors import UserError

CLASSES = "tests.fixtures.strangers.classes"


@pytest.fixture
def build(tmp_path):
    """Parse and build a module of `strangers/classes.py` and data of it or of another path."""

    def run(model, data="Points", *args):
        path = tmp_path / "it.yaml"
        data_section = f"data: {{class_path: {data if '.' in data else f'{CLASSES}.{data}'}}}" if data else ""
        path.write_text(f"model: {{class_path: {model if '.' in model else f'{CLASSES}.{model}'}}}\n{data_section}")
        cli = parse_config("fit", ["-c", str(path), *args])
        return cli, *cli.build()

    return run


@pytest.mark.parametrize("model", ["Default", "Required", "make_required"])
def test_a_stranger_takes_the_classes_of_the_data_and_the_configuration_shows_them(build, model):
    cli, _, module = build(model, "SevenClasses")
    assert module.num_classes == 7
    assert cli.resolved()["model"]["init_args"]["num_classes"] == 7
    assert cli.params()["model.num_classes"] == 7


def test_a_value_that_differs_from_the_data_is_refused_with_both_values(build):
    with pytest.raises(UserError, match=r"model.num_classes is 2, but SevenClasses.num_classes is 7"):
        build("Default", "SevenClasses", "--model.num_classes", "2")
    assert build("Default", "SevenClasses", "--model.num_classes", "7")[2].num_classes == 7


@pytest.mark.parametrize("data", ["Points", "UnknownClasses"])
def test_without_an_attribute_of_the_data_the_value_given_or_the_default_stands(build, data):
    assert build("Default", data)[2].num_classes == 2
    cli, _, module = build("Required", data, "--model.num_classes", "5")
    assert module.num_classes == cli.resolved()["model"]["init_args"]["num_classes"] == 5
    with pytest.raises(UserError, match=f"model.num_classes is required: {data} has no num_classes"):
        build("Required", data)


@pytest.mark.parametrize("model", ["Flat", "Untyped"])
def test_a_value_of_another_type_is_not_taken_from_the_data(build, model):
    assert build(model, "SevenClasses")[2].input_shape == 4
    assert build(model, "SevenClasses", "--model.input_shape", "5")[2].input_shape == 5


def test_a_module_of_litlab_takes_values_from_anybodys_data_or_from_the_user(build):
    cli, _, module = build("modules.mlp.MLP", "SevenClasses")
    assert (module.hparams["num_classes"], module.hparams["input_shape"]) == (7, (4,))
    assert "num_classes" not in cli.resolved()["model"]["init_args"]
    given = ["--model.num_classes", "2", "--model.input_shape", "[4]"]
    cli, _, module = build("modules.mlp.MLP", "Points", *given)
    assert cli.resolved()["model"]["init_args"]["num_classes"] == module.hparams["num_classes"] == 2
    with pytest.raises(UserError, match=r"model.num_classes is known from the data and must not be set"):
        build("modules.mlp.MLP", "SevenClasses", *given)


def test_a_saved_configuration_gives_the_same_again(build, tmp_path):
    import yaml

    cli, _, _ = build("Default", "SevenClasses")
    saved = tmp_path / "saved.yaml"
    saved.write_text(yaml.safe_dump(cli.resolved()))
    again = parse_config("fit", ["-c", str(saved)])
    assert again.resolved() == cli.resolved()
    again.build()
    assert again.resolved() == cli.resolved()


def test_a_module_with_its_own_data_loaders_needs_no_data(build):
    cli, data, module = build("OwnLoaders", None)
    assert data is None
    assert cli.resolved()["data"] is None
    assert len(module.train_dataloader()) == 2
    with pytest.raises(UserError, match="data is required: Net has no train_dataloader of its own"):
        build("Net", None)


def test_the_sanity_check_is_on_for_others_and_off_for_litlabs_modules(build):
    assert build("Net")[0].resolved()["trainer"]["num_sanity_val_steps"] == 2
    assert build("Net", "Points", "--trainer.num_sanity_val_steps", "0")[0].config.trainer.num_sanity_val_steps == 0
    assert build("modules.mlp.MLP", "SevenClasses")[0].config.trainer.num_sanity_val_steps == 0
