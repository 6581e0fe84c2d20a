"""A command replaces only files that litlab has written, and never one of its inputs."""

import json
import os
import shutil
from pathlib import Path

import pytest
from PIL import Image

from pipelines.runtime.errors import UserError
from pipelines.runtime.outputs import check_output


def test_new_and_empty_files_and_devices_may_be_written_and_others_are_refused_by_name(tmp_path):
    path = tmp_path / "out.csv"
    check_output(path, b"mark")
    path.touch()
    check_output(path, b"mark")
    check_output(Path(os.devnull), b"mark")
    path.write_text("mark and more")
    check_output(path, b"other", b"mark")
    with pytest.raises(UserError, match=r"out\.csv: the file exists, and litlab did not write it; name another file"):
        check_output(path, b"other")
    with pytest.raises(UserError, match=r"--plot .*out\.csv: the file exists, and it would be replaced"):
        check_output(path, option="--plot")


def test_an_input_is_refused_also_under_another_name(tmp_path):
    image = tmp_path / "a.png"
    image.write_text("mark")
    (tmp_path / "link.csv").symlink_to(image)
    (tmp_path / "hard.csv").hardlink_to(image)
    for name in ("a.png", "link.csv", "hard.csv"):
        with pytest.raises(UserError, match="is one of the inputs"):
            check_output(tmp_path / name, b"mark", inputs=[image])


@pytest.mark.slow
def test_every_verb_that_writes_files_replaces_its_own_and_no_others(litlab, tmp_path):
    run_id = litlab("fit", "digits-mlp", "--trainer.max_epochs", "1", "--data.n_train", "100").run_id
    images = [tmp_path / f"{name}.png" for name in "abc"]
    for image in images:
        Image.new("L", (28, 28)).save(image)
    before = {image: image.read_bytes() for image in images}

    outcome = litlab("predict", run_id, "--out", *images)  # "--out *.png"
    assert (outcome.code, outcome.out) == (2, "")
    assert "a.png: the file exists, and litlab did not write it" in outcome.err
    assert "is one of the inputs" in litlab("predict", run_id, *images, "--out", images[1]).err

    mine = tmp_path / "mine"
    mine.mkdir()
    compared = litlab("compare", "digits-mlp", "--plot", mine / "plots")
    assert compared.code == 0, compared.err
    explained = litlab("explain", "occlusion", run_id, "--image", "1", "--out", mine / "explain")
    assert explained.code == 0, explained.err
    picture = next((mine / "explain").glob("*.png"))
    plot, drawing = mine / "plots" / "learning_curves.png", mine / "plots" / "learning_curves.svg"
    verbs = {
        mine / "table.csv": ("predict", run_id, *images, "--out", mine / "table.csv"),
        mine / "data.csv": ("predict", run_id, "--out", mine / "data.csv"),
        mine / "page.html": ("report", "digits-mlp", "--out", mine / "page.html"),
        plot: ("compare", "digits-mlp", "--plot", mine / "plots"),
        drawing: ("compare", "digits-mlp", "--plot", mine / "plots"),
        picture: ("explain", "occlusion", run_id, "--image", "1", "--out", mine / "explain"),
        picture.with_suffix(".json"): ("explain", "occlusion", run_id, "--image", "1", "--out", mine / "explain"),
        mine / "RESULTS.md": ("reproduce", "mnist-linear", "--as-is", "--out", mine),
        mine / "results.html": ("reproduce", "mnist-linear", "--as-is", "--out", mine),
    }
    for command in dict.fromkeys(verbs.values()):
        for _ in range(2):  # the second time, it replaces its own
            outcome = litlab(*command)
            assert outcome.code == 0, outcome.err
    for path, command in verbs.items():
        written = path.read_bytes()
        path.write_text("my notes")
        outcome = litlab(*command)
        assert (outcome.code, path.read_text()) == (2, "my notes"), command
        assert f"{path}: the file exists, and litlab did not write it; name another file" in outcome.err
        path.write_bytes(written)
    weights = shutil.copy(images[0], mine / "model.pt")
    outcome = litlab("predict", run_id, "--out", weights)
    assert (outcome.code, Path(weights).read_bytes()) == (2, before[images[0]])
    assert {image: image.read_bytes() for image in images} == before
    assert json.loads(picture.with_suffix(".json").read_text())["run"] == run_id
