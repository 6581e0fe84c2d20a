"""`litlab compare`: rows, intervals, notes and every output format, of runs written by MLflow's client."""

import csv
import io
import itertools
import json
import subprocess
import sys

import pytest
from scipy import stats

from pipelines.tracking.tags import PARENT_TAG

SAME = {"model": "modules.mlp.MLP", "model.hidden": "[32]", "data.n_train": "200"}
ACCURACIES = {"0.0": (0.92, 0.93, 0.91), "0.3": (0.95, 0.97, 0.96), "0.5": (0.951, 0.967, 0.958)}


@pytest.fixture(autouse=True)
def uri(uri, store, monkeypatch) -> str:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store.uri)
    return store.uri


def test_runs_that_differ_only_in_the_seed_are_one_row_with_the_keys_that_distinguish_it(records, dropouts):
    best, second, worst = records(dropouts)
    assert [row["params"] for row in (best, second, worst)] == [
        {"model.dropout": "0.3"},
        {"model.dropout": "0.5"},
        {"model.dropout": "0.0"},
    ]
    interval = stats.t.interval(0.95, 2, loc=0.96, scale=stats.sem(ACCURACIES["0.3"]))
    assert best["mean"] == pytest.approx(0.96)
    assert best["sd"] == pytest.approx(0.01)
    assert best["ci95"] == pytest.approx(list(interval))
    assert (best["n"], best["seeds"], best["values"]) == (3, ["1", "2", "3"], [0.95, 0.97, 0.96])
    assert (best["experiment"], best["metric"], best["best_epoch"]) == ("dropouts", "test/acc", 2)
    assert (best["seconds"], best["parameters"], best["configurations"]) == (61, 235146, 1)
    assert len(set(best["runs"])) == 3


def test_differences_to_the_best_row_are_paired_by_seed_and_agree_with_scipy(records, dropouts):
    best, *others = records(dropouts)
    assert best["difference"] is None
    for row in others:
        test = stats.ttest_rel(row["values"], best["values"])
        assert row["difference"]["ci95"] == pytest.approx(list(test.confidence_interval(0.95)))
        assert (row["difference"]["n"], row["difference"]["paired"]) == (3, True)
        assert row["difference"]["within_noise"] is bool(test.pvalue >= 0.05)
    assert [row["difference"]["within_noise"] for row in others] == [True, False]


def test_lower_is_better_for_a_loss(records, litlab, dropouts):
    rows = records(dropouts, "--metric", "val/loss")
    assert [row["mean"] for row in rows] == sorted(row["mean"] for row in rows)
    assert rows[0]["params"] == {"model.dropout": "0.3"}
    assert "lower is better" in litlab("compare", dropouts, "--metric", "val/loss").out


def test_the_table_has_a_verdict_on_each_row(litlab, dropouts):
    lines = litlab("compare", dropouts).out.splitlines()
    assert lines[0] == "test/acc of dropouts: 3 rows, higher is better"
    assert lines[1].split()[:3] == ["row", "dropout", "mean"]
    assert "hidden" not in lines[1]
    cells = [line.split() for line in lines[2:5]]
    assert [row[:2] for row in cells] == [["1", "0.3"], ["2", "0.5"], ["3", "0.0"]]
    assert "0.960 ± 0.010" in lines[2]
    assert "0.935 to 0.985" in lines[2]
    for line, verdict in zip(lines[2:5], ("best", "within noise", "worse"), strict=True):
        assert verdict in line
        assert "1 min 1 s" in line
        assert "235,146" in line
    assert "-0.040 ± 0.025" in lines[4]
    assert "pairs" not in lines[4]


