"""What an explanation writes and logs, and what it does not change."""

import json
from pathlib import Path
from urllib.parse import urlparse

import pytest
from PIL import Image

from pipelines.commands.explain import main
from pipelines.tracking.query import find_runs
from pipelines.tracking.store import Store


def state(uri, run_id):
    """Everything stored of a run: params, metrics with their history, tags, times, and the bytes of its files."""
    store = Store(uri)
    run = store.client.get_run(run_id)
    history = {key: store.client.get_metric_history(run_id, key) for key in run.data.metrics}
    folder = Path(urlparse(run.info.artifact_uri).path)
    paths = [path for path in folder.rglob("*") if path.is_file()]
    files = {str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes()) for path in paths}
    assert "checkpoints/best.ckpt" in files
    points = {key: [(point.value, point.step, point.timestamp) for point in values] for key, values in history.items()}
    return run.data.params, points, run.data.tags, vars(run.info), files


@pytest.mark.parametrize(
    "argv",
    [
        ["maximise", "--class", "7", "--steps", "3"],
        ["filters"],
        ["activations", "--image", "12"],
        pytest.param(["embedding", "--count", "100", "--perplexity", "10"], marks=pytest.mark.slow, id="embedding"),
        ["adversarial", "--image", "12", "--target", "3", "--steps", "3"],
        ["occlusion", "--image", "12"],
        ["saliency", "--image", "12"],
        ["gradcam", "--image", "12"],
    ],
    ids=lambda argv: argv[0],
)
def test_an_explanation_is_a_child_run_with_picture_and_numbers_and_its_parent_is_not_changed(
    explain, explained_run, argv
):
    uri, run_id = explained_run
    before = state(uri, run_id)
    children = {child.run_id for child in Store(uri).children(run_id)}
    outcome = explain(*argv)
    assert outcome.code == 0, outcome.err
    assert state(uri, run_id) == before
    (child,) = [child for child in Store(uri).children(run_id) if child.run_id not in children]
    (picture,) = outcome.folder.glob("*.png")
    numbers = picture.with_suffix(".json")
    assert child.run_id in outcome.out
    assert child.status == "FINISHED"
    assert child.file(f"figures/{picture.name}").read_bytes() == picture.read_bytes()
    assert child.file(numbers.name).read_bytes() == numbers.read_bytes()
    content = json.loads(numbers.read_text())
    assert content["run"] == run_id
    assert content["command"].startswith(f"litlab explain {argv[0]} {run_id}")
    assert content["command"] == child.tags["litlab.command"]
    assert content["caption"].startswith(f"{content['what']}, digits-convnet")
    with Image.open(picture) as image:
        assert image.text["Description"] == content["caption"]


def test_options_become_params_and_single_numbers_metrics(explain, explained_run):
    uri, run_id = explained_run
    children = {child.run_id for child in Store(uri).children(run_id)}
    outcome = explain("maximise", "--class", "7", "--steps", "3", "--seed", "0")
    numbers = json.loads(next(outcome.folder.glob("*.json")).read_text())
    (child,) = [child for child in Store(uri).children(run_id) if child.run_id not in children]
    run = Store(uri).client.get_run(child.run_id)
    assert run.data.params == {
        "classes": '["7"]',
        "preset": "simonyan",
        "prior": "norm",
        "weight": "1.0",
        "scale": "1000.0",
        "lr": "0.33",
        "steps": "3",
        "seed": "0",
    }
    shares = {key: numbers[key] for key in ("mean_high_frequency_share", "natural_high_frequency_share")}
    assert shares.items() <= run.data.metrics.items()
    assert "steps" not in run.data.metrics


def test_explanations_are_not_compared(explain, explained_run):
    uri, run_id = explained_run
    explain("filters")
    assert [run.run_id for run in find_runs(Store(uri), ["digits-convnet"]).runs] == [run_id]


def test_file_names_distinguish_runs_and_explanations(explain, explained_run):
    for unit in ("0,0,0", "1,0,0"):
        explain("maximise", "--layer", "conv1", "--unit", unit, "--steps", "1")
    names = {path.stem for path in explain("maximise", "--class", "7", "--steps", "1").folder.glob("*.png")}
    assert len(names) == 3
    assert all(name.startswith(f"maximise-{explained_run[1][:8]}-") for name in names)


def test_an_error_names_the_folder_that_cannot_be_written(explain, tmp_path):
    (tmp_path / "explain").write_text("a file")
    outcome = explain("filters")
    assert outcome.code == 2
    assert "cannot be written" in outcome.err


def test_the_same_question_has_the_same_tag_wherever_pictures_and_runs_are(explained_run, tmp_path):
    uri, run_id = explained_run
    before = {child.run_id for child in Store(uri).children(run_id)}
    main("explain", ["filters", run_id, "--tracking_uri", uri, "--out", str(tmp_path), "--layer", "conv1"])
    main("explain", ["filters", run_id, "--layer", "conv1", f"--out={tmp_path / 'b'}", f"--tracking_uri={uri}"])
    explanations = [child for child in Store(uri).children(run_id) if child.run_id not in before]
    assert [child.tags["litlab.explain"] for child in explanations] == ["filters --layer conv1"] * 2
