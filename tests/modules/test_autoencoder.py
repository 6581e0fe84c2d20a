"""Autoencoders: shapes, training, checkpoints, and the k-nearest-neighbour accuracy of their codes."""

import math
from functools import partial

import pytest
import torch
from lightning.pytorch import Callback
from sklearn.model_selection import LeaveOneOut, cross_val_predict
from sklearn.neighbors import KNeighborsClassifier
from torch import nn

from datamodules.digits import Digits
from modules.autoencoder import Autoencoder, ConvAutoencoder
from modules.metrics import KNNAccuracy

SHAPE = (1, 28, 28)
BOTH = [partial(Autoencoder, hidden=(32, 16)), partial(ConvAutoencoder, channels=(2, 3), hidden=(16,))]


@pytest.fixture
def unit_digits() -> Digits:
    """Digits with 250 training, 201 validation and 360 test images, pixels in [0, 1]."""
    data = Digits(n_train=250, n_val=201, batch_size=60, normalization="unit")
    data.setup("fit")
    data.setup("test")
    return data


def _build(build, seed: int = 0, **options) -> Autoencoder | ConvAutoencoder:
    torch.manual_seed(seed)
    return build(SHAPE, **options)


def _pixels(dataset) -> torch.Tensor:
    return dataset.inputs.float() / 255


def test_the_autoencoder_has_the_eight_linear_layers_of_the_report():
    layers = [layer for layer in Autoencoder(SHAPE).modules() if isinstance(layer, nn.Linear)]
    sizes = [(layer.in_features, layer.out_features) for layer in layers]
    assert sizes == [(784, 512), (512, 256), (256, 64), (64, 2), (2, 64), (64, 256), (256, 512), (512, 784)]


@pytest.mark.parametrize("code", [1, 2, 5])
@pytest.mark.parametrize("build", BOTH)
def test_the_output_has_the_shape_of_the_images_and_is_in_the_unit_interval(build, code):
    model, images = _build(build, code=code).eval(), torch.rand(5, *SHAPE)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter *= 20  # otherwise the outputs would all be near 0.5
    reconstructions = model(images).detach()
    assert reconstructions.shape == images.shape
    assert 0 <= reconstructions.min() < 0.1
    assert 0.9 < reconstructions.max() <= 1
    assert model.encoder(images).shape == (5, code)


@pytest.mark.parametrize("shape", [(3, 32, 20), (1, 4, 4)])
@pytest.mark.parametrize("build", BOTH)
def test_images_of_any_shape_that_can_be_halved_are_reconstructed(build, shape):
    assert build(shape)(torch.rand(3, *shape)).shape == (3, *shape)


@pytest.mark.parametrize("build", BOTH)
def test_a_relu_code_is_never_negative_and_a_linear_code_is(build):
    images = torch.rand(200, *SHAPE)
    codes = _build(build, code=8, code_activation="relu").encoder(images).detach()
    assert codes.min() == 0
    assert codes.max() > 0
    assert _build(build, code=8).encoder(images).detach().min() < 0


def test_the_convolutional_autoencoder_halves_the_image_and_doubles_it_again():
    model = _build(BOTH[1])
    convolutions = [layer for layer in model.encoder if isinstance(layer, nn.Conv2d)]
    transposed = [layer for layer in model.decoder if isinstance(layer, nn.ConvTranspose2d)]
    assert [(c.in_channels, c.out_channels) for c in convolutions] == [(1, 2), (2, 3)]
    assert [(c.in_channels, c.out_channels) for c in transposed] == [(3, 2), (2, 1)]
    (first, *_) = (layer for layer in model.encoder if isinstance(layer, nn.Linear))
    assert first.in_features == 3 * 7 * 7


@pytest.mark.parametrize(
    ("build", "options", "message"),
    [
        (Autoencoder, {"code": 0}, r"model\.code has an entry below 1"),
        (Autoencoder, {"hidden": (8, 0)}, r"model\.hidden"),
        (ConvAutoencoder, {"code": 0}, r"model\.code"),
        (ConvAutoencoder, {"channels": (2, 3, 4)}, r"model\.channels: \(28, 28\) cannot be halved 3 times"),
        (ConvAutoencoder, {"channels": (0,)}, r"model\.channels"),
    ],
)
def test_the_error_for_an_invalid_value_names_its_key(build, options, message):
    with pytest.raises(ValueError, match=message):
        build(SHAPE, **options)


