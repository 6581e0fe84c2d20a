"""ImageFolder: supported layouts, reproducible splits, and errors that name folders."""

import re
import shutil
import unicodedata
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
RANDOM = {"subset": "random"}
DIGITS = {"zero": 0, "one": 1, "eight": 8}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "litlab"


@pytest.fixture
def write(tmp_path, scans):
    """Function that writes different digits of three classes into split folders, a given number of each class."""
    remaining = {name: list(scans[0][scans[1] == digit]) for name, digit in DIGITS.items()}

    def write_folders(**folders: int) -> Path:
        for split, count in folders.items():
            for name, index in ((name, index) for name in NAMES for index in range(count)):
                path = tmp_path / "mine" / ("" if split == "flat" else split) / name / f"{index:02}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(remaining[name].pop()).save(path)
        return tmp_path / "mine"

    return write_folders


def _data(folder: Path, **options) -> ImageFolder:
    return ImageFolder(str(folder), **{"size": 28, "channels": 1, **options})


def _set_up(folder: Path, **options) -> ImageFolder:
    data = _data(folder, **options)
    data.prepare_data()
    data.setup("fit")
    data.setup("test")
    return data


def _image_bytes(images: torch.Tensor) -> set[bytes]:
    return {image.numpy().tobytes() for image in images}


def _file_bytes(folder: Path) -> set[bytes]:
    return _image_bytes(torch.stack([read_image(path, (1, 28, 28)) for path in folder.rglob("*.png")]))


