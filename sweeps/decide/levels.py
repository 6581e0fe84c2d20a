"""When a decision looks at its pairs, and the level of each look. Imports nothing.

Each look is a paired t-test at the same nominal level (S. J. Pocock, Biometrika 64, 1977), such that under the null
hypothesis any of them rejects it in 5 % of the cases.
"""

FIRST, LARGEST = 3, 100  # pairs: at the first look, and at most
MAX_SEEDS = 30  # by default
TOTAL = 0.05  # error of all looks together
# fmt: off
LEVELS = (  # by the maximal number of pairs, from FIRST to LARGEST; made by benchmarks/decide_levels.py
    0.05011, 0.03047, 0.02290, 0.01877, 0.01619, 0.01535, 0.01379, 0.01324, 0.01219, 0.01178, 0.01105, 0.01074,
    0.01019, 0.00995, 0.00950, 0.00930, 0.00895, 0.00878, 0.00850, 0.00836, 0.00813, 0.00800, 0.00780, 0.00770,
    0.00752, 0.00743, 0.00727, 0.00719, 0.00705, 0.00698, 0.00684, 0.00678, 0.00667, 0.00660, 0.00650, 0.00645,
    0.00635, 0.00631, 0.00622, 0.00617, 0.00609, 0.00605, 0.00598, 0.00594, 0.00587, 0.00584, 0.00578, 0.00574,
    0.00568, 0.00565, 0.00559, 0.00556, 0.00551, 0.00548, 0.00543, 0.00540, 0.00536, 0.00533, 0.00529, 0.00526,
    0.00522, 0.00520, 0.00516, 0.00514, 0.00509, 0.00507, 0.00504, 0.00502, 0.00498, 0.00497, 0.00493, 0.00491,
    0.00488, 0.00486, 0.00483, 0.00481, 0.00479, 0.00477, 0.00474, 0.00473, 0.00470, 0.00469, 0.00466, 0.00464,
    0.00462, 0.00461, 0.00458, 0.00457, 0.00455, 0.00454, 0.00451, 0.00450, 0.00448, 0.00447, 0.00445, 0.00444,
    0.00442, 0.00441,
)
# fmt: on


def looks_until(maximum: int) -> list[int]:
    """Return the numbers of pairs after which to look: 3, 4, 5, 6, 8, 10, 12 ..., and the maximum."""
    usual = [FIRST, 4, 5, *range(6, maximum, 2)]
    return [*(n for n in usual if n < maximum), maximum]


def level_of(maximum: int) -> float:
    """Return the nominal level of each look of `looks_until`."""
    return LEVELS[maximum - FIRST]
