"""Which configurations are the same: flat keys, the hash of a configuration, and what differs between two.

A key that was added later with its default changes nothing: two configurations are equal if all keys that both have are
equal, and each key that only one has stands at the default of its class. Imports neither torch nor Lightning.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from itertools import accumulate
from typing import Any

from pipelines.runtime.class_paths import with_old_class_paths

PLACE_KEYS = (  # change no result
    *("data.data_dir", "data.device", "trainer.enable_progress_bar", "checkpoint_every"),
    *("keep", "leak_check", "keep_predictions"),
)
NOT_HASHED = ("seed_everything", "name", "description", *PLACE_KEYS)  # what runs of one configuration may differ in
LATER_KEYS = {
    **dict.fromkeys(("monitor", "mode", "ckpt_path", "weights", "weights_only", "optimizer", "lr_scheduler")),
    "test_weights": "best",
    "data.folds": None,
    "data.fold": None,
}
"""Keys that earlier versions did not have, with their defaults, at which they are not hashed."""
_REDUCTION, _INIT_BIAS, _SUBSET = {"reduction": "mean"}, {"init_bias": None}, {"subset": "stratified"}
LATER_ARGUMENTS: Mapping[str, Mapping[str, Any]] = {
    **dict.fromkeys(
        (
            "modules.autoencoder.Autoencoder",
            "modules.autoencoder.ConvAutoencoder",
            "modules.backbone.Backbone",
            "modules.functions.FunctionRegressor",
            "modules.mlp_regressor.MLPRegressor",
            "modules.multilabel_backbone.MultilabelBackbone",
            "modules.paired_digits.PairedDigitsNet",
            "modules.resnet.ResNet9",
            "modules.whitened_convnet.WhitenedConvNet",
        ),
        _REDUCTION,
    ),
    **dict.fromkeys(
        ("modules.convnet.ConvNet", "modules.linear.LinearClassifier", "modules.mlp.MLP"), _REDUCTION | _INIT_BIAS
    ),
    **dict.fromkeys(
        (
            "datamodules.cifar10.CIFAR10",
            "datamodules.digits.Digits",
            "datamodules.image_csv.ImageCSV",
            "datamodules.image_folder.ImageFolder",
            "datamodules.mnist.MNIST",
            "datamodules.multilabel_csv.MultilabelCSV",
            "datamodules.paired_digits.PairedDigits",
        ),
        _SUBSET,
    ),
}
"""The same for arguments that earlier versions of litlab's own models and data did not have, by class.

An argument of that name of another class is hashed: it may always have been there. Runs record all of them as params.
"""
DERIVED_KEYS = ("data.class_names",)
"""Keys that the data determine: None is the value that they give. Earlier versions recorded it for some runs."""
Defaults = Mapping[str, Mapping[str, Any]]  # by class path, "" for the command line's own: dotted keys with defaults


def flatten_config(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return dotted keys as on the command line: `class_path` is the section's value, `init_args` is left out."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        name = prefix if key in ("class_path", "init_args") else f"{prefix}.{key}" if prefix else key
        if isinstance(value, dict):
            flat |= flatten_config(value, name)
        else:
            flat[name] = value
    return flat


def flatten_lists(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Return flat keys with lists of classes taken apart: `trainer.callbacks.0.patience`."""
    result: dict[str, Any] = {}
    for key, value in flat.items():
        if isinstance(value, list) and any(isinstance(item, dict) and "class_path" in item for item in value):
            result |= flatten_lists(flatten_config({f"{key}.{index}": item for index, item in enumerate(value)}))
        else:
            result[key] = value
    return result


