"""The cache of decoded images: correct pixels, never from a stale or damaged cache file."""

import gc
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_image

from datamodules import decoding
from datamodules.image_cache import cache_file, load_images
from datamodules.images import image_names, read_image

psutil = pytest.importorskip("psutil", reason="needs the extra `system`")

ROOT = Path(__file__).parents[2]
SHAPE = (1, 28, 28)
PHOTOGRAPHS = ["0.jpg"] * 20_000  # minutes of work


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "litlab"


@pytest.fixture
def folder(tmp_path, scans) -> Path:
    """150 scanned digits in two folders."""
    for index, scan in enumerate(scans[0][:150]):
        path = tmp_path / "scans" / f"{index % 2}" / f"{index:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(scan).save(path)
    return tmp_path / "scans"


@pytest.fixture
def load(folder, capfd):
    """Function that loads the images of the folder; returns the pixels and whether they were decoded."""

    def run(shape=SHAPE, *, resize=False) -> tuple[torch.Tensor, bool]:
        pixels = load_images(folder, image_names(folder, {".png"}), shape, resize=resize)
        return pixels, "decoding" in capfd.readouterr().err

    return run


@pytest.fixture
def photographs(tmp_path) -> Path:
    """A folder with one photograph, `0.jpg`."""
    folder = tmp_path / "photographs"
    folder.mkdir()
    Image.fromarray(load_sample_image("china.jpg")).save(folder / "0.jpg")
    return folder


@pytest.fixture
def two_processes(monkeypatch) -> None:
    """150 images are enough for two processes, also on a machine with one core."""
    monkeypatch.setattr(decoding, "IMAGES_PER_PROCESS", 75)
    monkeypatch.setattr(decoding, "_cores", lambda: 2)


def _decoding_processes() -> list:
    found = psutil.Process().children(recursive=True)
    return [child for child in found if decoding.PROGRAM in child.cmdline()]


def _rewrite(path: Path, content: bytes) -> None:
    """Change the content of a file and keep its modification time."""
    stat = path.stat()
    path.write_bytes(content)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def test_pixels_are_in_the_order_of_the_names(load, scans):
    pixels, decoded = load()
    assert decoded
    assert (pixels.shape, pixels.dtype) == ((150, *SHAPE), torch.uint8)
    np.testing.assert_array_equal(pixels[:, 0], np.concatenate([scans[0][:150:2], scans[0][1:150:2]]))


def test_images_are_resized_as_in_prediction(load, folder):
    pixels, _ = load((3, 20, 36), resize=True)
    paths = [folder / name for name in image_names(folder, {".png"})]
    assert all(torch.equal(image, read_image(path, (3, 20, 36))) for image, path in zip(pixels, paths, strict=True))


def test_no_image_is_read_the_second_time(load, folder):
    first, _ = load()
    for path in folder.rglob("*.png"):
        _rewrite(path, b"?" * path.stat().st_size)
    second, decoded = load()
    assert not decoded
    assert torch.equal(first, second)


def test_the_cache_file_is_a_plain_npy_array_without_pickles(load, folder):
    pixels, _ = load()
    cached = np.load(cache_file(folder, SHAPE, resize=False), allow_pickle=False)
    np.testing.assert_array_equal(cached, pixels)


def test_writing_to_cached_pixels_does_not_change_the_cache(load):
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


def test_a_change_of_modification_time_or_size_alone_makes_the_cache_stale(load, folder):
    path = folder / "0" / "000.png"
    load()
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))
    assert load()[1]
    _rewrite(path, path.read_bytes() + b"\0")
    assert load()[1]
    assert not load()[1]


def test_added_removed_and_renamed_images_are_detected(load, folder):
    load()
    shutil.copy2(folder / "0" / "000.png", folder / "1" / "999.png")
    assert [len(load()[0]), load()[1]] == [151, False]
    (folder / "0" / "002.png").unlink()
    assert [len(load()[0]), load()[1]] == [150, False]
    (folder / "0" / "004.png").rename(folder / "0" / "0040.png")
    assert load()[1]


def test_a_stale_cache_file_is_replaced(load, folder, cache):
    load()
    (folder / "0" / "000.png").unlink()
    load()
    assert [path.suffix for path in cache.iterdir() if path.suffix != ".lock"] == [".npy"]


