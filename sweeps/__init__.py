"""Many runs: searches, seeds and reproduction. May import pipelines, modules and datamodules."""

from pkgutil import extend_path

__path__ = extend_path(__path__, __name__)  # modules of a project's package of this name
