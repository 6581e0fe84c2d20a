"""Suggest the key that a misspelt one stands for. Imports neither torch nor Lightning."""

from collections.abc import Collection, Mapping
from difflib import SequenceMatcher
from typing import Any

from pipelines.config.experiments import experiment_contents
from pipelines.config.identity import flatten_config, prefixes

SIMILAR = 0.6
COMMON_TRAINER_KEYS = (
    "accelerator",
    "accumulate_grad_batches",
    "benchmark",
    "callbacks",
    "check_val_every_n_epoch",
    "detect_anomaly",
    "deterministic",
    "devices",
    "enable_progress_bar",
    "fast_dev_run",
    "gradient_clip_algorithm",
    "gradient_clip_val",
    "limit_test_batches",
    "limit_train_batches",
    "limit_val_batches",
    "log_every_n_steps",
    "logger",
    "max_epochs",
    "max_steps",
    "max_time",
    "min_epochs",
    "min_steps",
    "num_nodes",
    "num_sanity_val_steps",
    "overfit_batches",
    "precision",
    "profiler",
    "reload_dataloaders_every_n_epochs",
    "strategy",
    "sync_batchnorm",
    "val_check_interval",
)
"""Arguments of Lightning's Trainer, to suggest without importing it."""


USUAL_NAMES = {"seed": "seed_everything", "fold": "folds", "k_folds": "folds"}
"""Keys as people try to call them, which are not similar to their names."""


OF_OPTIMIZERS = {"lr": "lr", "learning_rate": "lr", "weight_decay": "weight_decay", "momentum": "momentum"}
"""Arguments of optimisers, as people try to give them to the module."""


def explain_unknown_key(key: str, known: Collection[str], section: str = "") -> str:
    """Return the message for an unknown key: the nearest one, and the keys of its section if they are few.

    Args:
        key: The unknown key, dotted.
        known: The keys that could have been meant.
        section: The key of the class or group that does not have it; "" at the top.
    """
    nearest = nearest_key(key, known)
    hint = f"did you mean {nearest}?" if nearest else "litlab fit --full-help lists the keys"
    siblings = sorted(name.removeprefix(f"{section}.") for name in known if section and name.startswith(f"{section}."))
    allowed = ", ".join(name for name in siblings if "." not in name)
    return f"unknown key {key}: {hint}" + (f" ({section} takes {allowed})" if 0 < len(allowed) < 200 else "")


def nearest_key(key: str, known: Collection[str]) -> str | None:
    """Return the most similar of the known keys; None if none is similar."""
    if USUAL_NAMES.get(key) in known:
        return USUAL_NAMES[key]
    section, _, name = key.rpartition(".")
    if f"{section}.optimizer" in known and name in OF_OPTIMIZERS and key not in known:
        return f"{section}.optimizer.{OF_OPTIMIZERS[name]}"
    nearest = max(sorted(known), key=lambda candidate: _similarity(key, candidate), default=None)
    return nearest if nearest is not None and _similarity(key, nearest) > SIMILAR else None


def keys_of(config: Mapping[str, Any]) -> set[str]:
    """Return the keys of a configuration and of its sections."""
    return {start for key in flatten_config(config) for start in prefixes(str(key))}


def keys_of_experiments() -> set[str]:
    """Return the keys of all experiments."""
    return {key for content in experiment_contents() for key in keys_of(content)}


def _similarity(key: str, known: str) -> float:
    """Return a similarity from 0 to 1; a key in another section, or without one, counts nearly as much as misspelt."""
    same_name = SequenceMatcher(None, key.rpartition(".")[2], known.rpartition(".")[2]).ratio()
    counts = "." not in key or key[:1] == known[:1]
    return max(SequenceMatcher(None, key, known).ratio(), 0.98 * same_name if counts else 0)
