"""`litlab register`: a run's model under a name of its own, in MLflow's model registry."""

import argparse
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from pipelines.runtime.errors import UserError
from pipelines.runtime.text import redact_credentials
from pipelines.tracking.store import Store, StoredRun
from pipelines.tracking.tags import COMMAND_TAG, EXPERIMENT_TAG, SEED_TAG, STAGE_KEY, STUDY_TAG, is_summary

HELP = """usage: litlab register RUN_ID NAME [--alias ALIAS] [--tracking_uri URI]

Puts the model of a run into MLflow's model registry: it gets a name and a
version that outlast the run's experiment. It takes inputs as they come from
the data set, and loads without litlab. Called again for the same run and name,
it makes no second version, and only moves the alias.

  RUN_ID              as printed by litlab fit and shown in the UI
  NAME                the registered model; made if there is none
  --alias ALIAS       a name for this version, such as champion; another
                        version that has it loses it
  --tracking_uri URI  where runs are kept (mlflow.db of this project)"""
NAMED = 6  # runs that an error message lists
# Of a run's tags, those that say where a model comes from.
_ORIGIN = re.compile(r"litlab\.(experiment|config_hash|command)|seed|study|(git|version|data\.sha256)\..+")


def main(verb: str, argv: Sequence[str]) -> int:
    """`litlab register RUN_ID NAME [--alias ALIAS]`."""
    if not argv or {"-h", "--help"} & set(argv):
        print(HELP)
        return 0 if argv else 2
    parser = argparse.ArgumentParser(prog=f"litlab {verb}", add_help=False, allow_abbrev=False)
    parser.add_argument("run_id", metavar="RUN_ID")
    parser.add_argument("name", metavar="NAME")
    parser.add_argument("--alias")
    parser.add_argument("--tracking_uri")
    options = parser.parse_args(list(argv))
    _check(options.name, options.alias)
    store = Store(options.tracking_uri)
    version, is_new = register(store, options.run_id, options.name)
    print(f"model    {version.name}")
    print(f"version  {version.version}" + ("" if is_new else ", which this run has already"))
    print(f"run      {version.run_id}")
    if options.alias:
        print(f"alias    {options.alias}{_point(store, version, options.alias)}")
    print(f"\n{loading(store, version, options.alias)}")
    return 0


def register(store: Store, run_id: str, name: str) -> tuple[Any, bool]:
    """Register the model of a run.

    Args:
        store: Where the run is, and the registry.
        run_id: A run that has a model.
        name: Of the registered model.

    Returns:
        MLflow's ModelVersion, and whether it is new.

    Raises:
        UserError: The run has no model, or MLflow refuses the name.
    """
    from mlflow.exceptions import MlflowException

    run = store.find(run_id)
    model_id = _model_of(run)
    try:
        made = [one for one in store.client.search_model_versions(f"run_id = '{run_id}'") if one.name == name]
        if made:
            return max(made, key=lambda version: int(version.version)), False
        _ensure(store, name)
        with _as_default(store):
            version = store.client.create_model_version(
                name,
                f"models:/{model_id}",  # MLflow's own form: it keeps the model's id, and finds the files itself
                run_id=run_id,
                model_id=model_id,
                tags={key: value for key, value in run.tags.items() if _ORIGIN.fullmatch(key)},
                description=_description(run),
            )
    except MlflowException as error:
        raise UserError(f"model {name!r} cannot be registered: {str(error).splitlines()[0]}") from error
    return version, True


def loading(store: Store, version: Any, alias: str | None = None) -> str:
    """Python that loads a version in any process."""
    which = f"models:/{version.name}@{alias}" if alias else f"models:/{version.name}/{version.version}"
    return "\n".join(
        [
            "import mlflow",
            "",
            f'mlflow.set_tracking_uri("{redact_credentials(store.uri)}")',
            f'model = mlflow.pytorch.load_model("{which}")',
        ]
    )


def _check(name: str, alias: str | None) -> None:
    """Refuse what MLflow refuses, or could not find again, before anything is made."""
    if not re.fullmatch(r"\w[\w. -]*", name):
        raise UserError(f"NAME {name!r}: only letters, digits, '.', '_', '-' and spaces, as in models:/NAME/1")
    if alias is None:
        return
    if not re.fullmatch(r"[\w-]{1,255}", alias):
        raise UserError(f"--alias {alias!r}: only letters, digits, '_' and '-'")
    if alias.lower() == "latest" or re.fullmatch(r"[vV]\d+", alias):
        raise UserError(f"--alias {alias}: MLflow keeps it for versions; take another, such as champion")


