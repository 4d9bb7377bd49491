"""The same bits with any number of threads, with oneDNN or not, on a GPU, and at every bound."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import encode_all, header_of, plausible_profile, random_vectors

from codec.encoding.config import EncoderConfig
from codec.encoding.encoder import Encoder
from codec.encoding.motion_search import MotionSearch, luma
from codec.format.constants import LATENT_LIMIT, MAX_CHANNELS
from codec.format.header import SequenceHeader, TensorSpec
from codec.format.packets import FramePacket
from codec.format.profile import Band, Profile, TensorProfile
from codec.format.tables import DEFAULT_POINTS
from codec.metrics import FeatureNrmse, kl_divergence
from codec.normative.decoder import Decoder
from codec.normative.exact import exact_matmul, round_shift
from codec.normative.motion import compensate, interpolation_filters
from codec.normative.transform import InverseTransform, dct_basis
from codec.profiling.simple import simple_header

gpu = pytest.mark.gpu

EXACT_LIMIT = 1 << 53
"""Integers of smaller magnitude are exact in float64."""


@pytest.fixture(scope="module")
def stream() -> tuple[SequenceHeader, list[FramePacket], list[str]]:
    """A clip of two tensors large enough for torch to use threads, and the encoder's MD5s."""
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    profile = Profile(
        (
            plausible_profile(rng, 112, 7, bands=49, dense=True, cut=True),
            plausible_profile(rng, 24, 8, bands=1),
        )
    )
    specs = (
        TensorSpec("deep", 112, 14, 14, 16, 16, 15, 15),
        TensorSpec("wide", 24, 56, 56, 4, 4, 3, 3),
    )
    header = header_of(specs, profile, size=(224, 224))
    still = [torch.from_numpy(rng.normal(size=spec.shape)).float() for spec in specs]
    frames = [
        [t + 0.2 * torch.from_numpy(rng.normal(size=t.shape)) for t in still] for _ in range(4)
    ]
    fields = [random_vectors(rng, header, 60) for _ in frames]
    encoded = encode_all(header, EncoderConfig(qp=20, scene_cut=False), frames, fields)
    return header, [e.packet for e in encoded], [digest(e.latents) for e in encoded]


def digest(latents: tuple[torch.Tensor, ...]) -> str:
    content = b"".join(latent.cpu().numpy().astype("<i4").tobytes() for latent in latents)
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def decode(stream, device: str = "cpu") -> list[str]:
    header, packets, _ = stream
    decoder = Decoder(header, device=device)
    return [decoder.decode(packet).md5() for packet in packets]


@pytest.fixture(params=[1, 2, 3])
def threads(request) -> Iterator[int]:
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(1)


def test_any_number_of_threads_gives_the_same_bits(stream, threads):
    assert torch.get_num_threads() == threads
    assert decode(stream) == stream[2]


@pytest.mark.filterwarnings("ignore:TF32 acceleration")  # torch's own, on saving the flags
@pytest.mark.parametrize("enabled", [False, True])
def test_onednn_makes_no_difference(stream, enabled):
    with torch.backends.mkldnn.flags(enabled=enabled):
        assert decode(stream) == stream[2]


def test_gradient_mode_makes_no_difference(stream):
    with torch.inference_mode():
        assert decode(stream) == stream[2]


# --- what a program may have switched on around the codec -----------------------------------------


@contextmanager
def default_device(name: str) -> Iterator[None]:
    torch.set_default_device(name)
    try:
        yield
    finally:
        torch.set_default_device(None)


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@contextmanager
def deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


SURROUNDINGS: dict[str, Callable[[], AbstractContextManager[object]]] = {
    "device meta": lambda: default_device("meta"),
    "with meta": lambda: torch.device("meta"),
    "float64": lambda: default_dtype(torch.float64),
    "bfloat16": lambda: default_dtype(torch.bfloat16),
    "autocast": lambda: torch.autocast("cpu"),
    "inference": torch.inference_mode,
    "no gradients": torch.no_grad,
    "deterministic": deterministic,
}


WEIGHT = torch.from_numpy(np.random.default_rng(6).normal(size=(4, 10)) / 20).float()
"""Of a cloud sub-model; made outside of all surroundings, as a network is."""


