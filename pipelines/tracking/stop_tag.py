"""The tag that asks a run to stop. The run's writer looks for it every few seconds; the training never does."""

import time
from pathlib import Path

from pipelines.tracking.run_log import RunLog
from pipelines.tracking.store import Store
from pipelines.tracking.tags import PARENT_RUN_TAG, STOP_TAG

LOOK_EVERY_S = 10.0


class StopTag:
    """The tag of the run that a writer writes.

    A run that has a parent is stopped with its parent: its own tag is not looked for.

    Args:
        store: Where the run is stored.
        home: The folder of the run's log.

    Attributes:
        next_look: When to look again, by the monotonic clock; None for never.
    """

    def __init__(self, store: Store, home: Path) -> None:
        self._store, self._home, self._run_id = store, home, ""
        self.next_look: float | None = time.monotonic() + LOOK_EVERY_S

    def is_new(self) -> bool:
        """Look, if it is time, and return whether the tag is there; True once. Never raises."""
        if self.next_look is None or time.monotonic() < self.next_look:
            return False
        try:
            tags = self._tags()
        except Exception:  # the store is unavailable, which sending reports
            tags = {}
        is_found = STOP_TAG in tags and PARENT_RUN_TAG not in tags
        self.next_look = None if is_found or PARENT_RUN_TAG in tags else time.monotonic() + LOOK_EVERY_S
        return is_found

    def _tags(self) -> dict[str, str]:
        if not self._run_id:
            log = RunLog.load(self._home)
            self._run_id = log.run_id if log else ""
        return dict(self._store.client.get_run(self._run_id).data.tags) if self._run_id else {}
