"""One MLflow run: its params, metrics, tags and artifacts. Other packages write runs only through `Run`.

A run is written to its log on disk (run_log.py); a writer, in another process or thread, sends that to the tracking
store (writer.py).

Layout next to the database: `mlartifacts/EXPERIMENT/RUN_ID/artifacts/` holds config.yaml, data.json, metrics.jsonl,
checkpoints/ and figures/; MLflow keeps the logged model in `mlartifacts/EXPERIMENT/models/`.
"""

import contextlib
import json
import re
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pipelines.runtime import terminal_log
from pipelines.runtime.errors import UserError
from pipelines.runtime.figure_style import figure_style
from pipelines.runtime.files import write_atomically
from pipelines.runtime.log import logger
from pipelines.runtime.signals import ignored_signals
from pipelines.runtime.text import redact_credentials
from pipelines.tracking import logged_model, source_code
from pipelines.tracking.origin import machine_tags, process_tags
from pipelines.tracking.reopening import reopened_log
from pipelines.tracking.run_log import RunLog, epoch_history
from pipelines.tracking.store import Store, StoredRun
from pipelines.tracking.tags import COMMIT_TAG, DATA_HASH_TAG, LITLAB_COMMIT_TAG, NAME_TAG, PARENT_RUN_TAG, PROCESS_TAG
from pipelines.tracking.writer import MAX_BATCH, REWOUND, SEND
from pipelines.tracking.writer_process import RunWriter

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor, nn

SEND_EVERY_S = 5.0
STOPPED = "stopped by litlab stop"  # reason of a run whose tag asked for it
_REFUSED = re.compile(r"[^\w\-. :/]")  # characters that MLflow refuses in the name of a metric


