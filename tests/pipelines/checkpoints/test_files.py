"""Checkpoint files: a write is complete or has no effect, and damage is detected."""

import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest
import torch

from pipelines.checkpoints.files import (
    BEST,
    LAST,
    PREVIOUS,
    AtomicCheckpointIO,
    copy_checkpoint,
    latest_valid,
    load_checkpoint,
)
from pipelines.runtime.errors import UserError
from sweeps.workers.pool import PRELOAD

WRITER = """
import torch
from pathlib import Path
from pipelines.checkpoints import files as checkpoints
for epoch in range(first, 1000000):
    content = {"epoch": epoch, "litlab": {"best_epoch": epoch}, "weights": torch.full((50000,), float(epoch))}
    checkpoints.AtomicCheckpointIO().save_checkpoint(content, Path(folder) / "last.ckpt")
    checkpoints.copy_checkpoint(Path(folder) / "last.ckpt", Path(folder) / "best.ckpt")
    (Path(folder) / "done").write_text(str(epoch))
"""


def save(folder, epoch, best=None, name=LAST):
    best = epoch if best is None else best
    content = {"epoch": epoch, "litlab": {"best_epoch": best}, "weights": torch.arange(1000.0) + epoch}
    AtomicCheckpointIO().save_checkpoint(content, folder / name)
    if best == epoch:
        copy_checkpoint(folder / LAST, folder / BEST)


def flip(path, place=0.5):
    """Flip one bit; the size stays."""
    content = bytearray(path.read_bytes())
    content[int(len(content) * place)] ^= 4
    path.unlink()  # it may have another hard link
    path.write_bytes(content)


def truncate(path):
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content[: len(content) // 2])


def append(path):
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content + b"x")


def empty(path):
    path.unlink()
    path.touch()


def test_a_digest_file_of_an_earlier_version_is_deleted_with_its_checkpoint(tmp_path):
    save(tmp_path, 0)
    (tmp_path / f"{LAST}.sha256").write_text(f"{'0' * 64}  {LAST}\n")
    assert load_checkpoint(tmp_path / LAST)["epoch"] == 0
    save(tmp_path, 1, best=0)
    assert {path.name for path in tmp_path.iterdir()} == {LAST, PREVIOUS, BEST}


def test_the_previous_checkpoint_is_kept(tmp_path):
    for epoch in range(3):
        save(tmp_path, epoch)
    assert load_checkpoint(tmp_path / LAST)["epoch"] == 2
    assert load_checkpoint(tmp_path / PREVIOUS)["epoch"] == 1


@pytest.mark.parametrize("harm", [flip, truncate, append, empty])
def test_a_damaged_checkpoint_is_not_loaded_and_is_named(tmp_path, harm):
    save(tmp_path, 0)
    harm(tmp_path / LAST)
    with pytest.raises(UserError, match=rf"{tmp_path}/last.ckpt is damaged"):
        load_checkpoint(tmp_path / LAST)


def test_any_flipped_bit_is_detected_or_changes_nothing_that_is_loaded(tmp_path):
    """Padding and fields that torch does not read, such as times, have no checksum."""
    save(tmp_path, 0)
    whole, detected = (tmp_path / LAST).read_bytes(), 0
    for place in torch.linspace(0, 0.9999, 200):
        (tmp_path / LAST).write_bytes(whole)
        flip(tmp_path / LAST, float(place))
        try:
            loaded = load_checkpoint(tmp_path / LAST)
        except UserError:
            detected += 1
            continue
        assert torch.equal(loaded.pop("weights"), torch.arange(1000.0))
        assert loaded == {"epoch": 0, "litlab": {"best_epoch": 0}}
    assert detected > 150


@pytest.mark.parametrize("harm", [flip, truncate, append, empty])
def test_if_the_last_checkpoint_is_damaged_it_is_named_and_the_previous_one_is_used(tmp_path, harm):
    save(tmp_path, 0)
    save(tmp_path, 1, best=0)
    harm(tmp_path / LAST)
    point, messages = latest_valid(tmp_path)
    assert (point.path, point.epoch) == (tmp_path / PREVIOUS, 0)
    assert f"{tmp_path}/last.ckpt is damaged" in messages[0]
    assert (tmp_path / "last.ckpt.damaged").is_file()
    save(tmp_path, 1, best=0)
    assert load_checkpoint(tmp_path / PREVIOUS)["epoch"] == 0, "the damaged file did not become previous.ckpt"


