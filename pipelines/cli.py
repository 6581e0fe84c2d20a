"""The `litlab` command: verbs and their modules. Only the module of the given verb is imported."""

import atexit
import contextlib
import gc
import importlib
import logging
import os
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from typing import NoReturn

from pipelines.runtime.errors import UserError
from pipelines.runtime.log import configure_logging, logger
from pipelines.runtime.process import exit_with_rank_zero

VERBS = {
    "list": ("pipelines.commands.list", "list the experiments"),
    "fit": ("pipelines.commands.fit", "train an experiment and test its best epoch, as one MLflow run"),
    "resume": ("pipelines.commands.resume", "resume an interrupted training in the same run"),
    "sync": ("pipelines.commands.sync", "send data that a tracking server or database could not receive"),
    "validate": ("pipelines.commands.evaluate", "evaluate a finished run on its validation set"),
    "test": ("pipelines.commands.evaluate", "evaluate a finished run on its test set"),
    "predict": ("pipelines.commands.predict", "classify image files with the model of a finished run"),
    "sweep": ("sweeps.commands.sweep", "search hyperparameters with Optuna; every trial is a run"),
    "compare": ("pipelines.commands.compare", "compare finished runs: mean, spread and differences over seeds"),
    "report": ("pipelines.commands.report", "write a self-contained HTML report of a study or an experiment"),
    "reproduce": ("sweeps.commands.reproduce", "run the published experiments and judge each published claim"),
    "register": ("pipelines.commands.register", "register a run's model in MLflow's model registry"),
    "baseline": ("pipelines.commands.baseline", "train a scikit-learn model on the same data, in the same MLflow"),
    "inspect": ("pipelines.commands.inspect", "show layers: sizes, parameters, multiply-adds, receptive fields"),
    "explain": ("pipelines.commands.explain", "explain a trained network: what it has learned, and what fools it"),
    "doctor": ("pipelines.commands.doctor", "check the installation and repair what can be repaired"),
    "ui": ("pipelines.commands.ui", "open the MLflow UI on this project's runs"),
}
FIT_SEEDS = "sweeps.commands.fit_seeds"  # of `litlab fit --seeds N`


def console() -> NoReturn:
    """Run the command of this process, and end the process.

    Taking the interpreter apart after torch was imported takes up to 2.4 s; the exit functions run, then the process
    ends. Collecting garbage during the imports would take a fifth of their time.
    """
    code = 1
    atexit.register(lambda: _end_process(code))  # first, so that it is called last
    gc.set_threshold(100_000, 20, 100)
    try:
        code = main()
    except SystemExit as stop:
        code = int(stop.code or 0) if isinstance(stop.code, int | None) else 1
        raise
    sys.exit(code)


def _end_process(code: int) -> None:
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # closed by its reader
            stream.flush()
    os._exit(code)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code.

    0: success, 1: a run failed, 2: invalid request, 130: stopped by Ctrl-C, 141: the output was closed by its reader.
    """
    limit_thread_spinning()
    configure_logging()
    exit_with_rank_zero()
    verb, *args = (sys.argv[1:] if argv is None else list(argv)) or ["--help"]
    try:
        try:
            return _run_verb(verb, args)
        finally:
            sys.stdout.flush()
    except UserError as error:
        logger.error(str(error))
        return 2
    except KeyboardInterrupt:
        logger.error("stopped")
        return 130
    except BrokenPipeError:  # the reader has closed the pipe, as in `litlab list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes it at exit
        return 141  # 128 + SIGPIPE, a signal that Windows has not


def _run_verb(verb: str, args: Sequence[str]) -> int:
    if verb in ("-h", "--help"):
        print(_usage())
        return 0
    if verb not in VERBS:
        raise UserError(f"unknown command {verb!r}{_suggest(verb)}; the commands are {', '.join(VERBS)}")
    name, _ = VERBS[verb]
    if verb == "fit" and any(arg.partition("=")[0] == "--seeds" for arg in args):
        name = FIT_SEEDS
    return int(importlib.import_module(name).main(verb, args))


def limit_thread_spinning() -> None:
    """Limit how long torch's idle threads spin between two operations. Must be called before torch is imported.

    Spinning threads keep cores busy, and slow one another down many times over on a shared machine.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "10000")  # read by the OpenMP library when it is loaded


def _usage() -> str:
    lines = [f"  {verb:<10}{summary}" for verb, (_, summary) in VERBS.items()]
    return "\n".join(
        [
            "usage: litlab VERB ...",
            "",
            *lines,
            "",
            "Details: litlab VERB --help. To start: litlab fit digits-mlp, then litlab ui",
        ]
    )


def _suggest(verb: str) -> str:
    suggestions = get_close_matches(verb, VERBS, n=1)
    return f" (did you mean {suggestions[0]}?)" if suggestions else ""
