"""CIFAR-10 in both layouts, with tiles of real photographs, and torchvision's download."""

import hashlib
import os
import pickle
import shutil
import socket
import tarfile
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_images
from torchvision.datasets import CIFAR10 as TorchvisionCIFAR10

from datamodules.cifar10 import CIFAR10
from modules.linear import LinearClassifier

OFFICIAL = ["data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5", "test_batch"]
CLASSES = CIFAR10.classes


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "litlab"


@pytest.fixture(scope="session")
def tiles() -> np.ndarray:
    """180 tiles of two photographs, shape (180, 32, 32, 3)."""
    photographs = [image[:416, :640] for image in load_sample_images().images]
    tiled = [image.reshape(13, 32, 20, 32, 3).swapaxes(1, 2).reshape(-1, 32, 32, 3) for image in photographs]
    return np.concatenate(tiled)[:520:2][:180]


@pytest.fixture
def official(tmp_path, tiles, monkeypatch) -> Path:
    """Files in the official format: 5 times 30 training images and 30 test images, with the classes in turn."""
    folder = tmp_path / "official" / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    for name, images in zip(OFFICIAL, np.split(tiles, 6), strict=True):
        labels = [index % 10 for index in range(30)]
        content = {"data": images.transpose(0, 3, 1, 2).reshape(30, 3072), "labels": labels}
        (folder / name).write_bytes(pickle.dumps(content, protocol=2))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": list(CLASSES)}, protocol=2))
    md5 = {path.name: _md5(path) for path in folder.iterdir()}
    monkeypatch.setattr(TorchvisionCIFAR10, "train_list", [[name, md5[name]] for name in OFFICIAL[:5]])
    monkeypatch.setattr(TorchvisionCIFAR10, "test_list", [[name, md5[name]] for name in OFFICIAL[5:]])
    meta = {"filename": "batches.meta", "key": "label_names", "md5": md5["batches.meta"]}
    monkeypatch.setattr(TorchvisionCIFAR10, "meta", meta)
    return folder.parent


def _md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


@pytest.fixture
def folders(tmp_path, tiles) -> Path:
    """The same images as PNG files in folders."""
    root = tmp_path / "folders"
    for index, tile in enumerate(tiles):
        split, label = "train" if index < 150 else "test", index % 10
        path = root / "cifar10" / split / CLASSES[label] / f"{index:04}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(tile).save(path)
    return root


def _data(folder: Path, **options) -> CIFAR10:
    return CIFAR10(data_dir=str(folder), **{"n_val": 30, **options})


def test_official_files_are_read_as_written(official, tiles):
    for train, rows in [(True, slice(150)), (False, slice(150, 180))]:
        images, labels = _data(official).load(train=train)
        np.testing.assert_array_equal(images.permute(0, 2, 3, 1), tiles[rows])
        assert labels.tolist() == [index % 10 for index in range(len(tiles[rows]))]
        assert (images.dtype, labels.dtype) == (torch.uint8, torch.int64)


def test_both_layouts_give_the_same_images_and_labels(official, folders):
    for train in (True, False):
        images, labels = _data(official).load(train=train)
        by_class = torch.sort(labels, stable=True).indices
        folder_images, folder_labels = _data(folders).load(train=train)
        assert torch.equal(images[by_class], folder_images)
        assert torch.equal(labels[by_class], folder_labels)


@pytest.mark.parametrize("layout", ["official", "folders"])
def test_the_description_names_the_layout_and_sizes_and_classes_are_correct(layout, request):
    data = _data(request.getfixturevalue(layout))
    data.prepare_data()
    data.setup("fit")
    data.setup("test")
    assert [len(dataset) for dataset in (data.train_set, data.val_set, data.test_set)] == [120, 30, 30]
    assert data.train_set.inputs.shape[1:] == data.input_shape == (3, 32, 32)
    assert np.bincount(data.val_set.targets).tolist() == [3] * 10
    assert data.describe()["files"] == {"official": "official", "folders": "folder"}[layout]


