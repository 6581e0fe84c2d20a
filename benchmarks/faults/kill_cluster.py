"""Kill or freeze each part of a sweep on two Ray nodes; its result must be that of a sweep without a cluster.

The nodes are `ray start --block` on loopback, with a CPU each; the storage is PostgreSQL where it is installed, and the
runs are on an MLflow server.
"""

import contextlib
import importlib.util
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from bench import Bench, Row, record_errors
from commands import until

from tests import postgres
from tests.cluster_study import EPOCHS, SPACE, Study
from tests.mlflow_server import Server
from tests.ray_cluster import RayCluster, is_alive, running_cluster, send

DROPOUT = [0.0, 0.1, 0.2, 0.3, 0.4]
GRID = {key: value for key, value in SPACE.items() if key != "trials"}
GRID |= {"sampler": "grid", "space": {"model.dropout": DROPOUT}}
FROZEN_S = 16.0  # longer than it takes to see that a node is dead, see tests/ray_cluster.py


@dataclass
class Scenario:
    """A sweep on a cluster, which trains on both nodes.

    Attributes:
        study: The study.
        cluster: The cluster. Its last node may be killed, and is then replaced.
        process: The controller.
        lost: Failed checks.
    """

    study: Study
    cluster: RayCluster
    process: "subprocess.Popen[str]"
    lost: list[str] = field(default_factory=list)

    def seconds_until(self, condition: Callable[[], object], what: str, limit: float = 120.0) -> float:
        """Return after how many seconds a condition is true; it is a loss if it does not become true."""
        start = time.monotonic()
        if not until(condition, limit):
            self.lost.append(f"not within {limit:.0f} s: {what}")
        return time.monotonic() - start

    def seconds_until_lost(self) -> float:
        return self.seconds_until(lambda: "lost: node" in self.study.output, "the controller sees the loss")

    def end(self, code: int, seconds: float = 300.0) -> float:
        """Return after how many seconds the controller has ended; another exit code is a loss."""
        start = time.monotonic()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(seconds)
        if self.process.poll() != code:
            self.lost.append(f"exit code {self.process.poll()}, not {code}")
        if "Traceback" in self.study.output:
            self.lost.append("a traceback")
        return time.monotonic() - start

    def continue_on(self, cluster: RayCluster) -> None:
        """Give the same command again."""
        self.process = self.study.start(cluster)


@dataclass(frozen=True)
class Case:
    """A fault.

    Attributes:
        fault: What is killed or frozen.
        inject: Does it once both nodes train, and returns what followed.
        failed: Trials that fail by it.
        is_last: Whether the cluster is of no use afterwards.
    """

    fault: str
    inject: Callable[[Scenario], str]
    failed: int = 0
    is_last: bool = False


def training_killed(scenario: Scenario) -> str:
    victim = scenario.cluster.nodes[-1].trainings()[0]
    os.kill(victim, signal.SIGKILL)
    seen = scenario.seconds_until(lambda: "killed (SIGKILL)" in scenario.study.output, "the trial fails")
    return f"its trial failed after {seen:.1f} s, with the reason"


def agent_killed(scenario: Scenario) -> str:
    node = scenario.cluster.nodes[-1]
    trainings = node.trainings()
    os.kill(node.agents()[0], signal.SIGKILL)
    seen = scenario.seconds_until_lost()
    gone = scenario.seconds_until(lambda: not any(map(is_alive, trainings)), "its training ends", 60)
    return f"seen after {seen:.1f} s, its training ended after {seen + gone:.1f} s; its trial queued again"


def node_killed(scenario: Scenario) -> str:
    scenario.cluster.nodes[-1].kill()
    new = scenario.cluster.add_node()
    seen = scenario.seconds_until_lost()
    joined = scenario.seconds_until(new.trainings, "a new node trains")
    return f"seen after {seen:.1f} s, its trial queued again; a node that joined trained after {seen + joined:.0f} s"


