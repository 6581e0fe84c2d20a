"""A project of a user: its folders join litlab's packages, its experiments are found, and its runs are its own."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from litlab import packages
from pipelines.config.experiments import experiment_names, find_experiment, list_experiments
from pipelines.runtime.environment import project_folder
from sweeps.search.space_files import read_space, space_names
from tests.git_repository import git, make_repository

NET = """
import torch
from lightning.pytorch import LightningDataModule, LightningModule
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.utils.data import DataLoader, TensorDataset

def examples(seed):
    x = torch.randn(64, 4, generator=torch.Generator().manual_seed(seed))
    return DataLoader(TensorDataset(x, (x.sum(1) > 0).float()), 16)

class Data(LightningDataModule):
    def train_dataloader(self): return examples(0)
    def val_dataloader(self): return examples(1)
    def test_dataloader(self): return examples(2)

class Net(LightningModule):
    def __init__(self, lr: float = 0.1):
        super().__init__()
        self.layer, self.lr = torch.nn.Linear(4, 1), lr
    def loss(self, batch): return binary_cross_entropy_with_logits(self.layer(batch[0])[:, 0], batch[1])
    def training_step(self, batch): return self.loss(batch)
    def validation_step(self, batch): self.log("val/loss", self.loss(batch))
    def test_step(self, batch): self.log("test/loss", self.loss(batch))
    def configure_optimizers(self): return torch.optim.SGD(self.parameters(), self.lr)
"""
EXPERIMENT = """
description: A net of the project
data: {class_path: modules.project_net.Data}
model: {class_path: modules.project_net.Net}
trainer: {max_epochs: 1, accelerator: cpu}
"""
SPACE = "{experiment: own, space: {model.lr: [0.1, 0.01]}, metric: val/loss, sampler: grid, confirm: 0}"


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project with packages of litlab's names: `modules` has a class, the others are empty."""
    folder = tmp_path / "project"
    for name in ("modules", "datamodules", "pipelines", "sweeps", "experiments", "spaces"):
        (folder / name).mkdir(parents=True)
    (folder / "modules" / "project_net.py").write_text(NET)
    (folder / "experiments" / "own.yaml").write_text(EXPERIMENT)
    (folder / "spaces" / "own.yaml").write_text(SPACE)
    (folder / "pyproject.toml").touch()
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(folder)
    return folder


def litlab(*args: str, cwd: Path | None = None, code: int = 0) -> str:
    """Run the command without help from the environment; return what it prints."""
    command = [sys.executable, "-P", "-m", "litlab", *args]
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, check=False)
    assert done.returncode == code, done.stderr
    return done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("has_init", [False, True])
def test_a_project_may_have_packages_of_litlabs_names(project, has_init):
    if has_init:
        for name in packages_of(project):
            (project / name / "__init__.py").write_text("raise RuntimeError('not merged')\n")
    (project / "inner").mkdir()
    litlab("fit", "own", cwd=project / "inner")
    assert (project / "mlflow.db").is_file()
    assert "test/loss" in litlab("runs", "own")


def packages_of(project: Path) -> list[str]:
    return [name for name in ("modules", "datamodules", "pipelines", "sweeps") if (project / name).is_dir()]


@pytest.mark.slow
def test_workers_and_further_devices_import_from_the_project(project):
    (project / "pipelines" / "__init__.py").write_text("raise RuntimeError('not merged')\n")
    printed = litlab("sweep", "own", "--workers", "2", "--trainer.devices", "2")
    assert "the best of 2" in printed


@pytest.mark.slow
def test_a_module_that_litlabs_hides_is_named(project):
    shutil.copy(project / "modules" / "project_net.py", project / "modules" / "mlp.py")
    assert "modules/mlp.py: litlab's module of that name is imported instead" in litlab("inspect", "digits-mlp")
    net = project / "modules" / "project_net.py"
    dry_run = ("fit", "own", "--trainer.fast_dev_run", "true")
    assert "instead" not in litlab(*dry_run), "nothing imports it"
    net.write_text(f"from modules.mlp import MLP\n{net.read_text()}")
    assert "modules/mlp.py: litlab's module of that name is imported instead" in litlab(*dry_run)


def test_a_class_of_a_hidden_module_is_refused_with_the_reason(project):
    shutil.copy(project / "modules" / "project_net.py", project / "modules" / "mlp.py")
    told = litlab("inspect", "own", "--model", "modules.mlp.Net", code=2)
    assert "there is no class 'modules.mlp.Net'" in told
    assert "rename modules/mlp.py, which litlab's module of that name hides" in told


def test_another_package_imported_before_litlab_is_an_error_that_names_it(project):
    (project / "modules" / "__init__.py").touch()
    program = "import sys; sys.path.insert(0, ''); import modules, litlab"
    done = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, check=False)
    assert "modules is already imported from" in done.stderr
    assert "import litlab first" in done.stderr


@pytest.mark.slow
def test_litlabs_packages_are_found_from_a_folder_that_has_its_own(project):
    for name in packages_of(project):
        (project / name / "__init__.py").touch()
    program = "import litlab, modules.mlp, modules.project_net, sweeps.search.space; print('imported')"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stdout == "imported\n", done.stderr


def test_experiments_and_spaces_of_the_project_come_before_litlabs(project):
    (project / "experiments" / "digits-mlp.yaml").write_text(EXPERIMENT)
    (project / "experiments" / "broken.yaml").write_text("a: [")
    assert list_experiments()[1]["description"] == "A net of the project"
    assert [row["name"] for row in list_experiments()][:3] == ["broken", "digits-mlp", "own"]
    assert find_experiment("digits-mlp").parent == project / "experiments"
    assert {"own", "mnist-mlp"} <= {*experiment_names()}
    assert {"own", "mnist-mlp-dropout"} <= {*space_names()}
    assert read_space("own", {}).experiment == "own"


def test_the_project_is_the_nearest_folder_with_a_pyproject_or_a_repository(tmp_path, monkeypatch):
    inner = tmp_path / "home" / "work" / "a" / "b"
    inner.mkdir(parents=True)
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "home")
    monkeypatch.chdir(inner)
    assert project_folder() == inner
    (tmp_path / "home" / ".profile").touch()
    make_repository(tmp_path / "home")  # of a user's settings
    assert project_folder() == inner
    (tmp_path / "home" / "work" / "pyproject.toml").touch()
    assert project_folder() == tmp_path / "home" / "work"
    git(inner.parent, "init")
    assert project_folder() == inner.parent


def test_the_packages_are_those_of_the_folder_that_litlab_is_in():
    assert {Path(sys.modules[name].__path__[0]).parent for name in ("modules", "pipelines")} == {packages.ROOT}
