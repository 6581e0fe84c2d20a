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

from pipelines.commands.verbs import FIT_SEEDS, VERBS
from pipelines.runtime.errors import UserError
from pipelines.runtime.log import configure_logging, logger
from pipelines.runtime.process import GC_THRESHOLDS, exit_with_rank_zero
from pipelines.runtime.status import clear_status


def console() -> NoReturn:
    """Run the command of this process, and end the process.

    The exit functions run, but the interpreter is not taken apart: after torch was imported, that takes up to 2.4 s.
    """
    code = 1
    atexit.register(lambda: _end_process(code))  # first, so that it is called last
    gc.set_threshold(*GC_THRESHOLDS)
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
            clear_status()
            sys.stdout.flush()
    except UserError as error:
        logger.error(str(error))
        return error.exit_code
    except KeyboardInterrupt:
        logger.error("stopped")
        return 130
    except BrokenPipeError:  # the reader has closed the pipe, as in `litlab list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes it at exit
        return 141  # 128 + SIGPIPE, a signal that Windows has not
    except Exception as error:
        from pipelines.runtime.user_traceback import user_traceback

        if (found := user_traceback(error)) is None:
            raise
        found.show()
        return 2


def _run_verb(verb: str, args: Sequence[str]) -> int:
    if verb.startswith("-"):
        _print_about([verb, *args])
        return 0
    if verb not in VERBS:
        suggestions = get_close_matches(verb, VERBS, n=1)
        hint = f" (did you mean {suggestions[0]}?)" if suggestions else ""
        raise UserError(f"unknown command {verb!r}{hint}; the commands are {', '.join(VERBS)}")
    name, _ = VERBS[verb]
    if verb == "fit" and any(arg.partition("=")[0] in ("--seeds", "--folds") for arg in args):
        name = FIT_SEEDS
    return int(importlib.import_module(name).main(verb, args))


def limit_thread_spinning() -> None:
    """Limit how long torch's idle threads spin between two operations. Must be called before torch is imported.

    Spinning threads keep cores busy, and slow one another down many times over on a shared machine.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "10000")  # read by the OpenMP library when it is loaded


def _print_about(argv: Sequence[str]) -> None:
    """Print the list of verbs or the version."""
    from pipelines.commands.options import VerbParser

    verbs = "\n".join(f"  {verb:<10}  {summary}" for verb, (_, summary) in VERBS.items())
    title = "verbs (details: litlab VERB --help; to start: litlab fit digits-mlp, litlab ui):"
    parser = VerbParser("", f"{title}\n{verbs}", usage="VERB ...")
    parser.add_argument("--version", action="store_true", help="print the version")
    parser.parse(argv)
    from importlib.metadata import version  # takes longer than all of the help

    print(f"litlab {version('litlab')}")
