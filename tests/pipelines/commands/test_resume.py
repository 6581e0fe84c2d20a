"""Options of `litlab resume`."""

import pytest

from pipelines.commands.resume import make_parser
from pipelines.config.identity import PLACE_KEYS
from pipelines.training.resume import MAY_CHANGE


@pytest.mark.parametrize("key", [*PLACE_KEYS, *MAY_CHANGE])
def test_help_names_every_key_that_may_change(key):
    assert f"--{key} " in make_parser("resume").format_help()