def test_a_damaged_best_checkpoint_is_restored_from_another_of_its_epoch(tmp_path):
    save(tmp_path, 0)
    save(tmp_path, 1)
    flip(tmp_path / BEST)
    point, messages = latest_valid(tmp_path)
    assert point.epoch == 1
    assert "best.ckpt is damaged" in messages[0]
    assert load_checkpoint(tmp_path / BEST)["epoch"] == 1


def test_checkpoints_whose_best_epoch_is_lost_are_skipped(tmp_path):
    save(tmp_path, 0)
    for epoch in (1, 2):
        save(tmp_path, epoch, best=0)
    flip(tmp_path / BEST)
    point, messages = latest_valid(tmp_path)
    assert point is None
    assert "the checkpoint of its best epoch, 0, is lost" in messages[-1]


def test_without_an_intact_checkpoint_there_is_no_resume_point(tmp_path):
    tmp_path = tmp_path / "checkpoints"
    tmp_path.mkdir()
    assert latest_valid(tmp_path) == (None, [])
    save(tmp_path, 0)
    save(tmp_path, 1)
    for name in (LAST, PREVIOUS, BEST):
        truncate(tmp_path / name)
    point, messages = latest_valid(tmp_path)
    assert point is None
    assert len(messages) == 3


class Evil:
    """Run a command when unpickled."""

    def __init__(self, path):
        self._path = path

    def __reduce__(self):
        return os.system, (f"touch {self._path}",)


def test_objects_are_never_unpickled(tmp_path):
    torch.save({"epoch": 0, "evil": Evil(tmp_path / "here")}, tmp_path / "evil.ckpt")
    with pytest.raises(UserError, match=r"evil.ckpt was not loaded: it contains more than tensors and plain values"):
        AtomicCheckpointIO().load_checkpoint(tmp_path / "evil.ckpt", weights_only=False)
    assert not (tmp_path / "here").exists()


def test_a_failed_write_keeps_the_old_checkpoint(tmp_path, monkeypatch):
    save(tmp_path, 0)

    def full(number):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        save(tmp_path, 1)
    monkeypatch.undo()
    point, messages = latest_valid(tmp_path)
    assert (point.epoch, messages) == (0, [])
    assert not list(tmp_path.glob(".*"))


def test_copying_works_without_hard_links(tmp_path, monkeypatch):
    def refuse(self, target):
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    save(tmp_path, 0)
    assert load_checkpoint(tmp_path / BEST)["epoch"] == 0


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", range(3))
def test_a_kill_before_or_after_any_rename_leaves_an_intact_checkpoint_without_false_alarms(
    tmp_path, monkeypatch, step, when
):
    save(tmp_path, 0)
    save(tmp_path, 1)
    rename, steps = Path.replace, iter(range(100))

    def stop(self, target):
        is_last = next(steps) == step
        if not is_last or when == "after":
            rename(self, target)
        if is_last:
            raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", stop)
    with pytest.raises(KeyboardInterrupt):
        save(tmp_path, 2)
    monkeypatch.undo()
    point, messages = latest_valid(tmp_path)
    assert messages == []
    assert point.epoch in (1, 2)
    assert load_checkpoint(tmp_path / BEST)["epoch"] == point.epoch
    save(tmp_path, 3)
    assert latest_valid(tmp_path)[0].epoch == 3


def test_sigkill_at_any_moment_of_a_write_leaves_an_intact_checkpoint_without_false_alarms(tmp_path):
    warm = multiprocessing.get_context("forkserver")
    warm.set_forkserver_preload(PRELOAD)  # as sweeps do: a process has one fork server
    moments = torch.rand(25, generator=torch.Generator().manual_seed(0)) * 0.05
    done = -1
    for moment in moments.tolist():
        child = warm.Process(target=exec, args=(WRITER, {"first": done + 1, "folder": str(tmp_path)}))
        child.start()
        before, since = done, time.monotonic()
        while before == done and time.monotonic() - since < 60:
            done = int((tmp_path / "done").read_text() or before) if (tmp_path / "done").exists() else before
        time.sleep(moment)
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        point, messages = latest_valid(tmp_path)
        assert messages == []
        assert point.epoch >= done
        assert float(load_checkpoint(point.path)["weights"][0]) == point.epoch
        assert load_checkpoint(tmp_path / BEST)["epoch"] == point.epoch
        done = point.epoch
        (tmp_path / "done").unlink(missing_ok=True)
