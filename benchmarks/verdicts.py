"""How often the rules of `litlab reproduce` are wrong: the tables in docs/COMPARE.md.

    python benchmarks/verdicts.py

Runs are simulated, and judged by the functions that judge published claims. The generator is fixed: a run prints the
same tables.
"""

from collections import Counter
from collections.abc import Callable

import numpy as np

from sweeps.reproduction.estimates import (
    Estimate,
    adjusted_p_values,
    binomial_variance,
    estimate_difference,
    estimate_mean,
)
from sweeps.reproduction.measurements import Values
from sweeps.reproduction.rules import (
    COMPARISONS,
    CONTRADICTED,
    EXCEEDED,
    REPRODUCED,
    UNDECIDED,
    conclude,
    judge_value,
    p_value,
)

PATHS, SEED = 10_000, 24
NUMBERS = (3, 5, 10, 30)
SPREADS = (0.1, 0.25, 0.5, 1.0, 2.0)  # standard deviation of the runs, in margins
OTHERS = EXCEEDED, CONTRADICTED
DRAWS: dict[str, Callable[[np.random.Generator, int], np.ndarray]] = {  # with mean 0 and standard deviation 1
    "normal": lambda generator, n: generator.standard_normal(n),
    "Student's t, 3 degrees of freedom": lambda generator, n: generator.standard_t(3, n) / np.sqrt(3),
    "uniform": lambda generator, n: generator.uniform(-np.sqrt(3), np.sqrt(3), n),
    "exponential (skewed)": lambda generator, n: generator.standard_exponential(n) - 1,
}


def runs(values: np.ndarray) -> Values:
    """Return values by seed."""
    return {str(seed): float(value) for seed, value in enumerate(values)}


def mean_of(values: np.ndarray) -> Estimate:
    """Return the estimate from the values of several runs."""
    estimate = estimate_mean(runs(values))
    assert estimate is not None
    return estimate


def judge_values(
    generator: np.random.Generator,
    n: int,
    spread: float,
    offset: float,
    paths: int,
    *,
    noisy: bool = False,
    draw: str = "normal",
) -> Counter[str]:
    """Count the verdicts on a published loss of 0 with a margin of 1, whose true mean is `offset`.

    Args:
        generator: Draws the runs.
        n: Number of runs.
        spread: Their standard deviation.
        offset: Their true mean.
        paths: Number of simulations.
        noisy: The published value is one run more, instead of exactly 0.
        draw: Distribution of the runs, a key of DRAWS.
    """
    words = Counter[str]()
    for _ in range(paths):
        values = offset + spread * DRAWS[draw](generator, n + noisy)
        published = float(values[-1]) - offset if noisy else 0.0
        words[judge_value(mean_of(values[:n]), published, 1.0, lower=True)] += 1
    return words


def judge_accuracies(
    generator: np.random.Generator, n: int, examples: int, paths: int, *, drawn_anew: bool
) -> Counter[str]:
    """Count the verdicts on a published accuracy of 0.935 if both networks are equal, but the test sets differ."""
    accuracy, spread, words = 0.935, 0.01, Counter[str]()
    for _ in range(paths):
        trained = np.clip(accuracy + spread * generator.standard_normal(n + 1), 0, 1)
        published = generator.binomial(examples, trained[-1]) / examples
        if drawn_anew:
            ours = generator.binomial(examples, trained[:n]) / examples
        else:
            ours = trained[:n] + generator.binomial(examples, accuracy) / examples - accuracy
        estimate = mean_of(ours)
        variance = binomial_variance(published, examples)
        variance += 0.0 if drawn_anew else binomial_variance(estimate.mean, examples)
        words[judge_value(estimate, published, (1 - published) / 4, lower=False, variance=variance)] += 1
    return words


