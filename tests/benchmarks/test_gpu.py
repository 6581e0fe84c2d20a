"""`make gpu`: it runs in small on a CPU, a failure or a time limit does not stop the rest, tables have the results."""

import importlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

ROOT = Path(__file__).parents[2]
BENCHMARKS = ROOT / "benchmarks"


@pytest.fixture
def part(monkeypatch):
    """Imports a module of benchmarks/gpu_parts."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    return lambda name: __import__(f"gpu_parts.{name}", fromlist=[name])


@pytest.fixture
def place(part, tmp_path):
    return part("place").Place("cpu", True, tmp_path / "data", tmp_path, tmp_path / "results.jsonl")


def dry(tmp_path, *options):
    command = [sys.executable, str(BENCHMARKS / "gpu.py"), "--dry", "--out", str(tmp_path / "out"), *options]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=1500, check=False)
    log = (tmp_path / "out" / "log.txt").read_text()
    assert done.returncode == 0, done.stdout + done.stderr + log
    return [json.loads(line) for line in (tmp_path / "out" / "results.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_a_part_runs_in_small_on_a_cpu(tmp_path):
    results = dry(tmp_path, "--parts", "e")
    names = [result["name"] for result in results if result["job"] == "usage"]
    loops = ("raw eager", "raw captured", "litlab")
    assert names == [*(f"{name}, {loop}" for name in ("mnist-mlp", "cifar-resnet9") for loop in loops), "process"]


def test_stacks_run_in_small_on_a_cpu(part, place):
    part("data").prepare(place.data_dir, place.folder, dry=True)
    part("stacks").floors(place, "stacked floors")
    part("stacks").stacks(place, "stacks")
    results = part("table").read_results(place.results)
    assert not [result["error"] for result in results if not result["ok"]]
    assert {result["models"] for result in results} == {1, 2}
    assert all(result["ms"] > 0 for result in results)


@pytest.mark.slow
def test_everything_runs_in_small_on_a_cpu(part, tmp_path):
    results = dry(tmp_path, "--parts", ",".join(part("jobs").PARTS))
    assert {result["job"] for result in results} == {"machine", *part("jobs").JOBS}
    assert "litlab / eager" in (tmp_path / "out" / "table.txt").read_text()


def test_one_run_takes_at_most_eight_minutes(part, monkeypatch):
    """If all limits are reached, the parts that run by default end by the limit of all, or by their own."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    jobs, gpu = part("jobs"), importlib.import_module("gpu")
    limits = {name: part.limit_s for name, part in jobs.PARTS.items()}
    assert sum(limits[name] for name in jobs.DEFAULT_PARTS) <= 480
    assert limits["c"] + limits["d"] <= 480
    assert gpu.LIMIT_S <= 480


def test_the_pack_leaves_out_what_the_gpu_machine_has_and_what_its_tests_do_not_import(tmp_path):
    (tmp_path / "installed.txt").write_text("scipy\npandas\n")
    command = ["bash", str(BENCHMARKS / "pack_gpu.sh"), "--names", str(tmp_path / "installed.txt")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    names = {line.partition("==")[0].lower() for line in done.stdout.splitlines()}
    assert {"mlflow", "optuna", "jsonargparse"} <= names
    assert not {"ray", "torch", "jupytext", "ipykernel", "playwright", "foolbox", "scipy", "pandas"} & names


def test_neither_a_failure_nor_a_time_limit_stops_the_rest(part, place):
    jobs = part("jobs")
    limits = {"no such job": 100.0, "usage": 0.2, "sweep": 0.0}
    jobs.run_part(jobs.Part("some", False, limits), _timed(place), time.monotonic() + 100)
    results = part("table").read_results(place.results)
    assert [(result["job"], result["error"]) for result in results] == [
        ("no such job", "exit code 2"),
        ("usage", "stopped after 0 s"),
        ("sweep", "no time was left"),
    ]


def _timed(place):
    """Return a place whose jobs have time limits: a dry run has none."""
    return type(place)("cpu", False, place.data_dir, place.folder, place.results)


def test_an_error_in_a_job_is_saved_and_the_job_continues(place):
    with place.attempt("raw", "first") as values:
        values["epochs"] = [1.0]
        raise ValueError("no memory")
    with place.attempt("raw", "second"):
        pass
    first, second = (json.loads(line) for line in place.results.read_text().splitlines())
    assert (first["ok"], first["epochs"]) == (False, [1.0])
    assert "ValueError: no memory" in first["error"]
    assert second["ok"]


@pytest.mark.slow
def test_airbench_runs_in_small_and_its_script_is_left_out_where_it_is_missing(tmp_path):
    results = dry(tmp_path, "--parts", "c")
    trained = [result for result in results if "accuracy" in result]
    assert [result["name"] for result in trained] == ["cifar-airbench, seed 0", "cifar-airbench, seed 0, CudaGraph"]
    assert all(len(result["epochs"]) == 2 for result in trained)
    (note,) = [result["note"] for result in results if result["job"] == "airbench script" and "note" in result]
    assert note == "no airbench94_muon.py and CIFAR-10 in --data-dir"


def test_the_seconds_and_accuracies_of_the_other_script_are_read_from_its_table(part, place, tmp_path):
    airbench, data = part("airbench"), part("data")
    data.prepare(place.data_dir, tmp_path, dry=True)
    (place.data_dir / data.REAL).unlink()
    (place.data_dir / data.REAL).symlink_to(place.data_dir, target_is_directory=True)
    row = "|  {}  |  eval  |  0.9  |  0.8  |  0.94{}  |  2.5{}  |"
    lines = [row.format(name, number, number) for number, name in enumerate(("warmup", *range(9)))]
    checks = "import torch; images = torch.load('cifar10/train.pt')['images']; assert images.shape == (400, 32, 32, 3)"
    (place.data_dir / "airbench94_muon.py").write_text(f"{checks}\nprint({chr(10).join(lines)!r}, flush=True)\n")
    airbench.script(place, "airbench script")
    results = [result for result in part("table").read_results(place.results) if "accuracy" in result]
    assert [(result["accuracy"], result["steps"]) for result in results] == [
        (pytest.approx(0.94 + number / 1000), pytest.approx(2.5 + number / 100)) for number in range(1, 6)
    ]


def test_the_table_has_medians_without_the_first_epoch_and_every_error(part, tmp_path):
    table = part("table")
    timed = {"experiment": "mnist-mlp", "precision": "32-true", "ok": True, "seconds": 9}
    results = [
        {"job": "raw", "name": "", **timed, "variant": "raw, eager", "epochs": [5.0, 0.2, 0.1, 0.3]},
        {"job": "litlab", "name": "", **timed, "variant": "litlab", "epochs": [5.0, 0.5]},
        {"job": "sweep", "name": "sweep", "ok": False, "error": "exit code 1: [red]", "seconds": 3},
    ]
    with (tmp_path / "table.txt").open("w") as file:
        assert not table.show(results, Console(file=file, width=150))
    text = (tmp_path / "table.txt").read_text()
    row = next(line.split() for line in text.splitlines() if line.startswith("mnist-mlp"))
    assert row == ["mnist-mlp", "32-true", "0.200", "0.500", "2.50"]
    assert "failed: sweep, sweep: exit code 1: [red]" in text
