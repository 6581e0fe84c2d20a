"""CirclesMLP: all four stages have the same gradients and the same training, on one process and on two."""

from pathlib import Path

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

from datamodules.circles import Circles
from modules.circles import CirclesMLP

STAGES = ["manual", "autograd", "nn", "optim"]


def _model(stage: str, inputs: int = 2, classes: int = 2, **options) -> CirclesMLP:
    torch.manual_seed(0)
    return CirclesMLP((inputs,), classes, stage, **options)


def _batch(inputs: int = 2, classes: int = 2, size: int = 12) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(size, inputs, dtype=torch.float64, generator=generator)
    return x, torch.randint(classes, (size,), generator=generator)


def _loss(model: CirclesMLP, batch: tuple[Tensor, Tensor]) -> float:
    """Mean cross-entropy, computed from its definition."""
    with torch.no_grad():
        p = model(batch[0]).exp()
    return float(-(p[range(len(p)), batch[1]] / p.sum(1)).log().mean())


@pytest.mark.parametrize("stage", STAGES)
def test_with_the_same_seed_all_stages_have_the_same_initial_weights(stage):
    parameters, manual = list(_model(stage).parameters()), list(_model("manual").parameters())
    assert [tuple(parameter.shape) for parameter in parameters] == [(10, 2), (10,), (2, 10), (2,)]
    assert all(torch.equal(a, b) for a, b in zip(parameters, manual, strict=True))


@pytest.mark.parametrize(("inputs", "classes", "hidden"), [(2, 2, 10), (5, 3, 7), (1, 2, 1)])
@pytest.mark.parametrize("stage", STAGES)
def test_the_gradients_of_each_stage_equal_finite_differences_and_the_manual_ones(stage, inputs, classes, hidden):
    model = _model(stage, inputs, classes, hidden=hidden).double()
    batch, h = _batch(inputs, classes), 1e-6
    loss, gradients = model.gradients(batch)
    assert float(loss.detach()) == pytest.approx(_loss(model, batch), rel=1e-12)
    for parameter, gradient in zip(model.parameters(), gradients, strict=True):
        for index in range(parameter.numel()):
            values = []
            for sign in (1, -1):
                with torch.no_grad():
                    parameter.view(-1)[index] += sign * h
                    values.append(_loss(model, batch))
                    parameter.view(-1)[index] -= sign * h
            assert float(gradient.reshape(-1)[index]) == pytest.approx((values[0] - values[1]) / (2 * h), abs=1e-8)
    manual = _model("manual", inputs, classes, hidden=hidden).double()
    for gradient, expected in zip(gradients, manual.gradients(batch)[1], strict=True):
        torch.testing.assert_close(gradient, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("stage", STAGES)
def test_large_logits_do_not_overflow(stage):
    model = _model(stage).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter *= 1e4
    loss, gradients = model.gradients(_batch())
    assert loss.isfinite()
    assert all(gradient.isfinite().all() for gradient in gradients)


@pytest.fixture
def circles() -> Circles:
    data = Circles(n_train=200, n_val=101, n_test=99, batch_size=10)
    data.setup("fit")
    data.setup("test")
    return data


@pytest.mark.parametrize("stage", STAGES)
def test_a_step_subtracts_the_learning_rate_times_the_gradient(stage, circles, make_trainer):
    model = _model(stage, lr=0.5)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    batch = next(iter(circles.train_dataloader()))
    _, gradients = _model("manual").double().gradients((batch[0].double(), batch[1]))
    make_trainer(max_steps=1).fit(model, circles)
    for after, start, gradient in zip(model.parameters(), before, gradients, strict=True):
        torch.testing.assert_close(after.detach(), start - 0.5 * gradient.float(), rtol=1e-5, atol=1e-6)


def test_all_stages_have_the_same_metrics_and_restore_the_best_epoch(circles, make_trainer, tmp_path):
    """After 120 steps in single precision, where the stages round differently, metrics agree to 1e-5."""
    metrics = {}
    for stage in STAGES:
        best = ModelCheckpoint(tmp_path / stage, "best", monitor="val/acc", mode="max")
        trainer, model = make_trainer(max_epochs=6, callbacks=[best], enable_checkpointing=True), _model(stage, lr=0.3)
        trainer.fit(model, circles)
        assert trainer.global_step == 120
        assert float(best.best_model_score) == float(
            torch.load(best.best_model_path)["callbacks"][best.state_key]["best_model_score"]
        )
        (tested,) = trainer.test(model, circles, ckpt_path=best.best_model_path, weights_only=True, verbose=False)
        metrics[stage] = {name: float(value) for name, value in {**trainer.callback_metrics, **tested}.items()}
    for stage in STAGES:
        assert set(metrics[stage]) >= {"test/loss", "test/acc"}
        assert metrics[stage] == pytest.approx(metrics["manual"], rel=1e-5)
    assert metrics["manual"]["test/loss"] < 0.6


@pytest.mark.parametrize("stage", STAGES)
def test_training_metrics_are_measured_before_each_step(stage, circles, make_trainer):
    model = _model(stage, lr=1e-12)
    trainer = make_trainer(max_epochs=1)
    trainer.fit(model, circles)
    loss = _loss(model.double(), (circles.train_set.inputs.double(), circles.train_set.targets))
    assert float(trainer.callback_metrics["train/loss"]) == pytest.approx(loss, rel=1e-5)


@pytest.mark.parametrize("stage", STAGES)
def test_each_stage_loads_from_a_checkpoint_with_weights_only(stage, circles, make_trainer, tmp_path):
    model, trainer = _model(stage, hidden=5, lr=0.2), make_trainer(max_epochs=1)
    trainer.fit(model, circles)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    loaded = CirclesMLP.load_from_checkpoint(tmp_path / "last.ckpt", weights_only=True)
    assert (loaded.stage, loaded.lr) == (stage, 0.2)
    assert torch.equal(loaded(circles.val_set.inputs), model(circles.val_set.inputs))


@pytest.mark.parametrize("stage", STAGES)
def test_each_stage_resumes_bit_identically(stage, circles, make_trainer, tmp_path):
    uninterrupted, half, resumed = (_model(stage) for _ in range(3))
    make_trainer(max_epochs=2).fit(uninterrupted, circles)
    first = make_trainer(max_epochs=1)
    first.fit(half, circles)
    first.save_checkpoint(tmp_path / "half.ckpt")
    make_trainer(max_epochs=2).fit(resumed, circles, ckpt_path=tmp_path / "half.ckpt", weights_only=True)
    assert all(torch.equal(a, b) for a, b in zip(uninterrupted.parameters(), resumed.parameters(), strict=True))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stage": "magic"}, r"model\.stage is 'magic'; it must be manual, autograd, nn or optim"),
        ({"lr": 0.0}, r"model\.lr is 0.0"),
        ({"hidden": 0}, r"model\.hidden has an entry below 1"),
    ],
)
def test_the_error_for_an_invalid_value_names_its_key(options, message):
    with pytest.raises(ValueError, match=message):
        CirclesMLP((2,), 2, **options)


