"""The normative loop against a scalar one, and what checks are taken of."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import SEEDS, random_symbols, stream_headers

from codec.encoding.payloads import FrameWriter
from codec.format.constants import LATENT_LIMIT
from codec.format.header import SequenceHeader
from codec.format.profile import Profile, profile_of
from codec.normative import stripes
from codec.normative.motion import compensate, latent_displacement
from codec.normative.quantization import step_size
from codec.normative.reconstruction import Reconstructor, bytes_of, features_of, integers_of, md5_of
from codec.normative.symbols import MODE_INTRA, MODE_SKIP, FrameSymbols, TensorSymbols
from codec.normative.transform import InverseTransform


def scalar_levels(frame: FrameSymbols, number: int, profile: Profile) -> np.ndarray:
    """Coefficients (frequency, component, block) of a tensor, one level at a time."""
    tensor, symbols = profile.tensors[number], frame.tensors[number]
    count = symbols.levels.shape[1]
    steps = [
        step_size(min(max(frame.qp + 2 * offset, 0), 51))
        for offset, mode in zip(symbols.offsets.tolist(), symbols.modes.tolist(), strict=True)
        if mode != MODE_SKIP
    ]
    out = np.zeros((tensor.block_size**2, tensor.components, count))
    for index, position in enumerate(tensor.scan.position.tolist()):
        for n in range(count):
            level = int(symbols.levels[index, n])
            point = int(tensor.points[symbols.classes[index, n], int(abs(level) > 1)])
            value = ((64 * abs(level) - point) * steps[n] + 32) >> 6
            value = min(value, 1 << 24) * ((level > 0) - (level < 0))
            out[position // tensor.components, position % tensor.components, n] = value
    return out


def scalar_frame(
    latents: list[np.ndarray], frame: FrameSymbols, header: SequenceHeader, profile: Profile
) -> list[np.ndarray]:
    """FORMAT.md 6 block by block; the transform and the compensation have tests of their own."""
    results = []
    for number, (spec, tensor) in enumerate(zip(header.tensors, profile.tensors, strict=True)):
        result = latents[number].copy()
        if frame.vectors is not None:
            displacement = latent_displacement(frame.vectors, header.grid, spec)
            result = compensate(torch.from_numpy(result), displacement).numpy().copy()
        coefficients = torch.from_numpy(scalar_levels(frame, number, profile))
        residuals = iter(InverseTransform(tensor)(coefficients).numpy())
        size, (_, columns) = tensor.block_size, tensor.blocks(spec.height, spec.width)
        for block, mode in enumerate(frame.tensors[number].modes):
            if mode == MODE_SKIP:
                continue
            top, left = block // columns * size, block % columns * size
            area = result[:, top : top + size, left : left + size]
            if mode == MODE_INTRA:
                area[...] = tensor.mean[:, None, None]
            area += next(residuals)[:, : area.shape[1], : area.shape[2]]
            np.clip(area, -LATENT_LIMIT, LATENT_LIMIT, out=area)
        results.append(result)
    return results


@settings(max_examples=25)
@given(stream_headers(max_tensors=2), SEEDS)
def test_loop_equals_the_scalar_loop(header, seed):
    profile = profile_of(header)
    payloads = FrameWriter(header, profile)
    loop = Reconstructor(header.tensors, profile, header.grid)
    expected = [latent.numpy().copy() for latent in loop.predict(None)]
    for frame in random_symbols(np.random.default_rng(seed), header, profile, 4):
        payloads.write(frame)  # fills in the classes
        expected = scalar_frame(expected, frame, header, profile)
        tried = loop.trial(loop.predict(frame.vectors), frame)  # keeps nothing
        found = loop.reconstruct(loop.predict(frame.vectors), frame)
        for mine, trial, theirs in zip(found, tried, expected, strict=True):
            np.testing.assert_array_equal(mine.numpy(), theirs)
            np.testing.assert_array_equal(trial.numpy(), theirs)


@settings(max_examples=15)
@given(stream_headers(max_tensors=2), SEEDS, st.integers(1, 60))
def test_stripes_change_nothing(header, seed, elements):
    """However many elements are computed at a time."""
    profile = profile_of(header)
    payloads = FrameWriter(header, profile)
    whole = Reconstructor(header.tensors, profile, header.grid)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stripes, "STRIPE", elements)
        striped = Reconstructor(header.tensors, profile, header.grid)
        for frame in random_symbols(np.random.default_rng(seed), header, profile, 4):
            payloads.write(frame)
            found = striped.reconstruct(striped.predict(frame.vectors), frame)
            patch.setattr(stripes, "STRIPE", 1 << 20)
            expected = whole.reconstruct(whole.predict(frame.vectors), frame)
            patch.setattr(stripes, "STRIPE", elements)
            assert all(map(torch.equal, found, expected))


@settings(max_examples=25)
@given(stream_headers(), SEEDS)
def test_latents_stay_within_their_limit_whatever_is_coded(header, seed):
    """Skipped blocks take the prediction as it is: it must not grow from frame to frame."""
    profile = profile_of(header)
    loop = Reconstructor(header.tensors, profile, header.grid)
    rng = np.random.default_rng(seed)
    extreme = [
        torch.from_numpy(rng.choice((-LATENT_LIMIT, LATENT_LIMIT), spec.shape)).double()
        for spec in header.tensors
    ]
    loop._kept.keep(extreme, None, key=True)
    nothing = np.zeros((0, 0), np.int32)
    for _ in range(4):
        vectors = rng.integers(-40, 41, (*header.field_shape, 2)).astype(np.int32)
        tensors = []
        for spec, tensor in zip(header.tensors, profile.tensors, strict=True):
            rows, columns = tensor.blocks(spec.height, spec.width)
            modes = np.full(rows * columns, MODE_SKIP, np.uint8)
            tensors.append(
                TensorSymbols(
                    modes, nothing, nothing.astype(np.uint8), np.zeros(len(modes), np.int64)
                )
            )
        frame = FrameSymbols(False, 20, vectors, tensors)
        for latent in loop.reconstruct(loop.predict(vectors), frame):
            assert float(latent.abs().max()) <= LATENT_LIMIT


@given(stream_headers())
def test_the_loop_starts_at_the_means(header):
    profile = profile_of(header)
    loop = Reconstructor(header.tensors, profile, header.grid)
    for latent, spec, tensor in zip(
        loop.predict(None), header.tensors, profile.tensors, strict=True
    ):
        assert latent.shape == spec.shape
        assert (latent.numpy() == tensor.mean[:, None, None]).all()


def test_features_are_exact_multiples():
    rng = np.random.default_rng(0)
    latents = torch.from_numpy(rng.integers(-LATENT_LIMIT, LATENT_LIMIT + 1, (2, 5, 5))).double()
    latents[0, 0, :2] = torch.tensor([-LATENT_LIMIT, LATENT_LIMIT])

    class Tensor:
        fraction_bits = 22

    class Holder:
        tensors = (Tensor,)

    (features,) = features_of([latents], Holder)
    assert features.dtype == torch.float32
    assert torch.equal(features.double() * 2.0**22, latents)


def test_checks_and_md5_are_of_little_endian_int32():
    latents = [torch.tensor([[[1.0, -2.0]]]).double(), torch.tensor([[[300.0]]]).double()]
    content = b"\x01\0\0\0\xfe\xff\xff\xff\x2c\x01\0\0"
    assert b"".join(integers_of(latent).tobytes() for latent in latents) == content
    assert b"".join(bytes_of(latents)) == content
    assert md5_of(latents) == hashlib.md5(content, usedforsecurity=False).hexdigest()
    # in C order, whatever the strides
    turned = torch.arange(6.0).double().reshape(1, 2, 3).transpose(1, 2)
    assert list(bytes_of([turned])) == list(bytes_of([turned.contiguous()]))
