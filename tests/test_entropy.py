"""Symbols -> payload -> symbols, and payloads that nobody wrote."""

from __future__ import annotations

import copy

import constriction
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import SEEDS, header_of, random_symbols, random_vectors, stream_headers

from codec.errors import CorruptBitstreamError
from codec.format.constants import MAX_LEVEL, MAX_VECTOR
from codec.format.header import SequenceHeader, TensorSpec
from codec.format.packets import FramePacket
from codec.format.profile import INTER, INTRA, Band, Profile, TensorProfile, profile_of
from codec.format.tables import (
    BINARY_TABLES,
    DEFAULT_POINTS,
    ESCAPE,
    PROBABILITY_BITS,
    binary_weights,
    tables,
)
from codec.normative.entropy import (
    MODE_INTER,
    MODE_INTRA,
    MODE_SKIP,
    FrameSymbols,
    FrameSyntax,
    SymbolReader,
    SymbolWriter,
    TensorSymbols,
    _binary_models,
    _bit_model,
    _code_level,
    _level_models,
)

LEVELS = st.one_of(
    st.integers(-40, 40), st.sampled_from((-MAX_LEVEL, -MAX_LEVEL + 1, MAX_LEVEL - 1, MAX_LEVEL))
)

SLACK = 1.02
"""What the range coder may lose: it divides its range by 2^24 and drops the remainder."""


def sealed_size(symbols: list[tuple[np.ndarray, object]]) -> int:
    """Bytes of constriction's own sealed form."""
    encoder = constriction.stream.queue.RangeEncoder()
    for array, model in symbols:
        encoder.encode(array, model)
    return 4 * len(encoder.get_compressed())


# --- the range coder ------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(0, len(tables().levels) - 1), SEEDS, st.integers(0, 30))))
def test_arrays_round_trip_and_are_no_longer_than_sealed(runs):
    models = _level_models()
    written = []
    for number, seed, count in runs:
        symbols = np.random.default_rng(seed).integers(0, ESCAPE + 1, count).astype(np.int32)
        written.append((symbols, models[number]))
    writer = SymbolWriter()
    for symbols, model in written:
        writer.array(symbols, model)
    payload = writer.finish()
    assert len(payload) <= sealed_size(written)
    assert not payload.endswith(b"\0")
    reader = SymbolReader(payload)
    for symbols, model in written:
        np.testing.assert_array_equal(reader.array(np.zeros_like(symbols), model), symbols)


@given(st.lists(st.tuples(st.integers(0, BINARY_TABLES - 1), st.integers(0, 1)), max_size=300))
def test_scalars_round_trip(flags):
    models = _binary_models()
    writer = SymbolWriter()
    for number, value in flags:
        writer.scalar(value, models[number])
    payload = writer.finish()
    reader = SymbolReader(payload)
    assert [reader.scalar(0, models[number]) for number, _ in flags] == [v for _, v in flags]
    # what follows the end of a payload reads as zeros, and it is as short as it can be
    again = SymbolReader(payload + bytes(13))
    assert [again.scalar(0, models[number]) for number, _ in flags] == [v for _, v in flags]
    bits = sum(
        PROBABILITY_BITS - np.log2(binary_weights(number)[value] + 1) for number, value in flags
    )
    assert 8 * len(payload) <= bits * SLACK + 9


@pytest.mark.parametrize("value", [0, 1])
@pytest.mark.parametrize("count", [0, 1, 7, 1000])
def test_all_equal_flags_round_trip(value, count):
    for model in (_bit_model(), *_binary_models()[::21]):
        writer = SymbolWriter()
        for _ in range(count):
            writer.scalar(value, model)
        reader = SymbolReader(writer.finish())
        assert all(reader.scalar(0, model) == value for _ in range(count))


def test_every_table_round_trips_every_symbol():
    symbols = np.arange(ESCAPE + 1, dtype=np.int32)
    writer = SymbolWriter()
    for model in _level_models():
        writer.array(symbols, model)
    reader = SymbolReader(writer.finish())
    for model in _level_models():
        np.testing.assert_array_equal(reader.array(np.zeros_like(symbols), model), symbols)


@given(st.lists(st.tuples(LEVELS, st.integers(0, len(tables().levels) - 1)), max_size=40))
def test_levels_and_escapes_round_trip(levels):
    writer, bits = SymbolWriter(), {"x": 0.0}
    for value, number in levels:
        assert _code_level(writer, value, number, bits, "x") == value
    payload = writer.finish()
    reader, again = SymbolReader(payload), {"x": 0.0}
    assert [_code_level(reader, 0, number, again, "x") for _, number in levels] == [
        value for value, _ in levels
    ]
    assert again == bits
    assert 8 * len(payload) <= bits["x"] * SLACK + 9


