"""Profiles: round trips through bytes and files, and refusal of what cannot be one."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file
from strategies import header_of, plausible_profile, profiles, tensor_profiles

from codec.encoding.encoder import Encoder
from codec.errors import CorruptBitstreamError, UnsupportedBitstreamError
from codec.format.constants import MAX_CHANNELS
from codec.format.header import TensorSpec
from codec.format.primitives import ByteWriter
from codec.format.profile import Band, Profile, embedded, profile_of
from codec.format.tables import DEFAULT_POINTS
from codec.normative.decoder import Decoder
from codec.profiling.simple import simple_header

POINT_BYTES = 2 * len(DEFAULT_POINTS)


def one(rng: np.random.Generator, channels: int = 3, **options) -> Profile:
    return Profile((plausible_profile(rng, channels, 3, **options),))


@given(profiles())
def test_bytes_round_trip(profile):
    content = profile.to_bytes()
    parsed = Profile.from_bytes(content)
    assert parsed.to_bytes() == content
    assert parsed.hash == profile.hash
    for mine, theirs in zip(profile.tensors, parsed.tensors, strict=True):
        assert (mine.fraction_bits, mine.block_size) == (theirs.fraction_bits, theirs.block_size)
        for name in ("mean", "band_of", "ranks", "frequency_scale", "points"):
            a, b = getattr(mine, name), getattr(theirs, name)
            assert a.dtype == b.dtype
            np.testing.assert_array_equal(a, b)
        for a, b in zip(mine.bands, theirs.bands, strict=True):
            assert (a.shift, a.matrix.dtype, a.scale.dtype) == (b.shift, np.int16, np.int8)
            np.testing.assert_array_equal(a.matrix, b.matrix)
            np.testing.assert_array_equal(a.scale, b.scale)


@settings(max_examples=20)
@given(profiles())
def test_prefixes_and_leftovers_are_corrupt(profile):
    content = profile.to_bytes()
    for size in range(len(content)):
        with pytest.raises(CorruptBitstreamError, match=r"profile: |channels"):
            Profile.from_bytes(content[:size])
    with pytest.raises(CorruptBitstreamError, match="profile: 1 bytes left over"):
        Profile.from_bytes(content + b"\0")


@given(st.binary(max_size=80))
def test_any_bytes_are_parsed_or_corrupt(content):
    try:
        profile = Profile.from_bytes(content)
    except CorruptBitstreamError:
        return
    assert profile.to_bytes() == content


@given(profiles(), st.data())
def test_damaged_bytes_are_parsed_or_corrupt(profile, data):
    content = bytearray(profile.to_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        parsed = Profile.from_bytes(bytes(content))
    except CorruptBitstreamError:
        return
    assert parsed.to_bytes() == content
    for tensor in parsed.tensors:
        assert len(tensor.scan.position) == tensor.ranks.sum()


@pytest.mark.parametrize("channels", [1 << 20, 1 << 40, (1 << 63) - 1])
def test_huge_counts_are_refused_before_they_are_allocated(channels):
    out = ByteWriter()
    out.varint(1)
    out.raw(bytes([6, 4]))
    out.varint(channels)
    with pytest.raises(CorruptBitstreamError, match=f"{channels} channels"):
        Profile.from_bytes(bytes(out.content) + bytes(1000))


def test_a_huge_matrix_is_refused_before_it_is_allocated():
    out = ByteWriter()
    out.varint(1)
    out.raw(bytes([6, 1]))
    out.varint(1)  # channels
    out.signed(0)
    out.varint(1)  # bands
    out.raw(bytes([0, 1, 0, 0]))  # band, rank, scales of the frequency
    out.raw(bytes(POINT_BYTES))
    out.raw(bytes([1, 13]))
    out.varint(1 << 50)
    with pytest.raises(CorruptBitstreamError, match="needed"):
        Profile.from_bytes(bytes(out.content) + bytes(1000))


@pytest.mark.parametrize("rank", [2, 3, 1 << 40, 1 << 62, (1 << 63) - 1])
def test_ranks_beyond_the_components_are_corrupt(rank):
    """One of two channels, for a dense matrix of one column: where it says so does not matter."""
    profile = plausible_profile(np.random.default_rng(0), 2, 2)
    band = Band(np.ones((2, 1), np.int16), 1, np.zeros((2, 1), np.int8))
    profile = dataclasses.replace(profile, bands=(band,), ranks=np.array([1, 1, 0, 1]))
    assert Profile.from_bytes(Profile((profile,)).to_bytes()) == Profile((profile,))
    object.__setattr__(profile, "ranks", np.array([1, rank, 0, 1]))
    with pytest.raises(CorruptBitstreamError, match="rank"):
        Profile.from_bytes(Profile((profile,)).to_bytes())


@pytest.mark.parametrize("point", [-128, -33, 33, 127])
def test_points_out_of_range_are_corrupt(point):
    profile = plausible_profile(np.random.default_rng(0), 2, 2)
    profile.points[39, 1] = point
    with pytest.raises(CorruptBitstreamError, match="point"):
        Profile.from_bytes(Profile((profile,)).to_bytes())


def serialised(channels: int, bands: int) -> bytes:
    """A profile of one tensor of block size 1 with diagonal bands, complete and well formed."""
    out = ByteWriter()
    out.varint(1)
    out.raw(bytes([6, 1]))
    out.varint(channels)
    out.raw(bytes(channels))
    out.varint(bands)
    out.raw(bytes([0, 1, 0, 0]))
    out.raw(bytes(POINT_BYTES))
    out.raw((bytes([0, 13]) + bytes(4 * channels)) * bands)
    return bytes(out.content)


def test_more_channels_or_bands_than_can_be_used_are_corrupt():
    """Few bytes inflate to millions of them, and parsing those takes minutes."""
    Profile.from_bytes(serialised(MAX_CHANNELS, 1))
    Profile.from_bytes(serialised(1, 256))
    with pytest.raises(CorruptBitstreamError, match="channels"):
        Profile.from_bytes(serialised(MAX_CHANNELS + 1, 1))
    with pytest.raises(CorruptBitstreamError, match="bands"):
        Profile.from_bytes(serialised(1, 257))


@given(tensor_profiles())
def test_scan_visits_the_first_components_of_each_frequency_once_low_frequencies_first(profile):
    scan = profile.scan
    assert profile.components == max(profile.ranks)
    expected = {
        frequency * profile.components + component
        for frequency, rank in enumerate(profile.ranks.tolist())
        for component in range(rank)
    }
    assert len(scan.position) == len(expected)
    assert set(scan.position.tolist()) == expected
    assert scan.bounds[0] == 0
    assert scan.bounds[-1] == len(expected)
    assert list(scan.bounds) == sorted(scan.bounds)
    for index, position in enumerate(scan.position.tolist()):
        frequency, component = divmod(position, profile.components)
        u, v = divmod(frequency, profile.block_size)
        band = profile.bands[profile.band_of[frequency]]
        group = min(u + v, 3) if u + v < 5 else 4
        number = 2 * group + (4 * component >= profile.ranks[frequency])
        assert scan.bounds[number] <= index < scan.bounds[number + 1]
        for kind in (0, 1):
            scale = int(band.scale[kind, component]) + int(profile.frequency_scale[kind, frequency])
            assert scan.scale[kind, index] == scale


@pytest.mark.parametrize(
    "changes",
    [
        {"fraction_bits": 23},
        {"fraction_bits": -1},
        {"block_size": 0},
        {"block_size": 17},
        {"block_size": 2},
        {"mean": np.full(3, (1 << 23) + 1, np.int32)},
        {"mean": np.full(3, -(1 << 31), np.int32)},
        {"mean": np.zeros(4, np.int32)},
        {"bands": ()},
        {"band_of": np.ones(9, np.uint8)},
        {"ranks": np.ones(8, np.int64)},
        {"ranks": np.full(9, 4)},
        {"ranks": np.array([3] * 8 + [-1])},
        {"ranks": np.zeros(9, np.int64)},
        {"frequency_scale": np.zeros((2, 8), np.int8)},
        {"points": np.zeros((39, 2), np.int8)},
        {"points": np.zeros((40, 1), np.int8)},
        {"points": np.full((40, 2), 33, np.int8)},
        {"points": np.full((40, 2), -128, np.int8)},
        {"bands": (Band(np.ones(3, np.int16), 41, np.zeros((2, 3), np.int8)),)},
        {"bands": (Band(np.ones(3, np.int16), 1, np.zeros((2, 2), np.int8)),)},
        {"bands": (Band(np.ones((3, 4), np.int16), 1, np.zeros((2, 4), np.int8)),)},
        {"bands": (Band(np.ones((3, 0), np.int16), 1, np.zeros((2, 0), np.int8)),)},
    ],
)
def test_profiles_that_cannot_be_are_refused(changes):
    profile = plausible_profile(np.random.default_rng(0), 3, 3)
    with pytest.raises(ValueError, match="profile"):
        dataclasses.replace(profile, **changes)


@pytest.mark.parametrize("dense", [False, True])
def test_file_round_trip(tmp_path, dense):
    path = tmp_path / "profile.safetensors"
    profile = one(np.random.default_rng(1), dense=dense, bands=2)
    profile = Profile(profile.tensors, {"images": 7, "origin": "test"})
    profile.save(path)
    loaded = Profile.load(path)
    assert loaded.to_bytes() == profile.to_bytes()
    assert loaded.provenance == profile.provenance


def test_files_that_are_no_profiles_are_refused(tmp_path):
    path = tmp_path / "file"
    with pytest.raises(FileNotFoundError):
        Profile.load(path)
    path.write_bytes(b"")
    with pytest.raises(UnsupportedBitstreamError, match="not a profile"):
        Profile.load(path)
    save_file({"weights": np.zeros(3)}, path)
    with pytest.raises(UnsupportedBitstreamError, match="not a profile"):
        Profile.load(path)
    save_file({"profile": np.zeros(3, np.uint8)}, path)
    with pytest.raises(CorruptBitstreamError, match="profile: "):
        Profile.load(path)
    content = np.frombuffer(one(np.random.default_rng(0)).to_bytes(), np.uint8)
    save_file({"profile": content}, path, {"provenance": "{"})
    with pytest.raises(UnsupportedBitstreamError, match="not a profile"):
        Profile.load(path)


def test_profiles_compare_by_value():
    first, second = (one(np.random.default_rng(2)) for _ in range(2))
    assert first == second
    assert first != one(np.random.default_rng(3))


def test_profile_of_header():
    profile = one(np.random.default_rng(4))
    spec = TensorSpec("t", 3, 4, 4, 8, 8)
    header = header_of((spec,), profile, size=(32, 32))
    assert profile_of(header).hash == profile.hash
    with pytest.raises(CorruptBitstreamError, match="hash"):
        profile_of(dataclasses.replace(header, profile_hash=bytes(8)))
    with pytest.raises(UnsupportedBitstreamError, match=f"{profile.hash.hex()} is not shipped"):
        profile_of(dataclasses.replace(header, profile=None))
    other = dataclasses.replace(spec, channels=2)
    with pytest.raises(CorruptBitstreamError, match="channels"):
        profile_of(dataclasses.replace(header, tensors=(other,)))
    with pytest.raises(CorruptBitstreamError, match="channels"):
        profile_of(dataclasses.replace(header, tensors=(spec, dataclasses.replace(spec, name="u"))))


def test_a_profile_may_be_given_in_place_of_carried():
    profile, other = (one(np.random.default_rng(seed)) for seed in (4, 5))
    spec = TensorSpec("t", 3, 4, 4, 8, 8)
    carried = header_of((spec,), profile, size=(32, 32))
    named = dataclasses.replace(carried, profile=embedded(profile, embed=False))
    assert named.profile is None
    for header in (carried, named):
        assert profile_of(header, given=profile) is profile
        message = f"given has hash {other.hash.hex()}, the stream was written with"
        with pytest.raises(UnsupportedBitstreamError, match=f"{message} {profile.hash.hex()}"):
            profile_of(header, given=other)
    narrow = dataclasses.replace(named, tensors=(dataclasses.replace(spec, channels=2),))
    with pytest.raises(CorruptBitstreamError, match="channels"):
        profile_of(narrow, given=profile)


def test_streams_decode_with_the_profile_given():
    spec = TensorSpec("t", 3, 14, 14, 16, 16)
    features = [torch.randn(spec.shape, generator=torch.Generator().manual_seed(1))]
    carried = simple_header([spec], [features], 224, 224)
    profile = profile_of(carried)
    named = dataclasses.replace(carried, profile=None)
    encoded = Encoder(named, profile=profile).encode(features)
    assert encoded.packet == Encoder(carried).encode(features).packet
    decoded = Decoder(named, profile=profile).decode(encoded.packet)
    assert torch.equal(decoded.features[0], encoded.features[0])
    with pytest.raises(UnsupportedBitstreamError, match="give the profile"):
        Decoder(named)
