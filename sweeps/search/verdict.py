"""What the confirmation says: whether the best configuration is better than the experiment as it is."""

from collections.abc import Mapping, Sequence

from pipelines.comparison.formatting import fixed_spec, format_mean_sd
from pipelines.comparison.intervals import paired_difference, summarize
from pipelines.comparison.row import overlap
from pipelines.comparison.rows import default_metric
from pipelines.runtime.metric_names import bounds_of, mode_of, without_split
from pipelines.tracking.measured import test_metrics
from pipelines.tracking.store import StoredRun
from pipelines.tracking.tags import NOT_BETTER
from sweeps.search.selection import MODES
from sweeps.search.space import Space

Confirmed = dict[str, list[StoredRun]]  # "best" and "default": the finished runs on fresh seeds


def judge_confirmation(confirmed: Confirmed, space: Space) -> str:
    """Return a sentence: "not better than the default: test/acc 0.9375 ± 0.0295 against 0.9611 ± 0.0039 (n = 3)".

    It is judged by the test metric that the search optimised on validation data, or else by the one that `compare`
    would take; the runs are paired by seed.

    Returns:
        The sentence; "" if there is nothing to compare.
    """
    best, default = confirmed.get("best", []), confirmed.get("default", [])
    if "default" not in confirmed:
        return "the default itself: no other configuration was better in the search" if best else ""
    tested = [test_metrics(run.metrics, run.tags) for run in (*best, *default)]
    names = set.intersection(*(set(metrics) for metrics in tested)) if best and default else set()
    if not names:
        return ""
    searched = sorted(name for name in names if without_split(name) == without_split(space.metric))
    usual = default_metric([*best, *default])
    metric = searched[0] if searched else usual if usual in names else min(names)
    lower = (MODES[space.direction] if searched else mode_of(metric)) == "min"
    ours, theirs = _by_seed(best, metric), _by_seed(default, metric)
    bounds = bounds_of(metric, [*ours.values(), *theirs.values()])
    difference = paired_difference(ours, theirs, bounds, max(overlap(best), overlap(default)))
    means = [summarize(list(values.values())) for values in (ours, theirs)]
    spec = fixed_spec(max(abs(summary.mean) for summary in means))
    texts = [format_mean_sd(summary.mean, summary.sd, spec) for summary in means]
    is_better = means[0].mean < means[1].mean if lower else means[0].mean > means[1].mean
    noises = {True: " by less than the noise", None: ", but so few runs tell little", False: ""}
    noise = noises[difference.within_noise] if is_better else ""
    word = f"better than the default{noise}" if is_better else f"{NOT_BETTER} than the default"
    return f"{word}: {metric} {texts[0]} against {texts[1]} (n = {_counts(ours, theirs)})"


def _by_seed(runs: Sequence[StoredRun], metric: str) -> dict[str, float]:
    return {run.repeat: run.metrics[metric] for run in runs}


def _counts(ours: Mapping[str, float], theirs: Mapping[str, float]) -> str:
    return str(len(ours)) if len(ours) == len(theirs) else f"{len(ours)} and {len(theirs)}"
