"""The code of a project that travels to nodes."""

import io
import zipfile
from pathlib import Path

import pytest

from pipelines.runtime.errors import UserError
from sweeps.cluster import code


@pytest.fixture
def project(tmp_path, monkeypatch):
    files = ["pyproject.toml", "modules/net.py", "experiments/net.yaml", "sub/x.py"]
    others = [
        "data/big.py",
        ".venv/a.py",
        "env/pyvenv.cfg",
        "env/b.py",
        "mlartifacts/c.yaml",
        "mlflow.db",
        "secret.yaml",
    ]
    for name in [*files, *others]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    monkeypatch.chdir(tmp_path / "sub")
    return tmp_path, files


def test_source_files_travel_and_data_environments_and_secrets_do_not(project):
    folder, files = project
    top, current, packed = code.pack_code()
    assert (top, current) == (str(folder), "sub")
    assert sorted(zipfile.ZipFile(io.BytesIO(packed)).namelist()) == sorted(files)


def test_too_much_code_is_refused(project, monkeypatch):
    monkeypatch.setattr(code, "MAX_CODE", 3)
    with pytest.raises(UserError, match="the source files in"):
        code.pack_code()


def test_the_home_folder_is_no_project(tmp_path, monkeypatch):
    (tmp_path / "notes.py").write_text("x")
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    monkeypatch.chdir(tmp_path)
    assert zipfile.ZipFile(io.BytesIO(code.pack_code()[2])).namelist() == []
