"""Streams that keep several frames: what is lost on the way takes nothing with it but what is
predicted from it.
"""

from __future__ import annotations

import copy
import io
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import SEEDS, header_of, plausible_profile, random_vectors, stream_headers

from codec.encoding.config import EncoderConfig
from codec.encoding.encoder import EncodedFrame, Encoder
from codec.encoding.payloads import FrameWriter
from codec.errors import BitstreamError, CorruptBitstreamError, LimitExceededError
from codec.files.streams import StreamReader, StreamWriter
from codec.format.constants import MAX_REFERENCES
from codec.format.header import SequenceHeader, TensorSpec
from codec.format.packets import FramePacket
from codec.format.primitives import ByteReader
from codec.format.profile import Profile
from codec.format.slots import Slots
from codec.limits import Limits
from codec.normative.decoder import Decoder


def some_header(references: int, seed: int = 0) -> SequenceHeader:
    profile = Profile((plausible_profile(np.random.default_rng(seed), 3, 4, dense=True),))
    header = header_of((TensorSpec("t", 3, 9, 11, 8, 8, 7, 7),), profile, size=(72, 88))
    return replace(header, references=references)


def encoded_with(
    header: SequenceHeader,
    seed: int,
    frames: int,
    choose: object = None,
    **options: object,
) -> list[EncodedFrame]:
    """Code noise that changes little from frame to frame, from slots and into slots drawn among
    those that hold something.
    """
    rng = np.random.default_rng(seed)
    config = EncoderConfig(**{"qp": 20, "keyint": 100, "scene_cut": False} | options)
    encoder, filled, found = Encoder(header, config), set(), []
    base = [torch.from_numpy(rng.normal(size=spec.shape)).float() for spec in header.tensors]
    for number in range(frames):
        features = [
            each + 0.3 * torch.from_numpy(rng.normal(size=each.shape)).float() for each in base
        ]
        slots = None
        if filled:
            slots = int(rng.choice(sorted(filled))), int(rng.integers(header.references))
        if rng.random() < 0.2 and found:
            features = list(found[-1].features)
        vectors = random_vectors(rng, header, 9) if rng.random() < 0.5 else None
        pts = number if rng.random() < 0.7 else None
        frame = encoder.encode(features, vectors, slots=slots, pts=pts)
        filled = {0} if frame.packet.key else filled | {slots[1]}
        found.append(frame)
    return found


def delivered(
    header: SequenceHeader, frames: list[EncodedFrame], lost: set[int]
) -> tuple[list[EncodedFrame], set[int]]:
    """Which frames can be decoded if some are lost, by their packets alone, and which cannot."""
    holds: dict[int, int | None] = {}
    arrived: dict[int, int | None] = {}
    good, stuck = [], set()
    for number, frame in enumerate(frames):
        packet = frame.packet
        source, kept = packet.slots or (0, 0)
        if packet.key:
            holds.clear()
        right = packet.key or (holds.get(source) == arrived.get(source) and source in arrived)
        holds[kept] = number
        if number in lost:
            continue
        if not right:
            stuck.add(number)
            continue
        if packet.key:
            arrived.clear()
        arrived[kept] = number
        good.append(frame)
    return good, stuck


@given(
    stream_headers(max_tensors=2), st.integers(2, MAX_REFERENCES), SEEDS, st.sets(st.integers(1, 9))
)
def test_decoding_goes_on_behind_what_is_lost(header, references, seed, lost):
    header = replace(header, references=references)
    frames = encoded_with(header, seed, 10, keyint=7)
    good, _ = delivered(header, frames, lost)
    decoder = Decoder(SequenceHeader.from_bytes(header.to_bytes())[0])
    for frame in good:
        decoded = decoder.decode(frame.packet)
        assert decoded.md5() == decoder_md5(frame)


def decoder_md5(frame: EncodedFrame) -> str:
    from codec.normative.reconstruction import md5_of

    return md5_of(frame.latents)


@settings(max_examples=20)
@given(st.integers(2, 6), SEEDS, st.sets(st.integers(1, 11)))
def test_what_has_arrived_is_a_stream(references, seed, lost):
    header = some_header(references, seed)
    good, _ = delivered(header, encoded_with(header, seed, 12), lost)
    file = io.BytesIO()
    writer = StreamWriter(file, header)
    for frame in good:
        writer.write(frame.packet)
    writer.close()
    file.seek(0)
    reader = StreamReader(file)
    assert reader.header == header
    decoder = Decoder(reader.header)
    found = [(packet.pts, decoder.decode(packet).md5()) for packet in reader]
    assert found == [(frame.packet.pts, decoder_md5(frame)) for frame in good]


@settings(max_examples=20)
@given(SEEDS, st.sets(st.integers(1, 11), min_size=1))
def test_what_is_predicted_from_something_lost_is_told(seed, lost):
    header = some_header(3, seed)
    frames = encoded_with(header, seed, 12)
    good, stuck = delivered(header, frames, lost)
    right = {id(frame) for frame in good}
    decoder = Decoder(header)
    for number, frame in enumerate(frames):
        if number in lost:
            continue
        if frame.packet.repeat and id(frame) not in right:
            continue  # has no check: what carries packets has to know
        try:
            found = decoder.decode(frame.packet)
        except CorruptBitstreamError:
            # of a right one, the slot was lost with a frame that was stuck
            assert id(frame) not in right or stuck
        else:  # or another frame looks alike, or nothing was predicted
            assert found.md5() == decoder_md5(frame)


