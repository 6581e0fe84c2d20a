"""The command where Linux's parts are missing: no /proc, process groups, SIGKILL, CPU affinity or safe fork."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines.runtime import process
from pipelines.runtime.environment import user

# A script, so that the processes that it spawns run it too.
WITHOUT_LINUX = """
import contextlib, os, pathlib, sys

with contextlib.suppress(ImportError):
    import psutil  # its variant for Linux needs what is missing below
for name in ("setsid", "killpg", "getpgid", "getuid", "sched_getaffinity", "sysconf"):
    delattr(os, name)


def without_proc(original):
    def call(path, *args, **kwargs):
        if str(path).startswith(("/proc", "/sys")):
            raise FileNotFoundError(path)
        return original(path, *args, **kwargs)

    return call


for name in ("read_text", "stat"):
    setattr(pathlib.Path, name, without_proc(getattr(pathlib.Path, name)))

import pipelines.runtime.process

pipelines.runtime.process.FORK_IS_SAFE = False

if __name__ == "__main__":
    from pipelines.cli import main

    for command in " ".join(sys.argv[1:]).split(" and "):
        code = main(command.split())
    sys.exit(code)
"""


@pytest.fixture
def without_linux(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Return a function with litlab's command line on such a system, where `taskkill` and `tasklist` are programs."""
    script = tmp_path / "litlab_without_linux.py"
    script.write_text(WITHOUT_LINUX)
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, text in {"taskkill": f'echo "$@" > {tmp_path}/taskkill; kill -9 -"$4"', "tasklist": "ps -A"}.items():
        (programs / name).write_text(f"#!/bin/sh\n{text}\n")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(programs), prepend=os.pathsep)
    monkeypatch.setenv("USERNAME", "student")  # Windows sets it
    return lambda *args: [sys.executable, str(script), *args]


def run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_fit_and_compare_need_no_linux(without_linux, tables):
    fit = ["fit", "digits-mlp", "--trainer.max_epochs", "1"]
    assert "1 row" in run(without_linux(*fit, "and", "compare", "digits-mlp"))


@pytest.mark.slow
def test_a_sweep_needs_no_linux(without_linux):
    options = ["--trials", "2", "--workers", "2", "--seeds", "1", "--confirm", "0", "--trainer.max_epochs", "1"]
    assert "best single trial val/loss" in run(without_linux("sweep", "digits-mlp", *options))


def test_the_ui_ends_its_server_without_process_groups(without_linux, tables, free_port, tmp_path):
    command = without_linux("ui", "--port", str(free_port()))
    ui = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    try:
        assert ui.stdout.readline().startswith("MLflow UI of")
    finally:
        ui.send_signal(signal.SIGINT)
        _, errors = ui.communicate(timeout=60)
    assert ui.returncode == 0, errors
    assert (tmp_path / "taskkill").read_text().startswith("/F /T /PID ")


@pytest.mark.usefixtures("without_linux")
def test_windows_lists_processes_since_signal_0_is_ctrl_c_there(monkeypatch):
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.delattr(os, "kill")
    assert process.process_exists(os.getpid())
    assert not process.process_exists(2**22 + 1)  # above every process id


def test_what_windows_lacks_is_used_in_one_file_which_checks_for_it():
    root = Path(process.__file__).parents[2]
    packages = ("pipelines", "sweeps", "modules", "datamodules")
    sources = [path for package in packages for path in (root / package).rglob("*.py")]
    lacking = re.compile(r"signal\.SIG(?!INT|TERM|_)[A-Z]|os\.(setsid|killpg|getpgid|fork)\b")
    found = {path.relative_to(root).as_posix() for path in sources if lacking.search(path.read_text())}
    assert found == {"pipelines/runtime/process.py"}


def test_a_user_without_a_name_and_an_id_is_unknown(monkeypatch):
    def no_name() -> str:
        raise ImportError("No module named 'pwd'")

    monkeypatch.setattr("getpass.getuser", no_name)
    monkeypatch.delattr(os, "getuid")
    assert user() == "unknown"
