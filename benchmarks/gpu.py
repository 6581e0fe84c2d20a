"""Does litlab work on a GPU, and how fast? Everything that is measured there, in one call of at most 8 minutes.

    python benchmarks/gpu.py [--parts a,e,b] [--data-dir data] [--out FOLDER] [--limit SECONDS] [--dry]

Part a runs each experiment in two precisions, `torch.compile`, resume after kill -9, predict, explain, the exported
model on the CPU, a sweep with two workers, and two processes that share the GPU. Part e measures memory and
utilisation, part b times epochs of four experiments. Two parts run only if they are named: c, cifar-airbench on the
CIFAR-10 in --data-dir, and airbench's own script, if it is there too; and d, stacks of models. Each part has a time
limit, and a failure does not stop the rest.

The folder gets `results.jsonl`, a line for each result as soon as it is there, `log.txt` with the output of all
processes, and `table.txt`. MNIST is read from --data-dir; without it, there is noise in its format. In place of
CIFAR-10, there are noise images of its sizes. --dry runs everything in small, on a CPU if there is no GPU. The exit
code is 1 if something failed.
"""

import argparse
import math
import os
import platform
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from gpu_parts.jobs import DEFAULT_PARTS, JOBS, PARTS, run_part  # noqa: E402
from gpu_parts.place import Place  # noqa: E402
from gpu_parts.table import read_results, show  # noqa: E402
from rich.console import Console  # noqa: E402

PACKAGES = ("torch", "lightning", "mlflow", "optuna")
LIMIT_S = 480.0
WIDTH = 200


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = ", ".join(f"{name}: {part.title}, at most {part.limit_s:.0f} s" for name, part in PARTS.items())
    parser.add_argument("--parts", default=",".join(DEFAULT_PARTS), help=parts)
    parser.add_argument("--data-dir", type=Path, default=Path("data"), help="folder that contains MNIST (data)")
    parser.add_argument("--out", type=Path, default=Path(".gpu-results"), help="folder of the results (.gpu-results)")
    parser.add_argument("--limit", type=float, help=f"seconds for all parts ({LIMIT_S:.0f}; none with --dry)")
    parser.add_argument("--dry", action="store_true", help="run everything in small, on a CPU if there is no GPU")
    parser.add_argument("--job", choices=JOBS, help=argparse.SUPPRESS)
    parser.add_argument("--device", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--results", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    given.parts = given.parts.split(",")
    if unknown := sorted(set(given.parts) - set(PARTS)):
        parser.error(f"--parts: there is no part {', '.join(unknown)}; the parts are {', '.join(PARTS)}")
    return given


def main() -> int:
    """Run one job, or all jobs of the parts that are asked for."""
    given = options()
    if given.job:
        place = Place(given.device, given.dry, given.data_dir, given.folder, given.results)
        JOBS[given.job].run(place, given.job)
        return 0
    import torch

    has_gpu = torch.cuda.is_available()
    if not has_gpu and not given.dry:
        sys.exit("torch finds no NVIDIA GPU: --dry runs everything in small on a CPU")
    given.out.mkdir(parents=True, exist_ok=True)
    results = given.out.absolute() / "results.jsonl"
    results.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        folder = Path(scratch).resolve()
        return run(Place("cuda" if has_gpu else "cpu", given.dry, folder / "data", folder, results), given)


def run(place: Place, given: argparse.Namespace) -> int:
    """Run the parts, and print the tables."""
    from gpu_parts.data import prepare

    end = time.monotonic() + (given.limit or (math.inf if given.dry else LIMIT_S))
    mnist = prepare(place.data_dir, given.data_dir.absolute(), dry=place.dry)
    place.save("machine", "machine", **machine(place), MNIST=mnist)
    for name in given.parts:
        run_part(PARTS[name], place, end)
    with (given.out / "table.txt").open("w") as file:
        show(read_results(place.results), Console(file=file, width=WIDTH))
    return 0 if show(read_results(place.results), Console(width=WIDTH, highlight=False)) else 1


def machine(place: Place) -> dict[str, str]:
    """Return the device, the versions and the commit."""
    import torch

    versions = {name: version(name) for name in PACKAGES}
    device = torch.cuda.get_device_name() if place.device == "cuda" else "CPU, in small"
    return {"device": device, "cores": str(os.cpu_count()), "Python": platform.python_version(), **versions}


if __name__ == "__main__":
    sys.exit(main())
