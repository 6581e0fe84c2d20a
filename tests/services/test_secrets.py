"""A password on the command line appears in nothing that litlab writes and in no process that it starts."""

import contextlib
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from mlflow import MlflowClient

pytestmark = pytest.mark.services

SPACE = {
    "experiment": "digits-mlp",
    "metric": "val/acc",
    "sampler": "random",
    "trials": 1,
    "confirm": 0,
    "set": {"trainer.max_epochs": 1, "trainer.enable_progress_bar": False},
    "space": {"model.dropout": {"low": 0.0, "high": 0.5}},
}


def command_lines(pid: int) -> list[str]:
    """Return the command lines of all descendants of a process."""
    found = []
    with contextlib.suppress(OSError):
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            found += [Path(f"/proc/{child}/cmdline").read_text().replace("\0", " "), *command_lines(int(child))]
    return found


def test_a_password_is_neither_stored_nor_passed_on(
    machine: Callable[..., Any], server: Any, tracking: str, tmp_path: Path, until: Callable[..., Any]
) -> None:
    one = machine("one")
    (one.folder / "work" / "secret.yaml").write_text(yaml.safe_dump(SPACE))
    server.create("secret")
    with_password = server.address("secret").replace("@", f":{server.password}@")
    runs = tracking.replace("://", f"://somebody:{server.password}@")
    sweep = one.litlab("sweep", "-c", "secret.yaml", "--storage", with_password, "--tracking_uri", runs)
    seen: set[str] = set()
    folders: set[Path] = set()

    def ended() -> bool:
        seen.update(command_lines(sweep.pid))
        with contextlib.suppress(OSError):
            folders.update((one.folder / "tmp").glob("litlab-*"))
            modes.update(stat.S_IMODE(folder.stat().st_mode) for folder in folders)
        return sweep.poll() is not None

    modes: set[int] = set()
    until(ended)
    assert sweep.returncode == 0, one.err
    children = [command for command in seen if " sweep -c secret.yaml" not in command]  # without the user's command
    assert children
    assert not [command for command in children if server.password in command]
    assert modes == {0o700}
    for text in (one.out, one.err, server.dump("secret"), server.dump("mlflow")):
        assert server.password not in text
    assert "***" in one.out

    client = MlflowClient(tracking)
    experiment = client.get_experiment_by_name("secret-sweep")
    for run in client.search_runs([experiment.experiment_id]):
        folder = Path(client.download_artifacts(run.info.run_id, "", str(tmp_path)))
        files = [file for file in folder.rglob("*") if file.is_file()]
        assert files
        assert not [file for file in files if server.password.encode() in file.read_bytes()]