LAYOUTS = {
    "classes alone": ({"flat": 20}, (44, 4, 12)),
    "train": ({"train": 20}, (44, 4, 12)),
    "train and test": ({"train": 20, "test": 5}, (54, 6, 15)),
    "train and val": ({"train": 20, "val": 5}, (48, 15, 12)),
    "train, val and test": ({"train": 20, "val": 5, "test": 6}, (60, 15, 18)),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_image_is_in_exactly_one_split_and_splits_have_the_expected_sizes(write, layout):
    folders, sizes = LAYOUTS[layout]
    folder = write(**folders)
    data = _set_up(folder)
    sets = [data.train_set, data.val_set, data.test_set]
    assert tuple(map(len, sets)) == sizes
    pixels = [_image_bytes(dataset.inputs) for dataset in sets]
    assert not any(one & other for one, other in combinations(pixels, 2))
    assert set.union(*pixels) == _file_bytes(folder)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_label_is_the_class_folder_of_the_image(write, layout):
    folder = write(**LAYOUTS[layout][0])
    data = _set_up(folder)
    assert data.classes == NAMES
    by_class = {
        name: set.union(*(_file_bytes(path) for path in folder.rglob(name) if path.is_dir())) for name in data.classes
    }
    for dataset in (data.train_set, data.val_set, data.test_set):
        for image, label in zip(dataset.inputs, dataset.targets, strict=True):
            assert image.numpy().tobytes() in by_class[data.classes[int(label)]]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_split_is_stratified(write, layout):
    data = _set_up(write(**LAYOUTS[layout][0]))
    for dataset in (data.train_set, data.val_set, data.test_set):
        counts = np.bincount(dataset.targets, minlength=3)
        assert counts.max() - counts.min() <= 1


@pytest.mark.parametrize("name", ["val", "valid", "validation"])
def test_a_validation_folder_is_the_complete_validation_set(write, name):
    folder = write(train=20, **{name: 5}, test=5)
    data = _set_up(folder, n_train=12, split_seed=3)
    assert _image_bytes(data.val_set.inputs) == _file_bytes(folder / name)
    assert _image_bytes(data.test_set.inputs) == _file_bytes(folder / "test")
    assert _image_bytes(data.train_set.inputs) < _file_bytes(folder / "train")


@pytest.mark.parametrize("options", [{"split_seed": 7}, {"n_train": 12}, {"n_val": 9}, {"normalization": "unit"}])
def test_only_n_test_changes_the_test_set(write, options):
    folder = write(flat=20)
    assert _set_up(folder, **options).test_set.digest() == _set_up(folder).test_set.digest()


def test_n_val_and_n_test_set_the_sizes_of_the_splits(write):
    data = _set_up(write(flat=20), n_val=9, n_test=6)
    assert [len(dataset) for dataset in (data.train_set, data.val_set, data.test_set)] == [45, 9, 6]


@pytest.mark.parametrize("layout", [{"train": 20, "val": 5, "test": 3}, {"flat": 28}])
@pytest.mark.parametrize("n_train", [3, 12, 40])
def test_a_training_subset_is_stratified_and_does_not_change_the_other_splits(write, layout, n_train):
    folder = write(**layout)
    full, subset = _set_up(folder), _set_up(folder, n_train=n_train)
    counts = np.bincount(subset.train_set.targets, minlength=3)
    assert (counts.sum(), counts.max() - counts.min() <= 1) == (n_train, True)
    assert _image_bytes(subset.train_set.inputs) < _image_bytes(full.train_set.inputs)
    assert subset.val_set.digest() == full.val_set.digest()
    assert subset.test_set.digest() == full.test_set.digest()


@pytest.mark.parametrize("layout", [{"flat": 30}, {"train": 20, "val": 5, "test": 5}])
def test_a_random_training_subset_is_not_stratified_and_does_not_change_the_other_splits(write, layout):
    folder, counts = write(**layout), []
    for seed in range(3):
        full, subset = (_set_up(folder, split_seed=seed, **options) for options in ({}, {"n_train": 12, **RANDOM}))
        counts.append(np.bincount(subset.train_set.targets, minlength=3).tolist())
        assert subset.val_set.digest() == full.val_set.digest()
        assert subset.test_set.digest() == full.test_set.digest()
    assert [sum(of_classes) for of_classes in counts] == [12, 12, 12]
    assert counts != [[4, 4, 4]] * 3


@pytest.mark.parametrize("n_train", [2, 61])
def test_the_error_for_an_impossible_n_train_names_the_allowed_range(write, n_train):
    folder = write(train=20, val=5, test=3)
    with pytest.raises(ValueError, match=rf"data\.n_train is {n_train}.*3 \(one per class\) to 60"):
        _set_up(folder, n_train=n_train)


def test_statistics_are_computed_from_the_training_images_in_use_only(write):
    data = _set_up(write(train=20, val=5, test=5), n_train=12)
    pixels = data.train_set.inputs.double().numpy() / 255
    np.testing.assert_allclose(data.normalize.mean, [pixels.mean()], rtol=1e-6)
    np.testing.assert_allclose(data.normalize.std, [pixels.std()], rtol=1e-6)


@pytest.mark.parametrize(
    ("size", "channels", "shape"), [(20, 3, (3, 20, 20)), ((20, 36), 1, (1, 20, 36)), ((36, 20), 3, (3, 36, 20))]
)
def test_shape_and_classes_are_known_before_any_image_is_read(write, size, channels, shape):
    folder = write(train=8)
    data = _data(folder, size=size, channels=channels)
    assert (data.input_shape, data.classes, data.num_classes) == (shape, NAMES, 3)
    images, labels = data.load(train=True)
    assert (images.shape[1:], images.dtype, labels.dtype) == (shape, torch.uint8, torch.int64)
    (folder / "train" / "one" / "00.png").write_bytes(b"no image")
    assert _data(folder).classes == NAMES


def test_images_are_read_as_in_prediction(write, scans):
    folder = write(train=8, test=3)
    wide = Image.fromarray(scans[0][0, 5:20]).convert("RGB")
    wide.save(folder / "test" / "one" / "wide.jpg")
    data = _set_up(folder, size=24, channels=3)
    data.predict_on([folder / "test" / "one" / "wide.jpg"])
    ((predicted,),) = list(data.predict_dataloader())
    assert predicted[0].numpy().tobytes() in _image_bytes(data.test_set.inputs)


def test_nested_images_are_found_and_hidden_and_other_files_are_ignored(write):
    folder = write(train=8)
    deep = folder / "train" / "one" / "folder" / "subfolder" / "deep.PNG"
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


def test_links_are_followed_and_link_loops_end(write, tmp_path):
    folder = write(train=8)
    (folder / "train" / "one").rename(tmp_path / "elsewhere")
    (folder / "train" / "one").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "itself").symlink_to(tmp_path / "elsewhere")
    (folder / "train" / "zero" / "above").symlink_to(folder)
    (folder / "train" / "zero" / "nothing").symlink_to("nothing")
    labels = torch.cat([_data(folder, n_test=3).load(train=train)[1] for train in (True, False)])
    assert labels.bincount().tolist() == [8, 8, 8]


def test_the_error_for_a_missing_folder_names_it_and_the_option(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere: no such folder.*--data\.data_dir"):
        ImageFolder(str(tmp_path / "nowhere"))


def test_a_missing_relative_folder_is_told_with_the_place_where_it_was_looked_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=re.escape(f"mine: no such folder ({tmp_path / 'mine'}); --data")):
        ImageFolder("mine")


