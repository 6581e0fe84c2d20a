"""The theory of the experiments as tests: each docstring states one claim, each helper writes one formula out by hand.

Hypothesis chooses the shapes and the seeds; everything is computed in float64, where rounding is near 1e-16 and a
tolerance of 1e-10 tells a right formula from a wrong one.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings
from hypothesis.configuration import set_hypothesis_home_dir

# Repeatable: the same sources give the same examples in every run, and nothing is remembered between runs.
settings.register_profile("theory", deadline=None, max_examples=25, derandomize=True, database=None)
settings.load_profile("theory")
# It also tries constants that it finds in our sources, and caches them: beside pytest, not in a folder of its own.
set_hypothesis_home_dir(Path(__file__).parents[2] / ".pytest_cache" / "hypothesis")


@pytest.fixture(autouse=True, scope="module")
def float64() -> Iterator[None]:
    """Tensors are float64 unless a test says otherwise; torch's random numbers go on afterwards as if nothing was."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    with torch.random.fork_rng(devices=[]):
        yield
    torch.set_default_dtype(before)