@given(st.binary(max_size=60))
def test_the_end_of_a_payload_reads_as_zeros(payload):
    model = _level_models()[len(tables().levels) // 2]
    found = []
    for padding in (b"", bytes(1), bytes(40)):
        try:
            found.append(SymbolReader(payload + padding).array(np.zeros(99, np.int32), model))
        except CorruptBitstreamError:
            found.append(None)
    assert all(np.array_equal(found[0], other) for other in found[1:])


# --- frames ---------------------------------------------------------------------------------------


def packet_of(frame: FrameSymbols, payload: bytes) -> FramePacket:
    return FramePacket(frame.key, 0, frame.qp, frame.vectors is not None, 0, payload, 1)


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
        assert (mine.levels.dtype, mine.classes.dtype) == (np.int32, np.uint8)


@given(stream_headers(), SEEDS)
def test_frames_round_trip(header, seed):
    profile = profile_of(header)
    writer_side, reader_side = FrameSyntax(header, profile), FrameSyntax(header, profile)
    for frame in random_symbols(np.random.default_rng(seed), header, profile, 5):
        writer = SymbolWriter()
        given_symbols = copy.deepcopy(frame)
        writer_side.code(writer, frame)
        for before, after in zip(given_symbols.tensors, frame.tensors, strict=True):
            np.testing.assert_array_equal(before.levels, after.levels)
            np.testing.assert_array_equal(before.modes, after.modes)
        payload = writer.finish()
        assert_equal_frames(reader_side.parse(packet_of(frame, payload)), frame)
        assert writer_side.bits == pytest.approx(reader_side.bits)


@settings(max_examples=10)
@given(stream_headers(max_tensors=1), SEEDS)
def test_reported_bits_are_those_of_the_payloads(header, seed):
    profile = profile_of(header)
    syntax = FrameSyntax(header, profile)
    for frame in random_symbols(np.random.default_rng(seed), header, profile, 4):
        syntax.bits.clear()
        writer = SymbolWriter()
        syntax.code(writer, frame)
        # a number that happens to end in zeros is written without them
        assert sum(syntax.bits.values()) == pytest.approx(
            8 * len(writer.finish()), abs=33, rel=1e-3
        )


@settings(max_examples=20)
@given(stream_headers(), SEEDS)
def test_key_frames_need_nothing_before_them(header, seed):
    profile = profile_of(header)
    rng = np.random.default_rng(seed)
    worn = FrameSyntax(header, profile)
    for frame in random_symbols(rng, header, profile, 3):
        worn.code(SymbolWriter(), frame)
    (key,) = random_symbols(rng, header, profile, 1)
    payloads = []
    for syntax in (worn, FrameSyntax(header, profile)):
        writer = SymbolWriter()
        syntax.code(writer, copy.deepcopy(key))
        payloads.append(writer.finish())
    assert payloads[0] == payloads[1]


@given(stream_headers(), SEEDS, st.lists(st.binary(max_size=60), min_size=1, max_size=4))
def test_payloads_that_nobody_wrote_are_symbols_or_corrupt(header, seed, payloads):
    profile = profile_of(header)
    syntax = FrameSyntax(header, profile)
    rng = np.random.default_rng(seed)
    for number, payload in enumerate(payloads):
        qp, has_vectors = int(rng.integers(52)), bool(number and rng.integers(2))
        try:
            frame = syntax.parse(FramePacket(number == 0, 0, qp, has_vectors, 0, payload, 1))
        except CorruptBitstreamError:
            return
        if frame.vectors is not None:
            assert np.abs(frame.vectors).max() <= MAX_VECTOR
        for symbols, tensor in zip(frame.tensors, profile.tensors, strict=True):
            assert set(symbols.modes.tolist()) <= {MODE_SKIP, MODE_INTER, MODE_INTRA}
            coded = int((symbols.modes != MODE_SKIP).sum())
            assert symbols.levels.shape == (len(tensor.scan.position), coded)
            assert np.abs(symbols.levels).max(initial=0) <= MAX_LEVEL


# --- what an encoder asks before it codes ---------------------------------------------------------


def code_some(header: SequenceHeader, rng: np.random.Generator, frames: int) -> FrameSyntax:
    """A syntax with a history."""
    profile = profile_of(header)
    syntax = FrameSyntax(header, profile)
    for frame in random_symbols(rng, header, profile, frames):
        syntax.code(SymbolWriter(), frame)
    return syntax


@settings(max_examples=20)
@given(stream_headers(), SEEDS, st.integers(1, 3))
def test_vector_bits_are_those_of_the_next_frame_and_change_nothing(header, seed, frames):
    rng = np.random.default_rng(seed)
    syntax = code_some(header, rng, frames)
    vectors = random_vectors(rng, header, 40)
    before = vectors.copy()
    estimates = [syntax.vector_bits(vectors) for _ in range(2)]
    np.testing.assert_array_equal(vectors, before)
    syntax.bits.clear()
    skipped = [
        TensorSymbols(np.zeros(one.count, np.uint8), np.zeros((0, 0), np.int32), np.zeros((0, 0)))
        for one in syntax.tensors_at(False, 20)
    ]
    syntax.code(SymbolWriter(), FrameSymbols(False, 20, vectors, skipped))
    assert estimates == [pytest.approx(syntax.bits["motion"])] * 2


@settings(max_examples=20)
@given(stream_headers(), SEEDS, st.integers(1, 3), st.sampled_from((INTRA, INTER)), st.booleans())
def test_plans_meet_the_classes_of_coding_and_change_nothing(header, seed, frames, kind, key):
    rng = np.random.default_rng(seed)
    profile = profile_of(header)
    syntax = code_some(header, rng, frames)
    (frame,) = random_symbols(rng, header, profile, 1)
    qp = int(rng.integers(52))
    key = key and kind == INTRA
    frame = FrameSymbols(key, qp, None, frame.tensors)  # of a key frame: every block is coded
    planned = []
    for tensor, symbols in zip(syntax.tensors_at(key, qp), frame.tensors, strict=True):
        symbols.modes[:] = MODE_INTRA if kind == INTRA else MODE_INTER
        classes = np.zeros(symbols.levels.shape, np.uint8)

        def choose(first, last, found, levels=symbols.levels, classes=classes):
            classes[first:last] = found
            return levels[first:last]

        for _ in range(2):  # the second time finds the same state
            tensor.plan(kind, qp, choose)
        planned.append(classes)
    syntax.code(SymbolWriter(), frame)
    for classes, symbols in zip(planned, frame.tensors, strict=True):
        np.testing.assert_array_equal(classes, symbols.classes)


# --- escapes and limits ---------------------------------------------------------------------------


def escape_payload(excess_bits: int, negative: int) -> bytes:
    """A level escape of a given length, all of its bits set, written by hand."""
    writer = SymbolWriter()
    writer.scalar(ESCAPE, _level_models()[-1])
    bit = _bit_model()
    writer.scalar(negative, bit)
    for _ in range(excess_bits):
        writer.scalar(1, bit)
    if excess_bits <= 14:
        writer.scalar(0, bit)
    for _ in range(excess_bits):
        writer.scalar(1, bit)
    return writer.finish()


def test_escapes_end():
    with pytest.raises(CorruptBitstreamError):
        _code_level(SymbolReader(escape_payload(15, 0)), 0, len(tables().levels) - 1, {"x": 0}, "x")
    for negative in (0, 1):
        reader = SymbolReader(escape_payload(13, negative))
        value = _code_level(reader, 0, len(tables().levels) - 1, {"x": 0}, "x")
        assert value == (-1) ** negative * (31 + (1 << 14) - 1)


def test_levels_over_the_limit_are_corrupt():
    """The longest escapes reach 31 over the largest level."""
    reader = SymbolReader(escape_payload(14, 0))
    with pytest.raises(CorruptBitstreamError):
        _code_level(reader, 0, len(tables().levels) - 1, {"x": 0}, "x")


@pytest.mark.parametrize("vector", [-MAX_VECTOR - 1, MAX_VECTOR + 1])
def test_vectors_out_of_range_are_corrupt(vector):
    header, profile = golden_stream()
    frame = golden_frames(header, profile)[1]
    frame.vectors[0, 0, 0] = vector
    with pytest.raises(CorruptBitstreamError, match="vector"):
        FrameSyntax(header, profile).code(SymbolWriter(), frame)


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
            np.array(row, np.uint8), levels.astype(np.int32), np.zeros(levels.shape, np.uint8)
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
    syntax = FrameSyntax(header, profile)
    payloads = []
    for frame in golden_frames(header, profile):
        writer = SymbolWriter()
        syntax.code(writer, frame)
        payloads.append(writer.finish().hex())
    assert tuple(payloads) == GOLDEN
