"""A run's log on disk: everything that the tracking store is to have of a run. The writer sends it (writer.py).

`unsent/RUN_ID/` exists until the store has everything. Its `run.json` has params, tags and status; `model/` is a model
to be logged; `files/` is the run's folder if the store is a server. With a local database, files are written to their
final place, and only what goes into the database is unsent. `metrics.jsonl`, in the run's folder, has every metric.
"""

import contextlib
import dataclasses
import json
import math
import os
import re
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipelines.runtime.environment import project_folder
from pipelines.runtime.errors import UserError
from pipelines.runtime.files import file_lock, write_atomically
from pipelines.runtime.text import redact_credentials
from pipelines.tracking.artifacts import artifact_folder
from pipelines.tracking.origin import process_tags
from pipelines.tracking.uri import database_file, folder_of, sqlite_uri, store_uri

FOLDER_VARIABLE = "LITLAB_UNSENT"
UNSENT = "unsent"  # the folder beside the database
NOTE, FILES, MODEL, LOCK, RESERVE = "run.json", "files", "model", "lock", "reserve"
FIELDS = {"epoch", "timestamp", "step", "values"}  # of a line of metrics.jsonl
RESERVE_BYTES = 1 << 18  # space for the final status of a run when the disk is full


@dataclass(frozen=True)
class Entry:
    """Metrics that were logged together. A value that is not finite is NaN.

    Attributes:
        epoch: The epoch in which they were logged.
        timestamp: In milliseconds since 1970.
        step: The step that is their x axis; None if that is the epoch.
    """

    epoch: int
    timestamp: int
    values: dict[str, float]
    step: int | None = None

    @property
    def x(self) -> int:
        """The x axis of the metrics, which MLflow calls the step."""
        return self.epoch if self.step is None else self.step


