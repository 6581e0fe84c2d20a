"""Where the artifacts of a local database are: beside it, also after its folder was moved, renamed or copied.

MLflow records absolute paths. Those of litlab's layout, `PROJECT/mlartifacts/EXPERIMENT/RUN_ID/artifacts`, are looked
up relative to the database. `litlab doctor --fix` records the new paths (diagnostics/moved.py).
"""

import re
from pathlib import Path
from typing import Any, NamedTuple

from pipelines.runtime.errors import UserError
from pipelines.tracking.uri import database_file, local_path

FOLDER = "mlartifacts"
_LAYOUT = re.compile(
    rf"(?P<experiment>/(?:{FOLDER}|mlruns)/[^/]+)(?P<rest>/(?:models/[^/]+|[0-9a-f]{{32}})/artifacts)?$"
)


class Location(NamedTuple):
    """A recorded folder of artifacts in litlab's or MLflow's layout.

    Attributes:
        recorded: The folder that the database names.
        project: The folder of the project that it was recorded in.
        here: The folder at the same place relative to the database.
        experiment: The part of the path from the project to the experiment's folder.
    """

    recorded: Path
    project: Path
    here: Path
    experiment: str

    @classmethod
    def of(cls, recorded: Path, database: Path) -> "Location | None":
        """Return the location; None if the path has no known layout, or is beside the database."""
        text = recorded.as_posix()
        match = _LAYOUT.search(text)
        if match is None:
            return None
        here = database.parent / match[0].lstrip("/")
        if here == recorded or (here.exists() and recorded.exists() and here.samefile(recorded)):
            return None
        return cls(recorded, Path(text[: match.start()] or "/"), here, match["experiment"].lstrip("/"))

    def current(self, database: Path) -> Path:
        """Return the folder to read and to write.

        It is the recorded one if only that exists, and for new runs of an experiment that lies elsewhere on purpose:
        its folder is not beside the database, and where it was recorded is no project with such a database.
        """
        if self.here.exists():
            return self.here
        is_experiment = self.recorded == self.project / self.experiment
        if self.recorded.exists() and not is_experiment:
            return self.recorded
        on_purpose = self.project.exists() and not (self.project / database.name).exists()
        if on_purpose and not (database.parent / self.experiment).exists():
            return self.recorded
        return self.here if self.experiment.startswith(FOLDER) else self.recorded


def artifact_folder(artifact_uri: str, tracking_uri: str) -> Path | None:
    """Return the folder of a run's, a model's or an experiment's artifacts; None if they are not on this machine.

    Args:
        artifact_uri: As MLflow records it.
        tracking_uri: The database or the server that it is recorded in.
    """
    recorded, database = local_path(artifact_uri), database_file(tracking_uri)
    location = Location.of(recorded, database) if recorded and database else None
    return location.current(database) if location and database else recorded


def check_own_artifacts(artifact_uri: str, tracking_uri: str) -> None:
    """Refuse to write to a run whose files are only in the project from which its database was copied.

    Raises:
        UserError: They are.
    """
    recorded, database = local_path(artifact_uri), database_file(tracking_uri)
    location = Location.of(recorded, database) if recorded and database else None
    if location is None or database is None or location.current(database) == location.here:
        return
    if (location.project / database.name).exists():
        raise UserError(f"{location.recorded} belongs to the project in {location.project}: copy it to {location.here}")


def moved_note(client: Any, tracking_uri: str) -> str:
    """Return what to do so that MLflow itself finds the artifacts of a project that was moved; "" if it does."""
    for experiment in client.search_experiments():
        folder = artifact_folder(experiment.artifact_location, tracking_uri)
        if folder is not None and folder != local_path(experiment.artifact_location) and folder.exists():
            return (
                f"the project was moved to {folder.parents[1]}: MLflow itself finds its files after litlab doctor --fix"
            )
    return ""