def test_each_folder_shape_and_resize_option_has_its_own_cache_file(load, folder, tmp_path):
    load()
    assert load((3, 28, 28))[1]
    assert load(resize=True)[1]
    assert not load()[1]
    assert cache_file(folder, SHAPE, resize=True) != cache_file(tmp_path, SHAPE, resize=True)


@pytest.mark.parametrize("damage", ["flipped bit", "truncated", "longer", "empty", "header", "checksum", "a folder"])
def test_a_damaged_cache_file_is_detected_and_replaced(load, folder, damage):
    first, _ = load()
    path = cache_file(folder, SHAPE, resize=False)
    content = bytearray(path.read_bytes())
    positions = {"flipped bit": len(content) // 2, "header": 20, "checksum": len(content) - 1}
    if damage in positions:
        content[positions[damage]] ^= 1
    lengths = {"truncated": len(content) - 100, "empty": 0}
    path.write_bytes(content[: lengths.get(damage)] + b"!" * (damage == "longer"))
    if damage == "a folder":
        path.unlink()
        path.mkdir()
        with pytest.warns(UserWarning, match="not cached"):
            second, decoded = load()
    else:
        second, decoded = load()
        assert not load()[1]
    assert decoded
    assert torch.equal(first, second)


@pytest.mark.parametrize("place", ["cache", "cache/litlab"])
def test_without_a_writable_cache_images_are_decoded_with_one_warning(load, tmp_path, place):
    """There is a file in place of the folder, so that even root cannot write there."""
    (tmp_path / place).parent.mkdir(exist_ok=True)
    (tmp_path / place).touch()
    for _ in range(2):
        with pytest.warns(UserWarning, match="not cached") as warned:
            pixels, decoded = load()
        assert [str(tmp_path / "cache") in str(warning.message) for warning in warned] == [True]
        assert decoded
        assert len(pixels) == 150


def test_a_relative_cache_home_is_ignored_as_in_the_xdg_specification(folder, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    for value in ("", "here"):
        monkeypatch.setenv("XDG_CACHE_HOME", value)
        assert cache_file(folder, SHAPE, resize=False).parent == tmp_path / ".cache" / "litlab"


def test_of_several_damaged_images_the_first_is_named_and_nothing_is_cached(load, folder, cache):
    for name in ("1/147.png", "0/140.png", "1/001.png"):
        (folder / name).write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"0/140\.png: not a readable image"):
        load()
    assert not list(cache.glob("*.npy"))


def test_without_resize_the_error_for_an_image_of_another_size_names_it_and_its_size(load, folder, scans):
    Image.fromarray(scans[0][0][:27]).save(folder / "1" / "001.png")
    with pytest.raises(ValueError, match=r"1/001\.png: 28 pixels wide and 27 high, not 28 and 28"):
        load()
    load(resize=True)
    with pytest.raises(ValueError, match="27 high"):  # the resized images are not reused
        load()


def test_the_error_for_a_broken_link_names_it(load, folder):
    (folder / "0" / "gone.png").symlink_to(folder / "nowhere.png")
    with pytest.raises(FileNotFoundError, match=r"0/gone\.png"):
        load()


@pytest.fixture(params=["threads", "processes"])
def either(request) -> None:
    """Decode in threads, or in two processes."""
    if request.param == "processes":
        request.getfixturevalue("two_processes")


@pytest.mark.usefixtures("either")
def test_an_interrupt_stops_soon_and_leaves_no_cache_file_and_no_process(photographs, cache):
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    gc.collect()  # Python ignores an interrupt within the `__del__` of what earlier tests have left
    previous = signal.signal(signal.SIGALRM, interrupt)
    started = time.monotonic()
    signal.setitimer(signal.ITIMER_REAL, 0.7)
    try:
        with pytest.raises(KeyboardInterrupt):
            load_images(photographs, PHOTOGRAPHS, (1, 8, 8), resize=True)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    assert time.monotonic() - started < 20
    assert [path.suffix for path in cache.iterdir() if path.suffix != ".lock"] == []
    assert not _decoding_processes()
    assert load_images(photographs, PHOTOGRAPHS[:3], (1, 8, 8), resize=True).shape == (3, 1, 8, 8)


@pytest.mark.usefixtures("two_processes")
def test_processes_give_the_pixels_and_the_errors_of_one_process(load, folder, scans):
    pixels, decoded = load()
    assert decoded
    np.testing.assert_array_equal(pixels[:, 0], np.concatenate([scans[0][:150:2], scans[0][1:150:2]]))
    paths = [folder / name for name in image_names(folder, {".png"})]
    for image, path in zip(load((3, 20, 36), resize=True)[0], paths, strict=True):
        assert torch.equal(image, read_image(path, (3, 20, 36)))
    for name in ("1/147.png", "0/140.png", "1/001.png"):
        (folder / name).write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"0/140\.png: not a readable image"):
        load()


