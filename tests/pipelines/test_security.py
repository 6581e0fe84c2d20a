"""Foreign input is data: no file is executed, no name escapes its folder, no text controls the terminal."""

import json
import os
import re
import threading
from html.parser import HTMLParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlparse

import pytest
import torch
import yaml
from mlflow import MlflowClient
from PIL import Image

from pipelines.checkpoints.files import write_checkpoint
from pipelines.commands.fit import main as fit
from pipelines.reporting import html_page as page
from pipelines.runtime.errors import UserError
from pipelines.runtime.text import escape_control_characters
from pipelines.tracking.run import Run
from pipelines.tracking.run_log import home_of
from pipelines.tracking.store import Store
from sweeps.search.lock import sole_controller

ROOT = Path(__file__).parents[2]
ROOMS = ("datamodules", "modules", "pipelines", "sweeps", "benchmarks")
MARKUP, HTML, CODES = "[red]x[/red][/]", "<script>alert(1)</script>", "\x1b]0;title\x07\x1b[31m"
HOSTILE = [MARKUP, HTML, CODES, "a|b", "\u202etxt", "../../x", "'\">"]


class Evil:
    """Creates a file when it is unpickled."""

    def __init__(self, path):
        self._path = path

    def __reduce__(self):
        return os.system, (f"touch {self._path}",)


@pytest.fixture(scope="module")
def evil_run(tmp_path_factory):
    """A run whose checkpoints were replaced by malicious ones: run id, tracking URI and folder."""
    folder = tmp_path_factory.mktemp("evil")
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    assert fit("fit", ["digits-mlp", "--trainer.max_epochs", "1", "--tracking_uri", uri]) == 0
    (run,) = MlflowClient(uri).search_runs(["1"])
    torch.save({"epoch": 0, "state_dict": Evil(folder / "executed"), "litlab": {"best_epoch": 0}}, folder / "evil")
    for name in ("best.ckpt", "last.ckpt"):
        path = Path(urlparse(run.info.artifact_uri).path) / "checkpoints" / name
        write_checkpoint((folder / "evil").read_bytes(), path)
    return run.info.run_id, uri, folder


def test_no_verb_executes_code_from_a_checkpoint(litlab, evil_run, tmp_path):
    run_id, uri, folder = evil_run
    Image.new("L", (28, 28)).save(tmp_path / "digit.png")
    for verb in (["test"], ["validate"], ["predict", tmp_path / "digit.png"], ["explain saliency", "--image", "0"]):
        outcome = litlab(*verb[0].split(), run_id, *verb[1:], "--tracking_uri", uri)
        assert outcome.code == 2, outcome.err
        assert "contains more than tensors and plain values" in outcome.err
    MlflowClient(uri).set_terminated(run_id, "KILLED")
    outcome = litlab("resume", run_id, "--tracking_uri", uri)
    assert outcome.code == 2
    assert "last.ckpt was not loaded: it contains more than tensors and plain values" in outcome.err
    assert "Traceback" not in outcome.err
    assert not (folder / "executed").exists()
    torch.load(folder / "evil", weights_only=False)
    assert (folder / "executed").exists(), "the checkpoint was harmless: this test proves nothing"


def test_a_logged_model_contains_no_pickle(evil_run):
    run_id, uri, _ = evil_run
    client = MlflowClient(uri)
    (output,) = client.get_run(run_id).outputs.model_outputs
    folder = Path(urlparse(client.get_logged_model(output.model_id).artifact_location).path)
    names = [path.name for path in folder.rglob("*") if path.is_file()]
    assert "model.pt2" in names
    assert [name for name in names if name.endswith((".pkl", ".pickle", ".pth", ".pt", ".ckpt"))] == []