@dataclass
class RunLog:
    """What the tracking store is to have of a run, except its files.

    Args:
        home: The folder of the run's unsent data.
        uri: Tracking URI, without a password.
        artifacts: The folder of the run's files, with metrics.jsonl.
        dataset: Name, digest, source and profile, as in MLflow's Dataset, and its context; empty if there is none.
        model_epoch: Epoch of the model's weights; None if there is no model.
        status: Final status of the run; "" if it has not ended.
        end_time: In milliseconds since 1970.
        process: Tags that identify the process that owns the run.
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
    def new(cls, uri: str, info: Any, home: Path | None = None) -> "RunLog":
        """Create an empty log for the run of MLflow's `info`."""
        home = home or home_of(uri, info.run_id)
        return cls(
            home=home,
            uri=redact_credentials(uri),
            run_id=info.run_id,
            experiment_id=info.experiment_id,
            name=info.run_name,
            artifacts=artifact_folder(info.artifact_uri, uri) or home / FILES,
        )

    @classmethod
    def load(cls, home: Path) -> "RunLog | None":
        """Load the log in a folder, which may have been moved since; None if there is none."""
        try:
            content: dict[str, Any] = json.loads((home / NOTE).read_text())
        except (OSError, json.JSONDecodeError):  # missing, or not written by litlab
            return None
        log = cls(home=home, artifacts=Path(content.pop("artifacts")), **content)
        file = database_file(log.uri)
        beside = home.parent.parent / file.name if file and FOLDER_VARIABLE not in os.environ else None
        log.move_to(sqlite_uri(beside) if beside and beside.is_file() else log.uri)
        return log

    def move_to(self, uri: str) -> None:
        """Set the store that the run is in now, and with it where its files are."""
        self.uri = redact_credentials(uri)
        if (self.artifacts.parent.name, self.artifacts.name) == (self.home.name, FILES):
            self.artifacts = self.home / FILES
        else:
            self.artifacts = artifact_folder(self.artifacts.as_uri(), uri) or self.artifacts

    def save(self) -> None:
        """Write run.json, readable only by its owner.

        Raises:
            OSError: For example, the disk is full.
        """
        content = dataclasses.asdict(self) | {"artifacts": str(self.artifacts)}
        del content["home"]
        write_atomically(self.home / NOTE, json.dumps(content, indent=1), mode=0o600)

    def append(self, epoch: int, values: Mapping[str, float], step: int | None = None) -> Entry:
        """Append metrics to metrics.jsonl, where a value that is not finite is null.

        The values of a line are beside its epoch and timestamp; in `values`, if it has a step or a metric has the name
        of a field.

        Raises:
            OSError: For example, the disk is full.
        """
        line: dict[str, Any] = {"epoch": epoch, "timestamp": int(time.time() * 1000)}
        finite = {key: value if math.isfinite(value) else None for key, value in values.items()}
        if step is not None:
            line |= {"step": step, "values": finite}
        else:
            line |= {"values": finite} if finite.keys() & FIELDS else finite
        with self._metrics.open("a") as file:
            file.write(json.dumps(line) + "\n")
        return _entry(line)

    def entries(self, start: int = 0) -> tuple[list[Entry], int]:
        """Return the entries of metrics.jsonl; see `read_entries`."""
        return read_entries(self._metrics, start)

    def mark(self) -> int:
        """Flush metrics.jsonl to the disk and return its size in bytes, to rewind to later."""
        with self._metrics.open("a") as file:
            os.fsync(file.fileno())
            return file.tell()

    def rewind(self, mark: int) -> None:
        """Delete the metrics that were appended after a mark."""
        with self._metrics.open("ab") as file:
            file.truncate(min(mark, file.tell()))

    def reserve(self, *, free: bool = False) -> None:
        """Reserve a little disk space, or free it."""
        if free:
            (self.home / RESERVE).unlink(missing_ok=True)
        else:
            (self.home / RESERVE).write_bytes(bytes(RESERVE_BYTES))

    def remove(self) -> None:
        """Delete the folder of unsent data, once the store has everything."""
        (self.home / NOTE).unlink(missing_ok=True)  # without it the rest is ignored
        shutil.rmtree(self.home, ignore_errors=True)

    def fetch(self, client: Any) -> None:
        """Download the files of a run from its server, all or none, unless they are here."""
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
        """Whether the run's files are here and are to be sent to a server."""
        return self.artifacts == self.home / FILES

    @property
    def model(self) -> Path:
        return self.home / MODEL

    @property
    def _metrics(self) -> Path:
        return self.artifacts / "metrics.jsonl"

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Lock the run so that no other process of this machine sends or resumes it.

        Raises:
            UserError: Another process holds the lock.
        """
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(file_lock(self.home / LOCK, timeout=0))
            except TimeoutError as error:
                message = f"another process is sending run {self.run_id}: wait until it has finished"
                raise UserError(message) from error
            yield


def read_entries(path: Path, start: int = 0) -> tuple[list[Entry], int]:
    """Return the entries of a metrics.jsonl from a position on, in bytes, and the position after the last one.

    Lines that were cut off by a killed process or a full disk are left out.
    """
    if not path.exists():
        return [], 0
    with path.open("rb") as file:
        file.seek(start)
        complete, newline, _ = file.read().rpartition(b"\n")
    entries = []
    for text in complete.splitlines():
        with contextlib.suppress(ValueError, KeyError):
            entries.append(_entry(json.loads(text)))
    return entries, start + len(complete) + len(newline)


def epoch_history(entries: Iterable[Entry]) -> list[tuple[int, dict[str, float]]]:
    """Return epoch and metrics of each entry that has the epoch as x axis."""
    return [(entry.epoch, entry.values) for entry in entries if entry.step is None]


def _entry(line: dict[str, Any]) -> Entry:
    values, step = line.get("values"), line.get("step")
    if not isinstance(values, dict):  # beside epoch and timestamp
        values, step = {key: value for key, value in line.items() if key not in ("epoch", "timestamp")}, None
    numbers = {key: math.nan if value is None else value for key, value in values.items()}
    return Entry(int(line["epoch"]), int(line["timestamp"]), numbers, None if step is None else int(step))


def home_of(uri: str, run_id: str) -> Path:
    """Return the folder of a run's unsent data.

    Raises:
        UserError: The run id, which the server chooses, is not a safe folder name.
    """
    if not re.fullmatch(r"[\w-]+", run_id):
        raise UserError(f"{run_id!r} is not a run id")
    return _root(uri) / run_id


def unsent_logs(uri: str | None = None) -> list[RunLog]:
    """Return the logs of all unsent runs of this machine, oldest first.

    Args:
        uri: Another database to look next to.
    """
    roots = dict.fromkeys([_root(store_uri(uri)), _root(store_uri()), _root("http://server")])
    homes = [home for root in roots if root.is_dir() for home in root.iterdir()]
    found = [log for home in homes if (log := RunLog.load(home))]
    return sorted(found, key=lambda log: (log.home / NOTE).stat().st_mtime)


def _root(uri: str) -> Path:
    given = os.environ.get(FOLDER_VARIABLE)
    return Path(given).expanduser().absolute() if given else (folder_of(uri) or project_folder()) / UNSENT
