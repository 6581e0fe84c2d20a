"""Find and describe experiments, the project's and those that come with litlab. Imports no torch."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml

from pipelines.config.named_files import named_files
from pipelines.runtime.errors import UserError

FOLDER = Path(__file__).parents[1] / "experiments"
SECTIONS = ("data", "model", "trainer")  # what a file of an experiment has


class _UniqueKeys(yaml.SafeLoader):
    """Refuses a key that stands twice in one mapping, of which YAML takes the last."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        lines: dict[tuple[str, str], int] = {}
        for key, _ in node.value:
            name, line = (key.tag, str(key.value)), key.start_mark.line + 1
            if name in lines:
                raise UserError(f"{key.value} is given twice, in line {lines[name]} and in line {line}")
            lines[name] = line
        return node


def experiment_files() -> dict[str, Path]:
    """Return the files of all experiments by name, sorted. One of the project hides one of litlab."""
    return named_files("experiments", FOLDER)


def experiment_names() -> list[str]:
    """Return the names of all experiments, sorted."""
    return [*experiment_files()]


def experiment_contents() -> Iterator[dict[str, Any]]:
    """Yield the contents of all experiments that can be read."""
    for path in experiment_files().values():
        with suppress(UserError):
            yield read_yaml(path)


def find_experiment(experiment: str) -> Path:
    """Return the YAML file of an experiment, given its name or a path.

    Raises:
        UserError: There is no such experiment or file.
    """
    if found := experiment_files().get(experiment):
        return found
    path = Path(experiment)
    if path.suffix in (".yaml", ".yml") or path.parent != Path():
        if path.is_file():
            return path
        raise UserError(f"{path}: no such file")
    suggestions = get_close_matches(experiment, experiment_names(), n=3, cutoff=0.4)
    hint = f" Did you mean {' or '.join(suggestions)}?" if suggestions else ""
    if above := _file_above(experiment):
        hint = f" {above} is in no project: a pyproject.toml in {above.parents[1]} makes that folder one."
    raise UserError(f"there is no experiment {experiment!r}.{hint} litlab list shows them all")


def _file_above(experiment: str) -> Path | None:
    """Return the experiment's file in a folder above, which is not the project's: those have been searched."""
    found = (folder / "experiments" / f"{experiment}.yaml" for folder in Path.cwd().parents)
    return next((path for path in found if path.is_file()), None)


def load_yaml(text: str) -> Any:
    """Return what a text in YAML contains.

    Raises:
        UserError: A key stands twice in one mapping.
        yaml.YAMLError: It is not YAML.
    """
    return yaml.load(text, _UniqueKeys)  # noqa: S506  # a SafeLoader


def read_yaml(path: Path, expected: str = ", ".join(SECTIONS)) -> dict[str, Any]:
    """Read a YAML file of keys and values.

    Args:
        path: The file.
        expected: The keys that the file should have, for the message.

    Raises:
        UserError: The file cannot be read, or contains something else.
    """
    try:
        content = load_yaml(path.read_text())
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise UserError(f"{path}: not readable as YAML ({error})") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected keys and values ({expected}), found {type(content).__name__}")
    return content


def config_arguments(
    experiment: str | Path | None, overrides: Sequence[str] = (), tracking_uri: str | None = None
) -> list[str]:
    """Return the arguments for `config.cli.parse_config`: the experiment, overrides and the tracking URI."""
    names = [] if experiment is None else [str(experiment)]
    return [*names, *overrides, *([] if tracking_uri is None else ["--tracking_uri", tracking_uri])]


def describe_experiment(experiment: str) -> dict[str, str]:
    """Return name, data set, model and one-line description of an experiment; "-" for what its file does not have."""
    path = find_experiment(experiment)
    try:
        config = read_yaml(path)
    except UserError as error:
        config = {"description": str(error)}
    description = str(config.get("description") or "-").strip().splitlines()[0]
    sections = {key: _class_name(config.get(key)) for key in ("data", "model")}
    return {"name": experiment, "description": description, **sections}


def list_experiments() -> list[dict[str, str]]:
    """Describe all experiments, those of the project first, each part sorted by name."""
    files = experiment_files()
    return [describe_experiment(name) for name in sorted(files, key=lambda name: files[name].parent == FOLDER)]


def _class_name(section: Any) -> str:
    """Return the name of the class of a section: `class_path: A.B`, or `A.B` alone."""
    class_path = section.get("class_path") if isinstance(section, dict) else section
    return str(class_path or "-").rpartition(".")[2]