def test_no_source_file_loads_pickled_objects():
    """Covers what ruff's S rules do not: pickles of NumPy and joblib, models of Lightning and MLflow."""
    unsafe = re.compile(
        r"allow_pickle=True|joblib|cloudpickle|(?<!dump_checkpoint\()weights_only=False|mlflow\.\w+\.load_model\("
    )
    files = [path for room in ROOMS for path in (ROOT / room).rglob("*.py")]
    quoted = ROOT / "pipelines" / "tracking" / "register.py"  # prints code that loads a model
    own = ROOT / "benchmarks" / "gpu_parts" / "runs.py"  # loads the model that it has just made
    checked = ROOT / "pipelines" / "checkpoints" / "unpickle.py"  # files that the user wrote, or trusts
    assert len(files) > 100
    assert len(unsafe.findall(checked.read_text())) == 1
    assert {path for path in files if unsafe.search(path.read_text())} == {quoted, checked, own}


EVIL_CLASSES = {
    "model.optimizer": "subprocess.Popen",
    "model.lr_scheduler": "os.system",
    "trainer.callbacks": "subprocess.Popen",
    "trainer.plugins": "subprocess.Popen",
    "trainer.strategy": "subprocess.Popen",
    "model": "subprocess.Popen",
    "data": "subprocess.Popen",
}


@pytest.mark.parametrize("key", EVIL_CLASSES)
def test_a_configuration_cannot_name_a_class_of_another_kind(litlab, uri, tmp_path, key):
    config = yaml.safe_load((ROOT / "pipelines/experiments/digits-mlp.yaml").read_text())
    evil = {"class_path": EVIL_CLASSES[key], "init_args": {"args": f"touch {tmp_path / 'executed'}", "shell": True}}
    section, _, rest = key.partition(".")
    if not rest:
        config[key] = evil
    elif section == "model":
        config["model"].setdefault("init_args", {})[rest] = evil
    else:
        config[section][rest] = [evil] if rest == "callbacks" else evil
    (tmp_path / "evil.yaml").write_text(yaml.safe_dump(config))
    outcome = litlab("fit", "-c", tmp_path / "evil.yaml")
    assert outcome.code == 2
    assert key in outcome.err
    assert not (tmp_path / "executed").exists()
    assert not (tmp_path / "runs").exists(), "a run was created"


def test_yaml_tags_in_a_configuration_create_no_objects(litlab, tmp_path):
    text = f"data: !!python/object/apply:os.system ['touch {tmp_path / 'executed'}']"
    (tmp_path / "evil.yaml").write_text(text)
    for args in (["fit", "-c"], ["sweep", "-c"]):
        outcome = litlab(*args, tmp_path / "evil.yaml")
        assert outcome.code == 2
        assert "not readable as YAML" in outcome.err
    assert not (tmp_path / "executed").exists()


def test_names_that_become_folders_cannot_contain_paths(litlab, uri, tmp_path):
    outcome = litlab("fit", "digits-mlp", "--name", "../x")
    assert outcome.code == 2
    assert "only letters, digits" in outcome.err
    store = Store(uri)
    for name in ("../x", "/tmp/x", "a/b", "a\\b", "x\x00y", "..", ".hidden", "x" * 300, "ü" * 150, ""):
        with pytest.raises(UserError, match="only letters, digits"):
            store.experiment_id(name)
        lock = sole_controller(f"sqlite:///{tmp_path / 'optuna.db'}", name)
        with pytest.raises(UserError, match=r"only letters, digits|File name too long"), lock:
            pass
    assert {path.name for path in tmp_path.iterdir()} <= {"runs", "cache"}


def hostile_runs(uri):
    """Log finished runs in which every text is an attack on the terminal."""
    for number, text in enumerate(HOSTILE):
        tags = {"seed": "0", "litlab.command": text, "mlflow.source.name": f"litlab fit {text}"}
        run = Run(Store(uri), "hostile", text, {**tags, "litlab.experiment": text})
        run.log_params({"model.dropout": text})
        run.log_metrics({"selected/val/acc": 0.5 + number / 100}, 0)
        run.finish("FINISHED")
        killed = Run(Store(uri), "hostile", text, tags)
        killed.finish("KILLED")


