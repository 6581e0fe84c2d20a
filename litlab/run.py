"""A run: what was trained and what it reached, read from the tracking store when it is needed."""

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from litlab.images import Images
from litlab.objects import make_objects
from pipelines.tracking.uri import store_uri

if TYPE_CHECKING:
    import pandas as pd
    from lightning.pytorch import LightningModule

    from pipelines.config.objects import Data, Model, Objects
    from pipelines.tracking.store import StoredRun

SHORT_ID = 8


class Run:
    """A run of the tracking store. `litlab.fit` and `litlab.load` return it.

    Args:
        run_id: Its id.
        tracking_uri: Where it is; default: MLFLOW_TRACKING_URI, else the project's mlflow.db.
        objects: Module and data, if it was trained with objects.

    Attributes:
        id: Its id, which every command and function takes.
        tracking_uri: Where it is.
        objects: Module and data, if it was trained with objects and they are known.
    """

    def __init__(self, run_id: str, tracking_uri: str | None = None, *, objects: "Objects | None" = None) -> None:
        self.id, self.tracking_uri, self.objects = run_id, store_uri(tracking_uri), objects

    @cached_property
    def stored(self) -> "StoredRun":
        """The run as it was when it was first read; see `refresh`."""
        from pipelines.tracking.existing import existing_store

        return existing_store(self.tracking_uri).find(self.id)

    def refresh(self) -> "Run":
        """Read the run again when it is next needed, such as one that is being trained; return it."""
        self.__dict__.pop("stored", None)
        return self

    @property
    def name(self) -> str:
        return self.stored.name

    @property
    def experiment(self) -> str:
        """Name of the MLflow experiment."""
        return self.stored.experiment

    @property
    def status(self) -> str:
        """RUNNING, FINISHED, FAILED or KILLED."""
        return self.stored.status

    @property
    def reason(self) -> str:
        """Why it is FAILED or KILLED; "" for others."""
        from pipelines.tracking.tags import REASON_TAG

        return self.stored.tags.get(REASON_TAG, "")

    @property
    def seed(self) -> str:
        return self.stored.seed

    @property
    def metrics(self) -> dict[str, float]:
        """All metrics. `val/acc` is that of the selected epoch, like `selected/val/acc`, if one was selected.

        Of a run that summarises seeds, `test/acc` is the mean, beside `test/acc_sd` and the ends of its 95 % interval.
        """
        from pipelines.tracking.measured import at_selected_epoch

        return at_selected_epoch(self.stored.metrics)

    @property
    def params(self) -> dict[str, str]:
        """What MLflow has of the configuration: keys with texts."""
        return dict(self.stored.params)

    @property
    def tags(self) -> dict[str, str]:
        """All tags: the user's, and what litlab records of code, versions and machine."""
        return dict(self.stored.tags)

    @property
    def config(self) -> dict[str, Any]:
        """The resolved configuration: every key of data, model and trainer.

        Raises:
            UserError: It has none, as runs that summarise others.
        """
        from pipelines.config.experiments import read_yaml

        return read_yaml(self.file("config.yaml"))

    @property
    def command(self) -> str:
        """The command that makes this run again."""
        from pipelines.tracking.tags import COMMAND_TAG

        return self.stored.tags.get(COMMAND_TAG, "")

    def history(self, *, steps: bool = False) -> "pd.DataFrame":
        """Return the metrics of each epoch, a row each; or what was logged per step, with the step as index."""
        from litlab.tables import history

        return history(self.stored, steps=steps)

    @property
    def figures(self) -> Images:
        """Figures by name, such as `run.figures["confusion_matrix"]`; a notebook shows them."""
        names = [Path(name) for name in self.stored.names("figures") if name.endswith(".png")]
        return Images({path.stem: self.file(str(path)) for path in sorted(names)})

    @property
    def files(self) -> list[str]:
        """Names of all files of the run, such as "config.yaml" and "checkpoints/best.ckpt"; `file` returns the path."""
        from pipelines.tracking.file_names import file_names

        return file_names(self.stored)

    def file(self, name: str) -> Path:
        """Return the path of a file of the run, on this machine; downloaded from a server, if it is on one.

        Raises:
            UserError: There is no such file.
        """
        return self.stored.file(name)

    @property
    def children(self) -> "list[Run]":
        """The runs that this one summarises, such as one for each seed; none for the run of one training."""
        return [_of(stored) for stored in self.stored.store.children(self.id)]

    def model(self, *, trust: bool = False) -> "LightningModule":
        """Return a module with the selected weights, on the CPU and in evaluation mode.

        Args:
            trust: Whether to restore objects in the checkpoint, which may run code.

        Raises:
            UserError: Its checkpoint is missing, its class has changed, or it was trained with an object, and `load`
                was not given one.
        """
        from pipelines.evaluation.load_run import load_run

        objects = None if self.objects is None else self.objects.copy_of_model()
        return load_run(self.stored, trust=trust, objects=objects).model

    def __repr__(self) -> str:
        return f"<litlab.Run {self.id[:SHORT_ID]} {self.experiment}: {self.name}, {self.status.lower()}>"

    def _repr_html_(self) -> str:
        from litlab.tables import run_html

        return run_html(self.stored)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Run) and (self.id, self.tracking_uri) == (other.id, other.tracking_uri)

    def __hash__(self) -> int:
        return hash(self.id)


def load(run: str | Run, *, model: "Model | None" = None, data: "Data" = None, tracking_uri: str | None = None) -> Run:
    """Return a run by what names it.

    Args:
        run: An id, its first four or more characters, the name of a run, "latest", "latest:NAME" or "best:NAME" of an
            experiment or a study.
        model: Of a run that was trained with an object: one of the same class, or a function that makes one.
        data: Of such a run, to test and predict it.
        tracking_uri: Where it is; default: MLFLOW_TRACKING_URI, else the project's mlflow.db.

    Raises:
        UserError: There is no such run, or several have this name.
    """
    from pipelines.tracking.existing import existing_store
    from pipelines.tracking.run_names import find_run

    found = run if isinstance(run, Run) else _of(find_run(existing_store(tracking_uri), run))
    objects = make_objects(model, data)
    return found if objects is None else Run(found.id, found.tracking_uri, objects=objects)


def run_id_of(run: str | Run, tracking_uri: str | None) -> str:
    """Return the id of a run."""
    return load(run, tracking_uri=tracking_uri).id


def uri_of(run: str | Run, tracking_uri: str | None) -> str | None:
    """Return where a run is: a given place, or that of a run of Python."""
    return run.tracking_uri if tracking_uri is None and isinstance(run, Run) else tracking_uri


def objects_of(run: str | Run) -> "Objects | None":
    """Return the objects that a run was trained with, if they are known."""
    return run.objects if isinstance(run, Run) else None


def _of(stored: "StoredRun") -> Run:
    run = Run(stored.run_id, stored.store.uri)
    run.stored = stored
    return run
