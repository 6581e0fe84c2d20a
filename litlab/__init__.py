"""litlab from Python: the verbs of the command as functions, which return objects and print nothing but progress.

    run = litlab.fit("digits-mlp", overrides={"model.dropout": 0.3}, seed=3)
    run.metrics["test/acc"]
    litlab.compare("digits-mlp")

Importing it costs nothing, and joins packages of the current project to litlab's. See docs/PYTHON.md.
"""

from typing import TYPE_CHECKING, Any

from litlab.packages import import_own_packages

import_own_packages()

if TYPE_CHECKING:
    from litlab.comparing import compare, diff, runs
    from litlab.deciding import Decision, decide
    from litlab.errors import RunFailedError, UserError
    from litlab.fitting import fit, resume
    from litlab.measuring import predict, test, validate
    from litlab.run import Run, load
    from litlab.searching import Sweep, reproduce, sweep
    from litlab.web_ui import ui

__all__ = [
    "Decision",
    "Run",
    "RunFailedError",
    "Sweep",
    "UserError",
    "compare",
    "decide",
    "diff",
    "fit",
    "load",
    "predict",
    "reproduce",
    "resume",
    "runs",
    "sweep",
    "test",
    "ui",
    "validate",
]

_FILES = {
    "comparing": ("compare", "diff", "runs"),
    "deciding": ("Decision", "decide"),
    "errors": ("RunFailedError", "UserError"),
    "fitting": ("fit", "resume"),
    "measuring": ("predict", "test", "validate"),
    "run": ("Run", "load"),
    "searching": ("Sweep", "reproduce", "sweep"),
    "web_ui": ("ui",),
}

if not TYPE_CHECKING:  # else type checkers would take every name

    def __getattr__(name: str) -> Any:
        """Import what is used when it is used."""
        from importlib import import_module

        file = next((file for file, names in _FILES.items() if name in names), None)
        if file is None:
            raise AttributeError(f"module 'litlab' has no attribute {name!r}")
        globals()[name] = getattr(import_module(f"litlab.{file}"), name)
        return globals()[name]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
