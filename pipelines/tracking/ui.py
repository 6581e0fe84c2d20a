"""Serve the MLflow UI, by default on this machine only."""

import contextlib
import ipaddress
import json
import os
import platform
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import entry_points

from pipelines.runtime.errors import UserError
from pipelines.runtime.process import SIGKILL, signal_process_group
from pipelines.runtime.signals import signal_handlers
from pipelines.runtime.text import redact_credentials
from pipelines.tracking.artifacts import moved_note
from pipelines.tracking.client import MLFLOW_SETTINGS
from pipelines.tracking.store import Store
from pipelines.tracking.ui_view import PAGE, VIEW_VARIABLE, View, save_view

HOST = "127.0.0.1"
APP = "litlab"  # in pyproject.toml
FIRST_PORT, PORTS_TO_TRY = 5000, 20


@dataclass(frozen=True)
class UIServer:
    """A running MLflow UI.

    Attributes:
        url: Where the UI will answer, a few seconds after the start.
        tracking_uri: The store, with the password if it has one.
        is_public: Whether other machines can reach it, without a password.
        page: What follows the URL: the page that opens the runs of an experiment.
        note: What the user should know; "" if there is nothing.
    """

    url: str
    port: int
    tracking_uri: str
    is_public: bool
    process: subprocess.Popen[bytes]
    page: str = ""
    note: str = ""


@contextmanager
def serve_ui(
    name: str | None = None,
    *,
    port: int | None = None,
    host: str = HOST,
    tracking_uri: str | None = None,
    quiet: bool = False,
) -> Iterator[UIServer]:
    """Run the MLflow UI for the duration of a `with` block.

    Args:
        name: The experiment or study whose runs are shown first; by default that of the latest run.
        port: The port; by default the first free one from 5000 on.
        host: The address to listen on. With any other than the default, whoever reaches it can read, change and
            delete all runs.
        tracking_uri: The database of the runs.
        quiet: Whether to discard what the server prints.

    Raises:
        UserError: The port is taken, the host is not an address of this machine, there is no such experiment, or the
            store is a server.
    """
    port = free_port(port, host)
    store = Store(tracking_uri)
    if store.uri.startswith("http"):
        raise UserError(f"{redact_credentials(store.uri)} is a server, which serves its own UI at this address")
    view, note = save_view(store, name), moved_note(store.client, store.uri)
    has_app = bool(view.state and entry_points(group="mlflow.app", name=APP))  # not in an old installation of litlab
    pressed: list[int] = []
    with signal_handlers(lambda number, _: pressed.append(number), signal.SIGINT, signal.SIGTERM):
        # Interrupted before it is assigned, the process would be left running.
        process = _start(store, host, port, view if has_app else None, quiet=quiet)
    machine = platform.node() if host in ("0.0.0.0", "::") else host  # noqa: S104 (all addresses: show the host name)
    url = f"http://[{machine}]:{port}" if ":" in machine else f"http://{machine}:{port}"
    try:
        if pressed:
            os.kill(os.getpid(), pressed[0])
        yield UIServer(url, port, store.uri, not _is_loopback(host), process, PAGE if has_app else view.path, note)
    finally:
        _stop(process)


def _start(store: Store, host: str, port: int, view: View | None, *, quiet: bool) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", store.uri]
    command += ["--host", host, "--port", str(port), "--workers", "1"]
    # Job execution would start a dozen more processes for features that litlab does not use.
    environment = {**MLFLOW_SETTINGS, **os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    if view is not None:
        command += ["--app-name", APP]
        environment[VIEW_VARIABLE] = json.dumps({"experiment": view.experiment_id, "state": view.state})
    environment.setdefault("PYTHONWARNINGS", "ignore")  # MLflow warns about parts of its own server
    output = subprocess.DEVNULL if quiet else None
    return subprocess.Popen(command, env=environment, start_new_session=True, stdout=output, stderr=output)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End the server and all processes that it has started, whatever state they are in."""
    for number in (signal.SIGTERM, SIGKILL):
        signal_process_group(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=5)


def _is_loopback(host: str) -> bool:
    """Return whether only this machine can reach an address."""
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


def free_port(port: int | None, host: str = HOST) -> int:
    """Return `port` if it is free, or the first free one of `PORTS_TO_TRY` ports if it is None.

    Raises:
        UserError: The port is taken, or all are; or the host is not an address of this machine.
    """
    try:
        family, *_, address = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)[0]
        with socket.socket(family) as probe:
            probe.bind(address)
    except OSError as error:
        raise UserError(f"--host {host}: not an address of this machine ({error.strerror})") from error
    for candidate in [port] if port else range(FIRST_PORT, FIRST_PORT + PORTS_TO_TRY):
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((address[0], candidate))
            except (OSError, OverflowError):
                continue
            return candidate
    taken = f"port {port} is" if port else f"ports {FIRST_PORT} to {FIRST_PORT + PORTS_TO_TRY - 1} are"
    raise UserError(f"{taken} taken; choose another with --port N")
