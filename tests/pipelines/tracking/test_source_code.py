"""The source code of a run: what ran can be rebuilt from the commit and the patch, and nothing private is kept."""

import shutil
import time
from pathlib import Path

import pytest
from mlflow import MlflowClient

from pipelines.commands.diff import main as diff_command
from pipelines.commands.show import main as show_command
from pipelines.runtime.environment import checkout
from pipelines.tracking import source_code
from pipelines.tracking.packages import FILE, installed_packages, parse_packages
from pipelines.tracking.run import Run
from pipelines.tracking.source_code import collect, files_of, patch_name
from pipelines.tracking.store import Store
from pipelines.tracking.tags import (
    COMMIT_TAG,
    DIFF_TAG,
    DIRTY_TAG,
    FOLDER_COMMIT_TAG,
    FOLDER_DIFF_TAG,
    LITLAB_COMMIT_TAG,
    LITLAB_DIFF_TAG,
    PARENT_RUN_TAG,
)
from tests.git_repository import git, make_repository

pytestmark = pytest.mark.usefixtures("tables")
MODEL = "class Net:\n    layers = 2\n"


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A repository of a user, as current folder: a model, a picture and an ignored folder of data."""
    folder = tmp_path / "work"
    (folder / "sub").mkdir(parents=True)
    (folder / "net.py").write_text(MODEL)
    (folder / "sub" / "old.py").write_text("old = 1\n")
    (folder / "picture.bin").write_bytes(bytes(range(256)))
    (folder / ".gitignore").write_text("data/\n")
    make_repository(folder)
    monkeypatch.chdir(folder)
    return folder


def patch_of(code: source_code.SourceCode) -> bytes:
    return code.patches[patch_name(code.tags[DIFF_TAG])]


def sources(folder: Path) -> dict[str, bytes]:
    kept = (path for path in sorted(folder.rglob("*")) if path.is_file() and ".git" not in path.parts)
    return {str(path.relative_to(folder)): path.read_bytes() for path in kept}


def test_what_ran_is_rebuilt_by_git_apply_in_a_clean_clone(repository, tmp_path):
    git(repository, "config", "diff.noprefix", "true")
    git(repository, "config", "diff.mnemonicPrefix", "true")
    (repository / "net.py").write_text(MODEL.replace("2", "3").rstrip("\n"))  # and no line end
    (repository / "sub" / "old.py").unlink()
    (repository / "sub" / "new layer.py").write_bytes("größe = 1\r\nx = 2".encode())
    (repository / "empty.py").touch()
    script = repository / "run.sh"
    script.write_text("litlab fit\n")
    script.chmod(0o755)
    (repository / "staged.py").write_text("a = 1\n")
    git(repository, "add", "staged.py")
    code = collect()
    clone = tmp_path / "clone"
    git(tmp_path, "clone", str(repository), str(clone))
    (tmp_path / "patch").write_bytes(patch_of(code))
    git(clone, "checkout", code.tags[COMMIT_TAG])
    git(clone, "apply", "--index", str(tmp_path / "patch"))
    assert sources(clone) == sources(repository)
    assert (clone / "run.sh").stat().st_mode & 0o100


def test_a_clean_repository_has_no_patch_and_outside_of_one_there_is_nothing(repository, tmp_path, monkeypatch):
    code = collect()
    assert (code.tags[DIRTY_TAG], code.tags[DIFF_TAG]) == ("false", "none")
    assert patch_name(code.tags[DIFF_TAG]) not in code.patches
    monkeypatch.chdir(tmp_path)
    assert {COMMIT_TAG, DIRTY_TAG, DIFF_TAG}.isdisjoint(collect().tags)


def test_litlabs_checkout_is_told_beside_a_projects_repository(repository):
    tags = collect().tags
    assert tags[COMMIT_TAG] == git(repository, "rev-parse", "HEAD").strip()
    if (own := checkout()) is not None and (own / ".git").exists():
        assert tags[LITLAB_COMMIT_TAG] == git(own, "rev-parse", "HEAD").strip()


def test_equal_code_is_recognised_in_runs_of_earlier_versions(repository):
    tags = {COMMIT_TAG: "a", DIFF_TAG: "none", LITLAB_COMMIT_TAG: "b", LITLAB_DIFF_TAG: "none"}
    earlier = {FOLDER_COMMIT_TAG: "a", FOLDER_DIFF_TAG: "none", COMMIT_TAG: "b", DIFF_TAG: "none"}
    assert source_code.same_code(tags, earlier)
    assert not source_code.same_code(tags, {**earlier, COMMIT_TAG: "c"})


def test_binary_large_private_and_data_files_are_left_out(repository, tmp_path, monkeypatch):
    (repository / "picture.bin").write_bytes(bytes(range(255, -1, -1)))
    (repository / "data").mkdir()
    left_out = {
        ".env": "TOKEN=1",
        "deploy.key": "key",
        "client_secrets.yaml": "password: hidden",
        "pem.py": "-----BEGIN RSA PRIVATE KEY-----\nMIIE\n",
        "large.py": "#" * (source_code.MAX_FILE + 1),
        "table.csv": "1,2",
        "data/ignored.py": "x",
    }
    for name, text in left_out.items():
        (repository / name).write_text(text)
    (repository / "kept.py").write_text("x = 1\n")
    patch = patch_of(collect())
    assert list(files_of(patch)) == ["kept.py"]
    lines = [line for line in patch.decode().splitlines() if line.startswith("# left out")]
    reasons = {line.split(", ")[0]: line.rpartition(": ")[2] for line in lines}
    assert reasons == {
        "# left out: picture.bin": "binary",
        "# left out: client_secrets.yaml": "private",
        "# left out: pem.py": "private",
        "# left out: large.py": "more than 200,000 bytes",
    }
    clone = tmp_path / "clone"
    git(tmp_path, "clone", str(repository), str(clone))
    (tmp_path / "patch").write_bytes(patch)
    git(clone, "apply", str(tmp_path / "patch"))
    (repository / "large.py").write_text("%" * (source_code.MAX_FILE + 1))
    assert patch_of(collect()) != patch, "another content of what is left out is another state"


def test_a_patch_has_a_limit_in_all(repository):
    for number in range(8):
        (repository / f"part{number}.py").write_text("#" * 190_000)
    patch = patch_of(collect())
    assert len(files_of(patch)) == 5
    assert len(patch) < source_code.MAX_PATCH + 1000
    assert patch.count(b"more than 1,000,000 bytes in all") == 3


def test_a_run_keeps_patch_and_packages_and_a_child_refers_to_them(repository, uri, capsys):
    (repository / "net.py").write_text(MODEL.replace("2", "3"))
    parent = Run(Store(), "changed", "first", {})
    child = Run(Store(), "changed", "child", {**collect().tags, PARENT_RUN_TAG: parent.run_id})
    (repository / "net.py").write_text(MODEL.replace("2", "4"))
    (repository / "more.py").write_text("x = 1\n")
    other = Run(Store(), "changed", "second", {})
    for run in (parent, child, other):
        run.finish("FINISHED")
    assert (parent.folder / FILE).read_text() == installed_packages()
    assert not (child.folder / "code").exists()
    assert len(list((other.folder / "code").iterdir())) >= 2
    capsys.readouterr()
    for one in (parent, child):
        assert diff_command("diff", [one.run_id, other.run_id]) == 0
        table = capsys.readouterr().out
        assert "net.py" in table
        assert "+1 -0" in table
        assert "versions" not in table
    assert diff_command("diff", [child.run_id, other.run_id, "--code"]) == 0
    text = capsys.readouterr().out
    assert "-+    layers = 3" in text
    assert "++    layers = 4" in text
    assert f"only in {other.run_id[:8]} second:" in text
    assert diff_command("diff", [child.run_id, parent.run_id, "--code"]) == 0
    assert "no uncommitted changes, or the same ones" in capsys.readouterr().out
    assert show_command("show", [other.run_id]) == 0
    shown = capsys.readouterr().out
    assert "code/requirements.txt" in shown
    assert ", with uncommitted changes" in shown


@pytest.mark.parametrize(
    ("tags", "metrics", "is_written"),
    [({}, {}, True), ({}, {"loss": 1.0}, False), ({PARENT_RUN_TAG: "0" * 32}, {}, False)],
    ids=["killed at once", "trained by an earlier version", "child"],
)
def test_packages_of_a_run_that_was_killed_before_it_had_them_are_written_when_it_resumes(
    uri, tags, metrics, is_written
):
    run = Run(Store(), "killed", "killed", tags)
    if metrics:
        run.log_metrics(metrics, 0)
    run.finish("FAILED")
    shutil.rmtree(run.folder / "code", ignore_errors=True)
    again = Run.reopen(Store().find(run.run_id))
    again.finish("FINISHED")
    assert (run.folder / FILE).exists() == is_written


def test_the_environment_variable_keeps_commits_only(repository, monkeypatch, uri):
    (repository / "net.py").write_text("changed\n")
    monkeypatch.setenv(source_code.OFF_VARIABLE, "1")
    run = Run(Store(), "off", "off", {})
    run.finish("FINISHED")
    tags = MlflowClient(uri).get_run(run.run_id).data.tags
    assert tags[DIRTY_TAG] == "true"
    assert not {DIFF_TAG, LITLAB_DIFF_TAG} & tags.keys()
    assert not (run.folder / "code").exists()


def test_packages_are_sorted_lines_with_versions():
    text = installed_packages()
    packages = parse_packages(text)
    assert {"torch", "mlflow", "numpy"} <= packages.keys()
    names = [name.lower().replace("_", "-") for name in packages]
    assert len(names) == len(text.splitlines())
    assert names == sorted(names)


def test_the_code_is_that_of_the_start_of_the_command(repository):
    (repository / "net.py").write_text("first\n")
    source_code.start()
    deadline = time.monotonic() + 10
    while source_code._STARTED[0].is_alive() and time.monotonic() < deadline:
        time.sleep(0.01)
    (repository / "net.py").write_text("second\n")
    assert b"+first" in patch_of(source_code.current())
    assert b"+second" in patch_of(source_code.current())
