"""A real Ray cluster on loopback: `ray start --block` for each node, in its own processes, which tests may kill."""

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.mlflow_server import free_tcp_port

RAY = Path(sys.executable).with_name("ray")
ROOT = Path(__file__).parents[1]
HEALTH = {"initial_delay_ms": 0, "period_ms": 1000, "timeout_ms": 3000, "failure_threshold": 3}  # a dead node: 12 s
SETTINGS = {
    "RAY_AUTH_MODE": "token",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",
    "RAY_memory_monitor_refresh_ms": "0",
    **{f"RAY_health_check_{name}": str(value) for name, value in HEALTH.items()},
}


class RayNode:
    """A node: the process `ray start --block`, and all that descend from it."""

    def __init__(self, arguments: list[str], environment: dict[str, str], log: Path) -> None:
        with log.open("a") as output:
            command = [sys.executable, str(RAY), "start", *arguments, "--block", "--disable-usage-stats"]
            self._process = subprocess.Popen(
                command, env=environment, stdout=output, stderr=output, cwd=log.parent, start_new_session=True
            )
        self._known: set[int] = set()

    def processes(self) -> list[int]:
        """Return the ids of its processes that are alive, parents first."""
        children = _children()
        tree = [self._process.pid]
        for pid in tree:
            tree += children.get(pid, [])
        self._known |= {*tree}
        return [pid for pid in sorted(self._known) if is_alive(pid)]

    def agents(self) -> list[int]:
        """Return the ids of litlab's agents."""
        return [pid for pid in self.processes() if _command(pid).startswith("ray::LitlabAgent")]

    def trainings(self) -> list[int]:
        """Return the ids of the trainings: children of the fork server of an agent."""
        children = _children()
        servers = [pid for agent in self.agents() for pid in children.get(agent, []) if "forkserver" in _command(pid)]
        return [pid for server in servers for pid in children.get(server, [])]

    def head(self) -> int:
        """Return the id of the process that is the head of the cluster, of its first node."""
        (gcs,) = [pid for pid in self.processes() if "/gcs_server" in _command(pid).partition(" ")[0]]
        return gcs

    def kill(self) -> None:
        """Kill all its processes at once, as a power cut does."""
        self.signal(signal.SIGKILL)
        self._process.wait()

    def signal(self, number: int) -> None:
        for pid in self.processes():
            send(pid, number)


class RayCluster:
    """A head and further nodes at 127.0.0.2 and up, with a token of their own."""

    def __init__(self, folder: Path, cpus: int = 1) -> None:
        self._folder, self._cpus = folder, cpus
        self._temporary = Path(tempfile.mkdtemp(prefix="lr-", dir="/tmp"))  # short paths, for sockets
        self.environment = {**environment_with_litlab(), **SETTINGS, "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        self.address = f"127.0.0.2:{free_tcp_port()}"
        self.nodes: list[RayNode] = []

    def start_head(self) -> RayNode:
        port = self.address.rpartition(":")[2]
        options = ["--head", "--port", port, "--include-dashboard", "false", "--temp-dir", str(self._temporary)]
        node = self._start(options)
        self.wait_for(len(self.nodes))
        return node

    def add_node(self) -> RayNode:
        """Start a further node, without waiting for it."""
        return self._start(["--address", self.address])

    def wait_for(self, number: int, seconds: float = 90) -> None:
        """Wait until so many nodes are alive."""
        program = "import sys, ray; ray.init(sys.argv[1], log_to_driver=False, configure_logging=False)\n"
        program += "print(sum(node['Alive'] for node in ray.nodes()))"
        deadline = time.monotonic() + seconds
        command = [sys.executable, "-c", program, self.address]
        while True:
            done = subprocess.run(command, env=self.environment, capture_output=True, text=True, check=False)
            if done.stdout.strip() == str(number):
                return
            assert time.monotonic() < deadline, done.stdout + done.stderr

    def stop(self) -> None:
        """Kill all nodes."""
        for node in self.nodes:
            node.signal(signal.SIGCONT)
            node.kill()
        shutil.rmtree(self._temporary)

    def _start(self, options: list[str]) -> RayNode:
        own = ["--node-ip-address", f"127.0.0.{len(self.nodes) + 2}", "--num-cpus", str(self._cpus), "--num-gpus", "0"]
        own += ["--object-store-memory", "100000000"]
        self.nodes.append(RayNode([*options, *own], self.environment, self._folder / f"ray-{len(self.nodes)}.log"))
        return self.nodes[-1]


def environment_with_litlab() -> dict[str, str]:
    """Return this process's environment, in which Python finds this litlab from any folder."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


@contextlib.contextmanager
def running_cluster(folder: Path) -> Iterator[RayCluster]:
    """Start two nodes with one CPU each."""
    cluster = RayCluster(folder)
    try:
        cluster.start_head()
        cluster.add_node()
        cluster.wait_for(2)
        yield cluster
    finally:
        cluster.stop()


def send(pid: int, number: int) -> None:
    """Send a signal to a process, if there still is one."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def is_alive(pid: int) -> bool:
    return bool(_stat(pid)) and _stat(pid)[0] != "Z"


def _children() -> dict[int, list[int]]:
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        if fields := _stat(int(folder.name)):
            children.setdefault(int(fields[1]), []).append(int(folder.name))
    return children


def _stat(pid: int) -> list[str]:
    """Return state, parent and further fields of a process; an empty list if there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""
