"""MNIST's download by torchvision, from a local web server."""

import gzip
import hashlib
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import MNIST as TorchvisionMNIST

from datamodules.mnist import MNIST, OFFICIAL_SHA256
from modules.linear import LinearClassifier


class _QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Log nothing."""


@pytest.fixture
def archives(tmp_path_factory, mnist_folder) -> Path:
    """Folder with the four archives that torchvision downloads, with 200 + 60 scans."""
    source, folder = mnist_folder() / "MNIST" / "raw", tmp_path_factory.mktemp("archives")
    for name in OFFICIAL_SHA256:
        (folder / f"{name}.gz").write_bytes(gzip.compress((source / name).read_bytes()))
    return folder


@pytest.fixture
def use_mirror(monkeypatch, archives) -> Callable[[int], None]:
    """Function that makes torchvision download from a local port, with the hashes of the test archives."""

    def use(port: int) -> None:
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        hashes = [(f"{name}.gz", _md5(archives / f"{name}.gz")) for name in OFFICIAL_SHA256]
        monkeypatch.setattr(TorchvisionMNIST, "mirrors", [f"http://127.0.0.1:{port}/"])
        monkeypatch.setattr(TorchvisionMNIST, "resources", hashes)

    return use


def _md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


@pytest.fixture
def mirror(archives, use_mirror) -> Iterator[None]:
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_QuietHandler, directory=archives)) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        use_mirror(server.server_port)
        yield
        server.shutdown()
        thread.join()


@pytest.fixture
def no_mirror(use_mirror) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    use_mirror(port)  # nothing listens on this port any more


@pytest.fixture
def empty_folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.mark.usefixtures("mirror")
def test_missing_files_are_downloaded_and_loaded(empty_folder, scans):
    data = MNIST(data_dir=str(empty_folder / "new"), verify=False, n_val=40)
    data.prepare_data()
    data.setup("fit")
    assert (len(data.train_set), len(data.val_set)) == (160, 40)
    np.testing.assert_array_equal(data.load(train=False)[0][:, 0].numpy(), scans[0][200:260])


@pytest.mark.usefixtures("mirror")
def test_downloaded_files_are_verified(empty_folder):
    data = MNIST(data_dir=str(empty_folder))
    data.prepare_data()
    with pytest.raises(ValueError, match="damaged"):
        data.setup("fit")


@pytest.mark.usefixtures("mirror")
def test_a_damaged_archive_is_not_unpacked(empty_folder, archives):
    archive = archives / "train-images-idx3-ubyte.gz"
    archive.write_bytes(archive.read_bytes()[:-9])
    with pytest.raises(FileNotFoundError, match="corrupted"):
        MNIST(data_dir=str(empty_folder), verify=False).prepare_data()
    assert not list(empty_folder.rglob("*-ubyte"))


@pytest.mark.usefixtures("no_mirror")
def test_without_a_network_the_error_names_the_file_and_the_option(empty_folder):
    with pytest.raises(FileNotFoundError, match=r"--data\.data_dir") as error:
        MNIST(data_dir=str(empty_folder)).prepare_data()
    assert str(empty_folder / "MNIST" / "raw" / "train-images-idx3-ubyte") in str(error.value)


@pytest.mark.usefixtures("no_mirror")
def test_without_a_network_the_error_names_the_missing_file(mnist_folder):
    folder = mnist_folder()
    missing = folder / "MNIST" / "raw" / "t10k-images-idx3-ubyte"
    missing.unlink()
    with pytest.raises(FileNotFoundError) as error:
        MNIST(data_dir=str(folder)).prepare_data()
    assert str(error.value).startswith(f"{missing}: no such file")
    assert "\n" not in str(error.value), "the message has several lines"


@pytest.mark.usefixtures("no_mirror")
def test_a_complete_folder_needs_no_network(mnist_folder):
    data = MNIST(data_dir=str(mnist_folder()), verify=False)
    data.prepare_data()
    assert len(data.load(train=True)[0]) == 200


@pytest.mark.usefixtures("no_mirror")
def test_prediction_needs_no_data_and_no_network(empty_folder, tmp_path, scans, make_trainer):
    Image.fromarray(scans[0][0]).save(tmp_path / "scan.png")
    data = MNIST(data_dir=str(empty_folder))
    data.load_state_dict({"mean": [0.13], "std": [0.31]})
    data.predict_on([tmp_path / "scan.png"])
    (probabilities,) = make_trainer().predict(LinearClassifier((1, 28, 28), 10), data)
    assert probabilities.shape == (1, 10)


@pytest.mark.usefixtures("no_mirror")
@pytest.mark.parametrize("verb", ["fit", "validate", "test"])
def test_fit_validate_and_test_need_the_missing_files(empty_folder, make_trainer, verb):
    data, run = MNIST(data_dir=str(empty_folder)), getattr(make_trainer(max_epochs=1), verb)
    with pytest.raises(FileNotFoundError, match=r"--data\.data_dir"):
        run(LinearClassifier((1, 28, 28), 10), datamodule=data)


@pytest.mark.usefixtures("mirror")
def test_a_download_does_not_overwrite_existing_files(mnist_folder, scans):
    folder = mnist_folder(train_images=255 - scans[0][:200])
    (folder / "MNIST" / "raw" / "t10k-labels-idx1-ubyte").unlink()
    data = MNIST(data_dir=str(folder), verify=False)
    with suppress(FileNotFoundError):  # refusing to download is also acceptable
        data.prepare_data()
    np.testing.assert_array_equal(data.load(train=True)[0][:, 0].numpy(), 255 - scans[0][:200])


@pytest.mark.usefixtures("mirror")
def test_a_tilde_is_expanded_when_downloading_and_when_reading(empty_folder, monkeypatch):
    monkeypatch.setenv("HOME", str(empty_folder))
    monkeypatch.chdir(empty_folder)
    data = MNIST(data_dir="~/data", verify=False)
    data.prepare_data()
    assert len(data.load(train=True)[0]) == 200
