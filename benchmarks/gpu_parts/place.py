"""What a job is given: the device, folders, and the file of results."""

import json
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

LITLAB = (sys.executable, "-c", "from pipelines.cli import console; console()")
MAX_ERROR = 1500  # characters of an error in the results


@dataclass(frozen=True)
class Place:
    """Where a job runs.

    Attributes:
        device: "cuda" or "cpu".
        dry: Whether to run everything in small, to see that it runs.
        data_dir: Folder of the data, see `gpu_parts.data`.
        folder: Folder of the job, with its tracking store.
        results: File to which results are appended, one JSON object per line.
    """

    device: str
    dry: bool
    data_dir: Path
    folder: Path
    results: Path

    @property
    def uri(self) -> str:
        """Tracking store of the job."""
        return f"sqlite:///{self.folder / 'mlflow.db'}"

    @property
    def trainer(self) -> list[str]:
        """Arguments of `litlab fit` that train on the device, without a progress bar."""
        return [f"--trainer.accelerator={self.device}", "--trainer.devices=1", "--trainer.enable_progress_bar=false"]

    def inside(self, name: str) -> "Place":
        """Return the place with a new folder inside this one's."""
        folder = self.folder / name
        folder.mkdir()
        return replace(self, folder=folder)

    def save(self, job: str, name: str, **values: Any) -> None:
        """Append a result."""
        line = json.dumps({"job": job, "name": name, **values}) + "\n"
        with self.results.open("a") as file:  # in one short write, so that other processes do not write in between
            file.write(line)

    @contextmanager
    def attempt(self, job: str, name: str) -> Iterator[dict[str, Any]]:
        """Time the block, and save the values that it adds. An error is saved as well, and ends only the block."""
        values: dict[str, Any] = {}
        error, start = "", time.perf_counter()
        try:
            yield values
        except (Exception, SystemExit) as raised:
            traceback.print_exc()
            last = traceback.extract_tb(raised.__traceback__)[-1]
            error = f"{type(raised).__name__}: {raised} ({Path(last.filename).name}:{last.lineno})"[:MAX_ERROR]
        seconds = round(time.perf_counter() - start, 3)
        self.save(job, name, ok=not error, error=error, seconds=seconds, **values)

    def litlab(self, *arguments: str, environment: Mapping[str, str] | None = None, code: int = 0) -> str:
        """Run litlab in another process, and return its output; see `finish`."""
        return self.finish(self.start(*arguments, environment=environment), code)

    def start(self, *arguments: str, environment: Mapping[str, str] | None = None) -> "subprocess.Popen[str]":
        """Start litlab in another process."""
        settings = {**os.environ, "MLFLOW_TRACKING_URI": self.uri, **(environment or {})}
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen([*LITLAB, *arguments], cwd=self.folder, env=settings, **pipes)

    @staticmethod
    def finish(process: "subprocess.Popen[str]", code: int = 0) -> str:
        """Wait for a process, and return its output.

        Raises:
            RuntimeError: It ended with another exit code.
        """
        out, err = process.communicate()
        print(out, err, sep="\n", flush=True)
        if process.returncode != code:
            raise RuntimeError(f"exit code {process.returncode}: {err.strip()[-MAX_ERROR:]}")
        return out


def run_folder(place: Place, out: str) -> Path:
    """Return the folder of the run whose id `litlab fit` has printed."""
    run_id = next(line.split()[1] for line in out.splitlines() if line.startswith("run "))
    return next((place.folder / "mlartifacts").glob(f"*/{run_id}")) / "artifacts"
