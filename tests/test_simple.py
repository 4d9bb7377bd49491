"""Profiles measured on features of known statistics."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from strategies import header_of

from codec.encoding.config import EncoderConfig
from codec.encoding.encoder import Encoder
from codec.errors import FeatureError
from codec.format.header import TensorSpec
from codec.format.profile import Profile
from codec.normative.decoder import Decoder
from codec.profiling.simple import measure_profile, simple_header

SPEC = TensorSpec("t", 4, 16, 16, 8, 8)
MEANS = torch.tensor([0.0, -3.0, 10.0, 0.5])
DEVIATIONS = torch.tensor([1.0, 0.5, 2.0, 1.0])


def gaussian(
    frames: int, spec: TensorSpec = SPEC, *, unit: float = 1.0
) -> list[list[torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(frames, *spec.shape, generator=generator)
    scaled = (noise * DEVIATIONS[:, None, None] + MEANS[:, None, None]) * unit
    return [[frame] for frame in scaled]


def step_at_qp0(profile: Profile) -> float:
    """Feature units of a level of one at qp 0."""
    tensor = profile.tensors[0]
    band = tensor.bands[0]
    spectrum = 64 * float(band.matrix[0]) * 2.0**-band.shift
    return spectrum / 16 / 2.0**tensor.fraction_bits


@pytest.mark.parametrize("unit", [1e-3, 1.0, 50.0])
def test_means_and_deviations_are_measured(unit):
    profile = measure_profile([SPEC], gaussian(100, unit=unit))
    tensor = profile.tensors[0]
    np.testing.assert_allclose(
        tensor.mean * 2.0**-tensor.fraction_bits / unit, MEANS.numpy(), atol=0.05
    )
    # a scale of s says that the standard deviation is the step at qp s
    measured = step_at_qp0(profile) * 2.0 ** (tensor.bands[0].scale[0].astype(float) / 6)
    np.testing.assert_allclose(measured / unit, DEVIATIONS.numpy(), rtol=0.1)
    assert np.abs(tensor.frequency_scale).max() <= 1


def test_the_step_of_qp_26_is_the_deviation():
    profile = measure_profile([SPEC], gaussian(50))
    variance = float(DEVIATIONS.square().mean())
    assert step_at_qp0(profile) * 2 ** (26 / 6) == pytest.approx(variance**0.5, rel=0.03)


@pytest.mark.parametrize("unit", [1e-6, 0.01, 0.3, 100.0])
def test_units_are_the_steps_of_qp_0(unit):
    profile = measure_profile([SPEC], gaussian(5), units=[unit])
    assert step_at_qp0(profile) == pytest.approx(unit, rel=0.01)


def test_channels_that_matter_get_finer_steps():
    weights = np.array([1.0, 4.0, 0.25, 1.1])
    plain = measure_profile([SPEC], gaussian(50)).tensors[0]
    profile = measure_profile([SPEC], gaussian(50), weights=[weights]).tensors[0]
    gains = [
        band.matrix * 2.0 ** -(band.shift + p.fraction_bits)
        for p in (plain, profile)
        for band in p.bands
    ]
    np.testing.assert_allclose(gains[1] / gains[0], [1, 0.5, 2, 1], rtol=1e-3)
    difference = profile.bands[0].scale.astype(int) - plain.bands[0].scale
    assert difference.tolist() == [[0, 6, -6, 0]] * 2
    assert profile.fraction_bits == plain.fraction_bits + 1


def test_large_features_with_weights_are_coded():
    spec = TensorSpec("t", 3, 16, 16, 8, 8)
    generator = torch.Generator().manual_seed(0)
    samples = [[torch.randn(spec.shape, generator=generator) * 1e6] for _ in range(4)]
    profile = measure_profile([spec], samples, weights=[np.array([0.01, 1, 4])])
    assert Profile.from_bytes(profile.to_bytes()).hash == profile.hash
    header = header_of((spec,), profile, size=(128, 128))
    frame = Encoder(header, EncoderConfig(qp=0)).encode(samples[0])
    error = (frame.features[0] - samples[0][0]).square().mean((1, 2)).sqrt() / 1e6
    assert float(error.max()) < 0.1


@pytest.mark.parametrize("unit", [2.0**-21, 1e-3, 1.0, 300.0, 2.0**16])
def test_weights_of_any_spread_are_in_the_format(unit):
    weights = np.array([1e-4, 1.0, 1e3, 1.0])
    profile = measure_profile([SPEC], gaussian(2), units=[unit], weights=[weights])
    assert Profile.from_bytes(profile.to_bytes()).hash == profile.hash
    assert (profile.tensors[0].bands[0].matrix > 0).all()


def test_smooth_features_have_low_frequencies():
    ramp = torch.linspace(-1, 1, 16).expand(4, 16, 16)
    generator = torch.Generator().manual_seed(1)
    samples = [[ramp * float(torch.randn((), generator=generator))] for _ in range(20)]
    scale = measure_profile([SPEC], samples).tensors[0].frequency_scale[0].reshape(8, 8)
    assert scale[0, 1] > scale[0, 7] + 12
    assert scale[0, 1] > scale[1, 0] + 12


@pytest.mark.parametrize("deviation", [1e-5, 1e-2, 1e4])
def test_features_of_any_scale_are_coded_as_well(deviation):
    samples = [[frame[0] * deviation] for frame in gaussian(20)]
    profile = measure_profile([SPEC], samples)
    header = header_of((SPEC,), profile, size=(128, 128))
    frame = Encoder(header, EncoderConfig(qp=12)).encode(samples[0])
    error = float((frame.features[0] - samples[0][0]).square().mean().sqrt()) / deviation
    assert error < 0.2
    assert torch.equal(Decoder(header).decode(frame.packet).latents[0], frame.latents[0])


@pytest.mark.parametrize("level", [10.0, 1000.0, -1000.0])
def test_small_variations_around_a_large_mean_are_coded(level):
    """The fraction bits leave room for the mean, or every latent is clipped."""
    samples = [[frame[0] * 0.01 + level] for frame in gaussian(5)]
    header = header_of((SPEC,), measure_profile([SPEC], samples), size=(128, 128))
    frame = Encoder(header, EncoderConfig(qp=12)).encode(samples[0])
    assert float((frame.features[0] - samples[0][0]).abs().max()) < 0.1


@pytest.mark.parametrize(
    ("height", "width", "size"),
    [
        (14, 14, 7),
        (56, 56, 7),
        (16, 8, 8),
        (272, 480, 8),
        (52, 52, 4),
        (13, 13, 4),
        (13, 9, 4),
        (1, 3, 3),
    ],
)
def test_blocks_fit_tensors(height, width, size):
    spec = TensorSpec("t", 2, height, width, 8, 8)
    profile = measure_profile([spec], [[torch.randn(2, height, width)]])
    assert profile.tensors[0].block_size == size


def test_constant_features_are_accepted():
    profile = measure_profile([SPEC], [[torch.full(SPEC.shape, 2.5)]])
    tensor = profile.tensors[0]
    np.testing.assert_allclose(tensor.mean * 2.0**-tensor.fraction_bits, 2.5)


def test_several_tensors_and_provenance():
    other = TensorSpec("u", 2, 7, 7, 16, 16)
    samples = [[*frame, torch.randn(2, 7, 7)] for frame in gaussian(3)]
    profile = measure_profile([SPEC, other], samples, provenance={"images": 3})
    assert [tensor.channels for tensor in profile.tensors] == [4, 2]
    assert profile.provenance == {"images": 3}
    assert Profile.from_bytes(profile.to_bytes()).hash == profile.hash


def noise(level: float, deviation: float) -> list[list[torch.Tensor]]:
    return [[frame[0].double() * deviation + level] for frame in gaussian(3)]


@pytest.mark.parametrize(
    ("level", "deviation", "message"),
    [
        (0, 3e37, r"'t' reach \d\.\d+e\+3\d in magnitude, .* is 8\.38861e\+06; divide them"),
        (3e37, 0, r"'t' reach 3e\+37 in magnitude"),
        (0, 1e300, r"'t' reach \d\.\d+e\+30\d in magnitude"),
        (0, 1e-40, r"a step of .* is outside .*: scale them to a deviation around 1"),
        (1e6, 0.1, r"vary by only 0\.\d+ around values of up to 1e\+06; subtract their mean"),
    ],
)
def test_features_beyond_the_range_are_refused(level, deviation, message):
    with pytest.raises(FeatureError, match=message):
        measure_profile([SPEC], noise(level, deviation))


@pytest.mark.parametrize(("level", "deviation"), [(1e5, 1), (-1e6, 1), (1e4, 1), (0, 1e5)])
def test_features_within_it_are_coded_well(level, deviation):
    """Where the mean is much larger than the deviation too: float32 keeps little of the latter."""
    samples = noise(level, deviation)
    header = header_of((SPEC,), measure_profile([SPEC], samples), size=(128, 128))
    frame = Encoder(header, EncoderConfig(qp=12)).encode(samples[0])
    error = (frame.features[0].double() - samples[0][0]).square().mean().sqrt()
    assert float(error) < 0.2 * deviation


@pytest.mark.parametrize("value", [0.0, 2.5, 1e5, 0.1])
def test_constants_stay_constants(value):
    samples = [[torch.full(SPEC.shape, value)]]
    header = header_of((SPEC,), measure_profile([SPEC], samples), size=(128, 128))
    (found,) = Encoder(header).encode(samples[0]).features
    assert torch.allclose(found, samples[0][0], atol=2e-3)


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t.double(),
        lambda t: t.half(),
        lambda t: t.bfloat16(),
        lambda t: (t * 10).int(),
        lambda t: t > 0,
        lambda t: t.transpose(1, 2),
        lambda t: t.clone().requires_grad_(),
        lambda t: -0.0 * t,
    ],
)
def test_features_of_any_real_type_are_coded(change):
    samples = [[change(frame[0])] for frame in gaussian(2)]
    header = simple_header([SPEC], samples, 128, 128)
    plain = [[frame[0].detach().float().contiguous()] for frame in samples]
    assert header == simple_header([SPEC], plain, 128, 128)
    mine, theirs = Encoder(header), Encoder(header)
    for one, other in zip(samples, plain, strict=True):
        assert mine.encode(one).packet == theirs.encode(other).packet


@pytest.mark.parametrize(
    ("samples", "error", "message"),
    [
        (lambda t: [[t[None]]], FeatureError, r"\(1, .*expected .*batch.*tensor\[0\]"),
        (lambda t: [[torch.stack([t, t])]], FeatureError, "frames one by one"),
        (lambda t: [[t[:1]]], FeatureError, r"'t' have shape \(1, .*expected \("),
        (lambda t: [[t, t]], FeatureError, "2 in number, expected 1"),
        (lambda t: [[]], FeatureError, "0 in number, expected 1"),
        (lambda t: [t], TypeError, "expected a list of 1.*put it in a list"),
        (lambda t: [[t.numpy()]], TypeError, r"is a ndarray, expected a torch tensor; torch\.from"),
        (lambda t: [[t.to(torch.complex64)]], FeatureError, "complex64.*expected dense real"),
        (lambda t: [[t.to_sparse()]], FeatureError, "sparse_coo; expected dense real"),
        (lambda t: [[t.to("meta")]], FeatureError, "meta device"),
    ],
)
def test_tensors_that_are_none(samples, error, message):
    frames = samples(gaussian(1)[0][0])
    header = simple_header([SPEC], gaussian(2), 128, 128)
    for attempt in (
        lambda: simple_header([SPEC], frames, 128, 128),
        lambda: measure_profile([SPEC], frames),
        lambda: Encoder(header).encode(frames[0]),
    ):
        with pytest.raises(error, match=message):
            attempt()


def test_no_samples_are_refused():
    with pytest.raises(ValueError, match="at least one frame"):
        measure_profile([SPEC], [])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_features_that_are_not_finite_are_refused(value):
    features = torch.zeros(SPEC.shape)
    features[0, 0, 0] = value
    with pytest.raises(ValueError, match="'t' are not finite"):
        measure_profile([SPEC], [[features]])
