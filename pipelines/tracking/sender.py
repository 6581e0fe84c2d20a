"""A thread that sends, so that the training never waits for a store."""

import sys
import threading
import time
from collections.abc import Callable

from pipelines.runtime.text import redact_credentials

Told = Callable[[int], None]
FIRST_PAUSE_S, LONGEST_PAUSE_S = 5.0, 60.0  # after a failure, before the next try
SILENCE_S = 60.0  # in which nothing is taken, until the end no longer waits
SLOWEST = 1_000_000  # bytes a second; a file may take its time
QUIET_S = 5.0  # of waiting, until it is said


class Sender:
    """Calls `job` in a thread of its own, whenever it is asked to; after a failure not at once again.

    Args:
        job: Sends what waits, and tells of its progress: the size in bytes of what it sends next. It raises if the
            store is away.
        where: The store, for people.
        kept: Where that is kept which cannot be sent.
        after_s: Seconds from now until it begins to, unless it is to be the last.
    """

    def __init__(self, job: Callable[[Told], None], where: str, kept: str, after_s: float = 0.0) -> None:
        self._job, self._where, self._kept = job, where, kept
        self._state = threading.Condition()
        self._thread: threading.Thread | None = None
        self._asked = self._busy = False
        self._failures = 0
        self._pause, self._not_before = FIRST_PAUSE_S, 0.0
        self._patient_until = 0.0
        self._begin = time.monotonic() + after_s
        self._away = False

    def ask(self) -> None:
        """Have what waits sent soon, unless the store has just failed."""
        with self._state:
            if time.monotonic() >= self._not_before:
                self._ask()

    def last(self) -> bool:
        """Have all sent, and wait for it; whether it has been. A store that takes nothing is not waited for."""
        with self._state:
            self._begin = 0.0
            enough = self._failures + (2 if self._busy else 1)  # what is under way may fail of what is over
            self._ask()
            self._tell(0)
            began, said = time.monotonic(), False
            while not self._state.wait_for(lambda: self._is_idle() or self._failures >= enough, timeout=0.5):
                if time.monotonic() > self._patient_until:
                    break
                if not said and time.monotonic() - began > QUIET_S:
                    said = True
                    print(f"litlab: waiting for {self._where}", file=sys.stderr)
            return self._is_idle() and not self._away

    def _ask(self) -> None:
        self._asked = True
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="litlab-sender", daemon=True)
            self._thread.start()
        self._state.notify_all()

    def _is_idle(self) -> bool:
        return not self._asked and not self._busy

    def _tell(self, size: int) -> None:
        self._patient_until = time.monotonic() + SILENCE_S + size / SLOWEST

    def _work(self) -> None:
        while True:
            with self._state:
                while (early_s := self._begin - time.monotonic()) > 0:
                    self._state.wait(early_s)
                if not self._asked:
                    self._thread = None
                    return
                self._asked, self._busy = False, True
            said = self._try()
            with self._state:
                self._note(said)
                self._busy = False
                self._state.notify_all()

    def _try(self) -> str | None:
        """Why it failed; None if it did not."""
        try:
            self._job(self._tell)
        except Exception as error:  # whatever it is, the training goes on
            return redact_credentials(str(error).splitlines()[0] if str(error) else type(error).__name__)
        return None

    def _note(self, said: str | None) -> None:
        """Count failures, and say when they begin and end."""
        if said is None:
            if self._away:
                print(f"litlab: {self._where} takes what it is sent again", file=sys.stderr)
            self._away, self._pause = False, FIRST_PAUSE_S
            return
        if not self._away:
            print(f"litlab: {self._where} takes nothing now ({said[:300]})", file=sys.stderr)
            print(f"litlab: the run goes on; what is to be sent is kept in {self._kept}", file=sys.stderr)
        self._away, self._failures = True, self._failures + 1
        self._not_before = time.monotonic() + self._pause
        self._pause = min(2 * self._pause, LONGEST_PAUSE_S)
