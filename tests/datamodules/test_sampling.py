"""EpochSampler: a new order in each epoch, and every example exactly once for any number of processes."""

import json
from itertools import chain, combinations
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback

from datamodules.digits import Digits
from datamodules.sampling import PAD_INDEX, EpochSampler
from modules.linear import LinearClassifier


def _order(n: int = 251, *, seed: int = 0, epoch: int = 0, **options) -> list[int]:
    sampler = EpochSampler(range(n), **{"shuffle": True, "seed": seed, **options})
    sampler.set_epoch(epoch)
    assert len(sampler) == len(list(sampler))
    return list(sampler)


@pytest.mark.parametrize("epoch", [0, 1, 7])
def test_each_epoch_is_a_permutation(epoch):
    order = _order(epoch=epoch)
    assert sorted(order) == list(range(251))
    assert order != list(range(251))


def test_only_seed_and_epoch_determine_the_order():
    torch.manual_seed(1)
    first = _order(seed=3, epoch=2)
    torch.manual_seed(2)
    assert _order(seed=3, epoch=2) == first


def test_each_combination_of_seed_and_epoch_has_its_own_order():
    """With seed + epoch, (0, 1) and (1, 0) would have the same order."""
    orders = [_order(seed=seed, epoch=epoch) for seed in range(4) for epoch in range(4)]
    assert all(a != b for a, b in combinations(orders, 2))


