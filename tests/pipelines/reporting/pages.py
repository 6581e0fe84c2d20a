"""What the tests of HTML pages share: a parser, a browser, and runs that were not trained."""

import shutil
import subprocess
from html.parser import HTMLParser

import pytest

from pipelines.tracking.run import Run
from pipelines.tracking.store import Store

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
VOID = {"meta", "link", "img", "br", "input"}


class Page(HTMLParser):
    """The elements, attributes and text of a page, as a browser parses them."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.words, self.open = [], [], [], []
        self.feed(text)
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, key, value or "") for key, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, key, value or "") for key, value in attrs]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] != ["style"]:
            self.words.append(data)

    def values(self, *keys):
        return [value for _, key, value in self.attributes if key in keys]


def made(uri, name, tags, params, metrics, experiment="made", parent=None):
    """Log a finished run that was not trained."""
    run = Run(Store(uri), experiment, name, {**tags, **({"mlflow.parentRunId": parent} if parent else {})})
    run.log_params(params)
    run.log_metrics(metrics, 0)
    run.finish("FINISHED")
    return run


def browse(path, tmp_path):
    """Open a file in Chromium; return its document after loading, and the messages on the console."""
    if CHROMIUM is None:
        pytest.skip("there is no Chromium")
    flags = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--enable-logging=stderr",
        "--v=0",
    ]
    flags += ["--virtual-time-budget=5000", f"--user-data-dir={tmp_path / 'browser'}", "--dump-dom"]
    done = subprocess.run([CHROMIUM, *flags, path.as_uri()], capture_output=True, text=True, timeout=120, check=True)
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]
