"""Arguments of a command: the values of an option, the experiment among them, and the keys of litlab itself."""

import re
import shlex
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pipelines.runtime.errors import UserError

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

CONFIG_FLAGS = ("-c", "--config")
Keep = Literal["best", "all", "none"]  # which checkpoints are left when a run, or a study, has finished
KEYS = (
    "name",
    "description",
    "tracking_uri",
    "monitor",
    "mode",
    "checkpoint_every",
    "keep",
    "test_weights",
    "leak_check",
    "keep_predictions",
    "ckpt_path",
    "weights",
    "weights_only",
    "optimizer",
    "lr_scheduler",
)
"""The keys of `add_arguments` and of LightningCLI."""
_BARE_KEY = re.compile(rf"(?:(?:data|model|trainer)(?:\.\w+)+\+?|seed_everything|{'|'.join(KEYS)})=.*", re.DOTALL)
_WITHOUT_VALUE = ("--print_config", "--full-help", "--help", "-h")


def option_values(args: Sequence[str], *flags: str) -> list[str]:
    """Return the values of a flag, given as `--flag value` or `--flag=value`."""
    following = [value for flag, value in pairwise(args) if flag in flags]
    joined = [token.partition("=")[2] for token in args if token.partition("=")[0] in flags and "=" in token]
    return following + joined


def without_option(args: Sequence[str], flag: str) -> list[str]:
    """Return the arguments without a flag and its value, given as `--flag value` or `--flag=value`."""
    split = [option for option in split_options(args) if option[0].partition("=")[0] != flag]
    return [token for option in split for token in option]


def split_options(args: Sequence[str]) -> list[list[str]]:
    """Return each option with its value, if that is another argument, and each argument that belongs to no option."""
    split: list[list[str]] = []
    for token in args:
        flag = split[-1][0] if split and len(split[-1]) == 1 else ""
        takes_value = flag.startswith("-") and "=" not in flag and flag not in _WITHOUT_VALUE
        if takes_value and not token.startswith("--") and token not in CONFIG_FLAGS:
            split[-1].append(token)
        else:
            split.append([token])
    return split


def take_experiment(args: Sequence[str]) -> tuple[str | None, list[str]]:
    """Return the experiment, which may stand before, between or after the options, and the other arguments.

    Raises:
        UserError: There are several.
    """
    split = split_options(args)
    found = [option[0] for option in split if not option[0].startswith("-")]
    refuse_bare_keys(found)
    if len(found) > 1:
        key, is_key, value = found[1].partition("=")
        hint = f"keys are written --{key} {value}" if is_key else "one experiment at a time"
        raise UserError(f"unexpected argument {found[1]!r}: {hint}")
    options = [token for option in split if option[0].startswith("-") for token in option]
    return (found[0] if found else None), options


def refuse_bare_keys(positionals: Sequence[str]) -> None:
    """Refuse a key as Hydra takes it, `model.dropout=0.3`.

    Raises:
        UserError: There is one; the message has it as litlab takes it.
    """
    for token in positionals:
        if _BARE_KEY.fullmatch(token):
            key, _, value = token.partition("=")
            raise UserError(f"{token}: write {shlex.join([f'--{key}', value])}")


def starts_from_run(argv: Sequence[str]) -> bool:
    """Return whether the configuration is that of the run of `--ckpt_path RUN_ID`: nothing else names one."""
    given = option_values(argv, "--ckpt_path")
    if not given or option_values(argv, *CONFIG_FLAGS):
        return False
    return take_experiment(argv)[0] is None and not Path(given[-1]).is_file()


def add_arguments(parser: "ArgumentParser", default_name: str) -> None:
    """Add the keys of litlab: where runs are stored, and what selects, saves and loads weights."""
    add = parser.add_argument
    add("--name", type=str, default=default_name, help="The MLflow experiment of the run.")
    add("--description", type=str, default="", help="One-line description of the experiment.")
    uri = "Where runs are stored; default: mlflow.db of this project."
    add("--tracking_uri", type=str | None, default=None, help=uri)
    add("--monitor", type=str | None, default=None, help="Metric that selects the best weights, as it is logged.")
    add("--mode", type=Literal["min", "max"] | None, default=None, help="Whether lower or higher values are better.")
    every = "Save a checkpoint within epochs too: 500 (steps), 10m, 2h."
    add("--checkpoint_every", type=int | str | None, default=None, help=every)
    kept = "Checkpoints of the finished run: all (best and last), best, or none."
    add("--keep", type=Keep, default="all", help=kept)
    add(
        "--test_weights",
        type=Literal["best", "last", "callback"],
        default="best",
        help="Weights that are tested: the best by --monitor, the last, or the best of your first ModelCheckpoint.",
    )
    add("--leak_check", type=bool, default=True, help="Refuse training examples in the validation and test set.")
    kept = "Save the predictions of the test in the run, to compare runs example by example."
    add("--keep_predictions", type=bool, default=True, help=kept)
    add("--ckpt_path", type=str | None, default=None, help="Checkpoint file or run id to continue from, as a new run.")
    add("--weights", type=str | None, default=None, help="Checkpoint file or run id to take the initial weights from.")
    add("--weights_only", type=bool | None, default=None, help="In files of LightningCLI; litlab has --trust.")