def test_statistics_are_computed_from_the_training_images_in_use_only(official):
    data = _data(official, n_train=50)
    data.setup("fit")
    pixels = data.train_set.inputs.double().numpy() / 255
    assert len(pixels) == 50
    np.testing.assert_allclose(data.normalize.mean, pixels.mean((0, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(data.normalize.std, pixels.std((0, 2, 3)), rtol=1e-6)
    all_images = data.load(train=True)[0].double() / 255
    assert abs(data.normalize.mean[0] - float(all_images[:, 0].mean())) > 1e-4


class _Malicious:
    """Creates a folder when unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("name", ["data_batch_1", "data_batch_5", "test_batch", "batches.meta"])
def test_an_unofficial_pickle_is_named_and_not_executed(official, tmp_path, name, train):
    path = official / "cifar-10-batches-py" / name
    path.write_bytes(pickle.dumps(_Malicious(tmp_path / "executed")))
    with pytest.raises(ValueError, match="damaged") as error:
        _data(official).load(train=train)
    assert str(path) in str(error.value)
    assert not (tmp_path / "executed").exists()
    pickle.loads(path.read_bytes())
    assert (tmp_path / "executed").exists(), "the pickle is harmless, so that this test proves nothing"


def test_the_official_files_are_read_if_both_layouts_exist(official, folders):
    shutil.move(folders / "cifar10", official / "cifar10")
    data = _data(official)
    data.prepare_data()
    data.load(train=True)
    assert data.files == "official"


@pytest.mark.usefixtures("no_server")
def test_an_incomplete_official_folder_is_an_error_even_if_the_other_layout_exists(official, folders):
    shutil.move(folders / "cifar10", official / "cifar10")
    missing = official / "cifar-10-batches-py" / "data_batch_3"
    missing.unlink()
    for read in (_data(official).prepare_data, partial(_data(official).load, train=True)):
        with pytest.raises(FileNotFoundError) as error:
            read()
        assert str(missing) in str(error.value)


def test_a_layout_that_appears_between_training_and_test_is_ignored(official, folders):
    data, images = _data(folders), _data(folders).load(train=False)[0]
    data.load(train=True)
    shutil.move(official / "cifar-10-batches-py", folders)
    assert torch.equal(data.load(train=False)[0], images)
    assert (data.files, _data(folders).files) == ("folder", "official")


def test_folders_are_decoded_once(folders, capfd):
    first = _data(folders).load(train=True)[0]
    assert "decoding 150 images" in capfd.readouterr().err
    assert torch.equal(first, _data(folders).load(train=True)[0])
    assert "decoding" not in capfd.readouterr().err


@pytest.mark.parametrize("suffix", [".PNG", ".jpg", ".JPG", ".jpeg", ".Jpeg"])
def test_suffixes_are_case_insensitive(folders, tiles, suffix):
    Image.fromarray(tiles[0]).save(folders / "cifar10" / "test" / "frog" / f"extra{suffix}")
    assert _data(folders).load(train=False)[1].bincount().tolist() == [3] * 6 + [4] + [3] * 3


def test_hidden_and_other_files_are_ignored(folders):
    frog = folders / "cifar10" / "test" / "frog"
    for path in (frog / "._extra.png", frog / "Thumbs.db", frog.parent / "README", frog.parent / ".DS_Store"):
        path.write_bytes(b"no image")
    (frog.parent / ".cache").mkdir()
    assert len(_data(folders).load(train=False)[0]) == 30


def _error_message(folders: Path, match: str) -> str:
    """Message of the error that `prepare_data` raises, before training, whichever split is wrong."""
    with pytest.raises(ValueError, match=match) as error:
        _data(folders).prepare_data()
    with pytest.raises(ValueError, match=match):
        _data(folders).load(train=True)
    return str(error.value)


@pytest.mark.parametrize("split", ["train", "test"])
def test_the_error_for_a_missing_split_names_it(folders, split):
    shutil.rmtree(folders / "cifar10" / split)
    assert str(folders / "cifar10" / split) in _error_message(folders, "no such folder")


@pytest.mark.parametrize("split", ["train", "test"])
def test_the_error_for_a_missing_empty_or_unknown_class_names_it(folders, split):
    frog = folders / "cifar10" / split / "frog"
    toad = frog.rename(frog.parent / "toad")
    assert str(frog) in _error_message(folders, "missing")
    frog.mkdir()
    assert str(toad) in _error_message(folders, "not a class")
    shutil.rmtree(toad)
    assert str(frog) in _error_message(folders, "no images")


def test_the_error_for_an_image_of_another_size_names_it_and_its_size(folders, tiles):
    path = folders / "cifar10" / "train" / "frog" / "0006.png"
    Image.fromarray(tiles[0][:31]).save(path)
    with pytest.raises(ValueError, match="32 pixels wide and 31 high") as error:
        _data(folders).load(train=True)
    assert str(path) in str(error.value)


def test_the_error_for_a_damaged_image_names_it(folders):
    path = folders / "cifar10" / "train" / "frog" / "0006.png"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ValueError, match="not a readable image") as error:
        _data(folders).load(train=True)
    assert str(path) in str(error.value)


class _QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Log nothing."""


@pytest.fixture
def use_server(tmp_path, official, monkeypatch) -> Callable[[int], Path]:
    """Function that makes torchvision download an archive of the test files from a local port; returns the archive."""

    def use(port: int) -> Path:
        archive = tmp_path / "web" / "cifar-10-python.tar.gz"
        archive.parent.mkdir()
        with tarfile.open(archive, "w:gz") as file:
            file.add(official / "cifar-10-batches-py", "cifar-10-batches-py")
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        monkeypatch.setattr(TorchvisionCIFAR10, "url", f"http://127.0.0.1:{port}/{archive.name}")
        monkeypatch.setattr(TorchvisionCIFAR10, "tgz_md5", _md5(archive))
        return archive

    return use


@pytest.fixture
def archive(tmp_path, use_server) -> Iterator[Path]:
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_QuietHandler, directory=tmp_path / "web")) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield use_server(server.server_port)
        server.shutdown()
        thread.join()


@pytest.fixture
def no_server(use_server) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    use_server(port)  # nothing listens on this port any more


@pytest.mark.usefixtures("archive")
def test_the_official_files_are_downloaded_if_neither_layout_exists(tmp_path, official):
    data = _data(tmp_path / "new")
    data.prepare_data()
    assert torch.equal(data.load(train=True)[0], _data(official).load(train=True)[0])
    assert data.files == "official"


def test_a_damaged_archive_is_not_unpacked(tmp_path, archive):
    archive.write_bytes(archive.read_bytes()[:-9])
    with pytest.raises(FileNotFoundError, match="corrupted"):
        _data(tmp_path / "new").prepare_data()
    assert [path.name for path in (tmp_path / "new").rglob("*batch*")] == []


@pytest.mark.usefixtures("no_server")
def test_without_a_network_the_error_names_both_layouts_and_the_option(tmp_path):
    for read in (_data(tmp_path).prepare_data, partial(_data(tmp_path).load, train=True)):
        with pytest.raises(FileNotFoundError, match=r"--data\.data_dir") as error:
            read()
        assert str(tmp_path / "cifar-10-batches-py" / "data_batch_1") in str(error.value)
        assert "cifar10/{train,test}/CLASS" in str(error.value)


@pytest.mark.usefixtures("no_server")
@pytest.mark.parametrize("layout", ["official", "folders"])
def test_existing_files_need_no_network(layout, request):
    data = _data(request.getfixturevalue(layout))
    data.prepare_data()
    assert len(data.load(train=True)[0]) == 150


@pytest.mark.usefixtures("no_server")
def test_prediction_needs_no_data_and_no_network(tmp_path, tiles, make_trainer):
    Image.fromarray(tiles[0]).save(tmp_path / "tile.png")
    data = _data(tmp_path)
    data.load_state_dict({"mean": [0.5] * 3, "std": [0.25] * 3})
    data.predict_on([tmp_path / "tile.png"])
    (probabilities,) = make_trainer().predict(LinearClassifier((3, 32, 32), 10), data)
    assert probabilities.shape == (1, 10)


def test_a_tilde_is_expanded_to_the_home_folder(folders, monkeypatch):
    monkeypatch.setenv("HOME", str(folders.parent))
    assert len(CIFAR10(data_dir="~/folders").load(train=True)[0]) == 150
