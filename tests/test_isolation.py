"""What one test leaves behind does not change the next one; the order here matters."""

import os

import pytest
from lightning.pytorch import seed_everything


@pytest.fixture(scope="module")
def seeded_module() -> None:
    seed_everything(7, verbose=False)


def test_a_test_may_set_the_seed_of_lightning():
    assert "PL_GLOBAL_SEED" not in os.environ
    seed_everything(7, verbose=False)


def test_the_seed_of_another_test_is_gone():
    assert "PL_GLOBAL_SEED" not in os.environ


@pytest.mark.usefixtures("seeded_module")
def test_the_seed_of_a_module_s_fixture_is_gone():
    assert "PL_GLOBAL_SEED" not in os.environ
