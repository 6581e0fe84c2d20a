"""The callbacks that make a training faster leave it what it is."""

from functools import partial

import pytest
import torch

from datamodules.digits import Digits
from modules.circles import CirclesMLP
from modules.convnet import ConvNet
from modules.functions import FunctionRegressor
from modules.speed import Compile, networks, tiny_is_zero


def _trained(make_trainer, *callbacks, **options):
    torch.manual_seed(3)
    sgd = partial(torch.optim.SGD, lr=0.01)
    model = ConvNet((1, 28, 28), 10, channels=(4,), hidden=(16,), batch_norm=True, optimizer=sgd)
    trainer = make_trainer(max_epochs=2, callbacks=list(callbacks), **options)
    trainer.fit(model, Digits(n_train=99, n_val=101, batch_size=40))
    return model, {key: float(value) for key, value in trainer.callback_metrics.items()}


@pytest.fixture
def plain(make_trainer):
    return _trained(make_trainer)


def test_convolutions_keep_channels_last_which_changes_nothing_but_rounding():
    torch.manual_seed(3)
    model, images = ConvNet((3, 16, 16), 10, channels=(4, 6), hidden=(16,), batch_norm=True), torch.rand(5, 3, 16, 16)
    first = ConvNet((3, 16, 16), 10, channels=(4, 6), hidden=(16,), batch_norm=True).to(
        memory_format=torch.contiguous_format
    )
    first.load_state_dict(model.state_dict())
    weights = [weight for weight in model.parameters() if weight.ndim == 4]
    assert all(weight.is_contiguous(memory_format=torch.channels_last) for weight in weights)
    assert not any(weight.is_contiguous(memory_format=torch.channels_last) for weight in first.parameters())
    torch.testing.assert_close(model(images), first(images))


def test_numbers_too_small_for_a_cpu_to_be_fast_with_are_zero_in_a_training_and_only_there():
    tiny = torch.full((8,), 1e-39)
    with tiny_is_zero():
        assert not (tiny * 1.0).any()
    assert (tiny * 1.0).all()


def test_a_compiled_network_learns_the_same_and_its_weights_keep_their_names(make_trainer, plain):
    """With torch's translator, but without the C++ compiler, which takes minutes."""
    frames = []

    def seen(graph, inputs):
        frames.append(graph)
        return graph.forward

    model, metrics = _trained(make_trainer, Compile(backend=seen))
    assert frames, "it has been translated"
    assert metrics == pytest.approx(plain[1], rel=1e-4)
    assert list(model.state_dict()) == list(plain[0].state_dict())
    assert all("forward" not in vars(net) for net in networks(model)), "once trained, it is as it was"


def test_evaluation_is_not_compiled(make_trainer):
    sizes = []

    def seen(graph, inputs):
        sizes.append([tuple(part.shape) for part in inputs if isinstance(part, torch.Tensor) and part.ndim == 4])
        return graph.forward

    _trained(make_trainer, Compile(backend=seen))
    assert not any(shape[0] == 101 for shapes in sizes for shape in shapes)


def test_the_networks_of_a_module_are_what_is_compiled():
    assert len(networks(FunctionRegressor((4,)))) == 3
    with pytest.raises(ValueError, match="finds no network in CirclesMLP"):
        Compile().on_fit_start(None, CirclesMLP((2,), 2, "manual"))


def test_each_is_one_flag_of_a_fit_that_leaves_a_whole_run(litlab):
    options = ["--trainer.callbacks+", "modules.speed.Compile", "--trainer.callbacks.backend", "eager"]
    options += ["--trainer.precision", "bf16-mixed"]
    options += ["--trainer.accumulate_grad_batches", "2", "--trainer.gradient_clip_val", "1"]
    outcome = litlab("fit", "digits-convnet", "--data.n_train", "100", "--trainer.max_epochs", "1", *options)
    assert outcome.code == 0, outcome.err


@pytest.mark.parametrize("algorithm", ["norm", "value"])
def test_gradients_are_clipped_in_bf16_with_a_fused_optimiser(make_trainer, algorithm):
    """With SGD at a rate of one and one step, weights move by their clipped gradients."""
    model = ConvNet((1, 28, 28), 10, channels=(4,), hidden=(), optimizer=partial(torch.optim.SGD, lr=1.0, fused=True))
    before = [weight.detach().clone() for weight in model.parameters()]
    clipping = {"gradient_clip_val": 0.01, "gradient_clip_algorithm": algorithm}
    make_trainer(max_steps=1, precision="bf16-mixed", **clipping).fit(model, Digits(n_train=99, n_val=101))
    steps = torch.cat([(new.detach() - old).flatten() for new, old in zip(model.parameters(), before, strict=True)])
    size = steps.norm() if algorithm == "norm" else steps.abs().max()
    assert float(size) == pytest.approx(0.01, rel=1e-2)
