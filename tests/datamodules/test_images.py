"""Decoding image files to tensors, and predicting from them."""

import struct
import zlib
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


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _png(path: Path, samples: np.ndarray, bits: int, transparent: tuple[int, ...]) -> Path:
    """Write a PNG of rows of samples, greyscale (H, W) or RGB (H, W, 3), one colour of which is transparent."""
    rows, columns = samples.shape[:2]
    shifts = np.arange(bits)[::-1]
    packed = np.packbits((samples.reshape(rows, -1, 1) >> shifts & 1).reshape(rows, -1).astype(np.uint8), axis=1)
    header = struct.pack(">IIBBBBB", columns, rows, bits, 0 if samples.ndim == 2 else 2, 0, 0, 0)
    content = zlib.compress(b"".join(b"\0" + row.tobytes() for row in packed))
    chunks = {b"IHDR": header, b"tRNS": struct.pack(f">{len(transparent)}H", *transparent), b"IDAT": content}
    signature = b"\x89PNG\r\n\x1a\n"
    path.write_bytes(signature + b"".join(_chunk(*chunk) for chunk in chunks.items()) + _chunk(b"IEND", b""))
    return path


def _grey(path: Path) -> np.ndarray:
    """Return the grey pixels of an image file of 20 x 28 pixels, and check that the colours are the same."""
    grey = read_image(path, (1, 20, 28), resize=False)
    assert torch.equal(read_image(path, (3, 20, 28), resize=False), grey.expand(3, -1, -1))
    return grey[0].numpy()


@pytest.mark.parametrize("white", [4095, 65535])
def test_a_pgm_of_more_than_8_bits_is_scaled_by_its_white(tmp_path, scan, white):
    samples = (np.asarray(scan, dtype=float) * white / 255).round().astype(">u2")
    path = tmp_path / "scan.pgm"
    path.write_bytes(b"P5\n28 20\n%d\n" % white + samples.tobytes())
    np.testing.assert_allclose(_grey(path).astype(float), scan, atol=1)


def _tiff(path: Path, samples: np.ndarray, bits: int, photometric: int = 1, sample_format: int = 1) -> Path:
    """Write an uncompressed little-endian TIFF with one sample per pixel."""
    content, (rows, columns) = samples.tobytes(), samples.shape
    tags = {256: columns, 257: rows, 258: bits, 259: 1, 262: photometric, 273: 8, 277: 1, 278: rows}
    tags |= {279: len(content), 339: sample_format}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    head = b"II*\0" + struct.pack("<I", 8 + len(content))
    path.write_bytes(head + content + struct.pack("<H", len(tags)) + entries + bytes(4))
    return path


def test_a_tiff_of_12_or_16_bits_is_scaled_by_its_white(tmp_path, scan):
    values = np.asarray(scan, dtype=np.uint16)
    path = _tiff(tmp_path / "16.tif", values * 257, 16)
    assert np.array_equal(_grey(path), scan)
    path = _tiff(tmp_path / "inverted.tif", 65535 - values * 257, 16, photometric=0)  # 0 is white
    assert np.array_equal(_grey(path), scan)
    twelve = (values << 4 | values >> 4).reshape(20, -1)  # 0 to 4095
    bits = (twelve[..., None] >> np.arange(12)[::-1] & 1).reshape(20, -1)
    path = _tiff(tmp_path / "12.tif", np.packbits(bits.astype(np.uint8), axis=1), 12)
    content = path.read_bytes().replace(struct.pack("<HHII", 256, 4, 1, 42), struct.pack("<HHII", 256, 4, 1, 28))
    path.write_bytes(content)
    np.testing.assert_allclose(_grey(path).astype(int), values, atol=1)


def test_pixels_whose_range_is_unknown_are_an_error_that_names_the_file(tmp_path, scan):
    values = np.asarray(scan)
    paths = [
        _saved(Image.fromarray(values.astype(np.float32)), tmp_path / "floats.tif"),
        _saved(Image.fromarray(values.astype(np.float32)), tmp_path / "floats.pfm"),
        _saved(Image.fromarray(values.astype(np.int32)), tmp_path / "32.tif"),
        _tiff(tmp_path / "signed16.tif", values.astype(np.int16), 16, sample_format=2),
        _tiff(tmp_path / "signed8.tif", values.view(np.int8), 8, sample_format=2),
    ]
    for path in paths:
        with pytest.raises(ValueError, match="the range of its pixels is unknown") as error:
            read_image(path, (1, 20, 28))
        assert str(error.value).startswith(f"{path}: not a readable image")


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_transparent_pixels_are_composited_on_white(tmp_path, scan, mode):
    ink = Image.new("L", scan.size).convert("LA")
    ink.putalpha(scan)  # black ink, as opaque as the scan is light
    path = _saved(ink.convert(mode), tmp_path / "ink.png")
    assert np.array_equal(_grey(path), 255 - np.asarray(scan))


