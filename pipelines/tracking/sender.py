"""A background thread that sends data, so that training never waits for a store."""

import threading
import time
from collections.abc import Callable

from pipelines.runtime.log import logger
from pipelines.runtime.text import first_line

Told = Callable[[int], None]
FIRST_PAUSE_S, LONGEST_PAUSE_S = 5.0, 60.0  # after a failure, before the next attempt
SILENCE_S = 60.0  # without progress, after which the end of a run stops waiting
SLOWEST = 1_000_000  # bytes per second: extra time for large files
QUIET_S = 5.0  # of waiting before a message is printed


class Sender:
    """Call `job` in a background thread on request, with a pause after a failure.

    Args:
        job: Sends everything unsent and reports progress: the size in bytes of the next request. It raises if the
            store is unavailable.
        where: The store, as shown in messages.
        kept: The folder of unsent data, as shown in messages.
        after_s: Seconds from now before the first call, unless the run ends earlier.
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
        """Request a call soon, unless the store has just failed."""
        with self._state:
            if time.monotonic() >= self._not_before:
                self._ask()

    def last(self) -> bool:
        """Send everything and wait for it; return whether it succeeded. Give up if the store makes no progress."""
        with self._state:
            self._begin = 0.0
            enough = self._failures + (2 if self._busy else 1)  # the call in progress may have failed already
            self._ask()
            self._tell(0)
            began, reported = time.monotonic(), False
            while not self._state.wait_for(lambda: self._is_idle() or self._failures >= enough, timeout=0.5):
                if time.monotonic() > self._patient_until:
                    break
                if not reported and time.monotonic() - began > QUIET_S:
                    reported = True
                    logger.info(f"waiting for {self._where}")
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
            failure = self._try()
            with self._state:
                self._note(failure)
                self._busy = False
                self._state.notify_all()

    def _try(self) -> str | None:
        """Call `job`; return the reason of a failure, or None."""
        try:
            self._job(self._tell)
        except Exception as error:  # whatever it is, the training continues
            return first_line(error)
        return None

    def _note(self, failure: str | None) -> None:
        """Count failures, and print a message when they begin and end."""
        if failure is None:
            if self._away:
                logger.info(f"sending to {self._where} works again")
            self._away, self._pause = False, FIRST_PAUSE_S
            return
        if not self._away:
            logger.warning(f"cannot send to {self._where} now: {failure[:300]}")
            logger.warning(f"the run continues; unsent data are saved in {self._kept}")
        self._away, self._failures = True, self._failures + 1
        self._not_before = time.monotonic() + self._pause
        self._pause = min(2 * self._pause, LONGEST_PAUSE_S)
