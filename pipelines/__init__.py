"""One run: train, evaluate, compare, report, inspect and track it. May import modules and datamodules, never sweeps."""

from pkgutil import extend_path

__path__ = extend_path(__path__, __name__)  # modules of a project's package of this name
