"""What LightningCLI takes as a class: factory functions, networks and optimisers handed in, any kind of argument."""

import pytest
import torch

from pipelines.config.cli import parse_config
from pipelines.config.defaults import config_defaults
from pipelines.config.identity import same_config
from pipelines.runtime.errors import UserError

CLASSES = "tests.fixtures.strangers.classes"
SEQUENTIAL = "{class_path: torch.nn.Sequential}"
STEP_LR = "{class_path: torch.optim.lr_scheduler.StepLR, init_args: {step_size: 1}}"


def parse(tmp_path, model, *args, data=f"{CLASSES}.Points"):
    path = tmp_path / "it.yaml"
    path.write_text(f"data: {{class_path: {data}}}\nmodel: {{class_path: {CLASSES}.{model}}}\n")
    return parse_config("fit", ["-c", str(path), *args])


@pytest.mark.parametrize(
    ("model", "args"),
    [
        ("make_net", ["--model.lr", "0.3"]),
        ("make_untyped", []),
        ("Untyped", ["--model.hidden", "16"]),
        ("Injected", ["--model.net", f"{CLASSES}.plain_net", "--model.net.width", "5"]),
        ("Injected", ["--model.net", f"{CLASSES}.plain_net", "--model.optimizer", "SGD", "--model.optimizer.lr", "1"]),
        ("Injected", ["--model.net", f"{CLASSES}.plain_net", "--model.scheduler", STEP_LR]),
        ("Partial", []),
        ("Partial", ["--model.optimizer", "{class_path: torch.optim.SGD, init_args: {lr: 0.2}}"]),
        ("WithSettings", ["--model.settings.width", "4"]),
        ("Nested", ["--model.inner", f"{CLASSES}.Net", "--model.inner.lr", "0.2"]),
        ("Nested", ["--model.inner", f"{CLASSES}.make_net"]),
    ],
)
def test_a_class_is_built_and_its_configuration_reproduces_it(tmp_path, model, args):
    import yaml

    cli = parse(tmp_path, model, *args)
    _, module = cli.build()
    assert module.configure_optimizers()
    saved = tmp_path / "saved.yaml"
    saved.write_text(yaml.safe_dump(cli.resolved()))
    again = parse_config("fit", ["-c", str(saved)])
    assert again.resolved() == cli.resolved()
    assert same_config(cli.resolved(), again.resolved(), config_defaults(again))
    again.build()


def test_the_values_given_reach_what_is_handed_in(tmp_path):
    net = ["--model.net", f"{CLASSES}.plain_net", "--model.net.width", "5"]
    _, module = parse(tmp_path, "Injected", *net, "--model.optimizer", "SGD", "--model.optimizer.lr", "0.7").build()
    optimizer = module.configure_optimizers()
    assert isinstance(optimizer, torch.optim.SGD)
    assert optimizer.defaults["lr"] == 0.7
    assert module.net[0].out_features == 5


def test_a_function_without_a_return_annotation_is_refused_with_the_reason(tmp_path):
    with pytest.raises(UserError, match="a function needs a return annotation, such as ->"):
        parse(tmp_path, "without_annotation")


def test_values_that_yaml_cannot_represent_do_not_break_a_saved_configuration(tmp_path):
    cli = parse(tmp_path, "ObjectsAsDefaults")
    arguments = cli.resolved()["model"]["init_args"]
    assert (arguments["mode"], arguments["size"]) == ("fast", 0.5)
    _, model = parse(tmp_path, "ObjectsAsDefaults", "--model.size", "2").build()
    assert model.size == 2


def test_data_and_callbacks_may_be_factory_functions(tmp_path):
    cli = parse(tmp_path, "Net", "--data.seven", "true", data=f"{CLASSES}.make_points")
    assert cli.build()[0].num_classes == 7
    cli = parse(tmp_path, "Net", "--trainer.callbacks+=tests.fixtures.strangers.classes.make_callback")
    (callback,) = cli.callbacks
    assert type(callback).__name__ == "LearningRateMonitor"
