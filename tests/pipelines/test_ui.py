"""`litlab ui`: the pages that MLflow serves."""

import signal
import socket
import subprocess
import sys
import time
import urllib.request

from pipelines.store import Store
from pipelines.tracking import Run


def test_the_ui_serves_this_projects_runs_on_this_machine_only_and_stops_on_ctrl_c(uri):
    Run(Store(), "an experiment", "a run", {}).finish("FINISHED")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    program = "import sys; from pipelines.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", program, "ui", "--port", str(port)]
    ui = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    try:
        assert ui.stdout.readline().strip() == f"the runs of {uri}"
        address = ui.stdout.readline().split()[2]
        assert address == f"http://127.0.0.1:{port}"
        query = f"{address}/api/2.0/mlflow/experiments/get-by-name?experiment_name=an%20experiment"
        assert b'"name": "an experiment"' in fetch(query)
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


def test_a_port_that_is_taken_is_said(litlab):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        outcome = litlab("ui", "--port", str(port))
    assert outcome.code == 2
    assert f"port {port} is taken" in outcome.err
