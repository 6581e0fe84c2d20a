"""`litlab sweep --stacked`: trials that are trained together have the results of separate trainings."""

import json
import os
import signal
import threading
import time
from collections.abc import Callable
from multiprocessing import Pipe, active_children, connection

import pytest
import torch
import yaml

from pipelines.tracking.store import Store
from sweeps.workers import worker
from sweeps.workers.job import Job
from sweeps.workers.process import send
from sweeps.workers.stacked_trials import Trials

QUICK = ["--trainer.max_epochs=2", "--trainer.enable_progress_bar=false", "--trainer.accelerator=cpu"]
DIGITS = ["digits-mlp", "--data.n_train=300", "--model.hidden=[16, 8]", *QUICK]
ONE_CYCLE = "--model.lr_scheduler=modules.schedules.OneCycle"
SGD = "--model.optimizer=SGD"
CONVNET = ["digits-convnet", "--data.n_train=150", "--model.channels=[4, 6]", "--model.hidden=[8]", *QUICK]
MOMENTUM = [SGD, "--model.optimizer.momentum=0.9", "--model.optimizer.nesterov=true"]

Trained = list[tuple[str, list[tuple]]]


@pytest.fixture
def trained(uri) -> Callable[..., Trained]:
    """Trains jobs, together or separately; returns the run id and the messages of each."""

    def train(commands, *, together=True, stop=lambda number, epoch: False, metric=None):
        jobs = [
            Job(argv, seed, "stack", uri, values=values_of(argv), run_name=str(number), metric=metric, pruner="mine")
            for number, (seed, argv) in enumerate(commands)
        ]
        ours, theirs = zip(*(Pipe() for _ in jobs), strict=True)
        received = [[] for _ in jobs]
        controller = threading.Thread(target=_listen, args=(ours, received, stop))
        controller.start()
        if together:
            Trials(jobs, list(theirs)).train()
        else:
            for job, pipe in zip(jobs, theirs, strict=True):
                send(pipe, ("done", worker._train(job, pipe)))
        controller.join()
        return [(messages[0][1], messages) for messages in received]

    return train


def values_of(argv):
    """Return the learning rate of the arguments, which the controller would have searched."""
    found = [argument.removeprefix("--model.optimizer.lr=") for argument in argv if "optimizer.lr=" in argument]
    return {"model.optimizer.lr": float(found[0])} if found else {}


def _listen(pipes, received, stop):
    numbers = {pipe: number for number, pipe in enumerate(pipes)}
    while numbers:
        for pipe in connection.wait(list(numbers)):
            number, message = numbers[pipe], pipe.recv()
            received[number].append(message)
            if message[0] == "epoch":
                pipe.send(stop(number, message[1]))
            elif message[0] != "run":
                del numbers[pipe]


def metrics_of(run):
    entries = [json.loads(line) for line in run.file("metrics.jsonl").read_text().splitlines()]
    return [
        {key: value for key, value in entry.items() if key not in ("timestamp", "fit_seconds")} for entry in entries
    ]


def flatten(value, path=()):
    """Return all values of a checkpoint by path."""
    if isinstance(value, dict):
        return {k: v for key, part in value.items() for k, v in flatten(part, (*path, key)).items()}
    if isinstance(value, list | tuple):
        return flatten(dict(enumerate(value)), path)
    return {path: value}


def assert_same_checkpoint(one, other):
    ours, theirs = (flatten(torch.load(run, weights_only=True)) for run in (one, other))
    assert ours.keys() == theirs.keys()
    # Time, length of the metrics file, and whether another epoch was about to start.
    changing = [("litlab", "seconds"), ("litlab", "metrics")]
    for path in ours.keys() - set(changing):
        if "epoch_progress" in path and path[-1] == "ready":
            continue
        if isinstance(ours[path], torch.Tensor):
            rounding = 2e-3 if ours[path].dtype == torch.half else 1e-4
            torch.testing.assert_close(theirs[path], ours[path], rtol=rounding, atol=1e-5)
        elif isinstance(ours[path], float):
            assert theirs[path] == pytest.approx(ours[path], rel=1e-4, abs=1e-6), path
        else:
            assert theirs[path] == ours[path], path


