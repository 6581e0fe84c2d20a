"""The IDX reader: valid files are read as written, any other file is an error that names it."""

import gzip
import hashlib
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from datamodules.idx import read_idx


@pytest.fixture
def images_file(tmp_path: Path, scans, write_idx) -> Path:
    return write_idx(tmp_path / "images-idx3-ubyte", scans[0][:5])


def test_images_are_read_as_written(images_file, scans):
    images = read_idx(images_file, dimensions=3)
    assert images.dtype == torch.uint8
    np.testing.assert_array_equal(images.numpy(), scans[0][:5])


def test_labels_are_read_as_written(tmp_path, scans, write_idx):
    path = write_idx(tmp_path / "labels-idx1-ubyte", scans[1])
    np.testing.assert_array_equal(read_idx(path, dimensions=1).numpy(), scans[1])


def test_rows_and_columns_are_not_swapped(tmp_path, scans, write_idx):
    path = write_idx(tmp_path / "wide", scans[0][:5, :20])
    assert read_idx(path, dimensions=3).shape == (5, 20, 28)


def test_the_correct_hash_is_accepted(images_file, scans):
    sha256 = hashlib.sha256(images_file.read_bytes()).hexdigest()
    np.testing.assert_array_equal(read_idx(images_file, dimensions=3, sha256=sha256).numpy(), scans[0][:5])


def _with_type_code(code: int) -> Callable[[bytes], bytes]:
    return lambda content: content[:2] + bytes([code]) + content[3:]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda content: content[:-1], "truncated (3919 bytes of values; its header says 3920"),
        (lambda content: content[:16], "truncated (0 bytes"),
        (lambda content: content + b"\0", "too long (3921 bytes of values; its header says 3920"),
        (lambda content: content[:15], "15 bytes, too short for an IDX header of 16 bytes"),
        (lambda content: b"", "0 bytes, too short"),
        (_with_type_code(0x0D), "magic number 0x00000d03, not 0x00000803"),  # an IDX file of floats
        (lambda content: b"\1" + content[1:], "magic number 0x01000803"),
        (lambda content: content[:3] + b"\1" + content[4:], "magic number 0x00000801"),  # a file of labels
        (gzip.compress, "not the IDX file expected"),
        (lambda content: content[:4] + struct.pack(">I", 2**31) + content[8:], "truncated"),
    ],
)
def test_the_error_for_an_invalid_file_names_it(images_file, damage, message):
    images_file.write_bytes(damage(images_file.read_bytes()))
    with pytest.raises(ValueError, match="idx3") as error:
        read_idx(images_file, dimensions=3)
    assert str(images_file) in str(error.value)
    assert message in str(error.value)


@pytest.mark.parametrize("position", [16, -1])
def test_a_single_flipped_bit_is_detected_if_the_hash_is_given(images_file, position):
    content = bytearray(images_file.read_bytes())
    sha256 = hashlib.sha256(content).hexdigest()
    content[position] ^= 1
    images_file.write_bytes(content)
    with pytest.raises(ValueError, match="damaged") as error:
        read_idx(images_file, dimensions=3, sha256=sha256)
    assert str(images_file) in str(error.value)


def test_the_error_for_a_missing_file_names_it(tmp_path):
    with pytest.raises(FileNotFoundError) as error:
        read_idx(tmp_path / "nowhere", dimensions=1)
    assert str(error.value) == f"{tmp_path / 'nowhere'}: no such file"
