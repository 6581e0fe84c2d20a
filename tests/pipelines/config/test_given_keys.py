"""A key that a user gave has an effect or is refused; keys of the experiment that another class lacks are named."""

from pathlib import Path

import pytest
import yaml

from pipelines.config.cli import parse_config
from pipelines.config.experiments import read_yaml
from pipelines.runtime.errors import UserError

LINEAR = "modules.linear.LinearClassifier"
STOPPING = ("--trainer.callbacks+", "EarlyStopping", "--trainer.callbacks.monitor", "val/loss")


@pytest.fixture
def write(tmp_path):
    def write_yaml(text, name="own.yaml"):
        (tmp_path / name).write_text(text if isinstance(text, str) else yaml.safe_dump(text))
        return str(tmp_path / name)

    return write_yaml


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--model.dropout", "0.7", "--model", LINEAR], f"--model.dropout has no effect: {LINEAR} has no dropout"),
        ([f"--model={LINEAR}", "--model.dropout=0.7"], "unknown key model.dropout"),
        (["--model.init_args.dropout=0.7", "--model", LINEAR], "dropout has no effect"),
        (
            ["--model.optimizer.betas", "[0.5, 0.9]", "--model.optimizer", "torch.optim.SGD"],
            "--model.optimizer.betas has no effect: torch.optim.SGD has no betas",
        ),
        (
            ["--model.lr_scheduler=StepLR", "--model.lr_scheduler.step_size=3", "--model.lr_scheduler=null"],
            "step_size has no effect: model.lr_scheduler is null",
        ),
        (
            ["--model.dropout", "0.7", "--model", '{"class_path": "modules.mlp.MLP", "init_args": {"dropout": 0.1}}'],
            "--model.dropout has no effect: --model replaces it",
        ),
        ([*STOPPING, "--trainer.callbacks", "null"], "has no effect: --trainer.callbacks replaces it"),
        ([*STOPPING, "--trainer.callbacks", "Timer"], "has no effect"),
        (["--data.batch_size", "8", "--data", "null"], "--data.batch_size has no effect: data is null"),
    ],
)
def test_a_key_of_the_command_line_without_effect_is_refused(args, message):
    with pytest.raises(UserError) as refused:
        parse_config("fit", ["digits-mlp", *args])
    assert message in str(refused.value)


def test_a_key_of_a_file_beside_an_experiment_is_refused_in_any_order(write):
    own = write({"model": {"init_args": {"dropout": 0.7}}})
    for args in (["digits-mlp", "-c", own], ["-c", own, "digits-mlp"], [f"--config={own}", "digits-mlp"]):
        with pytest.raises(UserError, match=f"own.yaml: model.dropout has no effect: {LINEAR} has no dropout"):
            parse_config("fit", [*args, "--model", LINEAR])


def test_keys_of_the_experiment_that_another_class_lacks_are_named_in_one_line(capfd, write):
    assert parse_config("fit", ["digits-mlp", "--model", LINEAR]).config.model.class_path == LINEAR
    first = write({"data": {"class_path": "datamodules.digits.Digits"}, "model": {"class_path": "modules.mlp.MLP"}})
    second = write({"model": {"class_path": LINEAR}}, "second.yaml")
    parse_config("fit", ["-c", first, "-c", second])
    lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith("litlab")]
    assert lines == [
        f"litlab: digits-mlp.yaml is used without model.hidden, model.dropout, which {LINEAR} does not have"
    ]


@pytest.mark.parametrize(
    "args",
    [
        ["--model.dropout", "0.7", "--model", "modules.mlp.MLP"],
        ["--model.dropout", "0.5", "--model.dropout", "0.7"],
        ["--model.dropout", "0.7", "--model", '{"class_path": "modules.mlp.MLP", "init_args": {"hidden": [3]}}'],
        [*STOPPING, "--trainer.callbacks+", "Timer", "--model.dropout", "0.7"],
        ["--model.optimizer.lr", "0.7", "--model.optimizer", "torch.optim.SGD", "--model.dropout=0.7"],
        ["--model.dropout", "7e-1", "--model", "modules.mlp.MLP"],
        ["--model.hidden", "[10, 5]", "--model", "modules.mlp.MLP", "--model.dropout", "0.7"],
        ["--model.optimizer.lr", "2e-3", "--model.optimizer", "torch.optim.SGD", "--model.dropout=0.7"],
        ["--trainer.strategy=DDPStrategy", "--trainer.strategy.find_unused_parameters=true", "--model.dropout=0.7"],
    ],
)
def test_a_key_with_an_effect_is_accepted(args):
    assert parse_config("fit", ["digits-mlp", *args]).config.model.init_args.dropout == 0.7


def test_the_experiment_may_follow_its_options(write):
    own = write({"model": {"init_args": {"dropout": 0.7}}})
    expected = parse_config("fit", ["digits-mlp", "-c", own, "--seed_everything", "2"]).resolved()
    for args in (["-c", own, "digits-mlp", "--seed_everything=2"], ["--seed_everything", "2", "-c", own, "digits-mlp"]):
        assert parse_config("fit", args).resolved() == expected
    with pytest.raises(UserError, match="unexpected argument 'mnist-mlp': one experiment at a time"):
        parse_config("fit", ["digits-mlp", "-c", own, "mnist-mlp"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "trainer: {max_epochs: 2}\nmodel: {}\ntrainer: {max_steps: 3}\n",
            "trainer is given twice, in line 1 and in line 3",
        ),
        ("trainer:\n  max_epochs: 2\n  max_epochs: 3\n", "max_epochs is given twice, in line 2 and in line 3"),
        ("trainer: {max_epochs: 2, max_epochs: 3}\n", "max_epochs is given twice, in line 1 and in line 1"),
        ("trainer.max_epochs: 2\ntrainer: {max_epochs: 3}\n", "trainer.max_epochs is given twice"),
    ],
)
def test_a_key_twice_in_one_file_is_refused(write, text, message):
    with pytest.raises(UserError) as refused:
        parse_config("fit", ["digits-mlp", "-c", write(text)])
    assert message in str(refused.value)


def test_a_key_twice_in_the_file_or_the_text_of_a_value_is_refused(write):
    sub = write("class_path: modules.mlp.MLP\ninit_args: {dropout: 0.1, dropout: 0.4}\n", "sub.yaml")
    for value in (sub, '{"class_path": "modules.mlp.MLP", "init_args": {"dropout": 0.1, "dropout": 0.4}}'):
        with pytest.raises(UserError, match="dropout is given twice"):
            parse_config("fit", ["digits-mlp", "--model", value])


def test_a_key_of_a_file_that_another_class_lacks_is_refused(write):
    sub = write({"class_path": "modules.mlp.MLP", "init_args": {"dropout": 0.4}}, "sub.yaml")
    assert parse_config("fit", ["digits-mlp", "--model", sub]).config.model.init_args.dropout == 0.4
    with pytest.raises(UserError, match=f"sub.yaml: model.dropout has no effect: {LINEAR} has no dropout"):
        parse_config("fit", ["digits-mlp", "--model", sub, "--model", LINEAR])


def test_a_key_that_overrides_one_of_a_merged_mapping_is_not_given_twice(write):
    text = """
defaults: &defaults {lr: 0.1, momentum: 0.5}
optimizers: {sgd: &sgd {<<: *defaults, lr: 0.2}}
other: {<<: *sgd, 1: one, "1": text}
"""
    other = read_yaml(Path(write(text)), "anything")["other"]
    assert other == {"lr": 0.2, "momentum": 0.5, 1: "one", "1": "text"}
