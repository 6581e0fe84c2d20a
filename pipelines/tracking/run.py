"""What a run is: the names, params, metrics, tags and artifacts that it gets. The only file that writes runs.

Layout beside the database: `mlartifacts/EXPERIMENT/RUN_ID/artifacts/` holds config.yaml, data.json, metrics.jsonl,
checkpoints/ and figures/; MLflow keeps the logged model in `mlartifacts/EXPERIMENT/models/`.
"""

import contextlib
import json
import re
import signal
import sys
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from pipelines.runtime.errors import StoppedError, UserError
from pipelines.runtime.signals import signal_handlers
from pipelines.runtime.text import redact_credentials
from pipelines.tracking import logged_model, outbox
from pipelines.tracking import prestart as ahead
from pipelines.tracking.delivery import MAX_BATCH, Delivery
from pipelines.tracking.metrics_log import Journal
from pipelines.tracking.origin import git_tags, machine_tags, process_tags
from pipelines.tracking.outbox import Outbox
from pipelines.tracking.sender import Sender
from pipelines.tracking.store import Store, StoredRun
from pipelines.tracking.tags import PROCESS_TAG, REASON_TAG

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor, nn

SEND_EVERY_S = 5.0
OPEN_AFTER_S = 1.0  # to import MLflow takes that long, which is not to be in the way of the first step
_REFUSED = re.compile(r"[^\w\-. :/]")  # what MLflow refuses in the name of a metric


