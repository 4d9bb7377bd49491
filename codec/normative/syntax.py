"""Payload -> symbols: the syntax of a frame, as a decoder reads it.  FORMAT.md 7.

What each symbol is read under, and in which order, is in `contexts`; the writing half is
`encoding.payloads`.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from codec.errors import CorruptBitstreamError
from codec.format.constants import MAX_LEVEL
from codec.format.header import SequenceHeader
from codec.format.packets import FramePacket
from codec.format.profile import Profile
from codec.format.slots import Slots
from codec.format.tables import ESCAPE, MAX_DIRECT_LEVEL
from codec.normative.contexts import Flag, FrameContexts, TensorContexts, VectorContexts
from codec.normative.range_coder import SymbolReader
from codec.normative.symbols import (
    MODE_INTER,
    MODE_INTRA,
    MODE_SKIP,
    FrameSymbols,
    TensorSymbols,
)

__all__ = ["MAX_ESCAPE_BITS", "FrameReader", "pass_order"]

MAX_ESCAPE_BITS = 14
"""Longest prefix of an escape: magnitudes up to 31 + 2^15 - 1."""


class FrameReader:
    """Reads the payloads of a stream, in order, from any key frame on."""

    def __init__(self, header: SequenceHeader, profile: Profile) -> None:
        self._header, self._profile = header, profile
        self._kept = Slots[FrameContexts](header.references)

    def read(self, packet: FramePacket) -> FrameSymbols:
        """Read the payload of a packet: FORMAT.md 7.2.

        Raises:
            CorruptBitstreamError: it is no payload of a frame.
        """
        contexts = self._contexts_of(packet)
        self._kept.keep(contexts, packet.slots, key=packet.key)
        if packet.repeat:
            skipped = [tensor.all_skip() for tensor in contexts.tensors]
            return FrameSymbols(False, packet.qp, None, skipped, repeat=True, slots=packet.slots)
        reader = SymbolReader(packet.payload)
        vectors = None
        if packet.has_vectors:
            vectors = self._read_vectors(reader, contexts.vectors)
        else:
            contexts.vectors.absent()
        tensors = []
        for tensor in contexts.tensors:
            tensor.move_to(packet.qp)
            modes = tensor.all_intra() if packet.key else _read_modes(reader, tensor)
            if packet.has_offsets:
                _read_offsets(reader, tensor)
            tensors.append(_read_levels(reader, tensor, modes))
        return FrameSymbols(packet.key, packet.qp, vectors, tensors, slots=packet.slots)

    def _contexts_of(self, packet: FramePacket) -> FrameContexts:
        """Return what the symbols of a packet are read under, and what adapts to them."""
        if packet.key:
            return FrameContexts(self._header, self._profile, packet.qp)
        contexts = self._kept[packet.predicted_from]
        if contexts is None:
            raise CorruptBitstreamError("a frame without the one that it is predicted from")
        stays = packet.slots is not None and packet.slots[0] != packet.slots[1]
        return contexts.copy() if stays else contexts

    def _read_vectors(self, reader: SymbolReader, vectors: VectorContexts) -> NDArray[np.int32]:
        """Read a motion field: FORMAT.md 7.3."""
        precision = 0
        for flag in vectors.precision_flags:
            if not _read_flag(reader, flag):
                break
            precision += 1
        return vectors.walk(
            self._header.field_shape,
            precision,
            lambda number: _read_value(reader, number),
        )


def _read_flag(reader: SymbolReader, flag: Flag) -> int:
    """Read an adaptive flag: FORMAT.md 7.2."""
    value = reader.flag(flag.index)
    flag.update(value)
    return value


def _read_value(reader: SymbolReader, number: int) -> int:
    """Read a value under class `number`: FORMAT.md 7.2."""
    symbol = reader.level(number)
    return _read_escapes(reader, 1)[0] if symbol == ESCAPE else symbol - MAX_DIRECT_LEVEL


def _read_escapes(reader: SymbolReader, count: int) -> list[int]:
    """Read values over the direct range, each a sign and the Exp-Golomb code of its excess:
    FORMAT.md 7.2.
    """
    values: list[int] = []
    ahead: Iterator[int] = iter(())

    def bit() -> int:
        nonlocal ahead
        found = next(ahead, None)
        if found is None:
            # as many as there are in any case: this one, and two of each value that is to come
            found, *rest = reader.bits(2 * (count - len(values)) - 1)
            ahead = iter(rest)
        return found

    for _ in range(count):
        negative = bit()
        length = 0
        while bit():
            length += 1
            if length > MAX_ESCAPE_BITS:
                raise CorruptBitstreamError(
                    f"escape with a prefix over {MAX_ESCAPE_BITS} bits, the longest that is allowed"
                )
        excess = 1
        for _ in range(length):
            excess = 2 * excess + bit()
        magnitude = excess + MAX_DIRECT_LEVEL
        if magnitude > MAX_LEVEL:
            raise CorruptBitstreamError(
                f"level of magnitude {magnitude}, at most {MAX_LEVEL} is allowed"
            )
        values.append(-magnitude if negative else magnitude)
    return values


def _read_modes(reader: SymbolReader, tensor: TensorContexts) -> NDArray[np.uint8]:
    """Read the block modes of an inter frame: FORMAT.md 7.5."""

    def mode(_block: int, skip_flag: Flag) -> int:
        if _read_flag(reader, skip_flag):
            return MODE_SKIP
        return MODE_INTRA if _read_flag(reader, tensor.intra_flag) else MODE_INTER

    return tensor.walk_modes(mode)


def _read_offsets(reader: SymbolReader, tensor: TensorContexts) -> None:
    """Read the offsets of a tensor's blocks, where they change: FORMAT.md 7.5."""
    if _read_flag(reader, tensor.offsets_flag):
        tensor.walk_offsets(lambda _block, _prediction, number: _read_value(reader, number))


