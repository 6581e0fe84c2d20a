"""Parse command lines and configuration files: values, precedence and error messages."""

import re

import pytest
import yaml

from pipelines.config.cli import parse_config
from pipelines.config.data_setup import load_data
from pipelines.runtime.errors import UserError

YAML = """
data: {class_path: datamodules.digits.Digits}
model: {class_path: modules.mlp.MLP, init_args: {dropout: 0.1}}
trainer: {max_epochs: 3}
"""


def write(path, text):
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize(
    ("args", "says"),
    [
        ("digits-mlp --model.dropuot 0.3", "unknown key model.dropuot: did you mean model.dropout?"),
        ("digits-mlp --model.lr 0.3", "unknown key model.lr: did you mean model.optimizer.lr?"),
        ("digits-mlp --model.optimizer.lrr 1", "did you mean model.optimizer.lr?"),
        ("digits-mlp --data.n_trian 250", "did you mean data.n_train?"),
        ("digits-mlp --trainer.max_epoch 3", "did you mean trainer.max_epochs?"),
        ("digits-mlp --modl.dropout 0.3", "did you mean model.dropout?"),
        ("digits-mlp --model.dropout much", "model.dropout: Expected float, got much"),
        ("digits-mlp --model.hidden 64", "Expected Sequence, got 64; for a list with one item, write [64]"),
        ("digits-mlp --model.optimizer Adamm", "model.optimizer: there is no class 'Adamm': did you mean Adam?"),
        ("digits-mlp --model.optimizer torch.optim.Adamm", "did you mean torch.optim.Adam?"),
        ("digits-mlp --model.lr_scheduler CosineAnealingLR", "did you mean CosineAnnealingLR?"),
        ("digits-mlp --trainer.callbacks+ EarlyStoping", "did you mean EarlyStopping?"),
        ("digits-mlp --trainer.callbacks EarlyStoping", "did you mean EarlyStopping?"),
        ("digits-mlp --model ConvNett", "model: there is no class 'ConvNett': did you mean modules.convnet.ConvNet?"),
        ("digits-mlp --data datamodules.digit.Digits", "did you mean datamodules.digits.Digits?"),
        ("digits-mlp --model modules.mlp_regresor.Regressr", "did you mean modules.mlp_regressor.Regressor?"),
        ("digits-mlp --model modulez.mlp.MLP", "no class 'modulez.mlp.MLP' (No module named 'modulez'): did you mean"),
        (
            "digits-mlp --model tests.fixture.strangers.clases.Nett",
            "did you mean tests.fixtures.strangers.classes.Net?",
        ),
        ("digits-mlp --model nowhere.at.All", "no class 'nowhere.at.All' (No module named 'nowhere'): give its import"),
        ("digits-mlp --model.optimizer Frobnicator", "give its import path, such as my_package.my_module.MyClass"),
        ("digits-mlp --trainer.max_epochs x", "trainer.max_epochs: Expected int, got 'x'"),
        ("digits-mlp --model.loss hinge", "model.loss: Expected one of 'cross_entropy', 'quadratic', got hinge"),
        ("digits-mlp --model modules.nope.X", "modules.nope.X"),
        ("digits-mlp --model.dropout 1.5", "model.dropout is 1.5; it must be at least 0 and below 1"),
        ("digits-mlp --data.batch_size 0", "data.batch_size is 0; it must be 1 or more"),
        ("digits-mlp --trainer.max_epochs -5", "max_epochs"),
        ("digits-mpl", "Did you mean digits-mlp"),
        ("nowhere/my.yaml", "nowhere/my.yaml: no such file"),
        ("-c nowhere.yaml", "nowhere.yaml: no such file"),
        ("digits-mlp mnist-mlp", "unexpected argument 'mnist-mlp'"),
        ("--model.dropout 0.3", "name an experiment"),
        ("digits-mlp --tracking_uri ./mlruns", "expected sqlite:///FILE"),
    ],
)
def test_a_mistake_on_the_command_line_is_named_and_nothing_is_written(litlab, tmp_path, args, says):
    outcome = litlab("fit", *args.split())
    assert outcome.code == 2
    assert says in outcome.err
    assert len(outcome.err.splitlines()) == 1
    assert not (tmp_path / "runs" / "mlflow.db").exists()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (YAML.replace("dropout", "dropuot"), "did you mean model.dropout?"),
        (YAML.replace("max_epochs", "max_epoch"), "did you mean trainer.max_epochs?"),
        (YAML.replace("model:", "modell:"), "did you mean model"),
        (YAML.replace("Digits", "Digitz"), "has no attribute 'Digitz'"),
        (YAML.replace("0.1", "[a]"), "model.dropout: Expected float"),
        (YAML.replace("model:", "#"), "model is required"),
        ("- a\n- list", "my.yaml: expected keys and values"),
        ("a: [", "my.yaml: not readable as YAML"),
    ],
)
def test_a_mistake_in_a_file_is_named(litlab, tmp_path, text, says):
    outcome = litlab("fit", "-c", write(tmp_path / "my.yaml", text))
    assert outcome.code == 2
    assert says in outcome.err


