"""Runs that stand for others, such as a study's: what they searched and found, as tables."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pipelines.comparison.formatting import fixed_spec, format_mean_sd
from pipelines.reporting.html_page import image
from pipelines.reporting.provenance import Pairs, command_of
from pipelines.tracking.store import Store
from pipelines.tracking.tags import BEST_RUN_TAG, BEST_TRIAL_TAG, NOTE_TAG, PARENT_TAG

if TYPE_CHECKING:
    from markupsafe import Markup

CAPTIONS = {
    "history": "Every trial in the order of the search, and the best one until then",
    "slice": "What each trial came to, against each key that was searched",
    "parallel_coordinate": "Trials as lines through the keys that were searched",
    "importance": "How much of the differences between trials each key explains",
    "configurations": "The best configurations: mean (diamond), and each seed (dot)",
}
# As sweeps/record.py logs them.
CONFIRMED = {"": "the best, on fresh seeds", "default/": "the experiment as it is, same seeds"}
_SPACE, _IMPORTANCE, _TRIALS, _TEST = "space.", "importance/", "trials/", "test/"


@dataclass(frozen=True)
class Picture:
    """A figure that a run keeps."""

    element: "Markup"
    caption: str


@dataclass(frozen=True)
class Parent:
    """What is to be shown of a run that stands for others.

    Attributes:
        title: Its name.
        facts: Status, command and settings.
        space: Key, values that were searched, value of the best trial, importance.
        trials: State, and the number of trials.
        header: Of the confirmation.
        confirmed: Configuration, test metrics, number of runs.
        pictures: Its figures.
        note: As it keeps it, in Markdown.
        missing: What could not be read, one sentence each.
    """

    title: str
    facts: Pairs
    space: list[tuple[str, str, str, str]]
    trials: Pairs
    header: list[str]
    confirmed: list[list[str]]
    note: str
    pictures: list[Picture] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)


def parent(store: Store, run_id: str) -> Parent:
    """Read a run that stands for others.

    Args:
        store: Where it is.
        run_id: Its id.
    """
    run = store.client.get_run(run_id)
    params, metrics, tags = run.data.params, run.data.metrics, run.data.tags
    best, missing = _best(store, tags.get(BEST_RUN_TAG))
    header, confirmed = _confirmation(metrics)
    pictures, unread = _pictures(store, run_id)
    facts = [("kind", tags.get(PARENT_TAG, "sweep")), ("run", run_id), ("status", str(run.info.status))]
    facts += [("command", command_of(tags))]
    facts += [(key, value) for key, value in sorted(params.items()) if not key.startswith(_SPACE)]
    facts += [
        (f"best {key.removeprefix('best/')}", format_mean_sd(metrics[key], spec=fixed_spec(metrics[key])))
        for key in metrics
        if key.startswith("best/")
    ]
    facts += [
        (name, tags[key]) for name, key in (("best trial", BEST_TRIAL_TAG), ("its run", BEST_RUN_TAG)) if key in tags
    ]
    return Parent(
        title=str(run.info.run_name or run_id),
        facts=facts,
        space=_space(params, best, metrics),
        trials=[(key.removeprefix(_TRIALS), f"{metrics[key]:.0f}") for key in metrics if key.startswith(_TRIALS)],
        header=header,
        confirmed=confirmed,
        note=tags.get(NOTE_TAG, ""),
        pictures=pictures,
        missing=[*missing, *unread],
    )


def _best(store: Store, run_id: str | None) -> tuple[Mapping[str, str], list[str]]:
    """The params of the best trial's run; none if it is gone."""
    from mlflow.exceptions import MlflowException

    if not run_id:
        return {}, []
    try:
        return store.client.get_run(run_id).data.params, []
    except MlflowException as error:
        return {}, [f"the best trial's run {run_id} cannot be read: {str(error).splitlines()[0]}"]


def _space(params: Mapping[str, str], best: Mapping[str, str], metrics: Mapping[str, float]) -> Any:
    """The keys that were searched, the most important ones first."""
    keys = [key.removeprefix(_SPACE) for key in params if key.startswith(_SPACE)]
    keys.sort(key=lambda key: (-metrics.get(f"{_IMPORTANCE}{key}", 0.0), key))
    weights = {key: metrics.get(f"{_IMPORTANCE}{key}") for key in keys}
    shown = {key: "" if weight is None else f"{weight:.2f}" for key, weight in weights.items()}
    return [(key, params[f"{_SPACE}{key}"], best.get(key, ""), shown[key]) for key in keys]


def _confirmation(metrics: Mapping[str, float]) -> tuple[list[str], list[list[str]]]:
    """The best configuration, and the experiment's own, on seeds that the search has not used."""
    if "confirmed" not in metrics:
        return [], []
    keys = [key for key in sorted(metrics) if key.startswith(_TEST) and not key.endswith("_std")]
    rows = []
    for prefix, words in CONFIRMED.items():
        if f"{prefix}confirmed" in metrics:
            cells = [_spread(metrics, prefix + key) for key in keys]
            rows.append([words, *cells, f"{metrics[f'{prefix}confirmed']:.0f}"])
    return ["configuration", *keys, "n"], rows


def _spread(metrics: Mapping[str, float], key: str) -> str:
    if key not in metrics:
        return ""
    return format_mean_sd(metrics[key], metrics.get(f"{key}_std"), fixed_spec(metrics[key]))


def _pictures(store: Store, run_id: str) -> tuple[list[Picture], list[str]]:
    """The PNG figures of a run, and what cannot be read."""
    from mlflow.exceptions import MlflowException

    pictures, missing = [], []
    try:
        paths = [entry.path for entry in store.client.list_artifacts(run_id, "figures")]
        for path in sorted(path for path in paths if path.endswith(".png")):
            name = path.rpartition("/")[2].removesuffix(".png")
            caption = CAPTIONS.get(name, name.replace("_", " "))
            pictures.append(Picture(image(store.find(run_id).file(path).read_bytes(), caption), caption))
    except (MlflowException, OSError, ValueError) as error:
        missing.append(f"figures of run {run_id} cannot be read: {str(error).splitlines()[0]}")
    return pictures, missing or ([] if pictures else [f"run {run_id} keeps no figures"])
