"""The cache of decoded images: the same pixels, faster, and never stale or damaged ones."""

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_image

from datamodules.decoded import cache_file, decode
from datamodules.images import image_names, read_image

SHAPE = (1, 28, 28)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "litlab"


@pytest.fixture
def folder(tmp_path, scans) -> Path:
    """150 real digits, in two folders."""
    for index, scan in enumerate(scans[0][:150]):
        path = tmp_path / "scans" / f"{index % 2}" / f"{index:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(scan).save(path)
    return tmp_path / "scans"


@pytest.fixture
def load(folder, capfd):
    """Decodes what is in the folder; says whether it was decoded or came out of the cache."""

    def run(shape=SHAPE, *, resize=False) -> tuple[torch.Tensor, bool]:
        pixels = decode(folder, image_names(folder, {".png"}), shape, resize=resize)
        return pixels, "decoding" in capfd.readouterr().err

    return run


def _rewrite(path: Path, content: bytes) -> None:
    """Other content, with the old time."""
    stat = path.stat()
    path.write_bytes(content)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def test_pixels_are_those_of_each_image_in_the_order_of_the_names(load, scans):
    pixels, decoded = load()
    assert decoded
    assert (pixels.shape, pixels.dtype) == ((150, *SHAPE), torch.uint8)
    np.testing.assert_array_equal(pixels[:, 0], np.concatenate([scans[0][:150:2], scans[0][1:150:2]]))


def test_images_are_resized_as_a_prediction_does_it(load, folder):
    pixels, _ = load((3, 20, 36), resize=True)
    paths = [folder / name for name in image_names(folder, {".png"})]
    assert all(torch.equal(ours, read_image(path, (3, 20, 36))) for ours, path in zip(pixels, paths, strict=True))


def test_the_second_time_no_image_is_read(load, folder):
    first, _ = load()
    for path in folder.rglob("*.png"):
        _rewrite(path, b"?" * path.stat().st_size)
    second, decoded = load()
    assert not decoded
    assert torch.equal(first, second)


def test_the_cache_is_an_ordinary_array_without_pickles(load, folder):
    pixels, _ = load()
    kept = np.load(cache_file(folder, SHAPE, resize=False), allow_pickle=False)
    np.testing.assert_array_equal(kept, pixels)


def test_what_came_from_the_cache_may_be_written_to(load):
    load()
    pixels, _ = load()
    pixels.zero_()
    assert load()[0].any()


def test_a_changed_image_is_decoded_again(load, folder, scans):
    load()
    Image.fromarray(255 - scans[0][0]).save(folder / "0" / "000.png")
    pixels, decoded = load()
    assert decoded
    np.testing.assert_array_equal(pixels[0, 0], 255 - scans[0][0])


def test_another_time_or_another_size_alone_makes_the_cache_stale(load, folder):
    path = folder / "0" / "000.png"
    load()
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))
    assert load()[1]
    _rewrite(path, path.read_bytes() + b"\0")
    assert load()[1]
    assert not load()[1]


def test_an_added_a_removed_and_a_renamed_image_are_noticed(load, folder):
    load()
    shutil.copy2(folder / "0" / "000.png", folder / "1" / "999.png")
    assert [len(load()[0]), load()[1]] == [151, False]
    (folder / "0" / "002.png").unlink()
    assert [len(load()[0]), load()[1]] == [150, False]
    (folder / "0" / "004.png").rename(folder / "0" / "0040.png")
    assert load()[1]


def test_a_stale_cache_is_replaced_and_not_left_behind(load, folder, cache):
    load()
    (folder / "0" / "000.png").unlink()
    load()
    assert [path.suffix for path in cache.iterdir() if path.suffix != ".lock"] == [".npy"]


def test_each_folder_shape_and_setting_has_its_own_cache(load, folder, tmp_path):
    load()
    assert load((3, 28, 28))[1]
    assert load(resize=True)[1]
    assert not load()[1]
    assert cache_file(folder, SHAPE, resize=True) != cache_file(tmp_path, SHAPE, resize=True)


