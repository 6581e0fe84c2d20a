"""`litlab resume` of a run on image files that an earlier version of the reader has read."""

import json
from pathlib import Path

import pytest
from mlflow import MlflowClient
from PIL import Image

from datamodules.digits import Digits

pytestmark = pytest.mark.usefixtures("tables")


@pytest.fixture
def folder(tmp_path) -> Path:
    """30 scans in two class folders."""
    images, labels = Digits().load(train=True)
    for name in ("0", "1"):
        (tmp_path / "mine" / name).mkdir(parents=True)
        for index, scan in enumerate(images[labels == int(name)][:15, 0].numpy()):
            Image.fromarray(scan).save(tmp_path / "mine" / name / f"{index:02}.png")
    return tmp_path / "mine"


def test_a_run_of_an_earlier_reader_resumes_if_its_pixels_are_the_same_and_is_refused_with_the_reason_if_not(
    litlab, folder, uri
):
    options = ["--data", "datamodules.image_folder.ImageFolder", "--data.data_dir", str(folder), "--data.size", "28"]
    fitted = litlab("fit", "digits-mlp", *options, "--data.channels", "1", "--trainer.max_epochs", "1")
    assert fitted.code == 0, fitted.err
    client = MlflowClient(uri)
    run = client.get_run(fitted.run_id)
    card = Path(run.info.artifact_uri.removeprefix("file://")) / "data.json"
    description = json.loads(card.read_text())
    assert description.pop("reader") == 2
    client.set_terminated(fitted.run_id, "KILLED")
    client.set_tag(fitted.run_id, "data.sha256.train", "0" * 64)
    refused = litlab("resume", fitted.run_id)
    assert (refused.code, "trained on other data" in refused.err) == (2, True)
    assert "EXIF" not in refused.err  # this version has read the images

    card.write_text(json.dumps(description))  # as earlier versions wrote it
    refused = litlab("resume", fitted.run_id)
    assert refused.code == 2
    assert "an earlier version of litlab read them, which ignored EXIF orientation and transparency" in refused.err
    assert "To train anew: litlab fit digits-mlp" in refused.err
    client.set_tag(fitted.run_id, "data.sha256.train", run.data.tags["data.sha256.train"])
    resumed = litlab("resume", fitted.run_id)
    assert resumed.code == 0, resumed.err
    assert client.get_run(fitted.run_id).info.status == "FINISHED"
