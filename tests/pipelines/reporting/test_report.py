"""`litlab report`: a page that is correct, self-contained, and safe with any text."""

import base64
import html
import json
import os
import re
import stat
import subprocess
import sys
from xml.etree import ElementTree

import pytest

from pipelines.comparison import rows
from pipelines.comparison.formatting import format_mean_sd
from pipelines.reporting.html_page import write
from pipelines.tracking.query import find_runs
from pipelines.tracking.run import Run
from pipelines.tracking.store import Store
from tests.pipelines.reporting.pages import Page, browse, made

NASTY = ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "{{ 7 * 7 }}</pre></details>", "' onload='x"]


def test_the_summary_names_the_best_row_with_its_spread(reported, trained):
    found, _ = reported
    comparison = rows.group_and_rank(find_runs(Store(trained), ["digits-mlp"]))
    best, other = comparison.rows
    label = f"dropout={best.value('model.dropout')}"
    measured = format_mean_sd(best.summary.mean, best.summary.sd)
    assert f"the best of 2 rows is row 1 ({label}): {measured} (mean" in found.text
    assert "95 % interval of the mean" in found.text
    assert "Student's t distribution" in found.text
    noise = "Within the noise of it: row 2" if other.difference.within_noise else "No other row"
    assert noise in found.text


def test_the_page_has_every_run_with_its_value_configuration_data_machine_and_command(reported, trained):
    found, _ = reported
    runs = find_runs(Store(trained), ["digits-mlp"]).runs
    assert len(runs) == 4
    for run in runs:
        for words in (run.run_id, f"{run.metrics['test/acc']:.6g}", run.tags["litlab.command"]):
            assert words in found.text
    for tag in ("data.sha256.train", "data.sha256.test", "version.torch", "machine.processor"):
        assert runs[0].tags[tag] in found.text
    assert runs[0].tags.get("git.commit", "") in found.text  # there is one in a checkout
    assert found.text.count("class_path: modules.mlp.MLP") == 2
    assert "All runs agree in all of these." in found.text
    assert "Digits (4 runs)" in found.text
    assert "litlab compare digits-mlp --tracking_uri" in found.text


def test_every_figure_is_in_the_page_with_a_description_for_screen_readers(reported):
    found, path = reported
    assert found.tags.count("figure") == found.tags.count("figcaption") == found.tags.count("img") >= 2
    assert len(set(found.values("alt"))) == found.tags.count("img")
    saved = [source for source in found.values("src") if source.startswith("data:image/png;base64,")]
    assert len(saved) == 2  # those of the best run
    for source in (source for source in found.values("src") if source not in saved):
        kind, _, content = source.partition(",")
        assert kind == "data:image/svg+xml;base64"
        drawing = ElementTree.fromstring(base64.b64decode(content))
        assert drawing.tag == "{http://www.w3.org/2000/svg}svg"
        assert not [element for element in drawing.iter() if element.tag.endswith("}text")]  # no font is needed
    assert 10_000 < path.stat().st_size < 3_000_000


def test_the_page_is_self_contained(reported):
    found, path = reported
    assert all(value.startswith(("#", "data:")) for value in found.values("src", "href", "xlink:href", "srcset"))
    assert not {"script", "iframe", "object", "embed", "form", "base"} & set(found.tags)
    assert not [key for _, key, _ in found.attributes if key.startswith("on")]
    assert not re.findall(r"@import|url\((?!#)", path.read_text())
    (policy,) = [value for value in found.values("content") if "default-src" in value]
    assert policy == "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def test_ids_are_unique_and_every_reference_has_a_target(reported):
    found, path = reported
    ids = found.values("id")
    assert len(ids) == len(set(ids)) > 5
    wanted = [value[1:] for value in found.values("href", "xlink:href") if value.startswith("#")]
    wanted += re.findall(r"url\(#([^)]+)\)", path.read_text())
    assert set(wanted) <= set(ids)