def without_loggers(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a resolved configuration without its loggers, which change nothing in what is trained."""
    trainer = config.get("trainer")
    if not isinstance(trainer, Mapping) or trainer.get("logger") is None:
        return config
    return {**config, "trainer": {**trainer, "logger": None}}


def flat_keys(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration as flat keys, with lists of classes taken apart and classes by their old paths."""
    return flatten_lists(flatten_config(with_old_class_paths(config)))


def prefixes(key: str) -> Iterator[str]:
    """Yield what a flat key begins with, and itself: `model`, `model.optimizer`, `model.optimizer.lr`."""
    return accumulate(key.split("."), lambda start, part: f"{start}.{part}")


def config_hash(config: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a resolved configuration, equal for runs that differ only in seed, name and place.

    It covers all keys that a version knows, so runs of an earlier version have another one; see `same_config`.
    """
    config = with_old_class_paths(without_loggers(config))
    flat = {key: value for key, value in flatten_config(config).items() if key not in NOT_HASHED}
    later = {**LATER_KEYS, **_later_arguments(config)}
    flat = {key: value for key, value in flat.items() if key not in later or value != later[key]}
    return hashlib.sha256(json.dumps(flat, sort_keys=True).encode()).hexdigest()


def _later_arguments(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the flat keys, with their defaults, that earlier versions of a configuration's model and data lacked."""
    sections = ((key, config.get(key)) for key in ("model", "data"))
    classes = {key: section["class_path"] for key, section in sections if section and "class_path" in section}
    return {
        f"{key}.{name}": default
        for key, path in classes.items()
        for name, default in LATER_ARGUMENTS.get(path, {}).items()
    }


def same_config(recorded: Mapping[str, Any], current: Mapping[str, Any], defaults: Defaults) -> bool:
    """Return whether runs of two resolved configurations differ only in seed, name, place and keys at their defaults.

    Args:
        recorded: A configuration, perhaps of another version.
        current: A configuration of this version.
        defaults: See `defaults.config_defaults` of the current one.
    """
    return all(key in NOT_HASHED for key in changed_values(recorded, current, defaults))


def changed_values(
    recorded: Mapping[str, Any], current: Mapping[str, Any], defaults: Defaults | None = None
) -> dict[str, tuple[Any, Any]]:
    """Return the flat keys in which two resolved configurations differ, with both values; None where a key is missing.

    Keys that change nothing in a run, such as the folder of the data, are ignored. So are keys that only one has, at
    their default.

    Args:
        recorded: A configuration, perhaps of another version.
        current: A configuration of this version.
        defaults: See `defaults.config_defaults` of the current one.
    """
    pair = (complete_config(without_loggers(config), defaults or {}) for config in (recorded, current))
    before, now = map(flatten_config, pair)
    keys = sorted(key for key in before | now if key not in PLACE_KEYS)
    pairs = {key: (before.get(key), now.get(key)) for key in keys}
    return {key: (old, new) for key, (old, new) in pairs.items() if not _equal(old, new)}


def complete_config(config: Mapping[str, Any], defaults: Defaults) -> dict[str, Any]:
    """Return a configuration with old class paths, and with the default of each key that it lacks."""
    return _with_defaults(with_old_class_paths(config), defaults.get("", {}), defaults)


def keys_at_default(config: Mapping[str, Any], defaults: Defaults) -> list[str]:
    """Return the flat keys of a resolved configuration that stand at the default of their class.

    Lists of classes are taken apart, see `flatten_lists`. A key of a class or of a group of keys is among them if all
    of that class or group is at the default that the class around it has.
    """
    present = {prefix for key in flat_keys(config) for prefix in prefixes(key)}
    found = _at_default(complete_config(config, defaults), defaults.get("", {}), defaults, "")
    return [key for key in found if key in present]


def _with_defaults(values: Mapping[str, Any], own: Mapping[str, Any], defaults: Defaults) -> dict[str, Any]:
    """Return the values of a class with the default of each missing one."""
    complete: dict[str, Any] = {key: _completed(value, defaults) for key, value in values.items()}
    for key, default in own.items():
        *groups, last = key.split(".")
        target: Any = complete
        for group in groups:
            target = target.setdefault(group, {}) if isinstance(target, dict) else None
        if isinstance(target, dict) and last not in target:
            target[last] = _completed(default, defaults)
    return complete


def _completed(value: Any, defaults: Defaults) -> Any:
    if isinstance(value, list):
        return [_completed(item, defaults) for item in value]
    if not isinstance(value, Mapping):
        return value
    if "class_path" not in value:
        return {key: _completed(item, defaults) for key, item in value.items()}
    own = defaults.get(value["class_path"], {})
    return {**value, "init_args": _with_defaults(value.get("init_args") or {}, own, defaults)}


def _at_default(values: Mapping[str, Any], own: Mapping[str, Any], defaults: Defaults, prefix: str) -> Iterator[str]:
    """Yield the keys of a complete class, and of the classes in it, that are at their defaults."""
    groups = {key.partition(".")[0] for key in own if "." in key}
    for key, value in values.items():
        name = f"{prefix}{key}"
        if key in groups:
            group = f"{key}."
            inner = {path.removeprefix(group): default for path, default in own.items() if path.startswith(group)}
            found = list(_at_default(value, inner, defaults, f"{name}.")) if isinstance(value, Mapping) else []
            yield from found
            if isinstance(value, Mapping) and {f"{name}.{item}" for item in value} <= set(found):
                yield name
            continue
        if key in own and _equal(value, _completed(own[key], defaults)):
            yield name
        yield from _inside(value, defaults, name)


def _inside(value: Any, defaults: Defaults, name: str) -> Iterator[str]:
    """Yield the keys at their defaults of a class, or of a list of classes."""
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from _inside(item, defaults, f"{name}.{index}")
    elif isinstance(value, Mapping) and "class_path" in value:
        yield from _at_default(value["init_args"], defaults.get(value["class_path"], {}), defaults, f"{name}.")


def _equal(one: Any, other: Any) -> bool:
    return bool(one == other) and isinstance(one, bool) == isinstance(other, bool)
