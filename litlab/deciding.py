"""Decide between two configurations: `decide`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from litlab.arguments import Overrides, given, key_arguments
from litlab.call import training_call
from litlab.errors import RunFailedError
from litlab.run import Run, uri_of
from litlab.several_seeds import place_of, raise_stop
from pipelines.runtime.text import format_command
from sweeps.decide.levels import MAX_SEEDS

if TYPE_CHECKING:
    import pandas as pd

    from sweeps.decide.decision import Decision as Decided

CONTINUES = "The same call continues."
Configuration = str | Path | Run  # annotations with quotes are short in `help`


class Decision:
    """Which of two configurations is better. `litlab.decide` returns it.

    Attributes:
        verdict: "first" or "second", whichever is better; "equal" within the margin, or "undecided".
        better: The better one, as it was named; None if they are equal or it is undecided.
        metric: What was compared, such as "selected/val/acc".
        difference: Mean of the first minus the second.
        interval: Ends of its 95 % interval, which is valid however often it was looked at.
        n: Number of pairs of seeds.
        looks: A row for each look.
        run: The run that records it.
        runs: The runs of the first and those of the second, in the order of their seeds.
    """

    def __init__(self, decided: "Decided") -> None:
        from sweeps.decide.decision import FIRST, SECOND, evidence, headline

        assert decided.measure is not None
        last, uri = decided.looks[-1], decided.tracking_uri
        self.verdict, self.metric = decided.verdict, decided.measure.metric
        self.better = dict(zip((FIRST, SECOND), decided.names, strict=True)).get(decided.verdict)
        self.difference, self.interval, self.n = last.difference, (last.low, last.high), last.n
        self.run = Run(decided.run_id, uri)
        self.runs = [[Run(run.run_id, uri) for run in side] for side in decided.runs]
        self._looks, self._text = decided.looks, f"{headline(decided)}; {evidence(decided)}"

    @property
    def looks(self) -> "pd.DataFrame":
        """A row for each look: number of pairs, difference, ends of the interval, and what it tells."""
        import pandas as pd

        return pd.DataFrame(self._looks)

    def __repr__(self) -> str:
        return f"<litlab.Decision {self._text}>"


def decide(
    first: "Configuration",
    second: "Configuration",
    *,
    margin: float,
    metric: str | None = None,
    max_seeds: int = MAX_SEEDS,
    seed: int = 0,
    workers: int | None = None,
    cluster: str | None = None,
    cpus: float | None = None,
    gpus: float | None = None,
    overrides: "Overrides | None" = None,
    tracking_uri: str | None = None,
) -> "Decision":
    """Train two configurations with the same seeds until an interval tells which is better, like `litlab decide`.

    The same call continues after a stop: seeds that are done are not trained again.

    Args:
        first: Name of an experiment, path of a YAML file, or a run, whose configuration counts.
        second: The other one.
        margin: Differences that are smaller do not matter: the two are equal if the interval is within it.
        metric: What is compared, such as "val/acc" at the selected epoch; default: the metric that selects it.
        max_seeds: Number of seeds at which it ends undecided; to be fixed beforehand.
        seed: The first seed.
        workers: Trainings in parallel; default: one, or all that a cluster has room for.
        cluster: A Ray cluster on which to train, see `fit`; also for the two below.
        cpus: CPUs of each training there.
        gpus: GPUs of each training there.
        overrides: Keys of both, such as {"trainer.max_epochs": 5}.
        tracking_uri: Where the runs are; default: MLFLOW_TRACKING_URI, else the project's mlflow.db.

    Raises:
        UserError: The request is invalid, or the two cannot be compared.
        RunFailedError: A seed failed.
        KeyboardInterrupt: The user stopped it.
    """
    from sweeps.decide.sides import read_sides

    uri = tracking_uri
    for each in (first, second):
        uri = uri_of(each, uri) if isinstance(each, Run) else uri
    one, other = (each.id if isinstance(each, Run) else str(each) for each in (first, second))
    keys = key_arguments(overrides)
    sides = read_sides((one, other), keys, uri)
    options: dict[str, Any] = {"margin": margin, "max_seeds": max_seeds, **given(metric=metric)}
    place = place_of(workers, cluster, cpus, gpus)
    shown = key_arguments({**options, "seed_everything": seed, **place, **given(tracking_uri=uri)})
    command = format_command("decide", [one, other, *shown, *keys])
    with training_call():
        from sweeps.decide.decide import decide as run

        decided = run((one, other), sides, **options, **place, first_seed=seed, tracking_uri=uri, command=command)
    raise_stop(decided.stop_signal, CONTINUES)
    if decided.failed:
        reasons = "; ".join(result.failure for result in decided.failed)
        parent = next(parent for parent in decided.parents if parent is not None)
        raise RunFailedError(f"{reasons}. {CONTINUES}", Run(parent, decided.tracking_uri))
    return Decision(decided)
