"""Open the MLflow UI from Python: `ui`."""

import atexit
import html
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipelines.tracking.uri import store_uri

if TYPE_CHECKING:
    from pipelines.tracking.ui import UIServer

_SERVERS: dict[str, "tuple[UIServer, ExitStack]"] = {}  # by tracking URI


@dataclass(frozen=True)
class UI:
    """The MLflow UI, which a process serves in the background. A notebook shows a link.

    Attributes:
        url: The address of the page.
    """

    url: str
    _tracking_uri: str

    def stop(self) -> None:
        """End the server. It ends with Python too."""
        if self._tracking_uri in _SERVERS:
            _SERVERS.pop(self._tracking_uri)[1].close()

    def __repr__(self) -> str:
        return f"<litlab.UI {self.url}>"

    def _repr_html_(self) -> str:
        url = html.escape(self.url)
        return f'<a href="{url}" target="_blank">{url}</a> (ready in a few seconds)'


def ui(name: str | None = None, *, port: int | None = None, tracking_uri: str | None = None) -> UI:
    """Serve the MLflow UI in the background, on this machine only; the second call returns the same server.

    Args:
        name: The experiment or study whose runs are shown; default: that of the latest run.
        port: Default: the first free one from 5000 on.
        tracking_uri: Database of the runs; default: MLFLOW_TRACKING_URI, else the project's mlflow.db. Of a server, the
            address of its own UI is returned.

    Raises:
        UserError: The port is taken, or there is no such experiment.
    """
    from pipelines.tracking.store import Store
    from pipelines.tracking.ui_view import save_view

    uri = store_uri(tracking_uri)
    if uri.startswith("http"):
        return UI(f"{uri}{save_view(Store(uri), name).path}", uri)
    if uri not in _SERVERS or _SERVERS[uri][0].process.poll() is not None:
        _SERVERS[uri] = _start(name, port, uri)
    server = _SERVERS[uri][0]
    page = server.page if name is None else save_view(Store(uri), name).path
    return UI(f"{server.url}{page}", uri)


def _start(name: str | None, port: int | None, uri: str) -> "tuple[UIServer, ExitStack]":
    from pipelines.tracking.ui import serve_ui

    stack = ExitStack()
    server = stack.enter_context(serve_ui(name, port=port, tracking_uri=uri, quiet=True))
    atexit.register(stack.close)
    return server, stack
