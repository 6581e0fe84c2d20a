"""A trainer that evaluates on one device, and logs and saves nothing."""

from collections.abc import Collection
from typing import Any

from lightning.pytorch.loggers.logger import DummyLogger

from pipelines.config.cli import LitlabCLI


def bare_trainer(cli: LitlabCLI, checkpoint_keys: Collection[str] | None = None, **kwargs: Any) -> Any:
    """Return a trainer for one device that logs and saves nothing; `self.logger` of a module does nothing.

    Args:
        cli: The configuration, for the accelerator and the precision.
        checkpoint_keys: See `LitlabCLI.make_trainer`.
        kwargs: Other arguments of the trainer.
    """
    return cli.make_trainer(
        checkpoint_keys,
        **{
            "callbacks": None,
            "logger": DummyLogger(),
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "devices": 1,
            "num_nodes": 1,
            "strategy": "auto",
            "profiler": None,
            **kwargs,
        },
    )
