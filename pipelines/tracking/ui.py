"""`litlab ui`: the MLflow UI, on this machine alone unless told otherwise."""

import argparse
import contextlib
import ipaddress
import os
import platform
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence

from pipelines.runtime.errors import UserError
from pipelines.runtime.signals import exit_on_sigterm, signal_handlers
from pipelines.runtime.text import redact_credentials
from pipelines.tracking.store import Store
from pipelines.tracking.uri import MLFLOW_SETTINGS

HOST = "127.0.0.1"
PORTS_TO_TRY = 20
HELP = f"""usage: litlab ui [--port N] [--host HOST] [--tracking_uri URI]

Opens the MLflow UI on this project's runs; Ctrl-C ends it.

  --port N            the first free one from 5000 on
  --host HOST         the address to listen on ({HOST}: this machine alone).
                        Any other one lets everybody who reaches it read, change
                        and delete all runs: docs/SECURITY.md
  --tracking_uri URI  where runs are kept (mlflow.db of this project)"""
OPEN = """litlab: --host {host}: whoever reaches port {port} of this machine can read, change and
litlab: delete all runs, without a password and unencrypted. To ask for a password, end this and start:
litlab:   pip install 'mlflow[auth]'
litlab:   export MLFLOW_FLASK_SERVER_SECRET_KEY=... MLFLOW_AUTH_ADMIN_PASSWORD=...
litlab:   mlflow server --app-name basic-auth --backend-store-uri {uri} --host {host} --port {port}
litlab: docs/SECURITY.md says more"""


def main(verb: str, argv: Sequence[str]) -> int:
    """`litlab ui [--port N] [--host HOST] [--tracking_uri URI]`."""
    if {"-h", "--help"} & set(argv):
        print(HELP)
        return 0
    parser = argparse.ArgumentParser(prog=f"litlab {verb}", add_help=False, allow_abbrev=False)
    parser.add_argument("--port", type=int)
    parser.add_argument("--host", default=HOST)
    parser.add_argument("--tracking_uri")
    options = parser.parse_args(argv)
    host = options.host
    port = free_port(options.port, host)
    store = Store(options.tracking_uri)
    if store.folder is None and store.uri.startswith("http"):
        raise UserError(f"{store.uri} is a server, and serves its own UI there")
    if not _is_loopback(host):
        print(OPEN.format(host=host, port=port, uri=redact_credentials(store.uri)), file=sys.stderr)
    print(f"the runs of {redact_credentials(store.uri)}", flush=True)
    print(f"are at {_address(host, port)} in a few seconds; Ctrl-C ends it", flush=True)
    command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", store.uri]
    command += ["--host", host, "--port", str(port), "--workers", "1"]
    # Job execution would start another dozen processes, for features that litlab does not use.
    environment = {**MLFLOW_SETTINGS, **os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    environment.setdefault("PYTHONWARNINGS", "ignore")  # MLflow's own, about its server's parts
    exit_on_sigterm()
    pressed: list[int] = []
    with signal_handlers(lambda number, _: pressed.append(number), signal.SIGINT, signal.SIGTERM):
        server = subprocess.Popen(command, env=environment, start_new_session=True)  # else it could be left behind
    try:
        if pressed:
            os.kill(os.getpid(), pressed[0])
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


def _is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


def _address(host: str, port: int) -> str:
    name = platform.node() if host in ("0.0.0.0", "::") else host  # noqa: S104 (of all addresses, a name)
    return f"http://[{name}]:{port}" if ":" in name else f"http://{name}:{port}"


def free_port(wanted: int | None, host: str = HOST) -> int:
    """The port that is wanted, or else the first free one that `litlab ui` tries.

    Raises:
        UserError: It is taken, or all are; or the host is none of this machine's.
    """
    try:
        family, *_, place = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)[0]
        with socket.socket(family) as probe:
            probe.bind(place)
    except OSError as error:
        raise UserError(f"--host {host}: no address of this machine ({error.strerror})") from error
    for port in [wanted] if wanted else range(5000, 5000 + PORTS_TO_TRY):
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((place[0], port))
            except (OSError, OverflowError):
                continue
            return port
    which = f"port {wanted} is" if wanted else f"ports 5000 to {4999 + PORTS_TO_TRY} are"
    raise UserError(f"{which} taken; choose another with --port N")
