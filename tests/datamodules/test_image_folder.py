"""Anybody's images in folders: four layouts, the same images in the same part always, and errors that name folders."""

import shutil
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from datamodules.image_folder import ImageFolder
from datamodules.images import read_image

NAMES = ("eight", "one", "zero")
DIGITS = {"zero": 0, "one": 1, "eight": 8}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "litlab"


@pytest.fixture
def write(tmp_path, scans):
    """Writes different real digits of three classes into folders such as "train/{}"; so many of each class."""
    left = {name: list(scans[0][scans[1] == digit]) for name, digit in DIGITS.items()}

    def make(**folders: int) -> Path:
        for place, count in folders.items():
            for name, index in ((name, index) for name in NAMES for index in range(count)):
                path = tmp_path / "mine" / ("" if place == "flat" else place) / name / f"{index:02}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(left[name].pop()).save(path)
        return tmp_path / "mine"

    return make


def _data(folder: Path, **options) -> ImageFolder:
    return ImageFolder(str(folder), **{"size": 28, "channels": 1, **options})


def _set_up(folder: Path, **options) -> ImageFolder:
    data = _data(folder, **options)
    data.prepare_data()
    data.setup("fit")
    data.setup("test")
    return data


def _rows(images: torch.Tensor) -> set[bytes]:
    return {image.numpy().tobytes() for image in images}


def _files(folder: Path) -> set[bytes]:
    return _rows(torch.stack([read_image(path, (1, 28, 28)) for path in folder.rglob("*.png")]))


