"""What a run is: the names, params, metrics, tags and artifacts that it gets. The only file that writes runs.

Layout beside the database: `mlartifacts/EXPERIMENT/RUN_ID/artifacts/` holds config.yaml, data.json, metrics.jsonl,
checkpoints/ and figures/; MLflow keeps the logged model in `mlartifacts/EXPERIMENT/models/`.
"""

import json
import re
import shutil
import signal
import sys
import tempfile
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines import interrupt, process, project
from pipelines.errors import StoppedError, UserError
from pipelines.journal import Entry, Journal
from pipelines.store import FinishedRun, Store, local_path, taken, without_password

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from mlflow.entities import Metric
    from torch import Tensor, nn

SEND_EVERY_S = 5.0
MAX_BATCH = 1000  # metrics that MLflow takes in one call
MAX_PARAMS = 100
KEY_TAG = "litlab.key"
FOLDER_TAG = "litlab.folder"  # where files are until they are sent, on the machine that the run is on
_REFUSED = re.compile(r"[^\w\-. :/]")  # what MLflow refuses in the name of a metric


class Run:
    """One MLflow run, from its creation to its end; whoever makes it ends it.

    Metrics are written to metrics.jsonl in `folder`, kept in a buffer and sent in batches, so that training neither
    waits for the store at each step nor stops when the store is away.

    Args:
        store: Where the run goes.
        experiment: Name of the MLflow experiment.
        name: Name of the run.
        tags: Flat.

    Attributes:
        folder: Where files of the run are written; with a local store, the run's own artifacts.
        history: Epoch and metrics of each call of `log_metrics`.
        complete: Whether the store has taken all of it, once the run has ended.

    Raises:
        UserError: The store does not take the run.
    """

    def __init__(self, store: Store, experiment: str, name: str, tags: Mapping[str, str]) -> None:
        from mlflow.exceptions import MlflowException

        self.store, self._client = store, store.client
        try:
            self.experiment_id = store.experiment_id(experiment)
            info = self._create(name, {**project.git_tags(), **project.machine_tags(), **process.tags(), **tags}).info
        except MlflowException as error:
            raise UserError(f"{without_password(store.uri)} takes no run: {str(error).splitlines()[0]}") from error
        self._begin(info)

    @classmethod
    def reopen(cls, found: FinishedRun, *, files: bool = False) -> "Run":
        """Go on with a run that has ended: it is RUNNING again until `finish`. Its earlier `history` is not read.

        Args:
            found: The run.
            files: Whether `folder` must have the files that the run has until now, where the store is a server.
        """
        run = cls.__new__(cls)
        run.store, run._client, run.experiment_id = found.store, found.store.client, found.experiment_id
        folder = run._files_of(found) if files and local_path(found.artifact_uri) is None else None
        run._client.update_run(found.run_id, status="RUNNING")
        if "litlab.reason" in found.tags:  # of its former end
            run._client.delete_tag(found.run_id, "litlab.reason")
        run._begin(run._client.get_run(found.run_id).info, folder)
        run.set_tags(process.tags())
        return run

    def _files_of(self, found: FinishedRun) -> Path:
        """The folder that the run was written in if it is still there, else one with what the store has."""
        if (kept := unsent(found)) is not None:
            return kept
        folder = Path(tempfile.mkdtemp(prefix="litlab-"))
        for file in self._client.list_artifacts(found.run_id):
            self._client.download_artifacts(found.run_id, file.path, str(folder))
        return folder

    def _begin(self, info: Any, folder: Path | None = None) -> None:
        self.run_id = str(info.run_id)
        self.complete = False
        local = local_path(info.artifact_uri)
        self._is_local = local is not None
        if local is not None:
            self.folder = local
            self.folder.mkdir(parents=True, exist_ok=True)
        else:
            self.folder = folder or Path(tempfile.mkdtemp(prefix="litlab-"))
            self.store.tag(self.run_id, FOLDER_TAG, str(self.folder))
        self.history: list[tuple[int, dict[str, float]]] = []
        self.journal = Journal(self.folder / "metrics.jsonl")
        self._stored: Counter[tuple[str, int]] = Counter()
        self._buffer: list[Metric] = []
        self._last_sent = time.monotonic()

    def rewind(self, mark: int) -> None:
        """Forget the metrics that were logged after a mark of the journal; the same are to be logged once more.

        The store cannot forget: what it has is not sent again.
        """
        for key in self._client.get_run(self.run_id).data.metrics:
            self._stored.update((key, point.step) for point in self._client.get_metric_history(self.run_id, key))
        for entry in self.journal.rewind(mark):
            self._keep(entry)
        self.send()

    def _create(self, name: str, tags: dict[str, str]) -> Any:
        """Create the run; if the answer got lost on the way, find the run that was created."""
        from mlflow.exceptions import MlflowException

        key = uuid.uuid4().hex
        try:
            return self._client.create_run(self.experiment_id, run_name=name, tags={**tags, KEY_TAG: key})
        except MlflowException:
            found = self._client.search_runs([self.experiment_id], f"tags.`{KEY_TAG}` = '{key}'", max_results=1)
            if not found:
                raise
            return found[0]

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Log flat params; values that are no text are logged as JSON."""
        from mlflow.entities import Param

        every = [Param(key, value if isinstance(value, str) else json.dumps(value)) for key, value in params.items()]
        for start in range(0, len(every), MAX_PARAMS):
            self._client.log_batch(self.run_id, params=every[start : start + MAX_PARAMS])

    def log_metrics(self, metrics: Mapping[str, float], epoch: int) -> None:
        """Keep metrics of an epoch, and send what has gathered if it is time; never raises because of the store."""
        self._keep(self.journal.write(epoch, {_REFUSED.sub("_", key): value for key, value in metrics.items()}))
        if len(self._buffer) >= MAX_BATCH or time.monotonic() - self._last_sent > SEND_EVERY_S:
            self.send()

    def _keep(self, entry: Entry) -> None:
        """Put metrics into the history, and into the buffer what the store does not have."""
        from mlflow.entities import Metric

        self.history.append((entry.epoch, entry.values))
        for key, value in entry.values.items():
            if self._stored[key, entry.epoch]:
                self._stored[key, entry.epoch] -= 1
            else:
                self._buffer.append(Metric(key, value, entry.timestamp, entry.epoch))

    def send(self) -> None:
        """Send the buffered metrics; what the store does not take stays in the buffer."""
        from mlflow.exceptions import MlflowException

        self._last_sent = time.monotonic()
        try:
            while self._buffer:
                self._client.log_batch(self.run_id, metrics=self._buffer[:MAX_BATCH])
                del self._buffer[:MAX_BATCH]
        except (MlflowException, OSError):
            pass  # the next call tries again, `finish` says so if it was in vain

    def log_dataset(self, card: Mapping[str, Any]) -> None:
        """Record what was trained on, shown under Datasets in the UI, and the digest of each set as a tag."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        digests = card["sha256"]
        dataset = Dataset(
            name=card["source"],
            digest=digests["train"][:16],
            source_type="litlab",
            source=json.dumps({"sha256": digests}),
            profile=json.dumps({key: value for key, value in card.items() if key not in ("source", "sha256")}),
        )
        self._client.log_inputs(
            self.run_id, datasets=[DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])]
        )
        self.set_tags({f"data.sha256.{split}": digest for split, digest in digests.items()})
        (self.folder / "data.json").write_text(json.dumps(card, indent=2))

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
        from mlflow.entities import RunTag

        self._client.log_batch(self.run_id, tags=[RunTag(key, value) for key, value in tags.items()])

    def log_model(self, model: "nn.Module", example: "Tensor", metadata: Mapping[str, Any], epoch: int) -> None:
        """Log a module as an exported program, unless the run has one; loads without pickle and litlab.

        Args:
            model: On the CPU, in evaluation mode.
            example: Two of its inputs, shape (2, ...); more or fewer may come later.
            metadata: What to know of the model, such as the names of its classes.
            epoch: The epoch that the weights are from.
        """
        import mlflow.pytorch
        import torch
        from mlflow.entities import LoggedModelOutput, LoggedModelStatus
        from mlflow.models import Model, ModelSignature
        from mlflow.types import Schema, TensorSpec

        outputs = self._client.get_run(self.run_id).outputs
        if outputs and outputs.model_outputs:  # the run was stopped after this, and goes on
            return

        def spec(tensor: "Tensor") -> Schema:
            return Schema([TensorSpec(tensor.numpy().dtype, (-1, *tensor.shape[1:]))])

        with torch.no_grad():
            signature = ModelSignature(spec(example), spec(model(example)))
        logged = self._client.create_logged_model(self.experiment_id, name="model", source_run_id=self.run_id)
        described = Model(
            artifact_path=logged.artifact_location,
            model_id=logged.model_id,
            run_id=self.run_id,
            metadata=dict(metadata),
        )
        with tempfile.TemporaryDirectory() as scratch:
            path = f"{scratch}/model"
            requirements = [f"{name}=={version(name)}" for name in ("torch", "mlflow", "numpy")]
            mlflow.pytorch.save_model(
                model,
                path,
                mlflow_model=described,
                signature=signature,
                input_example=example.numpy(),
                pip_requirements=requirements,
                serialization_format="pt2",
            )
            self._client.log_model_artifacts(logged.model_id, path)
        self._client.finalize_logged_model(logged.model_id, LoggedModelStatus.READY)
        self._client.log_outputs(self.run_id, [LoggedModelOutput(logged.model_id, epoch)])

    def finish(self, status: str, reason: str = "") -> None:
        """Send what is left and set the status: FINISHED, FAILED or KILLED; deaf to Ctrl-C and SIGTERM meanwhile."""
        with _deaf():
            self.send()
            steps = [lambda: self.set_tags({"litlab.reason": reason[:5000]})] if reason else []
            steps += [] if self._is_local else [lambda: self._client.log_artifacts(self.run_id, str(self.folder))]
            steps += [lambda: self._client.set_terminated(self.run_id, status)]
            self.complete = all([taken(step) for step in steps]) and not self._buffer
            if not self.complete:
                where = without_password(self.store.uri)
                print(f"litlab: {where} did not take all of the run, which is {status}", file=sys.stderr)
                print(f"litlab: what it measured and made is kept in {self.folder}", file=sys.stderr)
            elif not self._is_local:
                shutil.rmtree(self.folder, ignore_errors=True)

    def leave(self) -> None:
        """Send what is left; the run goes on in other hands."""
        self.send()
        if not self._is_local:
            shutil.rmtree(self.folder, ignore_errors=True)


def unsent(found: FinishedRun) -> Path | None:
    """The folder on this machine in which files of a run wait for its server, where it was killed before they went."""
    folder = Path(found.tags.get(FOLDER_TAG, ""))
    ours = folder.parent == Path(tempfile.gettempdir()) and folder.name.startswith("litlab-")  # anybody may set tags
    return folder if ours and process.is_here(found.tags) and folder.is_dir() else None


@contextmanager
def recorded(run: Run) -> Iterator[Run]:
    """End the run as what happens inside says: FINISHED, KILLED if somebody stopped it, FAILED for any other error."""
    try:
        yield run
    except BaseException as error:
        stopped = isinstance(error, KeyboardInterrupt | SystemExit | StoppedError)
        said = str(error) if isinstance(error, StoppedError) else f"{type(error).__name__}: {error}".rstrip(": ")
        run.finish("KILLED" if stopped else "FAILED", said)
        raise
    run.finish("FINISHED")


@contextmanager
def _deaf() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    with interrupt.handling(signal.SIG_IGN, signal.SIGINT, signal.SIGTERM):
        yield
