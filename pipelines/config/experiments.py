"""The experiments that come with litlab, and `litlab list`."""

import argparse
import json
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml

from pipelines.runtime.errors import UserError

FOLDER = Path(__file__).parents[1] / "experiments"


def experiment_names() -> list[str]:
    """The names of all experiments, sorted."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def find_experiment(experiment: str) -> Path:
    """The YAML file of an experiment, given its name or a path.

    Raises:
        UserError: There is no such experiment or file.
    """
    if experiment in experiment_names():
        return FOLDER / f"{experiment}.yaml"
    path = Path(experiment)
    if path.suffix in (".yaml", ".yml") or path.parent != Path():
        if path.is_file():
            return path
        raise UserError(f"{path}: no such file")
    near = get_close_matches(experiment, experiment_names(), n=3, cutoff=0.4)
    hint = f" Did you mean {' or '.join(near)}?" if near else ""
    raise UserError(f"there is no experiment {experiment!r}.{hint} litlab list shows them all")


def read_yaml(path: Path, expected: str) -> dict[str, Any]:
    """The keys and values of a YAML file.

    Raises:
        UserError: It cannot be read, or holds something else; the message names what is `expected`.
    """
    try:
        content = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise UserError(f"{path}: not readable as YAML ({error})") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected keys and values ({expected}), found {type(content).__name__}")
    return content


def describe_experiment(experiment: str) -> dict[str, Any]:
    """Name, one-line description, data set and model of an experiment."""
    config = yaml.safe_load(find_experiment(experiment).read_text())
    return {
        "name": experiment,
        "description": config["description"],
        "data": _class_name(config["data"]),
        "model": _class_name(config["model"]),
    }


def _class_name(section: dict[str, Any]) -> str:
    return str(section["class_path"]).rpartition(".")[2]


def main(verb: str, argv: Sequence[str]) -> int:
    """`litlab list [--json]`."""
    parser = argparse.ArgumentParser(prog=f"litlab {verb}", description="Show the experiments.")
    parser.add_argument("--json", action="store_true", help="print a JSON array instead of a table")
    options = parser.parse_args(argv)
    rows = [describe_experiment(name) for name in experiment_names()]
    if options.json:
        print(json.dumps(rows, indent=2))
        return 0
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("experiment", "data", "model", "what it is"):
        table.add_column(column, no_wrap=column != "what it is")
    for row in rows:
        table.add_row(row["name"], row["data"], row["model"], row["description"])
    Console().print(table)
    return 0
