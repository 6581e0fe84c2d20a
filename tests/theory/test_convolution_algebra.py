"""Properties of convolution: output size, equivariance, matrix form, Fourier transform.

"Convolution" is used in the mathematical sense: (x * f)[i] = sum over m of f[m] x[i - m]. torch's `conv2d` does not
rotate the filter and is a cross-correlation, as one of the tests shows.
"""

from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

SEEDS = st.integers(0, 2**32 - 1)
SIDES = st.integers(1, 5)
assert_equal = partial(torch.testing.assert_close, rtol=1e-10, atol=1e-10)


# --- output size ------------------------------------------------------------------------------------------------------


def start_positions(n: int, k: int, padding: int = 0, stride: int = 1) -> list[int]:
    """Return where a kernel of length k can start on n values with zero padding at both ends, by exhaustive search."""
    length = n + 2 * padding
    return [start for start in range(0, length, stride) if start + k <= length]


@given(n=st.integers(1, 20), k=st.integers(1, 20))
def test_the_valid_output_has_n_minus_k_plus_1_values(n, k):
    """A kernel of length k fits into n values at n - k + 1 positions."""
    n = n + k
    output = F.conv1d(torch.zeros(1, 1, n), torch.zeros(1, 1, k))
    assert output.shape[-1] == len(start_positions(n, k)) == n - k + 1


@given(n=st.integers(1, 20), k=st.integers(1, 7), padding=st.integers(0, 4), stride=st.integers(1, 5))
def test_with_padding_and_stride_it_has_floor_of_n_plus_2p_minus_k_over_s_plus_1_values(n, k, padding, stride):
    """With p zeros at both ends and stride s there are floor((n + 2p - k) / s) + 1 positions."""
    n = max(n, k - 2 * padding, 1)
    output = F.conv1d(torch.zeros(1, 1, n), torch.zeros(1, 1, k), padding=padding, stride=stride)
    assert output.shape[-1] == len(start_positions(n, k, padding, stride)) == (n + 2 * padding - k) // stride + 1


# --- shifts -----------------------------------------------------------------------------------------------------------


def shifted_crops(scene_HW: Tensor, side: int, down: int, right: int) -> tuple[Tensor, Tensor]:
    """Return two square crops of one scene, the second `down` rows lower and `right` columns further to the right."""
    return scene_HW[:side, :side], scene_HW[down : down + side, right : right + side]


def correlate(image_HW: Tensor, filter_RS: Tensor, stride: int = 1) -> Tensor:
    return F.conv2d(image_HW[None, None], filter_RS[None, None], stride=stride)[0, 0]


def max_pool(image_HW: Tensor) -> Tensor:
    return F.max_pool2d(image_HW[None, None], 2)[0, 0]


def assert_shifted(first: Tensor, second: Tensor, down: int, right: int) -> None:
    """Assert that the second map is the first one shifted: they are equal where both see the same part of the scene."""
    rows, columns = first.shape
    assert rows > down
    assert columns > right
    assert_equal(first[down:, right:], second[: rows - down, : columns - right])


@given(seed=SEEDS, k=st.integers(1, 4), down=st.integers(0, 4), right=st.integers(0, 4))
def test_shifting_the_image_shifts_the_output_equally(seed, k, down, right):
    """Convolution is equivariant to translation: if the input shifts by s, the valid output shifts by s."""
    torch.manual_seed(seed)
    first, second = shifted_crops(torch.randn(14, 14), 10, down, right)
    filter_ = torch.randn(k, k)
    assert_shifted(correlate(first, filter_), correlate(second, filter_), down, right)


@given(seed=SEEDS, k=st.integers(1, 4), stride=st.integers(2, 3), down=st.integers(0, 2), right=st.integers(0, 2))
def test_a_strided_convolution_is_equivariant_to_multiples_of_the_stride(seed, k, stride, down, right):
    """With stride t the output shifts by m if the input shifts by m t."""
    torch.manual_seed(seed)
    first, second = shifted_crops(torch.randn(20, 20), 13, down * stride, right * stride)
    filter_ = torch.randn(k, k)
    assert_shifted(correlate(first, filter_, stride), correlate(second, filter_, stride), down, right)


def test_with_stride_2_a_shift_by_1_does_not_shift_the_output():
    """Stripes sampled with stride 2 are all white, and one pixel further all black, which is not a shift."""
    stripes = torch.tensor([1.0, 0.0]).repeat(5).expand(6, 10)
    first, second = shifted_crops(stripes, 6, 0, 1)
    pixel = torch.ones(1, 1)
    assert correlate(first, pixel, stride=2).unique().tolist() == [1.0]
    assert correlate(second, pixel, stride=2).unique().tolist() == [0.0]


@given(seed=SEEDS, down=st.integers(0, 3), right=st.integers(0, 3))
def test_max_pooling_is_equivariant_to_even_shifts(seed, down, right):
    """The output of max pooling of size 2 shifts by m if the input shifts by 2 m."""
    torch.manual_seed(seed)
    first, second = shifted_crops(torch.randn(18, 18), 12, 2 * down, 2 * right)
    assert_shifted(max_pool(first), max_pool(second), down, right)