TWO_PROCESSES = """
import sys
from pathlib import Path
import torch
from lightning.pytorch import Callback, Trainer
from datamodules.circles import Circles
from modules.circles import CirclesMLP

class SaveWeights(Callback):
    def teardown(self, trainer, model, stage):
        torch.save(list(model.parameters()), folder / f"{model.stage}-{trainer.global_rank}.pt")

folder = Path(sys.argv[1])
for stage in ("manual", "autograd", "nn", "optim"):
    torch.manual_seed(0)
    Trainer(
        accelerator="cpu", strategy="ddp_fork", devices=2, max_epochs=2, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0, callbacks=[SaveWeights()],
    ).fit(CirclesMLP((2,), 2, stage, lr=0.3), Circles(n_train=201, n_val=101, batch_size=20))
"""


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory, run_python) -> Path:
    """Folder with the final weights of each process, for each stage."""
    folder = tmp_path_factory.mktemp("two_processes")
    result = run_python(TWO_PROCESSES, folder)
    assert result.code == 0, result.err
    return folder


@pytest.mark.parametrize("stage", STAGES)
def test_two_processes_train_to_the_same_weights_as_one(stage, two_processes, make_trainer):
    """Including the last example of an epoch, which only one of them has."""
    data = Circles(n_train=201, n_val=101, batch_size=20)
    model = _model(stage, lr=0.3)
    make_trainer(max_epochs=2).fit(model, data)
    ranks = [torch.load(two_processes / f"{stage}-{rank}.pt", weights_only=True) for rank in (0, 1)]
    for expected, first, second in zip(model.parameters(), *ranks, strict=True):
        assert torch.equal(first, second)
        torch.testing.assert_close(first, expected, rtol=1e-5, atol=1e-6)
