"""Speed options do not change the training."""

from functools import partial
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint

from datamodules.digits import Digits
from modules.circles import CirclesMLP
from modules.convnet import ConvNet
from modules.functions import FunctionRegressor
from modules.mlp import MLP
from modules.schedules import OneCycle
from modules.speed import Compile, CudaGraph, TensorFloat32, find_networks, flush_denormals


def _trained(make_trainer, *callbacks, **options):
    torch.manual_seed(3)
    sgd = partial(torch.optim.SGD, lr=0.01)
    model = ConvNet((1, 28, 28), 10, channels=(4,), hidden=(16,), batch_norm=True, optimizer=sgd)
    trainer = make_trainer(max_epochs=2, callbacks=list(callbacks), **options)
    trainer.fit(model, Digits(n_train=99, n_val=101, batch_size=40))
    return model, {key: float(value) for key, value in trainer.callback_metrics.items()}


@pytest.fixture
def uncompiled(make_trainer):
    return _trained(make_trainer)


def test_channels_last_changes_outputs_by_rounding_only():
    torch.manual_seed(3)
    model, images = ConvNet((3, 16, 16), 10, channels=(4, 6), hidden=(16,), batch_norm=True), torch.rand(5, 3, 16, 16)
    contiguous = ConvNet((3, 16, 16), 10, channels=(4, 6), hidden=(16,), batch_norm=True).to(
        memory_format=torch.contiguous_format
    )
    contiguous.load_state_dict(model.state_dict())
    weights = [weight for weight in model.parameters() if weight.ndim == 4]
    assert all(weight.is_contiguous(memory_format=torch.channels_last) for weight in weights)
    assert not any(weight.is_contiguous(memory_format=torch.channels_last) for weight in contiguous.parameters())
    torch.testing.assert_close(model(images), contiguous(images))


def test_denormals_are_zero_only_inside_the_context():
    denormals = torch.full((8,), 1e-39)
    with flush_denormals():
        assert not (denormals * 1.0).any()
    assert (denormals * 1.0).all()


@pytest.mark.slow
def test_a_compiled_network_has_the_same_metrics_and_parameter_names(make_trainer, uncompiled):
    """With TorchDynamo but without the C++ compiler, which takes minutes."""
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    model, metrics = _trained(make_trainer, Compile(backend=backend))
    assert graphs, "nothing was compiled"
    assert metrics == pytest.approx(uncompiled[1], rel=1e-4)
    assert list(model.state_dict()) == list(uncompiled[0].state_dict())
    assert all("forward" not in vars(net) for net in find_networks(model)), "forward was not restored after training"


def test_evaluation_is_not_compiled(make_trainer):
    shapes_of_graphs = []

    def backend(graph, inputs):
        shapes_of_graphs.append([tuple(x.shape) for x in inputs if isinstance(x, torch.Tensor) and x.ndim == 4])
        return graph.forward

    _trained(make_trainer, Compile(backend=backend))
    assert not any(shape[0] == 101 for shapes in shapes_of_graphs for shape in shapes)


def test_the_outermost_networks_of_a_module_are_compiled():
    assert len(find_networks(FunctionRegressor((4,)))) == 3
    with pytest.raises(ValueError, match="found no network in CirclesMLP"):
        Compile().on_fit_start(None, CirclesMLP((2,), 2, "manual"))


def test_all_speed_options_can_be_combined_on_the_command_line(litlab):
    options = ["--trainer.callbacks+", "modules.speed.Compile", "--trainer.callbacks.backend", "eager"]
    options += ["--trainer.precision", "bf16-mixed"]
    options += ["--trainer.accumulate_grad_batches", "2", "--trainer.gradient_clip_val", "1"]
    outcome = litlab("fit", "digits-convnet", "--data.n_train", "100", "--trainer.max_epochs", "1", *options)
    assert outcome.code == 0, outcome.err


