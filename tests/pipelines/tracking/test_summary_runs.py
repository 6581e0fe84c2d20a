"""Summary runs: a note of any length is shown in the MLflow UI, and the command contains no password."""

import pytest
from mlflow import MlflowClient

from pipelines.tracking.endings import recorded
from pipelines.tracking.run import Run
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


def test_a_description_that_a_person_has_edited_is_kept_and_litlabs_own_is_replaced(
    uri: str, caplog: pytest.LogCaptureFixture
) -> None:
    store = Store(uri)
    with recorded(Run(store, "e", "sweep", {NOTE_TAG: "What it is for."})) as run:
        save_note(run, "1 of 2 trials.\n\nWhat it is for.\n")
    client = MlflowClient(uri)

    def continue_with(note: str) -> str:
        with recorded(Run.reopen(store.find(run.run_id))) as again:
            save_note(again, note)
        assert (run.folder / "note.md").read_text() == note
        return client.get_run(run.run_id).data.tags[NOTE_TAG]  # type: ignore[no-any-return]

    assert continue_with("2 of 3 trials.\n") == "2 of 3 trials.\n"
    assert continue_with("2 of 4 trials.\n" * MAX_NOTE).startswith("2 of 4 trials.")
    assert continue_with("3 of 4 trials.\n") == "3 of 4 trials.\n"
    assert "edited" not in caplog.text
    client.set_tag(run.run_id, NOTE_TAG, "3 of 4 trials. The first was a mistake!")
    assert continue_with("4 of 4 trials.\n") == "3 of 4 trials. The first was a mistake!"
    assert f"the description of run {run.run_id} was edited and is kept; note.md has the results" in caplog.text
