"""`litlab ui`: the MLflow UI, its address and who can reach it."""

import signal
import socket
import struct
import subprocess
import time
import urllib.request
from pathlib import Path

import pytest

from pipelines.diagnostics import databases
from pipelines.diagnostics.check import Context
from pipelines.tracking.run import Run
from pipelines.tracking.store import Store

PIPES = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "start_new_session": True}


def listening(port):
    """Return the addresses at which this machine listens on a port, from /proc/net."""
    found = []
    for name, family in (("tcp", socket.AF_INET), ("tcp6", socket.AF_INET6)):
        for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]:
            address, number = line.split()[1].split(":")
            if int(number, 16) == port and line.split()[3] == "0A":
                words = struct.iter_unpack(">I", bytes.fromhex(address))
                found.append(socket.inet_ntop(family, b"".join(struct.pack("=I", word) for (word,) in words)))
    return found


def test_the_ui_serves_this_projects_runs_on_this_machine_only_and_stops_on_ctrl_c(
    uri, tables, free_port, start_litlab, tmp_path
):
    Run(Store(), "an experiment", "a run", {}).finish("FINISHED")
    port = free_port()
    ui = start_litlab("ui", "--port", str(port), **PIPES)
    try:
        assert ui.stdout.readline().strip() == f"MLflow UI of {uri}:"
        address, _, page = ui.stdout.readline().strip().partition("/litlab")
        assert (address, page) == (f"http://127.0.0.1:{port}", "")
        assert b'"/#/experiments/1/runs?workflowType=machine_learning"' in fetch(f"{address}/litlab")
        query = f"{address}/api/2.0/mlflow/experiments/get-by-name?experiment_name=an%20experiment"
        assert b'"name": "an experiment"' in fetch(query)
        assert listening(port) == ["127.0.0.1"]
        (found,) = databases.check_runs_database(Context(address, tmp_path, fix=False))  # as checked by litlab doctor
        assert found.state == "ok"
    finally:
        ui.send_signal(signal.SIGINT)
        ui.communicate(timeout=60)
    assert ui.returncode == 0


def fetch(url):
    for _ in range(300):
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                return answer.read()
        except OSError:
            time.sleep(0.2)
    raise TimeoutError(url)


def test_a_taken_port_is_refused(litlab):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        outcome = litlab("ui", "--port", str(port))
    assert outcome.code == 2
    assert f"port {port} is taken" in outcome.err


def test_a_public_address_prints_a_warning_and_how_to_require_a_password(uri, tables, free_port, start_litlab):
    ui = start_litlab("ui", "--host", "0.0.0.0", "--port", str(free_port()), **PIPES)
    try:
        assert ui.stdout.readline().strip() == f"MLflow UI of {uri}:"
    finally:
        ui.send_signal(signal.SIGINT)
        _, message = ui.communicate(timeout=60)
    assert "can read, change and\nlitlab: delete all runs, without a password" in message
    assert "mlflow server --app-name basic-auth --backend-store-uri" in message


@pytest.mark.parametrize("host", ["192.0.2.1", "no such host"])
def test_an_address_of_another_machine_is_refused(litlab, host):
    outcome = litlab("ui", "--host", host)
    assert outcome.code == 2
    assert "not an address of this machine" in outcome.err
