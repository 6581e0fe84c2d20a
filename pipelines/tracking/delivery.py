"""Send a run's metrics, outbox and files to the store, each exactly once."""

import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

from pipelines.runtime.text import first_line
from pipelines.tracking import logged_model
from pipelines.tracking.metrics_log import Entry, MetricsLog
from pipelines.tracking.outbox import Outbox
from pipelines.tracking.store import Store
from pipelines.tracking.tags import REASON_TAG

MAX_BATCH = 1000  # metrics that MLflow accepts in one call
MAX_PARAMS = 100  # params or tags that MLflow accepts in one call
REFUSALS = ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST")  # sending the same again would fail again


class Delivery:
    """The data of a run that the store does not have yet.

    Data sent twice are stored once: params, tags and files replace themselves; metrics are compared with those in the
    store whenever it is unknown which of them arrived.

    Args:
        store: Where the run is sent.
        box: Params, tags, model and status of the run.
        journal: Metrics of the run.
        new: Whether the store has no metrics of the run yet.

    Attributes:
        lock: Held while box, journal and metrics are changed or read.
        refused: What the store refuses for good, and why.
    """

    def __init__(self, store: Store, box: Outbox, journal: MetricsLog, *, new: bool) -> None:
        self.lock = threading.RLock()
        self.refused: list[str] = []
        self._store, self._box, self._journal = store, box, journal
        self._sent: dict[str, dict[str, str]] = {"params": {}, "tags": {}, "dataset": {}}
        self._sent_files: dict[str, tuple[int, int]] = {}
        self._doubtful = not new
        self._waiting: list[tuple[str, float, int, int]] = []  # key, value, timestamp, step
        self._surplus: Counter[tuple[str, int]] = Counter()  # points in the store that the journal does not have yet
        self._told: Callable[[int], None] = lambda size: None

    @property
    def _client(self) -> Any:
        return self._store.client

    @property
    def values(self) -> int:
        """Number of unsent metrics."""
        return len(self._waiting)

    def add(self, entry: Entry) -> None:
        """Queue metrics that were written to the journal, unless the store has them."""
        for key, value in entry.values.items():
            if self._surplus[key, entry.epoch]:
                self._surplus[key, entry.epoch] -= 1
            else:
                self._waiting.append((key, value, entry.timestamp, entry.epoch))

    def doubt(self) -> None:
        """Compare the journal with the store before more metrics are sent."""
        self._doubtful = True

    def send(self, told: Callable[[int], None] = lambda size: None) -> None:
        """Send everything unsent, and the final status if the run has ended.

        Args:
            told: Called after each successful request with the size in bytes of the next one, or 0.

        Raises:
            MlflowException: The store is unavailable; the rest stays unsent.
            UserError: The store is unavailable and was never opened.
            OSError: The store is unavailable, or a file cannot be read.
        """
        self._store.open()  # before MLflow is imported below: one thread at a time
        self._told, ended = told, self._box.status  # later changes are sent by the next call
        self._take("params", self._params)
        self._take("tags", self._tags)
        self._take("the dataset", self._dataset)
        self._take("metrics", self._metrics)
        if ended:
            self._take("the model", self._model)
            if self._box.is_sent_away:
                self._take("files", self._files)
            self._take("the end", self._end)

    def _take(self, what: str, step: Callable[[], object]) -> None:
        from mlflow.exceptions import MlflowException

        try:
            step()
        except MlflowException as error:
            if error.error_code not in REFUSALS:
                raise
            self._refuse(what, error)

    def _refuse(self, what: str, error: Exception) -> None:
        message = f"{what}: {first_line(error)}"
        self.refused += [message] if message not in self.refused else []

    def _log(self, kind: str, batch: list[Any]) -> None:
        """Log params, tags or metrics. If one is refused, the others are still logged."""
        from mlflow.exceptions import MlflowException

        given: dict[str, Any] = {kind: batch}
        try:
            self._client.log_batch(self._box.run_id, **given)
            self._told(0)
        except MlflowException as error:
            if error.error_code != "INVALID_PARAMETER_VALUE":
                raise
            if len(batch) == 1:
                self._refuse(f"{kind[:-1]} {batch[0].key[:80]}", error)
                return
            for part in (batch[: len(batch) // 2], batch[len(batch) // 2 :]):
                self._log(kind, part)

    def _new(self, kind: str) -> dict[str, str]:
        """Return params, tags or dataset fields that are unsent or have changed."""
        with self.lock:
            now: dict[str, str] = dict(getattr(self._box, kind))
        return {key: value for key, value in now.items() if self._sent[kind].get(key) != value}

    def _params(self) -> None:
        from mlflow.entities import Param

        self._texts("params", Param)

    def _tags(self) -> None:
        from mlflow.entities import RunTag

        self._texts("tags", RunTag)

    def _texts(self, kind: str, entity: Callable[[str, str], Any]) -> None:
        new = self._new(kind)
        every = [entity(key, value) for key, value in new.items()]
        for start in range(0, len(every), MAX_PARAMS):
            self._log(kind, every[start : start + MAX_PARAMS])
        self._sent[kind] |= new

    def _dataset(self) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        if not (new := self._new("dataset")):
            return
        dataset = Dataset(**self._box.dataset, source_type="litlab")
        inputs = [DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])]
        self._client.log_inputs(self._box.run_id, datasets=inputs)
        self._sent["dataset"] = new
        self._told(0)

    def _metrics(self) -> None:
        from mlflow.entities import Metric

        if self._doubtful:
            self._compare()
        while not self._doubtful and (batch := self._waiting[:MAX_BATCH]):
            try:
                self._log("metrics", [Metric(*values) for values in batch])
            except Exception:
                self._doubtful = True  # the store may have received them nevertheless
                raise
            with self.lock:
                del self._waiting[: len(batch)]

    def _compare(self) -> None:
        """Queue the metrics of the journal that the store does not have, matched by key and epoch."""
        stored: Counter[tuple[str, int]] = Counter()
        for key in self._client.get_run(self._box.run_id).data.metrics:
            stored.update((key, point.step) for point in self._client.get_metric_history(self._box.run_id, key))
            self._told(0)
        with self.lock:
            self._surplus, self._waiting, self._doubtful = stored, [], False
            for entry in self._journal.read():
                self.add(entry)

    def _model(self) -> None:
        if self._box.model_epoch is not None:
            self._told(sum(file.stat().st_size for file in self._box.model.rglob("*")))
            logged_model.send(self._client, self._box, self._box.model_epoch)

    def _files(self) -> None:
        """Send files that are unsent or have changed, except temporary files."""
        for file in sorted(self._box.artifacts.rglob("*")):
            name, about = str(file.relative_to(self._box.artifacts)), file.stat()
            mark = (about.st_size, about.st_mtime_ns)
            if file.is_file() and not file.name.endswith(".part") and self._sent_files.get(name) != mark:
                self._told(about.st_size)
                folder = str(file.relative_to(self._box.artifacts).parent)
                self._client.log_artifact(self._box.run_id, str(file), None if folder == "." else folder)
                self._sent_files[name] = mark

    def _end(self) -> None:
        if self._box.reason:
            self._client.set_tag(self._box.run_id, REASON_TAG, self._box.reason)
        self._client.set_terminated(self._box.run_id, self._box.status, self._box.end_time)
        self._told(0)