def everything() -> list[object]:
    """Search, profile, header, packets, reconstruction and measures of a small clip, from pixels.

    At an effort that runs a cloud sub-model and its gradients.
    """
    rng = np.random.default_rng(5)
    wide = rng.integers(0, 256, (64, 96, 3), np.uint8).repeat(2, 0).repeat(2, 1)
    pictures = [np.ascontiguousarray(wide[:, 4 * n : 4 * n + 128]) for n in range(3)]
    spec = TensorSpec("t", 4, 16, 16, 8, 8, 7, 7)
    means = [p.reshape(16, 8, 16, 8, 3).mean((1, 3)).transpose(2, 0, 1) for p in pictures]
    frames = [
        [torch.from_numpy(np.concatenate([m, m[:1] - m[1:2]]).astype(np.float32))] for m in means
    ]

    def cloud(features):
        return features[0].mean((2, 3)) @ WEIGHT

    header = simple_header([spec], frames, 128, 128)
    search = MotionSearch(header, qp=20)
    encoder = Encoder(header, EncoderConfig(qp=20, effort=5), cloud=cloud)
    decoder = Decoder(SequenceHeader.from_bytes(header.to_bytes())[0])
    nrmse = FeatureNrmse(1)
    found: list[object] = [header.to_bytes()]
    for features, picture in zip(frames, pictures, strict=True):
        vectors = search.estimate(luma(picture))
        encoded = encoder.encode(features, vectors)
        decoded = decoder.decode(encoded.packet)
        assert decoded.features[0].dtype == torch.float32
        assert torch.equal(decoded.latents[0], encoded.latents[0])
        nrmse.update(0, features[0].numpy(), decoded.features[0].numpy())
        logits = [one[0].mean((1, 2))[None] for one in (features, decoded.features)]
        kl = kl_divergence(*logits)
        found += [None if vectors is None else vectors.tobytes(), encoded.packet, decoded.md5()]
        found += [float(kl), nrmse.combined()]
    return found


@pytest.fixture(scope="module")
def alone() -> list[object]:
    return everything()


@pytest.mark.parametrize("name", SURROUNDINGS)
def test_surroundings_make_no_difference(stream, alone, name):
    with SURROUNDINGS[name]():
        assert decode(stream) == stream[2]
        assert everything() == alone


@gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_gives_the_same_bits(stream):
    assert decode(stream, "cuda") == stream[2]


@gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_extremes_on_a_gpu():
    profile, coefficients = largest_transform(64, 16)
    expected = InverseTransform(profile)(coefficients)
    found = InverseTransform(profile, "cuda")(coefficients.cuda())
    assert torch.equal(found.cpu(), expected)


# --- rounding -------------------------------------------------------------------------------------


@given(st.integers(-(1 << 52) + 1, (1 << 52) - 1), st.integers(0, 40))
def test_round_shift_equals_python(value, bits):
    found = round_shift(torch.tensor([float(value)], dtype=torch.float64), bits)
    assert int(found[0]) == (value + (1 << bits >> 1)) >> bits


def test_round_shift_at_ties_and_at_its_bound():
    for bits in range(1, 41):
        half = 1 << (bits - 1)
        limit = (1 << 52) - 1
        for value in (-half, half, 3 * half, -3 * half, half - 1, -half - 1, limit, -limit):
            found = round_shift(torch.tensor([float(value)], dtype=torch.float64), bits)
            assert int(found[0]) == (value + half) >> bits


def test_matmul_is_of_float64_alone():
    with pytest.raises(AssertionError):
        exact_matmul(torch.zeros(1, 1), torch.zeros(1, 1))


# --- the bounds -----------------------------------------------------------------------------------


def largest_transform(
    channels: int, size: int, shifts: tuple[int, ...] = (0, 24, 40)
) -> tuple[TensorProfile, torch.Tensor]:
    """Dense matrices and coefficients at their limits, with signs that add up and that do not."""
    rng = np.random.default_rng(1)
    signs = rng.choice((-1, 1), (channels, channels))
    signs[0] = 1
    matrix = np.where(signs > 0, (1 << 15) - 1, -(1 << 15)).astype(np.int16)
    zeros = np.zeros((2, channels), np.int8)
    bands = tuple(Band(matrix, shift, zeros) for shift in shifts)
    frequencies = size * size
    profile = TensorProfile(
        0,
        size,
        np.zeros(channels, np.int32),
        bands,
        (np.arange(frequencies) % len(shifts)).astype(np.uint8),
        np.full(frequencies, channels),
        np.zeros((2, frequencies), np.int8),
        np.zeros((len(DEFAULT_POINTS), 2), np.int8),
    )
    coefficients = rng.choice((-1, 1), (frequencies, channels, 4)) * float(1 << 24)
    coefficients[..., 0] = float(1 << 24)
    coefficients[..., 1] -= np.sign(coefficients[..., 1]) * rng.integers(
        0, 99, (frequencies, channels)
    )
    # the signs of one column of the basis, so that every product of a pixel adds up
    column = np.sign(np.kron(dct_basis(size)[:, 0], dct_basis(size)[:, 0]))
    coefficients[..., 2] = column[:, None] * float(1 << 24)
    return profile, torch.from_numpy(coefficients)


