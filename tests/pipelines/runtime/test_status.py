"""The status line: shown on a terminal only, and gone before anything else is printed."""

import io
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout

import pytest

from pipelines.runtime.console import Console
from pipelines.runtime.log import logger
from pipelines.runtime.status import clear_status, show_status

TEXT = "digits-mlp: loading torch and the data ..."


class Terminal(io.StringIO):
    """A stream that says that it is a terminal."""

    def isatty(self) -> bool:
        return True


@contextmanager
def one_terminal() -> Iterator[Terminal]:
    """Let both streams be one terminal."""
    screen = Terminal()
    with redirect_stdout(screen), redirect_stderr(screen):
        yield screen


@pytest.fixture(autouse=True)
def width(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")


def shown(screen: io.StringIO) -> list[str]:
    """Return the lines that a terminal shows in the end."""
    lines, column = [""], 0
    for char in screen.getvalue():
        if char == "\n":
            lines.append("")
            column = 0
        elif char == "\r":
            column = 0
        else:
            lines[-1] = lines[-1][:column] + char + lines[-1][column + 1 :]
            column += 1
    return [line.rstrip() for line in lines]


@pytest.mark.parametrize("how", ["print", "stderr", "logger", "rich", "lines"])
def test_the_line_is_gone_before_anything_else_is_printed(how):
    with one_terminal() as terminal:
        console = Console()  # made before, as that of the progress bar
        show_status(TEXT.removesuffix(" ..."))
        assert shown(terminal) == [TEXT]
        {
            "print": lambda: print("a result"),
            "stderr": lambda: sys.stderr.write("a result\n"),
            "logger": lambda: logger.info("a result"),
            "rich": lambda: console.print("a result"),
            "lines": lambda: sys.stdout.writelines(["a result\n"]),
        }[how]()
        print("another")
        assert shown(terminal) == [f"{'litlab: ' if how == 'logger' else ''}a result", "another", ""]
        assert (sys.stdout, sys.stderr) == (terminal, terminal)


def test_a_new_status_replaces_the_last_one_and_a_long_one_is_cut():
    with one_terminal() as terminal:
        show_status("first, which is longer")
        show_status("second")
        assert shown(terminal) == ["second ..."]
        show_status("x" * 200)
        assert shown(terminal) == ["x" * 79]
        clear_status()
        clear_status()
        assert shown(terminal) == [""]


@pytest.mark.parametrize("rank", ["RANK", "LOCAL_RANK", "SLURM_PROCID"])
def test_further_devices_show_nothing(monkeypatch, rank):
    with one_terminal() as terminal:
        monkeypatch.setenv(rank, "1")
        show_status("loading")
        assert terminal.getvalue() == ""


def test_without_a_terminal_nothing_is_shown(capfd):
    show_status("loading")
    print("a result")
    assert capfd.readouterr() == ("a result\n", "")


@pytest.mark.skipif(sys.platform == "win32", reason="there is no pty")
@pytest.mark.parametrize(
    ("command", "first"),
    [
        ("fit digits-mlp", TEXT),
        ("tune lr digits-mlp", TEXT),
        ("inspect digits-mlp", "digits-mlp: loading torch ..."),
        ("resume 0123abcd", "0123abcd: loading torch, the run and its data ..."),
        ("test 0123abcd", "0123abcd: loading torch, the run and its data ..."),
        ("predict 0123abcd", "0123abcd: loading torch, the run and its data ..."),
    ],
)
def test_a_command_says_what_it_does_before_torch_is_imported(command, first, tables):
    import pty

    program = (
        "import sys; sys.modules.update(torch=None, lightning=None, mlflow=None)\n"
        f"from pipelines.cli import main; main({command.split()})"
    )
    reader, writer = pty.openpty()
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.DEVNULL, stderr=writer):
        os.close(writer)
        output = b""
        while chunk := _read(reader):
            output += chunk
    os.close(reader)
    text = output.decode()
    assert text.startswith(first)
    assert f"\r{' ' * len(first)}\r" in text, "removed before the error"
    assert "ModuleNotFoundError" in text, "torch, Lightning or MLflow is imported next"


def _read(reader: int) -> bytes:
    try:
        return os.read(reader, 65536)
    except OSError:  # the other end is closed
        return b""


def test_the_logger_writes_to_the_stream_itself_afterwards():
    with one_terminal() as terminal:
        show_status("loading")
        logger.warning("one")
        logger.warning("two")
        assert shown(terminal) == ["litlab: one", "litlab: two", ""]
