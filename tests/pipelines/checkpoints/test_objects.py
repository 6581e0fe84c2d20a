"""Checkpoints that hold more than tensors and plain values: they are saved, and loaded without running foreign code."""

import datetime
import enum
import functools
import io
import os
import pathlib
import stat
from argparse import Namespace
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn

from pipelines.checkpoints import known_files
from pipelines.checkpoints.files import (
    LAST,
    PREVIOUS,
    AtomicCheckpointIO,
    copy_checkpoint,
    latest_valid,
    load_checkpoint,
)
from pipelines.checkpoints.unpickle import DamagedCheckpointError, UntrustedCheckpointError
from pipelines.runtime.errors import UserError

STATE = {"epoch": 0, "state_dict": {"w": torch.arange(3.0)}, "litlab": {"best_epoch": 0}}


class Colour(enum.Enum):
    RED = 1


@dataclass
class Size:
    rows: int
    folder: pathlib.Path


class Evil:
    """Run a command when unpickled."""

    def __init__(self, path):
        self._path = path

    def __reduce__(self):
        return eval, (f"__import__('pathlib').Path({str(self._path)!r}).touch()",)


def save(folder, name=LAST, **more):
    AtomicCheckpointIO().save_checkpoint({**STATE, **more}, folder / name)
    return folder / name


def forget():
    (known_files.state_folder() / "checkpoints.sha256").unlink(missing_ok=True)


def entries():
    path = known_files.state_folder() / "checkpoints.sha256"
    return path.read_text().split() if path.exists() else []


def test_a_plain_checkpoint_is_the_same_file_as_torchs_and_is_not_listed(tmp_path):
    given = {**STATE, "hyper_parameters": {"lr": 0.1, "sizes": [1, 2]}, "random": (3, tuple(range(625)), None)}
    AtomicCheckpointIO().save_checkpoint(given, tmp_path / LAST)
    torch.save(given, expected := io.BytesIO())
    assert (tmp_path / LAST).read_bytes() == expected.getvalue()
    assert torch.load(tmp_path / LAST, weights_only=True)["random"] == given["random"]
    assert entries() == []


def test_hyperparameters_are_kept_as_plain_configuration_and_the_others_are_left_out(tmp_path):
    given = {
        "lr": np.float64(0.1),
        "folder": pathlib.Path("a/b"),
        "colour": Colour.RED,
        "size": Size(3, pathlib.Path("c")),
        "nested": Namespace(sizes=(1, np.int32(2))),
        "weights": np.ones(2),
        "net": nn.Linear(2, 2),
        "optimizer": functools.partial(torch.optim.Adam, lr=0.1),
        "activation": lambda x: x,
        "kind": nn.ReLU,
        "parts": [nn.ReLU()],
    }
    path = save(tmp_path, hyper_parameters=given, hparams_type=Namespace)
    assert torch.load(path, weights_only=True)["hyper_parameters"] == {
        "lr": 0.1,
        "folder": "a/b",
        "colour": "RED",
        "size": {"rows": 3, "folder": "c"},
        "nested": {"sizes": [1, 2]},
        "weights": [1.0, 1.0],
    }
    assert entries() == []


HARMLESS = {
    "path": pathlib.Path("a") / "b",
    "pure": pathlib.PurePosixPath("/c"),
    "float64": np.float64(0.1),
    "int32": np.int32(7),
    "flag": np.bool_(True),
    "array": np.arange(6, dtype=">i2").reshape(2, 3),
    "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "texts": np.array(["a", "bc"]),
    "dtype": np.dtype("float32"),
    "frozen": frozenset({1, 2}),
    "time": datetime.datetime(2024, 1, 2, tzinfo=datetime.UTC),
    "delta": datetime.timedelta(seconds=3),
}


@pytest.mark.parametrize("name", HARMLESS)
def test_paths_dates_and_numpys_values_are_restored_from_anybodys_file(tmp_path, name):
    torch.save({**STATE, "callbacks": {"A": [HARMLESS[name]]}}, tmp_path / LAST)
    (restored,) = load_checkpoint(tmp_path / LAST)["callbacks"]["A"]
    assert type(restored) is type(HARMLESS[name])
    assert np.array_equal(restored, HARMLESS[name]) if isinstance(restored, np.ndarray) else restored == HARMLESS[name]
    assert getattr(restored, "dtype", None) == getattr(HARMLESS[name], "dtype", None)


