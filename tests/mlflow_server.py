"""A real `mlflow server`, for tests that need one."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from pipelines.tracking.client import MLFLOW_SETTINGS


def free_tcp_port() -> int:
    """Return a port of this machine that nothing uses."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """A real `mlflow server`: it keeps its port when restarted; files are in its folder, runs in a database."""

    def __init__(self, folder: Path, database: str) -> None:
        self._folder, self._database, self.port = folder, database, free_tcp_port()
        self.uri = f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start the server and wait until it answers."""
        command = [sys.executable, "-m", "mlflow", "server", "--port", str(self.port), "--workers", "1"]
        command += ["--backend-store-uri", self._database, "--artifacts-destination", str(self._folder / "files")]
        environment = {**MLFLOW_SETTINGS, **os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        environment.pop("MLFLOW_TRACKING_URI", None)
        path = self._folder / "log"
        with path.open("a") as log:
            options: dict[str, Any] = {"env": environment, "cwd": self._folder, "start_new_session": True}
            self._process = subprocess.Popen(command, stdout=log, stderr=log, **options)
        deadline = time.monotonic() + 180
        while not self._answers():
            assert self._process.poll() is None, path.read_text()
            assert time.monotonic() < deadline, path.read_text()
            time.sleep(0.1)

    def kill(self) -> None:
        os.killpg(self._process.pid, signal.SIGKILL)  # the server and its worker
        self._process.wait()

    def _answers(self) -> bool:
        try:
            with urlopen(f"{self.uri}/health", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False
