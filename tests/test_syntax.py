"""Symbols -> payload -> symbols, and payloads that nobody wrote."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import SEEDS, header_of, random_symbols, random_vectors, stream_headers

from codec.encoding.code_lengths import CodeLength
from codec.encoding.payloads import FrameWriter, _put_value
from codec.encoding.symbol_writer import SymbolWriter
from codec.errors import CorruptBitstreamError
from codec.format.constants import MAX_LEVEL, MAX_OFFSET, MAX_VECTOR
from codec.format.header import SequenceHeader, TensorSpec
from codec.format.packets import FramePacket
from codec.format.profile import INTER, INTRA, Band, Profile, TensorProfile, profile_of
from codec.format.tables import DEFAULT_POINTS, ESCAPE, tables
from codec.normative.contexts import TensorContexts, VectorContexts
from codec.normative.range_coder import SymbolReader
from codec.normative.symbols import (
    MODE_INTER,
    MODE_INTRA,
    MODE_SKIP,
    FrameSymbols,
    TensorSymbols,
)
from codec.normative.syntax import FrameReader, _read_value

LEVELS = st.one_of(
    st.integers(-40, 40), st.sampled_from((-MAX_LEVEL, -MAX_LEVEL + 1, MAX_LEVEL - 1, MAX_LEVEL))
)

LAST_CLASS = len(tables().levels) - 1

SLACK = 1.02
"""What the range coder may lose: it divides its range by 2^24 and drops the remainder."""


@given(st.lists(st.tuples(LEVELS, st.integers(0, len(tables().levels) - 1)), max_size=40))
def test_levels_and_escapes_round_trip(levels):
    writer, length = SymbolWriter(), CodeLength()
    for value, number in levels:
        for sink in (writer, length):
            _put_value(sink, value, number)
    payload = writer.finish()
    reader = SymbolReader(payload)
    assert [_read_value(reader, number) for _, number in levels] == [value for value, _ in levels]
    assert 8 * len(payload) <= length.bits * SLACK + 9


# --- frames ---------------------------------------------------------------------------------------


def packet_of(frame: FrameSymbols, payload: bytes, *, offsets: bool = False) -> FramePacket:
    return FramePacket(frame.key, 0, frame.qp, frame.vectors is not None, payload, 1, offsets)


def assert_equal_frames(found: FrameSymbols, expected: FrameSymbols) -> None:
    assert (found.key, found.qp) == (expected.key, expected.qp)
    if expected.vectors is None:
        assert found.vectors is None
    else:
        np.testing.assert_array_equal(found.vectors, expected.vectors)
    for mine, theirs in zip(found.tensors, expected.tensors, strict=True):
        np.testing.assert_array_equal(mine.modes, theirs.modes)
        np.testing.assert_array_equal(mine.levels, theirs.levels)
        np.testing.assert_array_equal(mine.classes, theirs.classes)
        np.testing.assert_array_equal(mine.offsets, theirs.offsets)
        assert (mine.levels.dtype, mine.classes.dtype) == (np.int32, np.uint8)


@given(stream_headers(), SEEDS)
def test_frames_round_trip(header, seed):
    profile = profile_of(header)
    writer, reader = FrameWriter(header, profile), FrameReader(header, profile)
    counter = FrameWriter(header, profile)
    for frame in random_symbols(np.random.default_rng(seed), header, profile, 5):
        given_symbols = copy.deepcopy(frame)
        offsets = writer.changes_offsets(frame)
        payload = writer.write(frame)
        for before, after in zip(given_symbols.tensors, frame.tensors, strict=True):
            np.testing.assert_array_equal(before.levels, after.levels)
            np.testing.assert_array_equal(before.modes, after.modes)
        found = reader.read(packet_of(frame, payload, offsets=offsets))
        assert_equal_frames(found, frame)
        assert counter.code_lengths(found)  # of what was read as of what was written


@settings(max_examples=10)
@given(stream_headers(max_tensors=1), SEEDS)
def test_reported_bits_are_those_of_the_payloads(header, seed):
    profile = profile_of(header)
    writer, counter = FrameWriter(header, profile), FrameWriter(header, profile)
    for frame in random_symbols(np.random.default_rng(seed), header, profile, 4):
        lengths = counter.code_lengths(frame)
        # a number that happens to end in zeros is written without them
        expected = pytest.approx(8 * len(writer.write(frame)), abs=33, rel=1e-3)
        assert sum(lengths.values()) == expected


@settings(max_examples=20)
@given(stream_headers(), SEEDS)
def test_key_frames_need_nothing_before_them(header, seed):
    profile = profile_of(header)
    rng = np.random.default_rng(seed)
    worn = FrameWriter(header, profile)
    for frame in random_symbols(rng, header, profile, 3):
        worn.write(frame)
    (key,) = random_symbols(rng, header, profile, 1)
    assert worn.write(copy.deepcopy(key)) == FrameWriter(header, profile).write(key)


@given(stream_headers(), SEEDS, st.lists(st.binary(max_size=60), min_size=1, max_size=4))
def test_payloads_that_nobody_wrote_are_symbols_or_corrupt(header, seed, payloads):
    profile = profile_of(header)
    reader = FrameReader(header, profile)
    rng = np.random.default_rng(seed)
    for number, payload in enumerate(payloads):
        qp, has_vectors = int(rng.integers(52)), bool(number and rng.integers(2))
        offsets = bool(rng.integers(2))
        try:
            frame = reader.read(FramePacket(number == 0, 0, qp, has_vectors, payload, 1, offsets))
        except CorruptBitstreamError:
            return
        if frame.vectors is not None:
            assert np.abs(frame.vectors).max() <= MAX_VECTOR
        for symbols, tensor in zip(frame.tensors, profile.tensors, strict=True):
            assert set(symbols.modes.tolist()) <= {MODE_SKIP, MODE_INTER, MODE_INTRA}
            assert np.abs(symbols.offsets).max() <= MAX_OFFSET
            coded = int((symbols.modes != MODE_SKIP).sum())
            assert symbols.levels.shape == (len(tensor.scan.position), coded)
            assert np.abs(symbols.levels).max(initial=0) <= MAX_LEVEL


# --- what an encoder asks before it codes ---------------------------------------------------------


def code_some(header: SequenceHeader, rng: np.random.Generator, frames: int) -> FrameWriter:
    """A writer with a history."""
    profile = profile_of(header)
    writer = FrameWriter(header, profile)
    for frame in random_symbols(rng, header, profile, frames):
        writer.write(frame)
    return writer


@settings(max_examples=20)
@given(stream_headers(), SEEDS, st.integers(1, 3))
def test_vector_bits_are_those_of_the_next_frame_and_change_nothing(header, seed, frames):
    rng = np.random.default_rng(seed)
    writer = code_some(header, rng, frames)
    vectors = random_vectors(rng, header, 40)
    before = vectors.copy()
    estimates = [writer.vector_bits(vectors) for _ in range(2)]
    np.testing.assert_array_equal(vectors, before)
    skipped = [
        TensorSymbols(
            np.zeros(one.blocks, np.uint8),
            np.zeros((one.positions, 0), np.int32),
            np.zeros((one.positions, 0), np.uint8),
            one.offsets,
        )
        for one in writer.tensors_at(False, 20)
    ]
    lengths = writer.code_lengths(FrameSymbols(False, 20, vectors, skipped))
    assert estimates == [pytest.approx(lengths["motion"])] * 2


@settings(max_examples=20)
@given(stream_headers(), SEEDS, st.integers(1, 3), st.sampled_from((INTRA, INTER)), st.booleans())
def test_plans_meet_the_classes_of_coding_and_change_nothing(header, seed, frames, kind, key):
    rng = np.random.default_rng(seed)
    profile = profile_of(header)
    writer = code_some(header, rng, frames)
    (frame,) = random_symbols(rng, header, profile, 1)
    qp = int(rng.integers(52))
    key = key and kind == INTRA
    frame = FrameSymbols(key, qp, None, frame.tensors)  # of a key frame: every block is coded
    planned = []
    for tensor, symbols in zip(writer.tensors_at(key, qp), frame.tensors, strict=True):
        symbols.modes[:] = MODE_INTRA if kind == INTRA else MODE_INTER
        classes = np.zeros(symbols.levels.shape, np.uint8)

        def choose(first, last, found, levels=symbols.levels, classes=classes):
            classes[first:last] = found
            return levels[first:last]

        for _ in range(2):  # the second time finds the same state
            blocks = np.arange(tensor.blocks)
            kinds = np.full(tensor.blocks, kind)
            tensor.passes(blocks, tensor.means_of(qp, symbols.offsets, kinds), choose)
        planned.append(classes)
    writer.write(frame)
    for classes, symbols in zip(planned, frame.tensors, strict=True):
        np.testing.assert_array_equal(classes, symbols.classes)


# --- escapes and limits ---------------------------------------------------------------------------


def escape_payload(excess_bits: int, negative: int) -> bytes:
    """A level escape of a given length, all of its bits set, written by hand."""
    writer = SymbolWriter()
    writer.level(ESCAPE, LAST_CLASS)
    writer.plain_bits([negative])
    for _ in range(excess_bits):
        writer.plain_bits([1])
    if excess_bits <= 14:
        writer.plain_bits([0])
    for _ in range(excess_bits):
        writer.plain_bits([1])
    return writer.finish()


def test_escapes_end():
    with pytest.raises(CorruptBitstreamError):
        _read_value(SymbolReader(escape_payload(15, 0)), LAST_CLASS)
    for negative in (0, 1):
        reader = SymbolReader(escape_payload(13, negative))
        value = _read_value(reader, LAST_CLASS)
        assert value == (-1) ** negative * (31 + (1 << 14) - 1)


def test_levels_over_the_limit_are_corrupt():
    """The longest escapes reach 31 over the largest level."""
    reader = SymbolReader(escape_payload(14, 0))
    with pytest.raises(CorruptBitstreamError):
        _read_value(reader, LAST_CLASS)


@pytest.mark.parametrize("vector", [-MAX_VECTOR - 1, MAX_VECTOR + 1])
def test_vectors_out_of_range_are_corrupt(vector):
    header, profile = golden_stream()
    key, frame = golden_frames(header, profile)[:2]
    frame.vectors[0, 0, 0] = vector
    writer = FrameWriter(header, profile)
    writer.write(key)
    with pytest.raises(CorruptBitstreamError, match="vector"):
        writer.write(frame)


# --- adaptation where streams hardly go -----------------------------------------------------------


def test_counts_of_a_kind_wait_while_no_block_is_of_it():
    """Counts may be over 256 where a frame had more blocks; a frame without such blocks leaves them
    (FORMAT.md 7.7).
    """
    band = Band(np.array([8192], np.int16), 13, np.array([[20], [12]], np.int8))
    tensor = TensorProfile(
        6,
        1,
        np.array([0], np.int32),
        (band,),
        np.zeros(1, np.uint8),
        np.full(1, 1),
        np.zeros((2, 1), np.int8),
        np.array(DEFAULT_POINTS, np.int8),
    )
    contexts = TensorContexts(tensor, TensorSpec("t", 1, 20, 20, 8, 8), 20)
    zeros = np.zeros((1, 400), np.int32)
    contexts.walk_levels(contexts.all_intra(), lambda *_: zeros)
    contexts.walk_levels(np.full(400, MODE_INTER, np.uint8), lambda *_: zeros)
    assert contexts._counts == [400, 400]


def test_means_of_vectors_fall_to_one_and_no_further():
    contexts = VectorContexts()
    for _ in range(400):
        contexts.walk((2, 2), 0, lambda *_: 0)
    # only the first two kinds of the quiet context are met where nothing moves
    assert contexts._means[:2] == [1, 1]


# --- golden bits ----------------------------------------------------------------------------------


def golden_stream() -> tuple[SequenceHeader, Profile]:
    band = Band(np.array([8192, 5000], np.int16), 13, np.array([[20, 16], [12, 8]], np.int8))
    tensor = TensorProfile(
        6,
        2,
        np.array([-96, 25], np.int32),
        (band,),
        np.zeros(4, np.uint8),
        np.full(4, 2),
        np.array([[0, -6, -6, -12], [0, -3, -3, -6]], np.int8),
        np.array(DEFAULT_POINTS, np.int8),
    )
    profile = Profile((tensor,))
    spec = TensorSpec("t", 2, 4, 6, 8, 8)
    return header_of((spec,), profile, size=(32, 48), grid=16), profile


def golden_frames(header: SequenceHeader, profile: Profile) -> list[FrameSymbols]:
    rng = np.random.RandomState(8)
    positions = len(profile.tensors[0].scan.position)
    modes = [
        [MODE_INTRA] * 6,
        [MODE_INTER, MODE_SKIP, MODE_SKIP, MODE_INTRA, MODE_INTER, MODE_SKIP],
        [MODE_SKIP, MODE_SKIP, MODE_INTER, MODE_INTER, MODE_SKIP, MODE_SKIP],
        [MODE_SKIP] * 6,
        [MODE_INTER] * 6,  # with vectors again, after a frame without
    ]
    frames = []
    for number, row in enumerate(modes):
        coded = sum(mode != MODE_SKIP for mode in row)
        levels = rng.randint(-3, 4, (positions, coded)) * rng.randint(0, 2, (positions, coded))
        if number == 1:
            levels[2, 1], levels[0, 0] = 32, -MAX_LEVEL
        vectors = rng.randint(-9, 10, (2, 3, 2)).astype(np.int32)
        symbols = TensorSymbols(
            np.array(row, np.uint8),
            levels.astype(np.int32),
            np.zeros(levels.shape, np.uint8),
            np.zeros(len(row), np.int64),
        )
        qp = 18 if number < 2 else 23
        frames.append(
            FrameSymbols(number == 0, qp, vectors if number in {1, 2, 4} else None, [symbols])
        )
    return frames


GOLDEN = (
    "a8282df81bfbea6b6583da4f34de776cb7d6dd36",
    "00345ebbad39ca5ccdbd9d40ea275b5cfb28efdf91fe53fdb6b0f3b703044a50",
    "855ffcae09364b51d28aab005ac3e60b94",
    "fb",
    "006e6d5a5ed0829309d1e742a57a5590408043486befcbc3575669775f19a59a17e8c9",
)
"""What these symbols are coded as.  A change of any byte is a change of the format, whatever caused
it, constriction and the tables included: raise FORMAT_VERSION with it."""


def test_golden_bits():
    header, profile = golden_stream()
    writer = FrameWriter(header, profile)
    payloads = tuple(writer.write(frame).hex() for frame in golden_frames(header, profile))
    assert payloads == GOLDEN
