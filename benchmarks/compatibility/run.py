"""Run other people's modules with litlab, and with LightningCLI and MLFlowLogger, and write docs/COMPATIBILITY.md.

    python benchmarks/compatibility/run.py [--only NAME ...] [--commands NAME ...] [--limit SECONDS] [--jobs N]

One failure does not stop the rest. After Ctrl-C, the same command continues with the cells that are missing. The page
is written when all cells are there. The exit code is 1 if litlab has a cell that is worse than LightningCLI's.
"""

import argparse
import os
import subprocess
import sys
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests/fixtures/strangers")]

from pipelines.tracking.client import MLFLOW_SETTINGS  # noqa: E402

os.environ.pop("LITLAB_UNSENT", None)
os.environ.update(MLFLOW_SETTINGS)  # read by mlflow when it is imported

from cases import CASES, Case  # noqa: E402
from cells import COLUMNS  # noqa: E402
from litlab_cells import LitlabCells  # noqa: E402
from plain_cells import PlainCells  # noqa: E402
from processes import Commands  # noqa: E402
from table import Results, markdown  # noqa: E402

from pipelines.runtime.environment import cpu_count  # noqa: E402
from pipelines.tracking.store import Store  # noqa: E402

DOCUMENT = ROOT / "docs/COMPATIBILITY.md"
PROGRAMS = {"litlab": LitlabCells, "plain": PlainCells}


def options() -> argparse.Namespace:
    names = [case.name for case in CASES]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=names, help=", ".join(names))
    parser.add_argument("--commands", nargs="+", metavar="NAME", choices=COLUMNS, help=", ".join(COLUMNS))
    parser.add_argument("--programs", nargs="+", metavar="NAME", choices=PROGRAMS, help=", ".join(PROGRAMS))
    parser.add_argument("--limit", type=float, default=180, metavar="S", help="seconds for each command (180)")
    parser.add_argument("--jobs", type=int, default=cpu_count(), help="modules at the same time (number of cores)")
    parser.add_argument("--folder", type=Path, default=ROOT / ".compatibility", help="scratch folder (.compatibility)")
    return parser.parse_args()


def source() -> str:
    """Return the commit, with a digest of what has been changed since."""

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()

    files = ("*.py", "*.yaml")
    changed = git("diff", "HEAD", "--", *files) + git("ls-files", "--others", "--exclude-standard", "--", *files)
    digest = f" with changes {zlib.crc32(changed.encode()):08x}" if changed else ""
    return git("rev-parse", "--short", "HEAD") + digest


def empty_database(folder: Path) -> Path:
    """Return a database with MLflow's tables, which is created once."""
    path = folder / "empty" / "mlflow.db"
    if not path.is_file():
        Store(f"sqlite:///{folder / 'new' / 'mlflow.db'}")
        (folder / "new").rename(folder / "empty")
    return path


def is_selective(given: argparse.Namespace) -> bool:
    """Return whether some cells are asked for; they are run again."""
    return bool(given.only or given.commands or given.programs)


def run_case(case: Case, given: argparse.Namespace, results: Results, commands: Commands) -> None:
    """Run the cells of a module that are asked for, or missing."""
    chosen = is_selective(given)
    for program in given.programs or PROGRAMS:
        columns = [c for c in given.commands or COLUMNS if chosen or not results.get(case.name, program, c)]
        cells = PROGRAMS[program](case, given.folder, given.folder / "empty/mlflow.db", commands)
        for column in columns:
            start = time.monotonic()
            cell = cells.measure(column)
            results.add(case.name, program, column, cell)
            text = "ok" if cell.ok else cell.word or "no"
            seconds = time.monotonic() - start
            print(f"{case.name:<13}{program:<8}{column:<9}{seconds:5.1f} s  {text}  {cell.note}", flush=True)


def main() -> int:
    """Run the cells, and write the page if all are there."""
    given = options()
    given.folder = given.folder.absolute()
    given.folder.mkdir(parents=True, exist_ok=True)
    empty_database(given.folder)
    results = Results(given.folder / "results.json", source())
    if results.is_complete(CASES) and not is_selective(given):
        results.clear()
    cases = [case for case in CASES if case.name in (given.only or [case.name])]
    commands = Commands(given.limit)
    pool = ThreadPoolExecutor(given.jobs)
    try:
        for future in [pool.submit(run_case, case, given, results, commands) for case in cases]:
            future.result()
    except KeyboardInterrupt:
        pool.shutdown(wait=False, cancel_futures=True)
        print("stopped; run the same command again to continue")
        return 130
    finally:
        commands.close()
    worse = results.worse(cases)
    for line in worse:
        print(f"worse than LightningCLI: {line}")
    if results.is_complete(CASES):
        DOCUMENT.write_text(markdown(results, CASES))
        print(f"written to {DOCUMENT.relative_to(ROOT)}")
    return 1 if worse else 0


if __name__ == "__main__":
    sys.exit(main())
