"""The options of `--cluster`, and the pool that they ask for. Imports Ray only for a cluster."""

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pipelines.commands.options import VerbParser
from pipelines.runtime.errors import UserError
from sweeps.cluster.place import Place

if TYPE_CHECKING:
    from sweeps.workers.pool import Pool

INSTALL = '--cluster needs Ray: pip install "litlab[ray]"'

StackSize = int | Literal["auto"]
"""Number of models that a worker trains as one; "auto" for as many as fit in memory."""
AUTO: Literal["auto"] = "auto"

SETTINGS = {  # of a cluster that litlab starts; docs/CLUSTERS.md has those of one that `ray start` starts
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",  # by default, agents and trainings would run at nice 15
    "RAY_memory_monitor_refresh_ms": "0",  # it could kill an agent with all its trainings, instead of one training
    "RAY_AUTH_MODE": "token",
}


def make_pool(place: Place, folder: Path, timeout_s: float | None = None, *, system_metrics: bool = False) -> "Pool":
    """Return a pool of worker processes on this machine or on a cluster; for the other arguments see `Pool`.

    Raises:
        UserError: A number or the address is invalid, or Ray is not installed.
    """
    place.check()
    if place.cluster is None:
        from sweeps.workers.pool import Pool

        return Pool(1 if place.workers is None else place.workers, folder, timeout_s, system_metrics=system_metrics)
    if place.cluster == "local" and "ray" not in sys.modules:  # which reads them when it is imported
        os.environ |= {name: value for name, value in SETTINGS.items() if name not in os.environ}
    try:
        from sweeps.cluster.pool import ClusterPool
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "ray":
            raise
        raise UserError(INSTALL) from error
    return ClusterPool(place, folder, timeout_s, system_metrics=system_metrics)


def add_place_options(parser: VerbParser) -> None:
    """Add `--workers` and the options of a cluster to a short page."""
    help_text = "trainings in parallel; they share cores and GPUs (1)"
    parser.add_argument("--workers", type=int, metavar="N", help=help_text)
    add_cluster_options(parser, short=True)


def add_stacked(parser: VerbParser) -> None:
    """Add `--stacked`, which is 1 if it is not given, and "auto" without a number."""
    help_text = "models trained as one (1); without N, as many as fit"
    parser.add_argument("--stacked", nargs="?", type=_size, default=1, const=AUTO, metavar="N", help=help_text)


def _size(text: str) -> StackSize:
    if text == AUTO:
        return AUTO
    try:
        return int(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no number; the name comes before --stacked") from error


def check_stacked(size: StackSize) -> None:
    """Refuse a size of a stack that is no positive number.

    Raises:
        UserError: It is not.
    """
    if size != AUTO and size < 1:
        raise UserError(f"--stacked {size}: expected at least 1")


def add_cluster_options(parser: VerbParser, *, short: bool = False) -> None:
    """Add `--cluster`, `--cpus` and `--gpus`; a short page has one line for them."""
    where = "Ray: local, auto or HOST:PORT" + ("; --cpus, --gpus: each" if short else " (docs/CLUSTERS.md)")
    parser.add_argument("--cluster", metavar="WHERE", help=where)
    shared = {"--cpus": "CPUs of each training on a cluster", "--gpus": "GPUs of each; 0.5: two share one"}
    for name, text in shared.items():
        parser.add_argument(name, type=float, metavar="N", help=argparse.SUPPRESS if short else text)
