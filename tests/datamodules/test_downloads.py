"""A download that fails leaves nothing that looks like data."""

import pytest
from torchvision.datasets import CIFAR10 as TorchvisionCIFAR10
from torchvision.datasets import MNIST as TorchvisionMNIST

from datamodules.cifar10 import CIFAR10
from datamodules.mnist import MNIST
from pipelines.diagnostics import torch_process


@pytest.fixture(autouse=True)
def no_server(monkeypatch):
    monkeypatch.setattr(TorchvisionMNIST, "mirrors", ["file:///no/such/server/"])
    monkeypatch.setattr(TorchvisionCIFAR10, "url", "file:///no/such/server/cifar.tar.gz")


@pytest.mark.parametrize("data", [MNIST, CIFAR10])
def test_a_failed_download_leaves_no_empty_folder(tmp_path, data):
    with pytest.raises(FileNotFoundError, match="download"):
        data(data_dir=str(tmp_path / "data")).prepare_data()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("data", [MNIST, CIFAR10])
def test_a_failed_download_keeps_folders_and_files_that_were_there(tmp_path, data):
    (tmp_path / "data" / "mine").mkdir(parents=True)
    (tmp_path / "data" / "notes.txt").write_text("mine")
    with pytest.raises(FileNotFoundError, match="download"):
        data(data_dir=str(tmp_path / "data")).prepare_data()
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == ["mine", "notes.txt"]


def test_doctor_says_of_an_empty_folder_that_the_data_are_not_there(tmp_path):
    (tmp_path / "MNIST" / "raw").mkdir(parents=True)
    (tmp_path / "cifar-10-batches-py").mkdir()
    for result in (torch_process._mnist(tmp_path), torch_process._cifar(tmp_path)):
        assert result.state == "ok"
        assert "downloads it" in result.message
