"""Folders of agents: deleted at the end, also those of agents that were killed, but never those of others that live."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from sweeps.cluster.folders import agent_folder

PROGRAM = """
import os, signal, sys
from sweeps.cluster.folders import agent_folder
with agent_folder(sys.argv[1]) as folder:
    print(folder, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return folder


def test_the_next_agent_removes_the_folder_of_one_that_was_killed(temporary):
    code = temporary / "unpacked"
    code.mkdir()
    command = [sys.executable, "-c", PROGRAM, str(code)]
    killed = subprocess.run(command, cwd=Path(__file__).parents[3], capture_output=True, text=True, check=False)
    folder = Path(killed.stdout.strip())
    assert folder.is_dir(), killed.stderr
    with agent_folder() as other:
        assert not folder.exists()
        assert not code.exists()
        with agent_folder():
            assert other.is_dir(), "its agent lives"
    assert not list(temporary.iterdir()), "locks are deleted too"


@pytest.mark.skipif(os.getuid() != 0, reason="only root can make files of another user")
def test_a_folder_of_another_user_is_left_alone_with_what_it_links_to(temporary):
    precious, planted = temporary / "precious", temporary / "litlab-agent-planted"
    precious.mkdir()
    planted.mkdir()
    (planted / "code").symlink_to(precious)
    os.chown(planted, 65534, 65534)
    with agent_folder():
        pass
    assert precious.is_dir()
    assert planted.is_dir()