@pytest.mark.parametrize("value", [np.array([object()], dtype=object), np.zeros(1, dtype=[("a", "O"), ("b", "f8")])])
def test_arrays_of_objects_are_not_restored_from_a_foreign_file(tmp_path, value):
    torch.save({**STATE, "state": value}, tmp_path / LAST)
    with pytest.raises(UserError, match=r"last.ckpt (was not loaded|cannot be loaded)"):
        load_checkpoint(tmp_path / LAST)


def test_a_crafted_dtype_cannot_make_numpy_read_memory(tmp_path):
    """The function of NumPy function takes these bytes for the address of an object."""

    class Scalar:
        def __reduce__(self):
            return np._core.multiarray.scalar, (np.dtype([("a", "O")]), b"\x01" * 8)

    torch.save({**STATE, "state": Scalar()}, tmp_path / LAST)
    with pytest.raises(UserError, match=r"last.ckpt"):
        load_checkpoint(tmp_path / LAST)


def test_a_file_that_this_user_wrote_is_loaded_in_full_wherever_it_is_copied(tmp_path):
    path = save(tmp_path, mine=Colour.RED, callbacks={"A": Size(1, pathlib.Path("x"))})
    copy_checkpoint(path, tmp_path / "best.ckpt")
    (tmp_path / "copy.ckpt").write_bytes(path.read_bytes())
    for name in (LAST, "best.ckpt", "copy.ckpt"):
        content = load_checkpoint(tmp_path / name)
        assert content["mine"] is Colour.RED
        assert content["callbacks"]["A"] == Size(1, pathlib.Path("x"))
    assert len(entries()) == 1


def test_a_foreign_file_with_objects_is_refused_by_name_and_is_loaded_if_it_is_trusted(tmp_path):
    path = save(tmp_path, mine=Colour.RED)
    forget()
    with pytest.raises(UntrustedCheckpointError) as caught:
        load_checkpoint(path)
    assert "test_objects.Colour" in str(caught.value)
    assert "--trust" in str(caught.value)
    assert "damaged" not in str(caught.value)
    assert load_checkpoint(path, trust=True)["mine"] is Colour.RED


def test_objects_of_a_foreign_file_run_no_code_even_where_they_are_not_needed(tmp_path):
    witness = tmp_path / "executed"
    torch.save({**STATE, "hyper_parameters": {"a": Evil(witness)}, "callbacks": {"A": Evil(witness)}}, tmp_path / LAST)
    with pytest.raises(UntrustedCheckpointError, match=r"builtins\.eval"):
        load_checkpoint(tmp_path / LAST)
    content = load_checkpoint(tmp_path / LAST, needed=("state_dict",))
    assert content.keys() == STATE.keys()
    assert not witness.exists()
    load_checkpoint(tmp_path / LAST, trust=True)
    assert witness.exists(), "the file was harmless: this test proves nothing"


def test_a_foreign_file_with_strange_hyperparameters_only_needs_no_trust(tmp_path):
    given = {"net": nn.Linear(2, 2), "optimizer": functools.partial(torch.optim.Adam, lr=0.1), "colour": Colour.RED}
    torch.save({**STATE, "hyper_parameters": given, "hparams_type": Namespace}, tmp_path / LAST)
    assert load_checkpoint(tmp_path / LAST).keys() == STATE.keys()


def test_weights_that_are_objects_are_needed(tmp_path):
    torch.save({**STATE, "state_dict": {"w": Evil(tmp_path / "executed")}}, tmp_path / LAST)
    with pytest.raises(UntrustedCheckpointError):
        load_checkpoint(tmp_path / LAST, needed=("state_dict",))
    assert not (tmp_path / "executed").exists()


