"""Entry point of the `litlab` command. It stands in this package, whose import makes litlab's other packages found."""

from typing import NoReturn


def console() -> NoReturn:
    """Run the command of this process, and end the process."""
    from pipelines.cli import console

    console()
