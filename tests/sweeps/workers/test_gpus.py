"""Which GPUs the trainings of a sweep use: those that are listed, or those that no other program fills."""

import os
import stat

import pytest

from pipelines.config.cli import parse_config
from pipelines.runtime.errors import UserError
from sweeps.workers.gpus import TrainingGpus, check_devices, gpus_to_use, listed_gpus, share_of, sharers
from sweeps.workers.job import Job
from sweeps.workers.pool import Pool
from sweeps.workers.worker import devices_each

LISTS = {
    "whole": "GPU 0: NVIDIA H200 (UUID: GPU-0f)\nGPU 1: NVIDIA H200 (UUID: GPU-1f)\nGPU 2: NVIDIA H200 (UUID: GPU-2f)",
    "divided": "GPU 0: NVIDIA H200 (UUID: GPU-0f)\n  MIG 1g.18gb     Device  0: (UUID: MIG-a1)\n"
    "  MIG 1g.18gb     Device  1: (UUID: MIG-b2)\nGPU 1: NVIDIA H200 (UUID: GPU-1f)",
}


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Return a function that makes a machine: its GPUs, and the memory that is in use of each."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    def make(gpus, *used):
        rows = "\n".join(f"{index}, GPU-{index}f, {memory}, 143771" for index, memory in enumerate(used))
        program = tmp_path / "nvidia-smi"
        program.write_text(f"#!/bin/sh\nif [ $1 = -L ]; then echo '{LISTS[gpus]}'; else echo '{rows}'; fi\n")
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    return make


def test_gpus_that_other_programs_fill_are_left_out_by_name(machine, capfd):
    machine("whole", 400, 99000, 60000)
    gpus = TrainingGpus()
    gpus.check("auto", 1)
    assert gpus.names == ["GPU-0f", "GPU-2f"]
    assert "GPU GPU-1f is left out: 99000 of 143771 MiB are in use by other programs" in capfd.readouterr().err


def test_if_all_gpus_are_filled_all_are_used_and_named(machine, capfd):
    machine("whole", 90000, 99000, 80000)
    gpus = TrainingGpus()
    gpus.warn()
    assert gpus.names == ["GPU-0f", "GPU-1f", "GPU-2f"]
    assert capfd.readouterr().err.count("is used, as all are") == 3


def test_of_a_divided_gpu_its_parts_are_used(machine):
    machine("divided", 100000, 5)
    assert gpus_to_use()[0] == ["MIG-a1", "MIG-b2", "GPU-1f"]


def test_without_nvidia_smi_no_gpus_are_known(monkeypatch, tmp_path):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gpus_to_use() == ([], [])


@pytest.mark.parametrize(
    ("listed", "gpus"),
    [
        ("0,1", ["0", "1"]),
        ("3", ["3"]),
        ("GPU-2f, GPU-0f", ["GPU-2f", "GPU-0f"]),
        ("MIG-a1,MIG-b2", ["MIG-a1", "MIG-b2"]),
        ("1,-1,0", ["1"]),
        ("", []),
        (None, None),
    ],
)
def test_listed_gpus_are_used_as_they_are_even_if_they_are_filled(machine, monkeypatch, listed, gpus):
    machine("whole", 99000, 99000, 99000)
    if listed is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", listed)
        assert gpus_to_use() == (gpus, [])
    assert listed_gpus() == gpus


@pytest.mark.parametrize(
    ("devices", "shares"),
    [
        (1, ["a", "b", "c", "d", "a"]),
        (2, ["ab", "cd", "ab"]),
        (3, ["abc", "dab"]),
        (5, ["abcd"]),
    ],
)
def test_each_slot_has_gpus_of_its_own_as_long_as_there_are_enough(devices, shares):
    assert ["".join(share_of("abcd", slot, devices)) for slot in range(len(shares))] == shares


