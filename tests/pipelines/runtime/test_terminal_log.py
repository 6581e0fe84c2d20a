"""What a training prints is kept as lines, whatever it draws on the terminal, up to a size."""

import io
import logging
import os
import sys
import time
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest
from rich.progress import Progress

from pipelines.runtime import terminal_log
from pipelines.runtime.console import Console
from pipelines.runtime.log import configure_logging, logger
from pipelines.runtime.status import show_status
from pipelines.runtime.streams import WatchedStream
from pipelines.runtime.terminal_log import FILE, HEAD, TAIL, LineFilter, attach_current, recorded_terminal
from tests.pipelines.runtime.test_status import one_terminal


def feed(*texts: str) -> str:
    lines = LineFilter()
    return "".join(map(lines.feed, texts)) + lines.rest()


@pytest.mark.parametrize(
    ("texts", "kept"),
    [
        (["one\n", "tw", "o\nthree"], "one\ntwo\nthree\n"),
        (["\x1b[1mbold\x1b[0m \x1b]8;;http://a\x1b\\link\x1b]8;;\x1b\\\n"], "bold link\n"),
        (["10%\r", "20%\r", "100%\n"], "100%\n"),
        (["10%", "\r20%", "\r100%", "\n"], "100%\n"),
        (["windows\r\n", "lines\r\n"], "windows\nlines\n"),
        (["epoch 0 ---", "\r\x1b[2K", "loss 1\n", "epoch 1 --- 3/9", "\r\x1b[2K"], "loss 1\n"),
        (["\rtrain 10%", "\n\rval 10%\x1b[A", "\n\rval 20%\x1b[A", "\rtrain 20%"], "train 10%\n"),
        (["\x1b[?25l", "text\n", "\x1b[?25h"], "text\n"),
        (["bar\x1b[2K\rdone", "\n", "\n", "next\n"], "done\n\nnext\n"),
    ],
)
def test_lines_are_kept_as_they_are_in_the_end(texts, kept):
    assert feed(*texts) == kept


def test_a_progress_bar_of_rich_leaves_only_what_is_printed_beside_it(tmp_path):
    with one_terminal(), recorded_terminal():
        console = Console(force_terminal=True, width=80)
        attach_current(tmp_path)
        with Progress(console=console, transient=True, auto_refresh=False) as bar:
            task = bar.add_task("epoch", total=3)
            for step in range(3):
                bar.update(task, completed=step, refresh=True)
                console.print(f"loss {step}")
                print(f"user {step}")
    assert (tmp_path / FILE).read_text() == "".join(f"loss {step}\nuser {step}\n" for step in range(3))


def test_the_status_line_is_not_kept_and_both_streams_are_restored(tmp_path):
    with one_terminal() as terminal:
        with recorded_terminal():
            attach_current(tmp_path)
            show_status("loading")
            print("a result")
            show_status("saving")
            sys.stderr.writelines(["an error\n"])
        assert (sys.stdout, sys.stderr) == (terminal, terminal)
    assert (tmp_path / FILE).read_text() == "a result\nan error\n"


def test_what_is_printed_before_there_is_a_run_is_kept_too(tmp_path):
    with redirect_stdout(io.StringIO()) as screen, recorded_terminal():
        print("early")
        attach_current(tmp_path)
        print("late", end="")
    assert screen.getvalue() == "early\nlate"
    assert (tmp_path / FILE).read_text() == "early\nlate\n"


def test_handlers_of_logging_that_exist_already_are_kept_and_restored(tmp_path):
    with redirect_stderr(io.StringIO()) as screen:
        handler = logging.StreamHandler()
        other = logging.getLogger("somebody.else")
        other.addHandler(handler)
        configure_logging()
        with recorded_terminal():
            attach_current(tmp_path)
            other.warning("from a library")
            logger.warning("from litlab")
        other.warning("afterwards")
        assert handler.stream is screen
        other.removeHandler(handler)
    assert (tmp_path / FILE).read_text() == "from a library\nlitlab: from litlab\n"


def test_a_long_log_keeps_its_beginning_and_its_end(tmp_path):
    with redirect_stdout(io.StringIO()), recorded_terminal():
        attach_current(tmp_path)
        for number in range(120_000):
            print(f"line {number:>8} xx")
    path = tmp_path / FILE
    lines = path.read_text().splitlines()
    assert path.stat().st_size <= HEAD + TAIL + 100
    assert (lines[0], lines[-1]) == ("line        0 xx", "line   119999 xx")
    (mark,) = [line for line in lines if "left out" in line]
    kept = [line for line in lines if line != mark]
    assert mark == f"[{(120_000 - len(kept)) * 17:,} bytes are left out here]"
    assert lines.index(mark) == HEAD // 17


def test_a_resumed_run_appends_and_counts_what_was_left_out_before(tmp_path, monkeypatch):
    monkeypatch.setattr(terminal_log, "HEAD", 100)
    monkeypatch.setattr(terminal_log, "TAIL", 100)
    for _ in range(3):
        with redirect_stdout(io.StringIO()), recorded_terminal():
            attach_current(tmp_path)
            for number in range(100):
                print(f"{number:>9}")
    lines = (tmp_path / FILE).read_text().splitlines()
    assert lines == [
        *(f"{n:>9}" for n in range(10)),
        "[2,800 bytes are left out here]",
        *(f"{n:>9}" for n in range(90, 100)),
    ]


def test_a_full_disk_or_a_folder_that_is_gone_disturbs_nothing(tmp_path):
    with redirect_stdout(io.StringIO()) as screen, recorded_terminal():
        attach_current(tmp_path / "missing")
        print("a result")
    assert screen.getvalue() == "a result\n"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_processes_that_are_forked_keep_nothing(tmp_path):
    with redirect_stdout(io.StringIO()), recorded_terminal():
        attach_current(tmp_path)
        if not (pid := os.fork()):
            print("of a worker that loads data")
            os._exit(0)
        os.waitpid(pid, 0)
        print("of the training")
    assert (tmp_path / FILE).read_text() == "of the training\n"


def test_it_costs_a_few_microseconds_a_line(tmp_path):
    with Path(os.devnull).open("w") as null, redirect_stdout(null):
        began = time.perf_counter()
        for number in range(20_000):
            print(number)
        bare = time.perf_counter() - began
        with recorded_terminal():
            attach_current(tmp_path)
            assert isinstance(sys.stdout, WatchedStream)
            began = time.perf_counter()
            for number in range(20_000):
                print(number)
            kept = time.perf_counter() - began
    assert (kept - bare) / 20_000 < 100e-6
