"""Run the tests in tests/theory that prove theoretical claims."""

import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from xml.etree import ElementTree

from pipelines.runtime.environment import project_folder
from pipelines.runtime.errors import UserError

THEORY = Path("tests/theory")


def run_theory_tests(files: Iterable[str]) -> Mapping[str, bool]:
    """Run test files of tests/theory in one pytest process.

    Returns:
        For each file that exists, by its name, whether it has tests and all of them pass.

    Raises:
        UserError: pytest cannot run.
    """
    folder = project_folder()
    existing = sorted({name for name in files if (folder / THEORY / name).is_file()})
    if not existing:
        return {}
    passed = dict[str, list[bool]]()
    with tempfile.TemporaryDirectory(prefix="litlab-theory-") as scratch:
        report = Path(scratch) / "report.xml"
        command = [sys.executable, "-m", "pytest", *(str(THEORY / name) for name in existing)]
        command += ["-q", "-p", "no:cacheprovider", f"--junitxml={report}"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        if not report.is_file():
            raise UserError(f"cannot run the tests in {THEORY}: {(done.stderr or done.stdout).strip()[-500:]}")
        for case in ElementTree.parse(report).iter("testcase"):  # noqa: S314 (as our own pytest wrote it)
            module = case.get("classname", "").rpartition(".")[2]
            passed.setdefault(f"{module}.py", []).append(not case.findall("failure") + case.findall("error"))
    return {name: name in passed and all(passed[name]) for name in existing}
