"""What the summary runs of sweeps, seeds and comparisons have in common: their tags, and a note."""

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
    """Save a note in Markdown as a file of a run, and as its description: complete lines, as many as MLflow takes."""
    (run.folder / file).write_text(note)
    if len(note) > MAX_NOTE:
        lines = note[: MAX_NOTE - 100].rpartition("\n")[0]
        note = f"{lines}\n\nThe complete text is in {file}."
    run.set_tags({NOTE_TAG: note})
