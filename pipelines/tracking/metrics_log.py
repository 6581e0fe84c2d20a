"""metrics.jsonl: every metric of a run, in a file beside it; what the store has not taken is here."""

import contextlib
import json
import math
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Entry:
    """Metrics of an epoch; `timestamp` is in milliseconds since 1970."""

    epoch: int
    timestamp: int
    values: dict[str, float]


class Journal:
    """A file of one JSON object per line, which is written at its end only.

    Args:
        path: Made when there is something to write.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, epoch: int, values: Mapping[str, float]) -> Entry:
        """Append metrics; a value that is no finite number is kept as null, and is NaN when it is read."""
        now = int(time.time() * 1000)
        kept = {key: value if math.isfinite(value) else None for key, value in values.items()}
        with self._path.open("a") as file:
            file.write(json.dumps({"epoch": epoch, "timestamp": now, **kept}) + "\n")
        return Entry(epoch, now, _numbers(kept))

    def mark(self) -> int:
        """The end of what has been written until now, which is on the disk for good."""
        with self._path.open("a") as file:
            os.fsync(file.fileno())
            return file.tell()

    def rewind(self, mark: int) -> list[Entry]:
        """Forget what was written after a mark; returns what was written before it."""
        with self._path.open("ab") as file:
            file.truncate(min(mark, file.tell()))
        return self.read()

    def read(self) -> list[Entry]:
        """All that was written, without what was cut off when the process was killed or the disk full."""
        entries = []
        for text in self._path.read_text().splitlines() if self._path.exists() else []:
            with contextlib.suppress(json.JSONDecodeError):
                line = json.loads(text)
                entries.append(Entry(line.pop("epoch"), line.pop("timestamp"), _numbers(line)))
        return entries


def _numbers(values: Mapping[str, float | None]) -> dict[str, float]:
    return {key: math.nan if value is None else value for key, value in values.items()}