class Run:
    """One MLflow run, from its creation to its end; whoever makes it ends it.

    Whatever it is told goes to the disk first, and to the store from a thread: a store that is slow or away neither
    slows a training nor ends it. What the store does not take until the end is left for `litlab sync`.

    Args:
        store: Where the run goes.
        experiment: Name of the MLflow experiment.
        name: Name of the run.
        tags: Flat.

    Attributes:
        folder: Where files of the run are written; with a local store, the run's own artifacts.
        history: Epoch and metrics of each call of `log_metrics`.
        complete: Whether the store has taken all of it, once the run has ended.
        refused: What the store will never take, and why.

    Raises:
        UserError: The store does not take the run, or its files cannot be written.
    """

    def __init__(self, store: Store, experiment: str, name: str, tags: Mapping[str, str]) -> None:
        every = {**git_tags(), **machine_tags(), **process_tags(), **tags}
        info = ahead.create_run(store, experiment, name, every)
        try:
            self._begin(store, Outbox.new(store.uri, info), new=True)
        except OSError as error:
            store.end(info.run_id, "FAILED", str(error))
            raise UserError(f"the files of a run cannot be written: {error}; see --tracking_uri") from error

    @classmethod
    def reopen(cls, found: StoredRun, *, shared: bool = False) -> "Run":
        """Go on with a run that has ended: it is RUNNING again until `finish`. Its earlier `history` is not read.

        Args:
            found: The run.
            shared: Whether other processes, perhaps in the same folder, may be at the run too.

        Raises:
            UserError: The store has gone, or `litlab sync` is sending the run.
        """
        from mlflow.exceptions import MlflowException

        run, client = cls.__new__(cls), found.store.client
        try:
            known = client.get_run(found.run_id)
            home = outbox.home_of(found.store.uri, found.run_id)
            if shared:  # what one of them leaves must not take the others' files away
                home = home.with_name(f"{home.name}-{uuid.uuid4().hex[:8]}")
            box = Outbox.load(home) or Outbox.new(found.store.uri, known.info, home)
            with box.held():
                box.fetch(client)
                box.process, box.status, box.reason = process_tags(), "", ""
                box.params = {**box.params, **known.data.params}
                box.save()
            for key, value in box.process.items():  # first: a run that says RUNNING is looked for in its process
                client.set_tag(found.run_id, key, value)
            client.update_run(found.run_id, status="RUNNING")
            if REASON_TAG in known.data.tags:  # of its former end
                client.delete_tag(found.run_id, REASON_TAG)
        except (MlflowException, OSError) as error:
            raise UserError(f"run {found.run_id} cannot go on now: {str(error).splitlines()[0]}") from error
        run._begin(found.store, box, new=False)
        return run

    def _begin(self, store: Store, box: Outbox, *, new: bool) -> None:
        self.store, self.run_id, self.experiment_id = store, box.run_id, box.experiment_id
        self.folder, self._box = box.artifacts, box
        self.folder.mkdir(parents=True, exist_ok=True)
        box.save()
        box.reserve()
        self.complete = False
        self.history: list[tuple[int, dict[str, float]]] = []
        self.journal = Journal(self.folder / "metrics.jsonl")
        self._delivery = Delivery(store, box, self.journal, new=new)
        self.refused = self._delivery.refused
        after_s = 0.0 if store.is_open else OPEN_AFTER_S
        self._sender = Sender(self._delivery.send, redact_credentials(store.uri), str(self.folder), after_s)
        self._last_asked = time.monotonic()

    def rewind(self, mark: int) -> None:
        """Forget the metrics that were logged after a mark of the journal; the same are to be logged once more.

        The store cannot forget: what it has is not sent again.
        """
        with self._delivery.lock:
            self.history += [(entry.epoch, entry.values) for entry in self.journal.rewind(mark)]
            self._delivery.doubt()
        self._sender.ask()

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Log flat params; values that are no text are logged as JSON. What the run has already stays."""
        texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in params.items()}
        self._tell(params={**texts, **self._box.params})

    def log_metrics(self, metrics: Mapping[str, float], epoch: int) -> None:
        """Keep metrics of an epoch, and have what has gathered sent if it is time.

        Raises:
            OSError: The disk is full, for example.
        """
        with self._delivery.lock:
            entry = self.journal.write(epoch, {_REFUSED.sub("_", key): value for key, value in metrics.items()})
            self.history.append((entry.epoch, entry.values))
            self._delivery.add(entry)
        if self._delivery.values >= MAX_BATCH or time.monotonic() - self._last_asked > SEND_EVERY_S:
            self._last_asked = time.monotonic()
            self._sender.ask()

    def log_dataset(self, card: Mapping[str, Any]) -> None:
        """Record what was trained on, shown under Datasets in the UI, and the digest of each set as a tag."""
        digests = card["sha256"]
        dataset = {
            "name": card["source"],
            "digest": digests["train"][:16],
            "source": json.dumps({"sha256": digests}),
            "profile": json.dumps({key: value for key, value in card.items() if key not in ("source", "sha256")}),
        }
        tags = {f"data.sha256.{split}": digest for split, digest in digests.items()}
        (self.folder / "data.json").write_text(json.dumps(card, indent=2))
        self._tell(dataset=dataset, tags={**self._box.tags, **tags})

    def save_config(self, config: Mapping[str, Any]) -> None:
        """Keep the resolved configuration as config.yaml, from which `litlab fit -c` makes the same run; only once."""
        import yaml

        if (self.folder / "config.yaml").is_file():
            return
        part = self.folder / ".config.yaml.part"  # half a configuration would be taken for one
        part.write_text(yaml.safe_dump(dict(config), sort_keys=False))
        part.replace(self.folder / "config.yaml")

    def save_figure(self, name: str, figure: "Figure") -> None:
        """Keep a figure as figures/NAME.png."""
        path = self.folder / "figures" / f"{name}.png"
        path.parent.mkdir(exist_ok=True)
        figure.savefig(path)

    def metrics_at(self, epoch: int) -> dict[str, float]:
        """All metrics that were logged for an epoch."""
        return {key: value for at, metrics in self.history if at == epoch for key, value in metrics.items()}

    def set_tags(self, tags: Mapping[str, str]) -> None:
        self._tell(tags={**self._box.tags, **tags})

    def _tell(self, **changed: Any) -> None:
        """Write down what the run says, and have it sent."""
        with self._delivery.lock:
            for key, value in changed.items():
                setattr(self._box, key, value)
            self._box.save()
        self._sender.ask()

    def log_model(self, model: "nn.Module", example: "Tensor", metadata: Mapping[str, Any], epoch: int) -> None:
        """Log a module as an exported program, unless the run has one; see `logged_model.save`.

        Args:
            model: On the CPU, in evaluation mode.
            example: Two of its inputs, shape (2, ...).
            metadata: What to know of the model.
            epoch: The epoch that the weights are from.
        """
        logged_model.save(self._box.model, model, example, metadata)
        self._tell(model_epoch=epoch)

    def finish(self, status: str, reason: str = "") -> None:
        """End the run: FINISHED, FAILED or KILLED; deaf to Ctrl-C and SIGTERM meanwhile.

        What the store does not take in time is kept; it is said.
        """
        with _deaf():
            try:
                self._box.reserve(free=True)
                self._tell(status=status, reason=reason[:5000], end_time=int(time.time() * 1000))
            except OSError as error:
                print(f"litlab: how the run has ended cannot be written down: {error}", file=sys.stderr)
            self.complete = self._sender.last() and not self.refused
            if self.complete:
                self._box.remove()
                return
            self._leave()
            where = redact_credentials(self.store.uri)
            for said in dict.fromkeys(self.refused):
                print(f"litlab: {where} refuses {said}", file=sys.stderr)
            print(f"litlab: run {self.run_id} is {status}; {where} does not have all of it", file=sys.stderr)
            print(f"litlab: the rest is kept in {self.folder}; to send it: {self.syncing}", file=sys.stderr)

    def leave(self) -> None:
        """Send what is left; the run goes on in other hands."""
        self._box.reserve(free=True)
        if self._sender.last():
            self._box.remove()
        else:
            self._leave()

    def _leave(self) -> None:
        """Leave what is left to `litlab sync`, even while this process lives on."""
        self._box.process = {**self._box.process, PROCESS_TAG: ""}
        with contextlib.suppress(OSError):  # a full disk; the process will end some day
            self._box.save()

    @property
    def syncing(self) -> str:
        """The command that sends what is left."""
        return f"litlab sync {self.run_id}"


@contextmanager
def recorded(run: Run) -> Iterator[Run]:
    """End the run as what happens inside says: FINISHED, KILLED if somebody stopped it, FAILED for any other error."""
    try:
        yield run
    except BaseException as error:
        stopped = isinstance(error, KeyboardInterrupt | SystemExit | BrokenPipeError | StoppedError)
        said = str(error) if isinstance(error, StoppedError) else f"{type(error).__name__}: {error}".rstrip(": ")
        run.finish("KILLED" if stopped else "FAILED", said)
        raise
    run.finish("FINISHED")


@contextmanager
def _deaf() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    with signal_handlers(signal.SIG_IGN, signal.SIGINT, signal.SIGTERM):
        yield