@pytest.mark.parametrize("algorithm", ["norm", "value"])
def test_gradients_are_clipped_in_bf16_with_a_fused_optimiser(make_trainer, algorithm):
    """With SGD, learning rate 1 and one step, weights change by their clipped gradients."""
    model = ConvNet((1, 28, 28), 10, channels=(4,), hidden=(), optimizer=partial(torch.optim.SGD, lr=1.0, fused=True))
    before = [weight.detach().clone() for weight in model.parameters()]
    clipping = {"gradient_clip_val": 0.01, "gradient_clip_algorithm": algorithm}
    make_trainer(max_steps=1, precision="bf16-mixed", **clipping).fit(model, Digits(n_train=99, n_val=101))
    steps = torch.cat([(new.detach() - old).flatten() for new, old in zip(model.parameters(), before, strict=True)])
    size = steps.norm() if algorithm == "norm" else steps.abs().max()
    assert float(size) == pytest.approx(0.01, rel=1e-2)


class Losses(Callback):
    """Records the loss of each step."""

    def __init__(self):
        self.found = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.found.append(float(outputs["loss"]))


@pytest.mark.parametrize("schedule", [None, OneCycle])
@pytest.mark.parametrize("optimizer", [partial(torch.optim.SGD, lr=0.01), partial(torch.optim.Adam, fused=True)])
def test_captured_steps_train_as_usual_also_with_smaller_batches_and_schedules(make_trainer, optimizer, schedule):
    """Elsewhere than on a GPU, the steps take the same path, but are called again instead of replayed."""
    found = []
    for callbacks in ([], [CudaGraph()]):
        torch.manual_seed(3)
        model = MLP((1, 28, 28), 10, hidden=(16,), dropout=0.5, optimizer=optimizer, lr_scheduler=schedule)
        losses = Losses()
        trainer = make_trainer(max_epochs=3, callbacks=[*callbacks, losses], gradient_clip_val=1.0)
        trainer.fit(model, Digits(n_train=99, n_val=101, batch_size=10, crop_padding=2))
        metrics = {key: float(value) for key, value in trainer.callback_metrics.items()}
        found.append((losses.found, metrics, model.state_dict(), trainer.global_step))
    (losses, metrics, weights, steps), (own_losses, own_metrics, own_weights, own_steps) = found
    assert own_losses == losses
    assert own_metrics == metrics
    assert own_steps == steps == 30
    assert all(torch.equal(own_weights[name], weight) for name, weight in weights.items())


