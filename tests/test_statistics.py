"""Bands under a budget, and how far sums over few inputs are to be trusted."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from codec.format.header import TensorSpec
from codec.profiling.fixed_point import block_size_for
from codec.profiling.statistics import BUDGET, TensorStatistics, bands_for, bytes_of, shares_of


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


def pyramid(*channels: int) -> list[TensorSpec]:
    sides = (52, 26, 13, 7)
    return [TensorSpec("t", c, side, side, 8, 8) for c, side in zip(channels, sides, strict=False)]


def matrices(specs: list[TensorSpec], budget: int | None) -> list[int]:
    """How many each tensor gets; 0: it is diagonal."""
    found = []
    for spec, share in zip(specs, shares_of(specs, budget), strict=True):
        band_of, dense = bands_for(block_size_for(spec), spec.channels, share)
        found.append((int(band_of.max()) + 1) * dense)
    return found


def test_every_level_of_a_pyramid_gets_matrices_by_default():
    assert matrices(pyramid(128, 128, 128), None) == [16, 16, 16]
    assert matrices(pyramid(256, 256, 256), None) == [11, 11, 11]
    assert matrices(pyramid(112), None) == matrices(pyramid(112), BUDGET)


def test_tensors_share_a_budget():
    specs = pyramid(128, 128, 128)
    assert matrices(specs, 500_000) == [5, 5, 5]
    assert sum(shares_of(specs, 500_000)) <= 500_000
    assert matrices(specs, 3 * bytes_of(specs[0], 1)) == [1, 1, 1]
    assert matrices(specs, 3 * bytes_of(specs[0], 1) - 1) == [1, 1, 0]


def test_what_is_too_large_leaves_its_share_to_the_others():
    assert matrices(pyramid(256, 512, 1024, 2048), None) == [11, 2, 0, 0]
    few = pyramid(16, 512)
    assert matrices(few, bytes_of(few[0], 16) + bytes_of(few[1], 1)) == [16, 1]
    assert matrices(few, bytes_of(few[0], 16) + bytes_of(few[1], 1) - 1) == [16, 0]
    assert matrices(few, 700) == [0, 0]


SPEC = TensorSpec("t", 6, 8, 8, 8, 8)


def of_inputs(count: int, mix: torch.Tensor, seed: int = 0) -> TensorStatistics:
    """Sums over inputs of one view, of features that `mix` correlates."""
    each = TensorStatistics(SPEC, BUDGET)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(count):
        mark = each.mark()
        for _ in range(2):
            noise = torch.randn(SPEC.shape, generator=generator)
            features = torch.einsum("cd,dhw->chw", mix, noise)
            each.add_features(features)
            each.add_residual(features)
            TensorStatistics.add_gradients([each], [features[None]])
        each.end_input(mark)
    return each


def test_what_is_not_correlated_is_shrunk_and_what_is_is_not():
    apart, mixed = torch.eye(6), torch.eye(6) + 0.5
    assert of_inputs(10, apart).shrinkage().mean() > 0.7
    assert of_inputs(10, mixed).shrinkage().mean() < 0.2
    assert of_inputs(100, mixed).shrinkage().mean() < of_inputs(10, mixed).shrinkage().mean() / 5


def test_one_input_says_nothing_of_how_inputs_differ():
    assert not of_inputs(1, torch.eye(6)).shrinkage().any()


def test_shrinking_brings_covariances_nearer_to_the_truth():
    mix = torch.eye(6) + 0.1
    each = of_inputs(3, mix)
    truth = (mix @ mix.T).double()
    found = each.sums["inter"] / each.sums["counts"][2]
    kept = 1 - torch.from_numpy(each.shrinkage()[2])[:, None, None] * (1 - torch.eye(6).double())
    assert (found * kept - truth).square().sum() < 0.8 * (found - truth).square().sum()