def test_the_folder_of_a_class_in_place_of_its_parent_is_told_with_the_parent(write, tmp_path, monkeypatch):
    folder = write(train=3) / "train"
    monkeypatch.chdir(folder)
    for path in (folder / "zero", Path("zero")):
        with pytest.raises(ValueError, match=re.escape(f"the folder of a class, --data.data_dir is {folder}") + "$"):
            ImageFolder(str(path))


def test_folders_without_classes_or_training_images_are_an_error(write, tmp_path):
    (tmp_path / "mine").mkdir()
    with pytest.raises(ValueError, match="neither class folders"):
        _data(tmp_path / "mine")
    folder = write(test=3, val=3)
    with pytest.raises(ValueError, match="nor a folder train"):
        _data(folder)
    (folder / "train").mkdir()
    with pytest.raises(ValueError, match=r"eight has a folder in .*, but none in .*train"):
        _data(folder)


def test_a_single_class_is_an_error(write):
    folder = write(train=3)
    for name in NAMES[1:]:
        shutil.rmtree(folder / "train" / name)
    with pytest.raises(ValueError, match="train: 1 class folder; at least 2"):
        _data(folder)


@pytest.mark.parametrize("split", ["val", "test"])
def test_the_error_for_splits_with_different_classes_names_class_and_folders(write, split):
    folder = write(train=3, val=3, test=3)
    shutil.rmtree(folder / split / "one")
    with pytest.raises(ValueError, match=rf"class one has a folder in .*train, but none in .*{split}"):
        _data(folder)
    shutil.copytree(folder / split / "zero", folder / split / "one")
    shutil.copytree(folder / split / "zero", folder / split / "two")
    with pytest.raises(ValueError, match=rf"class two has a folder in .*{split}, but none in .*train"):
        _data(folder)


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_the_error_for_a_class_without_images_names_it(write, split):
    folder = write(train=8, val=3, test=3)
    for path in (folder / split / "one").iterdir():
        path.rename(path.with_suffix(".txt"))
    with pytest.raises(ValueError, match=rf"{split}/one: no images; their names must end in \.jpg"):
        _set_up(folder)


@pytest.mark.parametrize("layout", [{"flat": 8}, {"train": 8, "test": 3}])
def test_a_class_with_a_single_image_cannot_be_split(write, layout):
    folder = write(**layout)
    for path in sorted((folder / ("" if "flat" in layout else "train") / "one").iterdir())[1:]:
        path.unlink()
    with pytest.raises(ValueError, match=r"one: 1 image to share between training and .*at least 2"):
        _set_up(folder)


def test_one_image_per_class_is_enough_if_each_split_has_a_folder(write):
    data = _set_up(write(train=1, val=1, test=1))
    assert [len(dataset) for dataset in (data.train_set, data.val_set, data.test_set)] == [3, 3, 3]


@pytest.mark.parametrize("option", ["n_val", "n_test"])
def test_the_size_of_a_split_that_has_a_folder_is_an_error(write, option):
    folder = write(train=8, val=3, test=3)
    with pytest.raises(ValueError, match=rf"data\.{option} is 5, but .*{option[2:]} is the complete"):
        _data(folder, **{option: 5})


def test_two_validation_folders_are_an_error(write):
    with pytest.raises(ValueError, match="val and validation are names of the same split"):
        _data(write(train=3, val=3, validation=3))


def test_class_folders_next_to_split_folders_are_an_error(write):
    folder = write(flat=3, test=3)
    with pytest.raises(ValueError, match=r"eight: unexpected next to test; class folders belong in .*train"):
        _data(folder)


def test_a_class_may_be_named_train(write):
    folder = write(flat=8)
    (folder / "one").rename(folder / "train")
    assert _data(folder).classes == ("eight", "train", "zero")


@pytest.mark.parametrize(("key", "value"), [("size", 0), ("size", (8, -1)), ("n_val", 0), ("n_test", 0)])
def test_the_error_for_a_size_below_one_names_its_key(write, key, value):
    with pytest.raises(ValueError, match=rf"data\.{key} is .*; it must be 1 or more"):
        _data(write(train=3), **{key: value})


@pytest.mark.parametrize("n_test", [1, 23, 24])
def test_the_error_for_an_impossible_n_test_names_its_key(write, n_test):
    with pytest.raises(ValueError, match=rf"data\.n_test={n_test}"):
        _set_up(write(flat=8), n_test=n_test)


