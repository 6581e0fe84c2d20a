"""Support vector machines: C is the price of points within the margin, so a smaller C gives a wider margin."""

import math

import numpy as np
import pytest
from sklearn.datasets import make_circles
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.svm import SVC

GAMMA = 0.5


def margin(C: float) -> float:
    """Return the width of the margin of an RBF machine on two circles: 2 / |w|.

    w is the sum of the support vectors x[i] with coefficients c[i], in the space of the kernel k, so that |w|^2 is the
    sum over i and j of c[i] c[j] k(x[i], x[j]).
    """
    points_N2, labels_N = make_circles(200, noise=0.16, factor=0.5, random_state=0)
    machine = SVC(kernel="rbf", C=C, gamma=GAMMA).fit(2 * points_N2, labels_N)
    (c,) = machine.dual_coef_
    vectors = machine.support_vectors_
    return 2 / math.sqrt(c @ rbf_kernel(vectors, gamma=GAMMA) @ c)


def test_a_smaller_C_gives_a_wider_margin():
    """For two circles of radii 2 and 1, the margin is 20 times as wide with C = 0.01 as with C = 10."""
    margins = [margin(C) for C in (0.01, 0.1, 1.0, 10.0)]
    assert margins == pytest.approx([4.16, 0.70, 0.38, 0.21], abs=0.01)
    assert np.all(np.diff(margins) < 0)
