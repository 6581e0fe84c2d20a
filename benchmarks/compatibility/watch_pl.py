"""The callback of watch.py for modules of pytorch_lightning."""

from pytorch_lightning import Callback
from watch import Watching


class Watch(Watching, Callback):
    """The callback for pytorch_lightning."""