@pytest.mark.parametrize("optimizer", [partial(torch.optim.SGD, lr=0.01), partial(torch.optim.Adam, fused=True)])
@pytest.mark.parametrize("n_train", [99, 100, 20])
def test_steps_in_blocks_train_as_usual_also_with_smaller_blocks_and_batches(make_trainer, optimizer, n_train):
    found = []
    for callbacks in ([], [CudaGraph(steps=4)]):
        torch.manual_seed(3)
        model = MLP((1, 28, 28), 10, hidden=(16,), dropout=0.5, optimizer=optimizer)
        trainer = make_trainer(max_epochs=3, callbacks=callbacks, gradient_clip_val=1.0)
        trainer.fit(model, Digits(n_train=n_train, n_val=101, batch_size=10))
        metrics = {key: float(value) for key, value in trainer.callback_metrics.items()}
        found.append((metrics, model.state_dict(), trainer.global_step))
    (metrics, weights, steps), (own_metrics, own_weights, blocks) = found
    assert own_metrics == metrics
    assert steps == 3 * -(-n_train // 10)
    assert blocks == 3 * -(-n_train // 40)
    assert all(torch.equal(own_weights[name], weight) for name, weight in weights.items())


class Captured(Callback):
    """Records which batches the captured steps take at the end of the training."""

    def on_train_end(self, trainer, pl_module):
        (graph,) = [callback for callback in trainer.callbacks if isinstance(callback, CudaGraph)]
        batches = [[torch.zeros(size, 1, 28, 28), torch.zeros(size)] for size in (5, 10)]
        self.found = [[step.takes(batch) for batch in batches] for step in graph._graphs.values()]


def test_a_smaller_batch_is_not_captured_even_if_it_is_the_first_after_the_eager_steps(make_trainer):
    captured = Captured()
    trainer = make_trainer(max_epochs=2, callbacks=[CudaGraph(), captured])
    trainer.fit(MLP((1, 28, 28), 10), Digits(n_train=35, n_val=101, batch_size=10))
    assert captured.found == [[False, True]]


class Rates(Callback):
    """Records the learning rate after each step of the Trainer."""

    once_per_block = True

    def __init__(self):
        self.found = []

    def on_train_batch_end(self, trainer, *args):
        self.found.append(float(trainer.optimizers[0].param_groups[0]["lr"]))


def test_schedules_step_once_per_block_and_end_as_usual(make_trainer):
    rates = Rates()
    model = MLP((1, 28, 28), 10, hidden=(16,), optimizer=torch.optim.SGD, lr_scheduler=OneCycle)
    make_trainer(max_epochs=3, callbacks=[CudaGraph(steps=4), rates]).fit(model, Digits(n_train=99, batch_size=10))
    assert len(rates.found) == len({*rates.found}) == 9
    assert rates.found[-1] < min(rates.found[:-1])


@pytest.mark.parametrize(
    ("more", "options", "message"),
    [
        ([Losses()], {}, "Losses has on_train_batch_end, but steps are made 4 at a time"),
        (
            [ModelCheckpoint(every_n_train_steps=5)],
            {"enable_checkpointing": True},
            "ModelCheckpoint has on_train_batch",
        ),
        ([], {"fast_dev_run": True}, "trainer.fast_dev_run counts steps"),
        ([], {"max_steps": 7}, "trainer.max_steps counts steps, but they are made 4 at a time"),
        ([], {"limit_train_batches": 2}, "trainer.limit_train_batches counts steps"),
        ([], {"val_check_interval": 1}, "trainer.val_check_interval counts steps"),
    ],
)
def test_trainings_that_need_each_step_are_refused_in_blocks(make_trainer, more, options, message):
    with pytest.raises(ValueError, match=f"CudaGraph cannot capture the steps of ConvNet: {message}"):
        _trained(make_trainer, CudaGraph(steps=4), *more, **options)


def test_blocks_of_data_that_are_loaded_otherwise_are_refused(make_trainer):
    data = Digits(n_train=40, batch_size=10)
    data.setup("fit")
    trainer = make_trainer(max_epochs=1, callbacks=[CudaGraph(steps=4)], limit_val_batches=0)
    with pytest.raises(ValueError, match="its data are not of one of litlab's data modules"):
        trainer.fit(MLP((1, 28, 28), 10), data.train_dataloader(), data.val_dataloader())


def test_a_block_has_a_step_or_more():
    with pytest.raises(ValueError, match="steps is 0; it must be 1 or more"):
        CudaGraph(steps=0)


def test_captured_steps_leave_nothing_in_the_module(make_trainer):
    model, _ = _trained(make_trainer, CudaGraph(steps=2))
    assert not {"optimizer_step", "training_step"} & set(vars(model))
    assert "update" not in vars(model.train_metrics)


class Clipper(Callback):
    def on_after_backward(self, trainer, pl_module):
        """Would be called only once."""


@pytest.mark.parametrize(
    ("more", "options", "message"),
    [
        ([Clipper()], {}, "Clipper needs on_after_backward in each step"),
        ([], {"accumulate_grad_batches": 2}, "trainer.accumulate_grad_batches is not 1"),
    ],
)
def test_steps_that_cannot_be_captured_are_refused_by_name(make_trainer, more, options, message):
    with pytest.raises(ValueError, match=f"CudaGraph cannot capture the steps of ConvNet: {message}"):
        _trained(make_trainer, CudaGraph(), *more, **options)


def test_tensorfloat32_changes_nothing_on_a_cpu(make_trainer, uncompiled):
    assert _trained(make_trainer, TensorFloat32())[1] == uncompiled[1]
    assert torch.get_float32_matmul_precision() == "highest"


def test_tensorfloat32_restores_a_precision_that_was_set_by_backend(set_precision):
    on_gpu = SimpleNamespace(strategy=SimpleNamespace(root_device=torch.device("cuda")))
    matmul, callback, model = torch.backends.cuda.matmul, TensorFloat32(), MLP((2,), 2)
    set_precision(torch.backends.mkldnn.matmul, "bf16")
    before = matmul.fp32_precision
    callback.setup(on_gpu, model, "fit")
    assert matmul.fp32_precision == "tf32"
    callback.teardown(on_gpu, model, "fit")
    assert matmul.fp32_precision == before != "tf32"
    assert torch.backends.mkldnn.matmul.fp32_precision == "bf16"
