"""Metrics of the machine and of a training's processes, sampled by the writer of a run, under MLflow's names.

They are part of the run's log as every metric is. MLflow's UI shows them in the tab "System metrics" of a run.
"""

import contextlib
import importlib
import importlib.util
import os
import shutil
import threading
from collections.abc import Callable
from typing import Any

from pipelines.runtime.errors import UserError
from pipelines.runtime.text import first_line
from pipelines.tracking.mlflow_internals import system_monitors
from pipelines.tracking.tags import SYSTEM

INTERVAL_VARIABLE = "MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL"  # seconds
SAMPLES_VARIABLE = "MLFLOW_SYSTEM_METRICS_SAMPLES_BEFORE_LOGGING"  # of which the mean is logged
INTERVAL_S = 10.0  # between two samples, unless INTERVAL_VARIABLE is set
FIRST_S = 1.0  # until the first sample, so that a short run has one
Report = Callable[..., None]


def check_available() -> None:
    """Check that system metrics can be measured.

    Raises:
        UserError: psutil is missing.
    """
    if importlib.util.find_spec("psutil") is None:
        raise UserError("--system_metrics needs psutil: pip install psutil, and nvidia-ml-py for GPUs of NVIDIA")


class Sampler(threading.Thread):
    """Samples until `stop`. A failure is a warning, and ends the samples only.

    Args:
        pid: The process that trains; its child processes count too.
        report: Called with `system=VALUES` for each sample, and with `warning=TEXT` or `info=TEXT` for the user.
    """

    def __init__(self, pid: int, report: Report) -> None:
        super().__init__(name="litlab-system-metrics", daemon=True)
        self._pid, self._report, self._stopped = pid, report, threading.Event()

    def stop(self) -> None:
        """Take no more samples."""
        self._stopped.set()

    def run(self) -> None:
        try:
            self._sample()
        except Exception as error:  # whatever a library raises on some machine
            self._report(warning=f"system metrics are not measured any more: {first_line(error)[:300]}")

    def _sample(self) -> None:
        interval = float(os.environ.get(INTERVAL_VARIABLE) or INTERVAL_S)
        samples = int(os.environ.get(SAMPLES_VARIABLE) or 1)
        monitors, missing = system_monitors()
        if missing and shutil.which("nvidia-smi"):
            self._report(info=f"no system metrics of GPUs: {first_line(missing)}")
        processes = _Processes(self._pid)
        for monitor in monitors:  # CPU time is measured between two calls
            monitor.collect_metrics()
            monitor.clear_metrics()
        pause, taken = min(FIRST_S, interval), 0
        while not self._stopped.wait(pause):
            pause, taken = interval, taken + 1
            for monitor in monitors:
                monitor.collect_metrics()
            if taken % samples and taken > 1:  # the first one is logged at once
                continue
            values = processes.measure()
            for monitor in monitors:
                values |= monitor.aggregate_metrics()
                monitor.clear_metrics()
            self._report(system={f"{SYSTEM}/{name}": float(value) for name, value in values.items()})


class _Processes:
    """CPU and memory of a process and the processes that it started, without this one."""

    def __init__(self, pid: int) -> None:
        self._psutil: Any = importlib.import_module("psutil")
        self._root = self._psutil.Process(pid)
        self._known: dict[int, Any] = {}
        self.measure()

    def measure(self) -> dict[str, float]:
        """Return CPU in per cent of one core since the last call, and memory in megabytes."""
        cpu = memory = 0.0
        alive = {}
        for process in [self._root, *self._root.children(recursive=True)]:
            if process.pid == os.getpid() and process.pid != self._root.pid:
                continue
            known = self._known.get(process.pid)
            alive[process.pid] = known if known == process else process
            with contextlib.suppress(self._psutil.Error):  # it has just ended
                cpu += alive[process.pid].cpu_percent()
                memory += alive[process.pid].memory_info().rss / 1e6
        self._known = alive
        return {"process_cpu_utilization_percentage": round(cpu, 1), "process_memory_usage_megabytes": round(memory, 1)}