def test_without_shuffling_the_order_is_that_of_the_data():
    assert _order(shuffle=False, epoch=0) == _order(shuffle=False, epoch=5) == list(range(251))


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("n", [1, 2, 250, 251, 252])
def test_in_evaluation_every_example_is_in_exactly_one_shard(n, world_size):
    shards = [_order(n, shuffle=False, rank=rank, world_size=world_size, epoch=4) for rank in range(world_size)]
    assert sorted(chain(*shards)) == list(range(n))
    assert max(map(len, shards)) - min(map(len, shards)) <= 1


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("n", [3, 250, 251, 252])
def test_in_training_all_shards_have_the_same_length_and_each_example_is_in_exactly_one(n, world_size):
    """Processes with different numbers of steps would deadlock."""
    shards = [_order(n, shuffle=True, rank=rank, world_size=world_size, epoch=4) for rank in range(world_size)]
    assert {len(shard) for shard in shards} == {-(-n // world_size)}
    assert sorted(index for index in chain(*shards) if index != PAD_INDEX) == list(range(n))
    assert all(PAD_INDEX not in shard[:-1] for shard in shards)


@pytest.mark.parametrize("world_size", [2, 4])
@pytest.mark.parametrize("n", [8, 241, 249, 250])
def test_in_each_step_all_processes_together_have_the_batch_of_a_single_process(n, world_size):
    """Also in the last step of an epoch, in which a process may have no examples."""
    size = 8 // world_size
    shards = [_order(n, rank=rank, world_size=world_size) for rank in range(world_size)]
    batches = [[shard[start : start + size] for start in range(0, len(shard), size)] for shard in shards]
    for step, step_batches in enumerate(zip(*batches, strict=True)):
        indices = {*chain(*step_batches)} - {PAD_INDEX}
        assert indices == set(_order(n)[8 * step : 8 * step + 8])


def test_padding_indices_yield_no_example():
    digits = Digits(n_train=250)
    digits.setup("fit")
    images, labels = digits.train_set.__getitems__([3, PAD_INDEX])
    assert torch.equal(labels, digits.train_set.targets[3:4])
    images, labels = digits.train_set.__getitems__([PAD_INDEX])
    assert images.shape == (0, 1, 28, 28)


@pytest.mark.parametrize(
    ("options", "world_size", "message"),
    [
        ({"batch_size": 50}, 4, r"data\.batch_size is 50, .* multiple of their number, which is 4"),
        ({"batch_size": 60, "n_train": 10}, 12, "10 training examples cannot be shared by 12 processes"),
        ({"batch_size": 60, "n_val": 10}, 12, "10 validation examples cannot be shared by 12 processes"),
    ],
)
def test_data_that_cannot_be_shared_by_the_processes_are_an_error(options, world_size, message):
    data = Digits(**options)
    data.setup("fit")
    with pytest.raises(ValueError, match=message):
        data.per_process_batch_size(world_size)


def test_the_default_seed_is_that_of_seed_everything(monkeypatch):
    monkeypatch.setenv("PL_GLOBAL_SEED", "5")
    assert list(EpochSampler(range(251), shuffle=True)) == _order(seed=5)
    monkeypatch.delenv("PL_GLOBAL_SEED")
    assert list(EpochSampler(range(251), shuffle=True)) == _order(seed=0)


class _RecordLabels(Callback):
    def __init__(self) -> None:
        self.epochs: list[list[int]] = []

    def on_train_epoch_start(self, trainer, pl_module) -> None:
        self.epochs.append([])

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        self.epochs[-1] += batch[1].tolist()


def test_a_trainer_keeps_the_sampler_and_sets_its_epoch(make_trainer, monkeypatch):
    monkeypatch.setenv("PL_GLOBAL_SEED", "11")
    data, recorder = Digits(n_train=251, batch_size=100), _RecordLabels()
    trainer = make_trainer(max_epochs=3, limit_val_batches=0, callbacks=[recorder], use_distributed_sampler=True)
    trainer.fit(LinearClassifier((1, 28, 28), 10), data)
    assert type(trainer.train_dataloader.sampler) is EpochSampler
    labels = data.train_set.targets
    assert recorder.epochs == [labels[_order(seed=11, epoch=epoch)].tolist() for epoch in range(3)]


TWO_PROCESSES = """
import json, sys
from pathlib import Path
from functools import partial
import torch
from lightning.pytorch import Callback, Trainer, seed_everything
from datamodules.digits import Digits
from modules.linear import LinearClassifier

class Record(Callback):
    def __init__(self, folder):
        self.folder, self.indices = folder, {"train": [], "val": [], "test": []}
    def on_train_epoch_start(self, trainer, model):
        self.indices["train"].append(trainer.train_dataloader.sampler.indices().tolist())
    def on_validation_epoch_start(self, trainer, model):
        self.indices["val"].append(trainer.val_dataloaders.sampler.indices().tolist())
    def on_test_epoch_start(self, trainer, model):
        self.indices["test"].append(trainer.test_dataloaders.sampler.indices().tolist())
    def teardown(self, trainer, model, stage):
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        record = json.dumps({"indices": self.indices, "metrics": metrics, "world_size": trainer.world_size})
        (self.folder / f"{stage.value}-{trainer.global_rank}.json").write_text(record)
        if stage == "fit":
            trainer.save_checkpoint(self.folder / "last.ckpt")

folder = Path(sys.argv[1])
seed_everything(3)
model = LinearClassifier((1, 28, 28), 10, optimizer=partial(torch.optim.Adam, lr=0.01))
data = Digits(n_train=251, n_val=251, batch_size=50)
data.setup("fit")  # in this process, because a forked process does not return its data
trainer = Trainer(
    accelerator="cpu", strategy="ddp_fork", devices=2, max_epochs=2, logger=False, enable_checkpointing=False,
    enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0, callbacks=[Record(folder)],
)
trainer.fit(model, data)
trainer.test(model, data, verbose=False)
"""


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory, run_python) -> Path:
    """Folder with the records of a fit and a test on two processes, one per stage and rank, and a checkpoint."""
    folder = tmp_path_factory.mktemp("two_processes")
    result = run_python(TWO_PROCESSES, folder)
    assert result.code == 0, result.err
    return folder


SETS = [("fit", "train", 251), ("fit", "val", 251), ("test", "test", 360)]


def _record(folder: Path, stage: str, rank: int) -> dict:
    return json.loads((folder / f"{stage}-{rank}.json").read_text())


@pytest.mark.parametrize(("stage", "split", "size"), SETS)
def test_two_processes_share_the_examples_of_each_epoch(two_processes, stage, split, size):
    first, second = (_record(two_processes, stage, rank) for rank in (0, 1))
    assert first["world_size"] == 2
    for first_shard, second_shard in zip(first["indices"][split], second["indices"][split], strict=True):
        if split == "train":
            assert len(first_shard) == len(second_shard) == 126
            assert sorted(first_shard + second_shard) == [PAD_INDEX, *range(size)]
        else:
            assert sorted(first_shard + second_shard) == list(range(size))


def test_two_processes_shuffle_by_seed_and_epoch(two_processes):
    orders = _record(two_processes, "fit", 0)["indices"]["train"]
    assert orders == [_order(seed=3, epoch=epoch, rank=0, world_size=2) for epoch in (0, 1)]


@pytest.mark.parametrize(("stage", "split"), [("fit", "val"), ("test", "test")])
def test_metrics_on_two_processes_equal_metrics_on_the_whole_set(two_processes, stage, split):
    model = LinearClassifier.load_from_checkpoint(two_processes / "last.ckpt", weights_only=True).eval()
    data = Digits(n_train=251, n_val=251)
    data.setup("fit")
    data.setup("test")
    dataset = getattr(data, f"{split}_set")
    with torch.no_grad():
        logits = model(data.normalize(dataset.inputs))
    correct = int((logits.argmax(1) == dataset.targets).sum())
    loss = torch.nn.functional.cross_entropy(logits, dataset.targets)
    for rank in (0, 1):
        metrics = _record(two_processes, stage, rank)["metrics"]
        assert metrics[f"{split}/acc"] == pytest.approx(correct / len(dataset), abs=1e-6)
        assert metrics[f"{split}/loss"] == pytest.approx(float(loss), rel=1e-5)
