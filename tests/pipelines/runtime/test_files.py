"""File locks and atomic writes."""

import stat
import time

import pytest

from pipelines.runtime.files import file_lock, part_of, write_atomically


def test_a_failed_write_leaves_the_old_content_and_no_temporary_file(tmp_path):
    path = tmp_path / "folder" / "file"
    write_atomically(path, "old")

    def fail(source, target):
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, "new", place=fail)
    assert path.read_text() == "old"
    assert not part_of(path).exists()


@pytest.mark.parametrize(("old", "mode", "expected"), [(0o640, None, 0o640), (0o644, 0o600, 0o600)])
def test_permissions_are_those_given_or_those_of_the_old_file(tmp_path, old, mode, expected):
    path = tmp_path / "file"
    path.touch()
    path.chmod(old)
    write_atomically(path, b"content", mode=mode)
    assert stat.S_IMODE(path.stat().st_mode) == expected


def test_a_held_lock_is_refused_and_released_after_the_block(tmp_path):
    path = tmp_path / "folder" / "lock"
    with file_lock(path), pytest.raises(TimeoutError, match="locked by another process"), file_lock(path, timeout=0):
        pass
    with file_lock(path, timeout=0, remove=True):
        pass
    assert not path.exists()


def test_no_two_processes_hold_a_lock_whose_file_is_deleted(tmp_path, at_once):
    at_once(3, _lock_many_times, tmp_path / "lock", tmp_path / "held")


def _lock_many_times(path, held, barrier):
    barrier.wait()
    for _ in range(30):
        with file_lock(path, remove=True):
            held.touch(exist_ok=False)  # raises FileExistsError if another process holds the lock
            time.sleep(0.001)
            held.unlink()
