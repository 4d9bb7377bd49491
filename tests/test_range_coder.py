"""The range coder: what is written is read, and is as short as it can be."""

from __future__ import annotations

import constriction
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import SEEDS

from codec.encoding.code_lengths import CodeLength
from codec.encoding.symbol_writer import SymbolWriter
from codec.errors import CorruptBitstreamError
from codec.format.tables import BINARY_TABLES, ESCAPE, tables
from codec.normative.range_coder import SymbolReader, level_models

SLACK = 1.02
"""What the range coder may lose: it divides its range by 2^24 and drops the remainder."""
CLASSES = st.integers(0, len(tables().levels) - 1)


def sealed_size(runs: list[tuple[np.ndarray, int]]) -> int:
    """Bytes of constriction's own sealed form."""
    encoder = constriction.stream.queue.RangeEncoder()
    for symbols, number in runs:
        encoder.encode(symbols, level_models()[number])
    return 4 * len(encoder.get_compressed())


@given(st.lists(st.tuples(CLASSES, SEEDS, st.integers(0, 30))))
def test_arrays_round_trip_and_are_no_longer_than_sealed(drawn):
    runs = [
        (np.random.default_rng(seed).integers(0, ESCAPE + 1, count).astype(np.int32), number)
        for number, seed, count in drawn
    ]
    writer = SymbolWriter()
    for symbols, number in runs:
        writer.levels(symbols, number)
    payload = writer.finish()
    assert len(payload) <= sealed_size(runs)
    assert not payload.endswith(b"\0")
    reader = SymbolReader(payload)
    for symbols, number in runs:
        np.testing.assert_array_equal(reader.levels(len(symbols), number), symbols)


@given(st.lists(st.tuples(st.integers(0, BINARY_TABLES - 1), st.integers(0, 1)), max_size=300))
def test_flags_round_trip(flags):
    writer, length = SymbolWriter(), CodeLength()
    for number, value in flags:
        writer.flag(value, number)
        length.flag(value, number)
    payload = writer.finish()
    reader = SymbolReader(payload)
    assert [reader.flag(number) for number, _ in flags] == [v for _, v in flags]
    # what follows the end of a payload reads as zeros, and it is as short as it can be
    again = SymbolReader(payload + bytes(13))
    assert [again.flag(number) for number, _ in flags] == [v for _, v in flags]
    assert 8 * len(payload) <= length.bits * SLACK + 9


@pytest.mark.parametrize("value", [0, 1])
@pytest.mark.parametrize("count", [0, 1, 7, 1000])
def test_equal_values_round_trip(value, count):
    for index in (None, *range(0, BINARY_TABLES, 21)):
        writer = SymbolWriter()
        for _ in range(count):
            if index is None:
                writer.plain_bits([value])
            else:
                writer.flag(value, index)
        reader = SymbolReader(writer.finish())
        found = [reader.bits(1)[0] if index is None else reader.flag(index) for _ in range(count)]
        assert found == [value] * count


def test_every_table_round_trips_every_symbol():
    symbols = np.arange(ESCAPE + 1, dtype=np.int32)
    writer = SymbolWriter()
    for number in range(len(tables().levels)):
        writer.levels(symbols, number)
    reader = SymbolReader(writer.finish())
    for number in range(len(tables().levels)):
        assert [reader.level(number) for _ in symbols] == symbols.tolist()


@given(st.binary(max_size=60))
def test_the_end_of_a_payload_reads_as_zeros(payload):
    found = []
    for padding in (b"", bytes(1), bytes(40)):
        try:
            found.append(SymbolReader(payload + padding).levels(99, len(tables().levels) // 2))
        except CorruptBitstreamError:
            found.append(None)
    assert all(np.array_equal(found[0], other) for other in found[1:])


def test_a_number_outside_the_tables_is_corrupt():
    """The first quotient of a payload of ones is over 2^24: no symbol has it (FORMAT.md 7.1)."""
    reads = (
        lambda reader: reader.levels(1, 0),
        lambda reader: reader.level(0),
        lambda reader: reader.flag(0),
        lambda reader: reader.bits(1),
    )
    for read in reads:
        with pytest.raises(CorruptBitstreamError, match="payload"):
            read(SymbolReader(b"\xff" * 8))
