"""What the summary runs of sweeps, seeds and comparisons have in common: their tags, and a note."""

from pipelines.runtime.errors import UserError
from pipelines.runtime.log import logger
from pipelines.runtime.text import redact_credentials
from pipelines.tracking import source_code
from pipelines.tracking.labels import Labels
from pipelines.tracking.run import Run
from pipelines.tracking.tags import (
    COMMAND_TAG,
    NOTE_TAG,
    PARENT_TAG,
    SOURCE_NAME_TAG,
    SOURCE_TYPE_TAG,
    USER_NOTE_TAG,
)

MAX_NOTE = 5000  # characters; MLflow takes 8000 in a tag, its earlier versions 5000


def summary_tags(kind: str, command: str, source: str) -> dict[str, str]:
    """Return the tags of a summary run.

    Args:
        kind: Of what it is: "sweep", "seeds" or "comparison".
        command: The command that makes it; passwords are removed.
        source: What the MLflow UI shows as its source.
    """
    return {
        PARENT_TAG: kind,
        COMMAND_TAG: redact_credentials(command),
        SOURCE_NAME_TAG: source,
        SOURCE_TYPE_TAG: "LOCAL",
    }


def keep_code(parent: Run) -> dict[str, str]:
    """Save the source code as it is now in a summary run; return the tags by which its children refer to it."""
    code = source_code.current()
    code.save(parent.folder)
    return code.tags


def save_note(run: Run, note: str, file: str = "note.md") -> None:
    """Save a note in Markdown as a file of a run, and as its description, unless a person has edited the description.

    The description has complete lines, as many as MLflow takes.
    """
    tags = _recorded_tags(run)
    note = "\n\n".join(filter(None, [tags.get(USER_NOTE_TAG), note]))
    path = run.folder / file
    earlier = path.read_text() if path.is_file() else ""
    path.write_text(note)
    described = tags.get(NOTE_TAG, "").strip()
    if not any(described in text for text in (_shortened(earlier, file), note)):
        logger.info("the description of run %s was edited and is kept; %s has the results", run.run_id, file)
        return
    run.set_tags({NOTE_TAG: _shortened(note, file)})


def label(run: Run, labels: Labels) -> None:
    """Give a summary run the labels of a user; its description begins with the note."""
    if tags := labels.changes_of_reopened():
        run.set_tags({**tags, **({USER_NOTE_TAG: labels.note} if labels.note else {})})


def _recorded_tags(run: Run) -> dict[str, str]:
    """Return the tags of a run in its store; empty if it is unavailable."""
    from mlflow.exceptions import MlflowException

    try:
        return dict(run.store.client.get_run(run.run_id).data.tags)
    except (MlflowException, UserError):  # the server is unavailable
        return {}


def _shortened(note: str, file: str) -> str:
    if len(note) <= MAX_NOTE:
        return note
    lines = note[: MAX_NOTE - 100].rpartition("\n")[0]
    return f"{lines}\n\nThe complete text is in {file}."