def test_later_files_and_the_command_line_take_precedence(tmp_path):
    first = write(tmp_path / "first.yaml", YAML)
    second = write(tmp_path / "second.yaml", "model: {init_args: {dropout: 0.2}}\ntrainer: {max_epochs: 4}")
    resolved = parse_config("fit", ["-c", first, "-c", second, "--trainer.max_epochs", "5"]).resolved()
    assert resolved["model"]["init_args"]["dropout"] == 0.2
    assert resolved["trainer"]["max_epochs"] == 5
    assert resolved["name"] == "first"


def test_print_config_reproduces_the_configuration(litlab, tmp_path):
    args = ["digits-mlp", "--model.dropout", "0.3", "--seed_everything", "3"]
    printed = write(tmp_path / "printed.yaml", litlab("fit", *args, "--print_config").out)
    resolved = parse_config("fit", args).resolved()
    assert parse_config("fit", ["-c", printed]).resolved() == resolved
    assert resolved["seed_everything"] == 3
    assert "tracking_uri" not in resolved


def test_params_have_dotted_keys_and_omit_trainer_defaults():
    params = parse_config("fit", ["digits-mlp", "--model.optimizer", "SGD", "--model.optimizer.lr", "0.1"]).params()
    assert params["data"] == "datamodules.digits.Digits"
    assert params["model.optimizer"] == "torch.optim.SGD"
    assert params["model.optimizer.lr"] == 0.1
    assert params["trainer.max_epochs"] == 20
    assert "trainer.detect_anomaly" not in params, "a default of Lightning's Trainer"


def test_the_model_gets_its_shape_from_the_data():
    cli = parse_config("fit", ["digits-mlp"])
    _, model = cli.build()
    assert model.hparams["input_shape"] == (1, 28, 28)
    assert model.hparams["num_classes"] == 10
    assert "num_classes" not in yaml.safe_dump(cli.resolved())


def test_a_missing_data_file_is_named(tmp_path):
    data, _ = parse_config("fit", ["mnist-mlp", "--data.data_dir", str(tmp_path)]).build()
    data.download = lambda: None  # as after a partial download
    with pytest.raises(UserError, match="train-images-idx3-ubyte: no such file"):
        load_data(data, "fit")


@pytest.mark.parametrize(
    ("args", "key"),
    [
        ("--data.batch_size null", "data.batch_size"),
        ("--model.optimizer null", "model.optimizer"),
        ("--model.dropout null", "model.dropout"),
        ("--model.optimizer.lr null", "model.optimizer.lr"),
        ("--trainer.callbacks+=RichProgressBar --trainer.callbacks.leave=null", "trainer.callbacks.leave"),
        ("--trainer.accumulate_grad_batches null", "trainer.accumulate_grad_batches"),
        ("--test_weights null", "test_weights"),
        ("--seed_everything null", "seed_everything"),
        ("--data null --model.dropout null", "model.dropout"),
    ],
)
def test_null_is_refused_for_an_argument_that_cannot_be_none(args, key):
    with pytest.raises(UserError) as refused:
        parse_config("fit", ["digits-mlp", *args.split()])
    assert re.match(rf"{key}( is null|: .* got None$)", str(refused.value))
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize(
    "args",
    [
        ["--data.n_train", "null", "--model.lr_scheduler", "null", "--monitor", "null", "--trainer.callbacks", "null"],
        ["--trainer.max_time", "null", "--trainer.callbacks+=Timer", "--trainer.callbacks.duration=null"],
        ["-c", "optional.yaml", "--trainer.logger", "null"],
    ],
)
def test_null_is_accepted_for_an_argument_that_may_be_none(tmp_path, monkeypatch, args):
    write(tmp_path / "optional.yaml", "model: {init_args: {optimizer: {init_args: {fused: null}}}}")
    monkeypatch.chdir(tmp_path)
    parse_config("fit", ["digits-mlp", *args])


@pytest.mark.parametrize("model", ["ObjectsAsDefaults", "Untyped", "Default", "make_net"])
def test_defaults_that_are_none_or_objects_are_accepted(tmp_path, model):
    classes = "tests.fixtures.strangers.classes"
    text = f"model: {{class_path: {classes}.{model}}}\ndata: {{class_path: {classes}.Points}}"
    cli = parse_config("fit", ["-c", write(tmp_path / "it.yaml", text)])
    cli.build()
    parse_config("fit", ["-c", write(tmp_path / "again.yaml", yaml.safe_dump(cli.resolved()))]).build()
