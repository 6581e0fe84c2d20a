"""Defaults of classes, as jsonargparse finds them in their signatures."""

from dataclasses import dataclass

from pipelines.config.cli import parse_config
from pipelines.config.defaults import class_defaults, config_defaults
from pipelines.config.identity import complete_config, flatten_config
from pipelines.config.known_keys import KnownKeys, known_keys


@dataclass
class Options:
    rate: float = 0.5
    steps: tuple[int, int] = (1, 2)


class Own:
    def __init__(self, needed: int, options: Options, names: list[str] | None = None, **rest: bool) -> None: ...


def factory(width: int = 3) -> Own: ...


def test_defaults_of_classes_groups_and_functions():
    own = class_defaults(f"{__name__}.Own")
    assert own == {"needed": None, "options.rate": 0.5, "options.steps": [1, 2], "names": None}
    assert class_defaults(f"{__name__}.factory") == {"width": 3}
    assert class_defaults("no.such.Class") == class_defaults("Nothing") == {}
    assert class_defaults("torch.optim.Adam")["betas"] == [0.9, 0.999]


def test_an_experiment_without_its_defaults_is_completed_to_itself():
    callback = [
        "--trainer.callbacks+=lightning.pytorch.callbacks.EarlyStopping",
        "--trainer.callbacks.monitor",
        "val/acc",
    ]
    cli = parse_config("fit", ["digits-convnet", *callback])
    resolved, defaults = cli.resolved(), config_defaults(cli)
    short = cli.resolved()
    removed = 0
    for section in (short["data"], short["model"], short["model"]["init_args"]["optimizer"]):
        own, init_args = defaults[section["class_path"]], section["init_args"]
        for key in [key for key, value in init_args.items() if key in own and own[key] == value]:
            del init_args[key]
            removed += 1
    assert removed > 20
    short["trainer"] = {key: short["trainer"][key] for key in ("max_epochs", "callbacks")}
    assert complete_config(short, defaults) == complete_config(resolved, defaults)
    known = flatten_config(resolved)
    assert {
        key: value for key, value in flatten_config(complete_config(short, defaults)).items() if key in known
    } == known


def test_a_run_records_its_known_keys_in_tags_of_limited_length():
    defaults = {"": {"trainer.steps": 1, "seed_everything": 0, **{f"group.key{number}": 1 for number in range(900)}}}
    config = {"trainer": {"steps": 1}, "seed_everything": 0, "group": dict.fromkeys(map("key{}".format, range(900)), 1)}
    config["model"] = {"class_path": "m.M", "init_args": {"a": None, "b": None, "c": 1}}
    known = known_keys(config, {**defaults, "m.M": {"a": None, "b": 2, "c": 3}})
    assert len(known.default) == 901  # with the group itself
    assert (known.none, known.set_none) == (["model.a"], ["model.b"])
    tags = known.tags()
    assert len(tags) > 1
    assert max(map(len, tags.values())) <= 4000
    assert KnownKeys.from_tags({**tags, "other": "tag"}) == known
    assert KnownKeys.from_tags({}) is None
