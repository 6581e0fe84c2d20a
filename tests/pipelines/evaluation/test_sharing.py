"""The test over several processes: each example counts once, and the metrics and outputs are those of one process."""

import json
from types import SimpleNamespace

import pytest
import torch
from torch.utils.data import DataLoader

from datamodules.digits import Digits
from modules.mlp import MLP
from pipelines.config.cli import parse_config
from pipelines.evaluation.sharing import Share, why_not_shared
from pipelines.training.results import _share_ended

TESTS = """
import json, os, sys
from contextlib import nullcontext
from multiprocessing import get_context
from pathlib import Path

import torch
from lightning.pytorch import Trainer, seed_everything

from datamodules.circles import Circles
from datamodules.functions import Functions
from modules.functions import FunctionRegressor
from modules.mlp import MLP
from pipelines.evaluation.evaluate import _OutputCollector
from pipelines.evaluation.sharing import Share

CASES = {
    "classes": lambda: (MLP((2,), 2, hidden=(4,)), Circles(n_test=101)),
    "values": lambda: (FunctionRegressor((4,)), Functions(n_test=101)),
}


def measure(folder, rank, processes):
    share = None
    if processes > 1:
        file = f"file://{folder}/meeting-{processes}"
        torch.distributed.init_process_group("gloo", init_method=file, rank=rank, world_size=processes)
        share = Share(rank, processes, torch.device("cpu"))
        assert share.agree(Path("best.ckpt") if rank == 0 else None) == Path("best.ckpt")
    for name, make in CASES.items():
        seed_everything(3, verbose=False)
        (model, data), collector = make(), _OutputCollector()
        quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
        trainer = Trainer(accelerator="cpu", devices=1, callbacks=[collector], enable_model_summary=False, **quiet)
        with share.of_data(data) if share else nullcontext():
            (metrics,) = trainer.test(model, data, verbose=False)
        outputs = collector.outputs()
        own = {key: len(value) for key, value in outputs.items()}
        outputs = share.gather(outputs) if share else outputs
        found = {"metrics": metrics, "own": own, "outputs": {key: value.tolist() for key, value in outputs.items()}}
        Path(folder, f"{name}-{processes}-{rank}.json").write_text(json.dumps(found))
    if share:
        share.end()


for processes in (1, 2, 3):
    jobs = [(sys.argv[1], rank, processes) for rank in range(processes)]
    started = [get_context("fork").Process(target=measure, args=job) for job in jobs]
    for process in started:
        process.start()
    for process in started:
        process.join()
    assert not any(process.exitcode for process in started)
"""


@pytest.fixture(scope="module")
def measured(run_python, tmp_path_factory):
    """Return a function that reads what a process has measured."""
    folder = tmp_path_factory.mktemp("measured")
    done = run_python(TESTS, folder)
    assert done.code == 0, done.err
    return lambda name, processes, rank=0: json.loads((folder / f"{name}-{processes}-{rank}.json").read_text())


@pytest.mark.parametrize("processes", [2, 3])
@pytest.mark.parametrize("name", ["classes", "values"])
def test_several_processes_measure_each_example_once(measured, name, processes):
    """101 examples are shared by neither two nor three processes evenly."""
    alone, shares = measured(name, 1), [measured(name, processes, rank) for rank in range(processes)]
    assert alone["outputs"]
    for key, values in alone["outputs"].items():
        assert sum(share["own"][key] for share in shares) == len(values) == 101
        assert max(share["own"][key] for share in shares) < 101
        for share in shares:
            torch.testing.assert_close(torch.tensor(share["outputs"][key]), torch.tensor(values))
    assert all(share["metrics"] == pytest.approx(alone["metrics"], rel=1e-6) for share in shares)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["digits-mlp"], ""),
        (["digits-mlp", "--trainer.limit_test_batches=2"], "trainer.limit_test_batches is set"),
        (["digits-mlp", "--trainer.callbacks+=modules.probes.ShiftSensitivity"], "ShiftSensitivity looks at all"),
        (["digits-mlp", "--model=modules.whitened_convnet.WhitenedConvNet"], "WhitenedConvNet overrides test_step"),
    ],
)
def test_a_test_that_would_not_be_exact_is_not_shared(make_trainer, arguments, reason):
    cli = parse_config("fit", arguments)
    data, model = cli.build()
    data.setup("test")
    assert why_not_shared(cli, model, data, make_trainer()).startswith(reason)
    assert bool(why_not_shared(cli, model, data, make_trainer())) == bool(reason)


class OwnLoader(Digits):
    def test_dataloader(self):
        return DataLoader(self.test_set, batch_size=10)


class Counting(MLP):
    def on_test_batch_end(self, *args):
        """Would see the examples of one process only."""


@pytest.mark.parametrize(
    ("data", "model", "reason"),
    [
        (OwnLoader(), MLP((1, 28, 28), 10), "OwnLoader overrides test_dataloader"),
        (Digits(), Counting((1, 28, 28), 10), "Counting overrides on_test_batch_end"),
    ],
)
def test_a_test_is_not_shared_if_its_loader_or_hooks_are_not_those_of_litlab(make_trainer, data, model, reason):
    data.setup("test")
    assert why_not_shared(parse_config("fit", ["digits-mlp"]), model, data, make_trainer()) == reason


def test_a_test_is_not_shared_if_the_module_logs_values_that_are_not_added_up(make_trainer):
    class Logging(MLP):
        def on_validation_epoch_end(self):
            super().on_validation_epoch_end()
            self.log("val/norm", self.device.index or 0.0)

    cli, data = parse_config("fit", ["digits-mlp"]), Digits(n_train=100)
    for model, reason in ((MLP((1, 28, 28), 10), ""), (Logging((1, 28, 28), 10), "val/norm is not one of the metrics")):
        trainer = make_trainer(max_epochs=1)
        trainer.fit(model, data)
        data.setup("test")
        assert why_not_shared(cli, model, data, trainer).startswith(reason)
        assert bool(why_not_shared(cli, model, data, trainer)) == bool(reason)


def test_an_interruption_stays_one_if_the_processes_that_share_the_test_are_gone():
    training = SimpleNamespace(share=Share(0, 2, torch.device("cpu")))  # nothing connects it to the other process
    with pytest.raises(KeyboardInterrupt), _share_ended(training):
        raise KeyboardInterrupt
    assert training.share is None
