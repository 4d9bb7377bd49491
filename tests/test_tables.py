"""The frozen tables are what the range coder needs; the integer rules that choose among them."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from codec.format.tables import (
    BINARY_TABLES,
    DEFAULT_POINTS,
    ESCAPE,
    MAX_DIRECT_LEVEL,
    MEAN_BITS,
    PROBABILITY_BITS,
    binary_weights,
    class_of,
    classify,
    expected_level,
    tables,
)


def test_weights_leave_constriction_nothing_to_round():
    levels = tables().levels
    assert levels.shape[1] == ESCAPE + 1
    assert (levels >= 0).all()
    assert (levels.sum(1) == (1 << PROBABILITY_BITS) - levels.shape[1]).all()
    assert (levels.astype(np.float32).astype(np.int64) == levels).all()


def test_level_tables_are_symmetric_and_fall_off():
    direct = tables().levels[:, :ESCAPE]
    assert (direct == direct[:, ::-1]).all()
    # in busy classes zero is a little rarer than one: measured
    assert (np.diff(direct[:, MAX_DIRECT_LEVEL + 1 :]) <= 0).all()
    assert (direct[:, MAX_DIRECT_LEVEL] > direct[:, MAX_DIRECT_LEVEL + 1] * 0.5).all()


def test_classes_ascend():
    frozen = tables()
    classes = len(frozen.levels)
    assert frozen.thresholds.shape == (classes - 1,)
    assert (np.diff(frozen.thresholds) > 0).all()
    assert frozen.thresholds[0] > 0
    assert (np.diff(frozen.expected) >= 0).all()
    zero = frozen.levels[:, MAX_DIRECT_LEVEL]
    assert (np.diff(zero) <= 0).all()
    assert classes <= 256  # classes travel as uint8


def test_default_points_lie_in_their_cells():
    points = np.array(DEFAULT_POINTS)
    assert points.shape == (len(tables().levels), 2)
    assert (np.abs(points) <= 32).all()


def test_flags_sum_to_one_and_cover_their_range():
    for index in range(BINARY_TABLES):
        zero, one = binary_weights(index)
        assert zero >= 0
        assert one >= 0
        assert zero + one == (1 << PROBABILITY_BITS) - 2
        assert (one + 1) * 128 == (2 * index + 1) << PROBABILITY_BITS


@given(st.integers(0, 64 << MEAN_BITS))
def test_classify_against_counting(mean):
    found = int(classify(np.array(mean)))
    assert found == class_of(mean)
    assert found == sum(mean > threshold for threshold in tables().thresholds.tolist())


def test_classify_is_right_at_every_threshold_and_far_above():
    thresholds = tables().thresholds
    means = np.concatenate([np.arange(1 << 16), *(thresholds + d for d in (-1, 0, 1))])
    means = np.concatenate([means, 1 << np.arange(16, 41)])
    np.testing.assert_array_equal(classify(means), np.searchsorted(thresholds, means))


@given(st.integers(-256, 254), st.integers(0, 51))
def test_expected_level_grows_with_the_scale_and_saturates(scale, qp):
    low, high = expected_level(np.array([scale, scale + 1]), qp).tolist()
    assert 0 <= low <= high
    assert expected_level(np.array([scale + qp]), qp) == expected_level(np.array([scale]), 0)


def test_expected_level_at_the_step_is_of_the_order_of_one():
    mean = int(expected_level(np.array([20]), 20)[0]) / (1 << MEAN_BITS)
    assert 0.2 < mean < 1.5