def test_run_names_are_printed_neither_as_markup_nor_as_terminal_commands(litlab, uri, monkeypatch):
    hostile_runs(uri)
    monkeypatch.setenv("FORCE_COLOR", "1")  # so that markup would take effect
    shown = [litlab("compare", "hostile").out, litlab("resume").err]
    markdown = litlab("compare", "hostile", "--format", "md").out
    style = re.compile(r"\x1b\[[0-9;]*m")  # how rich highlights the best row
    assert all(text in style.sub("", shown[0]) for text in ("[red]x[/red][/]", "<script>", "a|b", r"\x1b]0;title\x07"))
    assert "[red]x[/red][/]" in shown[1]
    for text in [*(style.sub("", text) for text in shown), markdown]:
        assert not set("\x1b\x07\u202e") & set(text)
    assert "31m" not in "".join(style.findall(shown[0]))
    rows = [line for line in markdown.splitlines() if line.startswith("|")]
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in rows}) == 1, "as many cells in each row"
    assert "\\<script>" in markdown
    assert not re.search(r"(?<!\\)<script>", markdown)


def test_control_characters_are_escaped_and_other_text_is_kept():
    assert escape_control_characters("a\x1b[31mb\x07\r\u202e\u2028\x9b") == r"a\x1b[31mb\x07\r\u202e\u2028\x9b"
    assert escape_control_characters("naïve ± 0,5\u00a0%\n\t日本 [red]") == "naïve ± 0,5\u00a0%\n\t日本 [red]"


def test_the_reproduction_page_escapes_html():
    text = "<script>alert(1)</script>\"' onload=x javascript:alert(1)"
    cells = [[text, text], [text, text]]
    section = {"title": text, "about": text, "data": [text], "failures": [text], "claims": cells, "runs": cells}
    context = {"title": text, "command": text, "summary": text, "facts": [text], "rules": [text], "reports": cells}
    html = page.render("reproduction.html", {**context, "sections": [{**section, "commands": [text]}]})
    assert "<script" not in html
    assert html.count("&lt;script&gt;") > 15
    attributes = []
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, attrs: attributes.extend(attrs)
    parser.feed(html)
    assert not [name for name, _ in attributes if name.startswith("on")]
    assert all(value.startswith(("#", "data:")) for name, value in attributes if name in ("href", "src"))


class HostileServer(BaseHTTPRequestHandler):
    """An MLflow server with a run whose artifact paths point outside of its folder."""

    listed = "../../../executed"

    def do_GET(self):
        if "/mlflow-artifacts/artifacts" in self.path:
            is_list = self.path.partition("?")[0].endswith("/artifacts")
            self.answer({"files": [{"path": self.listed, "is_dir": False, "file_size": 4}]} if is_list else "evil")
        elif "/runs/get" in self.path:
            info = {"run_id": "0" * 32, "experiment_id": "1", "status": "KILLED", "lifecycle_stage": "active"}
            self.answer({"run": {"info": {**info, "artifact_uri": "mlflow-artifacts:/1/x/artifacts"}, "data": {}}})
        else:
            self.answer({"experiments": []})

    do_POST = do_PATCH = do_GET

    def answer(self, content):
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format, *args):
        """Print nothing."""


@pytest.mark.parametrize("listed", ["../../../executed", "/{folder}/executed", "%2e%2e/%2e%2e/x", "a/../../executed"])
def test_a_server_cannot_write_files_outside_of_the_download_folder(tmp_path, monkeypatch, listed):
    inside = tmp_path / "a" / "b" / "c"
    inside.mkdir(parents=True)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("LITLAB_UNSENT", str(inside))
    monkeypatch.setattr(HostileServer, "listed", listed.format(folder=tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), HostileServer) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            found = Store(f"http://127.0.0.1:{server.server_port}").find("0" * 32)
            with pytest.raises(UserError, match="Invalid"):
                Run.reopen(found)
        finally:
            server.shutdown()
            thread.join()
    assert [path for path in tmp_path.rglob("*") if path.is_file() and inside not in path.parents] == []


@pytest.mark.parametrize("run_id", ["../../executed", "/tmp/executed", ".."])
def test_a_server_cannot_write_a_run_outside_of_the_folder_of_unsent_data(tmp_path, monkeypatch, run_id):
    monkeypatch.setenv("LITLAB_UNSENT", str(tmp_path / "unsent"))
    with pytest.raises(UserError, match="is not a run id"):
        home_of("http://server", run_id)
