"""Damaged data are reported with the name of the file."""

import pytest
from PIL import Image

from datamodules.images import read_image
from pipelines.config.error_messages import refusals
from pipelines.runtime.errors import UserError


def test_the_error_of_a_truncated_image_names_the_file(tmp_path):
    path = tmp_path / "half.png"
    Image.new("L", (64, 64)).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(UserError, match=r"half\.png: not a readable image"), refusals(wrapped=False):
        read_image(path, (1, 8, 8))
