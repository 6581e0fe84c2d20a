"""Hooks of one instance: Lightning sees through them, and copies and pickles of the instance do not have them."""

import copy
import io

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.model_helpers import is_overridden

from pipelines.runtime.hooks import replace_hook, run_after_hook


class Module(LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)

    def on_train_end(self):
        return "own"


def test_the_replacement_and_the_work_after_it_run():
    module, done = Module(), []
    replace_hook(module, "on_train_end", lambda original: f"replaced {original()}")
    run_after_hook(module, "on_train_end", lambda: done.append(1))
    assert module.on_train_end() == "replaced own"
    assert done == [1]


def test_lightning_sees_which_hooks_a_class_overrides():
    module = Module()
    for name in ("on_train_end", "train_dataloader"):
        for _ in range(2):
            replace_hook(module, name, lambda original: original())
    assert is_overridden("on_train_end", module)
    assert not is_overridden("train_dataloader", module)


def test_copies_and_pickles_have_the_original_hooks():
    module, done = Module(), []
    run_after_hook(module, "on_train_end", lambda: done.append(1))
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    for other in (copy.deepcopy(module), torch.load(file, weights_only=False)):
        assert other.on_train_end() == "own"
        assert torch.equal(other.layer.weight, module.layer.weight)
    assert not done