class Run:
    """One MLflow run, from its creation to its end. Whoever creates it must end it.

    Data are written to disk first and sent to the store in the background: a slow or unavailable store neither slows a
    training down nor ends it. Data that are unsent at the end are left to `litlab sync`.

    Args:
        store: Where the run is stored.
        experiment: Name of the MLflow experiment.
        name: Name of the run.
        tags: Tags of the run, besides those of its origin (source code, machine, process). If they have a commit, the
            source code is that of another run, which keeps its uncommitted changes and the installed packages.
        system_metrics: Whether to measure the machine while the run is active; see system_metrics.py.

    Attributes:
        folder: Folder of the run's files; with a local store, its artifact folder.
        history: Epoch and metrics of each call of `log_metrics` without a step; a reopened run's earlier ones are read
            by `rewind`.
        has_metrics: Whether any metric was logged, also before the run was reopened.
        terminal: What is printed until the run ends, if it was created in a block of `recorded_terminal`.
        complete: Whether the store has all data of the run, once it has ended.
        refused: What the store refuses for good, and why, once it has ended.

    Raises:
        UserError: The store refuses the run, or its files cannot be written.
    """

    def __init__(
        self, store: Store, experiment: str, name: str, tags: Mapping[str, str], *, system_metrics: bool = False
    ) -> None:
        self._system, self._started = system_metrics, time.time()
        writer = RunWriter(store)
        is_part = not {COMMIT_TAG, LITLAB_COMMIT_TAG}.isdisjoint(tags)  # the summary run has its code and packages
        code = source_code.SourceCode() if is_part else source_code.current()
        info = writer.create_run(experiment, name, {**code.tags, **machine_tags(), **process_tags(), **tags})
        try:
            self._begin(store, RunLog.new(store.uri, info), writer, new=True, packages=not is_part)
            code.save(self.folder)
        except OSError as error:
            writer.stop()
            store.end(info.run_id, "FAILED", str(error))
            raise UserError(f"the files of a run cannot be written: {error}; see --tracking_uri") from error

    @classmethod
    def reopen(cls, found: StoredRun, *, system_metrics: bool = False) -> "Run":
        """Reopen a run that has ended: it is RUNNING again until `finish`.

        Args:
            found: The run.
            system_metrics: See `Run`.

        Raises:
            UserError: The store is unavailable, `litlab sync` is sending the run, or its files are another project's.
        """
        run = cls.__new__(cls)
        run._system, run._started = system_metrics, found.started / 1000
        log = reopened_log(found)
        run._begin(found.store, log, RunWriter(found.store), new=False, packages=PARENT_RUN_TAG not in found.tags)
        return run

    def _begin(self, store: Store, log: RunLog, writer: RunWriter, *, new: bool, packages: bool) -> None:
        self.store, self.run_id, self.experiment_id = store, log.run_id, log.experiment_id
        self.folder, self._log, self._writer = log.artifacts, log, writer
        self.folder.mkdir(parents=True, exist_ok=True)
        log.save()
        log.reserve()
        self.complete, self.has_metrics = False, bool(log.entries()[0])
        self.history: list[tuple[int, dict[str, float]]] = []
        self._unsent, self._last_sent = 0, time.monotonic()
        self.terminal = terminal_log.attach_current(self.folder)
        system = self._log_system if self._system else None
        packages = packages and not self.has_metrics and not source_code.is_off()  # also if killed before it had them
        writer.follow(log, new=new, packages=packages, log_system=system)

    @property
    def refused(self) -> list[str]:
        return self._writer.refused

    @property
    def name(self) -> str:
        return self._log.tags.get(NAME_TAG, self._log.name)

    @property
    def status(self) -> str:
        """RUNNING, or the final status."""
        return self._log.status or "RUNNING"

    @property
    def reason(self) -> str:
        """Why the run was stopped or failed; "" for other runs."""
        return self._log.reason

    @property
    def stop_requested(self) -> bool:
        """Whether `litlab stop`, or a person in the MLflow UI, has asked the run to stop."""
        return self._writer.stop_requested

    def mark(self) -> int:
        """Flush the metrics to the disk; return a mark to rewind to."""
        return self._log.mark()

    def rewind(self, mark: int) -> None:
        """Delete metrics logged after a mark; the same metrics will be logged once more.

        The store cannot delete them: those that it has are not sent again.
        """
        self._log.rewind(mark)
        self.history = epoch_history(self._log.entries()[0])
        self._writer.request(REWOUND)

    @property
    def params(self) -> dict[str, str]:
        """The params that have been logged, perhaps by the process that began the run."""
        return self._log.params

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Log flat params; values other than strings are logged as JSON. Existing params are not changed."""
        texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in params.items()}
        self._tell(params={**texts, **self._log.params})

    def log_metrics(self, metrics: Mapping[str, float], epoch: int, step: int | None = None) -> None:
        """Log metrics to the disk, and request that unsent metrics are sent if it is time.

        Args:
            metrics: Values by name.
            epoch: The epoch that they are of; their x axis, unless there is a step.
            step: Their x axis if they are of a step and not of the whole epoch.

        Raises:
            OSError: For example, the disk is full.
        """
        entry = self._log.append(epoch, {accepted_name(key): value for key, value in metrics.items()}, step)
        if step is None:
            self.history.append((entry.epoch, entry.values))
        self._unsent, self.has_metrics = self._unsent + len(metrics), True
        if self._unsent >= MAX_BATCH or time.monotonic() - self._last_sent > SEND_EVERY_S:
            self._unsent, self._last_sent = 0, time.monotonic()
            self._writer.request(SEND)

    def _log_system(self, values: Mapping[str, float]) -> None:
        """Log system metrics, with the seconds since the run was created as x axis. Called in another thread."""
        seconds = max(0, round(time.time() - self._started))
        if not self._log.status:
            with contextlib.suppress(OSError):  # a full disk, which the training reports
                self._log.append(seconds, values, seconds)
                self._writer.request(SEND)

    def log_dataset(self, card: Mapping[str, Any], context: str = "training") -> None:
        """Log the data set, shown under Datasets in the UI, and the SHA-256 of each split as a tag.

        Args:
            card: Source, and sizes and SHA-256 by split; what else describes the data.
            context: "testing" for the test set of a trained run, which is added to data.json.
        """
        digests, path = card["sha256"], self.folder / "data.json"
        dataset = {
            "context": context,
            "name": card["source"],
            "digest": next(iter(digests.values()))[:16],
            "source": json.dumps({"sha256": digests}),
            "profile": json.dumps({key: value for key, value in card.items() if key not in ("source", "sha256")}),
        }
        tags = {f"{DATA_HASH_TAG}.{split}": digest for split, digest in digests.items()}
        known = json.loads(path.read_text()) if context != "training" and path.is_file() else {}
        splits = {key: {**known.get(key, {}), **card[key]} for key in ("sizes", "sha256")}
        path.write_text(json.dumps({**known, **card, **splits}, indent=2))
        self._tell(dataset=dataset, tags={**self._log.tags, **tags})

    def save_config(self, config: Mapping[str, Any]) -> None:
        """Save the resolved configuration as config.yaml, which `litlab fit -c` accepts, unless it exists."""
        import yaml

        path = self.folder / "config.yaml"
        if not path.is_file():
            write_atomically(path, yaml.safe_dump(dict(config), sort_keys=False))

    def save_figure(self, name: str, figure: "Figure") -> None:
        """Save a figure as figures/NAME.png."""
        path = self.folder / "figures" / f"{name}.png"
        path.parent.mkdir(exist_ok=True)
        with figure_style():
            figure.savefig(path)

    def metrics_at(self, epoch: int, step: int | None = None) -> dict[str, float]:
        """Return all metrics that were logged for an epoch, and those that were logged at a step, if one is given."""
        found = {key: value for index, metrics in self.history if index == epoch for key, value in metrics.items()}
        if step is not None:
            for entry in self._log.entries()[0]:
                found |= entry.values if entry.step == step else {}
        return found

    def set_tags(self, tags: Mapping[str, str]) -> None:
        self._tell(tags={**self._log.tags, **tags})

    def _tell(self, **changed: Any) -> None:
        """Save changed fields of the log, and request that they are sent."""
        for key, value in changed.items():
            setattr(self._log, key, value)
        self._log.save()
        self._writer.request(SEND)

    def log_model(self, model: "nn.Module", example: "Tensor", metadata: Mapping[str, Any], epoch: int) -> None:
        """Log a module as an exported program, unless the run has one; see `logged_model.save`.

        Args:
            model: On the CPU, in evaluation mode.
            example: Two of its inputs, shape (2, ...).
            metadata: Facts about the model.
            epoch: Epoch of the weights.
        """
        logged_model.save(self._log.model, model, example, metadata)
        self._tell(model_epoch=epoch)

    def finish(self, status: str, reason: str = "") -> None:
        """End the run as FINISHED, FAILED or KILLED. Ctrl-C and SIGTERM are ignored until it returns.

        Data that cannot be sent in time are kept, with a message.
        """
        reason = STOPPED if self.stop_requested and status == "KILLED" else reason
        with ignored_signals():
            if self.terminal is not None:
                self.terminal.close()
            try:
                self._log.reserve(free=True)
                self._tell(status=status, reason=reason[:5000], end_time=int(time.time() * 1000))
            except OSError as error:
                logger.error(f"the final status of the run cannot be saved: {error}")
                self._writer.is_ending = True
                self.store.end(self.run_id, status, reason)
            else:
                self.complete = self._writer.finish() and not self.refused
            if self.complete:
                self._log.remove()
                return
            self._leave()
            if self._writer.gone:
                return
            where = redact_credentials(self.store.uri)
            for message in dict.fromkeys(self.refused):
                logger.warning(f"{where} refuses {message}")
            logger.warning(f"run {self.run_id} is {status}, but {where} does not have all of its data")
            logger.warning(f"the rest is saved in {self.folder}. To send it: {self.syncing}")

    def _leave(self) -> None:
        """Leave unsent data to `litlab sync`, even while this process is alive."""
        self._log.process = {**self._log.process, PROCESS_TAG: ""}
        with contextlib.suppress(OSError):  # a full disk; `litlab sync` then waits for the end of the process
            self._log.save()

    @property
    def syncing(self) -> str:
        """The command that sends unsent data."""
        return f"litlab sync {self.run_id}"


def accepted_name(metric: str) -> str:
    """Return the name of a metric with each character that MLflow refuses replaced."""
    return _REFUSED.sub("_", metric)
