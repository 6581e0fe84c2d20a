"""A real `mlflow server` that is killed, or hangs, in the middle of a run: all must be there in the end, once."""

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
from bench import Bench, Project, Row, noted
from commands import Command, until
from kill_fits import Whole

CASE = ["digits-mlp", "--model.dropout", "0.3", "--data.batch_size", "8", "--trainer.max_epochs", "20"]
TIMES = {"comes back": 2, "away": 3, "killed too": 2, "hangs": 1}


class Server:
    """On one port, however often it is started."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self._port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it answers."""
        command = [sys.executable, "-m", "mlflow", "server", "--port", str(self._port), "--workers", "1"]
        command += ["--backend-store-uri", f"sqlite:///{self._folder}/mlflow.db"]
        command += ["--artifacts-destination", str(self._folder / "artifacts")]
        environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "PYTHONWARNINGS": "ignore"}
        with (self._folder / "server.log").open("a") as log:
            self._process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
        if not until(self._answers, 180):
            raise TimeoutError("mlflow server does not start")

    def signal(self, number: int) -> None:
        """To the server and all that it has started."""
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
class Scene:
    """A fit that goes to a server, and what waits of it on this machine."""

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
        """How many the run has measured until now."""
        files = [path.read_text() for path in (self.project.folder / "unsent").rglob("metrics.jsonl")]
        return sum(text.count('"val/loss"') for text in files)

    def fit(self) -> Command:
        """Begin, and wait for the moment of the fault."""
        command = self.litlab("fit", *CASE)
        until(lambda: self.epochs >= self.moment or command.wait(0) is not None)
        return command


def comes_back(scene: Scene) -> list[str]:
    """Killed in the training, there again before its end: the fit itself sends all."""
    command = scene.fit()
    scene.server.signal(signal.SIGKILL)
    scene.server.start()
    lost = [] if command.end() == 0 else [f"exit code {command.end()}: {command.last}"]
    return lost + _synced(scene, "nothing to send")


def away(scene: Scene) -> list[str]:
    """Killed in the training, and away until after the end: `litlab sync` sends what is left."""
    command = scene.fit()
    scene.server.signal(signal.SIGKILL)
    command.end()
    lost = [] if "litlab sync" in command.text else [f"no word of litlab sync: {command.last}"]
    again = scene.litlab("sync")
    lost += [] if again.end() == 1 else ["litlab sync without a server does not say that it has failed"]
    scene.server.start()
    return lost + _synced(scene, "sent to")


def killed_too(scene: Scene) -> list[str]:
    """The server is killed, then the fit; both come back: `litlab resume` goes on and sends all."""
    command = scene.fit()
    scene.server.signal(signal.SIGKILL)
    known = scene.epochs
    until(lambda: scene.epochs > known + 1 or command.wait(0) is not None)
    command.kill()
    scene.server.start()
    (run,) = runs.every(scene.server.uri)
    command = scene.litlab("resume", run.info.run_id)
    lost = [] if command.end() == 0 else [f"exit code {command.end()}: {command.last}"]
    return lost + _synced(scene, "nothing to send")


def hangs(scene: Scene) -> list[str]:
    """It answers nothing from the middle of the training until its end."""
    command = scene.fit()
    scene.server.signal(signal.SIGSTOP)
    until(lambda: scene.epochs >= int(CASE[-1]) or command.wait(0) is not None)
    scene.server.signal(signal.SIGCONT)
    lost = [] if command.end() == 0 else [f"exit code {command.end()}: {command.last}"]
    return lost + _synced(scene, "")


SCENES: dict[str, tuple[Callable[[Scene], list[str]], str]] = {
    "comes back": (comes_back, "killed in mid-run, started again at once: the fit sends all"),
    "away": (away, "killed in mid-run, started after the end of the fit: `litlab sync` sends the rest"),
    "killed too": (killed_too, "killed in mid-run, the fit too; both started again: `litlab resume` sends all"),
    "hangs": (hangs, "stopped (SIGSTOP) from mid-run to the end of the training"),
}


def total(quick: bool) -> int:
    return 1 if quick else sum(TIMES.values())


def table(bench: Bench) -> list[Row]:
    """A row for each way to be away."""
    reference = kill_fits.whole(bench, CASE, "whole")
    found = "every point of every metric once, params, status, files and model as without a fault"
    rows = []
    for name, times in {"away": 1}.items() if bench.quick else TIMES.items():
        play, what = SCENES[name]
        lost = [said for turn in range(times) for said in _played(bench, reference, name, play, turn)]
        rows.append(Row(f"`mlflow server` {what}", str(times), found, lost))
    return rows


def _played(bench: Bench, reference: Whole, name: str, play: Callable[[Scene], list[str]], turn: int) -> list[str]:
    label = f"server-{name}-{turn}".replace(" ", "-")
    project = bench.project(label)
    moment = bench.random(label).randrange(1, int(CASE[-1]) // 2)
    scene, lost = Scene(bench, project, Server(project.folder), moment), list[str]()
    try:
        with noted(lost, name):
            scene.server.start()
            lost += play(scene)
            lost += _checked(scene, reference)
    finally:
        scene.server.signal(signal.SIGKILL)
    bench.step()
    return [f"{label}: {said}" for said in lost]


def _synced(scene: Scene, expected: str) -> list[str]:
    command = scene.litlab("sync")
    return [] if command.end() == 0 and expected in command.text else [f"litlab sync: {command.last}"]


def _checked(scene: Scene, reference: Whole) -> list[str]:
    found = runs.every(scene.server.uri)
    lost = [] if len(found) == 1 else [f"{len(found)} runs"]
    left = [path for path in (scene.project.folder / "unsent").glob("*/run.json")]
    lost += ["something still waits"] if left else []
    return lost + runs.differences(scene.server.uri, found[-1].info.run_id, reference.project.uri, reference.run_id)
