"""`litlab.fit(model=..., data=...)`: modules and data that are objects of Python."""

import inspect
import linecache
import re
import textwrap

import pytest
import torch
from lightning.pytorch import LightningDataModule, LightningModule
from lightning.pytorch.callbacks import EarlyStopping
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

import litlab as lab
from modules.mlp import MLP
from pipelines.config.source_digest import _own_classes, source_digest

TRAINER = {"max_epochs": 2, "accelerator": "cpu"}

pytestmark = pytest.mark.usefixtures("tables")


def examples(n: int, seed: int) -> TensorDataset:
    x = torch.randn(n, 4, generator=torch.Generator().manual_seed(seed))
    return TensorDataset(x, (x.sum(1) > 0).long())


def loaders(train_seed: int = 0) -> dict[str, DataLoader]:
    return {
        "train": DataLoader(examples(64, train_seed), 16, shuffle=True),
        "val": DataLoader(examples(32, 1), 16),
        "test": DataLoader(examples(32, 2), 16),
    }


class Net(LightningModule):
    def __init__(self, hidden: int = 4, lr: float = 0.1):
        super().__init__()
        self.save_hyperparameters()
        self.net = nn.Sequential(nn.Linear(4, hidden), nn.ReLU(), nn.Linear(hidden, 2))

    def measure(self, batch, split):
        logits = self.net(batch[0])
        self.log(f"{split}/loss", cross_entropy(logits, batch[1]))
        self.log(f"{split}/acc", (logits.argmax(1) == batch[1]).float().mean())
        return cross_entropy(logits, batch[1])

    def training_step(self, batch):
        return self.measure(batch, "train")

    def validation_step(self, batch):
        self.measure(batch, "val")

    def test_step(self, batch):
        self.measure(batch, "test")

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), self.hparams.lr)


class Interrupted(Net):
    """Is stopped in its second epoch, the first time."""

    stops = True

    def on_train_epoch_start(self):
        if self.current_epoch == 1 and type(self).stops:
            type(self).stops = False
            raise KeyboardInterrupt


class Data(LightningDataModule):
    """Draws its validation set in `setup`."""

    def __init__(self, n: int = 64):
        super().__init__()
        self.n, self.setups = n, 0

    def setup(self, stage):
        self.setups += stage == "fit"
        order = torch.randperm(self.n)
        self.train, self.val = order[16:], order[:16]

    def train_dataloader(self):
        return DataLoader(TensorDataset(*examples(self.n, 0)[self.train]), 16)

    def val_dataloader(self):
        return DataLoader(TensorDataset(*examples(self.n, 0)[self.val]), 16)


def weights(model: LightningModule) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def test_an_object_is_tracked_selected_tested_and_compared_like_any_run(tmp_path):
    net = Net()
    run = lab.fit(model=net, data=loaders(), trainer=TRAINER, name="mine", tags={"of": "me"}, run_name="first")
    assert (run.status, run.experiment, run.name, run.tags["of"]) == ("FINISHED", "mine", "first", "me")
    assert {"val/loss", "test/loss", "test/acc", "selected_epoch"} <= set(run.metrics)
    assert run.params["model"].endswith(".Net")
    assert (run.params["model.hidden"], run.params["data.train.examples"]) == ("4", "64")
    assert run.params["objects.model"] == source_digest(Net)
    assert torch.equal(weights(run.model()), weights(net))  # the selected ones
    assert run.model() is not net
    assert lab.test(run).measured == lab.test(run).recorded
    other = lab.fit(model=Net(8), data=loaders(), trainer=TRAINER, name="mine")
    table = lab.compare("mine")
    assert sorted(table["params.model.hidden"]) == ["4", "8"]
    assert lab.diff(run, other).loc[("configuration", "model.hidden")].to_list() == ["4", "8"]


def test_a_function_gives_each_seed_its_own_weights_and_the_same_seed_the_same_run():
    runs = [lab.fit(model=lambda: Net(), data=loaders(), trainer=TRAINER, name="f", seed=seed) for seed in (1, 1, 2)]
    losses = [run.metrics["test/loss"] for run in runs]
    assert losses[0] == losses[1] != losses[2]
    assert len(lab.compare("f")) == 1