@pytest.mark.parametrize("build", BOTH)
def test_the_error_for_pixels_outside_the_unit_interval_names_the_key_to_set(build, digits, make_trainer):
    trainer = make_trainer(max_epochs=1)
    with pytest.raises(ValueError, match=r"data\.normalization to unit"):
        trainer.fit(build(SHAPE), digits)
    assert trainer.global_step == 0


def _knn_accuracy_of_scikit_learn(model, dataset) -> float:
    """Leave-one-out accuracy of 10 nearest neighbours on the codes."""
    codes, labels = model.encoder(_pixels(dataset)).detach().numpy(), dataset.targets.numpy()
    return float((cross_val_predict(KNeighborsClassifier(10), codes, labels, cv=LeaveOneOut()) == labels).mean())


@pytest.mark.parametrize("build", BOTH)
def test_logged_metrics_equal_metrics_on_the_whole_set(build, unit_digits, make_trainer, monkeypatch):
    monkeypatch.setattr("datamodules.in_memory.EVAL_BATCH_SIZE", 50)  # 5 and 8 batches, the last one smaller
    model, trainer = _build(build), make_trainer(max_epochs=2)
    trainer.fit(model, unit_digits)
    logged = {name: float(value) for name, value in trainer.callback_metrics.items()}
    assert set(logged) == {"train/loss", "val/loss", "val/knn_acc"}
    (tested,) = trainer.test(model, unit_digits, verbose=False)
    for split, metrics in (("val", logged), ("test", tested)):
        dataset = getattr(unit_digits, f"{split}_set")
        with torch.no_grad():
            error = (model(_pixels(dataset)) - _pixels(dataset)).double().square().mean()
        assert metrics[f"{split}/loss"] == pytest.approx(float(error), rel=1e-5)
        accuracy = _knn_accuracy_of_scikit_learn(model, dataset)
        assert metrics[f"{split}/knn_acc"] == pytest.approx(accuracy, abs=2.5 / len(dataset))  # ties may differ
        assert 0 < accuracy < 1


def test_the_training_loss_is_the_mean_squared_error_per_pixel(unit_digits, make_trainer):
    model = _build(BOTH[0], optimizer=partial(torch.optim.SGD, lr=0.0))
    trainer = make_trainer(max_epochs=1)
    trainer.fit(model, unit_digits)
    images = _pixels(unit_digits.train_set)
    error = (model(images).detach() - images).double().square().mean()
    assert float(trainer.callback_metrics["train/loss"]) == pytest.approx(float(error), rel=1e-5)
    loss = model.training_step((images, unit_digits.train_set.targets), 0)
    assert float(loss.detach()) == pytest.approx(float(error), rel=1e-5)


class _Interrupt(Callback):
    def on_validation_batch_end(self, trainer, pl_module, outputs, batch, batch_idx, dataloader_idx=0) -> None:
        if batch_idx == 1:
            raise InterruptedError

    def on_test_batch_end(self, *args) -> None:
        raise InterruptedError


@pytest.mark.parametrize("split", ["val", "test"])
def test_an_interrupted_evaluation_does_not_affect_the_next_one(split, unit_digits, make_trainer, monkeypatch):
    monkeypatch.setattr("datamodules.in_memory.EVAL_BATCH_SIZE", 50)
    model, run = _build(BOTH[0]), {"val": "validate", "test": "test"}[split]
    (clean,) = getattr(make_trainer(), run)(model, unit_digits, verbose=False)
    with pytest.raises(InterruptedError):
        getattr(make_trainer(callbacks=[_Interrupt()]), run)(model, unit_digits, verbose=False)
    (repeated,) = getattr(make_trainer(), run)(model, unit_digits, verbose=False)
    assert repeated == clean


def test_evaluating_the_training_set_adds_its_loss_and_changes_no_other_metric(make_trainer):
    logged = []
    for evaluate_train in (True, False):
        data = Digits(n_train=250, n_val=201, batch_size=60, normalization="unit", evaluate_train=evaluate_train)
        trainer, model = make_trainer(max_epochs=1), _build(BOTH[0])
        trainer.fit(model, data)
        logged.append({name: float(value) for name, value in trainer.callback_metrics.items()})
    with_train_end, without = logged
    images = _pixels(data.train_set)
    error = (model(images).detach() - images).square().mean()
    assert with_train_end.pop("train_end/loss") == pytest.approx(float(error), rel=1e-5)
    assert with_train_end == without


