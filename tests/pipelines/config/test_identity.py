"""Which configurations are the same."""

import pytest

from pipelines.config.cli import parse_config
from pipelines.config.defaults import class_defaults
from pipelines.config.identity import LATER_ARGUMENTS, changed_values, config_hash, keys_at_default, same_config


def test_the_hash_ignores_the_seed_and_the_data_folder_only():
    def hash_of(*args):
        return config_hash(parse_config("fit", ["mnist-mlp", *args]).resolved())

    plain = hash_of()
    assert plain == hash_of("--seed_everything", "3") == hash_of("--data.data_dir", "elsewhere")
    assert len({plain, hash_of("--model.dropout", "0.3"), hash_of("--data.n_train", "250")}) == 3


def test_an_argument_that_came_later_is_hashed_only_where_it_is_not_at_its_default():
    cli = parse_config("fit", ["mnist-mlp"])
    earlier = cli.resolved()
    for section in (earlier["model"], earlier["data"]):
        for key in LATER_ARGUMENTS[section["class_path"]]:
            del section["init_args"][key]
    assert config_hash(earlier) == config_hash(cli.resolved())
    others = ("--model.reduction=sum", "--model.init_bias=0.1", "--data.subset=random")
    assert len({config_hash(parse_config("fit", ["mnist-mlp", *args]).resolved()) for args in ([], *zip(others))}) == 4


@pytest.mark.parametrize(
    ("section", "class_path", "argument"),
    [
        ("model", "my_project.net.Net", {"reduction": "mean"}),
        ("model", "modules.net.Net", {"init_bias": None}),  # a project's module among litlab's
        ("model", "modules.resnet.ResNet9", {"init_bias": None}),  # has never had it
        ("data", "my_project.data.Images", {"subset": "stratified"}),
    ],
)
def test_an_argument_of_another_class_is_hashed_if_one_of_litlabs_got_it_later(section, class_path, argument):
    with_it, without = ({section: {"class_path": class_path, "init_args": args}} for args in (argument, {}))
    assert config_hash(with_it) != config_hash(without)


def test_the_arguments_that_came_later_are_those_of_the_classes_with_their_defaults():
    for class_path, arguments in LATER_ARGUMENTS.items():
        assert arguments.items() <= class_defaults(class_path).items()


def test_changed_values_lists_both_values_and_ignores_the_data_folder():
    before = {"data": {"class_path": "a.A", "init_args": {"data_dir": "here", "n": 1}}, "model": {"class_path": "b.B"}}
    now = {"data": {"class_path": "a.A", "init_args": {"data_dir": "there", "n": 2}}, "model": {"class_path": "b.C"}}
    assert changed_values(before, now) == {"data.n": (1, 2), "model": ("b.B", "b.C")}
    assert changed_values(before, before) == {}


DEFAULTS = {
    "": {"seed": 0, "trainer.callbacks": None, "trainer.steps": 10, "model": None},
    "m.Net": {
        "width": 8,
        "depth": 2,
        "optimizer": {"class_path": "o.SGD", "init_args": {"lr": 0.5}},
        "init.scale": 1.0,
    },
    "o.SGD": {"lr": 0.1, "momentum": 0.0},
    "c.Stop": {"patience": 3, "mode": "min"},
}


def config(stop=None, steps=10, **net):
    callbacks = [{"class_path": "c.Stop", **({"init_args": stop} if stop is not None else {})}]
    trainer = {"callbacks": callbacks, **({"steps": steps} if steps is not None else {})}
    return {"seed": 0, "trainer": trainer, "model": {"class_path": "m.Net", "init_args": net}}


def test_a_key_that_only_one_configuration_has_counts_unless_it_is_at_its_default():
    sgd = {"class_path": "o.SGD", "init_args": {"lr": 0.5}}
    complete = {"width": 4, "depth": 2, "optimizer": {**sgd, "init_args": {"lr": 0.5, "momentum": 0.0}}}
    current = config({"patience": 3, "mode": "min"}, **complete, init={"scale": 1.0})
    for recorded in (
        config({"patience": 3, "mode": "min"}, **complete),  # without a group of keys
        config(None, steps=None, width=4),  # an argument of a callback, of Trainer and of the model, with its class
        config({}, width=4, optimizer=sgd),  # an argument of the optimiser
    ):
        assert same_config(recorded, current, DEFAULTS)
        assert same_config(current, recorded, DEFAULTS)
    for recorded in (
        config(None),  # the width is not at its default
        config(None, width=4, optimizer={"class_path": "o.SGD"}),  # whose default is not that of the model
        config({"patience": 4}, width=4),
        config(None, width=4, init={"scale": 2.0}),
        config(None, width=4, unknown=1),
    ):
        assert not same_config(recorded, current, DEFAULTS)
        assert not same_config(current, recorded, DEFAULTS)


def test_a_default_that_has_changed_makes_another_configuration():
    before, now = config(None, width=4, depth=1), config(None, width=4, depth=2)
    assert changed_values(before, now, DEFAULTS) == {"model.depth": (1, 2)}


def test_keys_at_default_are_those_of_each_class_also_in_lists():
    found = set(
        keys_at_default(config({"patience": 4, "mode": "min"}, width=4, depth=2, init={"scale": 1.0}), DEFAULTS)
    )
    assert found == {
        *("seed", "trainer.steps", "trainer.callbacks.0.mode"),
        *("model.depth", "model.init", "model.init.scale"),
    }
    sgd = {"class_path": "o.SGD", "init_args": {"lr": 0.5, "momentum": 0.0}}
    assert {"model.optimizer", "model.optimizer.momentum"} <= set(keys_at_default(config(optimizer=sgd), DEFAULTS))
    sgd["init_args"]["lr"] = 0.1  # the default of SGD, but not of the model
    assert set(keys_at_default(config(optimizer=sgd), DEFAULTS)) & {"model.optimizer", "model.optimizer.lr"} == {
        "model.optimizer.lr"
    }


def test_the_old_and_the_new_name_of_a_class_are_the_same_value():
    old, new = (
        {"trainer": {"callbacks": [{"class_path": f"modules.probes.{name}"}]}, "model": {"class_path": "m.M"}}
        for name in ("Units", "DeadUnits")
    )
    assert config_hash(old) == config_hash(new)
    assert changed_values(old, new) == {}
    assert config_hash({"model": {"class_path": "modules.probes.Shifts"}}) == config_hash(
        {"model": {"class_path": "modules.probes.ShiftSensitivity"}}
    )