def test_max_pooling_is_not_equivariant_to_odd_shifts():
    """Pairs of stripes are pooled to all white or, one pixel further, to white and black, which is not a shift."""
    pairs = torch.tensor([0.0, 1.0, 1.0, 0.0]).repeat(3).expand(8, 12)
    first, second = shifted_crops(pairs, 8, 0, 1)
    assert max_pool(first)[0].tolist() == [1.0, 1.0, 1.0, 1.0]
    assert max_pool(second)[0].tolist() == [1.0, 0.0, 1.0, 0.0]


# --- the matrix of a convolution --------------------------------------------------------------------------------------


def toeplitz(filter_K: Tensor, n: int) -> Tensor:
    """Return the matrix of the valid correlation on n values: row i is the filter, shifted by i."""
    k = len(filter_K)
    matrix = torch.zeros(n - k + 1, n)
    for i in range(n - k + 1):
        matrix[i, i : i + k] = filter_K
    return matrix


def toeplitz_2d(filter_RS: Tensor, rows: int, columns: int, stride: int = 1) -> Tensor:
    """Return the matrix of the correlation of images: row (i, j) is a flattened blank image with the filter at i, j."""
    R, S = filter_RS.shape
    matrix_rows = []
    for i in start_positions(rows, R, stride=stride):
        for j in start_positions(columns, S, stride=stride):
            image = torch.zeros(rows, columns)
            image[i : i + R, j : j + S] = filter_RS
            matrix_rows.append(image.flatten())
    return torch.stack(matrix_rows)


@given(seed=SEEDS, k=SIDES, n=st.integers(0, 6))
def test_a_convolution_is_a_product_with_a_toeplitz_matrix(seed, k, n):
    """A 1-D convolution is a product with a matrix whose diagonals are constant."""
    n = n + k
    torch.manual_seed(seed)
    x, filter_ = torch.randn(n), torch.randn(k)
    matrix = toeplitz(filter_, n)
    assert torch.equal(matrix[1:, 1:], matrix[:-1, :-1])
    assert_equal(matrix @ x, F.conv1d(x[None, None], filter_[None, None])[0, 0])


@given(seed=SEEDS, R=SIDES, S=SIDES, I=SIDES, J=SIDES, stride=st.integers(1, 3))
def test_a_2d_convolution_is_a_matrix_times_the_flattened_image(seed, R, S, I, J, stride):  # noqa: E741
    """A 2-D convolution, with any stride, is a product of a matrix with the vector of pixels."""
    rows, columns = R + stride * (I - 1), S + stride * (J - 1)
    torch.manual_seed(seed)
    image, filter_ = torch.randn(rows, columns), torch.randn(R, S)
    matrix = toeplitz_2d(filter_, rows, columns, stride)
    assert_equal((matrix @ image.flatten()).view(I, J), correlate(image, filter_, stride))


@given(seed=SEEDS, R=SIDES, S=SIDES, I=SIDES, J=SIDES)
def test_the_matrix_of_a_2d_convolution_is_block_toeplitz_with_toeplitz_blocks(seed, R, S, I, J):  # noqa: E741
    """Moving down by one in both output and input does not change the weight; neither does moving right by one."""
    torch.manual_seed(seed)
    rows, columns = I + R - 1, J + S - 1
    weight = toeplitz_2d(torch.randn(R, S), rows, columns).view(I, J, rows, columns)  # output, then input position
    assert torch.equal(weight[1:, :, 1:, :], weight[:-1, :, :-1, :])
    assert torch.equal(weight[:, 1:, :, 1:], weight[:, :-1, :, :-1])


@given(seed=SEEDS, R=SIDES, S=SIDES, I=SIDES, J=SIDES, stride=st.integers(1, 3))
def test_the_transposed_matrix_is_the_transposed_convolution(seed, R, S, I, J, stride):  # noqa: E741
    """`conv_transpose2d` multiplies by the transpose of the matrix: it inverts the shape, not the values."""
    rows, columns = R + stride * (I - 1), S + stride * (J - 1)
    torch.manual_seed(seed)
    output, filter_ = torch.randn(I, J), torch.randn(R, S)
    matrix = toeplitz_2d(filter_, rows, columns, stride)
    transposed = F.conv_transpose2d(output[None, None], filter_[None, None], stride=stride)[0, 0]
    assert_equal((matrix.T @ output.flatten()).view(rows, columns), transposed)


# --- mathematical convolution and its Fourier transform ---------------------------------------------------------------


def convolve(image_HW: Tensor, filter_RS: Tensor) -> Tensor:
    """(x * f)[i, j] = sum over r, s of f[r, s] x[i - r, j - s], at all positions where it can be nonzero ("full")."""
    (H, W), (R, S) = image_HW.shape, filter_RS.shape
    output = torch.zeros(H + R - 1, W + S - 1)
    for r in range(R):
        for s in range(S):
            output[r : r + H, s : s + W] += filter_RS[r, s] * image_HW
    return output