@pytest.mark.parametrize(
    "commands",
    [
        [
            (0, [*DIGITS, ONE_CYCLE, "--model.optimizer.lr=0.01"]),
            (1, [*DIGITS, ONE_CYCLE, "--model.dropout=0.5", "--model.label_smoothing=0.1"]),
            (0, [*DIGITS, "--model.dropout=0.0", "--model.optimizer=AdamW", "--model.optimizer.weight_decay=0.1"]),
        ],
        [(0, [*DIGITS, *MOMENTUM, f"--model.optimizer.lr={lr}"]) for lr in (0.01, 0.02)],
        pytest.param(
            [(seed, ["circles-optim", *QUICK, f"--model.lr={0.1 * (1 + seed)}"]) for seed in (0, 1)],
            marks=pytest.mark.slow,
        ),
        [
            (seed, [*DIGITS, f"--model.dropout=0.{seed}", "--data.crop_padding=1", "--data.evaluate_train=true"])
            for seed in (0, 1)
        ],
        [
            (0, [*CONVNET, "--model.conv_dropout=0.2", "--model.dropout=0.0", "--model.label_smoothing=0.1"]),
            (1, [*CONVNET, "--model.dropout=0.5", "--model.optimizer.lr=0.0001"]),
            (1, [*CONVNET, "--model.dropout=0.1", "--model.init=he"]),
        ],
        pytest.param(
            [(seed, ["diabetes-mlp", *QUICK, f"--model.dropout=0.{seed}"]) for seed in (0, 1)], marks=pytest.mark.slow
        ),
    ],
    ids=["dropout and schedule", "same batches, momentum", "circles", "augmented", "convnet", "regression"],
)
def test_stacked_trials_equal_separate_trainings_up_to_rounding(trained, uri, commands):
    store = Store(uri)
    separate, stack = trained(commands, together=False), trained(commands)
    for (one_id, expected), (other_id, actual) in zip(separate, stack, strict=True):
        one, other = store.find(one_id), store.find(other_id)
        assert [message[:2] for message in expected[1:-1]] == [message[:2] for message in actual[1:-1]]
        assert actual[-1][0] == expected[-1][0] == "done"
        assert [m[2] for m in actual[1:-1]] == pytest.approx([m[2] for m in expected[1:-1]], rel=1e-5, abs=1e-6)
        for before, after in zip(metrics_of(one), metrics_of(other), strict=True):
            assert flatten(after) == pytest.approx(flatten(before), rel=1e-4, abs=1e-6)
        assert other.status == one.status == "FINISHED"
        changing = ("litlab.key", "stacked")
        assert {k: v for k, v in other.tags.items() if k not in changing} == {
            k: v for k, v in one.tags.items() if k not in changing
        }
        assert other.file("config.yaml").read_text() == one.file("config.yaml").read_text()
        for name in ("best", "last"):
            paths = [run.file(f"checkpoints/{name}.ckpt") for run in (one, other)]
            assert_same_checkpoint(*paths)


def test_a_softmax_regression_can_be_stacked(trained, uri, small):
    commands = [(seed, [*small("mnist-linear"), *QUICK, "--data.n_train=200"]) for seed in (0, 1)]
    one, other = ([messages[-1][1] for _, messages in trained(commands, together=way)] for way in (False, True))
    for before, after in zip(one, other, strict=True):
        compared = {key: value for key, value in before.items() if key != "fit_seconds"}
        assert {key: after[key] for key in compared} == pytest.approx(compared, rel=1e-4, abs=1e-6)


def test_a_pruned_or_failed_trial_does_not_change_the_others(trained, uri):
    argv = [*DIGITS, SGD, "--trainer.max_epochs=3"]
    commands = [
        (seed, [*argv, f"--model.optimizer.lr={lr}"]) for seed, lr in ((0, 0.1), (0, 1e30), (1, 0.05), (2, 0.1))
    ]
    ends = trained(commands, stop=lambda number, epoch: (number, epoch) == (2, 2))
    runs = [Store(uri).find(run_id) for run_id, _ in ends]
    assert [messages[-1][0] for _, messages in ends] == ["done", "failed", "pruned", "done"]
    assert [run.status for run in runs] == ["FINISHED", "FAILED", "KILLED", "FINISHED"]
    assert "the training loss is nan at step" in runs[1].tags["litlab.reason"]
    assert runs[2].tags["litlab.reason"] == "pruned after epoch 1 (mine)"
    assert [entry["epoch"] for entry in metrics_of(runs[2])] == [0, 0, 1, 1], "its metrics are kept"
    for number in (0, 3):
        ((alone, _),) = trained([commands[number]])
        assert list(map(flatten, metrics_of(runs[number]))) == [
            pytest.approx(flatten(entry), rel=1e-4, abs=1e-6) for entry in metrics_of(Store(uri).find(alone))
        ]