@pytest.mark.usefixtures("either")
def test_a_warning_about_an_image_is_shown(load, folder, scans):
    Image.fromarray(scans[0][0]).save(folder / "0" / "000.png", exif=b"Exif\0\0II*\0\x08\0\0\0\x05\0")
    with pytest.warns(UserWarning, match="Corrupt EXIF data"):
        load()


@pytest.mark.usefixtures("two_processes")
def test_a_decoding_process_that_is_killed_is_an_error(photographs):
    def kill() -> None:
        while not (found := _decoding_processes()):
            time.sleep(0.05)
        found[0].kill()

    thread = threading.Thread(target=kill)
    thread.start()
    with pytest.raises(ChildProcessError, match="a process that decodes images ended with exit code -9"):
        load_images(photographs, PHOTOGRAPHS, (1, 8, 8), resize=True)
    thread.join()
    assert not _decoding_processes()


@pytest.mark.usefixtures("two_processes")
@pytest.mark.parametrize(
    ("start", "warned"), [("print('hello', flush=True)", False), ("raise SystemExit", True)], ids=["prints", "ends"]
)
def test_images_are_decoded_whatever_the_start_of_a_process_prints_or_raises(
    photographs, tmp_path, monkeypatch, recwarn, start, warned
):
    (tmp_path / "sitecustomize.py").write_text(start)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    names = PHOTOGRAPHS[:150]
    assert len(load_images(photographs, names, (1, 8, 8), resize=True)) == len(names)
    assert any("ended at its start, with exit code 1" in str(found.message) for found in recwarn) == warned


IN_A_DAEMON = """
import multiprocessing, sys
from pathlib import Path
from datamodules import decoding
from datamodules.image_cache import load_images

def load():
    decoding.IMAGES_PER_PROCESS, decoding._cores = 75, lambda: 2
    load_images(Path(sys.argv[1]), ["0.jpg"] * 20_000, (1, 8, 8), resize=True)

worker = multiprocessing.get_context("fork").Process(target=load, daemon=True)
worker.start()
worker.join()
"""


def test_a_daemonic_worker_decodes_in_processes_that_end_with_it(photographs, start_python):
    process = start_python(IN_A_DAEMON, photographs, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while len(found := _decoding_processes()) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(found) == 2
    found[0].parent().kill()
    assert process.wait(timeout=20) == 0
    gone, alive = psutil.wait_procs(found, timeout=20)
    assert (len(gone), alive) == (2, [])


def test_a_decoding_process_does_not_import_torch():
    program = "import datamodules.decoding, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False).returncode == 0


ANOTHER_PROCESS = """
import hashlib, sys
from pathlib import Path
from datamodules.image_cache import load_images
from datamodules.images import image_names
folder = Path(sys.argv[1])
pixels = load_images(folder, image_names(folder, {".png"}), (1, 28, 28), resize=False)
print(hashlib.sha256(pixels.numpy().tobytes()).hexdigest())
"""


def test_of_three_concurrent_processes_one_decodes_and_all_get_the_same_pixels(folder, load, start_python):
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    processes = [start_python(ANOTHER_PROCESS, folder, **pipes) for _ in range(3)]
    outputs = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], outputs
    assert "".join(chain(*outputs)).count("decoding 150 images") == 1
    pixels, decoded = load()
    assert not decoded
    assert {out.strip() for out, _ in outputs} == {hashlib.sha256(pixels.numpy().tobytes()).hexdigest()}
