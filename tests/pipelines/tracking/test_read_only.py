"""A project that cannot be written can be read, and a command that must write says why it cannot."""

import json
import os
import shutil
import subprocess
import sys

import optuna
import pytest
from optuna.trial import create_trial

from pipelines.tracking.store import Store
from sweeps.search.storage import open_storage, storage_url

PROGRAM = """
import json, sys
from pipelines.cli import main
for verb in json.loads(sys.argv[1]):
    print("==", main(verb), flush=True)
    print("==", file=sys.stderr, flush=True)
"""
FIT = ["fit", "digits-mlp", "--trainer.max_epochs", "1", "--trainer.enable_progress_bar", "false"]
# Root is not bound by permissions unless it gives up these capabilities.
AS_A_USER = [] if os.geteuid() else ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]


@pytest.fixture
def without_permission(uri, tmp_path):
    """Return a function that runs verbs in a process that cannot write the project; code, output and errors of each."""
    if AS_A_USER and not shutil.which(AS_A_USER[0]):
        pytest.skip("root needs setpriv")
    folder = tmp_path / "runs"

    def run(*verbs):
        command = [*AS_A_USER, sys.executable, "-c", PROGRAM, json.dumps(verbs)]
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
        outputs, errors = done.stdout.split("== "), done.stderr.split("==\n")
        codes = [int(text.splitlines()[0]) for text in outputs[1:]]
        return [(code, error) for code, error in zip(codes, errors, strict=False)]

    def protect(mode):
        for path in (folder, *folder.rglob("*")):
            path.chmod(mode | (0o111 if path.is_dir() else 0))

    yield run, protect
    protect(0o644)


@pytest.mark.slow
def test_reading_verbs_need_no_permission_to_write_and_others_name_the_cause(litlab, uri, tmp_path, without_permission):
    run_as_user, protect = without_permission
    run_id = litlab(*FIT).run_id
    store = Store()
    storage = open_storage(storage_url(None, store))
    optuna.create_study(storage=storage, study_name="a study").add_trial(create_trial(value=1.0))
    store.client.delete_run(store.create_run("e", "deleted", {"litlab.key": "x"}).run_id)
    protect(0o444)
    reading = [
        ["compare", "digits-mlp"],
        ["test", run_id],
        ["report", "digits-mlp", "--out", str(tmp_path / "page.html")],
        ["predict", run_id, "--out", str(tmp_path / "out.csv")],
        ["sync"],
        ["runs"],
        ["show", "latest"],
        ["diff", "latest", "latest"],
        ["sweep", "status", "a study"],
        ["explain", "saliency", "latest", "--image", "0", "--out", str(tmp_path)],
        ["sweep", "status", "digits-mlp"],
    ]
    *read, status, registered, fitted = run_as_user(*reading, ["register", "latest", "a model"], FIT)
    assert [code for code, _ in read] == [0] * len(read), read
    assert "not logged as a run" in read[-1][1]
    assert list(tmp_path.glob(f"saliency-{run_id[:8]}*.png"))
    assert "no study" in status[1], status
    for code, error in (registered, fitted):
        assert code == 2
        assert "attempt to write a readonly database" in error or "Permission denied" in error, error
        assert "Traceback" not in error
        assert "autoflush" not in error
    assert (tmp_path / "page.html").is_file()


def test_the_ui_opens_on_the_runs_without_a_view_where_none_can_be_saved(tables, uri, without_permission):
    _, protect = without_permission
    store = Store()
    store.client.set_terminated(store.create_run("digits", "a run", {"litlab.key": "x"}).run_id)
    protect(0o444)
    program = "from pipelines.tracking.store import Store\nfrom pipelines.tracking.ui_view import save_view\n"
    command = [*AS_A_USER, sys.executable, "-c", f"{program}print(save_view(Store()).path)"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert shown == "/#/experiments/1/runs?workflowType=machine_learning\n"
