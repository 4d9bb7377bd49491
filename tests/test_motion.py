"""Motion compensation against Python integers, and against what a shift is."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import SEEDS, tensor_specs

from codec.format.constants import LATENT_LIMIT, MAX_VECTOR
from codec.format.header import TensorSpec
from codec.normative.motion import compensate, interpolation_filters, latent_displacement


def half_up(value: Fraction) -> int:
    return (2 * value.numerator + value.denominator) // (2 * value.denominator)


def scalar_displacement(vectors: np.ndarray, grid: int, spec: TensorSpec) -> np.ndarray:
    """FORMAT.md 6.1 in rational numbers: bilinear between node centres, constant beyond them."""
    out = np.zeros((spec.height, spec.width, 2), np.int64)
    for y in range(spec.height):
        for x in range(spec.width):
            weights = []
            for position, stride, offset2, nodes in (
                (y, spec.stride_y, spec.offset_y2, vectors.shape[0]),
                (x, spec.stride_x, spec.offset_x2, vectors.shape[1]),
            ):
                pixel = Fraction(2 * position * stride + offset2, 2)
                place = (pixel - Fraction(grid - 1, 2)) / grid
                place = max(Fraction(0), min(Fraction(nodes - 1), place))
                first = min(place.numerator // place.denominator, nodes - 1)
                weights.append((first, min(first + 1, nodes - 1), place - first))
            (y0, y1, wy), (x0, x1, wx) = weights
            for axis, stride in ((0, spec.stride_y), (1, spec.stride_x)):
                v = vectors[..., axis].tolist()
                upper = v[y0][x0] * (1 - wx) + v[y0][x1] * wx
                lower = v[y1][x0] * (1 - wx) + v[y1][x1] * wx
                vector = upper * (1 - wy) + lower * wy
                out[y, x, axis] = half_up(vector * 64 / (4 * stride))
    return out


def scalar_compensate(reference: np.ndarray, displacement: np.ndarray) -> np.ndarray:
    filters = interpolation_filters().tolist()
    channels, height, width = reference.shape
    out = np.zeros(reference.shape, np.int64)
    for y in range(height):
        for x in range(width):
            dy, dx = (int(d) for d in displacement[y, x])
            for c in range(channels):
                total = 0
                for i, wy in enumerate(filters[dy % 64]):
                    for j, wx in enumerate(filters[dx % 64]):
                        sy = max(0, min(height - 1, y + dy // 64 - 1 + i))
                        sx = max(0, min(width - 1, x + dx // 64 - 1 + j))
                        total += wy * wx * int(reference[c, sy, sx])
                out[c, y, x] = (total + (1 << 19)) >> 20
    return np.clip(out, -LATENT_LIMIT, LATENT_LIMIT)


def random_reference(rng: np.random.Generator, channels: int, height: int, width: int):
    if rng.random() < 0.3:
        values = rng.choice((-LATENT_LIMIT, LATENT_LIMIT), (channels, height, width))
    else:
        values = rng.integers(-5000, 5000, (channels, height, width))
    return torch.from_numpy(values).double()


# --- the field ------------------------------------------------------------------------------------


@given(tensor_specs(), st.integers(1, 4), st.integers(1, 4), st.sampled_from((4, 7, 32)), SEEDS)
def test_displacement_equals_rational_arithmetic(spec, rows, columns, grid, seed):
    rng = np.random.default_rng(seed)
    reach = int(rng.choice((1, 30, MAX_VECTOR)))
    vectors = rng.integers(-reach, reach + 1, (rows, columns, 2)).astype(np.int32)
    found = latent_displacement(vectors, grid, spec)
    np.testing.assert_array_equal(found, scalar_displacement(vectors, grid, spec))


@given(
    tensor_specs(),
    st.integers(-MAX_VECTOR, MAX_VECTOR),
    st.integers(-MAX_VECTOR, MAX_VECTOR),
    st.sampled_from((4, 16, 33, 1024)),
)
def test_a_uniform_field_is_divided_by_the_stride(spec, vy, vx, grid):
    vectors = np.broadcast_to(np.array([vy, vx], np.int32), (3, 2, 2))
    found = latent_displacement(vectors, grid, spec)
    expected = [half_up(Fraction(64 * vy, 4 * spec.stride_y))]
    expected.append(half_up(Fraction(64 * vx, 4 * spec.stride_x)))
    assert found.shape == (spec.height, spec.width, 2)
    assert (found == expected).all()


def test_displacement_at_the_largest_geometry():
    spec = TensorSpec("t", 1, 2, 2, 1 << 26, 1 << 26, 1 << 16, -(1 << 16))
    vectors = np.full((3, 3, 2), -MAX_VECTOR, np.int32)
    vectors[0] = MAX_VECTOR
    found = latent_displacement(vectors, 1024, spec)
    np.testing.assert_array_equal(found, scalar_displacement(vectors, 1024, spec))


# --- the filters ----------------------------------------------------------------------------------


def test_filters_sum_to_one_and_are_symmetric():
    filters = interpolation_filters()
    assert filters.shape == (64, 4)
    assert (filters.sum(1) == 1024).all()
    assert filters[0].tolist() == [0, 1024, 0, 0]
    assert filters[32].tolist() == [-64, 576, 576, -64]
    # rounding goes one way, so that mirrored phases may differ by one
    assert np.abs(filters[1:] - filters[1:][::-1, ::-1]).max() <= 1
    assert np.abs(filters).sum(1).max() < 1.3 * 1024


def test_filters_are_the_formula_rounded():
    for phase, found in enumerate(interpolation_filters().tolist()):
        t = Fraction(phase, 64)
        exact = (
            (-(t**3) + 2 * t**2 - t) / 2,
            (3 * t**3 - 5 * t**2 + 2) / 2,
            (-3 * t**3 + 4 * t**2 + t) / 2,
            (t**3 - t**2) / 2,
        )
        for tap in (0, 2, 3):
            assert found[tap] == half_up(1024 * exact[tap])
        assert abs(found[1] - 1024 * exact[1]) <= Fraction(3, 2)


# --- compensation ---------------------------------------------------------------------------------


@settings(max_examples=30)
@given(st.integers(1, 3), st.integers(1, 6), st.integers(1, 6), SEEDS)
def test_compensate_equals_python_integers(channels, height, width, seed):
    rng = np.random.default_rng(seed)
    reference = random_reference(rng, channels, height, width)
    reach = int(rng.choice((63, 300, 1 << 17)))
    displacement = rng.integers(-reach, reach + 1, (height, width, 2))
    found = compensate(reference, displacement).numpy()
    np.testing.assert_array_equal(found, scalar_compensate(reference.numpy(), displacement))


def test_no_motion_is_the_identity():
    reference = random_reference(np.random.default_rng(0), 3, 5, 7)
    assert torch.equal(compensate(reference, np.zeros((5, 7, 2), np.int64)), reference)
    # and where only some positions move, the others stay
    displacement = np.zeros((5, 7, 2), np.int64)
    displacement[0, 0] = 5
    assert torch.equal(compensate(reference, displacement)[:, 1:], reference[:, 1:])


@given(st.integers(-9, 9), st.integers(-9, 9))
def test_whole_samples_are_a_shift_with_repeated_edges(dy, dx):
    reference = random_reference(np.random.default_rng(1), 2, 5, 7)
    displacement = np.broadcast_to(np.array([64 * dy, 64 * dx]), (5, 7, 2))
    ys = torch.arange(5).add(dy).clamp(0, 4)
    xs = torch.arange(7).add(dx).clamp(0, 6)
    assert torch.equal(compensate(reference, displacement), reference[:, ys][:, :, xs])


@pytest.mark.parametrize("phase", range(64))
def test_a_flat_tensor_stays_flat(phase):
    reference = torch.full((1, 4, 4), -12345.0, dtype=torch.float64)
    displacement = np.full((4, 4, 2), phase)
    assert torch.equal(compensate(reference, displacement), reference)


def test_the_prediction_of_the_largest_latents_is_a_latent():
    signs = torch.tensor([[1.0, -1.0], [-1.0, 1.0]], dtype=torch.float64)
    reference = (signs.repeat(3, 3) * LATENT_LIMIT)[None]
    for phase in range(64):
        displacement = np.full((6, 6, 2), phase)
        assert float(compensate(reference, displacement).abs().max()) <= LATENT_LIMIT
    # an edge with its bright sides towards the sample overshoots
    step = torch.tensor([-1.0, 1.0, 1.0, -1.0], dtype=torch.float64) * LATENT_LIMIT
    reference = (step[:, None] * step[None].abs())[None]
    assert float(compensate(reference, np.full((4, 4, 2), 32)).abs().max()) <= LATENT_LIMIT
