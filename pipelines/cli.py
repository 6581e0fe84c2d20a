"""The `litlab` command: a verb, and the module that does it. Only the module of the verb that is called is imported."""

import importlib
import os
import signal
import sys
from collections.abc import Sequence
from difflib import get_close_matches

from pipelines.runtime.errors import UserError
from pipelines.runtime.gc_pause import gc_paused_for_import
from pipelines.runtime.log import configure_logging
from pipelines.runtime.process import exit_with_rank_zero
from pipelines.runtime.text import escape_control_characters

VERBS = {
    "list": ("pipelines.commands.list", "show the experiments"),
    "fit": ("pipelines.training.fit", "train an experiment, test the best checkpoint, keep everything in one run"),
    "resume": ("pipelines.training.resume", "go on with a training that was stopped, in the same run"),
    "sync": ("pipelines.tracking.sync", "send what a server or database that was away could not take"),
    "validate": ("pipelines.evaluation.evaluate", "measure a finished run again on its validation set"),
    "test": ("pipelines.evaluation.evaluate", "measure a finished run again on its test set"),
    "predict": ("pipelines.evaluation.predict", "classify image files with a finished run"),
    "sweep": ("sweeps.search.sweep", "search an experiment's keys with Optuna; every trial is a run"),
    "compare": ("pipelines.commands.compare", "compare finished runs: mean, spread and difference over seeds"),
    "report": ("pipelines.commands.report", "write one HTML page of a study or an experiment, to archive and to share"),
    "reproduce": ("sweeps.reproduction.reproduce", "run the published experiments, and judge each published claim"),
    "register": ("pipelines.tracking.register", "put a run's model into MLflow's model registry"),
    "baseline": ("pipelines.evaluation.baseline", "what scikit-learn does with the same data, in the same MLflow"),
    "inspect": (
        "pipelines.inspection.model_summary",
        "layers of a network: sizes, parameters, multiply-adds, receptive fields",
    ),
    "explain": ("pipelines.explanation.explain", "look inside a trained network: what it sees, and what fools it"),
    "doctor": ("pipelines.diagnostics.doctor", "look whether all is well here; say, or mend, what is not"),
    "ui": ("pipelines.tracking.ui", "open the MLflow UI on this project's runs"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code.

    0 done, 1 a run failed, 2 the user's mistake, 130 stopped by Ctrl-C, 141 nobody reads its output.
    """
    calm_threads()
    configure_logging()
    exit_with_rank_zero()
    verb, *rest = (sys.argv[1:] if argv is None else list(argv)) or ["--help"]
    try:
        try:
            return _call(verb, rest)
        finally:
            sys.stdout.flush()
    except UserError as error:
        print(f"litlab: {escape_control_characters(str(error))}", file=sys.stderr)  # it may quote what others wrote
        return 2
    except KeyboardInterrupt:
        print("litlab: stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:  # nobody reads on, as in `litlab list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what Python writes at its end
        return 128 + signal.SIGPIPE


def _call(verb: str, rest: Sequence[str]) -> int:
    if verb in ("-h", "--help"):
        print(_usage())
        return 0
    if verb not in VERBS:
        raise UserError(f"{verb!r} is no command{_suggest(verb)}; the commands are {', '.join(VERBS)}")
    several = verb == "fit" and any(token.partition("=")[0] == "--seeds" for token in rest)
    name = "sweeps.seeds.fit_seeds" if several else VERBS[verb][0]
    if name == "pipelines.training.fit":
        from pipelines.tracking import prestart as ahead

        ahead.start(rest)
    with gc_paused_for_import(name):
        module = importlib.import_module(name)
    return int(module.main(verb, rest))


def calm_threads() -> None:
    """Keep torch's idle threads from spinning while Python works; to be called before torch is imported.

    They would burn a core between two operations, and slow one another down many times over on a shared machine.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "10000")  # the OpenMP library reads it when it is loaded


def _usage() -> str:
    lines = [f"  {verb:<10}{summary}" for verb, (_, summary) in VERBS.items()]
    return "\n".join(
        [
            "usage: litlab VERB ...",
            "",
            *lines,
            "",
            "litlab VERB --help says more. First: litlab fit digits-mlp, then litlab ui",
        ]
    )


def _suggest(verb: str) -> str:
    near = get_close_matches(verb, VERBS, n=1)
    return f" (did you mean {near[0]}?)" if near else ""
