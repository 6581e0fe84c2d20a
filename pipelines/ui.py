"""`litlab ui`: the MLflow UI on this machine alone."""

import argparse
import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence

from pipelines.errors import UserError
from pipelines.interrupt import exit_on_sigterm
from pipelines.store import MLFLOW_SETTINGS, Store

HOST = "127.0.0.1"
PORTS_TO_TRY = 20


def main(verb: str, argv: Sequence[str]) -> int:
    """`litlab ui [--port N] [--tracking_uri URI]`."""
    parser = argparse.ArgumentParser(prog=f"litlab {verb}", description="Open the MLflow UI on this project's runs.")
    parser.add_argument("--port", type=int, help="default: the first free one from 5000 on")
    parser.add_argument("--tracking_uri", help="where runs are kept; default: mlflow.db of this project")
    options = parser.parse_args(argv)
    port = _free_port(options.port)
    store = Store(options.tracking_uri)
    if store.folder is None and store.uri.startswith("http"):
        raise UserError(f"{store.uri} is a server, and serves its own UI there")
    print(f"the runs of {store.uri}\nare at http://{HOST}:{port} in a few seconds; Ctrl-C ends it", flush=True)
    command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", store.uri]
    command += ["--host", HOST, "--port", str(port), "--workers", "1"]
    # Job execution would start another dozen processes, for features that litlab does not use.
    environment = {**MLFLOW_SETTINGS, **os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    environment.setdefault("PYTHONWARNINGS", "ignore")  # MLflow's own, about its server's parts
    exit_on_sigterm()
    server = subprocess.Popen(command, env=environment, start_new_session=True)
    try:
        return server.wait()
    except KeyboardInterrupt:
        return 0
    finally:
        _end(server)


def _end(server: subprocess.Popen[bytes]) -> None:
    """End the server and the processes that it has started, whatever state they are in."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(timeout=5)


def _free_port(wanted: int | None) -> int:
    for port in [wanted] if wanted else range(5000, 5000 + PORTS_TO_TRY):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except (OSError, OverflowError):
                continue
            return port
    which = f"port {wanted} is" if wanted else f"ports 5000 to {4999 + PORTS_TO_TRY} are"
    raise UserError(f"{which} taken; choose another with --port N")
