"""What a run has to say to its store, on disk until the store has it: `unsent/RUN_ID/`.

`run.json` has params, tags and the end; `model/` is a model that waits; `files/` is the run's folder, if the store is a
server. With a local database files are where they belong, and only what goes into the database may have to wait.
"""

import contextlib
import dataclasses
import json
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipelines.runtime.environment import project_folder
from pipelines.runtime.errors import UserError
from pipelines.runtime.text import redact_credentials
from pipelines.tracking.origin import process_tags
from pipelines.tracking.store import local_path
from pipelines.tracking.uri import folder_of, store_uri

FOLDER_VARIABLE = "LITLAB_UNSENT"
NOTE, FILES, MODEL, LOCK, RESERVE = "run.json", "files", "model", "lock", "reserve"
RESERVE_BYTES = 1 << 18  # for the last words of a run on a disk that is full


@dataclass
class Outbox:
    """Everything of a run but its metrics and files; what is set here is set again as often as it is sent.

    Args:
        home: The folder of this run.
        uri: Of the store, without a password.
        artifacts: The folder of the run's files; its metrics are there.
        dataset: Name, digest, source and profile as MLflow takes them; empty if there is none.
        model_epoch: The epoch that the model is from; None if there is no model.
        status: How the run has ended; "" if it has not.
        end_time: In milliseconds since 1970.
        process: The tags of the process that the run belongs to.
    """

    home: Path
    uri: str
    run_id: str
    experiment_id: str
    name: str
    artifacts: Path
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    dataset: dict[str, str] = field(default_factory=dict)
    model_epoch: int | None = None
    status: str = ""
    reason: str = ""
    end_time: int = 0
    process: dict[str, str] = field(default_factory=process_tags)

    @classmethod
    def new(cls, uri: str, info: Any, home: Path | None = None) -> "Outbox":
        """That of a run that has nothing to say yet; MLflow's `info` says which it is."""
        home = home or home_of(uri, info.run_id)
        return cls(
            home=home,
            uri=redact_credentials(uri),
            run_id=info.run_id,
            experiment_id=info.experiment_id,
            name=info.run_name,
            artifacts=local_path(info.artifact_uri) or home / FILES,
        )

    @classmethod
    def load(cls, home: Path) -> "Outbox | None":
        """The one in a folder; None if there is none."""
        try:
            content: dict[str, Any] = json.loads((home / NOTE).read_text())
        except (OSError, json.JSONDecodeError):  # not there, or none of ours
            return None
        return cls(home=home, artifacts=Path(content.pop("artifacts")), **content)

    def save(self) -> None:
        """Write it down; for its owner's eyes only.

        Raises:
            OSError: The disk is full, for example.
        """
        self.home.mkdir(parents=True, exist_ok=True)
        content = dataclasses.asdict(self) | {"artifacts": str(self.artifacts)}
        del content["home"]
        part = self.home / f"{NOTE}.part"
        part.touch(mode=0o600)
        with part.open("w") as file:
            file.write(json.dumps(content, indent=1))
            file.flush()
            os.fsync(file.fileno())
        part.replace(self.home / NOTE)

    def reserve(self, *, free: bool = False) -> None:
        """Hold a little room on the disk, or free it."""
        if free:
            (self.home / RESERVE).unlink(missing_ok=True)
        else:
            (self.home / RESERVE).write_bytes(bytes(RESERVE_BYTES))

    def remove(self) -> None:
        """Forget it: the store has all."""
        (self.home / NOTE).unlink(missing_ok=True)  # what is left of the rest counts no more
        shutil.rmtree(self.home, ignore_errors=True)

    def fetch(self, client: Any) -> None:
        """Bring the files of a run from its server, all or none, unless they are here."""
        if not self.is_sent_away or self.artifacts.is_dir():
            return
        part = self.artifacts.with_suffix(".part")
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        for file in client.list_artifacts(self.run_id):
            client.download_artifacts(self.run_id, file.path, str(part))
        part.replace(self.artifacts)

    @property
    def is_sent_away(self) -> bool:
        """Whether the run's files lie here, and go to a server."""
        return self.artifacts == self.home / FILES

    @property
    def model(self) -> Path:
        return self.home / MODEL

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Let no other process of this machine send it or go on with it.

        Raises:
            UserError: One is about to.
        """
        from filelock import FileLock, Timeout

        self.home.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(self.home / LOCK, timeout=0):
                yield
        except Timeout as error:
            raise UserError(f"run {self.run_id} is being sent by another process: wait until it has ended") from error


def home_of(uri: str, run_id: str) -> Path:
    """Where what a run has to say waits.

    Raises:
        UserError: The id, which servers choose, would not do as a folder's name.
    """
    if not re.fullmatch(r"[\w-]+", run_id):
        raise UserError(f"{run_id!r} is no name of a run")
    return _root(uri) / run_id


def waiting(uri: str | None = None) -> list[Outbox]:
    """All that waits on this machine, the oldest first; `uri` is of one more database to look beside."""
    roots = dict.fromkeys([_root(store_uri(uri)), _root(store_uri()), _root("http://server")])
    homes = [home for root in roots if root.is_dir() for home in root.iterdir()]
    found = [box for home in homes if (box := Outbox.load(home))]
    return sorted(found, key=lambda box: (box.home / NOTE).stat().st_mtime)


def _root(uri: str) -> Path:
    given = os.environ.get(FOLDER_VARIABLE)
    return Path(given).expanduser().absolute() if given else (folder_of(uri) or project_folder()) / "unsent"