def nasty_study(uri):
    """Log a study in which every text is an attack."""
    one, two, three, four = NASTY
    tags = {"litlab.parent": "sweep", "study": one, "litlab.command": two, "mlflow.note.content": three + one}
    study = Run(Store(uri), "made", f"{four} {one}", {**tags, "best.trial": two})
    study.log_params({"space.model.dropout": one, "metric": "val/acc", "set.x": four})
    study.log_metrics({"trials/complete": 2.0, "importance/model.dropout": 1.0, "test/acc": 0.5, "confirmed": 1.0}, 0)
    (study.folder / "figures").mkdir()
    study.finish("FINISHED")
    for number, text in enumerate(NASTY):
        tags = {"seed": str(number), "litlab.command": text, "version.torch": text, "mlflow.note.content": text}
        tags |= {"data.sha256.train": text, "machine.host": text}
        params = {"model.dropout": text, "data": text}
        run = made(uri, text, tags, params, {"selected/val/acc": 0.5 + number / 10}, parent=study.run_id)
        (run.folder / "config.yaml").write_text(f"name: {text}")
        (run.folder / "data.json").write_text(json.dumps({"source": text, "sizes": {"train": text}, text: text}))
    return study


def test_text_from_runs_is_never_interpreted_as_html(litlab, uri, tmp_path):
    study = nasty_study(uri)
    outcome = litlab("report", study.run_id, "--out", tmp_path / "report.html")
    assert outcome.code == 0, outcome.err
    found = Page((tmp_path / "report.html").read_text())
    assert "script" not in found.tags
    assert all(source.startswith("data:image/") for source in found.values("src"))
    assert not [key for _, key, _ in found.attributes if key.startswith("on")]
    for text in NASTY:
        assert found.text.count(text) > 8
    assert "The runs differ in: torch, machine." in found.text


def test_a_study_is_shown_with_search_space_trials_importance_confirmation_and_figures(litlab, uri, tmp_path):
    from matplotlib.figure import Figure

    best = made(uri, "trial 0", {"seed": "0", "stage": "search"}, {"model.dropout": "0.3"}, {"selected/val/acc": 0.9})
    tags = {"litlab.parent": "sweep", "study": "made", "best.run": best.run_id, "mlflow.note.content": "**bold**"}
    tags["litlab.verdict"] = "not better <i>"
    study = Run(
        Store(uri),
        "made-sweep",
        "sweep made",
        {**tags, "litlab.verdict": "not better <i>", "litlab.command": "litlab sweep made"},
    )
    study.log_params({"space.model.dropout": '{"low": 0.0, "high": 0.7}', "metric": "val/acc", "seeds": "1"})
    figures = {"importance/model.dropout": 0.75, "trials/complete": 7.0, "trials/pruned": 3.0, "best/val/acc": 0.9}
    confirmed = {"test/acc": 0.8765, "test/acc_std": 0.0123, "confirmed": 3.0, "default/test/acc": 0.7654}
    study.log_metrics({**figures, **confirmed, "default/confirmed": 3.0}, 0)
    drawn = Figure()
    drawn.subplots().plot([1, 2])
    study.save_figure("history", drawn)
    study.finish("FINISHED")
    child = {"seed": "0", "stage": "search", "study": "made"}
    made(uri, "trial 0", child, {"model.dropout": "0.3"}, {"selected/val/acc": 0.9}, "made-sweep", study.run_id)
    outcome = litlab("report", "made-sweep", "--out", tmp_path / "study.html")
    assert outcome.code == 0, outcome.err
    found = Page((tmp_path / "study.html").read_text())
    assert 'model.dropout {"low": 0.0, "high": 0.7} 0.3 0.75' in found.text
    assert "complete 7 pruned 3" in found.text
    assert found.text.index("sweep made: on fresh seeds, the best configuration is not better <i>.") < 300
    assert "the best, on fresh seeds 0.8765 ± 0.0123 3" in found.text
    assert "the experiment as it is, same seeds 0.7654 3" in found.text
    assert "litlab sweep made" in found.text
    assert found.tags.count("img") == 1
    assert found.values("src")[0].startswith("data:image/png;base64,")


