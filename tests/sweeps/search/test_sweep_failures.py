"""Sweeps with faults: what is recorded, what is left over, and what the next call does with it."""

import os
import random
import signal
import subprocess
import threading
import time
from multiprocessing import active_children, forkserver
from pathlib import Path

import pytest


def until(condition, seconds=120):
    """Wait until a condition is true."""
    end, begun = time.monotonic() + seconds, time.monotonic()
    while not condition():
        assert time.monotonic() < end, "timed out"
        time.sleep(max(0.05, time.monotonic() - begun))  # to read a store takes time that the others need
        begun = time.monotonic()


def is_alive(pid):
    """Return whether a process exists and is not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] not in "ZX"
    except OSError:
        return False


def descendants(pid):
    """Return the processes that a process has started, directly or indirectly."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(") ")[2].split()[1])
        except OSError:
            continue
        if parent == pid:
            found += [int(folder.name), *descendants(int(folder.name))]
    return found


def act_when(condition, act):
    """Call `act` in another thread once a condition is true; return the thread, to be joined."""

    def wait():
        until(condition)
        act()

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


@pytest.fixture
def start(start_litlab, tmp_path):
    """Start `litlab sweep` in its own process and session."""
    started = []

    def run(*args):
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        started.append(start_litlab("sweep", *args, cwd=tmp_path, start_new_session=True, **pipes))
        return started[-1]

    yield run
    for process in started:
        process.kill()
        process.communicate(timeout=60)


def running(results):
    """Return the trials and runs that are still RUNNING."""
    trials = [trial.number for trial in results.trials if trial.state.name == "RUNNING"]
    return trials + [run.info.run_name for run in results.runs if run.info.status == "RUNNING"]


def has_begun(results):
    """Return whether a training has created its run."""
    return any(run.info.status == "RUNNING" for run in results.children())


def test_every_kind_of_failure_costs_one_trial_and_is_recorded_with_its_reason(litlab, moody, results):
    moods = ["raises", "nan", "killed", "exits", "hangs", "fine"]
    outcome = litlab("sweep", "-c", moody({"model.mood": moods}), "--workers", "2", "--trial-timeout", "12s")
    assert outcome.code == 0, outcome.err
    reasons = {trial.params["model.mood"]: trial.user_attrs.get("reason") for trial in results.trials}
    assert reasons["fine"] is None
    assert reasons["raises"] == "RuntimeError: out of luck"
    assert reasons["nan"].startswith("the training loss is nan")
    assert reasons["killed"].startswith("killed (SIGKILL)")
    assert reasons["exits"] == "SystemExit: 3"
    assert reasons["hangs"] == "ran longer than 12 s"
    assert results.states.count("FAIL") == 5
    runs = {run.data.params["model.mood"]: run for run in results.children()}
    for mood in ("raises", "nan", "killed", "hangs"):
        assert runs[mood].info.status == "FAILED"
        assert reasons[mood] in runs[mood].data.tags["litlab.reason"]
    assert "out of luck" in log_of(results, runs["raises"])
    assert "best single trial val/acc 0.5000" in outcome.out
    assert results.parent.info.status == "FINISHED"


@pytest.mark.slow
def test_a_sweep_runs_if_the_path_of_the_temporary_folder_is_too_long_for_sockets(
    moody, results, start, tmp_path, monkeypatch
):
    long = tmp_path / ("long" * 25)
    long.mkdir()
    monkeypatch.setenv("TMPDIR", str(long))
    sweep = start("-c", moody({"model.mood": ["fine"]}))
    assert sweep.wait(timeout=120) == 0, sweep.stderr.read()
    assert results.states == ["COMPLETE"]
    assert not list(long.iterdir())


@pytest.mark.slow
def test_the_next_call_marks_a_failed_trials_orphaned_run_as_failed(litlab, moody, results):
    sweep = "sweep", "-c", moody({"model.mood": ["killed", "fine"]}), "--trainer.max_epochs", "2"
    assert litlab(*sweep).code == 0
    (run,) = [run for run in results.children() if run.data.params["model.mood"] == "killed"]
    results.client.update_run(run.info.run_id, status="RUNNING")  # its worker died before it could report its run
    assert litlab(*sweep).code == 0
    again = results.client.get_run(run.info.run_id)
    assert again.info.status == "FAILED"
    assert again.data.tags["litlab.reason"].startswith("killed (SIGKILL)")