def test_images_are_decoded_once(write, capfd):
    folder = write(train=8, test=3)
    digests = [_set_up(folder).train_set.digest(), _set_up(folder).train_set.digest()]
    assert digests[0] == digests[1]
    assert capfd.readouterr().err.count("decoding") == 2  # training and test images of the first setup only


def test_fit_and_predict_work_from_the_command_line(write, tmp_path, litlab):
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


def test_class_names_select_folders_and_their_order(write):
    data = _data(write(flat=20), class_names=["one", "zero"], n_val=4)
    images, labels = data.load(train=True)
    assert data.classes == ("one", "zero")
    assert images[labels == 0].float().mean() < images[labels == 1].float().mean()  # a one has less ink


def test_a_run_predicts_the_class_names_it_was_trained_with_after_the_folder_changes(write, tmp_path, litlab):
    folder = write(flat=30)
    options = ("--data", "datamodules.image_folder.ImageFolder", "--data.data_dir", str(folder), "--data.size", "28")
    run_id = litlab("fit", "digits-convnet", *options, "--trainer.max_epochs", "3").run_id
    image = shutil.copy(folder / "zero" / "00.png", tmp_path)
    predicted = litlab("predict", run_id, image).out
    assert ",zero," in predicted
    (folder / "another").mkdir()
    (folder / "zero").rename(folder / "nought")
    assert litlab("predict", run_id, image).out == predicted
    tested = litlab("test", run_id)
    assert tested.code == 2
    assert "zero: no such folder" in tested.err
    shutil.rmtree(folder)
    assert litlab("predict", run_id, image).out == predicted


ACCENTED = "émile"
NFC, NFD = (unicodedata.normalize(form, ACCENTED) for form in ("NFC", "NFD"))


def test_class_folders_in_different_unicode_forms_are_the_same_class(write):
    folder = write(train=12, val=3, test=3)
    for split, form in (("train", NFC), ("val", NFD), ("test", NFD)):
        (folder / split / "one").rename(folder / split / form)
    data = _set_up(folder)
    assert data.classes == ("eight", "zero", NFC)
    assert torch.bincount(data.test_set.targets).tolist() == [3, 3, 3]


def test_two_folders_whose_names_differ_in_their_unicode_form_are_one_class(write):
    folder = write(train=12, test=3)
    (folder / "train" / "one").rename(folder / "train" / NFC)
    (folder / "test" / "one").rename(folder / "test" / NFC)
    (folder / "train" / "eight").rename(folder / "train" / NFD)
    shutil.rmtree(folder / "test" / "eight")
    data = _set_up(folder)
    assert data.classes == ("zero", NFC)
    counts = [torch.bincount(dataset.targets).tolist() for dataset in (data.train_set, data.val_set)]
    assert [sum(count) for count in zip(*counts, strict=True)] == [12, 24]


@pytest.mark.parametrize(("recorded", "on_disk"), [(NFD, NFC), (NFC, NFD)])
def test_recorded_class_names_keep_their_form_and_find_a_copy_in_another(write, recorded, on_disk):
    folder = write(train=12)
    (folder / "train" / "one").rename(folder / "train" / on_disk)
    data = _set_up(folder, class_names=["zero", recorded])
    assert data.classes == ("zero", recorded)
    assert torch.bincount(data.test_set.targets).tolist() == [2, 2]


def test_a_class_name_given_in_two_unicode_forms_is_an_error(write):
    with pytest.raises(ValueError, match=r"data\.class_names: émile is given twice"):
        _data(write(train=3), class_names=[NFC, NFD])


def test_training_and_prediction_read_a_rotated_transparent_image_alike(write):
    folder = write(flat=4)
    path = folder / "one" / "00.png"
    ink = Image.new("LA", (28, 28))
    ink.putalpha(Image.open(path))
    exif = Image.Exif()
    exif[0x0112] = 6
    ink.transpose(Image.Transpose.ROTATE_90).save(path, exif=exif)
    data = _data(folder)
    images, _ = data.load(train=True)
    images = torch.cat([images, data.load(train=False)[0]])
    data.predict_on([path])
    ((predicted,),) = data.predict_dataloader()
    expected = 255 - np.asarray(ink.getchannel("A"))
    assert np.array_equal(predicted[0, 0], expected)
    assert any(np.array_equal(image[0], expected) for image in images)
