"""OneCycle and Linear: their shape, their length, and resuming."""

import math
from functools import partial

import pytest
import torch
from lightning.pytorch import Callback

from datamodules.digits import Digits
from modules.linear import LinearClassifier
from modules.schedules import Linear, OneCycle

SHAPE = (1, 28, 28)
SGD = partial(torch.optim.SGD, lr=0.1)


class _RecordRates(Callback):
    """Record the learning rate of each step; optionally stop the training after some epochs."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.rates: list[float] = []
        self.stop_after = stop_after

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    def on_train_epoch_end(self, trainer, pl_module) -> None:
        if self.stop_after is not None and trainer.current_epoch + 1 == self.stop_after:
            trainer.should_stop = True


def _one_cycle(step: int, steps: int, warmup: float) -> float:
    """Linear warmup from 0.1 / 25 to 0.1, then cosine annealing to 0."""
    progress = step / steps
    if progress < warmup:
        return 0.1 * (1 / 25 + 24 / 25 * progress / warmup)
    return 0.1 * math.cos(math.pi / 2 * (progress - warmup) / (1 - warmup)) ** 2


def _expected(steps: int, warmup: float = 0.3) -> list[float]:
    return [_one_cycle(step, steps, warmup) for step in range(steps)]


def _model(seed: int = 0, **options) -> LinearClassifier:
    torch.manual_seed(seed)
    return LinearClassifier(SHAPE, 10, **{"optimizer": SGD, "lr_scheduler": OneCycle, **options})


def _last_rate(trainer) -> float:
    return trainer.optimizers[0].param_groups[0]["lr"]


@pytest.mark.parametrize("interval", ["epoch", "step"])
def test_the_rate_peaks_after_the_warmup_and_ends_at_zero(interval, digits, make_trainer):
    recorder = _RecordRates()
    trainer = make_trainer(max_epochs=4, callbacks=[recorder])
    trainer.fit(_model(lr_scheduler=partial(OneCycle, warmup=0.25), lr_interval=interval), digits)
    assert recorder.rates == pytest.approx(_expected(20, 0.25), abs=1e-12)
    assert recorder.rates.index(max(recorder.rates)) == 5  # a quarter of 4 epochs of 5 steps
    assert max(recorder.rates) == pytest.approx(0.1)
    assert _last_rate(trainer) == pytest.approx(0, abs=1e-12)


def test_without_warmup_it_is_cosine_annealing(digits, make_trainer):
    recorder = _RecordRates()
    make_trainer(max_epochs=3, callbacks=[recorder]).fit(_model(lr_scheduler=partial(OneCycle, warmup=0)), digits)
    assert recorder.rates[0] == pytest.approx(0.1)
    assert recorder.rates == pytest.approx([0.05 * (1 + math.cos(math.pi * step / 15)) for step in range(15)])


def test_a_linear_schedule_falls_in_each_step_to_zero(digits, make_trainer):
    recorder = _RecordRates()
    trainer = make_trainer(max_epochs=2, callbacks=[recorder])
    trainer.fit(_model(lr_scheduler=Linear), digits)
    assert recorder.rates == pytest.approx([0.1 * (1 - step / 10) for step in range(10)])
    assert _last_rate(trainer) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(
    ("loading", "training", "steps"),
    [
        ({"n_train": 250, "batch_size": 60}, {"max_epochs": 3}, 15),
        ({"n_train": 250, "batch_size": 100}, {"max_epochs": 3}, 9),
        ({"n_train": 100, "batch_size": 60}, {"max_epochs": 5}, 10),
        ({"n_train": 250, "batch_size": 60}, {"max_epochs": 3, "limit_train_batches": 2}, 6),
        ({"n_train": 250, "batch_size": 60}, {"max_epochs": 2, "accumulate_grad_batches": 2}, 6),
        ({"n_train": 250, "batch_size": 60}, {"max_epochs": -1, "max_steps": 7}, 7),
    ],
)
def test_it_spans_the_whole_training(loading, training, steps, make_trainer):
    trainer = make_trainer(**training, limit_val_batches=0)
    trainer.fit(_model(), Digits(n_val=20, **loading))
    (config,) = trainer.lr_scheduler_configs
    assert config.scheduler.total_steps == trainer.estimated_stepping_batches == trainer.global_step == steps
    assert _last_rate(trainer) == pytest.approx(0, abs=1e-12)


def test_each_parameter_group_keeps_its_own_maximum_rate(digits, make_trainer):
    def two_rates(parameters) -> torch.optim.Optimizer:
        weight, bias = parameters
        return torch.optim.SGD([{"params": [weight], "lr": 0.1}, {"params": [bias], "lr": 0.2}])

    trainer = make_trainer(max_epochs=2, max_steps=6)
    trainer.fit(_model(optimizer=two_rates), digits)
    (small, large) = (group["lr"] for group in trainer.optimizers[0].param_groups)
    assert (small, large) == (pytest.approx(_one_cycle(6, 6, 0.3), abs=1e-12), pytest.approx(2 * small, abs=1e-12))


def test_a_training_without_an_end_is_an_error_before_its_first_step(digits, make_trainer):
    trainer = make_trainer(max_epochs=-1)
    with pytest.raises(ValueError, match=r"model\.lr_scheduler OneCycle needs .* set trainer\.max_epochs"):
        trainer.fit(_model(), digits)
    assert trainer.global_step == 0


@pytest.mark.parametrize("warmup", [-0.1, 1.0, 1.5, float("nan")])
def test_the_error_for_a_warmup_out_of_range_names_its_key(warmup):
    with pytest.raises(ValueError, match=rf"model\.lr_scheduler\.warmup is {warmup}"):
        _model(lr_scheduler=partial(OneCycle, warmup=warmup)).configure_optimizers()


def test_a_stopped_training_resumes_on_its_schedule(digits, make_trainer, tmp_path):
    all_rates, resumed_rates = _RecordRates(), _RecordRates()
    first, resumed = make_trainer(max_epochs=4, callbacks=[_RecordRates(stop_after=2)]), _model()
    uninterrupted = _model()
    make_trainer(max_epochs=4, callbacks=[all_rates]).fit(uninterrupted, digits)
    first.fit(_model(), digits)
    first.save_checkpoint(tmp_path / "half.ckpt")
    make_trainer(max_epochs=4, callbacks=[resumed_rates]).fit(
        resumed, digits, ckpt_path=tmp_path / "half.ckpt", weights_only=True
    )
    assert resumed_rates.rates == all_rates.rates[10:] == pytest.approx(_expected(20)[10:])
    assert all(torch.equal(a, b) for a, b in zip(resumed.parameters(), uninterrupted.parameters(), strict=True))


def test_a_resumed_longer_training_continues_on_the_longer_schedule(digits, make_trainer, tmp_path):
    """Two epochs end with a rate of zero; without a longer schedule, two more epochs would learn nothing."""
    first, resumed_rates = make_trainer(max_epochs=2), _RecordRates()
    first.fit(_model(), digits)
    first.save_checkpoint(tmp_path / "half.ckpt")
    longer = make_trainer(max_epochs=4, callbacks=[resumed_rates])
    longer.fit(_model(), digits, ckpt_path=tmp_path / "half.ckpt", weights_only=True)
    assert resumed_rates.rates[1:] == pytest.approx(_expected(20)[11:])  # the first step uses the saved rate
    assert _last_rate(longer) == pytest.approx(0, abs=1e-12)
