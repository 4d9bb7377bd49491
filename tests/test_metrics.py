"""Metrics against answers worked out by hand or with exact sums."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from codec.metrics import (
    FeatureNrmse,
    TaskFidelity,
    _ordered_sum,
    kl_divergence,
    nrmse_from_psnr,
    top1_agreement,
)


def tensor(*values: float) -> np.ndarray:
    return np.array(values, dtype=np.float32).reshape(1, 1, -1)


def test_nrmse_known_answer():
    nrmse = FeatureNrmse(1)
    nrmse.update(0, tensor(0, 4, 8, 10), tensor(1, 4, 8, 11))
    # sqrt((1 + 0 + 0 + 1) / 4) / 10
    assert nrmse.per_tensor() == (math.sqrt(0.5) / 10,)
    assert nrmse.combined() == nrmse.per_tensor()[0]


def test_nrmse_wants_arrays():
    with pytest.raises(TypeError, match="tensor 0: reconstructed is a Tensor, expected a NumPy"):
        FeatureNrmse(1).update(0, tensor(0, 1), torch.zeros(1, 1, 2))


def test_nrmse_of_the_largest_floats():
    largest = float(np.finfo(np.float32).max)
    nrmse = FeatureNrmse(1)
    nrmse.update(0, tensor(-largest, largest), tensor(0, largest))
    assert nrmse.combined() == pytest.approx(math.sqrt(0.5) / 2)


def test_nrmse_range_is_of_the_clip_and_of_the_actual_tensor():
    nrmse = FeatureNrmse(1)
    nrmse.update(0, tensor(0, 1), tensor(0, 100))
    nrmse.update(0, tensor(-5, 3), tensor(-5, 3))
    assert nrmse.per_tensor() == (math.sqrt(99**2 / 4) / 8,)


def test_nrmse_of_several_tensors_is_weighted_by_elements():
    nrmse = FeatureNrmse(2)
    nrmse.update(0, tensor(0, 10), tensor(1, 11))  # 2 elements, NRMSE 0.1
    nrmse.update(1, tensor(0, 1, 1, 1, 1, 1), tensor(0, 1, 1, 1, 1, 1))  # 6 elements, exact
    assert nrmse.per_tensor() == (0.1, 0.0)
    assert nrmse.combined() == pytest.approx(math.sqrt(2 * 0.01 / 8), rel=1e-15)


def test_nrmse_is_invariant_to_scale_and_offset():
    rng = np.random.default_rng(1)
    actual = rng.integers(-512, 512, (4, 7, 9)).astype(np.float32)
    reconstructed = actual + rng.integers(-3, 4, actual.shape).astype(np.float32)
    figures = []
    for scale, offset in ((1, 0), (4, 64)):
        nrmse = FeatureNrmse(1)
        nrmse.update(
            0,
            actual * np.float32(scale) + np.float32(offset),
            reconstructed * np.float32(scale) + np.float32(offset),
        )
        figures.append(nrmse.combined())
    assert figures[0] == figures[1]


def test_nrmse_without_dynamic_range():
    exact, wrong = FeatureNrmse(1), FeatureNrmse(1)
    exact.update(0, tensor(3, 3), tensor(3, 3))
    wrong.update(0, tensor(3, 3), tensor(3, 4))
    assert exact.combined() == 0.0
    assert wrong.combined() == math.inf


def test_nrmse_accumulates_in_float64():
    nrmse = FeatureNrmse(1)
    nrmse.update(0, tensor(0, 2**24), tensor(0, 2**24))
    for _ in range(3):
        nrmse.update(0, tensor(*[0.0] * 1000), tensor(*[1.0] * 1000))
    assert nrmse.combined() == math.sqrt(3000 / 3002) / 2**24


def test_nrmse_ignores_memory_layout():
    rng = np.random.default_rng(2)
    actual = rng.standard_normal((5, 6, 7)).astype(np.float32)
    reconstructed = rng.standard_normal((5, 6, 7)).astype(np.float32)
    plain, strided = FeatureNrmse(1), FeatureNrmse(1)
    plain.update(0, actual, reconstructed)
    strided.update(0, np.asfortranarray(actual), np.asfortranarray(reconstructed))
    assert plain.combined() == strided.combined()


@pytest.mark.parametrize("index", [-1, 2])
def test_nrmse_refuses_an_unknown_tensor(index):
    with pytest.raises(ValueError, match="tensor index"):
        FeatureNrmse(2).update(index, tensor(0), tensor(0))


@pytest.mark.parametrize(
    ("actual", "reconstructed", "message"),
    [
        (tensor(0, 1), tensor(0), "shape"),
        (tensor(), tensor(), "shape"),
        (tensor(math.nan), tensor(0), "finite"),
        (tensor(0), tensor(math.inf), "finite"),
    ],
)
def test_nrmse_refuses_bad_arrays(actual, reconstructed, message):
    nrmse = FeatureNrmse(1)
    with pytest.raises(ValueError, match=message):
        nrmse.update(0, actual, reconstructed)
    with pytest.raises(ValueError, match="no frame"):  # and nothing was counted
        nrmse.combined()


def test_nrmse_needs_a_tensor():
    with pytest.raises(ValueError, match="tensor_count"):
        FeatureNrmse(0)


@given(st.lists(st.floats(0, 1e30, allow_subnormal=False), min_size=1, max_size=70))
def test_ordered_sum_is_accurate(values):
    assert _ordered_sum(np.array(values)) == pytest.approx(math.fsum(values), rel=1e-14)


def test_ordered_sum_folds_halves():
    # 2^53 + 1 rounds to 2^53: only this order of additions keeps both ones.
    assert _ordered_sum(np.array([2.0**53, 1.0, 0.0, 1.0])) == 2.0**53 + 2


def test_kl_known_answer():
    # p = (1/2, 1/2), q = (3/4, 1/4)
    reference = torch.tensor([[0.0, 0.0]])
    logits = torch.log(torch.tensor([[0.75, 0.25]], dtype=torch.float64))
    expected = 0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25)
    assert kl_divergence(reference, logits).tolist() == pytest.approx([expected], rel=1e-12)
    backward = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    assert kl_divergence(logits, reference).tolist() == pytest.approx([backward], rel=1e-12)


def test_kl_keeps_leading_axes_and_is_zero_for_equal_outputs():
    logits = torch.linspace(-30, 30, 2 * 3 * 5).reshape(2, 3, 5)
    divergence = kl_divergence(logits, logits + 7.0)  # softmax ignores an offset
    assert divergence.shape == (2, 3)
    assert divergence.dtype == torch.float64
    assert bool((divergence >= 0).all())
    assert float(divergence.max()) < 1e-5  # the offset is added in float32
    assert float(kl_divergence(logits, logits).max()) == 0.0


def test_kl_survives_extreme_logits():
    reference, logits = torch.tensor([2000.0, 0.0]), torch.tensor([0.0, 2000.0])
    assert float(kl_divergence(reference, logits)) == pytest.approx(2000.0)


def test_top1_agreement():
    reference = torch.tensor([[1.0, 2.0, 0.0], [5.0, 0.0, 0.0], [0.0, 0.0, 3.0], [9.0, 1.0, 1.0]])
    logits = torch.tensor([[0.0, 1.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [2.0, 1.0, 1.0]])
    assert top1_agreement(reference, logits) == 0.75


def test_task_fidelity_is_the_mean_over_samples_not_batches():
    generator = torch.Generator().manual_seed(3)
    reference = torch.randn((7, 11), generator=generator)
    logits = torch.randn((7, 11), generator=generator)
    fidelity = TaskFidelity()
    fidelity.update(reference[:2], logits[:2])
    fidelity.update(reference[2:], logits[2:])
    assert fidelity.kl() == pytest.approx(float(kl_divergence(reference, logits).mean()), rel=1e-12)
    assert fidelity.top1_agreement() == top1_agreement(reference, logits)


def test_task_fidelity_without_samples():
    fidelity = TaskFidelity()
    with pytest.raises(ValueError, match="no sample"):
        fidelity.kl()
    with pytest.raises(ValueError, match="no sample"):
        fidelity.top1_agreement()
    with pytest.raises(ValueError, match="no sample"):
        top1_agreement(torch.zeros(0, 3), torch.zeros(0, 3))


@pytest.mark.parametrize("compare", [kl_divergence, top1_agreement, TaskFidelity().update])
def test_bad_logits_are_refused(compare):
    with pytest.raises(ValueError, match="shape"):
        compare(torch.zeros(1, 3), torch.zeros(1, 4))
    with pytest.raises(ValueError, match="finite"):
        compare(torch.zeros(1, 3), torch.tensor([[0.0, math.nan, 0.0]]))


def test_nrmse_from_psnr():
    # The paper's range for pixel prediction: 0.009 to 0.044 is 41 to 27 dB.
    assert nrmse_from_psnr(40.915) == pytest.approx(0.009, rel=1e-4)
    assert nrmse_from_psnr(27.131) == pytest.approx(0.044, rel=1e-4)
    assert nrmse_from_psnr(0.0) == 1.0
    assert nrmse_from_psnr(20.0) == pytest.approx(0.1, rel=1e-15)
    assert nrmse_from_psnr(math.inf) == 0.0
