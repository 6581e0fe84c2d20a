"""Decoding image files to tensors, and predicting from them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from datamodules.digits import Digits
from datamodules.images import read_image
from modules.linear import LinearClassifier


@pytest.fixture
def scan(scans) -> Image.Image:
    """A scanned digit, 20 pixels high and 28 wide."""
    return Image.fromarray(scans[0][0, 4:24])


def _saved(image: Image.Image, path: Path) -> Path:
    image.save(path)
    return path


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA", "P"])
def test_a_png_of_any_common_mode_is_decoded_exactly(tmp_path, scan, mode, channels):
    path = _saved(scan.convert(mode), tmp_path / "scan.png")
    pixels = read_image(path, (channels, 20, 28))
    assert (pixels.shape, pixels.dtype) == ((channels, 20, 28), torch.uint8)
    assert all(np.array_equal(channel, scan) for channel in pixels.numpy())


@pytest.mark.parametrize("channels", [1, 3])
def test_black_and_white_become_0_and_255(tmp_path, scan, channels):
    black_and_white = scan.point(lambda value: 255 * (value > 127))
    path = _saved(black_and_white.convert("1"), tmp_path / "scan.png")
    assert all(np.array_equal(channel, black_and_white) for channel in read_image(path, (channels, 20, 28)).numpy())


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_jpeg_is_decoded_approximately(tmp_path, scan, mode, channels):
    path = _saved(scan.convert(mode), tmp_path / "scan.jpg")
    pixels = read_image(path, (channels, 20, 28))
    assert pixels.shape == (channels, 20, 28)
    assert np.abs(pixels.double().numpy() - np.asarray(scan, dtype=float)).mean() < 6


def test_16_bit_greyscale_is_scaled_to_8_bits(tmp_path, scan):
    image_16bit = Image.fromarray(np.asarray(scan, dtype=np.uint16) * 257)
    path = _saved(image_16bit, tmp_path / "scan.png")
    assert np.array_equal(read_image(path, (1, 20, 28))[0].numpy(), scan)


def test_channels_keep_their_order_and_greyscale_is_luma(tmp_path, scans):
    colours = np.stack([scans[0][0], scans[0][1], 255 - scans[0][2]], axis=-1)
    path = _saved(Image.fromarray(colours), tmp_path / "colours.png")
    np.testing.assert_array_equal(read_image(path, (3, 28, 28)).numpy(), colours.transpose(2, 0, 1))
    luma = colours @ np.array([0.299, 0.587, 0.114])  # ITU-R 601-2
    np.testing.assert_allclose(read_image(path, (1, 28, 28))[0], luma, atol=1)


def test_an_image_of_another_size_is_resized_and_not_cropped(tmp_path, scan):
    path = _saved(scan.resize((84, 60), Image.Resampling.NEAREST), tmp_path / "large.png")
    pixels = read_image(path, (1, 20, 28))[0].double().numpy()
    original = np.asarray(scan, dtype=float)
    assert pixels.shape == (20, 28)
    assert np.corrcoef(pixels.ravel(), original.ravel())[0, 1] > 0.98


def test_the_error_for_a_missing_image_names_it(tmp_path):
    with pytest.raises(FileNotFoundError) as error:
        read_image(tmp_path / "nowhere.png", (1, 28, 28))
    assert str(error.value) == f"{tmp_path / 'nowhere.png'}: no such file"


def _not_an_image(path: Path, scan: Image.Image) -> None:
    path.write_text("not an image")


def _empty(path: Path, scan: Image.Image) -> None:
    path.touch()


def _a_folder(path: Path, scan: Image.Image) -> None:
    path.mkdir()


def _truncated(path: Path, scan: Image.Image) -> None:
    scan.save(path, "PNG")
    path.write_bytes(path.read_bytes()[:-30])


def _header_only(path: Path, scan: Image.Image) -> None:
    scan.save(path, "PNG")
    path.write_bytes(path.read_bytes()[:33])


def _truncated_jpeg(path: Path, scan: Image.Image) -> None:
    scan.save(path, "JPEG")
    path.write_bytes(path.read_bytes()[:-100])


def _invalid_header(path: Path, scan: Image.Image) -> None:
    path.write_bytes(b"P5 2'5 20 255\n" + bytes(500))  # a portable graymap with an invalid width


@pytest.mark.parametrize(
    "write",
    [
        _not_an_image,
        _empty,
        _a_folder,
        _truncated,
        _header_only,
        _truncated_jpeg,
        _invalid_header,
    ],
)
def test_the_error_for_an_invalid_image_names_it(tmp_path, scan, write):
    path = tmp_path / "scan.png"
    write(path, scan)
    with pytest.raises(ValueError, match="not a readable image") as error:
        read_image(path, (1, 28, 28))
    assert str(error.value).startswith(f"{path}: ")


@pytest.fixture
def files(tmp_path, scans) -> list[Path]:
    return [_saved(Image.fromarray(scans[0][i]), tmp_path / f"{i}.png") for i in range(5)]


@pytest.mark.parametrize("invert", [False, True])
def test_image_files_are_read_in_whole_batches_and_optionally_inverted(files, scans, invert):
    data = Digits()
    data.predict_on(files, invert=invert)
    ((images,),) = data.predict_dataloader()
    expected = 255 - scans[0][:5] if invert else scans[0][:5]
    np.testing.assert_array_equal(images[:, 0].numpy(), expected)


def test_a_trainer_predicts_class_probabilities_of_image_files(files, scans, make_trainer):
    data, model = Digits(), LinearClassifier((1, 28, 28), 10)
    data.setup("fit")
    data.predict_on(files)
    (probabilities,) = make_trainer().predict(model, data)
    with torch.no_grad():
        expected = model(data.normalize(torch.from_numpy(scans[0][:5, None]))).softmax(1)
    torch.testing.assert_close(probabilities, expected)
    torch.testing.assert_close(probabilities.sum(1), torch.ones(5))
