"""Sweeps in which something goes wrong: what is recorded, what is left, and what the next call makes of it."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from multiprocessing import active_children, forkserver
from pathlib import Path

import pytest

PROGRAM = "import sys; from pipelines.cli import main; sys.exit(main())"


def until(condition, seconds=120):
    """Wait for something to become true."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)


def is_alive(pid):
    """Whether a process is there, and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] not in "ZX"
    except OSError:
        return False


def descendants(pid):
    """The processes that a process has started, and those that they have."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(") ")[2].split()[1])
        except OSError:
            continue
        if parent == pid:
            found += [int(folder.name), *descendants(int(folder.name))]
    return found


def meanwhile(condition, act):
    """Do something from another thread, once something has become true; returns the thread, to be joined."""

    def wait():
        until(condition)
        act()

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


@pytest.fixture
def start(tmp_path):
    """`litlab sweep` in a process and a session of its own."""
    begun = []

    def begin(*args):
        command = [sys.executable, "-c", PROGRAM, "sweep", *map(str, args)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        begun.append(subprocess.Popen(command, cwd=tmp_path, text=True, start_new_session=True, **pipes))
        return begun[-1]

    yield begin
    for process in begun:
        process.kill()
        process.communicate(timeout=60)


def running(kept):
    """Trials and runs that nobody has ended."""
    trials = [trial.number for trial in kept.trials if trial.state.name == "RUNNING"]
    return trials + [run.info.run_name for run in kept.runs if run.info.status == "RUNNING"]


def has_begun(kept):
    """Whether a training has its run."""
    return any(run.info.status == "RUNNING" for run in kept.children())


def test_each_way_to_fail_costs_one_trial_and_is_recorded_with_its_reason(litlab, moody, kept):
    moods = ["raises", "nan", "killed", "exits", "hangs", "fine"]
    outcome = litlab("sweep", "-c", moody({"model.mood": moods}), "--workers", "2", "--trial-timeout", "12s")
    assert outcome.code == 0, outcome.err
    reasons = {trial.params["model.mood"]: trial.user_attrs.get("reason") for trial in kept.trials}
    assert reasons["fine"] is None
    assert reasons["raises"] == "RuntimeError: out of luck"
    assert reasons["nan"].startswith("the training loss is nan")
    assert reasons["killed"].startswith("killed (SIGKILL)")
    assert reasons["exits"] == "SystemExit: 3"
    assert reasons["hangs"] == "ran longer than 12 s"
    assert kept.states.count("FAIL") == 5
    runs = {run.data.params["model.mood"]: run for run in kept.children()}
    for mood in ("raises", "nan", "killed", "hangs"):
        assert runs[mood].info.status == "FAILED"
        assert reasons[mood] in runs[mood].data.tags["litlab.reason"]
    assert "out of luck" in log_of(kept, runs["raises"])
    assert "best val/acc 0.5000" in outcome.out
    assert kept.parent.info.status == "FINISHED"


def test_a_sweep_runs_where_the_folder_for_temporary_files_is_too_long_a_path_for_sockets(
    moody, kept, start, tmp_path, monkeypatch
):
    long = tmp_path / ("long" * 25)
    long.mkdir()
    monkeypatch.setenv("TMPDIR", str(long))
    sweep = start("-c", moody({"model.mood": ["fine"]}))
    assert sweep.wait(timeout=120) == 0, sweep.stderr.read()
    assert kept.states == ["COMPLETE"]
    assert not list(long.iterdir())


def test_the_run_of_a_failed_trial_ends_as_failed_even_if_nobody_knew_of_it_when_the_trial_ended(litlab, moody, kept):
    sweep = "sweep", "-c", moody({"model.mood": ["killed", "fine"]}), "--trainer.max_epochs", "2"
    assert litlab(*sweep).code == 0
    (run,) = [run for run in kept.children() if run.data.params["model.mood"] == "killed"]
    kept.client.update_run(run.info.run_id, status="RUNNING")  # its worker died before it could say which run it had
    assert litlab(*sweep).code == 0
    again = kept.client.get_run(run.info.run_id)
    assert again.info.status == "FAILED"
    assert again.data.tags["litlab.reason"].startswith("killed (SIGKILL)")


def test_a_best_that_could_not_be_confirmed_is_said_and_the_same_command_tries_again(
    litlab, moody, kept, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    sweep = "sweep", "-c", moody({"model.mood": ["test raises"]}, confirm=1)
    outcome = litlab(*sweep)
    assert outcome.code == 1
    assert "1 of the runs that confirm the best failed. Run the same command to try them again." in outcome.err
    (tmp_path / "lucky").touch()
    assert litlab(*sweep).code == 0
    assert kept.parent.data.metrics["confirmed"] == 1
    assert kept.states == ["COMPLETE"]


def log_of(kept, run):
    """What a failed training had printed."""
    return (Path(run.info.artifact_uri.removeprefix("file://")) / "log.txt").read_text()


@pytest.mark.parametrize(("times", "number", "code"), [(1, signal.SIGINT, 130), (2, signal.SIGTERM, 143)])
def test_a_stopped_sweep_leaves_nothing_running_and_goes_on(litlab, moody, kept, times, number, code):
    space = moody({"model.slow": [0.0, 0.15, 0.151]})

    def stop():
        for _ in range(times):
            os.kill(os.getpid(), number)
            time.sleep(0.3)

    thread = meanwhile(lambda: kept.states == ["COMPLETE"] and has_begun(kept), stop)
    outcome = litlab("sweep", "-c", space, "--trainer.max_epochs", "1000", "--trainer.max_steps", "20")
    thread.join()
    assert outcome.code == code
    assert "litlab: stopped; 1 of 3 trials are done" in outcome.err
    assert "Traceback" not in outcome.err
    assert not running(kept)
    assert not active_children()
    assert kept.parent.info.status == "KILLED"
    assert litlab("sweep", "-c", space, "--trainer.max_epochs", "1000", "--trainer.max_steps", "20").code == 0
    assert kept.states == ["COMPLETE"] * 3
    assert not running(kept)


def test_a_child_and_the_server_of_all_children_can_be_killed(litlab, moody, kept):
    space = moody({"model.slow": [0.6, 0.601, 0.602]})

    def kill():
        os.kill(forkserver._forkserver._forkserver_pid, signal.SIGKILL)
        (child,) = active_children()
        os.kill(child.pid, signal.SIGKILL)

    thread = meanwhile(lambda: has_begun(kept), kill)
    outcome = litlab("sweep", "-c", space)
    thread.join()
    assert outcome.code == 0, outcome.err
    assert kept.states == ["FAIL", "COMPLETE", "COMPLETE"]
    assert not running(kept)
    assert [run.info.status for run in kept.children()] == ["FAILED", "FINISHED", "FINISHED"]


def test_a_study_has_one_controller_and_loses_nothing_when_that_is_killed(litlab, moody, kept, start):
    space = moody({"model.slow": [0.0, 0.5, 0.501]})
    controller = start("-c", space)
    until(lambda: kept.states == ["COMPLETE"] and has_begun(kept))
    second = litlab("sweep", "-c", space)
    assert second.code == 2
    assert f"process {controller.pid}" in second.err
    children = descendants(controller.pid)
    controller.kill()
    controller.communicate(timeout=60)
    until(lambda: not any(map(is_alive, children)), 30)
    first = kept.trials[0]
    outcome = litlab("sweep", "-c", space)
    assert outcome.code == 0, outcome.err
    assert kept.states == ["COMPLETE"] * 3
    assert kept.trials[0] == first
    assert not running(kept)


def test_two_controllers_share_a_study_where_the_storage_can_claim_trials(litlab, moody, kept_of, uri, start, tmp_path):
    journal = tmp_path / "study.journal"
    space = moody({"model.slow": [0.0, 0.05, 0.06, 0.07, 0.08, 0.09, 0.1, 0.11]})
    other = start("-c", space, "--storage", journal)
    kept = kept_of(uri, storage=str(journal))
    until(lambda: journal.exists() and has_begun(kept))
    outcome = litlab("sweep", "-c", space, "--storage", journal)
    _, err = other.communicate(timeout=120)
    assert (outcome.code, other.returncode) == (0, 0), outcome.err + err
    assert [trial.number for trial in kept.trials] == list(range(len(kept.trials)))
    assert kept.states == ["COMPLETE"] * 8
    assert len({trial.user_attrs["controller"] for trial in kept.trials}) == 2
    assert {int(run.data.tags["trial"]) for run in kept.children()} == {trial.number for trial in kept.counted}
    assert len(kept.children()) == 8
    assert not running(kept)


@pytest.mark.slow
def test_a_stop_while_the_best_is_confirmed_is_made_up_for_by_the_next_call(litlab, moody, kept):
    space = moody({"model.slow": [0.15]}, confirm=2)
    thread = meanwhile(lambda: any(r.info.status == "RUNNING" for r in kept.children("confirm")), interrupt)
    outcome = litlab("sweep", "-c", space)
    thread.join()
    assert outcome.code == 130
    assert not running(kept)
    assert litlab("sweep", "-c", space).code == 0
    tested = [run for run in kept.children("confirm") if run.info.status == "FINISHED"]
    assert sorted((run.data.tags["configuration"], run.data.tags["seed"]) for run in tested) == sorted(
        {(run.data.tags["configuration"], run.data.tags["seed"]) for run in tested}
    )
    assert {run.data.tags["seed"] for run in tested} == {"1", "2"}
    assert kept.parent.data.metrics["confirmed"] == 2
    assert len(kept.children()) == 1


def interrupt():
    os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
def test_killing_everything_at_random_moments_loses_nothing(litlab, moody, kept, start, seed):
    chance = random.Random(seed)
    space = moody({"model.slow": [number / 1000 for number in range(20, 26)]}, confirm=1)
    done = {}
    for _ in range(4):
        controller = start("-c", space, "--workers", "2")
        time.sleep(chance.uniform(2, 25))
        family = [controller.pid, *descendants(controller.pid)]
        for pid in family if chance.random() < 0.5 else family[:1]:
            if is_alive(pid):
                os.kill(pid, signal.SIGKILL)
        controller.communicate(timeout=60)
        until(lambda family=family: not any(map(is_alive, family)), 40)
        if kept.runs:
            assert {**done, **{trial.number: trial.value for trial in kept.counted}} == {
                trial.number: trial.value for trial in kept.counted
            }
            done = {trial.number: trial.value for trial in kept.counted}
    outcome = litlab("sweep", "-c", space)
    assert outcome.code == 0, outcome.err
    assert len(kept.states) == 6
    assert not running(kept)
    assert done.items() <= {trial.number: trial.value for trial in kept.counted}.items()
    finished = [run.data.tags["configuration"] for run in kept.children() if run.info.status == "FINISHED"]
    assert len(finished) == len(set(finished)) == 6, "nothing is trained twice"


@pytest.mark.slow
def test_ctrl_c_in_a_terminal_reaches_the_controller_only(litlab, moody, kept, start):
    """A terminal sends it to the whole group: the fork server is in it, the trainings are not."""
    space = moody({"model.slow": [0.3, 0.301]})
    for early in (1.5, 4.0):  # while everything is being imported, and the experiment is looked at
        controller = start("-c", space)
        time.sleep(early)
        os.killpg(controller.pid, signal.SIGINT)
        _, err = controller.communicate(timeout=60)
        assert controller.returncode in (130, -signal.SIGINT)
        assert "multiprocessing" not in err
    controller = start("-c", space)
    until(lambda: has_begun(kept))
    family = descendants(controller.pid)
    os.killpg(controller.pid, signal.SIGINT)
    _, err = controller.communicate(timeout=60)
    assert controller.returncode == 130
    assert "Traceback" not in err
    until(lambda: not any(map(is_alive, family)), 30)
    assert not running(kept)
    assert litlab("sweep", "-c", space).code == 0
    assert kept.states == ["COMPLETE"] * 2


DDP = ["--trainer.devices", "2", "--trainer.strategy", "ddp", "--trainer.accelerator", "cpu"]


@pytest.mark.slow
def test_a_trial_on_two_devices_is_one_trial_and_prunes_together(litlab, moody, kept):
    pruner = {"name": "median", "n_startup_trials": 1, "n_warmup_steps": 0}
    space = moody({"model.score": [0.9, 0.1]}, pruner=pruner, set={"trainer.max_epochs": 3})
    outcome = litlab("sweep", "-c", space, *DDP)
    assert outcome.code == 0, outcome.err
    assert kept.states == ["COMPLETE", "PRUNED"]
    assert kept.trials[0].value == pytest.approx(0.9)
    assert [run.info.status for run in kept.children()] == ["FINISHED", "KILLED"]
    assert kept.children()[1].data.tags["trial.state"] == "PRUNED"


@pytest.mark.slow
def test_a_second_device_that_fails_costs_one_trial(litlab, moody, kept):
    outcome = litlab("sweep", "-c", moody({"model.mood": ["second raises", "fine"]}), *DDP)
    assert outcome.code == 0, outcome.err
    assert kept.states == ["FAIL", "COMPLETE"]
    assert not running(kept)
    assert "out of luck on the second device" in log_of(kept, kept.children()[0])


@pytest.mark.slow
def test_the_seeds_that_were_done_before_ctrl_c_count_even_if_their_trial_becomes_the_best(litlab, moody, kept, start):
    space = moody({"model.score": [0.4, 0.8]}, seeds=2, set={"model.slow": 0.3})
    process = start("-c", space)
    until(lambda: [run for run in kept.children() if (run.data.tags["trial"], run.data.tags["seed"]) == ("1", "1")])
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 130
    outcome = litlab("sweep", "-c", space)
    assert outcome.code == 0, outcome.err
    assert kept.states == ["COMPLETE", "COMPLETE"]
    best = [run for run in kept.children() if run.data.params.get("model.score") == "0.8"]
    assert sorted(run.data.tags["seed"] for run in best if run.info.status == "FINISHED") == ["0", "1"]
    assert "checkpoints/best.ckpt" in kept.files(kept.parent)


def test_a_study_that_begins_anew_leaves_no_run_of_the_former_one_running(litlab, moody, kept, start):
    process = start("-c", moody({"model.score": [0.4, 0.8]}, set={"model.slow": 5.0}))
    until(lambda: has_begun(kept))
    for pid in [process.pid, *descendants(process.pid)]:
        os.kill(pid, signal.SIGKILL)
    process.wait(timeout=60)
    assert litlab("sweep", "-c", moody({"model.score": [0.3]})).code == 0
    assert running(kept) == []
    assert [trial.params for trial in kept.trials] == [{"model.score": 0.3}]