def test_a_module_that_was_trained_starts_from_its_weights_and_is_another_row(caplog):
    net = Net()
    first = lab.fit(model=net, data=loaders(), trainer=TRAINER, name="again")
    second = lab.fit(model=net, data=loaders(), trainer=TRAINER, name="again")
    assert second.config["weights"] == first.id
    assert f"starts from the weights that run {first.id} left" in caplog.text
    assert len(lab.compare("again")) == 2


def test_objects_keep_no_hooks_and_their_data_are_set_up_anew_by_each_run():
    net, data = Net(), Data()
    runs = [lab.fit(model=net, data=data, trainer=TRAINER, name="hooks", seed=seed) for seed in (0, 1)]
    assert data.setups == 2
    assert not {"setup", "train_dataloader", "on_train_start"} & (vars(net).keys() | vars(data).keys())
    assert runs[0].params["data.n"] == "64"
    assert runs[0].params["objects.data"] == source_digest(Data)


def test_objects_among_the_arguments_of_the_trainer_are_used_and_recorded():
    stopping = EarlyStopping("val/loss", patience=1, min_delta=10.0)
    run = lab.fit(model=Net(), data=loaders(), trainer={**TRAINER, "max_epochs": 9, "callbacks": [stopping]}, name="c")
    assert len(run.history()) == 2
    (recorded,) = run.config["trainer"]["callbacks"]
    assert recorded["class_path"].endswith(".EarlyStopping")
    assert recorded["init_args"]["min_delta"] in (10.0, -10.0)
    assert run.params["trainer.max_epochs"] == "9"


def test_a_stopped_run_is_resumed_with_the_same_objects_and_refuses_others():
    def resume(model, data=None):
        return lab.resume("latest:stops", model=model, data=data or loaders())

    Interrupted.stops = True
    with pytest.raises(KeyboardInterrupt) as stop:
        lab.fit(model=Interrupted(), data=loaders(), trainer={**TRAINER, "max_epochs": 3}, name="stops")
    assert any("litlab.resume(" in note for note in stop.value.__notes__)
    with pytest.raises(lab.UserError, match=r"model\.hidden is 4, not 8"):
        resume(Interrupted(8))
    with pytest.raises(lab.UserError, match="the source of the model has changed"):
        resume(Net())
    with pytest.raises(lab.UserError, match=r"data\.train\.sha256"):
        resume(Interrupted(), loaders(train_seed=7))
    run = resume(Interrupted())
    assert run.status == "FINISHED"
    assert run.history().index.to_list() == [0, 1, 2]


def test_the_result_of_a_resumed_run_is_that_of_an_uninterrupted_one():
    def run():
        return lab.fit(model=lambda: Interrupted(), data=loaders(), trainer=TRAINER, name="twice")

    Interrupted.stops = True
    with pytest.raises(KeyboardInterrupt):
        run()
    resumed = lab.resume("latest:twice", model=lambda: Interrupted(), data=loaders())
    assert resumed.metrics["test/loss"] == run().metrics["test/loss"]


