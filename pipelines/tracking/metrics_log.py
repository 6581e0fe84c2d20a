"""metrics.jsonl: a file with every metric of a run, including those that the store does not have yet."""

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


class MetricsLog:
    """An append-only file with one JSON object per line.

    Args:
        path: Created by the first write.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, epoch: int, values: Mapping[str, float]) -> Entry:
        """Append metrics. A value that is not finite is written as null and read as NaN."""
        now = int(time.time() * 1000)
        kept = {key: value if math.isfinite(value) else None for key, value in values.items()}
        with self._path.open("a") as file:
            file.write(json.dumps({"epoch": epoch, "timestamp": now, **kept}) + "\n")
        return Entry(epoch, now, _numbers(kept))

    def mark(self) -> int:
        """Flush the file to the disk and return its size in bytes, to rewind to later."""
        with self._path.open("a") as file:
            os.fsync(file.fileno())
            return file.tell()

    def rewind(self, mark: int) -> list[Entry]:
        """Delete what was written after a mark; return the entries before it."""
        with self._path.open("ab") as file:
            file.truncate(min(mark, file.tell()))
        return self.read()

    def read(self) -> list[Entry]:
        """Return all entries, without lines cut off by a killed process or a full disk."""
        entries = []
        for text in self._path.read_text().splitlines() if self._path.exists() else []:
            with contextlib.suppress(json.JSONDecodeError):
                line = json.loads(text)
                entries.append(Entry(line.pop("epoch"), line.pop("timestamp"), _numbers(line)))
        return entries


def _numbers(values: Mapping[str, float | None]) -> dict[str, float]:
    return {key: math.nan if value is None else value for key, value in values.items()}