def test_a_sound_file_that_is_not_trusted_stops_resume_and_keeps_its_name(tmp_path):
    save(tmp_path)
    save(tmp_path, mine=Colour.RED)
    forget()
    with pytest.raises(UntrustedCheckpointError, match=r"last.ckpt was not loaded"):
        latest_valid(tmp_path)
    assert {path.name for path in tmp_path.iterdir() if path.is_file()} == {LAST, PREVIOUS}
    assert latest_valid(tmp_path, trust=True)[0].path.name == LAST


class Unimportable:
    def __reduce__(self):
        return Colour, (2,)  # no such member any more


def test_a_file_whose_objects_cannot_be_made_any_more_is_not_called_damaged(tmp_path):
    path = save(tmp_path, mine=Unimportable())
    with pytest.raises(UserError, match="cannot be loaded: 2 is not a valid Colour") as caught:
        load_checkpoint(path)
    assert not isinstance(caught.value, DamagedCheckpointError)
    assert load_checkpoint(path, needed=("state_dict",)).keys() == STATE.keys()


def test_a_file_that_may_not_be_read_is_not_called_damaged(tmp_path):
    with pytest.raises(UserError, match="cannot be read: No such file") as caught:
        load_checkpoint(tmp_path / "missing.ckpt")
    assert not isinstance(caught.value, DamagedCheckpointError)


def test_what_cannot_be_pickled_is_left_out_and_named_once(tmp_path, capfd):
    class Local:
        pass

    state = {"best": 0.5, "transform": lambda x: x, "path": pathlib.Path("a"), "items": [Local()]}
    for epoch in range(2):
        path = save(tmp_path, epoch=epoch, callbacks={"Mine": state}, extra=Local())
    content = load_checkpoint(path)
    assert content["callbacks"] == {"Mine": {"best": 0.5, "path": pathlib.Path("a")}}
    assert "extra" not in content
    warnings = capfd.readouterr().err.splitlines()
    assert len(warnings) == 3
    assert "without callbacks/Mine/transform, function" in warnings[0]
    assert "<lambda>" in warnings[0]


def test_a_value_that_contains_itself_is_saved(tmp_path):
    state = {"a": 1}
    state["itself"] = state
    restored = load_checkpoint(save(tmp_path, mine=state))["mine"]
    assert restored["itself"]["itself"]["a"] == 1


def test_the_list_belongs_to_its_user(tmp_path):
    path = save(tmp_path, mine=Colour.RED)
    file = known_files.state_folder() / "checkpoints.sha256"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    file.chmod(0o666)
    with pytest.raises(UntrustedCheckpointError):
        load_checkpoint(path)


def test_the_list_does_not_grow_for_ever(monkeypatch):
    monkeypatch.setattr(known_files, "MAX_ENTRIES", 10)
    monkeypatch.setattr(known_files, "_KEPT", 8)
    for number in range(30):
        known_files.remember(str(number).encode())
        assert known_files.is_known(str(number).encode())
        assert len(entries()) <= 10
    assert known_files.is_known(b"25")
    assert not known_files.is_known(b"0")


def test_several_processes_extend_the_list(at_once):
    at_once(3, remember_many)
    assert len(entries()) == len(set(entries())) == 60


def remember_many(barrier):
    barrier.wait()
    for number in range(20):
        known_files.remember(f"{os.getpid()} {number}".encode())


def test_without_a_writable_state_folder_checkpoints_are_saved_and_need_trust(tmp_path, monkeypatch, capfd):
    (tmp_path / "file").touch()
    monkeypatch.setenv("LITLAB_STATE", str(tmp_path / "file" / "state"))
    path = save(tmp_path, mine=Colour.RED)
    assert "needs --trust" in capfd.readouterr().err
    assert load_checkpoint(path, trust=True)["mine"] is Colour.RED


def test_the_state_folder_is_the_usual_one_of_the_platform(tmp_path, monkeypatch):
    monkeypatch.delenv("LITLAB_STATE")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setattr("sys.platform", "linux")
    assert known_files.state_folder() == tmp_path / "litlab"
    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    assert known_files.state_folder() == pathlib.Path("~/.local/state/litlab").expanduser()
    monkeypatch.setattr("sys.platform", "darwin")
    assert known_files.state_folder() == pathlib.Path("~/Library/Application Support/litlab").expanduser()
