"""Transforms that whiten, and the profiles made of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from strategies import header_of

from codec.encoding.config import EncoderConfig
from codec.encoding.encoder import Encoder
from codec.encoding.forward_transform import ForwardTransform
from codec.errors import ModelError
from codec.format.header import TensorSpec
from codec.format.profile import Profile
from codec.models.submodels import CloudSubmodel
from codec.normative.transform import InverseTransform, split_blocks
from codec.profiling import weighted
from codec.profiling.statistics import BUDGET, TensorStatistics
from codec.profiling.weighted import WeightedTransform, channel_weights
from codec.tasks.anything import Anything

SPEC = TensorSpec("t", 5, 14, 14, 16, 16)


def cloud_of(function) -> CloudSubmodel:
    return CloudSubmodel(function, 1)


def correlated(count: int, spec: TensorSpec, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(spec.channels, spec.channels, generator=generator)
    noise = torch.randn(count, spec.channels, spec.height, spec.width, generator=generator)
    smooth = torch.nn.functional.avg_pool2d(noise, 3, 1, 1) * 2 + 0.2 * noise
    return torch.einsum("cd,ndhw->nchw", mix, smooth) + 3


def measured(spec: TensorSpec = SPEC, budget: int = BUDGET) -> TensorStatistics:
    each = TensorStatistics(spec, budget)
    features, residuals = correlated(40, spec, 0), correlated(40, spec, 1) - 3
    generator = torch.Generator().manual_seed(2)
    for one, other in zip(features, residuals, strict=True):
        each.add_features(one)
        each.add_residual(other / 3)
        gradients = torch.randn(4, *spec.shape, generator=generator).cumsum(3)
        TensorStatistics.add_gradients([each], [gradients])
    return each


def test_outputs_that_ignore_the_features_are_refused():
    each = measured()
    each.sums["sensitivity"].zero_()
    with pytest.raises(ModelError, match="does not depend"):
        WeightedTransform([each])


def test_weights_of_channels():
    scale = torch.tensor([1.0, 4.0, 0.0, 1.0, 1.0]).reshape(1, -1, 1, 1)
    samples = [[tensor] for tensor in correlated(3, SPEC, 0)]
    (weights,) = channel_weights([SPEC], samples, cloud_of(lambda x: x * scale), Anything())
    assert weights[1] / weights[0] == pytest.approx(16**weighted.FLATTENING, rel=0.05)
    assert 0 < weights[2] < weights[0] / 5
    g = (scale.flatten() ** 2).numpy()
    assert (g / g.mean() / weights).mean() == pytest.approx(1)
    with pytest.raises(ModelError, match="does not depend"):
        channel_weights([SPEC], samples, cloud_of(lambda x: 0 * x), Anything())


@pytest.mark.parametrize("budget", [BUDGET, 2000])
def test_analysis_inverts_synthesis(budget):
    each = measured(budget=budget)
    profile = WeightedTransform([each]).profile(1e-3).tensors[0]
    assert len(profile.bands) == (49 if budget == BUDGET else int(each.band_of.max()) + 1)
    assert (profile.ranks == SPEC.channels).all()
    tensor = correlated(1, SPEC, 5)[0] - torch.tensor(
        profile.mean * 2.0**-profile.fraction_bits, dtype=torch.float32
    ).reshape(-1, 1, 1)
    blocks = split_blocks(tensor * 2.0**profile.fraction_bits, 7)
    coefficients = ForwardTransform(profile)(blocks)
    back = InverseTransform(profile)(coefficients.double().round())
    error = (back - blocks).abs().max() / blocks.abs().max()
    assert error < 1e-3


def test_the_synthesis_is_white_in_the_metric_and_components_are_uncorrelated():
    each = measured()
    transform = WeightedTransform([each])
    sensitivities = [each.sums["sensitivity"].numpy() / 40]
    (metrics,) = weighted._metrics(sensitivities, [each.band_of])
    _, covariance = weighted._moments(each)
    for metric, band in zip(metrics, transform._bands[0], strict=True):
        whitened = band.synthesis.T @ metric @ band.synthesis
        np.testing.assert_allclose(whitened, np.eye(5), atol=1e-9)
        analysis = np.linalg.inv(band.synthesis)
        parts = [analysis @ c[band.members[0]] @ analysis.T for c in covariance]
        mixed = sum(part / np.trace(part) for part in parts)
        np.testing.assert_allclose(mixed, np.diag(np.diag(mixed)), atol=1e-9)
        assert (np.diff(np.diag(mixed)) <= 1e-12).all()
        np.testing.assert_allclose(band.variances[0, 0], np.diag(parts[0]), rtol=1e-6)


def test_covariances_are_those_around_the_mean():
    each = measured()
    mean, covariance = weighted._moments(each)
    features = correlated(40, SPEC, 0)
    np.testing.assert_allclose(mean, features.double().mean((0, 2, 3)), atol=1e-5)
    centred = features - torch.from_numpy(mean).float().reshape(1, -1, 1, 1)
    expected = each.outer(each.spectrum(centred)) / (40 * 4)
    # the integer basis lets a little of the mean into the other frequencies
    np.testing.assert_allclose(covariance[0], expected, atol=2e-3)


def test_a_step_costs_what_it_would_unflattened():
    each = measured()
    g = each.sums["sensitivity"].numpy() / 40
    (metrics,) = weighted._metrics([g], [each.band_of])
    costs = [np.trace(np.linalg.inv(h) @ g[f]) / 5 for f, h in enumerate(metrics)]
    assert np.mean(costs) == pytest.approx(1)


def test_ranks_fall_with_the_step():
    transform = WeightedTransform([measured()])
    deviation = transform.deviation
    fine, middle, coarse = (
        transform.profile(deviation * share).tensors[0] for share in (1e-4, 0.1, 10.0)
    )
    assert (fine.ranks == 5).all()
    assert 49 < middle.ranks.sum() < 5 * 49
    assert (coarse.ranks == 1).all()


@pytest.mark.parametrize("budget", [BUDGET, 5000])
def test_few_inputs_leave_nothing_that_cannot_be_coded(budget):
    spec = TensorSpec("t", 24, 14, 14, 16, 16)
    each = TensorStatistics(spec, budget)
    for tensor in correlated(2, spec, 0):  # 8 blocks for 24 channels
        each.add_features(tensor)
        each.add_residual(tensor - 3)
        gradients = torch.randn(4, *spec.shape, generator=torch.Generator().manual_seed(2))
        TensorStatistics.add_gradients([each], [gradients])
    assert each.few
    assert each.blocks == 8
    transform = WeightedTransform([each])
    profile = transform.profile(transform.deviation / 500)
    assert (profile.tensors[0].ranks == 24).all()
    header = header_of((spec,), profile, size=(224, 224))
    other = correlated(1, spec, 1)[0]
    frame = Encoder(header, EncoderConfig(qp=0)).encode([other])
    assert float((frame.features[0] - other).std() / other.std()) < 0.05


def test_enough_inputs_are_taken_for_what_they_say():
    each = measured()
    assert not each.few
    (band, *_), (_, covariance) = WeightedTransform([each])._bands[0], weighted._moments(each)
    analysis = np.linalg.inv(band.synthesis)
    plain = np.diag(analysis @ covariance[0, 0] @ analysis.T)
    np.testing.assert_allclose(band.variances[0, 0], plain, rtol=1e-9)


def test_scales_are_standard_deviations_in_steps():
    each = measured()
    transform = WeightedTransform([each])
    unit = transform.deviation / 50
    profile = transform.profile(unit).tensors[0]
    for number, band in enumerate(transform._bands[0]):
        expected = 6 * np.log2(np.sqrt(band.variances[:, 0]) / unit)
        found = profile.bands[number].scale + profile.frequency_scale[:, band.members]
        np.testing.assert_allclose(found, expected, atol=1.01)


@pytest.mark.parametrize("unit", [1e-9, 1e-3, 1.0, 1e6])
def test_profiles_of_any_unit_are_in_the_format(unit):
    profile = WeightedTransform([measured()]).profile(unit, {"a": 1})
    assert Profile.from_bytes(profile.to_bytes()).hash == profile.hash
    assert profile.provenance == {"a": 1}


def test_tensors_share_one_scale():
    """A tensor that counts a hundred times less in the outputs gets a ten times coarser step."""
    specs = [SPEC, TensorSpec("u", 5, 14, 14, 16, 16)]
    statistics = [TensorStatistics(spec, 200_000) for spec in specs]
    generator = torch.Generator().manual_seed(0)
    for tensor in correlated(30, SPEC, 0):
        for each in statistics:
            each.add_features(tensor)
            each.add_residual(tensor - 3)
        gradients = torch.randn(4, *SPEC.shape, generator=generator)
        TensorStatistics.add_gradients(statistics, [gradients, gradients / 10])
    first, second = WeightedTransform(statistics)._bands
    ratio = second[3].synthesis[:, 0].std() / first[3].synthesis[:, 0].std()
    assert ratio == pytest.approx(10, rel=0.01)