def node_frozen(scenario: Scenario) -> str:
    node = scenario.cluster.nodes[-1]
    frozen = node.processes()
    node.signal(signal.SIGSTOP)
    seen = scenario.seconds_until_lost()
    node.signal(signal.SIGCONT)
    gone = scenario.seconds_until(lambda: not any(map(is_alive, frozen)), "its processes end", 60)
    scenario.cluster.add_node()
    return f"declared dead after {seen:.0f} s; woken, its processes ended after {gone:.0f} s and counted nothing"


def controller_killed(scenario: Scenario) -> str:
    trainings = [pid for node in scenario.cluster.nodes for pid in node.trainings()]
    scenario.process.kill()
    scenario.process.wait()
    gone = scenario.seconds_until(lambda: not any(map(is_alive, trainings)), "the trainings end", 60)
    scenario.seconds_until(lambda: not any(node.agents() for node in scenario.cluster.nodes), "the agents end", 60)
    scenario.continue_on(scenario.cluster)
    return f"the trainings ended after {gone:.1f} s; the same command went on"


def controller_frozen(scenario: Scenario) -> str:
    scenario.process.send_signal(signal.SIGSTOP)
    time.sleep(FROZEN_S)
    scenario.process.send_signal(signal.SIGCONT)
    return "went on"


def ctrl_c(scenario: Scenario) -> str:
    os.killpg(scenario.process.pid, signal.SIGINT)
    ended = scenario.end(130, 60)
    scenario.lost += [f"{len(left)} runs are RUNNING" for left in [scenario.study.runs("RUNNING")] if left]
    scenario.continue_on(scenario.cluster)
    return f"exit code 130 after {ended:.1f} s, no run RUNNING; the same command went on"


def head_frozen_for_a_while(scenario: Scenario) -> str:
    head = scenario.cluster.nodes[0].head()
    send(head, signal.SIGSTOP)
    time.sleep(FROZEN_S)
    send(head, signal.SIGCONT)
    return "waited for"


def head_lost(scenario: Scenario, number: int) -> str:
    send(scenario.cluster.nodes[0].head(), number)
    ended = scenario.end(1, 120)
    if "Ray's head does not answer" not in scenario.study.errors[-1]:
        scenario.lost.append(f"the last line is {scenario.study.errors[-1]}")
    scenario.lost += [f"{len(left)} runs are RUNNING" for left in [scenario.study.runs("RUNNING")] if left]
    return f"exit code 1 after {ended:.0f} s with one line, no run RUNNING; the same command went on with another head"


CASES = [
    Case("a training, kill -9", training_killed, failed=1),
    Case("the agent of a node, kill -9", agent_killed),
    Case("all processes of a node, kill -9", node_killed),
    Case("all processes of a node, frozen until it is declared dead, then woken", node_frozen),
    Case("the controller, kill -9", controller_killed),
    Case(f"the controller, frozen for {FROZEN_S:.0f} s", controller_frozen),
    Case("the controller, Ctrl-C", ctrl_c),
    Case(f"Ray's head, frozen for {FROZEN_S:.0f} s", head_frozen_for_a_while),
    Case("Ray's head, kill -9", lambda scenario: head_lost(scenario, signal.SIGKILL), is_last=True),
    Case("Ray's head, frozen for good", lambda scenario: head_lost(scenario, signal.SIGSTOP), is_last=True),
]


def total(quick: bool) -> int:
    return 2 if quick else len(CASES) + 1


def table(bench: Bench) -> list[Row]:
    """Return a row for the undisturbed sweep without a cluster, and one for each fault."""
    cases = CASES[1:2] if bench.quick else CASES
    folder = bench.subfolder("cluster")
    (folder / "server").mkdir(parents=True)
    with contextlib.ExitStack() as stack:
        server = Server(folder / "server", f"sqlite:///{folder}/server/mlflow.db")
        stack.callback(server.kill)
        server.start()
        database = stack.enter_context(_postgresql())
        alone = Study(folder / "alone", server.uri, space=GRID)
        expected, row = _alone(alone)
        bench.step()
        rows, clusters = [row], Clusters(folder, stack)
        for number, case in enumerate(cases):
            storage = database(f"case{number}")
            rows.append(_row(case, Study(folder / f"case{number}", server.uri, storage, GRID), clusters, expected))
            bench.step()
    return rows


