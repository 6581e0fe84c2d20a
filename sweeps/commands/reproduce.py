"""`litlab reproduce`: run the published experiments, and judge each published claim."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from pipelines.commands.options import VerbParser
from pipelines.runtime.gc_pause import gc_paused_for_import
from pipelines.runtime.log import logger
from pipelines.runtime.text import format_command

HELP = """usage: litlab reproduce [ID ...] [--tier quick|full] [options]

Run the published experiments with several seeds each, and judge each published
claim by a rule that was written down before the runs. Finished runs with the
same configuration are reused. Run the same command again to continue after a
stop.

  ID               published experiments (all); an unknown id lists them
  --tier quick     minutes on 2 CPU cores, on data that come with litlab:
                     digits instead of MNIST and CIFAR-10 (the default)
  --tier full      hours, on the published data
  --seeds 3        runs of each experiment
  --workers 2      trainings in parallel; they share the CPU cores (one for
                     each core, at most 4; with a GPU, one)
  --as-is          train nothing: judge the runs that exist
  --data_dir DIR   folder of MNIST and CIFAR-10 (data)
  --out DIR        folder for RESULTS.md and results.html (reproduction; docs
                     for all of the full tier)
  --tracking_uri URI   database or server of the runs (default: mlflow.db)"""


def main(verb: str, argv: Sequence[str]) -> int:
    """Parse `litlab reproduce [ID ...] [--tier quick|full] [--seeds N]`, reproduce, and print the summary."""
    options = _parse(verb, argv)
    from pipelines.runtime.signals import exit_on_sigterm

    exit_on_sigterm()
    with gc_paused_for_import("sweeps.reproduction.reproduce"):
        from sweeps.reproduction.reproduce import reproduce
    from sweeps.reproduction.results_page import summary_sentence

    result = reproduce(
        options.ids,
        tier=options.tier,
        seeds=options.seeds,
        workers=options.workers,
        train=not options.as_is,
        data_dir=options.data_dir,
        out=options.out,
        tracking_uri=options.tracking_uri,
        command=format_command(verb, argv),
    )
    if result.stop_signal is not None:
        logger.warning("stopped. Run the same command again to continue.")
        return 128 + result.stop_signal
    print(*result.pages, summary_sentence(result), sep="\n")
    return 1 if result.failures else 0


def _parse(verb: str, argv: Sequence[str]) -> argparse.Namespace:
    parser = VerbParser(verb, HELP)
    parser.add_argument("ids", nargs="*", metavar="ID")
    parser.add_argument("--tier", choices=("quick", "full"), default="quick")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--workers", type=int)
    parser.add_argument("--as-is", action="store_true")
    parser.add_argument("--data_dir", "--data-dir", type=Path)
    parser.add_argument("--out", type=Path)
    return parser.parse(argv)