def false_discoveries(
    generator: np.random.Generator, n: int, equal: int, different: int, paths: int, *, paired: bool
) -> tuple[float, float]:
    """Judge pages of comparisons; return the mean share of wrong ones among the decided, and of different ones found.

    Args:
        generator: Draws the runs.
        n: Number of runs of each side.
        equal: Comparisons on a page whose sides do not differ.
        different: Comparisons whose sides differ by two standard deviations of the runs.
        paths: Number of pages.
        paired: Whether they are judged in pairs; otherwise the second side has twice the spread.
    """
    wrong, found, allowed = [], [], COMPARISONS["greater"]()
    for _ in range(paths):
        differences = []
        for effect in [0.0] * equal + [2.0] * different:
            one, other = generator.standard_normal((2, n))
            spread = 1.0 if paired else 2.0
            difference = estimate_difference(runs(effect + one), runs(spread * other), paired=paired)
            assert difference is not None
            differences.append(difference)
        p_values = adjusted_p_values([p_value(difference, allowed) for difference in differences])
        words = [conclude(difference, allowed, p) for difference, p in zip(differences, p_values, strict=True)]
        decided = sum(word != UNDECIDED for word in words)
        right = words[equal:].count(REPRODUCED)
        wrong.append((decided - right) / max(decided, 1))
        found.append(right / max(different, 1))
    return float(np.mean(wrong)), float(np.mean(found))


def _percent(words: Counter[str], *chosen: str) -> str:
    return f"{100 * sum(words[word] for word in chosen) / words.total():.1f} %"


def _print_row(*cells: object) -> None:
    print(f"| {' | '.join(map(str, cells))} |")


def _print_header(*cells: str) -> None:
    print()
    _print_row(*cells)
    print("|---" * len(cells) + "|")


def print_values(generator: np.random.Generator) -> None:
    """Print the verdicts on a value if the true mean is at the margin, as published, and if the value is one run."""
    columns = [f"{case}: reproduced" for case in ("true mean as published", "published is one run")]
    others = "undecided", "another"
    _print_header("n", "spread, in margins", "mean at the margin: reproduced", columns[0], *others, columns[1], *others)
    for n in NUMBERS:
        for spread in SPREADS:
            at_margin = judge_values(generator, n, spread, 1.0, PATHS)
            same = judge_values(generator, n, spread, 0.0, PATHS)
            one_run = judge_values(generator, n, spread, 0.0, PATHS, noisy=True)
            cells = [_percent(at_margin, REPRODUCED)]
            for words in (same, one_run):
                cells += [_percent(words, REPRODUCED), _percent(words, UNDECIDED), _percent(words, *OTHERS)]
            _print_row(n, f"{spread:g}", *cells)


def print_distributions(generator: np.random.Generator) -> None:
    """Print the errors for runs that are not normally distributed."""
    _print_header("runs", "n", "at the margin, spread 0.5: reproduced", "published is one run, spread 1: another")
    for draw in DRAWS:
        for n in (3, 10):
            wrong = judge_values(generator, n, 0.5, 1.0, PATHS, draw=draw)
            other = judge_values(generator, n, 1.0, 0.0, PATHS, noisy=True, draw=draw)
            _print_row(draw, n, _percent(wrong, REPRODUCED), _percent(other, *OTHERS))


def print_test_sets(generator: np.random.Generator) -> None:
    """Print how often equal networks are called different because of another test set."""
    _print_header("our test set of 200", "n", "another", "undecided")
    for drawn_anew in (False, True):
        for n in (3, 10):
            words = judge_accuracies(generator, n, 200, PATHS, drawn_anew=drawn_anew)
            name = "drawn for each seed" if drawn_anew else "the same for all seeds"
            _print_row(name, n, _percent(words, *OTHERS), _percent(words, UNDECIDED))


def print_comparisons(generator: np.random.Generator) -> None:
    """Print the errors of pages with many comparisons."""
    _print_header("comparisons", "of them equal", "n", "wrong among the decided", "different ones found")
    for paired in (True, False):
        for equal in (50, 25, 5):
            for n in (3, 10):
                wrong, found = false_discoveries(generator, n, equal, 50 - equal, PATHS // 5, paired=paired)
                name = "50 in pairs" if paired else "50 by Welch's test, spreads 1 and 2"
                power = f"{100 * found:.0f} %" if equal < 50 else ""
                _print_row(name, equal, n, f"{100 * wrong:.1f} %", power)


def main() -> None:
    """Print the tables."""
    for table in (print_values, print_distributions, print_test_sets, print_comparisons):
        table(np.random.default_rng(SEED))


if __name__ == "__main__":
    main()