def test_a_damaged_packet_costs_its_own_slot():
    header = some_header(4)
    config = EncoderConfig(qp=12, scene_cut=False)
    encoder, decoder = Encoder(header, config), Decoder(header)
    rng = np.random.default_rng(1)

    def coded(slots: tuple[int, int] | None = None) -> EncodedFrame:
        return encoder.encode([torch.from_numpy(rng.normal(size=(3, 9, 11)))], slots=slots)

    decoder.decode(coded().packet)
    decoder.decode(coded((0, 1)).packet)
    damaged = coded((1, 2)).packet
    with pytest.raises(CorruptBitstreamError, match="check"):
        decoder.decode(replace(damaged, check=damaged.check ^ 1))
    from_damaged, from_whole = coded((2, 3)), coded((1, 2))
    with pytest.raises(CorruptBitstreamError, match="without the frame"):
        decoder.decode(from_damaged.packet)
    assert decoder.decode(from_whole.packet).md5() == decoder_md5(from_whole)
    assert decoder.decode(coded((2, 3)).packet).pts == 5


def test_slots_go_round_unless_they_are_chosen():
    header = some_header(3)
    encoder = Encoder(header, EncoderConfig(qp=12, keyint=6, scene_cut=False))
    rng = np.random.default_rng(1)
    features = [[torch.from_numpy(rng.normal(size=(3, 9, 11)))] for _ in range(8)]
    found = [encoder.encode(each).packet.slots for each in features]
    assert found == [None, (0, 1), (1, 2), (2, 0), (0, 1), (1, 2), None, (0, 1)]


def test_a_slot_takes_one_byte():
    packets = {}
    for references in (1, 3):
        header = some_header(references)
        encoder = Encoder(header, EncoderConfig(qp=30))
        features = [torch.ones(3, 9, 11)]
        before = encoder.encode(features).packet
        packets[references] = encoder.encode(features).packet.to_bytes(before)
    assert packets == {1: b"\x40", 3: b"\x40\x01"}


@pytest.mark.parametrize(
    ("references", "slots", "message"),
    [
        (1, (0, 1), "expected two from 0 to 0: the header says that 1 frame is kept"),
        (3, (0, 3), "expected two from 0 to 2: the header says that 3 frames are kept"),
        (3, (-1, 0), "expected two from 0 to 2"),
        (3, (0,), "expected two"),
        (3, (2, 0), "slot 2 is empty"),
    ],
)
def test_slots_that_a_stream_does_not_have(references, slots, message):
    encoder = Encoder(some_header(references))
    features = [torch.ones(3, 9, 11)]
    encoder.encode(features)
    with pytest.raises(ValueError, match=message):
        encoder.encode(features, slots=slots)
    assert encoder.encode(features).packet.repeat  # as if nothing had been


@pytest.mark.parametrize("references", [0, 17])
def test_references_that_no_header_has(references):
    with pytest.raises(ValueError, match="references"):
        some_header(references)


def test_kept_elements_are_limited():
    content = some_header(16).to_bytes()
    limits = Limits(kept_elements=16 * 3 * 9 * 11 - 1)
    with pytest.raises(LimitExceededError, match="kept elements: 4752 in the stream, limit 4751"):
        SequenceHeader.from_bytes(content, limits)
    with pytest.raises(ValueError, match="kept elements"):
        Encoder(some_header(16), limits=limits)
    SequenceHeader.from_bytes(some_header(1).to_bytes(), limits)


def test_a_header_of_one_reference_says_nothing_of_it():
    one, two = some_header(1).to_bytes(), some_header(2).to_bytes()
    assert len(two) == len(one) + 1
    assert SequenceHeader.from_bytes(two)[0].references == 2


def test_copies_of_contexts_adapt_apart():
    header = some_header(2)
    frames = encoded_with(header, 5, 6)
    writer = FrameWriter(header, frames[0].profile)
    for frame in frames[:3]:
        writer.write(copy.deepcopy(frame.symbols))
    slot = writer.predicted_from
    contexts = writer._kept[slot]
    before = pickle.dumps(contexts)
    made = contexts.copy()
    assert pickle.dumps(made) == before
    rng = np.random.default_rng(0)
    levels = rng.integers(-3, 4, (made.tensors[0].positions, made.tensors[0].blocks))
    made.vectors.walk((5, 6), 0, lambda *_: 3)
    made.vectors.precision_flags[0].update(1)
    tensor = made.tensors[0]
    tensor.move_to(40)
    tensor.offsets_flag.update(1)
    tensor.intra_flag.update(1)

    def mode(_block: int, flag: object) -> int:
        flag.update(0)
        return 1

    modes = tensor.walk_modes(mode)
    tensor.walk_offsets(lambda *_: 1)
    tensor.walk_levels(modes, lambda first, last, _: levels[first:last].astype(np.int32))
    assert pickle.dumps(contexts) == before
    assert pickle.dumps(made) != before


@given(st.binary(max_size=40), st.integers(2, 16), st.sets(st.integers(0, 15)))
def test_any_bytes_are_a_packet_or_an_error(content, references, filled):
    kept = Slots[FramePacket](references)
    for slot in filled:
        if slot < references:
            kept.keep(FramePacket(True, 7, 20, False, b"", 1), (0, slot), key=False)
    try:
        packet = FramePacket.read(ByteReader(content), kept, 1)
    except BitstreamError:
        return
    assert packet.key == (packet.slots is None)
    if not packet.key:
        assert packet.predicted_from in filled
        written = packet.to_bytes(kept[packet.predicted_from])
        assert FramePacket.read(ByteReader(written), kept, 1).slots == packet.slots
