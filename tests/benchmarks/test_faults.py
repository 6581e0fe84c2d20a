"""`make faults`: its checks detect a loss, its table shows it, and a quick round loses nothing."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FAULTS = ROOT / "benchmarks/faults"


@pytest.fixture
def part(monkeypatch):
    """Imports a module of benchmarks/faults."""
    monkeypatch.syspath_prepend(FAULTS)

    def load(name):
        return __import__(name)

    return load


def test_a_loss_is_in_the_table_and_the_rest_of_the_document_is_unchanged(part, tmp_path):
    report, bench = part("report"), part("bench")
    rows = [bench.Row("kill -9", "3", "all intact"), bench.Row("flipped bit", "2", "refused", ["last.ckpt | epoch"])]
    results = report.Results(tmp_path / "results.json", {"seed": 0})
    results.add("some", [*rows, bench.Row("full disk", "0", "no tmpfs", tried=False)], 1.5)
    document = tmp_path / "page.md"
    begin, end = report.MARKS
    document.write_text(f"before\n{begin}\nold\n{end}\nafter\n")
    report.rewrite(document, report.markdown(results, "make faults", 2))
    text = document.read_text()
    assert text.startswith("before\n")
    assert text.endswith(f"{end}\nafter\n")
    assert "old" not in text
    assert "lost in total: 1." in text
    assert "| kill -9 | 3 | all intact | nothing | 2 |" in text
    assert "| flipped bit | 2 | refused | 1: last.ckpt / epoch |  |" in text
    assert "| full disk | 0 | no tmpfs | not tried here |  |" in text


def test_saved_results_are_used_only_with_the_same_settings(part, tmp_path):
    report, bench = part("report"), part("bench")
    path, settings = tmp_path / "results.json", {"seed": 0, "source": "abc"}
    report.Results(path, settings).add("fits", [bench.Row("kill -9", "3")], 1.0)
    assert list(report.Results(path, settings).kinds) == ["fits"]
    assert not report.Results(path, {**settings, "source": "abd"}).kinds


@pytest.mark.slow
def test_a_run_with_another_seed_is_detected_as_different(litlab, part, tmp_path):
    runs, uris = part("runs"), [f"sqlite:///{tmp_path}/{name}/mlflow.db" for name in ("one", "two", "three")]
    fit = ["fit", "digits-mlp", "--trainer.max_epochs", "1"]
    ids = [
        litlab(*fit, "--seed_everything", seed, "--tracking_uri", uri).run_id
        for seed, uri in zip("001", uris, strict=True)
    ]
    assert runs.differences(uris[1], ids[1], uris[0], ids[0]) == []
    differences = " ".join(runs.differences(uris[2], ids[2], uris[0], ids[0]))
    for what in (
        "metric values in MLflow",
        "metrics.jsonl",
        "best.ckpt: different state_dict",
        "last.ckpt: different litlab",
    ):
        assert what in differences


@pytest.mark.slow
def test_a_quick_round_of_all_kinds_loses_nothing(tmp_path):
    before = (ROOT / "docs/RELIABILITY.md").read_text()
    command = [sys.executable, str(FAULTS / "run.py"), "--quick", "--folder", str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=1500, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "lost in total: nothing" in done.stdout
    assert (ROOT / "docs/RELIABILITY.md").read_text() == before, "only a complete call writes the table"
