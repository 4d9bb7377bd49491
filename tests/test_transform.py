"""The transform against Python integers, and against what an orthonormal transform does."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import SEEDS, plausible_profile, tensor_profiles

from codec.encoding.forward_transform import ForwardTransform
from codec.format.profile import Band, TensorProfile
from codec.normative.transform import (
    InverseTransform,
    band_groups,
    dct_basis,
    join_blocks,
    split_blocks,
)

SIZES = range(1, 17)
COEFFICIENT_LIMIT = 1 << 24


def rounded(value: int, bits: int) -> int:
    return (value + (1 << bits >> 1)) >> bits


def scalar_inverse(profile: TensorProfile, coefficients: np.ndarray) -> np.ndarray:
    """FORMAT.md 6.4 in Python integers, a loop for every sum."""
    size, channels = profile.block_size, profile.channels
    basis = dct_basis(size).tolist()
    blocks = coefficients.shape[2]
    out = np.zeros((blocks, channels, size, size), object)
    for n in range(blocks):
        spectrum = [[0] * channels for _ in range(size * size)]
        for f in range(size * size):
            band = profile.bands[profile.band_of[f]]
            values = [int(x) for x in coefficients[f, : profile.ranks[f], n]]
            for c in range(channels):
                if band.matrix.ndim == 1:
                    total = int(band.matrix[c]) * values[c] if c < len(values) else 0
                else:
                    total = sum(int(m) * x for m, x in zip(band.matrix[c], values, strict=False))
                spectrum[f][c] = max(-(1 << 26), min(1 << 26, rounded(total, band.shift)))
        for c in range(channels):
            # along each row of frequencies first, then along each column
            rows = [
                [
                    rounded(sum(basis[v][x] * spectrum[u * size + v][c] for v in range(size)), 13)
                    for x in range(size)
                ]
                for u in range(size)
            ]
            for y in range(size):
                for x in range(size):
                    total = sum(basis[u][y] * rows[u][x] for u in range(size))
                    out[n, c, y, x] = rounded(total, 17)
    return out


def random_coefficients(
    rng: np.random.Generator, profile: TensorProfile, blocks: int, *, extreme: bool
) -> np.ndarray:
    """Coefficients in their places: zero beyond the rank of each frequency."""
    shape = (profile.block_size**2, profile.components, blocks)
    if extreme:
        values = rng.choice((-COEFFICIENT_LIMIT, COEFFICIENT_LIMIT), shape)
    else:
        values = np.round(rng.laplace(size=shape) * rng.choice((3, 1e3, 1e6)))
        values = np.clip(values, -COEFFICIENT_LIMIT, COEFFICIENT_LIMIT)
    for frequency, rank in enumerate(profile.ranks):
        values[frequency, rank:] = 0
    return values.astype(np.float64)


# --- the basis ------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
def test_basis_is_the_formula_rounded_and_no_value_is_near_a_tie(size):
    basis = dct_basis(size)
    assert basis.shape == (size, size)
    for u in range(size):
        for x in range(size):
            weight = math.sqrt((1 if u == 0 else 2) / size)
            exact = 8192 * weight * math.cos(math.pi * u * (2 * x + 1) / (2 * size))
            assert basis[u, x] == round(exact)
            assert abs(abs(exact - math.floor(exact)) - 0.5) > 0.001


@pytest.mark.parametrize("size", SIZES)
def test_basis_is_orthonormal_within_rounding(size):
    basis = dct_basis(size).astype(np.float64) / 8192
    # entries are off by 2^-14 at most, rows have norm one
    bound = 2 * math.sqrt(size) * 2.0**-14 + size * 2.0**-28
    assert np.abs(basis @ basis.T - np.eye(size)).max() <= bound


# --- there and back -------------------------------------------------------------------------------


@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("size", SIZES)
def test_inverse_of_forward_is_the_identity_within_rounding(size, dense):
    rng = np.random.default_rng(size)
    channels = 4
    profile = plausible_profile(rng, channels, size)
    if dense:  # of full rank, a matrix per parity of the frequency
        bands = []
        for _ in range(2):
            turn, _ = np.linalg.qr(rng.normal(size=(channels, channels)))
            matrix = np.round(turn * (1 << 13)).astype(np.int16)
            bands.append(Band(matrix, 13, np.zeros((2, channels), np.int8)))
        band_of = (np.arange(size**2) % 2).astype(np.uint8)
        profile = replace(profile, bands=tuple(bands), band_of=band_of)
    residual = torch.from_numpy(rng.integers(-3000, 3000, (3, channels, size, size))).float()
    coefficients = torch.round(ForwardTransform(profile)(residual)).double()
    assert coefficients.shape == (size**2, channels, 3)
    # coefficients are in 1/16 latent or finer; the basis is off by 2^-14 of values around 3000·size
    error = (InverseTransform(profile)(coefficients) - residual).abs().max()
    assert float(error) <= 1 + size * 3000 * 2.0**-12


def test_forward_of_a_constant_block_is_its_first_coefficient():
    profile = plausible_profile(np.random.default_rng(0), 2, 8)
    coefficients = ForwardTransform(profile)(torch.full((1, 2, 8, 8), 100.0))
    gain = torch.from_numpy(profile.bands[0].matrix.astype(np.float32)) * 2.0**-17
    assert torch.allclose(coefficients[0, :, 0] * gain, torch.full((2,), 800.0), rtol=1e-3)
    assert float(coefficients[1:].abs().max()) < 20


def test_components_that_do_nothing_are_not_coded():
    matrix = np.array([8192, 0], np.int16)
    band = Band(matrix, 13, np.zeros((2, 2), np.int8))
    profile = plausible_profile(np.random.default_rng(0), 2, 2)
    profile = replace(profile, bands=(band,))
    coefficients = ForwardTransform(profile)(torch.ones(1, 2, 2, 2))
    assert bool(torch.isfinite(coefficients).all())
    assert not coefficients[:, 1].any()


# --- against the scalar reference -----------------------------------------------------------------


@given(tensor_profiles(max_block_size=3), SEEDS, st.booleans())
def test_inverse_equals_python_integers(profile, seed, extreme):
    rng = np.random.default_rng(seed)
    coefficients = random_coefficients(rng, profile, 2, extreme=extreme)
    found = InverseTransform(profile)(torch.from_numpy(coefficients)).numpy()
    np.testing.assert_array_equal(found, scalar_inverse(profile, coefficients).astype(np.float64))


@settings(max_examples=10)
@given(st.sampled_from((5, 7, 8, 16)), SEEDS, st.booleans(), st.booleans())
def test_inverse_equals_python_integers_for_large_blocks(size, seed, extreme, dense):
    rng = np.random.default_rng(seed)
    profile = plausible_profile(rng, 2, size, bands=2, dense=dense, cut=extreme)
    coefficients = random_coefficients(rng, profile, 1, extreme=extreme)
    found = InverseTransform(profile)(torch.from_numpy(coefficients)).numpy()
    np.testing.assert_array_equal(found, scalar_inverse(profile, coefficients).astype(np.float64))


# --- many bands: what is multiplied together ------------------------------------------------------


def mixed_profile(rng: np.random.Generator, size: int, share: float) -> TensorProfile:
    """Bands for one frequency or a few, diagonal and dense, of any columns, shifts and ranks."""
    channels, frequencies = int(rng.integers(1, 8)), size * size
    count = max(1, round(frequencies * share))
    bands = []
    for _ in range(count):
        dense = rng.random() < 0.7
        columns = int(rng.integers(1, channels + 1)) if dense else channels
        shape = (channels, columns) if dense else (channels,)
        matrix = rng.integers(-(1 << 15), 1 << 15, shape).astype(np.int16)
        bands.append(Band(matrix, int(rng.integers(0, 41)), np.zeros((2, columns), np.int8)))
    band_of = np.arange(frequencies) % count
    rng.shuffle(band_of)
    profile = plausible_profile(rng, channels, size)
    ranks = rng.integers(0, np.array([band.rank for band in bands])[band_of] + 1)
    ranks[rng.integers(frequencies)] |= not ranks.any()
    return replace(profile, bands=tuple(bands), band_of=band_of.astype(np.uint8), ranks=ranks)


@given(st.integers(1, 4), st.sampled_from((0.2, 0.5, 1.0)), SEEDS, st.booleans())
def test_inverse_of_many_bands_equals_python_integers(size, share, seed, extreme):
    rng = np.random.default_rng(seed)
    profile = mixed_profile(rng, size, share)
    coefficients = random_coefficients(rng, profile, 2, extreme=extreme)
    found = InverseTransform(profile)(torch.from_numpy(coefficients)).numpy()
    np.testing.assert_array_equal(found, scalar_inverse(profile, coefficients).astype(np.float64))


@given(st.integers(1, 4), st.sampled_from((0.2, 0.5, 1.0)), SEEDS, st.booleans())
def test_forward_of_many_bands_equals_one_matrix_at_a_time(size, share, seed, adjoint):
    """The inverse of the whole matrix, its first rows taken: not that of the first columns."""
    rng = np.random.default_rng(seed)
    profile = mixed_profile(rng, size, share)
    residual = rng.normal(size=(2, profile.channels, size, size)) * 1000
    basis = dct_basis(size) / 8192
    spectrum = np.einsum("uy,vx,ncyx->uvcn", basis, basis, residual)
    spectrum = spectrum.reshape(size * size, profile.channels, 2)
    found = ForwardTransform(profile, adjoint=adjoint)(torch.from_numpy(residual).float()).numpy()
    for frequency, rank in enumerate(profile.ranks):
        band = profile.bands[profile.band_of[frequency]]
        matrix = band.matrix if band.matrix.ndim == 2 else np.diag(band.matrix)
        synthesis = matrix * 0.5 ** (band.shift + 4)
        analysis = synthesis.T if adjoint else np.linalg.pinv(synthesis)
        expected = (analysis @ spectrum[frequency])[:rank]
        # float32: the error is that of the largest product in a sum
        scale = np.abs(analysis[:rank]).max(initial=0) * np.abs(spectrum[frequency]).max()
        np.testing.assert_allclose(found[frequency, :rank], expected, atol=1e-4 * scale)


@pytest.mark.parametrize("size", [1, 3, 4])
def test_adjoint_is_the_transpose_of_the_inverse(size):
    rng = np.random.default_rng(size)
    for share in (0.2, 0.5, 1.0):
        profile = mixed_profile(rng, size, share)
        bands = [replace(band, shift=13) for band in profile.bands]  # nothing is clipped
        profile = replace(profile, bands=tuple(bands))
        coefficients = random_coefficients(rng, profile, 3, extreme=True) / 256
        inverse = InverseTransform(profile)(torch.from_numpy(coefficients))
        gradient = torch.from_numpy(rng.normal(size=inverse.shape))
        forward = ForwardTransform(profile, adjoint=True)(gradient.float()).double().numpy()
        left, right = float((forward * coefficients).sum()), float((gradient * inverse).sum())
        # the inverse rounds to integers, three times
        norm = float(gradient.norm() * inverse.norm())
        assert abs(left - right) <= 1e-5 * norm + 2 * float(gradient.abs().sum())


def test_small_matrices_are_not_filled_up_to_the_size_of_large_ones():
    channels = 64
    columns = [channels, *[1] * 200]
    bands = tuple(
        Band(np.ones((channels, n), np.int16), 13, np.zeros((2, n), np.int8)) for n in columns
    )
    band_of = np.minimum(np.arange(256), 200).astype(np.uint8)
    profile = plausible_profile(np.random.default_rng(0), channels, 16)
    profile = replace(profile, bands=bands, band_of=band_of, ranks=np.array(columns)[band_of])
    groups = band_groups(profile)
    assert sum(len(group.bands) for group in groups) == len(bands)
    assert len(groups) <= 3
    entries = sum(group.stacked([b.matrix for b in group.bands], -1).size for group in groups)
    assert entries == channels * sum(columns)


# --- blocks ---------------------------------------------------------------------------------------


@given(st.integers(1, 3), st.integers(1, 20), st.integers(1, 20), st.integers(1, 16))
def test_join_of_split_is_the_identity(channels, height, width, size):
    tensor = torch.arange(channels * height * width, dtype=torch.float64)
    tensor = tensor.reshape(channels, height, width)
    blocks = split_blocks(tensor, size)
    assert blocks.shape == (-(-height // size) * -(-width // size), channels, size, size)
    assert torch.equal(join_blocks(blocks, height, width), tensor)


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 5))
def test_split_against_indices(height, width, size):
    tensor = torch.arange(height * width, dtype=torch.float64).reshape(1, height, width)
    columns = -(-width // size)
    for number, block in enumerate(split_blocks(tensor, size)):
        top, left = number // columns * size, number % columns * size
        for y in range(size):
            for x in range(size):
                expected = tensor[0, min(top + y, height - 1), min(left + x, width - 1)]
                assert block[0, y, x] == expected


def test_split_copies():
    tensor = torch.zeros(1, 4, 4)
    split_blocks(tensor, 4)[...] = 1
    assert not tensor.any()