@pytest.mark.parametrize("damage", ["flipped bit", "truncated", "longer", "empty", "header", "seal", "a folder"])
def test_a_damaged_cache_is_noticed_and_decoded_again(load, folder, damage):
    first, _ = load()
    path = cache_file(folder, SHAPE, resize=False)
    content = bytearray(path.read_bytes())
    places = {"flipped bit": len(content) // 2, "header": 20, "seal": len(content) - 1}
    if damage in places:
        content[places[damage]] ^= 1
    lengths = {"truncated": len(content) - 100, "empty": 0}
    path.write_bytes(content[: lengths.get(damage)] + b"!" * (damage == "longer"))
    if damage == "a folder":
        path.unlink()
        path.mkdir()
        with pytest.warns(UserWarning, match="not kept"):
            second, decoded = load()
    else:
        second, decoded = load()
        assert not load()[1]
    assert decoded
    assert torch.equal(first, second)


@pytest.mark.parametrize("place", ["cache", "cache/litlab"])
def test_without_a_writable_cache_one_warning_says_so_and_the_images_are_decoded(load, tmp_path, place):
    """A file where the folder should be: even root cannot write there."""
    (tmp_path / place).parent.mkdir(exist_ok=True)
    (tmp_path / place).touch()
    for _ in range(2):
        with pytest.warns(UserWarning, match="not kept") as warned:
            pixels, decoded = load()
        assert [str(tmp_path / "cache") in str(warning.message) for warning in warned] == [True]
        assert decoded
        assert len(pixels) == 150


def test_a_relative_cache_home_is_ignored_as_the_specification_says(folder, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    for value in ("", "here"):
        monkeypatch.setenv("XDG_CACHE_HOME", value)
        assert cache_file(folder, SHAPE, resize=False).parent == tmp_path / ".cache" / "litlab"


def test_of_several_damaged_images_the_first_is_named_and_nothing_is_kept(load, folder, cache):
    for name in ("1/147.png", "0/140.png", "1/001.png"):
        (folder / name).write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"0/140\.png: not a readable image"):
        load()
    assert not list(cache.glob("*.npy"))


def test_an_image_of_another_size_is_named_with_its_size_where_resizing_is_off(load, folder, scans):
    Image.fromarray(scans[0][0][:27]).save(folder / "1" / "001.png")
    with pytest.raises(ValueError, match=r"1/001\.png: 28 pixels wide and 27 high, not 28 and 28"):
        load()
    load(resize=True)
    with pytest.raises(ValueError, match="27 high"):  # and the resized ones do not stand in
        load()


def test_a_link_to_no_image_is_named(load, folder):
    (folder / "0" / "gone.png").symlink_to(folder / "nowhere.png")
    with pytest.raises(FileNotFoundError, match=r"0/gone\.png"):
        load()


def test_an_interrupt_stops_soon_and_leaves_nothing(tmp_path, cache):
    folder = tmp_path / "photographs"
    folder.mkdir()
    Image.fromarray(load_sample_image("china.jpg")).save(folder / "0.jpg")
    names = ["0.jpg"] * 20_000  # minutes of work

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    began = time.monotonic()
    signal.setitimer(signal.ITIMER_REAL, 0.7)
    try:
        with pytest.raises(KeyboardInterrupt):
            decode(folder, names, (1, 8, 8), resize=True)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert time.monotonic() - began < 20
    assert [path.suffix for path in cache.iterdir() if path.suffix != ".lock"] == []
    assert decode(folder, names[:3], (1, 8, 8), resize=True).shape == (3, 1, 8, 8)


ANOTHER_PROCESS = """
import hashlib, sys
from pathlib import Path
from datamodules.decoded import decode
from datamodules.images import image_names
folder = Path(sys.argv[1])
pixels = decode(folder, image_names(folder, {".png"}), (1, 28, 28), resize=False)
print(hashlib.sha256(pixels.numpy().tobytes()).hexdigest())
"""


def test_of_three_processes_at_once_one_decodes_and_all_get_the_same_pixels(folder, load):
    command, root = [sys.executable, "-c", ANOTHER_PROCESS, str(folder)], Path(__file__).parents[2]
    pipe = subprocess.PIPE
    started = [subprocess.Popen(command, cwd=root, stdout=pipe, stderr=pipe, text=True) for _ in range(3)]
    said = [process.communicate(timeout=120) for process in started]
    assert [process.returncode for process in started] == [0, 0, 0], said
    assert "".join(chain(*said)).count("decoding 150 images") == 1
    pixels, decoded = load()
    assert not decoded
    assert {out.strip() for out, _ in said} == {hashlib.sha256(pixels.numpy().tobytes()).hexdigest()}
