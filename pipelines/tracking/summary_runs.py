"""What the summary runs of sweeps, seeds and comparisons have in common: their tags, and a note."""

from collections.abc import Sequence

from pipelines.runtime.errors import UserError
from pipelines.runtime.log import logger
from pipelines.runtime.text import redact_credentials
from pipelines.tracking.run import Run
from pipelines.tracking.tags import COMMAND_TAG, NOTE_TAG, PARENT_TAG, SOURCE_NAME_TAG, SOURCE_TYPE_TAG

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


def save_note(run: Run, note: str, file: str = "note.md") -> None:
    """Save a note in Markdown as a file of a run, and as its description, unless a person has edited the description.

    The description has complete lines, as many as MLflow takes.
    """
    path = run.folder / file
    earlier = path.read_text() if path.is_file() else ""
    path.write_text(note)
    if _is_edited(run, known=(_shortened(earlier, file), note)):
        logger.info("the description of run %s was edited and is kept; %s has the results", run.run_id, file)
        return
    run.set_tags({NOTE_TAG: _shortened(note, file)})


def _is_edited(run: Run, known: Sequence[str]) -> bool:
    """Return whether the description of a run is neither one of these texts nor a part of one; False if unknown."""
    from mlflow.exceptions import MlflowException

    try:
        described = str(run.store.client.get_run(run.run_id).data.tags.get(NOTE_TAG, ""))
    except (MlflowException, UserError):  # the server is unavailable
        return False
    return not any(described.strip() in text for text in known)


def _shortened(note: str, file: str) -> str:
    if len(note) <= MAX_NOTE:
        return note
    lines = note[: MAX_NOTE - 100].rpartition("\n")[0]
    return f"{lines}\n\nThe complete text is in {file}."
