"""The quantiser against its formula in Python integers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from codec.format.constants import MAX_LEVEL, MAX_QP
from codec.format.tables import DEFAULT_POINTS
from codec.normative.quantization import COEFFICIENT_LIMIT, dequantise, step_size

QPS = st.integers(0, MAX_QP)


def scalar(level: int, point: int, step: int) -> int:
    magnitude = ((64 * abs(level) - point) * step + 32) >> 6
    sign = (level > 0) - (level < 0)
    return max(-COEFFICIENT_LIMIT, min(COEFFICIENT_LIMIT, sign * magnitude))


def integers(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def quantise(coefficients: np.ndarray, step: int, offset: float) -> np.ndarray:
    """The plain dead-zone quantiser: what an encoder without better ideas would write."""
    magnitude = np.floor(np.abs(coefficients) * (1.0 / step) + offset)
    return np.copysign(np.minimum(magnitude, MAX_LEVEL), coefficients).astype(np.int64)


def test_step_sizes():
    assert [step_size(qp) for qp in range(6)] == [round(64 * 2 ** (k / 6)) for k in range(6)]
    for qp in range(6, MAX_QP + 1):
        assert step_size(qp) == 2 * step_size(qp - 6)
    for qp in (-1, MAX_QP + 1):
        with pytest.raises(ValueError, match="outside"):
            step_size(qp)


@given(
    st.integers(-MAX_LEVEL, MAX_LEVEL) | st.sampled_from((-MAX_LEVEL, -1, 0, 1, MAX_LEVEL)),
    st.integers(-32, 32),
    QPS,
)
def test_dequantise_equals_the_scalar_reference(level, point, qp):
    step = step_size(qp)
    found = dequantise(integers(level), integers(point), integers(step))
    assert found.tolist() == [scalar(level, point, step)]


@given(st.floats(-(2.0**23), 2.0**23), QPS, st.floats(0.0, 0.5))
def test_error_is_at_most_half_a_step_outside_the_dead_zone(value, qp, offset):
    step = step_size(qp)
    level = quantise(np.array([value]), step, offset)
    found = dequantise(level, np.zeros_like(level), integers(step))
    error = abs(float(found[0]) - value)
    saturated = abs(float(level[0])) == MAX_LEVEL
    if not saturated:
        assert error <= (1 - offset) * step * (1 + 1e-9)
    if not saturated and offset == 0.5:
        assert error <= step / 2 * (1 + 1e-9)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=20), QPS)
def test_half_a_step_with_rounding_to_nearest(values, qp):
    step = step_size(qp)
    levels = quantise(np.array(values), step, 0.5)
    inside = np.abs(levels) < MAX_LEVEL
    found = dequantise(levels, np.zeros_like(levels), integers(step))
    assert (np.abs(found - np.array(values)) <= step / 2 * (1 + 1e-9))[inside].all()


@given(st.integers(0, MAX_LEVEL), QPS, st.sampled_from((0.22, 0.3, 0.5)))
def test_idempotent_with_zero_points(level, qp, offset):
    step = step_size(qp)
    level = min(level, COEFFICIENT_LIMIT // step)
    for dtype in (np.float32, np.float64):
        once = dequantise(integers(level, -level), integers(0, 0), integers(step))
        assert quantise(once.astype(dtype), step, offset).tolist() == [level, -level]


def test_idempotent_with_the_default_points():
    points = np.array(DEFAULT_POINTS)
    for qp in range(MAX_QP + 1):
        step = step_size(qp)
        for column, level in ((0, 1), (1, 2), (1, 30)):
            shift = points[:, column].astype(np.int64)
            inside = np.abs(shift) < 32
            once = dequantise(np.full_like(shift, level), shift, integers(step))
            assert (quantise(once, step, 0.5)[inside] == level).all()


def test_extremes_stay_within_the_limits():
    step = step_size(MAX_QP)
    levels = integers(-MAX_LEVEL, MAX_LEVEL)
    for point in (-32, 32):
        found = dequantise(levels, np.full_like(levels, point), integers(step))
        assert found.tolist() == [-COEFFICIENT_LIMIT, COEFFICIENT_LIMIT]
    assert dequantise(integers(0), integers(32), integers(step)).tolist() == [0]
