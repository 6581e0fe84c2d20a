"""LightningDataModules, one data source per file."""

from pkgutil import extend_path

__path__ = extend_path(__path__, __name__)  # modules of a project's package of this name
