"""`pytorch_lightning` and `lightning_fabric` are other names of the modules of `lightning`."""

import subprocess
import sys

import pytest

from pipelines.config.cli import parse_config

SAME = """
from pipelines.runtime.lightning_names import unify_lightning_names
unify_lightning_names()
import lightning.pytorch as L
spec = L.__spec__
import pytorch_lightning as pl
import lightning_fabric
import lightning.fabric
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.utilities.types import STEP_OUTPUT
import pytorch_lightning.callbacks.early_stopping as early_stopping
from pytorch_lightning.loggers import CSVLogger
import sys
assert pl is L and L.__spec__ is spec and lightning_fabric is lightning.fabric
assert ModelCheckpoint is L.callbacks.ModelCheckpoint
assert early_stopping is sys.modules["lightning.pytorch.callbacks.early_stopping"]
names = {}
exec("from pytorch_lightning import *", names)
assert names["LightningModule"] is L.LightningModule
try:
    import pytorch_lightning.no_such_module
except ModuleNotFoundError as error:
    print(error)
"""
TOO_LATE = """
import sys
import pytorch_lightning
from pipelines.cli import main
sys.exit(main(["fit", "-c", sys.argv[1]]))
"""


def run(code, *args):
    return subprocess.run([sys.executable, "-W", "ignore", "-c", code, *args], capture_output=True, text=True)


@pytest.mark.slow
def test_both_names_are_the_same_modules_down_to_submodules():
    done = run(SAME)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "No module named 'pytorch_lightning.no_such_module'\n"


@pytest.fixture
def config(tmp_path, monkeypatch):
    (tmp_path / "old_style.py").write_text(
        "import pytorch_lightning as pl\n"
        "from tests.fixtures.strangers.classes import Net\n"
        "class Data(pl.LightningDataModule):\n    pass\n"
        "class Model(pl.LightningModule):\n    pass\n"
    )
    (tmp_path / "it.yaml").write_text(
        "data: {class_path: old_style.Data}\nmodel: {class_path: old_style.Model}\n"
        "trainer: {callbacks: [{class_path: pytorch_lightning.callbacks.EarlyStopping, init_args: {monitor: x}}]}\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path / "it.yaml"


def test_classes_of_pytorch_lightning_are_accepted(config):
    from lightning.pytorch.callbacks import EarlyStopping

    cli = parse_config("fit", ["-c", str(config)])
    assert type(cli.build()[1]).__name__ == "Model"
    assert isinstance(cli.callbacks[0], EarlyStopping)


@pytest.mark.slow
def test_classes_of_a_pytorch_lightning_that_was_imported_earlier_are_refused_with_the_reason(config, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", f"{config.parent}:.")
    done = run(TOO_LATE, str(config))
    assert done.returncode == 2
    assert "pytorch_lightning was imported before litlab" in done.stderr
