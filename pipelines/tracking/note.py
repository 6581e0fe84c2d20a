"""The note of a run, which the MLflow UI shows as its description."""

from pipelines.tracking.run import Run
from pipelines.tracking.tags import NOTE_TAG

MAX_NOTE = 5000  # characters; MLflow takes 8000 in a tag, its earlier versions 5000


def save_note(run: Run, note: str, file: str = "note.md") -> None:
    """Save a note in Markdown as a file of a run, and as its description: complete lines, as many as MLflow takes."""
    (run.folder / file).write_text(note)
    if len(note) > MAX_NOTE:
        note = f"{note[: MAX_NOTE - 100].rpartition(chr(10))[0]}\n\nThe complete text is in {file}."
    run.set_tags({NOTE_TAG: note})