@pytest.mark.slow
def test_a_failed_confirmation_is_reported_and_the_same_command_repeats_it(
    litlab, moody, results, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    sweep = "sweep", "-c", moody({"model.mood": ["test raises"]}, confirm=1)
    outcome = litlab(*sweep)
    assert outcome.code == 1
    assert "1 of the runs that confirm the best failed. Run the same command to try them again." in outcome.err
    (tmp_path / "lucky").touch()
    assert litlab(*sweep).code == 0
    assert results.parent.data.metrics["confirmed"] == 1
    assert results.states == ["COMPLETE"]


def log_of(results, run):
    """Return the output of a failed training."""
    return (Path(run.info.artifact_uri.removeprefix("file://")) / "log.txt").read_text()


@pytest.mark.parametrize(
    ("times", "number", "code"), [(1, signal.SIGINT, 130), pytest.param(2, signal.SIGTERM, 143, marks=pytest.mark.slow)]
)
def test_a_stopped_sweep_leaves_nothing_running_and_continues(litlab, moody, results, times, number, code):
    space = moody({"model.slow": [0.0, 0.15, 0.151]})

    def stop():
        for _ in range(times):
            os.kill(os.getpid(), number)
            time.sleep(0.3)

    thread = act_when(lambda: results.states == ["COMPLETE"] and has_begun(results), stop)
    outcome = litlab("sweep", "-c", space, "--trainer.max_epochs", "1000", "--trainer.max_steps", "20")
    thread.join()
    assert outcome.code == code
    assert "litlab: stopped; 1 of 3 trials are done" in outcome.err
    assert "Traceback" not in outcome.err
    assert not running(results)
    assert not active_children()
    assert results.parent.info.status == "KILLED"
    assert litlab("sweep", "-c", space, "--trainer.max_epochs", "1000", "--trainer.max_steps", "20").code == 0
    assert results.states == ["COMPLETE"] * 3
    assert not running(results)


@pytest.mark.slow
def test_a_sweep_survives_the_death_of_a_worker_and_of_the_fork_server(litlab, moody, results):
    space = moody({"model.slow": [0.6, 0.601, 0.602]})

    def kill():
        os.kill(forkserver._forkserver._forkserver_pid, signal.SIGKILL)
        (child,) = active_children()
        os.kill(child.pid, signal.SIGKILL)

    thread = act_when(lambda: has_begun(results), kill)
    outcome = litlab("sweep", "-c", space)
    thread.join()
    assert outcome.code == 0, outcome.err
    assert results.states == ["FAIL", "COMPLETE", "COMPLETE"]
    assert not running(results)
    assert [run.info.status for run in results.children()] == ["FAILED", "FINISHED", "FINISHED"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["optuna.db", "study.journal"])
def test_a_study_has_one_controller_and_loses_nothing_when_it_is_killed(
    litlab, moody, results_of, uri, start, tmp_path, name
):
    storage = f"sqlite:///{tmp_path / name}" if name.endswith(".db") else str(tmp_path / name)
    results, command = results_of(uri, storage=storage), ["-c", moody({"model.slow": [0.0, 0.5, 0.501]})]
    command += ["--storage", storage]
    controller = start(*command)
    until(lambda: results.states == ["COMPLETE"] and has_begun(results))
    second = litlab("sweep", *command)
    assert second.code == 2
    assert f"process {controller.pid} of " in second.err
    status = litlab("sweep", "status", "study", "--storage", storage).out
    assert f"run by process {controller.pid} of " in status
    assert "1 running" in status
    children = descendants(controller.pid)
    controller.kill()
    controller.communicate(timeout=60)
    until(lambda: not any(map(is_alive, children)), 30)
    status = litlab("sweep", "status", "study", "--storage", storage).out
    assert "no controller is running" in status
    assert "1 running" not in status
    first = results.trials[0]
    outcome = litlab("sweep", *command)
    assert outcome.code == 0, outcome.err
    assert results.states == ["COMPLETE"] * 3
    assert results.trials[0] == first
    assert not running(results)


@pytest.mark.slow
def test_the_next_call_completes_a_confirmation_that_was_stopped(litlab, moody, results):
    space = moody({"model.slow": [0.15]}, confirm=2)
    thread = act_when(lambda: any(r.info.status == "RUNNING" for r in results.children("confirm")), interrupt)
    outcome = litlab("sweep", "-c", space)
    thread.join()
    assert outcome.code == 130
    assert not running(results)
    assert litlab("sweep", "-c", space).code == 0
    tested = [run for run in results.children("confirm") if run.info.status == "FINISHED"]
    assert sorted((run.data.tags["configuration"], run.data.tags["seed"]) for run in tested) == sorted(
        {(run.data.tags["configuration"], run.data.tags["seed"]) for run in tested}
    )
    assert {run.data.tags["seed"] for run in tested} == {"1", "2"}
    assert results.parent.data.metrics["confirmed"] == 2
    assert len(results.children()) == 1


def interrupt():
    os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
def test_killing_everything_at_random_moments_loses_nothing(litlab, moody, results, start, seed):
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
        if results.runs:
            assert {**done, **{trial.number: trial.value for trial in results.counted}} == {
                trial.number: trial.value for trial in results.counted
            }
            done = {trial.number: trial.value for trial in results.counted}
    outcome = litlab("sweep", "-c", space)
    assert outcome.code == 0, outcome.err
    assert len(results.states) == 6
    assert not running(results)
    assert done.items() <= {trial.number: trial.value for trial in results.counted}.items()
    finished = [run.data.tags["configuration"] for run in results.children() if run.info.status == "FINISHED"]
    assert len(finished) == len(set(finished)) == 6, "nothing is trained twice"


@pytest.mark.slow
def test_ctrl_c_in_a_terminal_interrupts_only_the_controller(litlab, moody, results, start):
    """A terminal sends SIGINT to its process group, which includes the fork server but not the trainings."""
    space = moody({"model.slow": [0.3, 0.301]})
    for early in (1.5, 4.0):  # during imports, and while the experiment is checked
        controller = start("-c", space)
        time.sleep(early)
        os.killpg(controller.pid, signal.SIGINT)
        _, err = controller.communicate(timeout=60)
        assert controller.returncode in (130, -signal.SIGINT)
        assert "multiprocessing" not in err
    controller = start("-c", space)
    until(lambda: has_begun(results))
    family = descendants(controller.pid)
    os.killpg(controller.pid, signal.SIGINT)
    _, err = controller.communicate(timeout=60)
    assert controller.returncode == 130
    assert "Traceback" not in err
    until(lambda: not any(map(is_alive, family)), 30)
    assert not running(results)
    assert litlab("sweep", "-c", space).code == 0
    assert results.states == ["COMPLETE"] * 2


DDP = ["--trainer.devices", "2", "--trainer.strategy", "ddp", "--trainer.accelerator", "cpu"]


@pytest.mark.slow
def test_a_trial_on_two_devices_is_one_trial_and_prunes_together(litlab, moody, results):
    pruner = {"name": "median", "n_startup_trials": 1, "n_warmup_steps": 0}
    space = moody({"model.score": [0.9, 0.1]}, pruner=pruner, set={"trainer.max_epochs": 3})
    outcome = litlab("sweep", "-c", space, *DDP)
    assert outcome.code == 0, outcome.err
    assert results.states == ["COMPLETE", "PRUNED"]
    assert results.trials[0].value == pytest.approx(0.9)
    assert [run.info.status for run in results.children()] == ["FINISHED", "KILLED"]
    assert results.children()[1].data.tags["trial.state"] == "PRUNED"


@pytest.mark.slow
def test_a_second_device_that_fails_costs_one_trial(litlab, moody, results):
    outcome = litlab("sweep", "-c", moody({"model.mood": ["second raises", "fine"]}), *DDP)
    assert outcome.code == 0, outcome.err
    assert results.states == ["FAIL", "COMPLETE"]
    assert not running(results)
    assert "out of luck on the second device" in log_of(results, results.children()[0])


@pytest.mark.slow
def test_seeds_that_finished_before_ctrl_c_count_even_if_their_trial_becomes_the_best(litlab, moody, results, start):
    space = moody({"model.score": [0.4, 0.8]}, seeds=2, set={"model.slow": 0.3})
    process = start("-c", space)
    until(lambda: [run for run in results.children() if (run.data.tags["trial"], run.data.tags["seed"]) == ("1", "1")])
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 130
    outcome = litlab("sweep", "-c", space)
    assert outcome.code == 0, outcome.err
    assert results.states == ["COMPLETE", "COMPLETE"]
    best = [run for run in results.children() if run.data.params.get("model.score") == "0.8"]
    assert sorted(run.data.tags["seed"] for run in best if run.info.status == "FINISHED") == ["0", "1"]
    assert "checkpoints/best.ckpt" in results.files(results.parent)


@pytest.mark.slow
def test_a_restarted_study_leaves_no_earlier_run_running(litlab, moody, results, start):
    process = start("-c", moody({"model.score": [0.4, 0.8]}, set={"model.slow": 5.0}))
    until(lambda: has_begun(results))
    for pid in [process.pid, *descendants(process.pid)]:
        os.kill(pid, signal.SIGKILL)
    process.wait(timeout=60)
    assert litlab("sweep", "-c", moody({"model.score": [0.3]})).code == 0
    assert running(results) == []
    assert [trial.params for trial in results.trials] == [{"model.score": 0.3}]
