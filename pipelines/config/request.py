"""What a command line asks for, as far as it can be checked without its classes. Imports neither torch nor Lightning.

Commands read it before they import anything heavy, so that a mistake is reported at once.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.config.arguments import CONFIG_FLAGS, KEYS, option_values, split_options, take_experiment
from pipelines.config.experiments import SECTIONS, find_experiment, read_yaml
from pipelines.config.suggestions import (
    COMMON_TRAINER_KEYS,
    explain_unknown_key,
    keys_of,
    keys_of_experiments,
    nearest_key,
)
from pipelines.runtime.errors import UserError
from pipelines.tracking.uri import store_uri

_TOP_LEVEL = {*KEYS, "seed_everything", *SECTIONS}
_ASKING = {"config", "help", "print_config", "print_shtab", "full-help"}  # options that are no keys


@dataclass(frozen=True)
class Request:
    """A command line of keys.

    Attributes:
        files: The experiment and the files of `-c`, in the order in which they take effect.
        contents: Their contents.
        args: The options, without the experiment.
        base: The file that the others change; None if `-c` gives all of them.
    """

    files: list[Path]
    contents: list[dict[str, Any]]
    args: list[str]
    base: Path | None

    @property
    def name(self) -> str:
        """Name of the experiment, unless a key gives another; "" without a file."""
        return self.files[0].stem if self.files else ""


def read_request(
    verb: str,
    argv: Sequence[str],
    base: Path | None = None,
    *,
    on_run: bool = False,
    options: Sequence[str] = (),
) -> Request:
    """Read `[NAME | PATH] [-c FILE ...] [--key value ...]`.

    Args:
        verb: Named in messages.
        argv: The arguments.
        base: Configuration of a run that the arguments change. An experiment cannot be named then.
        on_run: Whether there will be such a configuration, which is not known yet.
        options: Options of the verb itself, such as "--metric", which may be misspelt.

    Raises:
        UserError: An experiment, a file or a top-level key does not exist, or a file or a tracking URI is not valid.
    """
    experiment, args = take_experiment(argv)
    of_run = [] if base is None else [base]
    if experiment is not None:
        if of_run or on_run:
            raise UserError(f"unexpected argument {experiment!r}: one experiment at a time")
        base = find_experiment(experiment)
    given = [Path(value) for value in option_values(args, *CONFIG_FLAGS)]
    help_requested = any(token.endswith(".help") for token in args)  # jsonargparse's, such as --model.help CLASS
    if not (base or on_run or given or help_requested):
        raise UserError(f"name an experiment first (litlab list shows them), or a file: litlab {verb} -c FILE")
    checkpoints = filter(names_file, option_values(args, "--ckpt_path", "--weights"))
    for path in (*given, *map(Path, checkpoints)):
        if not path.is_file():
            raise UserError(f"{path}: no such file")
    for uri in option_values(args, "--tracking_uri"):
        store_uri(uri)  # refuses what is neither a database nor a server
    files = [base, *given] if base else given
    request = Request(files, [read_yaml(path) for path in files], args, base)
    contents = dict(zip(files, request.contents, strict=True))
    _check_top_level({path: contents[path] for path in files if path not in of_run}, args, options)
    return request


def names_file(text: str) -> bool:
    """Return whether a checkpoint or the weights of a run are named as a file, not as a run."""
    return bool(Path(text).suffix) or len(Path(text).parts) > 1


def _check_top_level(contents: Mapping[Path, Mapping[str, Any]], args: Sequence[str], options: Sequence[str]) -> None:
    """Check what keys begin with, those of files and of the command line.

    Raises:
        UserError: There is no such key.
    """
    for path, content in contents.items():
        for key, value in ((str(key), value) for key, value in content.items()):
            if (section := key.partition(".")[0]) not in _TOP_LEVEL:
                has_keys = section != key or isinstance(value, Mapping)
                nearest = nearest_key(section, SECTIONS if has_keys else _TOP_LEVEL)
                hint = f"did you mean {nearest}?" if nearest else f"the keys are {', '.join(sorted(_TOP_LEVEL))}"
                raise UserError(f"{path}: unknown key {key}: {hint}")
    flags = [option[0].partition("=")[0] for option in split_options(args) if option[0] not in (*CONFIG_FLAGS, "-h")]
    for flag in flags:
        key = flag.removeprefix("--").removesuffix("+")
        if flag.startswith("--") and key.partition(".")[0] in _TOP_LEVEL | _ASKING:
            continue
        raise UserError(explain_unknown_key(key, _known_keys(key, contents.values(), options)))


def _known_keys(key: str, contents: Collection[Mapping[str, Any]], options: Sequence[str]) -> set[str]:
    """Return the keys that could have been meant: of litlab, the Trainer and the files, or else of any experiment."""
    known = {*_TOP_LEVEL, *(f"trainer.{name}" for name in COMMON_TRAINER_KEYS)}
    known |= {option.removeprefix("--") for option in options}
    section, _, rest = key.partition(".")
    if not contents and (nearest := nearest_key(section, SECTIONS)):
        known.add(f"{nearest}.{rest}" if rest else nearest)  # the keys of a run are not known yet
    for content in contents:
        known |= keys_of({name: value for name, value in content.items() if name in _TOP_LEVEL})
    return known if nearest_key(key, known) else known | keys_of_experiments()