def test_a_palette_with_transparent_colours_is_composited_on_white(tmp_path, scan):
    palette = Image.fromarray(np.asarray(scan) // 64).convert("P")  # numbers 0 to 3
    palette.putpalette([0, 0, 0, 50, 50, 50, 100, 100, 100, 150, 150, 150])
    numbers = np.asarray(palette)
    expected = np.choose(numbers, [255, 50, 178, 150])
    palette.save(tmp_path / "partly.png", transparency=bytes([0, 255, 127, 255]))
    np.testing.assert_allclose(_grey(tmp_path / "partly.png"), expected, atol=1)
    palette.save(tmp_path / "first.gif", transparency=0)
    assert np.array_equal(_grey(tmp_path / "first.gif"), np.choose(numbers, [255, 50, 100, 150]))


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_the_transparent_colour_of_a_grey_png_is_compared_at_its_depth(tmp_path, scan, bits):
    samples = np.asarray(scan).astype(int) * (2**bits - 1) // 255
    path = _png(tmp_path / "scan.png", samples, bits, (int(samples.max()) - bits // 8,))
    shown = np.where(samples == samples.max() - bits // 8, 255, samples * 255 // (2**bits - 1))
    assert np.array_equal(_grey(path), shown)


def test_the_transparent_colour_of_an_rgb_png_is_composited_or_refused_at_16_bits(tmp_path, scan):
    values = np.stack([np.asarray(scan).astype(int)] * 3, axis=-1)
    path = _png(tmp_path / "8.png", values, 8, (0, 0, 0))
    assert np.array_equal(_grey(path), np.where(np.asarray(scan) == 0, 255, scan))
    path = _png(tmp_path / "16.png", values * 257, 16, (0, 0, 0))
    with pytest.raises(ValueError, match="16 bits per channel is transparent") as error:
        read_image(path, (3, 20, 28))
    assert str(path) in str(error.value)


TURNS = {  # what a camera did to the image, by the EXIF orientation that it wrote
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


@pytest.mark.parametrize("form", ["PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", TURNS)
def test_exif_orientation_is_applied(tmp_path, scan, orientation, form):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "photo"
    scan.transpose(TURNS[orientation]).save(path, form, exif=exif, **({"lossless": True} if form == "WEBP" else {}))
    assert np.array_equal(_grey(path), scan)


def test_exif_orientation_is_applied_to_16_bits(tmp_path, scan):
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = np.asarray(scan.transpose(Image.Transpose.ROTATE_90), dtype=np.uint16) * 257
    Image.fromarray(turned).save(tmp_path / "photo.png", exif=exif)
    assert np.array_equal(_grey(tmp_path / "photo.png"), scan)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF|Truncated File Read:UserWarning")
@pytest.mark.parametrize(
    "exif", [b"Exif\0\0?", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12"]
)
def test_damaged_exif_data_are_ignored(tmp_path, scan, exif):
    scan.save(tmp_path / "plain.jpg")
    scan.save(tmp_path / "damaged.jpg", exif=exif)
    assert np.array_equal(_grey(tmp_path / "damaged.jpg"), _grey(tmp_path / "plain.jpg"))


def test_cmyk_is_converted(tmp_path, scan):
    path = _saved(scan.convert("RGB").convert("CMYK"), tmp_path / "print.tif")
    assert np.array_equal(_grey(path), scan)


@pytest.mark.parametrize("suffix", ["gif", "png", "webp", "tif"])
def test_the_first_image_of_an_animation_is_read(tmp_path, scan, suffix):
    path = tmp_path / f"animation.{suffix}"
    options = {"lossless": True} if suffix == "webp" else {}
    scan.save(path, save_all=True, append_images=[scan.rotate(180), scan.rotate(90)], **options)
    assert np.array_equal(_grey(path), scan)


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
