"""YAML files that are found by name: those of the project first, then those that come with litlab."""

from pathlib import Path

from pipelines.runtime.environment import project_folder


def named_files(kind: str, own: Path) -> dict[str, Path]:
    """Return the YAML files by name, sorted.

    Args:
        kind: Name of the project's folder of such files: "experiments" or "spaces".
        own: The folder of litlab's.
    """
    found = {path.stem: path for folder in (own, project_folder() / kind) for path in _yaml_files(folder)}
    return dict(sorted(found.items()))


def _yaml_files(folder: Path) -> list[Path]:
    return [path for path in folder.glob("*.y*ml") if path.suffix in (".yaml", ".yml") and path.is_file()]
