"""`litlab compare`: the row that others are compared with, bounded intervals, and the table on a terminal."""

import pytest

from pipelines.config.known_keys import KnownKeys
from pipelines.tracking.store import Store


@pytest.fixture(autouse=True)
def uri(uri, store, monkeypatch) -> str:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store.uri)
    return store.uri


@pytest.fixture
def lucky(write, store: Store) -> str:
    """One run that is better than two configurations of three seeds each."""
    if store.client.get_experiment_by_name("lucky") is None:
        for width, accuracies in {"9": (0.99,), "8": (0.95, 0.97, 0.96), "7": (0.91, 0.92, 0.93)}.items():
            for seed, acc in enumerate(accuracies, 1):
                write("lucky", {"model.width": width}, seed, test__acc=acc)
    return "lucky"


def test_rows_of_three_seeds_are_compared_with_each_other_if_the_best_row_has_one(records, litlab, lucky):
    best, second, third = records(lucky)
    assert (best["n"], best["baseline"], best["difference"]["ci95"]) == (1, 2, None)
    assert (second["difference"], second["baseline"]) == (None, None)
    assert (third["baseline"], third["difference"]["n"], third["difference"]["within_noise"]) == (2, 3, False)
    lines = litlab("compare", lucky).out.splitlines()
    for line, verdict in zip(lines[2:5], ("n too small", "baseline", "worse"), strict=True):
        assert verdict in line
    assert "differences are to row 2 (the best one has a single run)" in lines


def test_the_best_trial_of_a_search_is_named_as_such_and_compared_with_the_confirmed_runs(litlab, write):
    for seed, (acc, stage) in enumerate(((0.99, "search"), (0.9, "confirm"), (0.91, "confirm"))):
        write("lucky trial", {"model.width": "1"}, seed + 1, {"stage": stage}, test__acc=acc)
    write("lucky trial", {"model.width": "2"}, 1, {"stage": "search"}, test__acc=0.8)
    lines = litlab("compare", "lucky trial").out.splitlines()
    assert "best trial" in lines[2]
    assert "baseline" in lines[3], "the confirmed runs"
    write("trials", {"model.width": "1"}, 1, {"stage": "search"}, test__acc=0.8)
    write("trials", {"model.width": "2"}, 1, {"stage": "search"}, test__acc=0.7)
    assert "best trial" in litlab("compare", "trials", "--by", "stage", "width").out


def test_a_baseline_is_a_row_s_number_or_the_id_or_the_name_of_a_run(records, litlab, lucky, store):
    run_id = records(lucky)[2]["runs"][1]
    store.client.set_tag(run_id, "mlflow.runName", "seven units")
    by_number = records(lucky, "--baseline", "3")
    assert [row["baseline"] for row in by_number] == [3, 3, None]
    assert by_number[1]["difference"]["mean"] == pytest.approx(0.04)
    for name in (run_id, run_id[:12], "seven units"):
        assert records(lucky, "--baseline", name) == by_number
    lines = litlab("compare", lucky, "--baseline", "3").out.splitlines()
    assert [word in line for line, word in zip(lines[2:5], ("n too small", "better", "baseline"), strict=True)]
    assert "differences are to row 3" in lines


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("4", "--baseline 4: the rows are 1 to 3"),
        ("0", "--baseline 0: the rows are 1 to 3"),
        ("nothing", "--baseline nothing: no row has this run; give a row's number (1 to 3) or a run of it"),
        ("lucky", "--baseline lucky: rows 1, 2, 3 have such a run; give the row's number"),
    ],
)
def test_a_baseline_that_is_no_row_is_refused(litlab, lucky, text, message):
    outcome = litlab("compare", lucky, "--baseline", text)
    assert (outcome.code, outcome.err) == (2, f"litlab: {message}\n")


def test_a_run_of_unknown_data_is_compared_with_those_on_the_only_data_set(records, write):
    known = {"data": "datamodules.digits.Digits", "model.width": "1"}
    for seed in (1, 2):
        write("unknown", known, seed, {"data.sha256.test": "1" * 64}, test__acc=0.9)
    write("unknown", {"data": "datamodules.digits.Digits", "model.width": "2"}, 1, test__acc=0.8)
    write("unknown", {"model.width": "3"}, 1, test__acc=0.7)
    assert [(row["data_set"], row["baseline"]) for row in records("unknown")] == [(None, None), (None, 1), (None, 1)]
    write("unknown", {**known, "model.width": "4"}, 1, {"data.sha256.test": "2" * 64}, test__acc=0.95)
    names = {row["params"]["model.width"]: row["data_set"] for row in records("unknown")}
    assert names["1"] == "Digits (test set 11111111)"
    assert names["4"] == "Digits (test set 22222222)"
    assert names["3"] == "unknown data"


