"""`import litlab`: the verbs as functions, with the runs, errors and tables of the command."""

import ast
import inspect
import pickle
import re
import signal
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path
from types import ModuleType

import pytest

import litlab as lab
from pipelines.runtime.process import process_exists
from pipelines.tracking.store import Store
from pipelines.tracking.tags import COMMAND_TAG, CONFIG_HASH_TAG

SHORT = {"data.n_train": 100, "data.batch_size": 50, "trainer.max_epochs": 2}
WORDS = [word for key, value in SHORT.items() for word in (f"--{key}", str(value))]
MODULES = "tests.fixtures.strangers"
HEAVY = ("torch", "lightning", "mlflow", "pandas", "optuna", "matplotlib", "rich", "jsonargparse")

pytestmark = pytest.mark.usefixtures("tables")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Two finished runs in a store of their own."""
    uri = f"sqlite:///{tmp_path_factory.mktemp('trained') / 'mlflow.db'}"
    return [lab.fit("digits-mlp", overrides=SHORT | {"model.hidden": [n]}, seed=3, tracking_uri=uri) for n in (8, 16)]


def test_importing_litlab_imports_nothing_heavy():
    program = f"import litlab, sys; sys.exit(', '.join(set({HEAVY}) & set(sys.modules)) or None)"
    subprocess.run([sys.executable, "-c", program], check=True, cwd=Path(__file__).parents[2])


def test_each_public_name_exists_and_each_function_has_types_and_a_docstring():
    functions = [getattr(lab, name) for name in lab.__all__]
    for function in functions:
        assert function.__doc__, function
        if inspect.isfunction(function):
            untyped = [one for one in inspect.signature(function).parameters.values() if one.annotation is one.empty]
            assert not untyped, function
    assert set(lab.__all__) <= set(dir(lab))
    with pytest.raises(AttributeError, match="no attribute 'fitt'"):
        lab.fitt  # noqa: B018


def test_a_run_of_python_and_one_of_the_command_are_the_same_and_one_row(litlab, uri):
    words = [*WORDS, "--model.dropout", "0.3", "--seed_everything", "4", "--tag=of=both"]
    other = Store(uri).find(litlab("fit", "digits-mlp", *words).run_id)
    run = lab.fit("digits-mlp", overrides=SHORT | {"model.dropout": 0.3}, seed=4, tags={"of": "both"})
    assert run.params == other.params
    assert run.metrics["test/loss"] == other.metrics["test/loss"]
    assert run.name == other.name
    for tag in (CONFIG_HASH_TAG, COMMAND_TAG, "of", "seed"):
        assert run.tags[tag] == other.tags[tag]
    assert lab.compare("digits-mlp").n.to_list() == [1]  # the later one of two equal runs counts
    assert set(lab.runs("digits-mlp").run_id) == {run.id, other.run_id}


@pytest.mark.parametrize("place", [{"workers": 2}, {"cluster": "local"}, {"gpus": 0.5}], ids=str)
def test_one_fit_refuses_what_is_for_several(place):
    with pytest.raises(lab.UserError, match=f"{next(iter(place))} is for several trainings: it goes with seeds"):
        lab.fit("digits-mlp", **place)


def test_mistakes_of_a_cluster_are_told_by_each_function():
    for call in (partial(lab.sweep, "digits-mlp"), partial(lab.fit, "digits-mlp", seeds=2), lab.reproduce):
        with pytest.raises(lab.UserError, match="--cluster node7: expected local, auto, or HOST:PORT"):
            call(cluster="node7")
        with pytest.raises(lab.UserError, match="--cpus goes with --cluster"):
            call(cpus=2)


def test_a_run_has_its_metrics_history_configuration_figures_files_and_model(trained):
    run, _ = trained
    history = run.history()
    assert history.index.to_list() == [0, 1]
    assert set(history.columns) == {"train/acc", "train/loss", "val/acc", "val/loss"}
    selected = int(run.metrics["selected_epoch"])
    assert run.metrics["val/loss"] == run.metrics["selected/val/loss"] == history["val/loss"][selected]
    assert run.config["model"]["init_args"]["hidden"] == [8]
    assert (run.experiment, run.status, run.seed) == ("digits-mlp", "FINISHED", "3")
    assert run.figures["confusion_matrix"]._repr_png_().startswith(b"\x89PNG")
    assert {"config.yaml", "checkpoints/best.ckpt"} <= set(run.files)
    assert run.figures._repr_html_().count("<img") == len(run.figures) == 3
    assert type(run.model()).__name__ == "MLP"
    assert not run.model().training
    assert f"{run.metrics['test/acc']:.4f}" in run._repr_html_()
    assert run.command.startswith("litlab fit digits-mlp ")
    assert run == lab.load(run.id[:10], tracking_uri=run.tracking_uri)


def test_steps_have_their_own_history(tmp_path, uri):
    path = tmp_path / "steps.yaml"
    path.write_text(f"{{data: {MODULES}.loggers.Data, model: {MODULES}.schedules.Manual}}")
    trainer = {"trainer.max_epochs": 2, "trainer.log_every_n_steps": 1, "trainer.accelerator": "cpu"}
    run = lab.fit(path, overrides=trainer)
    steps = run.history(steps=True)
    assert steps.index.is_monotonic_increasing
    assert steps["epoch"].isin([0, 1]).all()
    assert len(steps) > 2


def test_comparisons_lists_and_differences_are_tables(trained):
    one, other = trained
    table = lab.compare("digits-mlp", tracking_uri=one.tracking_uri)
    assert table["params.model.hidden"].to_list() in (["[8]", "[16]"], ["[16]", "[8]"])
    assert table["mean"].is_monotonic_decreasing
    assert table.attrs["metric"] == "test/acc"
    assert lab.compare(one)["runs"].to_list() == [[one.id]]
    listed = lab.runs(status="finished", tracking_uri=one.tracking_uri)
    assert listed["params.model.hidden"].to_list() == ["[16]", "[8]"]
    assert listed["started"].dt.tz is not None
    assert lab.runs(filter="metrics.test/acc > 2", tracking_uri=one.tracking_uri).empty
    assert table["verdict"].to_list() == ["best", "n too small"]
    details = lab.compare("digits-mlp", details=True, tracking_uri=one.tracking_uri)
    assert {*details.columns} - {*table.columns} >= {"seeds", "values", "baseline"}
    assert [name for name in listed if name.startswith("params.")] == ["params.model.hidden"]
    assert listed["selected"].to_list() == [run.metrics["selected/val/acc"] for run in (other, one)]
    assert "metrics.selected/val/loss" in listed
    everything = lab.runs(details=True, tracking_uri=one.tracking_uri)
    left_out = {"ended", "params.model", "params.data.batch_size", "metrics.selected/val/acc"}
    assert {*everything.columns} - {*listed.columns} >= left_out
    assert f"test/acc {one.metrics['test/acc']:.4f}" in repr(one)
    difference = lab.diff(one, other)
    assert difference.loc[("configuration", "model.hidden")].to_list() == ["[8]", "[16]"]


@pytest.mark.parametrize("name", ["UserError", "RunFailedError"])
def test_a_traceback_names_an_exception_as_it_is_imported_and_it_can_be_pickled(name):
    kind = getattr(lab, name)
    assert (kind.__module__, kind.__qualname__) == ("litlab", name)
    assert pickle.loads(pickle.dumps(kind)) is kind


def test_a_run_is_tested_validated_and_predicted_again(trained, tmp_path):
    run, _ = trained
    assert lab.test(run).measured == lab.test(run).recorded
    assert lab.validate(run).measured == {"acc": run.metrics["val/acc"], "loss": run.metrics["val/loss"]}
    predicted = lab.predict(run)
    assert len(predicted) == 360
    assert predicted.columns.to_list() == ["target", "class", "probability"]
    assert (predicted["target"] == predicted["class"]).mean() == pytest.approx(run.metrics["test/acc"])
    with pytest.raises(lab.UserError, match="no such file"):
        lab.predict(run, tmp_path / "missing.png")


@pytest.mark.parametrize(
    ("experiment", "given", "arguments"),
    [
        ("digits-mpl", {}, ["digits-mpl"]),
        ("digits-mlp", {"overrides": {"model.hiden": [3]}}, ["digits-mlp", "--model.hiden", "[3]"]),
        ("digits-mlp", {"overrides": {"modle.hidden": [3]}}, ["digits-mlp", "--modle.hidden", "[3]"]),
        ("digits-mlp", {"tags": {"seed": 1}}, ["digits-mlp", "--tag", "seed=1"]),
        ("digits-mlp", {"seeds": 0}, ["digits-mlp", "--seeds", "0"]),
    ],
)
def test_errors_have_the_messages_of_the_command(litlab, experiment, given, arguments):
    with pytest.raises(lab.UserError) as error:
        lab.fit(experiment, **given)
    outcome = litlab("fit", *arguments)
    assert outcome.code == 2
    assert outcome.err.strip().endswith(str(error.value))


@pytest.mark.parametrize("key", ["print_config", "config", "model.help", "trainer.fast_dev_run"])
def test_an_override_that_would_print_or_train_nothing_is_refused(key):
    with pytest.raises(lab.UserError, match=key):
        lab.fit("digits-mlp", overrides={key: True})


def test_a_failed_run_is_raised_with_what_it_logged_and_is_resumed(tmp_path, monkeypatch):
    path = tmp_path / "fails.yaml"
    trainer = "{max_epochs: 4, accelerator: cpu, log_every_n_steps: 1}"
    path.write_text(f"{{data: {MODULES}.loggers.Data, model: {MODULES}.schedules.Fails, trainer: {trainer}}}")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(lab.RunFailedError) as failed:
        lab.fit(path)
    run = failed.value.run
    assert run.status == "FAILED"
    assert "not yet" in str(failed.value)
    assert str(failed.value.__cause__) == "not yet"
    assert run.history()["val/loss"].count() == 2
    (tmp_path / "repaired").touch()
    assert lab.resume(run).status == "FINISHED"
    assert run.refresh().status == "FINISHED"


def test_after_ctrl_c_the_run_is_killed_and_the_process_goes_on(tmp_path):
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)]
    path = tmp_path / "stops.yaml"
    path.write_text(f"{{data: {MODULES}.loggers.Data, model: {MODULES}.schedules.Stops, trainer: {{max_epochs: 4}}}}")
    streams = sys.stdout, sys.stderr
    with pytest.raises(KeyboardInterrupt) as stop:
        lab.fit(path, overrides={"trainer.accelerator": "cpu"})
    (row,) = lab.runs().itertuples()
    assert row.status == "KILLED"
    assert any(f"litlab resume {row.run_id}" in note for note in stop.value.__notes__)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)] == handlers
    assert (sys.stdout, sys.stderr) == streams
    assert lab.fit("digits-mlp", overrides=SHORT).status == "FINISHED"


def test_a_run_can_be_trained_outside_the_main_thread(uri):
    found = []
    thread = threading.Thread(target=lambda: found.append(lab.fit("digits-mlp", overrides=SHORT, tracking_uri=uri)))
    thread.start()
    thread.join()
    assert found[0].status == "FINISHED"


def test_several_seeds_give_their_summary_and_do_not_run_the_script_again(tmp_path, monkeypatch):
    script = ModuleType("__main__")
    script.__file__ = str(tmp_path / "script.py")
    Path(script.__file__).write_text(f"open({str(tmp_path / 'started')!r}, 'w')")
    monkeypatch.setitem(sys.modules, "__main__", script)
    run = lab.fit("digits-mlp", overrides=SHORT, seeds=2, seed=5)
    assert [child.seed for child in run.children] == ["5", "6"]
    mean = sum(child.metrics["test/acc"] for child in run.children) / 2
    assert run.metrics["test/acc"] == pytest.approx(mean)
    assert run.command.startswith("litlab fit digits-mlp --data.n_train 100")
    assert "--seeds 2 --seed_everything 5" in run.command
    assert f"<td style='text-align:left'>{mean:.4f} ± {run.metrics['test/acc_sd']:.4f}</td>" in run._repr_html_()
    assert "ci95" not in run._repr_html_()
    assert lab.compare(run).n.to_list() == [2]
    assert not (tmp_path / "started").exists()


def test_a_sweep_gives_the_best_params_and_a_table_of_its_trials(tmp_path):
    space = tmp_path / "small.yaml"
    space.write_text("{experiment: digits-mlp, space: {model.hidden: [[4], [16]]}, metric: val/acc, sampler: grid}")
    with pytest.raises(lab.UserError, match="name and study are the same"):
        lab.sweep(space, name="widths", study="sizes")
    study = lab.sweep(space, name="widths", overrides=SHORT, confirm=0)
    assert study.study == "widths"
    table = study.trials()
    assert study.best_value == table["val/acc"].max()
    assert study.best_params["model.hidden"] == study.best_run.config["model"]["init_args"]["hidden"]
    assert study.run.status == "FINISHED"
    assert len(lab.compare(study.study)) == 2


def test_the_ui_is_served_once_and_ends_when_it_is_stopped(trained):
    from litlab.web_ui import _SERVERS

    uri = trained[0].tracking_uri
    server = lab.ui(tracking_uri=uri)
    try:
        pid = _SERVERS[uri][0].process.pid
        assert process_exists(pid)
        assert lab.ui(tracking_uri=uri) == server
        assert server.url in server._repr_html_()
        assert _SERVERS[uri][0].process.pid == pid
    finally:
        server.stop()
    assert not process_exists(pid)


def test_the_calls_of_the_page_on_python_fit_the_functions():
    page = (Path(__file__).parents[2] / "docs" / "PYTHON.md").read_text()
    blocks = [block.removeprefix("python\n") for block in page.split("```")[1::2]]
    nodes = [node for block in blocks for node in ast.walk(ast.parse(block))]
    calls = [node for node in nodes if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("litlab.")]
    assert len(calls) > 4
    for call in calls:
        function = getattr(lab, call.func.attr)
        inspect.signature(function).bind(*call.args, **{keyword.arg: keyword.value for keyword in call.keywords})
    table = [line.partition("|")[2].partition("|")[0] for line in page.splitlines() if line.startswith("| `")]
    named = {name for cell in table for name in re.findall(r"`(\w+)\(", cell)}
    functions = {name for name in lab.__all__ if inspect.isfunction(getattr(lab, name))}
    assert functions <= named
