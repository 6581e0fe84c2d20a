"""Nominal levels of the looks of `litlab decide`, for sweeps/decide/levels.py, with the total error that each has.

    python benchmarks/decide_levels.py

A look is a paired t-test. Under the null hypothesis, the largest level at which the smallest p-value of all looks is
below it in 5 % of the simulations is the level of each look. The generator is fixed: a run prints the same table.
"""

import numpy as np
from scipy.special import stdtr

from sweeps.decide.levels import FIRST, LARGEST, TOTAL, looks_until

PATHS, CHUNK, SEED = 4_000_000, 50_000, 20_241_128
BINS = 1_000_000  # of p-values, each 1e-6 wide


def smallest_p_values(differences: np.ndarray) -> dict[int, np.ndarray]:
    """Return the smallest p-value of all looks, by the maximal number of seeds; shape (N, seeds) to (N,)."""
    sums, squares = differences.cumsum(1), (differences**2).cumsum(1)
    usual = set(looks_until(LARGEST))
    smallest, found = np.ones(len(differences)), {}
    for n in range(FIRST, LARGEST + 1):
        mean = sums[:, n - 1] / n
        sd = np.sqrt((squares[:, n - 1] - n * mean**2) / (n - 1))
        p = 2 * stdtr(n - 1, -np.abs(mean) / (sd / np.sqrt(n)))
        found[n] = np.minimum(smallest, p)  # with the last look here
        smallest = found[n] if n in usual else smallest
    return found


def main() -> None:
    """Print the table."""
    generator = np.random.default_rng(SEED)
    counts = {n: np.zeros(BINS + 1, dtype=np.int64) for n in range(FIRST, LARGEST + 1)}
    for _ in range(PATHS // CHUNK):
        for n, p in smallest_p_values(generator.standard_normal((CHUNK, LARGEST))).items():
            counts[n] += np.bincount((p * BINS).astype(np.int64), minlength=BINS + 1)
    for n, count in counts.items():
        below = count.cumsum() / PATHS
        level = np.searchsorted(below, TOTAL) // 10 * 10  # rounded down to 1e-5
        print(f"{n}: {level / BINS:.5f}  # total error {below[level - 1]:.5f}", flush=True)


if __name__ == "__main__":
    main()