@pytest.mark.parametrize(
    ("channels", "size", "shifts"),
    [
        (1, 1, (0,)),
        (5, 3, (0, 24, 40)),
        (64, 8, (0, 24, 40)),
        (96, 16, (0, 24, 40)),
        (5, 3, (40, 0, 1, 13, 24, 2, 39, 25, 3)),  # a band for each frequency
        (24, 7, tuple(7 * number % 41 for number in range(49))),
    ],
)
def test_the_transform_at_its_limits_equals_integers(channels, size, shifts):
    profile, coefficients = largest_transform(channels, size, shifts)
    integers = coefficients.numpy().astype(np.int64)
    spectrum = np.zeros((size * size, channels, integers.shape[2]), np.int64)
    for frequency, band in enumerate(profile.band_of):
        matrix = profile.bands[band].matrix.astype(np.int64)
        shift = profile.bands[band].shift
        mixed = matrix @ integers[frequency] + (1 << shift >> 1) >> shift
        spectrum[frequency] = np.clip(mixed, -(1 << 26), 1 << 26)
    basis = dct_basis(size)
    rows = np.einsum("vx,uvcn->uxcn", basis, spectrum.reshape(size, size, channels, -1))
    rows = rows + (1 << 12) >> 13
    residual = np.einsum("uy,uxcn->yxcn", basis, rows) + (1 << 16) >> 17
    found = InverseTransform(profile)(coefficients).numpy()
    np.testing.assert_array_equal(found, residual.transpose(3, 2, 0, 1))


def test_the_largest_matrix_that_limits_allow_stays_exact():
    """2^24 · 2^15 · 2^13 = 2^52, in one sum, whatever its order."""
    channels = MAX_CHANNELS
    row = np.full((1, channels), -(1 << 15), np.int64)
    row[0, ::2] += 1
    column = np.full((channels, 1), 1 << 24, np.int64)
    column[::3] -= 1
    exact = sum(int(a) * int(b) for a, b in zip(row[0], column[:, 0], strict=True))
    assert 1 << 51 < abs(exact) < EXACT_LIMIT
    product = exact_matmul(torch.from_numpy(row).double(), torch.from_numpy(column).double())
    assert int(product) == exact
    for shift in (0, 1, 13, 40):
        assert int(round_shift(product, shift)) == (exact + (1 << shift >> 1)) >> shift


def test_compensation_of_the_largest_latents_equals_integers():
    rng = np.random.default_rng(2)
    filters = interpolation_filters()
    signs = np.sign(filters[32])  # every product of the widest filter adds up
    reference = (signs[:, None] * signs[None] * LATENT_LIMIT)[None].repeat(3, 0)
    reference[1] = rng.choice((-LATENT_LIMIT, LATENT_LIMIT), (4, 4))
    reference[2] = -reference[0]
    for phase in (1, 17, 32, 63):
        weights = filters[phase]
        displacement = np.full((4, 4, 2), phase)
        found = compensate(torch.from_numpy(reference).double(), displacement).numpy()
        total = np.einsum("i,j,cij->c", weights, weights, reference) + (1 << 19) >> 20
        expected = np.clip(total, -LATENT_LIMIT, LATENT_LIMIT)
        np.testing.assert_array_equal(found[:, 1, 1], expected)


@pytest.mark.parametrize("qp", [0, 51])
def test_a_stream_at_the_limits_of_its_latents_does_not_drift(qp):
    rng = np.random.default_rng(3)
    profile = Profile((plausible_profile(rng, 3, 4),))
    header = header_of((TensorSpec("t", 3, 9, 9, 8, 8),), profile, size=(72, 72))
    values = (-LATENT_LIMIT / 64, LATENT_LIMIT / 64)
    frames = [[torch.from_numpy(rng.choice(values, (3, 9, 9))).float()] for _ in range(5)]
    frames = [frames[n // 2] for n in range(8)]
    fields = [random_vectors(rng, header, 40) for _ in frames]
    config = EncoderConfig(qp=qp, scene_cut=False)
    decoder = Decoder(header)
    for frame in encode_all(header, config, frames, fields):
        found = decoder.decode(frame.packet)
        assert torch.equal(found.latents[0], frame.latents[0])
        assert float(found.latents[0].abs().max()) <= LATENT_LIMIT
        assert torch.equal(found.features[0] * 64, found.latents[0])