LAYOUTS = {
    "classes alone": ({"flat": 20}, (44, 4, 12)),
    "train": ({"train": 20}, (44, 4, 12)),
    "train and test": ({"train": 20, "test": 5}, (54, 6, 15)),
    "train and val": ({"train": 20, "val": 5}, (48, 15, 12)),
    "train, val and test": ({"train": 20, "val": 5, "test": 6}, (60, 15, 18)),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_image_is_in_exactly_one_part_of_the_right_size(write, layout):
    folders, sizes = LAYOUTS[layout]
    folder = write(**folders)
    data = _set_up(folder)
    parts = [data.train_set, data.val_set, data.test_set]
    assert tuple(map(len, parts)) == sizes
    pixels = [_rows(part.images_NCHW) for part in parts]
    assert not any(one & other for one, other in combinations(pixels, 2))
    assert set.union(*pixels) == _files(folder)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_label_is_that_of_the_images_folder(write, layout):
    folder = write(**LAYOUTS[layout][0])
    data = _set_up(folder)
    assert data.classes == NAMES
    by_class = {
        name: set.union(*(_files(path) for path in folder.rglob(name) if path.is_dir())) for name in data.classes
    }
    for part in (data.train_set, data.val_set, data.test_set):
        for image, label in zip(part.images_NCHW, part.labels_N, strict=True):
            assert image.numpy().tobytes() in by_class[data.classes[int(label)]]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_part_is_stratified(write, layout):
    data = _set_up(write(**LAYOUTS[layout][0]))
    for part in (data.train_set, data.val_set, data.test_set):
        counts = np.bincount(part.labels_N, minlength=3)
        assert counts.max() - counts.min() <= 1


@pytest.mark.parametrize("name", ["val", "valid", "validation"])
def test_a_validation_folder_is_the_validation_set_as_it_is(write, name):
    folder = write(train=20, **{name: 5}, test=5)
    data = _set_up(folder, n_train=12, split_seed=3)
    assert _rows(data.val_set.images_NCHW) == _files(folder / name)
    assert _rows(data.test_set.images_NCHW) == _files(folder / "test")
    assert _rows(data.train_set.images_NCHW) < _files(folder / "train")


@pytest.mark.parametrize("options", [{"split_seed": 7}, {"n_train": 12}, {"n_val": 9}, {"normalization": "unit"}])
def test_no_option_but_its_size_changes_the_test_part(write, options):
    folder = write(flat=20)
    assert _set_up(folder, **options).test_set.digest() == _set_up(folder).test_set.digest()


def test_the_sizes_of_validation_and_test_can_be_chosen(write):
    data = _set_up(write(flat=20), n_val=9, n_test=6)
    assert [len(part) for part in (data.train_set, data.val_set, data.test_set)] == [45, 9, 6]


@pytest.mark.parametrize("layout", [{"train": 20, "val": 5, "test": 3}, {"flat": 28}])
@pytest.mark.parametrize("n_train", [3, 12, 40])
def test_a_training_subset_is_stratified_and_leaves_the_other_parts_alone(write, layout, n_train):
    folder = write(**layout)
    full, subset = _set_up(folder), _set_up(folder, n_train=n_train)
    counts = np.bincount(subset.train_set.labels_N, minlength=3)
    assert (counts.sum(), counts.max() - counts.min() <= 1) == (n_train, True)
    assert _rows(subset.train_set.images_NCHW) < _rows(full.train_set.images_NCHW)
    assert subset.val_set.digest() == full.val_set.digest()
    assert subset.test_set.digest() == full.test_set.digest()


@pytest.mark.parametrize("n_train", [2, 61])
def test_a_training_subset_that_cannot_be_is_refused_with_what_can(write, n_train):
    folder = write(train=20, val=5, test=3)
    with pytest.raises(ValueError, match=rf"data\.n_train is {n_train}.*3 \(one per class\) to 60"):
        _set_up(folder, n_train=n_train)


def test_statistics_come_from_the_training_images_in_use_only(write):
    data = _set_up(write(train=20, val=5, test=5), n_train=12)
    pixels = data.train_set.images_NCHW.double().numpy() / 255
    np.testing.assert_allclose(data.normalize.mean, [pixels.mean()], rtol=1e-6)
    np.testing.assert_allclose(data.normalize.std, [pixels.std()], rtol=1e-6)


@pytest.mark.parametrize(
    ("size", "channels", "shape"), [(20, 3, (3, 20, 20)), ((20, 36), 1, (1, 20, 36)), ((36, 20), 3, (3, 36, 20))]
)
def test_shape_and_classes_are_known_before_any_image_is_read_and_are_those_of_the_images(write, size, channels, shape):
    folder = write(train=8)
    data = _data(folder, size=size, channels=channels)
    assert (data.input_shape, data.classes, data.num_classes) == (shape, NAMES, 3)
    images, labels = data.load(train=True)
    assert (images.shape[1:], images.dtype, labels.dtype) == (shape, torch.uint8, torch.int64)
    (folder / "train" / "one" / "00.png").write_bytes(b"no image")
    assert _data(folder).classes == NAMES


def test_images_are_read_as_a_prediction_reads_them(write, scans):
    folder = write(train=8, test=3)
    wide = Image.fromarray(scans[0][0, 5:20]).convert("RGB")
    wide.save(folder / "test" / "one" / "wide.jpg")
    data = _set_up(folder, size=24, channels=3)
    data.predict_on([folder / "test" / "one" / "wide.jpg"])
    ((predicted,),) = list(data.predict_dataloader())
    assert predicted[0].numpy().tobytes() in _rows(data.test_set.images_NCHW)


def test_nested_images_are_found_and_hidden_and_other_files_are_not(write):
    folder = write(train=8)
    deep = folder / "train" / "one" / "scanned" / "again" / "deep.PNG"
    deep.parent.mkdir(parents=True)
    shutil.copy(folder / "train" / "one" / "00.png", deep)
    hidden = folder / "train" / "one" / ".trash"
    hidden.mkdir()
    for path in (hidden / "a.png", deep.with_name("._deep.png"), deep.with_name("notes.txt"), folder / "README.md"):
        path.write_bytes(b"no image")
    (folder / "train" / ".ipynb_checkpoints").mkdir()
    (folder / ".git").mkdir()
    data = _data(folder, n_test=3)
    assert sum(len(data.load(train=train)[0]) for train in (True, False)) == 25


def test_links_are_followed_and_loops_end(write, tmp_path):
    folder = write(train=8)
    (folder / "train" / "one").rename(tmp_path / "elsewhere")
    (folder / "train" / "one").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "itself").symlink_to(tmp_path / "elsewhere")
    (folder / "train" / "zero" / "above").symlink_to(folder)
    (folder / "train" / "zero" / "nothing").symlink_to("nothing")
    labels = torch.cat([_data(folder, n_test=3).load(train=train)[1] for train in (True, False)])
    assert labels.bincount().tolist() == [8, 8, 8]


