"""The theory of the experiments as tests: each docstring states one claim, each helper implements one formula.

Hypothesis chooses shapes and seeds. Everything is computed in float64, where rounding errors are near 1e-16 and a
tolerance of 1e-10 separates correct formulas from wrong ones.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings
from hypothesis.configuration import set_hypothesis_home_dir

# Reproducible: the same sources give the same examples in every run, and no examples are saved between runs.
settings.register_profile("theory", deadline=None, max_examples=25, derandomize=True, database=None)
settings.load_profile("theory")
# Hypothesis also collects constants from the sources and caches them: next to pytest's cache, not in its own folder.
set_hypothesis_home_dir(Path(__file__).parents[2] / ".pytest_cache" / "hypothesis")


@pytest.fixture(autouse=True, scope="module")
def float64() -> Iterator[None]:
    """Make float64 the default dtype, and restore the default dtype and torch's random state afterwards."""
    previous = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    with torch.random.fork_rng(devices=[]):
        yield
    torch.set_default_dtype(previous)
