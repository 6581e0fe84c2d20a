"""Spectra of images with a known spectrum."""

import math

import pytest
import torch

from pipelines.explanation.spectrum import amplitudes, high_frequency_share, mean_amplitudes, spectral_distance


def wave(cycles_per_pixel, size=32, along="columns"):
    line = torch.cos(2 * math.pi * cycles_per_pixel * torch.arange(size))
    image = line.expand(size, size)
    return (image if along == "columns" else image.T)[None, None]


@pytest.mark.parametrize("along", ["rows", "columns"])
@pytest.mark.parametrize(("frequency", "share"), [(1 / 32, 0), (7 / 32, 0), (1 / 4, 0), (9 / 32, 1), (1 / 2, 1)])
def test_a_wave_counts_as_high_frequency_above_a_quarter_of_a_cycle_per_pixel(frequency, share, along):
    assert high_frequency_share(wave(frequency, along=along)).item() == pytest.approx(share, abs=1e-6)


def test_power_adds_up_over_waves_and_channels_and_the_mean_is_ignored():
    mixed = torch.cat([wave(1 / 32) + 7, 3 * wave(7 / 16) - 2], dim=1)
    assert high_frequency_share(mixed).item() == pytest.approx(9 / (9 + 1), abs=1e-6)


def test_the_share_of_white_noise_is_that_of_the_area_of_high_frequencies():
    noise = torch.randn(50, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    assert high_frequency_share(noise).mean().item() == pytest.approx(1 - math.pi / 16, abs=0.01)


def test_an_image_of_one_colour_has_a_share_of_0():
    assert high_frequency_share(torch.full((1, 3, 8, 8), 0.3)).item() == 0


def test_amplitudes_are_invariant_to_circular_shifts():
    image = torch.rand(2, 3, 8, 9)
    torch.testing.assert_close(amplitudes(image.roll((2, 5), (2, 3))), amplitudes(image))


def test_the_distance_from_0_is_the_sum_of_squares_and_from_its_own_amplitudes_0():
    images = torch.rand(4, 3, 8, 9)
    torch.testing.assert_close(spectral_distance(images, torch.zeros(3, 8, 9)), images.square().sum((1, 2, 3)))
    torch.testing.assert_close(spectral_distance(images[:1], mean_amplitudes(images[:1])), torch.zeros(1))