@pytest.mark.parametrize("width", ["60", "80", "140"])
def test_a_narrow_terminal_gets_fewer_columns_and_no_truncated_number(litlab, dropouts, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", width)
    out = litlab("compare", dropouts).out
    assert max(map(len, out.splitlines())) <= int(width)
    for text in ("0.960 ± 0.010", "-0.040 ± 0.025", "within noise"):
        assert text in out
    assert ("no room for parameters" in out) is (width != "140")


def test_keys_that_do_not_fit_one_column_each_share_a_folded_column(litlab, write, monkeypatch):
    for number in range(3):
        params = {f"model.a_rather_long_key_{key}": f"value {number}" for key in "abcdef"}
        write("folded", params, test__acc=0.9 + number / 100)
    monkeypatch.setenv("COLUMNS", "80")
    out = litlab("compare", "folded").out
    assert max(map(len, out.splitlines())) <= 80
    assert "configuration" in out
    for key in "abcdef":
        assert f"key_{key}=value" in " ".join(out.split())


def test_a_table_that_is_written_to_a_file_has_all_columns(dropouts, uri, tmp_path, monkeypatch):
    monkeypatch.delenv("COLUMNS")
    program = f"from pipelines.cli import main; main(['compare', {dropouts!r}])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "parameters" in done.stdout


def test_tiny_losses_are_not_printed_as_zero(litlab, write):
    for seed, loss in enumerate((2.1e-12, 2.5e-12), 1):
        write("tiny", SAME, seed, test__acc=None, test__loss=loss)
    assert "2.30e-12 ± 2.83e-13" in litlab("compare", "tiny").out


def test_values_that_look_like_markup_are_printed_unchanged(litlab, write):
    for activation in ("[red]", "[/bold]"):
        write("marked", {"model.activation": activation})
    out = litlab("compare", "marked").out
    assert "[red]" in out
    assert "[/bold]" in out


def test_a_table_has_at_most_40_rows_and_the_number_of_the_others(litlab, records, write):
    for number in range(43):
        write("long", {"model.width": str(number)}, test__acc=number / 100)
    out = litlab("compare", "long").out
    assert "43 rows" in out
    assert "3 more rows" in out
    assert len(out.splitlines()) == 1 + 1 + 40 + 2  # title, header, footnote, number of further rows
    assert len(records("long")) == 43
    assert len(litlab("compare", "long", "--format", "csv").out.splitlines()) == 1 + 43
    assert litlab("compare", "long", "--format", "md").out.count("\n|") == 2 + 43


def test_csv_and_json_have_the_same_values(litlab, records, dropouts):
    rows = list(csv.DictReader(io.StringIO(litlab("compare", dropouts, "--format", "csv").out)))
    for line, row in zip(rows, records(dropouts), strict=True):
        assert line["params.model.dropout"] == row["params"]["model.dropout"]
        assert (float(line["mean"]), float(line["sd"]), int(line["n"])) == (row["mean"], row["sd"], row["n"])
        assert [float(line["ci95_low"]), float(line["ci95_high"])] == row["ci95"]
        assert line["runs"].split() == row["runs"]
        assert [float(value) for value in line["values"].split()] == row["values"]
        if row["difference"]:
            assert float(line["difference"]) == row["difference"]["mean"]
            assert line["difference_within_noise"] == str(row["difference"]["within_noise"])
        else:
            assert line["difference"] == line["difference_paired"] == ""


def test_markdown_has_the_same_number_of_cells_in_each_line_and_escapes_pipes(litlab, write):
    for text in ("a|b", "c|d"):
        write("piped", {"model.note": text})
    table = [line for line in litlab("compare", "piped", "--format", "md").out.splitlines() if line.startswith("|")]
    assert len(table) == 4
    assert {line.replace("\\|", "").count("|") for line in table} == {table[0].count("|")}
    assert "a\\|b" in "".join(table)


def test_of_runs_that_repeat_a_seed_only_the_latest_counts(records, litlab, write):
    for acc in (0.5, 0.9):
        write("again", SAME, 1, test__acc=acc)
    write("again", SAME, 2, test__acc=0.7)
    (row,) = records("again")
    assert sorted(row["values"]) == [0.7, 0.9]
    outcome = litlab("compare", "again", "--format", "json")
    assert "litlab: note: 1 run is left out: a later run has the same configuration and seed" in outcome.err


def test_runs_without_the_metric_are_left_out_with_a_note(litlab, records, write):
    write("lacking", SAME, 1, test__acc=0.8)
    write("lacking", SAME, 2, test__acc=None)
    write("lacking", SAME, 3, test__acc=float("nan"))
    assert records("lacking")[0]["n"] == 1
    assert "2 runs are left out: finished, but without a finite test/acc" in litlab("compare", "lacking").err


def test_a_metric_that_no_run_has_is_refused_with_suggestions(litlab, dropouts):
    outcome = litlab("compare", dropouts, "--metric", "test/ac")
    assert (outcome.code, outcome.out) == (2, "")
    assert "none of 9 finished runs has a finite test/ac; available metrics: test/acc" in outcome.err


def test_runs_that_litlab_did_not_write_are_compared_without_pairs(litlab, records, write):
    for C, accuracies in {"1": (0.90, 0.91), "10": (0.80, 0.82), "100": (0.7,)}.items():
        for acc in accuracies:
            write("foreign", {"C": C}, test__acc=None, accuracy=acc, fit_seconds=None, parameters=None)
    rows = records("foreign", "--metric", "accuracy")
    assert [(row["params"]["C"], row["n"]) for row in rows] == [("1", 2), ("10", 2), ("100", 1)]
    assert [row["difference"]["paired"] for row in rows[1:]] == [False, False]
    assert (rows[0]["seconds"], rows[2]["sd"], rows[2]["ci95"], rows[2]["difference"]["ci95"]) == (None,) * 4
    lines = litlab("compare", "foreign", "--metric", "accuracy").out.splitlines()
    assert "parameters" not in lines[1]
    assert " *  worse" in lines[3]
    assert " *  n too small" in lines[4]
    assert lines[5].startswith("* not in pairs")


def test_runs_on_other_data_are_separate_rows_and_not_ranked_with_one_another(litlab, records, write):
    for digest in ("1" * 64, "2" * 64):
        write("data", SAME, 1, {"data.sha256.test": digest})
    rows = records("data")
    assert {row["params"]["data.sha256"] for row in rows} == {"11111111", "22222222"}
    assert {row["data_set"] for row in rows} == {"test set 11111111", "test set 22222222"}
    assert [(row["row"], row["difference"]) for row in rows] == [(1, None), (2, None)]
    assert "the runs are on 2 data sets, which are ranked separately" in litlab("compare", "data").err


def test_by_makes_one_row_per_value_and_pairs_runs_that_agree_in_all_other_keys(records, litlab, write):
    accuracies = {}
    for n_train, dropout, seed in itertools.product(("200", "800"), ("0.0", "0.5"), (1, 2)):
        acc = 0.5 + int(n_train) / 4000 + float(dropout) / 5 + seed / 70 + seed * int(n_train) * float(dropout) / 1e5
        accuracies[n_train, dropout, seed] = acc
        tags = {"data.sha256.train": n_train * 8}  # follows from the key
        write("by", {"data.n_train": n_train, "model.dropout": dropout}, seed, tags, test__acc=acc)
    full, few = records("by", "--by", "n_train")
    assert [row["params"] for row in (full, few)] == [{"data.n_train": "800"}, {"data.n_train": "200"}]
    assert (full["n"], full["configurations"]) == (4, 2)
    rest = [key[1:] for key in accuracies if key[0] == "200"]
    pairs = [[accuracies[n_train, *key] for key in rest] for n_train in ("200", "800")]
    assert few["difference"]["ci95"] == pytest.approx(list(stats.ttest_rel(*pairs).confidence_interval(0.95)))
    assert (few["difference"]["n"], few["difference"]["paired"]) == (4, True)
    assert "configurations" in litlab("compare", "by", "--by", "data.n_train").out.splitlines()[1]
    both = records("by", "--by", "data.n_train", "--by", "model.dropout")
    assert both == records("by", "--by", "n_train", "dropout")
    assert len(both) == 4


def test_the_number_of_pairs_is_printed_if_it_is_less_than_n(litlab, write):
    for dropout, seeds in (("0.0", (1, 2)), ("0.5", (1, 2, 3))):
        for seed in seeds:
            acc = 0.9 - float(dropout) / 10 + (1 + float(dropout) / 100) * seed**2 / 100
            write("fewer", {"model.dropout": dropout}, seed, test__acc=acc)
    lines = litlab("compare", "fewer").out.splitlines()
    assert "-0.04988 ± 0.00095 (2 pairs)" in lines[3]


def test_by_does_not_treat_runs_on_other_data_as_repeats(records, write):
    for dropout, digest, seed in itertools.product(("0.0", "0.5"), "12", (1, 2)):
        tags = {"data.sha256.test": digest * 64}
        write("apart", {"model.dropout": dropout}, seed, tags, test__acc=float(dropout) + int(digest) / 10 + seed / 99)
    rows = records("apart", "--by", "dropout")
    assert [row["n"] for row in rows] == [4, 4]
    assert (rows[1]["difference"]["n"], rows[1]["difference"]["paired"]) == (4, True)


def test_by_notes_other_keys_in_which_the_rows_differ(litlab, write):
    for dropout, lr in (("0.0", "0.1"), ("0.5", "0.2")):
        write("more", {"model.dropout": dropout, "model.lr": lr}, 1)
    assert (
        "the rows differ in more than model.dropout: also in model.lr"
        in litlab("compare", "more", "--by", "dropout").err
    )


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--by", "dropuot"], "--by dropuot: no run has such a key; did you mean model.dropout?"),
        (["--filtr", "x"], "unknown option --filtr: did you mean --filter?"),
        (["--metr=test/acc"], "unknown option --metr: did you mean --metric?"),
        (["--format", "xml"], "--format: invalid choice: 'xml'"),
        (["--metric"], "--metric: expected one argument"),
        (["--filter", "nonsense"], "--filter nonsense: Invalid clause(s) in filter string: 'nonsense'"),
        (["--filter", "metrics.test/acc > 2"], "there is no finished run in dropouts with metrics.test/acc > 2"),
        (["droputs"], "'droputs' is not an experiment, study or run in"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_mistake_exits_with_2_and_one_line_with_a_suggestion(litlab, dropouts, args, message):
    outcome = litlab("compare", dropouts, *args)
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith(f"litlab: {message}")
    assert len(outcome.err.splitlines()) == 1


def test_filters_may_stand_between_names(records, dropouts, write):
    write("between", {**SAME, "model.dropout": "0.3"}, 1, test__acc=0.1)
    rows = records(dropouts, "--filter", "params.model.dropout = '0.3'", "between")
    assert [(row["experiment"], row["n"]) for row in rows] == [("dropouts", 3), ("between", 1)]


def test_compare_and_report_take_the_filters_of_runs(records, litlab, write, tmp_path):
    for seed, course in enumerate(("a", "a", "b")):
        write("tagged", SAME, seed, {"course": course, "mlflow.user": f"user {course}"}, test__acc=0.5)
    assert records("tagged", "--tag", "course=a")[0]["n"] == 2
    assert records("tagged", "--user", "user b")[0]["n"] == 1
    assert (
        records("tagged", "--since", "1970-01-01", "--tag=course=a", "--filter", "metrics.test/acc > 0.1")[0]["n"] == 2
    )
    assert "there is no finished run in tagged" in litlab("compare", "tagged", "--since", "2100-01-01").err
    assert "--tag course: give a key and a value" in litlab("report", "tagged", "--tag", "course").err
    page = tmp_path / "page.html"
    assert litlab("report", "tagged", "--tag", "course=b", "--out", page).code == 0
    assert "course" in page.read_text()


def test_the_id_of_a_summary_run_compares_the_runs_that_it_summarises(records, store, write):
    parent = write("stands", {}, tags={PARENT_TAG: "seeds"}, test__acc=0.1)
    for seed in (1, 2):
        write("stands", SAME, seed, {"mlflow.parentRunId": parent}, test__acc=0.8)
    (row,) = records(parent)
    assert (row["n"], row["mean"]) == (2, 0.8)


@pytest.mark.slow
def test_compare_imports_neither_torch_nor_matplotlib(dropouts):
    heavy = ["torch", "lightning", "torchvision", "torchmetrics", "optuna", "matplotlib", "sklearn"]
    program = (
        "import sys; from pipelines.cli import main\n"
        f"code = main(['compare', {dropouts!r}])\n"
        f"print(code, [name for name in {heavy} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.stdout.splitlines()[-1], done.stderr) == ("0 []", "")
    assert "within noise" in done.stdout


def test_two_seeds_of_a_real_experiment_are_one_row(litlab, records):
    runs = [litlab("fit", "digits-mlp", "--trainer.max_epochs", "1", "--seed_everything", str(seed)) for seed in (0, 1)]
    (row,) = records("digits-mlp")
    assert set(row["runs"]) == {run.run_id for run in runs}
    assert (row["seeds"], row["n"], row["params"]) == (["0", "1"], 2, {})
    assert 0 < row["mean"] <= 1
    assert row["parameters"] > 1000
    assert row["seconds"] > 0


def test_figures_and_table_are_saved_in_a_folder_and_a_run(litlab, store, dropouts, tmp_path):
    outcome = litlab("compare", dropouts, "--plot", tmp_path / "plots", "--format", "json")
    assert outcome.code == 0, outcome.err
    assert len(json.loads(outcome.out)) == 3
    printed = dict(line.split(maxsplit=1) for line in outcome.err.splitlines() if line.startswith(("figures ", "run ")))
    assert printed["figures"] == str(tmp_path / "plots")
    assert {path.suffix for path in (tmp_path / "plots").iterdir()} >= {".png", ".svg"}
    run = store.client.get_run(printed["run"])
    assert run.info.status == "FINISHED"
    assert run.data.tags["litlab.command"].startswith("litlab compare dropouts --plot ")
    assert len(litlab("compare", dropouts, "--format", "csv").out.splitlines()) == 4


def test_a_run_that_finished_after_its_node_was_lost_is_left_out_with_a_note(records, litlab, write):
    lost = {"trial.state": "FAIL", "litlab.reason": "node seven: its agent died, or the node"}
    late = write("late", SAME, 1, tags=lost, test__acc=0.2)
    again = write("late", SAME, 1, test__acc=0.9)
    search, failed = {"study": "late", "stage": "search", "trial": "3"}, {"trial.state": "FAIL"}
    write("late", {**SAME, "model.lr": "0.1"}, 1, tags={**search, **lost}, test__acc=0.3)
    seed = write("late", {**SAME, "model.lr": "0.2"}, 1, tags={**search, **failed}, test__acc=0.8)
    assert [row["runs"] for row in records("late")] == [[again], [seed]], "the seeds of a failed trial count"
    reason = "left out: finished, but after a node was lost and the training was given to another run"
    assert f"note: 2 runs are {reason}" in litlab("compare", "late").err
    named = litlab("compare", late, again, "--format", "csv")
    assert f"note: 1 run is {reason}" in named.err
    assert len(named.out.splitlines()) == 2, "the header and one row"


def test_the_mode_decides_what_is_better(records, litlab, dropouts):
    rows = records(dropouts, "--metric", "test/acc", "--mode", "min")
    assert [row["mean"] for row in rows] == sorted(row["mean"] for row in rows)
    assert "higher is better" in litlab("compare", dropouts, "--metric", "val/loss", "--mode", "max").out
    assert litlab("compare", dropouts, "--mode", "up").code == 2


@pytest.mark.parametrize(
    ("metrics", "tags", "chosen"),
    [
        ({"test_acc": 0.5, "test_loss": 0.1, "selected/val_acc": 0.5}, {}, "test_acc"),
        ({"test_loss": 0.1, "test_f1": 0.5, "selected__val/acc": 0.5}, {}, "test_loss"),
        ({"iou": 0.5, "selected/val_iou": 0.5}, {"litlab.test_metrics": '["iou"]'}, "iou"),
        ({"selected/val_iou": 0.5, "selected/train_loss": 0.1, "lr": 0.1}, {}, "selected/val_iou"),
        ({"selected/acc": 0.5}, {}, "selected/acc"),
        ({"test_acc": 0.5, "selected/val/acc": 0.5}, {}, "test_acc"),
        ({"test/loss": 0.5, "test/knn_acc": 0.5, "selected/val/loss": 0.5}, {}, "test/loss"),
    ],
)
def test_without_a_metric_runs_are_compared_by_their_test_and_else_by_what_was_selected(
    records, write, metrics, tags, chosen, request
):
    name = f"other {request.node.callspec.id.replace('/', ' ')[:40]}"
    name = "".join(char if char.isalnum() else "-" for char in name)
    write(name, SAME, 0, tags=tags, test__acc=None, **metrics)
    assert records(name)[0]["metric"] == chosen
