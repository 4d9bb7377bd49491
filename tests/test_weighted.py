"""Bands under a budget, probes whose outer products are the sensitivity, transforms that whiten."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from strategies import header_of
from torch import nn

from codec.encoding.config import EncoderConfig
from codec.encoding.encoder import Encoder
from codec.encoding.forward_transform import ForwardTransform
from codec.errors import ModelError
from codec.format.header import TensorSpec
from codec.format.profile import Profile
from codec.models.submodels import CloudSubmodel
from codec.normative.transform import InverseTransform, split_blocks
from codec.profiling import weighted
from codec.profiling.weighted import (
    BUDGET,
    TensorStatistics,
    WeightedTransform,
    bands_for,
    channel_weights,
    is_classification,
    output_tensors,
    probe_gradients,
)

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


# --- bands ----------------------------------------------------------------------------------------


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


# --- probes ---------------------------------------------------------------------------------------


def test_outputs_of_any_nesting():
    a, b, c = torch.zeros(1), torch.ones(2), torch.zeros(1, dtype=torch.int64)
    found = output_tensors({"x": a, "y": [(b, c)], "z": 3})
    assert [id(tensor) for tensor in found] == [id(a), id(b)]
    with pytest.raises(ModelError, match="dict, holds no float tensor"):
        output_tensors({"x": c})
    assert is_classification([torch.zeros(1, 7)])
    assert not is_classification([torch.zeros(1, 7), torch.zeros(1, 7)])
    assert not is_classification([torch.zeros(1, 7, 2, 2)])


def outer_of_probes(cloud: CloudSubmodel, features: torch.Tensor, count: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    (gradients,) = probe_gradients(cloud, [features], count, generator)
    flat = gradients.reshape(count, -1)
    return flat.t() @ flat / count


def test_probes_of_a_classifier_have_its_fisher_information():
    features = torch.tensor([0.5, -1.0, 0.2, 0.0]).reshape(4, 1, 1)
    found = outer_of_probes(cloud_of(lambda x: x.flatten(1)), features, 2000)
    p = torch.softmax(features.flatten(), 0)
    np.testing.assert_allclose(found, torch.diag(p) - torch.outer(p, p), atol=0.02)


def test_probes_of_dense_outputs_have_the_gauss_newton_matrix():
    matrix = torch.tensor([[1.0, 2.0], [0.0, 3.0]])
    features = torch.tensor([1.0, -2.0]).reshape(2, 1, 1)

    def cloud(x):
        dense = torch.einsum("ij,njhw->nihw", matrix, x)
        return {"out": dense, "aux": [10 * dense]}

    found = outer_of_probes(cloud_of(cloud), features, 2000)
    variance = (matrix @ features.flatten()).var(correction=0)
    # standardised, the second output is the first one again
    expected = 2 * matrix.t() @ matrix / (2 * variance)
    np.testing.assert_allclose(found, expected, rtol=0.1, atol=0.05)


def test_outputs_that_ignore_the_features_are_refused():
    generator = torch.Generator().manual_seed(0)
    with pytest.raises(ModelError, match="does not depend"):
        probe_gradients(cloud_of(lambda x: torch.zeros(2, 3)), [torch.ones(1, 2, 2)], 2, generator)
    each = measured()
    each.sums["sensitivity"].zero_()
    with pytest.raises(ModelError, match="does not depend"):
        WeightedTransform([each])


def test_weights_of_channels():
    scale = torch.tensor([1.0, 4.0, 0.0, 1.0, 1.0]).reshape(1, -1, 1, 1)
    samples = [[tensor] for tensor in correlated(3, SPEC, 0)]
    (weights,) = channel_weights([SPEC], samples, cloud_of(lambda x: x * scale))
    assert weights[1] / weights[0] == pytest.approx(16**weighted.FLATTENING, rel=0.05)
    assert 0 < weights[2] < weights[0] / 5
    g = (scale.flatten() ** 2).numpy()
    assert (g / g.mean() / weights).mean() == pytest.approx(1)
    with pytest.raises(ModelError, match="does not depend"):
        channel_weights([SPEC], samples, cloud_of(lambda x: 0 * x))


# --- transforms -----------------------------------------------------------------------------------


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
    (weights,) = weighted._weights(sensitivities, [each.band_of])
    _, covariance = weighted._moments(each)
    for weight, band in zip(weights, transform._bands[0], strict=True):
        whitened = band.synthesis.T @ weight @ band.synthesis
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
    (weights,) = weighted._weights([g], [each.band_of])
    costs = [np.trace(np.linalg.inv(h) @ g[f]) / 5 for f, h in enumerate(weights)]
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
    assert ratio == pytest.approx(10**weighted.FLATTENING, rel=0.01)


def test_a_module_is_a_cloud():
    torch.manual_seed(0)
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 30))
    (gradients,) = probe_gradients(
        cloud_of(head), [torch.randn(SPEC.shape)], 3, torch.Generator().manual_seed(0)
    )
    assert gradients.shape == (3, *SPEC.shape)
    assert not torch.equal(gradients[0], gradients[1])