def test_flips_alternate_after_the_first_trial_has_left(trained, uri):
    argv = [*DIGITS, SGD, "--trainer.max_epochs=3", "--data.flip=alternate"]
    commands = [(seed, [*argv, "--model.optimizer.lr=0.1"]) for seed in (0, 1)]
    (_, (run_id, messages)) = trained(commands, stop=lambda number, epoch: number == 0)
    ((alone, _),) = trained(commands[1:], together=False)
    assert messages[-1][0] == "done"
    assert list(map(flatten, metrics_of(Store(uri).find(run_id)))) == [
        pytest.approx(flatten(entry), rel=1e-4, abs=1e-6) for entry in metrics_of(Store(uri).find(alone))
    ]


def test_a_space_with_data_keys_is_refused_before_the_first_trial(litlab, results):
    outcome = litlab("sweep", "digits-mlp", "--stacked", "4")
    assert outcome.code == 2
    assert "space: data.batch_size must be the same in trials that are stacked" in outcome.err
    assert not results.runs


@pytest.fixture
def space(tmp_path):
    """A grid of four trials of digits-mlp."""
    path = tmp_path / "study.yaml"
    grid = {"model.dropout": [0.0, 0.3], "model.optimizer.lr": [0.001, 0.01]}
    fixed = {"data.n_train": 200, "model.hidden": [8], "trainer.max_epochs": 2}
    path.write_text(
        yaml.safe_dump({"experiment": "digits-mlp", "sampler": "grid", "confirm": 0, "space": grid, "set": fixed})
    )
    return path


@pytest.mark.slow
def test_a_stacked_sweep_has_the_trials_of_a_sweep_without_stacks(litlab, results, results_of, space):
    assert litlab("sweep", "-c", space, "--study", "separate").code == 0
    outcome = litlab("sweep", "-c", space, "--stacked", "3", "--seeds", "1")
    assert outcome.code == 0, outcome.err
    separate = results_of(results.uri, "separate")
    assert results.states == ["COMPLETE"] * 4
    assert {run.data.tags["stacked"] for run in results.children()} == {"3", "1"}
    for trial, other in zip(results.trials, separate.trials, strict=True):
        assert trial.params == other.params
        assert trial.value == pytest.approx(other.value)
        assert trial.intermediate_values == pytest.approx(other.intermediate_values)
    names = [{tuple(sorted(run.data.params.items())) for run in study.children()} for study in (results, separate)]
    assert names[0] == names[1]
    assert litlab("validate", results.parent.info.run_id).code == 0


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_stopped_or_killed_stack_leaves_no_active_run(litlab, results, space, number):
    """Ctrl-C goes to the controller, SIGKILL to its child process, which all trials of the stack share."""

    def end():
        limit = time.monotonic() + 120
        while [run.info.status for run in results.children()] != ["RUNNING"] * 4 and time.monotonic() < limit:
            time.sleep(0.1)
        os.kill(os.getpid() if number == signal.SIGINT else active_children()[0].pid, number)

    thread = threading.Thread(target=end)
    thread.start()
    outcome = litlab("sweep", "-c", space, "--stacked", "4", "--trainer.max_epochs", "1000")
    thread.join()
    assert not active_children()
    assert {trial.state.name for trial in results.trials if trial.state.name != "WAITING"} == {"FAIL"}
    states = [run.info.status for run in results.children()]
    if number == signal.SIGINT:
        assert (outcome.code, states, results.states) == (130, ["KILLED"] * 4, [])
    else:
        assert (outcome.code, states, results.states) == (1, ["FAILED"] * 4, ["FAIL"] * 4)
    assert "Traceback" not in outcome.err
