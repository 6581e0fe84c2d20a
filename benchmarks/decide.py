"""How often `litlab decide` is wrong, and how many seeds it needs: the table in docs/COMPARE.md.

    python benchmarks/decide.py

Differences are simulated, in units of their standard deviation, and judged by the rule that the command applies.
"""

from collections.abc import Callable

import numpy as np

from sweeps.decide.levels import level_of, looks_until
from sweeps.decide.rule import EQUAL, HIGHER, LOWER, UNDECIDED, conclusions, repeated_interval

PATHS, SEED = 40_000, 24
Draw = Callable[[np.random.Generator, tuple[int, int]], np.ndarray]

DISTRIBUTIONS: dict[str, Draw] = {  # each has mean 0 and standard deviation 1
    "normal": lambda generator, shape: generator.standard_normal(shape),
    "Student's t, 3 degrees of freedom": lambda generator, shape: generator.standard_t(3, shape) / np.sqrt(3),
    "uniform": lambda generator, shape: generator.uniform(-np.sqrt(3), np.sqrt(3), shape),
    "exponential (skewed)": lambda generator, shape: generator.standard_exponential(shape) - 1,
    "two values": lambda generator, shape: generator.choice([-1.0, 1.0], shape),
    "three values, half are 0": lambda generator, shape: generator.choice([-1.0, 0, 0, 1], shape) * np.sqrt(2),
}


def simulate(differences: np.ndarray, margin: float, maximum: int) -> tuple[np.ndarray, np.ndarray]:
    """Return what the rule concludes from each row of differences, shape (N, maximum), and after how many pairs."""
    words = np.full(len(differences), UNDECIDED, dtype="<U9")
    pairs = np.full(len(differences), maximum)
    for n in looks_until(maximum):
        (waiting,) = np.nonzero(words == UNDECIDED)
        low, high = repeated_interval(differences[waiting, :n], level_of(maximum), rounding=1e-12)
        words[waiting], pairs[waiting] = conclusions(low, high, margin), n
    return words, pairs


def wrong(words: np.ndarray, mean: float, margin: float) -> float:
    """Return the share of conclusions that the true mean contradicts."""
    errors = (words == HIGHER) & (mean <= 0) | (words == LOWER) & (mean >= 0)
    return float((errors | (words == EQUAL) & (abs(mean) >= margin)).mean())


def main() -> None:
    """Print the tables."""
    generator = np.random.default_rng(SEED)
    print("| effect, in standard deviations | maximum | seeds on average | right | undecided |\n|---|---|---|---|---|")
    for maximum in (14, 30):
        for effect in (0.5, 1.0, 2.0, 3.0):
            words, pairs = simulate(effect + generator.standard_normal((PATHS, maximum)), 1e-9, maximum)
            right, undecided = (words == HIGHER).mean(), (words == UNDECIDED).mean()
            print(f"| {effect:g} | {maximum} | {pairs.mean():.1f} | {right:.3f} | {undecided:.3f} |")
    print("\n| margin, true mean 0 | maximum | seeds on average | equal | undecided |\n|---|---|---|---|---|")
    for margin in (0.5, 1.0, 2.0, 3.0):
        words, pairs = simulate(generator.standard_normal((PATHS, 30)), margin, 30)
        equal, undecided = (words == EQUAL).mean(), (words == UNDECIDED).mean()
        print(f"| {margin:g} | 30 | {pairs.mean():.1f} | {equal:.3f} | {undecided:.3f} |")
    print("\n| differences | wrong: mean 0 | wrong: mean at a margin of 0.5 | 1 | 2 |\n|---|---|---|---|---|")
    for name, draw in DISTRIBUTIONS.items():
        shares = []
        for mean, margin in ((0.0, 0.5), (0.5, 0.5), (1.0, 1.0), (2.0, 2.0)):
            words, _ = simulate(mean + draw(generator, (PATHS, 30)), margin, 30)
            shares.append(f"{wrong(words, mean, margin):.3f}")
        print(f"| {name} | {' | '.join(shares)} |")


if __name__ == "__main__":
    main()