def test_a_training_on_several_parts_of_gpus_is_refused():
    check_devices(["MIG-a1", "MIG-b2"], 1)
    check_devices(["GPU-0f", "GPU-1f"], 2)
    with pytest.raises(UserError, match=r"trainer\.devices is 2, but CUDA gives a process one part"):
        check_devices(["MIG-a1", "MIG-b2"], 2)


def test_trainings_on_the_cpu_need_no_warning_of_filled_gpus_and_may_have_several_processes(machine, capfd):
    machine("divided", 5, 99000)
    gpus = TrainingGpus()
    gpus.check("cpu", 2)
    gpus.warn()
    assert "GPU" not in capfd.readouterr().err
    with pytest.raises(UserError, match=r"trainer\.devices is 2, but"):
        gpus.check("gpu", 2)


SETUP = """
import os, sys
from sweeps.workers.job import Job
from sweeps.workers.process import setup_process

setup_process(Job([], gpus=["GPU-0f", "MIG-b2"], slot=1, log_file=sys.argv[1]), checks=sys.argv[2] == "checks")
print(os.environ["CUDA_VISIBLE_DEVICES"], flush=True)
os._exit(0)
"""


@pytest.mark.parametrize(("what", "seen"), [("trains", "MIG-b2"), ("checks", "GPU-0f,MIG-b2")])
def test_a_training_sees_the_gpus_of_its_slot_and_a_check_all_of_them(run_python, tmp_path, what, seen):
    assert run_python(SETUP, tmp_path / "log", what).code == 0
    assert (tmp_path / "log").read_text().splitlines()[-1] == seen


SHOWN = """
import os
from lightning.pytorch import Callback

class Shown(Callback):
    def on_fit_start(self, trainer, pl_module):
        with open("gpus-{}".format(trainer.max_epochs), "w") as file:
            file.write(os.environ["CUDA_VISIBLE_DEVICES"])
"""


@pytest.mark.slow
def test_trainings_in_different_slots_see_different_gpus(tmp_path, monkeypatch, uri):
    (tmp_path / "shown_gpus.py").write_text(SHOWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-0f,MIG-b2")
    keys = ["digits-mlp", "--data.n_train=100", "--trainer.accelerator=cpu", "--trainer.callbacks=shown_gpus.Shown"]
    with Pool(2, tmp_path) as pool:
        for epochs in (1, 2):
            arguments = [*keys, f"--trainer.max_epochs={epochs}"]
            pool.start(Job(arguments, experiment="digits-mlp", tracking_uri=uri))
        while pool.children:
            assert all(message[0] in ("epoch", "done") for child, message in pool.events(5) if not child.answer(False))
    assert [(tmp_path / f"gpus-{epochs}").read_text() for epochs in (1, 2)] == ["GPU-0f", "MIG-b2"]


@pytest.mark.parametrize("devices", ["[0,1]", "-1"])
def test_devices_of_a_sweep_are_a_number(litlab, tables, devices):
    keys = ["--seeds", "2", "--trainer.accelerator", "cpu", "--trainer.devices", devices]
    outcome = litlab("fit", "digits-mlp", *keys)
    assert outcome.code == 2
    assert "give the number of devices of each training" in outcome.err


@pytest.mark.parametrize(("given", "devices"), [([], 1), (["--trainer.devices", "2"], 2), (["--trainer.devices=3"], 3)])
def test_the_devices_of_each_training_are_counted(given, devices):
    assert devices_each(parse_config("fit", ["digits-mlp", "--trainer.accelerator", "cpu", *given])) == devices


@pytest.mark.parametrize(("gpus", "slots"), [(["0"], 4), (["0", "1"], 4), (["0", "1", "2"], 2), ([], 1)])
def test_the_sharers_of_a_gpu_are_the_slots_that_have_it(gpus, slots):
    shares = [share_of(gpus, slot, 1) for slot in range(slots)] if gpus else [[]]
    assert sharers(gpus, slots) == max(shares.count(share) for share in shares)