@pytest.mark.parametrize("build", BOTH)
def test_evaluation_steps_return_codes_labels_and_reconstructions(build, unit_digits):
    model = _build(build).eval()
    batch = _pixels(unit_digits.val_set), unit_digits.val_set.targets
    for step in (model.validation_step, model.test_step):
        outputs = step(batch, 0)
        assert set(outputs) == {"codes", "labels", "reconstructions"}
        assert torch.equal(outputs["reconstructions"], model(batch[0]))
        assert torch.equal(outputs["codes"], model.encoder(batch[0]))


@pytest.mark.parametrize("build", BOTH)
def test_an_autoencoder_loads_from_a_checkpoint_and_resumes_bit_identically(build, unit_digits, make_trainer, tmp_path):
    uninterrupted, half, resumed = _build(build), _build(build), _build(build, seed=1)
    make_trainer(max_epochs=2).fit(uninterrupted, unit_digits)
    first = make_trainer(max_epochs=1)
    first.fit(half, unit_digits)
    first.save_checkpoint(tmp_path / "half.ckpt")
    loaded = build.func.load_from_checkpoint(tmp_path / "half.ckpt", weights_only=True)
    images = _pixels(unit_digits.val_set)
    assert torch.equal(loaded(images), half(images))
    make_trainer(max_epochs=2).fit(resumed, unit_digits, ckpt_path=tmp_path / "half.ckpt", weights_only=True)
    assert all(torch.equal(a, b) for a, b in zip(uninterrupted.parameters(), resumed.parameters(), strict=True))


def _knn_accuracy(points: torch.Tensor, labels: torch.Tensor, **options) -> float:
    metric = KNNAccuracy(**options)
    for start in range(0, len(points), 70):
        metric.update(points[start : start + 70], labels[start : start + 70])
    return float(metric.compute())


def test_knn_accuracy_is_one_for_separate_clusters():
    labels = torch.arange(300) % 3
    points = torch.randn(300, 2, generator=torch.Generator().manual_seed(0)) + 100 * labels[:, None]
    assert _knn_accuracy(points, labels) == 1
    assert _knn_accuracy(points, torch.zeros(300, dtype=torch.int64)) == 1


def test_knn_accuracy_is_at_chance_level_for_random_labels():
    """Within five standard errors of the mean of 1,000 Bernoulli trials with p = 0.1."""
    generator = torch.Generator().manual_seed(0)
    points, labels = torch.randn(1000, 2, generator=generator), torch.randint(10, (1000,), generator=generator)
    assert _knn_accuracy(points, labels) == pytest.approx(0.1, abs=5 * (0.1 * 0.9 / 1000) ** 0.5)


@pytest.mark.parametrize("k", [1, 3])
def test_a_point_does_not_vote_for_itself_even_if_other_points_coincide_with_it(k):
    """Pairs of coincident points of different classes: the nearest other point always has the other class."""
    positions = torch.arange(20.0).repeat_interleave(2)
    points, labels = torch.stack([1000 * positions, positions], 1), torch.arange(40) % 2
    assert _knn_accuracy(points, labels, k=1) == 0
    same = torch.zeros(12, 2)
    assert _knn_accuracy(same, torch.arange(12), k=k) == 0  # all coincide, each with its own class


def test_with_fewer_points_than_neighbours_all_vote_and_nan_points_give_nan():
    assert _knn_accuracy(torch.tensor([[0.0], [1.0], [2.0]]), torch.tensor([4, 4, 4])) == 1
    assert math.isnan(_knn_accuracy(torch.tensor([[0.0], [float("nan")], [2.0]]), torch.tensor([4, 4, 4])))
    assert math.isnan(_knn_accuracy(torch.tensor([[0.0]]), torch.tensor([0])))


def test_an_autoencoder_learns_to_reconstruct_digits(make_trainer):
    """Its error is below that of the mean training image, which needs no code."""
    data = Digits(n_train=1000, n_val=201, batch_size=40, normalization="unit")
    model = _build(partial(Autoencoder, hidden=(64, 32)), optimizer=partial(torch.optim.Adam, lr=0.005))
    trainer = make_trainer(max_epochs=10)
    trainer.fit(model, data)
    error_of_mean = (_pixels(data.val_set) - _pixels(data.train_set).mean(0)).square().mean()
    assert trainer.callback_metrics["val/loss"] < 0.9 * error_of_mean
    assert trainer.callback_metrics["val/knn_acc"] > 0.3  # three times chance
