"""Bands under a budget."""

from __future__ import annotations

import numpy as np
import pytest

from codec.profiling.statistics import BUDGET, bands_for


def test_bands_are_own_where_they_fit():
    band_of, dense = bands_for(7, 112, BUDGET)
    assert dense
    assert band_of.tolist() == list(range(49))


def test_mirrored_frequencies_share_first_the_highest():
    full = 49 * (2 * 112**2 + 2 * 112 + 4)
    band_of, dense = bands_for(7, 112, full)
    grid = band_of.reshape(7, 7)
    assert dense
    assert grid[6, 5] == grid[5, 6]
    assert grid[0, 1] != grid[1, 0]


def test_low_frequencies_keep_their_own():
    band_of, dense = bands_for(7, 192, BUDGET)
    assert dense
    sizes = np.bincount(band_of)
    assert len(sizes) == 20
    assert sizes[band_of[0]] == 1
    grid = band_of.reshape(7, 7)
    assert grid[0, 1] == grid[1, 0]
    assert (grid == grid[0, 1]).sum() == 2
    assert (grid == grid.T).all()
    assert 2 <= sizes.max() <= 8


@pytest.mark.parametrize("channels", [1, 3, 40, 112, 192, 320, 512, 1024])
@pytest.mark.parametrize("size", [1, 3, 7, 8])
@pytest.mark.parametrize("budget", [200_000, BUDGET])
def test_profiles_stay_in_their_budget(channels, size, budget):
    band_of, dense = bands_for(size, channels, budget)
    bands = int(band_of.max()) + 1
    assert set(band_of) == set(range(bands))
    matrix = 2 * channels**2 if dense else 2 * channels
    assert bands * (matrix + 2 * channels + 4) <= budget or not dense
    assert dense or channels > 100