def test_the_page_names_what_is_missing(litlab, uri, tmp_path):
    study = Run(Store(uri), "made", "study", {"litlab.parent": "sweep", "best.run": "0" * 32})
    study.finish("FINISHED")
    run = made(uri, "bare", {"seed": "0"}, {"model.dropout": "0.1"}, {"test/acc": 0.5}, parent=study.run_id)
    outcome = litlab("report", study.run_id, "--out", tmp_path / "report.html")
    assert outcome.code == 0
    found = Page((tmp_path / "report.html").read_text())
    assert f"run {run.run_id} (FINISHED) has no config.yaml" in found.text
    assert f"run {run.run_id} (FINISHED) has no data.json" in found.text
    assert f"the best trial's run {'0' * 32} cannot be read" in found.text
    assert f"run {study.run_id} has no figures" in found.text
    assert "model.dropout 0.1" in found.text
    assert "a single run" in found.text


def test_the_page_names_versions_in_which_runs_differ(litlab, uri, tmp_path):
    for seed, torch in enumerate(("2.15.0", "2.15.0", "2.14.1")):
        made(uri, "run", {"seed": str(seed), "version.torch": torch}, {}, {"test/acc": 0.5})
    assert litlab("report", "made", "--out", tmp_path / "report.html").code == 0
    found = Page((tmp_path / "report.html").read_text())
    assert "The runs differ in: torch." in found.text
    assert "2.15.0 (2 runs); 2.14.1 (1 run)" in found.text


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["digits-mlp", "--out", "."], "is a folder"),
        (["digits-mlp", "--out", "nowhere/report.html"], "there is no folder"),
        (["--out", "report.html"], "name what to report"),
        (["digit-mlp"], "did you mean digits-mlp"),
        (["digits-mlp", "--metrics", "test/acc"], "--metrics"),
        (["digits-mlp", "--metric", "test/accuracy"], "test/acc"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_exits_with_2_and_leaves_no_file(litlab, trained, monkeypatch, tmp_path, args, words):
    monkeypatch.chdir(tmp_path)
    outcome = litlab("report", *args, "--tracking_uri", trained)
    assert outcome.code == 2
    assert words in outcome.err
    assert not [path for path in tmp_path.rglob("*") if "report" in path.name]


def test_a_page_is_replaced_completely_or_not_at_all(tmp_path):
    path = tmp_path / "report.html"
    umask = os.umask(0)
    os.umask(umask)
    write(path, "first")
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask
    path.chmod(0o640)
    write(path, "second")
    assert path.read_text() == "second"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    with pytest.raises(UnicodeEncodeError):
        write(path, "third \ud800")
    assert path.read_text() == "second"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.slow
def test_a_report_of_image_classifiers_imports_no_torch(trained, tmp_path):
    args = ["report", "digits-mlp", "--out", str(tmp_path / "light.html"), "--tracking_uri", trained]
    program = f"import sys; from pipelines.cli import main; main({args}); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"


def test_a_browser_reports_no_problem_but_would_report_a_request(reported, tmp_path):
    _, path = reported
    document, console = browse(path, tmp_path)
    assert "</html>" in document
    assert console == []
    asking = tmp_path / "asking.html"
    asking.write_text(path.read_text().replace("<main>", '<main><img src="http://192.0.2.1/x.png">'))
    _, console = browse(asking, tmp_path)
    assert "Content Security Policy" in console[0]


def test_the_page_fits_the_width_of_a_phone(reported, tmp_path):
    """The second page has a wide element: it shows that the harness would notice."""
    text = reported[1].read_text()
    wide = text.replace("<main>", '<main><div style="width: 500px">wide</div>')
    frames = "".join(
        f'<iframe style="width: 390px; height: 800px; border: 0" srcdoc="{html.escape(each)}"></iframe>'
        for each in (text, wide)
    )
    beyond = "one.document.documentElement.scrollWidth - one.document.documentElement.clientWidth"
    script = f"Array.from(frames, one => {beyond}).join(' ')"
    harness = tmp_path / "harness.html"
    harness.write_text(f"{frames}<p></p><script>onload = () => document.title = {script}</script>")
    document, _ = browse(harness, tmp_path)
    narrow, wide = map(int, re.search(r"<title>(\d+) (\d+)</title>", document).groups())
    assert narrow == 0
    assert wide > 100
