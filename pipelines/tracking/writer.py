"""Write a run's log to the tracking store, each item exactly once, however often a request or a process fails."""

import contextlib
import queue
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipelines.runtime.text import first_line, redact_credentials
from pipelines.tracking import logged_model
from pipelines.tracking.deleted import RunGoneError
from pipelines.tracking.run_log import RunLog
from pipelines.tracking.stop_tag import StopTag
from pipelines.tracking.store import Store
from pipelines.tracking.tags import REASON_TAG, STOP_TAG

MAX_BATCH = 1000  # metrics that MLflow accepts in one call
MAX_PARAMS = 100  # params or tags that MLflow accepts in one call
REFUSALS = ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST")  # sending the same again would fail again
FIRST_PAUSE_S, LONGEST_PAUSE_S = 5.0, 60.0  # after a failure, before the next attempt
SEND, REWOUND, FINISH = "send", "rewound", "finish"  # requests to `follow`
Report = Callable[..., None]


class Writer:
    """Writes what the store does not have yet of a run.

    Data sent twice are stored once: params, tags and files replace themselves; metrics are compared with those in the
    store whenever it is unknown which of them arrived.

    Args:
        store: Where the run is stored.
        new: Whether the store has no metrics of the run yet.
        progress: Called after each successful request with the size in bytes of the next one, or 0.

    Attributes:
        refused: What the store refuses for good, and why.
    """

    def __init__(self, store: Store, *, new: bool, progress: Callable[[int], None] = lambda size: None) -> None:
        self.refused: list[str] = []
        self._run_id = ""
        self._store, self._progress, self._doubtful = store, progress, not new
        self._sent: dict[str, dict[str, str]] = {"params": {}, "tags": {}, "dataset": {}}
        self._sent_files: dict[str, tuple[int, int]] = {}
        self._sent_model: int | None = None  # epoch of its weights
        self._position = 0  # in metrics.jsonl, of the first metric that was not sent
        self._surplus: Counter[tuple[str, int]] = Counter()  # metrics in the store that the log does not have yet

    def doubt(self) -> None:
        """Compare the log with the store before more metrics are sent."""
        self._doubtful = True

    def send(self, log: RunLog) -> None:
        """Send everything unsent, and the final status if the run has ended.

        Raises:
            MlflowException: The store is unavailable; the rest stays unsent.
            RunGoneError: The run was deleted.
            UserError: The store is unavailable and was never opened.
            OSError: The store is unavailable, or a file cannot be read.
        """
        self._run_id = log.run_id
        self._store.open()  # before MLflow is imported below: one thread at a time
        from mlflow.entities import Param, RunTag

        self._try("params", lambda: self._send_texts(log, "params", Param))
        self._try("tags", lambda: self._send_texts(log, "tags", RunTag))
        self._try("the dataset", lambda: self._send_dataset(log))
        self._try("metrics", lambda: self._send_metrics(log))
        self._try("the model", lambda: self._send_model(log))
        if log.status:
            if log.is_sent_away:
                self._try("files", lambda: self._send_files(log))
            self._try("the end", lambda: self._end(log))

    @property
    def _client(self) -> Any:
        return self._store.client

    def _try(self, what: str, step: Callable[[], object]) -> None:
        from mlflow.exceptions import MlflowException

        try:
            step()
        except MlflowException as error:
            if error.error_code not in REFUSALS:
                raise
            self._refuse(what, error)

    def _refuse(self, what: str, error: Exception) -> None:
        """Note what is refused, unless everything is, because the run was deleted.

        Raises:
            RunGoneError: The run was deleted.
        """
        self._store.find(self._run_id)
        message = f"{what}: {first_line(error)}"
        self.refused += [message] if message not in self.refused else []

    def _log_batch(self, run_id: str, kind: str, batch: list[Any]) -> None:
        """Log params, tags or metrics. If one is refused, the others are still logged."""
        from mlflow.exceptions import MlflowException

        given: dict[str, Any] = {kind: batch}
        try:
            self._client.log_batch(run_id, **given)
            self._progress(0)
        except MlflowException as error:
            if error.error_code != "INVALID_PARAMETER_VALUE":
                raise
            if len(batch) == 1:
                self._refuse(f"{kind[:-1]} {batch[0].key[:80]}", error)
                return
            for part in (batch[: len(batch) // 2], batch[len(batch) // 2 :]):
                self._log_batch(run_id, kind, part)

    def _send_texts(self, log: RunLog, kind: str, entity: Callable[[str, str], Any]) -> None:
        """Send params or tags that are unsent or have changed."""
        new = {key: value for key, value in getattr(log, kind).items() if self._sent[kind].get(key) != value}
        batch = [entity(key, value) for key, value in new.items()]
        for start in range(0, len(batch), MAX_PARAMS):
            self._log_batch(log.run_id, kind, batch[start : start + MAX_PARAMS])
        self._sent[kind] |= new

    def _send_dataset(self, log: RunLog) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        if log.dataset == self._sent["dataset"]:
            return
        described = dict(log.dataset)
        context = InputTag("mlflow.data.context", described.pop("context", "training"))
        inputs = [DatasetInput(Dataset(**described, source_type="litlab"), [context])]
        self._client.log_inputs(log.run_id, datasets=inputs)
        self._sent["dataset"] = log.dataset
        self._progress(0)

    def _send_metrics(self, log: RunLog) -> None:
        """Send the metrics that the store does not have, matched by key and x axis."""
        from mlflow.entities import Metric

        if self._doubtful:
            self._surplus, self._position = self._stored_metrics(log.run_id), 0
        entries, end = log.entries(self._position)
        self._doubtful = True  # until all of it has arrived: a request that fails may have arrived nevertheless
        waiting = []
        for entry in entries:
            for key, value in entry.values.items():
                if self._surplus[key, entry.x]:
                    self._surplus[key, entry.x] -= 1
                else:
                    waiting.append(Metric(key, value, entry.timestamp, entry.x))
        for start in range(0, len(waiting), MAX_BATCH):
            self._log_batch(log.run_id, "metrics", waiting[start : start + MAX_BATCH])
        self._position, self._doubtful = end, False

    def _stored_metrics(self, run_id: str) -> Counter[tuple[str, int]]:
        """Count the metrics in the store by key and x axis."""
        stored: Counter[tuple[str, int]] = Counter()
        for key in self._client.get_run(run_id).data.metrics:
            stored.update((key, point.step) for point in self._client.get_metric_history(run_id, key))
            self._progress(0)
        return stored

    def _send_model(self, log: RunLog) -> None:
        if log.model_epoch is not None and log.model_epoch != self._sent_model:
            self._progress(sum(file.stat().st_size for file in log.model.rglob("*")))
            logged_model.send(self._client, log, log.model_epoch)
            self._sent_model = log.model_epoch

    def _send_files(self, log: RunLog) -> None:
        """Send files that are unsent or have changed, except temporary files."""
        for file in sorted(log.artifacts.rglob("*")):
            name, about = str(file.relative_to(log.artifacts)), file.stat()
            mark = (about.st_size, about.st_mtime_ns)
            if file.is_file() and not file.name.endswith(".part") and self._sent_files.get(name) != mark:
                self._progress(about.st_size)
                folder = str(file.relative_to(log.artifacts).parent)
                self._client.log_artifact(log.run_id, str(file), None if folder == "." else folder)
                self._sent_files[name] = mark

    def _end(self, log: RunLog) -> None:
        if log.reason:
            self._client.set_tag(log.run_id, REASON_TAG, log.reason)
        self._client.set_terminated(log.run_id, log.status, log.end_time)
        if STOP_TAG in self._client.get_run(log.run_id).data.tags:  # else it would stop when it is resumed
            self._client.delete_tag(log.run_id, STOP_TAG)
        self._progress(0)


def follow(home: Path, store: Store, new: bool, requests: "queue.SimpleQueue[str]", report: Report) -> None:
    """Send a run's log on request until FINISH, with a pause after a failure. Never raises: the training continues.

    Between requests, look whether the run is asked to stop.

    Args:
        home: The folder of the log.
        store: Where the run is stored.
        new: Whether the store has no metrics of the run yet.
        requests: SEND sends soon, unless the store has just failed; FINISH sends at once and ends the loop. REWOUND
            says that metrics.jsonl was rewound: the store may have metrics that will be logged once more.
        report: Called with `progress=BYTES`, see `Writer`, with `warning=TEXT` or `info=TEXT` for the user, with
            `stop=True` once if the run is asked to stop, and at last with `complete=BOOL, refused=[...], gone=BOOL`:
            whether everything was sent, and whether the run is deleted.
    """
    writer = Writer(store, new=new, progress=lambda size: report(progress=size))
    pause, not_before, away, last, gone = FIRST_PAUSE_S, 0.0, False, False, False
    stop_tag = StopTag(store, home)
    while not last:
        received = _receive(requests, not_before if away else stop_tag.next_look)
        last = FINISH in received
        if not (last or away) and stop_tag.is_new():
            report(stop=True)
        if not (received or away):
            continue
        if REWOUND in received:
            writer.doubt()
        if not last and time.monotonic() < not_before:
            continue
        try:
            log = RunLog.load(home)
            if log is not None:
                writer.send(log)
            elif last:
                raise OSError(f"{home} has no log")
        except RunGoneError as error:  # it may be restored
            if not gone:
                report(warning=f"{error}. Training continues; logged data are kept in {log.artifacts if log else home}")
            away, gone, not_before = True, True, time.monotonic() + pause
        except Exception as error:  # whatever it is
            if not away:
                report(warning=f"cannot send to {redact_credentials(store.uri)} now: {first_line(error)[:300]}")
                report(warning=f"the run continues; unsent data are saved in {log.artifacts if log else home}")
            away, not_before = True, time.monotonic() + pause
            pause = min(2 * pause, LONGEST_PAUSE_S)
        else:
            if away:
                report(info=f"sending to {redact_credentials(store.uri)} works again")
            away, pause, not_before, gone = False, FIRST_PAUSE_S, 0.0, False
    report(complete=not away, refused=writer.refused, gone=gone)


def _receive(requests: "queue.SimpleQueue[str]", until: float | None) -> set[str]:
    """Wait for requests, or until a time on the monotonic clock if one is given; return all that have come."""
    received: set[str] = set()
    with contextlib.suppress(queue.Empty):
        received.add(requests.get(timeout=None if until is None else max(0.0, until - time.monotonic())))
        while True:
            received.add(requests.get_nowait())
    return received