def test_the_command_rebuilds_a_run_from_importable_classes_or_says_to_use_python(litlab, monkeypatch):
    run = lab.fit(model=Net(), data=Data(), trainer=TRAINER, name="cli", overrides={"leak_check": False})
    assert litlab("validate", run.id).code == 0  # both classes can be imported from this file
    Interrupted.stops = True
    with pytest.raises(KeyboardInterrupt):
        lab.fit(model=Interrupted(), data=Data(), trainer=TRAINER, name="stopped", overrides={"leak_check": False})
    assert litlab("resume", "latest:stopped").code == 0
    monkeypatch.setattr(Net, "__module__", "__main__")
    local = lab.fit(model=Net(), data=loaders(), trainer=TRAINER, name="cli")
    for words in (["test", local.id], ["predict", local.id], ["fit", "--from", local.id]):
        outcome = litlab(*words)
        assert outcome.code == 2
        (line,) = outcome.err.strip().splitlines()
        assert "was given as an object in Python" in line
    assert litlab("compare", "cli").code == litlab("show", local.id).code == litlab("runs", "cli").code == 0
    assert litlab("report", "cli", "--out", "report.html").code == 0
    loaded = lab.load(local.id, model=Net(), data=loaders())
    assert lab.test(loaded).measured["loss"] == local.metrics["test/loss"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"model": Net}, "model: Net is neither a LightningModule nor a function"),
        ({"model": lambda: 3}, "the function returns int"),
        ({"data": {"train": None}}, "data and trainer are given with a model"),
        ({"model": Net, "experiment": "digits-mlp"}, "experiment and model exclude each other"),
        (
            {"model": Net(), "data": {"train": None, "valid": None}},
            "data: unknown key valid: did you mean val? The keys are train, val, test, predict, of which train is",
        ),
        ({"model": Net(), "data": {"train": None, "tset": None}}, "unknown key tset: did you mean test?"),
        ({"model": Net(), "data": {"train": None, "labels": None}}, "unknown key labels: The keys are train, val"),
        ({"model": Net(), "data": {"val": None}}, "data: there is no loader of train"),
        (
            {"model": Net(), "trainer": {"callback": [EarlyStopping("val/loss")]}},
            "callback is no argument of Lightning's Trainer: did you mean callbacks?",
        ),
        ({"model": Net(), "trainer": {"max_epoch": 3}}, "did you mean trainer.max_epochs"),
        ({"model": Net(), "overrides": {"model.lr": 3}}, "model.lr: model is an object; change it in Python"),
        ({"model": Net()}, "data is required: Net has no train_dataloader"),
    ],
)
def test_mistakes_are_told_before_there_is_a_run(given, message):
    with pytest.raises(lab.UserError, match=re.escape(message)):
        lab.fit(**given)
    assert lab.runs().empty


def test_classes_of_litlab_and_of_packages_are_no_part_of_a_digest():
    class Own(LightningModule):
        pass

    class Derived(MLP):
        pass

    assert [one.__name__ for one in _own_classes(Own)] == ["Own"]
    assert [one.__name__ for one in _own_classes(Derived)] == ["Derived"]
    assert [one.__name__ for one in _own_classes(Interrupted)] == ["Interrupted", "Net"]


def test_a_module_that_saves_no_hyperparameters_is_named(caplog):
    class Silent(Net):
        def __init__(self, width):
            LightningModule.__init__(self)
            self.net, self.lr = nn.Linear(4, 2), width

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.1)

    run = lab.fit(model=Silent(3), data=loaders(), trainer=TRAINER, name="silent")
    assert run.status == "FINISHED"
    assert "Silent: the run does not know its width" in caplog.text


CELL = '''
class Cell:
    """A class."""
    def step(self):
        return 1
'''


def cell(text: str, number: int) -> type:
    """Define a class as IPython does: its source is known by the name of the cell only."""
    name, space = f"<cell {number}>", {"__name__": "__main__"}
    linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
    exec(compile(text, name, "exec"), space)
    return space["Cell"]


def test_the_digest_of_a_class_ignores_comments_and_layout_but_not_code():
    changes = [("", ""), ('"""A class."""', "# nothing\n"), ("1", "2"), ("return 1", "return  1")]
    digests = [source_digest(cell(CELL.replace(*change), number)) for number, change in enumerate(changes)]
    assert digests[0] == digests[1] == digests[3] != digests[2]
    assert source_digest(Net) != source_digest(Interrupted)


def test_a_class_without_source_is_known_by_its_code():
    def defined(text: str) -> type:
        space = {"__name__": "__main__"}
        exec(textwrap.dedent(text), space)
        return space["Cell"]

    with pytest.raises((OSError, TypeError)):
        inspect.getsource(defined(CELL))
    assert (
        source_digest(defined(CELL)) == source_digest(defined(CELL)) != source_digest(defined(CELL.replace("1", "2")))
    )


def build(hidden: int = 2, lr: float = 0.1) -> Net:
    return Net(hidden, lr)


