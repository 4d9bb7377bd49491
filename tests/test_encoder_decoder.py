"""The decoder has what the encoder had, bit for bit, and notices when it has not."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import (
    SEEDS,
    encode_all,
    header_of,
    plausible_profile,
    random_features,
    random_vectors,
    stream_headers,
)

from codec.encoding.config import MAX_EFFORT, Decisions, EncoderConfig
from codec.encoding.encoder import EncodedFrame, Encoder
from codec.errors import (
    CorruptBitstreamError,
    FeatureError,
    LimitExceededError,
)
from codec.format.constants import LATENT_LIMIT, MAX_QP
from codec.format.header import SequenceHeader, TensorSpec
from codec.format.packets import FramePacket
from codec.format.primitives import ByteReader
from codec.format.profile import Profile, profile_of
from codec.format.slots import Slots
from codec.limits import Limits
from codec.normative.decoder import Decoder

CONFIGS = st.builds(
    EncoderConfig,
    qp=st.integers(0, MAX_QP),
    keyint=st.sampled_from((1, 2, 3, 64)),
    scene_cut=st.booleans(),
    effort=st.integers(0, MAX_EFFORT),
)


def clip(
    header: SequenceHeader, seed: int, frames: int = 6, spread: float = 1.0
) -> tuple[list[list[torch.Tensor]], list[np.ndarray | None]]:
    rng = np.random.default_rng(seed)
    features = random_features(rng, header, frames, spread)
    fields = [
        random_vectors(rng, header, int(rng.choice((1, 20, 400)))) if rng.random() < 0.7 else None
        for _ in range(frames)
    ]
    return features, fields


def through_bytes(frames: list[EncodedFrame]) -> list[FramePacket]:
    """Packets as a decoder gets them."""
    previous, content = None, b""
    for frame in frames:
        content += frame.packet.to_bytes(previous)
        previous = frame.packet
    source, packets, kept = ByteReader(content), [], Slots()
    for _ in frames:
        packets.append(FramePacket.read(source, kept, 1))
        kept.keep(packets[-1], None, key=packets[-1].key)
    source.end("packets")
    return packets


def assert_same(decoded, encoded: EncodedFrame) -> None:
    for mine, theirs in zip(decoded.latents, encoded.latents, strict=True):
        assert mine.dtype == theirs.dtype == torch.float32
        assert torch.equal(mine, theirs)
    for mine, theirs in zip(decoded.features, encoded.features, strict=True):
        assert mine.dtype == torch.float32
        assert torch.equal(mine, theirs)


def sample_stream(seed: int = 0, frames: int = 8, **options) -> tuple[SequenceHeader, list]:
    """A clip of one tensor with noise in every frame, so that no packet can stand for another."""
    rng = np.random.default_rng(seed)
    profile = Profile((plausible_profile(rng, 4, 4, dense=True),))
    header = header_of((TensorSpec("t", 4, 9, 11, 8, 8, 7, 7),), profile, size=(72, 88))
    features = [[torch.from_numpy(rng.normal(size=(4, 9, 11))).float()] for _ in range(frames)]
    fields = [random_vectors(rng, header, 20) for _ in range(frames)]
    config = EncoderConfig(**{"qp": 16, "keyint": 4, "scene_cut": False} | options)
    return header, encode_all(header, config, features, fields)


# --- no desync ------------------------------------------------------------------------------------


@given(stream_headers(), CONFIGS, SEEDS, st.booleans(), st.sampled_from((0.0, 0.1, 1.0, 1e6)))
def test_decoder_has_what_the_encoder_had(header, config, seed, intra, spread):
    features, fields = clip(header, seed, spread=spread)
    limit = LATENT_LIMIT / 64  # profiles have six fraction bits
    features = [[tensor.clamp(-limit, limit) for tensor in frame] for frame in features]
    encoded = encode_all(header, config, features, fields, intra=intra)
    decoder = Decoder(SequenceHeader.from_bytes(header.to_bytes())[0])
    for packet, frame in zip(through_bytes(encoded), encoded, strict=True):
        assert packet == frame.packet
        assert_same(decoder.decode(packet), frame)


def importances(
    rng: np.random.Generator, header: SequenceHeader, spread: float
) -> list[np.ndarray]:
    """Weights of all blocks of a frame."""
    return [
        np.exp(np.clip(rng.normal(size=tensor.blocks(spec.height, spec.width)) * spread, -700, 700))
        for spec, tensor in zip(header.tensors, profile_of(header).tensors, strict=True)
    ]


@given(stream_headers(), CONFIGS, SEEDS, st.sampled_from((0.3, 2.0, 100.0)))
def test_decoder_follows_importance(header, config, seed, spread):
    rng = np.random.default_rng(seed)
    encoder, decoder = Encoder(header, config), Decoder(header)
    for features, field in zip(*clip(header, seed), strict=True):
        given_here = importances(rng, header, spread) if rng.random() < 0.6 else None
        encoded = encoder.encode(features, field, importance=given_here)
        assert_same(decoder.decode(encoded.packet), encoded)


@settings(max_examples=25)
@given(stream_headers(), CONFIGS, SEEDS)
def test_decoding_from_any_key_frame_equals_decoding_all(header, config, seed):
    encoded = encode_all(header, config, *clip(header, seed))
    for start, first in enumerate(encoded):
        decoder = Decoder(header)
        if not first.packet.key:
            with pytest.raises(CorruptBitstreamError, match="key frame"):
                decoder.decode(first.packet)
            continue
        for frame in encoded[start:]:
            assert_same(decoder.decode(frame.packet), frame)


def test_frames_carry_the_field_that_they_were_predicted_with():
    rng = np.random.default_rng(3)
    header, _ = sample_stream()
    fields = [random_vectors(rng, header, 400) for _ in range(6)]
    still = random_features(rng, header, 1) * len(fields)
    config = EncoderConfig(qp=8, keyint=4, scene_cut=False, effort=0)  # which keeps every field
    decoder, kept = Decoder(header), 0
    for encoded, given_field in zip(encode_all(header, config, still, fields), fields, strict=True):
        frame = decoder.decode(encoded.packet)
        assert (frame.vectors is not None) == encoded.packet.has_vectors
        if frame.vectors is not None:
            assert frame.vectors.dtype == np.int32
            np.testing.assert_array_equal(frame.vectors, given_field)
            kept += 1
    assert kept == 4  # all but the two key frames


def test_seeking_in_a_decoder_that_has_decoded_before():
    header, encoded = sample_stream()
    decoder = Decoder(header)
    for number in (0, 1, 4, 5, 6, 0, 1, 2):
        assert_same(decoder.decode(encoded[number].packet), encoded[number])


@settings(max_examples=25)
@given(stream_headers(full=True), SEEDS)
def test_the_reconstruction_approaches_the_features(header, seed):
    """Of full rank, distortion falls with the step."""
    features, _ = clip(header, seed, 1)
    errors = []
    for qp in (0, 24, MAX_QP):
        (frame,) = encode_all(header, EncoderConfig(qp=qp), features, [None])
        pairs = zip(frame.features, features[0], strict=True)
        errors.append(max(float((a - b).square().mean().sqrt()) for a, b in pairs))
    assert errors[0] <= errors[1] * 1.05 + 0.02
    assert errors[1] <= errors[2] * 1.05 + 0.02
    assert errors[0] < 0.1


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (float("nan"), "'t' are not finite"),
        (float("-inf"), "'t' are not finite"),
        (1e6, r"'t' reach 1e\+06 in magnitude, the largest that can be coded is 131072; measure"),
        (-3e37, r"'t' reach 3e\+37 in magnitude"),
    ],
)
def test_what_cannot_be_coded_is_refused_and_the_stream_goes_on(value, message):
    header, _ = sample_stream(frames=1)
    rng = np.random.default_rng(4)
    frames = [[torch.from_numpy(rng.normal(size=(4, 9, 11)))] for _ in range(3)]
    encoder, decoder = Encoder(header), Decoder(header)
    for frame in frames:
        wrong = frame[0].clone()
        wrong[1, 2, 3] = value
        with pytest.raises(FeatureError, match=message):
            encoder.encode([wrong])
        encoded = encoder.encode(frame)
        assert_same(decoder.decode(encoded.packet), encoded)


@pytest.mark.parametrize(
    ("vectors", "error", "message"),
    [
        (np.zeros((3, 3), np.int32), ValueError, r"shape \(3, 3\), expected \(3, 3, 2\): rows and"),
        (np.full((3, 3, 2), 0.5), ValueError, "field of float64, expected int32"),
        (torch.zeros(3, 3, 2), TypeError, "is a Tensor, expected a NumPy array"),
        ([[[1, 1]]], TypeError, "is a list, expected a NumPy array"),
    ],
)
def test_fields_that_are_none(vectors, error, message):
    header, _ = sample_stream(frames=1)
    with pytest.raises(error, match=message):
        Encoder(header).encode([torch.zeros(4, 9, 11)], vectors)


def test_what_matters_more_is_coded_finer():
    header, _ = sample_stream(frames=1)
    features = [torch.from_numpy(np.random.default_rng(3).normal(size=(4, 9, 11))).float()]
    weights = np.ones((3, 3))
    weights[0, 0] = 1000
    plain = Encoder(header, EncoderConfig(qp=30)).encode(features)
    assert not plain.packet.has_offsets
    encoder = Encoder(header, EncoderConfig(qp=30))
    finer = encoder.encode(features, importance=[weights])
    assert finer.packet.has_offsets
    corner = np.s_[:, :4, :4]
    error = (plain.features[0] - features[0])[corner].square().mean()
    assert (finer.features[0] - features[0])[corner].square().mean() < error / 10
    rest = np.s_[:, 4:, :]
    assert torch.equal(plain.features[0][rest], finer.features[0][rest])
    still = encoder.encode(features, importance=[weights])  # need not be said again
    assert not still.packet.key
    assert not still.packet.has_offsets


def test_offsets_go_no_further_than_the_qp():
    """Beyond 0 and 51 they would cost bits for nothing; the choice of levels does the rest."""
    header, _ = sample_stream(frames=1)
    features = [torch.from_numpy(np.random.default_rng(3).normal(size=(4, 9, 11))).float() / 9]
    rng, found = np.random.default_rng(0), {}
    for qp, weights in (
        (0, np.exp2(rng.uniform(0, 16, (3, 3)))),
        (51, np.exp2(rng.uniform(-16, 0, (3, 3)))),
        (3, np.full((3, 3), 2.0**16)),
    ):
        encoder = Encoder(header, EncoderConfig(qp=qp, keyint=1))
        encoded = encoder.encode(features, importance=[weights])
        found[qp] = set(encoded.symbols.tensors[0].offsets.tolist())
        if qp == 0:
            plain = Encoder(header, EncoderConfig(qp=qp, keyint=1)).encode(features)
            assert len(encoded.packet.payload) > len(plain.packet.payload)
            errors = [(one.features[0] - features[0]).square().mean() for one in (plain, encoded)]
            assert errors[1] < errors[0]
    assert found == {0: {0}, 51: {0}, 3: {-2}}


def test_offsets_that_do_the_same_stay():
    header, _ = sample_stream(frames=1)
    rng = np.random.default_rng(3)
    frames = [[torch.from_numpy(rng.normal(size=(4, 9, 11))).float()] for _ in range(2)]
    encoder = Encoder(header, EncoderConfig(keyint=64, scene_cut=False))
    weights = [np.full((3, 3), 2.0**16)]
    encoder.encode(frames[0], importance=weights, qp=40)
    coarser = encoder.encode(frames[1], importance=weights, qp=4)
    assert set(coarser.symbols.tensors[0].offsets.tolist()) == {-12}
    assert not coarser.packet.has_offsets


def test_small_moves_of_offsets_are_not_said():
    header, _ = sample_stream(frames=1)
    rng = np.random.default_rng(3)
    encoder = Encoder(header, EncoderConfig(qp=30, scene_cut=False))
    found = []
    for offset in (-4, -5, -6):
        frame = [torch.from_numpy(rng.normal(size=(4, 9, 11))).float()]
        weights = [np.full((3, 3), 2 ** (-2 * offset / 3))]
        encoded = encoder.encode(frame, importance=weights)
        found.append((set(encoded.symbols.tensors[0].offsets.tolist()), encoded.packet.has_offsets))
    assert found == [({-4}, True), ({-4}, False), ({-6}, True)]


def test_what_offsets_cannot_say_still_decides():
    """A field that is right on the left and wrong on the right, at a qp that no offset moves."""
    rng = np.random.default_rng(3)
    profile = Profile((plausible_profile(rng, 3, 4, dense=True, full=True),))
    header = header_of((TensorSpec("t", 3, 16, 16, 8, 8, 7, 7),), profile, size=(128, 128))
    noise = torch.from_numpy(rng.normal(size=(3, 16, 18))).float()
    before, after = noise[:, :, :16], noise[:, :, :16].clone()
    after[:, :, :8] = noise[:, :, 2:10]
    field = np.zeros((*header.field_shape, 2), np.int32)
    field[..., 1] = 64
    chosen = []
    for side in (np.s_[:, :2], np.s_[:, 2:]):
        encoder = Encoder(header, EncoderConfig(scene_cut=False))
        encoder.encode([before], qp=0)
        weights = np.ones((4, 4))
        weights[side] = 100
        encoded = encoder.encode([after], field, qp=0, importance=[weights])
        assert not encoded.packet.has_offsets
        chosen.append(encoded.packet.has_vectors)
    assert chosen == [True, False]


def test_a_scene_cut_has_offsets_of_its_own():
    """A small move that stays between key frames would be said for nothing in a key frame."""
    header, _ = sample_stream(frames=1)
    rng = np.random.default_rng(3)
    encoder = Encoder(header, EncoderConfig(qp=24))
    wild, calm = (torch.from_numpy(rng.normal(size=(4, 9, 11))).float() * n for n in (30, 0.1))
    first = encoder.encode([wild], importance=[np.full((3, 3), 2 ** (2 / 3))])
    assert set(first.symbols.tensors[0].offsets.tolist()) == {-1}
    cut = encoder.encode([calm], importance=[np.ones((3, 3))])
    assert cut.packet.key
    assert not cut.packet.has_offsets


@pytest.mark.parametrize("most", [300, 1000])
def test_offsets_count_in_what_a_frame_may_take(most):
    """Noise in as many blocks as it takes for the offsets alone to be more than that."""
    rng = np.random.default_rng(0)
    profile = Profile((plausible_profile(rng, 2, 4, dense=True),))
    header = header_of((TensorSpec("t", 2, 160, 160, 8, 8, 7, 7),), profile, size=(1280, 1280))
    tensor = torch.from_numpy(rng.normal(size=(2, 160, 160))).float() / 20
    noise = np.exp2(rng.normal(size=(40, 40)) * 4)
    for weights in (None, noise, np.full((40, 40), 2.0**16)):
        encoder = Encoder(header, EncoderConfig(qp=20))
        maps = None if weights is None else [weights]
        for number in range(2):
            frame = [tensor * (1 - 2 * number)]
            encoded = encoder.encode(frame, most_bytes=most, importance=maps)
            assert len(encoded.packet.payload) <= 1.05 * most + 10
    assert Encoder(header).encode([tensor], importance=[noise]).packet.has_offsets


def test_importance_is_of_one_frame():
    header, _ = sample_stream(frames=1)
    rng = np.random.default_rng(3)
    frames = [[torch.from_numpy(rng.normal(size=(4, 9, 11))).float()] for _ in range(3)]
    weights = np.ones((3, 3))
    weights[0, 0] = 1000
    encoder = Encoder(header, EncoderConfig(qp=30, keyint=2, scene_cut=False))
    with pytest.raises(FeatureError):  # and a refused frame leaves nothing behind
        encoder.encode([torch.full((4, 9, 11), 1e30)], importance=[weights])
    assert not encoder.encode(frames[0]).packet.has_offsets
    assert encoder.encode(frames[1], importance=[weights]).symbols.tensors[0].offsets.any()
    after = encoder.encode(frames[2])
    assert after.packet.key
    assert not after.symbols.tensors[0].offsets.any()
    encoder.encode(frames[0], importance=[weights])
    encoder.encode(frames[1], importance=[weights], key=True)
    assert not encoder.encode(frames[2], intra=True).symbols.tensors[0].offsets.any()


@pytest.mark.parametrize(
    ("importance", "error", "message"),
    [
        ([], ValueError, "importance of 0 tensors, expected 1, one array for each of t"),
        ([np.ones((3, 2))], ValueError, r"'t' has shape \(3, 2\), expected \(3, 3\): rows and"),
        ([np.zeros((3, 3))], ValueError, r"'t' holds 0.0, expected positive numbers; where"),
        ([np.full((3, 3), np.nan)], ValueError, "'t' holds nan, expected positive numbers"),
        ([np.eye(3) > 0], ValueError, r"mask of bool, .*; make it numpy.where\(mask, 16, 1\)"),
        ([torch.eye(3) > 0], ValueError, r"mask of bool"),
        ([np.ones((3, 3)) * 1j], ValueError, "'t' is of complex128, expected positive numbers"),
        ([["a"] * 3] * 3, ValueError, "importance of 3 tensors, expected 1"),
        ([[["a"] * 3] * 3], ValueError, "'t' is of <U1, expected positive numbers"),
        ([[[1, 1, 1], [1]]], ValueError, "'t' is no array"),
        (np.ones((3, 3)), TypeError, "is a ndarray, expected a list of 1, an array of rows and"),
        (torch.ones(3, 3), TypeError, "is a Tensor, expected a list of 1, .* put one array in a l"),
        ({"t": np.ones((3, 3))}, TypeError, "importance is a dict, expected a list"),
        ("t", TypeError, "importance is a str, expected a list"),
        (2, TypeError, "importance is a int, expected a list"),
    ],
)
def test_importance_that_is_none(importance, error, message):
    header, _ = sample_stream(frames=1)
    encoder = Encoder(header)
    with pytest.raises(error, match=message) as refused:
        encoder.encode([torch.zeros(4, 9, 11)], importance=importance)
    assert "\n" not in str(refused.value)
    for one in (torch.ones(3, 3, requires_grad=True), torch.ones(3, 3).bfloat16(), [[1] * 3] * 3):
        assert not encoder.encode([torch.zeros(4, 9, 11)], importance=[one]).packet.has_offsets


def test_repeated_frames_cost_almost_nothing():
    rng = np.random.default_rng(1)
    header, _ = sample_stream(frames=1)
    frame = [torch.from_numpy(rng.normal(size=(4, 9, 11))).float()]
    encoded = encode_all(header, EncoderConfig(qp=20), [frame] * 6, [None] * 6)
    assert [e.packet.key for e in encoded] == [True] + [False] * 5
    assert len(encoded[0].packet.payload) > 20
    assert all(len(e.packet.payload) <= 4 for e in encoded[3:])


def test_motion_is_followed():
    """Whole-sample motion of a noise texture: vectors save most of the bytes of inter frames."""
    rng = np.random.default_rng(3)
    profile = Profile((plausible_profile(rng, 3, 4),))
    header = header_of((TensorSpec("t", 3, 16, 16, 8, 8, 7, 7),), profile, size=(128, 128))
    wide = torch.from_numpy(rng.normal(size=(3, 16, 40))).float()
    frames = [[wide[:, :, 2 * n : 2 * n + 16]] for n in range(6)]
    # the content at x was at x + 2 samples in the frame before: 16 pixels, 64 quarters
    vectors = np.zeros((*header.field_shape, 2), np.int32)
    vectors[..., 1] = 64
    config = EncoderConfig(qp=18, scene_cut=False)
    moved = encode_all(header, config, frames, [vectors] * 6)
    still = encode_all(header, config, frames, [None] * 6)
    cost = [sum(len(e.packet.payload) for e in clip[1:]) for clip in (moved, still)]
    assert cost[0] < 0.5 * cost[1]


# --- key frames -----------------------------------------------------------------------------------


def test_keyint_and_key():
    _, encoded = sample_stream()
    assert [e.packet.key for e in encoded] == [True, False, False, False] * 2
    header, _ = sample_stream(frames=1)
    encoder = Encoder(header, EncoderConfig(scene_cut=False))
    frame = [torch.zeros(4, 9, 11)]
    keys = [encoder.encode(frame, key=n == 2).packet.key for n in range(4)]
    assert keys == [True, False, True, False]


def test_scene_cuts_become_key_frames():
    rng = np.random.default_rng(5)
    header, _ = sample_stream(frames=1)
    scenes = [torch.from_numpy(rng.normal(size=(4, 9, 11)) * 3).float() for _ in range(2)]
    frames = [[scenes[n // 4] + 0.01 * torch.randn(4, 9, 11)] for n in range(8)]
    encoded = encode_all(header, EncoderConfig(qp=20), frames, [None] * 8)
    assert [e.packet.key for e in encoded] == [n in {0, 4} for n in range(8)]
    config = EncoderConfig(qp=20, scene_cut=False)
    assert [e.packet.key for e in encode_all(header, config, frames, [None] * 8)].count(True) == 1


def test_pts():
    header, _ = sample_stream(frames=1)
    header = dataclasses.replace(header, frame_duration=3)
    encoder, frame = Encoder(header), [torch.zeros(4, 9, 11)]
    found = [encoder.encode(frame, pts=pts).packet.pts for pts in (None, None, 10, None, None)]
    assert found == [0, 3, 10, 17, 24]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"pts": "a"}, TypeError, "pts 'a' is a str, expected an int"),
        ({"pts": 1.0}, TypeError, "pts 1.0 is a float, expected an int"),
        ({"pts": 1 << 62}, ValueError, "outside"),
        ({"pts": -(1 << 62) - 1}, ValueError, "outside"),
        ({"pts": -(1 << 62)}, ValueError, "is 2\\^62 or more from 3, which"),
        ({"qp": 20.5}, TypeError, "qp 20.5 is a float, expected an int"),
        ({"qp": -1}, ValueError, "qp -1 is below 0"),
    ],
)
def test_a_frame_that_is_refused_leaves_the_next_one_as_it_was(options, error, message):
    rng = np.random.default_rng(0)
    header, _ = sample_stream(frames=1)
    frames = [[torch.from_numpy(rng.normal(size=(4, 9, 11))).float()] for _ in range(3)]
    encoder = Encoder(header, EncoderConfig(qp=20, scene_cut=False))
    encoded = [encoder.encode(frames[0], pts=2)]
    with pytest.raises(error, match=message):
        encoder.encode(frames[1], **options)
    encoded.append(encoder.encode(frames[2]))
    decoder = Decoder(header)
    for packet, frame in zip(through_bytes(encoded), encoded, strict=True):
        assert_same(decoder.decode(packet), frame)


def test_the_largest_times_are_read():
    header, _ = sample_stream(frames=1)
    encoder, frame = Encoder(header), [torch.zeros(4, 9, 11)]
    encoded = [encoder.encode(frame, pts=pts) for pts in (-(1 << 62), -1)]
    with pytest.raises(ValueError, match="or more from"):
        encoder.encode(frame, pts=-(1 << 62))
    encoder = Encoder(header)
    encoded = [encoder.encode(frame, pts=pts) for pts in (-2, -1)]
    encoded.append(encoder.encode(frame, pts=(1 << 62) - 1))
    assert [packet.pts for packet in through_bytes(encoded)] == [-2, -1, (1 << 62) - 1]
    with pytest.raises(ValueError, match="outside"):
        encoder.encode(frame)
    assert encoder.encode(frame, pts=np.int64(-(1 << 62)), key=True).packet.key


def test_fields_of_any_integers_and_order_are_taken():
    header, _ = sample_stream(frames=1)
    rng = np.random.default_rng(0)
    frame = [torch.from_numpy(rng.normal(size=(4, 9, 11)) / 99).float()]
    field = np.arange(18, dtype=np.int32).reshape(*header.field_shape, 2)
    for same in (field.astype(np.uint8), field.astype(">i4"), field[..., ::-1].copy()[..., ::-1]):
        first, second = (Encoder(header, EncoderConfig(effort=0)) for _ in range(2))
        for encoder in (first, second):
            encoder.encode([torch.zeros(4, 9, 11)])
        packet = first.encode(frame, field).packet
        assert packet.has_vectors
        assert second.encode(frame, same).packet == packet


# --- what a decoder must notice -------------------------------------------------------------------


def decode_from_start(header: SequenceHeader, packets: list[FramePacket]) -> None:
    decoder = Decoder(header)
    for packet in packets:
        decoder.decode(packet)


NOTICED = "drifted|payload|escape|level of magnitude|motion vector"
"""A payload under the contexts of another frame: wrong latents, or symbols that cannot be."""


def test_a_missing_packet_is_noticed():
    header, encoded = sample_stream()
    packets = [e.packet for e in encoded]
    for missing in (1, 2, 5, 6):
        with pytest.raises(CorruptBitstreamError, match=NOTICED):
            decode_from_start(header, packets[:missing] + packets[missing + 1 :])


def test_a_wrong_order_is_noticed():
    header, encoded = sample_stream()
    packets = [e.packet for e in encoded]
    for first in (1, 2, 3, 5, 6):
        swapped = list(packets)
        swapped[first], swapped[first + 1] = swapped[first + 1], swapped[first]
        with pytest.raises(CorruptBitstreamError, match=NOTICED):
            decode_from_start(header, swapped)


def test_a_doubled_packet_is_noticed():
    header, encoded = sample_stream()
    packets = [e.packet for e in encoded]
    with pytest.raises(CorruptBitstreamError, match=NOTICED):
        decode_from_start(header, [*packets[:2], packets[1]])


def test_after_an_error_decoding_goes_on_at_a_key_frame():
    header, encoded = sample_stream()
    decoder = Decoder(header)
    decoder.decode(encoded[0].packet)
    with pytest.raises(CorruptBitstreamError, match="drifted"):
        decoder.decode(dataclasses.replace(encoded[1].packet, check=encoded[1].packet.check ^ 1))
    for number in (1, 2, 3):
        with pytest.raises(CorruptBitstreamError, match="at a key frame"):
            decoder.decode(encoded[number].packet)
    for frame in encoded[4:]:
        assert_same(decoder.decode(frame.packet), frame)


def test_blocks_that_reach_beyond_their_tensor_count_towards_the_limits():
    rng = np.random.default_rng(0)
    profile = Profile((plausible_profile(rng, 2, 16),))
    header = header_of((TensorSpec("t", 2, 17, 1, 8, 8),), profile, size=(136, 8))
    Decoder(header, limits=Limits(elements=2 * 2 * 16 * 16))
    with pytest.raises(LimitExceededError, match="elements: 1024 in the stream, limit 1023"):
        Decoder(header, limits=Limits(elements=2 * 2 * 16 * 16 - 1))


def test_a_check_that_does_not_hold_is_noticed():
    header, encoded = sample_stream(frames=2)
    packets = [e.packet for e in encoded]
    for number in (0, 1):
        for bit in range(16 if number else 32):
            damaged = list(packets)
            wrong = packets[number].check ^ 1 << bit
            damaged[number] = dataclasses.replace(packets[number], check=wrong)
            with pytest.raises(CorruptBitstreamError, match="drifted"):
                decode_from_start(header, damaged)


def test_another_profile_is_noticed():
    header, encoded = sample_stream(frames=1)
    tensor = profile_of(header).tensors[0]
    other = Profile((dataclasses.replace(tensor, mean=tensor.mean + 1),))
    header = dataclasses.replace(header, profile=other.to_bytes(), profile_hash=other.hash)
    with pytest.raises(CorruptBitstreamError, match="drifted"):
        Decoder(header).decode(encoded[0].packet)


# --- what the encoder refuses ---------------------------------------------------------------------


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_values_that_are_not_finite_are_refused(value):
    header, _ = sample_stream(frames=1)
    features = torch.zeros(4, 9, 11)
    features[1, 2, 3] = value
    with pytest.raises(ValueError, match="not finite"):
        Encoder(header).encode([features])


@pytest.mark.parametrize("shape", [(4, 9, 10), (4, 11, 9), (3, 9, 11), (1, 4, 9, 11)])
def test_wrong_shapes_are_refused(shape):
    header, _ = sample_stream(frames=1)
    with pytest.raises(ValueError, match="have shape"):
        Encoder(header).encode([torch.zeros(shape)])
    with pytest.raises(ValueError, match="0 in number, expected 1"):
        Encoder(header).encode([])


@pytest.mark.parametrize("value", [0, 1])
def test_wrong_fields_are_refused(value):
    header, _ = sample_stream(frames=1)
    with pytest.raises(ValueError, match="motion field"):
        Encoder(header).encode([torch.zeros(4, 9, 11)], np.full((2, 2, 2), value, np.int32))


@pytest.mark.parametrize(
    "options", [{"qp": -1}, {"qp": 52}, {"keyint": 0}, {"effort": -1}, {"effort": MAX_EFFORT + 1}]
)
def test_configurations_out_of_range_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        EncoderConfig(**options)


@pytest.mark.parametrize("name", ["qp", "keyint", "effort"])
def test_configurations_are_whole_numbers(name):
    with pytest.raises(TypeError, match=f"{name} 4.0 is a float, expected an int"):
        EncoderConfig(**{name: 4.0})
    with pytest.raises(TypeError, match=f"{name} None is a NoneType, expected an int"):
        EncoderConfig(**{name: None})
    assert type(getattr(EncoderConfig(**{name: np.int64(4)}), name)) is int


@pytest.mark.parametrize(
    "options",
    [
        {"price": -0.1},
        {"price": float("inf")},
        {"rounding": 1.5},
        {"finest": 3},
        {"finest": -1},
        {"intra_margin": -1},
        {"scene_cut_margin": float("nan")},
        {"rounds": -1},
        {"directions": -1},
    ],
)
def test_decisions_out_of_range_are_refused(options):
    with pytest.raises(ValueError, match=f"{next(iter(options))} .*, expected"):
        Decisions(**options)
