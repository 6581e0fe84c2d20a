"""Kill or stop a real `mlflow server` during a run. In the end it must have all data exactly once."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import kill_fits
import runs
from bench import Bench, Project, Row, record_errors
from commands import Command, until
from kill_fits import Reference

CASE = ["digits-mlp", "--model.dropout", "0.3", "--data.batch_size", "8", "--trainer.max_epochs", "20"]
TIMES = {"restarted": 2, "unavailable": 3, "fit killed": 2, "hangs": 1}


class Server:
    """An MLflow server that keeps its port when it is restarted."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self._port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the server, and wait until it answers."""
        command = [sys.executable, "-m", "mlflow", "server", "--port", str(self._port), "--workers", "1"]
        command += ["--backend-store-uri", f"sqlite:///{self._folder}/mlflow.db"]
        command += ["--artifacts-destination", str(self._folder / "artifacts")]
        environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "PYTHONWARNINGS": "ignore"}
        with (self._folder / "server.log").open("a") as log:
            self._process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
        if not until(self._answers, 180):
            raise TimeoutError("mlflow server does not start")

    def signal(self, number: int) -> None:
        """Send a signal to the server and its child processes."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)
            if number == signal.SIGKILL:
                self._process.wait()
                self._process = None

    def _answers(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self._port)) == 0


@dataclass
class Scenario:
    """A fit that is tracked on a server, with its pending data in the project's folder.

    Attributes:
        bench: Starts the commands.
        project: Has the pending data.
        server: The server.
        moment: Number of measured epochs after which the fault happens.
    """

    bench: Bench
    project: Project
    server: Server
    moment: int

    def litlab(self, *argv: str) -> Command:
        environment = {"LITLAB_UNSENT": str(self.project.folder / "unsent")}
        log = f"{self.project.folder.name}.txt"
        return self.bench.litlab(*argv, uri=self.server.uri, environment=environment, log=log)

    @property
    def epochs(self) -> int:
        """Number of epochs that the run has measured so far."""
        files = [path.read_text() for path in (self.project.folder / "unsent").rglob("metrics.jsonl")]
        return sum(text.count('"val/loss"') for text in files)

    def fit(self) -> Command:
        """Start the fit, and wait for the moment of the fault."""
        command = self.litlab("fit", *CASE)
        until(lambda: self.epochs >= self.moment or command.wait(0) is not None)
        return command


def restarted(scenario: Scenario) -> list[str]:
    """Kill the server during training and restart it at once: the fit itself sends everything."""
    command = scenario.fit()
    scenario.server.signal(signal.SIGKILL)
    scenario.server.start()
    lost = [] if command.exit_code() == 0 else [f"exit code {command.exit_code()}: {command.last_line}"]
    return lost + _sync(scenario, "nothing to send")


def unavailable(scenario: Scenario) -> list[str]:
    """Kill the server during training and restart it after the fit: `litlab sync` sends the rest."""
    command = scenario.fit()
    scenario.server.signal(signal.SIGKILL)
    command.exit_code()
    lost = [] if "litlab sync" in command.output else [f"litlab sync is not mentioned: {command.last_line}"]
    sync = scenario.litlab("sync")
    lost += [] if sync.exit_code() == 1 else ["litlab sync without a server does not fail"]
    scenario.server.start()
    return lost + _sync(scenario, "sent to")


def fit_killed(scenario: Scenario) -> list[str]:
    """Kill the server, then the fit, and restart the server: `litlab resume` continues and sends everything."""
    command = scenario.fit()
    scenario.server.signal(signal.SIGKILL)
    measured = scenario.epochs
    until(lambda: scenario.epochs > measured + 1 or command.wait(0) is not None)
    command.kill()
    scenario.server.start()
    (run,) = runs.all_runs(scenario.server.uri)
    command = scenario.litlab("resume", run.info.run_id)
    lost = [] if command.exit_code() == 0 else [f"exit code {command.exit_code()}: {command.last_line}"]
    return lost + _sync(scenario, "nothing to send")


def hangs(scenario: Scenario) -> list[str]:
    """Stop the server during training until the end of training."""
    command = scenario.fit()
    scenario.server.signal(signal.SIGSTOP)
    until(lambda: scenario.epochs >= int(CASE[-1]) or command.wait(0) is not None)
    scenario.server.signal(signal.SIGCONT)
    lost = [] if command.exit_code() == 0 else [f"exit code {command.exit_code()}: {command.last_line}"]
    return lost + _sync(scenario, "")


SCENARIOS: dict[str, tuple[Callable[[Scenario], list[str]], str]] = {
    "restarted": (restarted, "killed during a run and restarted at once: the fit sends everything"),
    "unavailable": (unavailable, "killed during a run and restarted after the fit: `litlab sync` sends the rest"),
    "fit killed": (fit_killed, "killed during a run, then the fit; both restarted: `litlab resume` sends everything"),
    "hangs": (hangs, "stopped (SIGSTOP) during a run until the end of training"),
}


def total(quick: bool) -> int:
    return 1 if quick else sum(TIMES.values())


def table(bench: Bench) -> list[Row]:
    """Return a row for each scenario."""
    reference = kill_fits.train_reference(bench, CASE, "reference")
    outcome = "every metric value once; params, status, files and model as in an undisturbed run"
    rows = []
    for name, times in {"unavailable": 1}.items() if bench.quick else TIMES.items():
        play, fault = SCENARIOS[name]
        lost = [message for turn in range(times) for message in _play(bench, reference, name, play, turn)]
        rows.append(Row(f"`mlflow server` {fault}", str(times), outcome, lost))
    return rows


def _play(bench: Bench, reference: Reference, name: str, play: Callable[[Scenario], list[str]], turn: int) -> list[str]:
    label = f"server-{name}-{turn}".replace(" ", "-")
    project = bench.project(label)
    moment = bench.random(label).randrange(1, int(CASE[-1]) // 2)
    scenario, lost = Scenario(bench, project, Server(project.folder), moment), list[str]()
    try:
        with record_errors(lost, name):
            scenario.server.start()
            lost += play(scenario)
            lost += _check(scenario, reference)
    finally:
        scenario.server.signal(signal.SIGKILL)
    bench.step()
    return [f"{label}: {message}" for message in lost]


def _sync(scenario: Scenario, expected: str) -> list[str]:
    command = scenario.litlab("sync")
    return [] if command.exit_code() == 0 and expected in command.output else [f"litlab sync: {command.last_line}"]


def _check(scenario: Scenario, reference: Reference) -> list[str]:
    all_runs = runs.all_runs(scenario.server.uri)
    lost = [] if len(all_runs) == 1 else [f"{len(all_runs)} runs"]
    pending = [path for path in (scenario.project.folder / "unsent").glob("*/run.json")]
    lost += ["data are pending"] if pending else []
    run_id = all_runs[-1].info.run_id
    return lost + runs.differences(scenario.server.uri, run_id, reference.project.uri, reference.run_id)