def test_a_folder_that_is_missing_is_named_with_the_option(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere: no such folder.*--data\.data_dir"):
        ImageFolder(str(tmp_path / "nowhere"))


def test_folders_without_classes_or_training_images_are_refused(write, tmp_path):
    (tmp_path / "mine").mkdir()
    with pytest.raises(ValueError, match="neither a folder for each class"):
        _data(tmp_path / "mine")
    folder = write(test=3, val=3)
    with pytest.raises(ValueError, match="nor the folder train"):
        _data(folder)
    (folder / "train").mkdir()
    with pytest.raises(ValueError, match=r"eight has a folder in .*, but none in .*train"):
        _data(folder)


def test_one_class_is_not_enough(write):
    folder = write(train=3)
    for name in NAMES[1:]:
        shutil.rmtree(folder / "train" / name)
    with pytest.raises(ValueError, match="train: 1 class folders in it; at least 2"):
        _data(folder)


@pytest.mark.parametrize("part", ["val", "test"])
def test_parts_of_different_classes_are_refused_with_class_and_folder(write, part):
    folder = write(train=3, val=3, test=3)
    shutil.rmtree(folder / part / "one")
    with pytest.raises(ValueError, match=rf"class one has a folder in .*train, but none in .*{part}"):
        _data(folder)
    shutil.copytree(folder / part / "zero", folder / part / "one")
    shutil.copytree(folder / part / "zero", folder / part / "two")
    with pytest.raises(ValueError, match=rf"class two has a folder in .*{part}, but none in .*train"):
        _data(folder)


@pytest.mark.parametrize("part", ["train", "val", "test"])
def test_a_class_without_an_image_is_named(write, part):
    folder = write(train=8, val=3, test=3)
    for path in (folder / part / "one").iterdir():
        path.rename(path.with_suffix(".txt"))
    with pytest.raises(ValueError, match=rf"{part}/one: no image in it; their names end in \.jpg"):
        _set_up(folder)


@pytest.mark.parametrize("layout", [{"flat": 8}, {"train": 8, "test": 3}])
def test_a_single_image_of_a_class_is_not_shared_between_two_parts(write, layout):
    folder = write(**layout)
    for path in sorted((folder / ("" if "flat" in layout else "train") / "one").iterdir())[1:]:
        path.unlink()
    with pytest.raises(ValueError, match=r"one: 1 image to share between training and .*at least 2"):
        _set_up(folder)


def test_one_image_per_class_is_enough_where_no_part_is_taken_from_it(write):
    data = _set_up(write(train=1, val=1, test=1))
    assert [len(part) for part in (data.train_set, data.val_set, data.test_set)] == [3, 3, 3]


@pytest.mark.parametrize("option", ["n_val", "n_test"])
def test_the_size_of_a_part_that_has_a_folder_is_refused(write, option):
    folder = write(train=8, val=3, test=3)
    with pytest.raises(ValueError, match=rf"data\.{option} is 5, but .*{option[2:]} is the whole"):
        _data(folder, **{option: 5})


def test_two_validation_folders_are_refused(write):
    with pytest.raises(ValueError, match="val and validation are names of the same part"):
        _data(write(train=3, val=3, validation=3))


def test_classes_beside_parts_are_refused(write):
    folder = write(flat=3, test=3)
    with pytest.raises(ValueError, match="eight: neither training nor test images; beside it there is test"):
        _data(folder)


def test_a_class_may_be_called_train(write):
    folder = write(flat=8)
    (folder / "one").rename(folder / "train")
    assert _data(folder).classes == ("eight", "train", "zero")


@pytest.mark.parametrize(("key", "value"), [("size", 0), ("size", (8, -1)), ("n_val", 0), ("n_test", 0)])
def test_a_size_below_one_is_refused_by_its_key(write, key, value):
    with pytest.raises(ValueError, match=rf"data\.{key} is .*; it must be 1 or more"):
        _data(write(train=3), **{key: value})


@pytest.mark.parametrize("n_test", [1, 23, 24])
def test_a_test_part_that_cannot_be_is_refused_by_its_key(write, n_test):
    with pytest.raises(ValueError, match=rf"data\.n_test={n_test}"):
        _set_up(write(flat=8), n_test=n_test)


def test_images_are_decoded_once(write, capfd):
    folder = write(train=8, test=3)
    digests = [_set_up(folder).train_set.digest(), _set_up(folder).train_set.digest()]
    assert digests[0] == digests[1]
    assert capfd.readouterr().err.count("decoding") == 2  # training and test, of the first


def test_a_run_and_a_prediction_from_the_command_line(write, tmp_path, litlab):
    folder = write(train=20, test=3)
    config = {
        "data": {"class_path": "datamodules.image_folder.ImageFolder", "init_args": {"data_dir": str(folder)}},
        "model": {"class_path": "modules.linear.LinearClassifier"},
        "trainer": {"max_epochs": 1, "accelerator": "cpu"},
    }
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(config))
    options = ("--data.size", "[12, 16]", "--data.channels", "1", "--data.n_val", "6")
    fitted = litlab("fit", "-c", tmp_path / "mine.yaml", *options)
    assert fitted.code == 0, fitted.err
    predicted = litlab("predict", fitted.run_id, folder / "test" / "one" / "00.png")
    assert predicted.code == 0, predicted.err
    assert predicted.out.splitlines()[1].split(",")[1] in NAMES