def _read_levels(
    reader: SymbolReader, tensor: TensorContexts, modes: NDArray[np.uint8]
) -> TensorSymbols:
    """Read the levels of the blocks that are not skipped: FORMAT.md 7.6."""
    shape = (tensor.positions, int((modes != MODE_SKIP).sum()))
    levels_of, classes_of = np.zeros(shape, np.int32), np.zeros(shape, np.uint8)
    symbols = TensorSymbols(modes, levels_of, classes_of, tensor.offsets)

    def levels(first: int, last: int, classes: NDArray[np.uint8]) -> NDArray[np.int32]:
        symbols.classes[first:last] = classes
        symbols.levels[first:last] = _read_pass(reader, classes)
        return symbols.levels[first:last]

    tensor.walk_levels(modes, levels)
    return symbols


def _read_pass(reader: SymbolReader, classes: NDArray[np.uint8]) -> NDArray[np.int32]:
    """Read the levels of one pass, all of one class together, and then what escaped: FORMAT.md
    7.6.
    """
    order, runs = pass_order(classes)
    symbols = [reader.levels(last - first, number) for number, first, last in runs]
    levels = np.empty(classes.size, np.int32)
    levels[order] = np.concatenate(symbols) - MAX_DIRECT_LEVEL
    escaped = np.flatnonzero(levels == ESCAPE - MAX_DIRECT_LEVEL)
    if len(escaped):
        levels[escaped] = _read_escapes(reader, len(escaped))
    return levels.reshape(classes.shape)


def pass_order(classes: NDArray[np.uint8]) -> tuple[NDArray[np.intp], list[tuple[int, int, int]]]:
    """Return the order of the symbols of a pass, indices into its levels in C order, and the runs
    of one class in it: (class, first, last).  FORMAT.md 7.6.
    """
    flat = classes.ravel()
    ends = np.cumsum(np.bincount(flat)).tolist()
    runs = [
        (number, first, last)
        for number, (first, last) in enumerate(zip([0, *ends], ends, strict=False))
        if first < last
    ]
    return np.argsort(flat, kind="stable"), runs