def test_the_interval_of_a_proportion_ends_at_1_and_that_of_a_duration_at_0(records, write):
    for seed, (acc, seconds) in enumerate(((0.99, 1.0), (1.0, 9.0), (0.93, 2.0)), 1):
        write("bounds", {"model.width": "1"}, seed, test__acc=acc, fit_seconds=seconds)
    (accuracy,), (duration,) = records("bounds"), records("bounds", "--metric", "fit_seconds")
    assert accuracy["ci95"][1] == 1
    assert 0.87 < accuracy["ci95"][0] < 0.89
    assert duration["ci95"][0] == 0
    assert 14 < duration["ci95"][1] < 15


def test_what_comes_with_another_class_is_left_out_and_what_was_set_is_in_its_cell(litlab, write, monkeypatch):
    adam = {"model.optimizer": "torch.optim.Adam", "model.optimizer.lr": "0.001", "model.optimizer.amsgrad": "false"}
    sgd = {"model.optimizer": "torch.optim.SGD", "model.optimizer.lr": "0.1", "model.optimizer.nesterov": "false"}
    known = KnownKeys(["model.optimizer.lr", "model.optimizer.amsgrad"], [], []).tags()
    write("classes", {**adam, "model.width": "1"}, 1, known, test__acc=0.9)
    write("classes", {**adam, "model.width": "2"}, 1, known, test__acc=0.8)
    write("classes", {**sgd, "model.width": "2"}, 1, KnownKeys(["model.optimizer.nesterov"], [], []).tags())
    monkeypatch.setenv("COLUMNS", "80")
    lines = litlab("compare", "classes").out.splitlines()
    assert lines[1].split()[:4] == ["row", "optimizer", "width", "mean"]
    shown = sorted(" ".join(line.split()[1:4]) for line in lines[2:5])
    assert shown == ["Adam 1 0.9000", "Adam 2 0.8000", "SGD lr=0.1 2"]


def test_a_table_of_two_configurations_fits_80_columns_with_short_run_ids(litlab, records, write, monkeypatch):
    for dropout, seed in ((dropout, seed) for dropout in ("0.2", "0.5") for seed in (1, 2, 3)):
        write("two", {"model.dropout": dropout}, seed, test__acc=0.96 + seed / 321 - float(dropout) * seed / 100)
    monkeypatch.setenv("COLUMNS", "80")
    out = litlab("compare", "two").out
    assert max(map(len, out.splitlines())) <= 80
    for row in records("two"):
        assert row["runs"][0][:8] in out
        assert row["runs"][0] not in out
    long = litlab("compare", "two", "--long").out
    assert all(run_id in long for row in records("two") for run_id in row["runs"])
    assert "parameters" in long


def test_keys_that_share_a_column_name_only_what_most_rows_have_not(litlab, write, monkeypatch):
    for number in range(4):
        params = {"model.first_of_the_long_keys": "usual", "model.second_of_the_long_keys": "usual"}
        params |= {"model.third_of_the_long_keys": "usual", "model.fourth_of_the_long_keys": "usual"}
        write("usual", params | ({list(params)[number]: "changed"} if number else {}), 1, test__acc=0.9 - number / 10)
    monkeypatch.setenv("COLUMNS", "80")
    out = " ".join(litlab("compare", "usual").out.split())
    assert "all others: fourth_of_the_long_keys=usual" in out
    for key in ("second", "third", "fourth"):
        assert out.count(f"{key}_of_the_long_keys=") == 2


def test_latex_has_the_rules_of_booktabs_and_escaped_cells(litlab, write):
    for seed, text in enumerate(("a_b & 5 %", "{c}"), 1):
        write("latex", {"model.some_note": text}, seed, test__acc=0.8 + seed / 100)
    out = litlab("compare", "latex", "--format", "latex").out
    lines = out.splitlines()
    assert [line for line in lines if line.endswith("rule")] == [r"\toprule", r"\midrule", r"\bottomrule"]
    begin = next(line for line in lines if line.startswith(r"\begin{tabular}"))
    cells = [line.removesuffix(r" \\").split(" & ") for line in lines if line.endswith(r"\\")]
    assert {len(row) for row in cells[:1]} == {len(begin) - len(r"\begin{tabular}{}")}
    assert cells[0][:3] == ["row", r"some\_note", r"mean $\pm$ sd"]
    assert r"a\_b \& 5 \%" in out
    assert r"\{c\}" in out
