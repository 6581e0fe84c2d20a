"""System metrics: under MLflow's names in the run's log, never among the metrics of the model."""

import os
import subprocess
import sys
import time

import pytest
from mlflow import MlflowClient

from pipelines.commands.fit import main as fit_command
from pipelines.runtime.errors import UserError
from pipelines.tracking.measured import is_measured
from pipelines.tracking.run import Run
from pipelines.tracking.store import Store
from pipelines.tracking.system_metrics import INTERVAL_VARIABLE, Sampler

pytestmark = pytest.mark.usefixtures("tables")
NAMES = {
    "system/cpu_utilization_percentage",
    "system/system_memory_usage_megabytes",
    "system/disk_usage_percentage",
    "system/network_receive_megabytes",
    "system/process_cpu_utilization_percentage",
    "system/process_memory_usage_megabytes",
}


def until(condition, seconds=30):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "timeout"
        time.sleep(0.02)


@pytest.fixture
def quick(monkeypatch):
    """Sample often, where psutil is installed."""
    pytest.importorskip("psutil", reason="needs the extra `system`")
    monkeypatch.setenv(INTERVAL_VARIABLE, "0.1")


def test_without_psutil_the_command_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "psutil", None)
    with pytest.raises(UserError, match="pip install psutil, and nvidia-ml-py for GPUs"):
        fit_command("fit", ["digits-mlp", "--system_metrics"])


def test_a_run_has_them_beside_its_own_metrics(quick, uri):
    run = Run(Store(), "machine", "one", {}, system_metrics=True)
    run.log_metrics({"val/acc": 0.5}, 0)
    log = run.folder / "metrics.jsonl"
    until(lambda: log.read_text().count("system/") > 2 * len(NAMES))
    mark = run.mark()
    until(lambda: log.stat().st_size > mark)
    run.rewind(mark)
    run.log_metrics({"val/acc": 0.6}, 1)
    run.finish("FINISHED")
    size = log.stat().st_size
    stored = MlflowClient(uri).get_run(run.run_id).data.metrics
    assert stored.keys() >= NAMES
    memory = stored["system/process_memory_usage_megabytes"]
    assert 10 < memory < 1e6
    assert run.history == [(0, {"val/acc": 0.5}), (1, {"val/acc": 0.6})]
    assert [point.step for point in MlflowClient(uri).get_metric_history(run.run_id, "val/acc")] == [0, 1]
    assert not any(map(is_measured, NAMES))
    time.sleep(0.3)
    assert log.stat().st_size == size, "it ends with the run"


def test_they_are_off_by_default(quick, uri):
    run = Run(Store(), "machine", "off", {})
    time.sleep(0.3)
    run.finish("FINISHED")
    assert MlflowClient(uri).get_run(run.run_id).data.metrics == {}


def test_a_failure_is_a_warning(quick):
    ended = subprocess.Popen([sys.executable, "-S", "-c", ""])
    ended.wait()
    reports = []
    sampler = Sampler(ended.pid, lambda **report: reports.append(report))
    sampler.start()
    sampler.join(30)
    assert [list(report) for report in reports if "info" not in report] == [["warning"]]
    assert "not measured any more" in reports[-1]["warning"]


def test_child_processes_count(quick):
    program = "import time; held = b'1' * 200_000_000; print(flush=True); time.sleep(60)"
    samples = []
    sampler = Sampler(os.getpid(), lambda **report: samples.append(report))
    sampler.start()
    until(lambda: samples)
    alone = samples[-1]["system"]["system/process_memory_usage_megabytes"]
    with subprocess.Popen([sys.executable, "-S", "-c", program], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        seen = len(samples)
        until(lambda: len(samples) > seen + 1)
        child.kill()
    sampler.stop()
    assert samples[-1]["system"]["system/process_memory_usage_megabytes"] > alone + 150