class Clusters:
    """Starts a cluster, and another one when that is of no use any more."""

    def __init__(self, folder: Path, stack: contextlib.ExitStack) -> None:
        self._folder, self._stack = folder, stack
        self._open: contextlib.ExitStack | None = None
        self._cluster: RayCluster | None = None

    def current(self) -> RayCluster:
        if self._open is None or self._cluster is None:
            self._open = self._stack.enter_context(contextlib.ExitStack())
            self._cluster = self._open.enter_context(running_cluster(self._folder))
        return self._cluster

    def replace(self) -> RayCluster:
        if self._open is not None:
            self._open.close()
            self._open = None
        return self.current()


@contextlib.contextmanager
def _postgresql() -> Iterator[Callable[[str], str]]:
    """Return a function that makes an empty database, and returns its URL; "" for each without PostgreSQL."""
    if importlib.util.find_spec("psycopg") is None or postgres.missing():
        yield lambda name: ""
        return
    with postgres.running_postgres() as server:
        yield server.create


def _alone(study: Study) -> tuple[dict[str, float], Row]:
    """Sweep without a cluster; return the value of each configuration, and the row."""
    start, lost = time.monotonic(), list[str]()
    if code := study.start(None, "--workers", "2").wait():
        lost.append(f"exit code {code}")
    values = _values(study)
    lost += [] if len(values) == len(DROPOUT) else [f"{len(values)} configurations, not {len(DROPOUT)}"]
    outcome = f"{len(values)} trials, best {max(values.values(), default=0):.4f}; {time.monotonic() - start:.0f} s"
    fault = f"none: `litlab sweep --workers 2` (`digits-mlp`, grid, {EPOCHS} epochs)"
    return values, Row(fault, "1", outcome, lost)


def _row(case: Case, study: Study, clusters: Clusters, expected: dict[str, float]) -> Row:
    cluster, start = clusters.current(), time.monotonic()
    scenario = Scenario(study, cluster, study.start(cluster))
    outcome = ""
    with record_errors(scenario.lost, "check"):
        trains = "two trainings and a trial that has ended"
        scenario.seconds_until(lambda: len(study.runs("RUNNING")) == 2 and study.counted, trains)
        outcome = case.inject(scenario)
        if case.is_last:
            scenario.continue_on(clusters.replace())
        scenario.end(0)
        states = {"COMPLETE": len(DROPOUT) - case.failed, "FAIL": case.failed}
        study.check({state: number for state, number in states.items() if number}, trials=len(DROPOUT))
        scenario.lost += _differences(_values(study), expected, case.failed)
        left = sum(len(node.agents()) for node in cluster.nodes)
        scenario.lost += [f"{left} agents are left"] if left else []
    if scenario.process.poll() is None:
        scenario.process.kill()
    storage = "PostgreSQL" if study.storage.startswith("postgresql") else "SQLite"
    same = f"{len(study.counted)} trials, each counted once, values as without a cluster"
    done = f"{outcome}; {same} ({storage}; {time.monotonic() - start:.0f} s)"
    return Row(case.fault, "1", done, [f"{case.fault}: {message}" for message in scenario.lost])


def _values(study: Study) -> dict[str, float]:
    """Return the value of each configuration that is complete."""
    return {str(trial.params): trial.value for trial in study.counted if trial.value is not None}


def _differences(values: dict[str, float], expected: dict[str, float], failed: int) -> list[str]:
    others = {key: value for key, value in values.items() if value != expected.get(key)}
    wrong = [f"{key} has {value}, not {expected.get(key)}" for key, value in others.items()]
    missing = len(expected) - len(values)
    return wrong + ([] if missing == failed else [f"{missing} configurations have no value"])