def convolve_circular(x_N: Tensor, f_N: Tensor) -> Tensor:
    """(x * f)[i] = sum over m of f[m] x[i - m], with indices modulo n."""
    n = len(x_N)
    return torch.stack([sum(f_N[m] * x_N[(i - m) % n] for m in range(n)) for i in range(n)])


@given(seed=SEEDS, R=SIDES, S=SIDES, I=SIDES, J=SIDES)
def test_conv2d_is_cross_correlation_which_equals_convolution_with_the_rotated_kernel(seed, R, S, I, J):  # noqa: E741
    """`conv2d` of torch does not rotate the kernel: with a rotated kernel, it is the valid part of the convolution."""
    H, W = I + R - 1, J + S - 1
    torch.manual_seed(seed)
    image, filter_ = torch.randn(H, W), torch.randn(R, S)
    valid = convolve(image, filter_)[R - 1 : H, S - 1 : W]
    assert_equal(valid, correlate(image, filter_.flip(0, 1)))


def test_without_the_rotation_convolution_and_cross_correlation_differ():
    """For a single white pixel, convolution gives the kernel, cross-correlation the kernel rotated by 180 degrees."""
    image = torch.zeros(3, 3)
    image[1, 1] = 1
    kernel = torch.arange(4.0).view(2, 2)
    assert convolve(image, kernel)[1:3, 1:3].tolist() == [[0.0, 1.0], [2.0, 3.0]]
    assert correlate(image, kernel).tolist() == [[3.0, 2.0], [1.0, 0.0]]


@given(seed=SEEDS, sides=st.tuples(SIDES, SIDES, SIDES, SIDES))
def test_convolution_is_commutative(seed, sides):
    """That is, x * f = f * x: image and filter can be exchanged."""
    torch.manual_seed(seed)
    x, f = torch.randn(sides[:2]), torch.randn(sides[2:])
    assert_equal(convolve(x, f), convolve(f, x))


@given(seed=SEEDS, sides=st.tuples(*[SIDES] * 6))
def test_convolution_is_associative(seed, sides):
    """(x * f) * g = x * (f * g): two successive filters are one filter, the convolution of the two."""
    torch.manual_seed(seed)
    x, f, g = torch.randn(sides[:2]), torch.randn(sides[2:4]), torch.randn(sides[4:])
    assert_equal(convolve(convolve(x, f), g), convolve(x, convolve(f, g)))


@given(seed=SEEDS, n=st.integers(7, 12))
def test_without_an_activation_5x5_then_3x3_is_one_7x7(seed, n):
    """Two convolutional layers without an activation between them are one layer, whose kernel has k1 + k2 - 1 rows."""
    torch.manual_seed(seed)
    image, five, three = torch.randn(n, n), torch.randn(5, 5), torch.randn(3, 3)
    seven = convolve(five, three)
    assert seven.shape == (7, 7)
    assert_equal(correlate(correlate(image, five), three), correlate(image, seven))


def test_cross_correlation_is_not_commutative():
    """Exchanging the two operands of a full cross-correlation reverses the result."""
    x, f = torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[1.0, 10.0, 0.0]])
    full = partial(F.pad, pad=(2, 2))
    result, exchanged = correlate(full(x), f), correlate(full(f), x)
    assert result.tolist() == exchanged.flip(1).tolist()
    assert result.tolist() != exchanged.tolist()


@given(seed=SEEDS, n=st.integers(1, 12))
def test_the_fourier_transform_turns_circular_convolution_into_products(seed, n):
    """The convolution theorem: the transform of the circular convolution x * f is the product of the two transforms."""
    torch.manual_seed(seed)
    x, f = torch.randn(n), torch.randn(n)
    product = torch.fft.fft(x) * torch.fft.fft(f)
    assert_equal(convolve_circular(x, f), torch.fft.ifft(product).real)


@given(seed=SEEDS, sides=st.tuples(SIDES, SIDES, SIDES, SIDES))
def test_with_zero_padding_the_fft_gives_the_linear_convolution(seed, sides):
    """Zero padding to n + k - 1 values prevents wrap-around, so that the FFT gives the linear convolution."""
    torch.manual_seed(seed)
    x, f = torch.randn(sides[:2]), torch.randn(sides[2:])
    size = (sides[0] + sides[2] - 1, sides[1] + sides[3] - 1)
    product = torch.fft.rfft2(x, s=size) * torch.fft.rfft2(f, s=size)
    assert_equal(convolve(x, f), torch.fft.irfft2(product, s=size))


@pytest.mark.parametrize(("size", "is_linear"), [(4, False), (5, False), (6, True), (7, True)])
def test_with_less_padding_the_convolution_wraps_around(size, is_linear):
    """4 and 3 values need 4 + 3 - 1 = 6 positions; with fewer, the end of the convolution is added to its start."""
    x, f = torch.ones(1, 4), torch.ones(1, 3)
    product = torch.fft.rfft(x, n=size) * torch.fft.rfft(f, n=size)
    by_fft = torch.fft.irfft(product, n=size)
    linear = F.pad(convolve(x, f), (0, max(size - 6, 0)))[:, :size]
    assert torch.allclose(by_fft, linear, rtol=0, atol=1e-10) == is_linear
