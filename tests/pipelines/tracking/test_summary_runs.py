"""Summary runs: a note of any length is shown in the MLflow UI, and the command contains no password."""

from pipelines.tracking.run import Run, recorded
from pipelines.tracking.store import Store
from pipelines.tracking.summary_runs import MAX_NOTE, save_note, summary_tags
from pipelines.tracking.tags import COMMAND_TAG, NOTE_TAG


def test_a_note_that_is_too_long_for_mlflow_is_cut_at_a_line_and_complete_in_its_file(uri: str) -> None:
    notes = {"long.md": "a line\n" * 2000, "short.md": "a line\n"}
    for file, note in notes.items():
        with recorded(Run(Store(uri), "noted", file, {})) as run:
            save_note(run, note, file)
        stored = Store(uri).find(run.run_id)
        assert stored.file(file).read_text() == note
        shown = stored.tags[NOTE_TAG]
        assert len(shown) <= MAX_NOTE
        assert shown == note or shown.endswith("\na line\n\nThe complete text is in long.md.")
        assert (shown == note) == (file == "short.md")


def test_the_command_of_a_summary_run_contains_no_password() -> None:
    tags = summary_tags("sweep", "litlab sweep a --storage postgresql://me:secret@host/db", "litlab sweep a")
    assert tags[COMMAND_TAG] == "litlab sweep a --storage postgresql://me:***@host/db"