@pytest.mark.slow
def test_several_seeds_take_a_function_and_are_summarised(litlab):
    run = lab.fit(model=lambda: Net(), data=loaders(), trainer=TRAINER, name="seeds", seeds=2, seed=4)
    assert [child.seed for child in run.children] == ["4", "5"]
    single = lab.fit(model=lambda: Net(), data=loaders(), trainer=TRAINER, name="single", seed=5)
    assert run.children[1].metrics["test/loss"] == single.metrics["test/loss"]
    assert lab.compare(run).n.to_list() == [2]
    with pytest.raises(lab.UserError, match=r"model=lambda: Net\(\.\.\.\)"):
        lab.fit(model=Net(), data=loaders(), trainer=TRAINER, seeds=2)
    with pytest.raises(lab.UserError, match="workers=2: objects are trained in this process"):
        lab.fit(model=lambda: Net(), data=loaders(), trainer=TRAINER, seeds=2, workers=2)
    with pytest.raises(lab.UserError, match="cluster=auto: objects are trained in this process"):
        lab.fit(model=lambda: Net(), data=loaders(), trainer=TRAINER, seeds=2, cluster="auto")


@pytest.mark.slow
def test_a_failed_seed_leaves_the_others_and_is_trained_by_the_same_call():
    def fit():
        return lab.fit(model=lambda: Breaks(), data=loaders(), trainer=TRAINER, name="fails", seeds=2)

    class Breaks(Net):
        broken = True

        def on_train_start(self):
            if type(self).broken and torch.initial_seed() == 1:
                raise RuntimeError("broken")

    with pytest.raises(lab.RunFailedError, match=r"1 of 2 seeds are done\. seed 1: RuntimeError: broken"):
        fit()
    Breaks.broken = False
    run = fit()
    assert {child.seed for child in run.children if child.status == "FINISHED"} == {"0", "1"}


def test_a_sweep_of_a_function_is_a_study_with_confirmation_and_continues():
    space = {"hidden": [2, 8], "lr": {"low": 0.01, "high": 0.5, "log": True}}

    given = {"space": space, "data": loaders(), "trainer": TRAINER, "metric": "val/loss", "confirm": 1}
    study = lab.sweep(build, **given, trials=2)
    assert study.study == "build"
    assert set(study.best_params) == {"hidden", "lr"}
    assert study.best_run.config["model"]["init_args"] == study.best_params
    assert len(study.confirmed["best"]) == 1
    assert study.confirmed["default"][0].params["model.hidden"] == "2"
    assert "test/loss" in study.verdict
    longer = lab.sweep(build, **given, trials=3)
    assert longer.n_finished == len(longer.trials()) == 3
    assert longer.run == study.run


@pytest.mark.slow
def test_a_function_may_make_the_data_too_and_one_without_defaults_is_not_confirmed():
    def build_both(batch_size):
        return Net(), {**loaders(), "train": DataLoader(examples(64, 0), batch_size)}

    given = {"space": {"batch_size": [16, 32]}, "trainer": TRAINER, "metric": "val/acc", "sampler": "grid"}
    with pytest.raises(lab.UserError, match="has no default of batch_size"):
        lab.sweep(build_both, **given)
    study = lab.sweep(build_both, **given, confirm=0)
    sizes = {run.params["data.train.batch_size"] for run in study.run.children}
    assert sizes == {"16", "32"}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"space": {"width": [1, 2]}}, r"width is no argument of build\(hidden, lr\)"),
        ({"space": {}}, "give the arguments of build to search"),
        ({"space": {"hidden": [1, 2]}, "pruner": "median"}, "neither a pruner nor a trial_timeout"),
        ({"space": {"hidden": [1, -2]}}, "space: hidden -2: RuntimeError: "),
        ({"space": {"hidden": [1, 2]}, "workers": 2}, "workers=2"),
        ({"space": {"hidden": [1, 2]}, "cluster": "local"}, "cluster=local: objects are trained in this process"),
    ],
)
def test_mistakes_of_a_sweep_of_a_function_are_told(given, message):
    with pytest.raises(lab.UserError, match=message):
        lab.sweep(build, data=loaders(), trainer=TRAINER, trials=2, **given)