def _model_of(run: StoredRun) -> str:
    """The id of the model that a run has logged, the last one."""
    from mlflow.entities import LoggedModelStatus
    from mlflow.exceptions import MlflowException

    outputs = _outputs(run)
    if not outputs:
        raise UserError(_no_model(run))
    try:
        model = run.store.client.get_logged_model(outputs[-1].model_id)
    except MlflowException as error:
        raise UserError(f"the model of run {run.run_id} is gone: {str(error).splitlines()[0]}") from error
    if model.status != LoggedModelStatus.READY:
        raise UserError(f"the model of run {run.run_id} is {model.status}: the run ended before all of it was kept")
    return str(model.model_id)


def _outputs(run: StoredRun) -> list[Any]:
    """What a run says of its models, the last one last."""
    logged = run.store.client.get_run(run.run_id).outputs
    return sorted(logged.model_outputs, key=lambda output: output.step) if logged else []


def _no_model(run: StoredRun) -> str:
    """Why a run has no model, and which runs have."""
    if is_summary(run.tags):
        return _name_children(run)
    if run.status != "FINISHED":
        return f"run {run.run_id} is {run.status} and has no model: only a run that was tested has one"
    if run.tags.get(STAGE_KEY) == "search":
        study = run.tags.get(STUDY_TAG, "NAME")
        return (
            f"run {run.run_id} is a trial of a search, which is not tested and has no model; the runs that confirm the "
            f"study's best have one: litlab compare {study}-sweep --filter \"tags.{STAGE_KEY} = 'confirm'\""
        )
    return f"run {run.run_id} has no model: litlab fit keeps one, of data that are held in memory"


def _name_children(run: StoredRun) -> str:
    tested = [child for child in run.store.children(run.run_id) if _outputs(child)]
    named = [f"  {child.run_id}  {child.tags.get('mlflow.runName', '')}" for child in tested[:NAMED]]
    more = [f"  and {len(tested) - NAMED} more"] if len(tested) > NAMED else []
    begin = f"run {run.run_id} stands for others and has no model of its own"
    if not tested:
        return f"{begin}, and none of its runs has one; litlab compare {run.run_id} shows them"
    return "\n".join([f"{begin}; these of its runs have one (litlab compare {run.run_id}):", *named, *more])


def _ensure(store: Store, name: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        store.client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


@contextmanager
def _as_default(store: Store) -> Iterator[None]:
    """MLflow's registry in a database looks for the model wherever MLflow would by default."""
    before = os.environ.get("MLFLOW_TRACKING_URI")
    os.environ["MLFLOW_TRACKING_URI"] = store.uri
    try:
        yield
    finally:
        os.environ.pop("MLFLOW_TRACKING_URI")
        if before is not None:
            os.environ["MLFLOW_TRACKING_URI"] = before


def _point(store: Store, version: Any, alias: str) -> str:
    """Let an alias point to a version; what it did before, in words."""
    from mlflow.exceptions import MlflowException

    try:
        pointed = str(store.client.get_registered_model(version.name).aliases.get(alias, ""))
        store.client.set_registered_model_alias(version.name, alias, str(version.version))
    except MlflowException as error:
        raise UserError(f"--alias {alias}: {str(error).splitlines()[0]}") from error
    if pointed == str(version.version):
        return ", as before"
    return f", which was version {pointed} before" if pointed else ""


def _description(run: StoredRun) -> str:
    """A version's result and origin in Markdown; the MLflow UI lists versions with the first 30 characters."""
    name, seed = run.tags.get(EXPERIMENT_TAG, ""), run.tags.get(SEED_TAG, "")
    tested = [f"{key} {value:.4f}" for key, value in sorted(run.metrics.items()) if key.startswith("test/")]
    kept = [f"- {key} {value:.4f}" for key, value in sorted(run.metrics.items()) if key.startswith("selected/")]
    first = f"{', '.join(tested)}: {name}, seed {seed}, run {run.run_id}"
    return "\n".join([first, "", f"    {run.tags.get(COMMAND_TAG, '')}", "", "Of the selected epoch:", "", *kept])
