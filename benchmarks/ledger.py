"""How often the interval of a configuration that was chosen on the test set contains its true value.

    python benchmarks/ledger.py

All k configurations of a simulation have the same true value, and the best is chosen by the test. The tables in
docs/COMPARE.md show how often its usual 95 % interval contains the true value, and how often the corrected one of
`litlab compare` does. For the last table, the runs are written to a store, and `compare` reads them.
"""

import json
import tempfile
from collections.abc import Iterator

import numpy as np
from mlflow.entities import Dataset, DatasetInput, Metric, Param, RunTag

from pipelines.comparison.compare import compare
from pipelines.comparison.corrected import binomial_interval, corrected_interval
from pipelines.comparison.intervals import LEVEL, UNBOUNDED, Interval, summarize
from pipelines.tracking.store import Store

REPEATS, STORES, SEED = 2000, 20, 24
BOUNDS = (0.0, 1.0)
SHARES, RIGHT = (0.9, 0.08, 0.02), (0.99, 0.6, 0.0)  # of easy, fair and hard examples; how often each is right
SPREAD = 0.1  # standard deviation, over seeds, of the share of right ones among the fair examples
ACCURACY = sum(share * right for share, right in zip(SHARES, RIGHT, strict=True))
Intervals = tuple[Interval, Interval]  # usual and corrected


def networks(generator: np.random.Generator, k: int, examples: int) -> Iterator[Intervals]:
    """Yield the intervals of the best of k trained networks, which are right on each example with ACCURACY."""
    best = generator.binomial(examples, ACCURACY, (REPEATS, k)).max(1) / examples
    for share in best:
        corrected = corrected_interval([share], k, examples, BOUNDS)
        assert corrected is not None
        yield binomial_interval(share, examples, LEVEL), corrected


def accuracies(generator: np.random.Generator, k: int, examples: int, n: int) -> Iterator[Intervals]:
    """Yield the intervals of the best of k configurations with n seeds; each test set is a new sample."""
    for sizes in generator.multinomial(examples, SHARES, REPEATS):
        fair = np.clip(RIGHT[1] + SPREAD * generator.standard_normal((k, n)), 0, 1)
        right = generator.binomial(sizes[0], RIGHT[0], (k, n)) + generator.binomial(sizes[1], fair)
        yield _of_best(right / examples, k, examples)


def losses(generator: np.random.Generator, k: int, n: int, unequal: float) -> Iterator[Intervals]:
    """Yield the intervals of the best of k configurations whose spreads over seeds differ by a log-normal factor."""
    for _ in range(REPEATS):
        spreads = np.exp(unequal * generator.standard_normal((k, 1)))
        yield _of_best(spreads * generator.standard_normal((k, n)), k, None)


def _of_best(values: np.ndarray, k: int, examples: int | None) -> Intervals:
    best = values[values.mean(1).argmax()].tolist()
    bounds = BOUNDS if examples else UNBOUNDED
    usual, corrected = summarize(best, bounds).ci95, corrected_interval(best, k, examples, bounds)
    assert usual is not None
    assert corrected is not None
    return usual, corrected


def coverage(found: Iterator[Intervals], true: float) -> str:
    """Return how often the usual and the corrected intervals contain the true value, and their median widths."""
    ends = np.array(list(found))  # shape (REPEATS, 2, 2)
    shares = ((ends[..., 0] <= true) & (true <= ends[..., 1])).mean(0)
    widths = np.median(ends[..., 1] - ends[..., 0], 0) / 2
    return " | ".join(f"{100 * share:.1f} % (± {width:.3g})" for share, width in zip(shares, widths, strict=True))


def in_stores(generator: np.random.Generator, uri: str, k: int, examples: int) -> tuple[int, int]:
    """Return how often `compare` flags the best of k networks, and how often its corrected interval is right."""
    store, flagged, covered = Store(uri), 0, 0
    profile = json.dumps({"sizes": {"test": examples}})
    for number in range(STORES):
        place, digest = store.experiment_id(f"simulation-{number}"), f"{number:064x}"
        for config, share in enumerate(generator.binomial(examples, ACCURACY, k) / examples):
            tags = {"data.sha256.test": digest, "litlab.config_hash": f"{number} {config}"}
            run_id = store.client.create_run(place).info.run_id
            entities = [RunTag(key, value) for key, value in tags.items()]
            store.client.log_batch(run_id, [Metric("test/acc", share, 0, 0)], [Param("lr", str(config))], entities)
            store.client.log_inputs(run_id, [DatasetInput(Dataset("d", "d", "litlab", "{}", profile=profile))])
            store.client.set_terminated(run_id)
        looks = compare([f"simulation-{number}"], tracking_uri=uri).looks
        flagged += looks is not None and looks.count == k
        interval = None if looks is None else looks.intervals[1]
        covered += interval is not None and interval[0] <= ACCURACY <= interval[1]
    return flagged, covered


def main() -> None:
    """Print the tables."""
    generator = np.random.default_rng(SEED)
    print("| configurations | seeds | test examples | usual | corrected |\n|---|---|---|---|---|")
    for k in (5, 50):
        for examples in (360, 10_000):
            print(f"| {k} | 1 | {examples:,} | {coverage(networks(generator, k, examples), ACCURACY)} |")
            for n in (2, 3, 5, 10):
                found = coverage(accuracies(generator, k, examples, n), ACCURACY)
                print(f"| {k} | {n} | {examples:,} | {found} |", flush=True)
    print("\n| configurations | seeds | spreads | usual | corrected |\n|---|---|---|---|---|")
    for k in (5, 50):
        for n in (3, 5, 10):
            for unequal, name in ((0.0, "equal"), (1.0, "unequal")):
                print(f"| {k} | {n} | {name} | {coverage(losses(generator, k, n, unequal), 0.0)} |", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        flagged, covered = in_stores(generator, f"sqlite:///{folder}/mlflow.db", 50, 360)
    print(f"\nof {STORES} stores with 50 runs: flagged {flagged}, covered by the corrected interval {covered}")


if __name__ == "__main__":
    main()
