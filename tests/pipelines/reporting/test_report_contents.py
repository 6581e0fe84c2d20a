"""`litlab report`: the best run, the author's text, links to the UI, several data sets, and a phone's screen."""

import base64
import html
import re

import pytest

from pipelines.comparison import rows
from pipelines.tracking.query import find_runs
from pipelines.tracking.store import Store
from tests.pipelines.reporting.pages import Page, browse, made


def test_the_page_has_the_confusion_matrix_and_the_mistakes_of_the_best_run(reported, trained):
    found, path = reported
    runs = find_runs(Store(trained), ["digits-mlp"]).runs
    row = rows.group_and_rank(find_runs(Store(trained), ["digits-mlp"])).rows[0]
    best = max(row.runs, key=lambda run: run.metrics["test/acc"])
    assert len(runs) == 4
    assert f"Run {best.run_id}, seed {best.seed}, the best of 2 in row 1: test/acc" in found.text
    for name in ("confusion_matrix", "confidently_wrong"):
        assert base64.b64encode(best.file(f"figures/{name}.png").read_bytes()).decode() in path.read_text()


def test_the_page_says_how_often_the_test_set_was_looked_at(reported):
    found, _ = reported
    assert found.text.count("look at this test set") == 1
    assert re.search(r"2nd look at this test set; row 1, corrected: 0\.\d+ to \d\.\d+\.", found.text)


def test_the_author_s_text_is_markdown_without_html_images_or_scripts(litlab, trained, tmp_path):
    notes = tmp_path / "notes.md"
    notes.write_text(
        "# Ours\n\n**bold** <script>alert(1)</script> [good](https://example.org) [bad](javascript:alert(1))\n\n"
        "![out](http://example.org/x.png)\n\n| a | b |\n|---|---|\n| 1 | 2 |\n"
    )
    out = tmp_path / "page.html"
    outcome = litlab("report", "digits-mlp", "--text", notes, "--out", out, "--tracking_uri", trained)
    assert outcome.code == 0, outcome.err
    found = Page(out.read_text())
    assert found.tags.count("script") == 0
    assert "<strong>bold</strong> &lt;script&gt;alert(1)&lt;/script&gt;" in out.read_text()
    assert "https://example.org" in found.values("href")
    assert not [value for value in found.values("href", "src") if "javascript" in value or "x.png" in value]
    assert "a b 1 2" in found.text
    assert found.text.index("By test/acc") < found.text.index("Ours") < found.text.index("Made by litlab")


@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00", b"x" * 1_000_001], ids=["missing", "binary", "long"])
def test_a_text_that_cannot_be_shown_is_refused(litlab, trained, tmp_path, content):
    notes = tmp_path / "notes.md"
    if content is not None:
        notes.write_bytes(content)
    out = tmp_path / "page.html"
    outcome = litlab("report", "digits-mlp", "--text", notes, "--out", out, "--tracking_uri", trained)
    assert (outcome.code, out.exists()) == (2, False)
    assert outcome.err.startswith(f"litlab: --text {notes}")


def test_run_ids_are_links_to_the_ui_if_its_address_is_known(litlab, reported, trained, tmp_path):
    out = tmp_path / "page.html"
    args = ("report", "digits-mlp", "--out", out, "--tracking_uri", trained)
    assert litlab(*args, "--ui", "http://127.0.0.1:5000/").code == 0
    links = [value for value in Page(out.read_text()).values("href") if "/runs/" in value]
    for run in find_runs(Store(trained), ["digits-mlp"]).runs:
        assert f"http://127.0.0.1:5000/#/experiments/{run.experiment_id}/runs/{run.run_id}" in links
    assert not [value for value in reported[0].values("href") if "/runs/" in value]
    wrong = litlab(*args, "--ui", "javascript:alert(1)")
    assert (wrong.code, "--ui javascript:alert(1): expected an address such as" in wrong.err) == (2, True)


def test_runs_on_different_data_are_in_different_tables_and_sentences(litlab, uri, tmp_path):
    for data, acc in (("Digits", 0.9), ("Circles", 0.8), ("Circles", 0.7)):
        tags = {"seed": "0", "data.sha256.test": data * 8}
        params = {"data": f"datamodules.{data.lower()}.{data}", "model.width": str(acc)}
        made(uri, data, tags, params, {"test/acc": acc})
    assert litlab("report", "made", "--out", tmp_path / "page.html").code == 0
    found = Page((tmp_path / "page.html").read_text())
    assert "test/acc of made on Digits: 1 row, higher is better" in found.text
    assert "test/acc of made on Circles: 2 rows, higher is better" in found.text
    assert "By test/acc on Circles (higher is better), the best of 2 rows is row 2" in found.text
    assert "best of 3 rows" not in found.text


def test_on_a_phone_the_verdict_comes_first_and_the_table_shows_metric_and_verdict(reported, tmp_path):
    frame = f'<iframe style="width: 375px; height: 800px; border: 0" srcdoc="{html.escape(reported[1].read_text())}">'
    script = """onload = () => {
        const page = frames[0].document, box = found => found.getBoundingClientRect();
        const scroll = page.querySelector('#comparison ~ .scroll'), cells = [...scroll.querySelectorAll('tbody td')];
        const verdict = cells.find(cell => cell.textContent == 'best');
        const ends = [box(page.querySelector('.summary')).top, box(verdict).right, box(scroll).right];
        document.title = ends.map(Math.round).join(' ');
    }"""
    harness = tmp_path / "harness.html"
    harness.write_text(f"{frame}</iframe><script>{script}</script>")
    document, _ = browse(harness, tmp_path)
    top, verdict, table = map(int, re.search(r"<title>(\d+) (\d+) (\d+)</title>", document).groups())
    assert top < 150
    assert verdict <= table <= 375
