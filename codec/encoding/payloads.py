"""Symbols -> payload: the syntax of a frame, as an encoder writes it.  FORMAT.md 7.

The mirror of `normative.syntax`, method by method.  `code_lengths` goes the same way and counts
instead.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from functools import reduce
from itertools import groupby
from operator import or_

import numpy as np
from numpy.typing import NDArray

from codec.encoding.code_lengths import CodeLength
from codec.encoding.symbol_writer import SymbolWriter
from codec.errors import CorruptBitstreamError
from codec.format.constants import MAX_LEVEL
from codec.format.header import SequenceHeader
from codec.format.profile import Profile
from codec.format.slots import Slots
from codec.format.tables import ESCAPE, MAX_DIRECT_LEVEL
from codec.normative.contexts import Flag, FrameContexts, TensorContexts, VectorContexts
from codec.normative.symbols import MODE_INTRA, MODE_SKIP, FrameSymbols, TensorSymbols
from codec.normative.syntax import MAX_ESCAPE_BITS

__all__ = ["FrameWriter"]

CLASS_BITS = 6
"""Of the number of a scale class."""

Sink = SymbolWriter | CodeLength


class FrameWriter:
    """Writes the payloads of a stream, in order; or counts what they would come to."""

    def __init__(self, header: SequenceHeader, profile: Profile) -> None:
        self._header, self._profile = header, profile
        self._kept = Slots[FrameContexts](header.references)
        self._names = [spec.name for spec in header.tensors]
        self.predicted_from = 0
        """The slot that the next frame will be predicted from, if it is planned with."""

    def write(self, frame: FrameSymbols) -> bytes:
        """Return the payload of the next frame; fill in the classes of its levels."""
        writer = SymbolWriter()
        self.put(frame, lambda _: writer)
        return writer.finish()

    def code_lengths(self, frame: FrameSymbols) -> dict[str, float]:
        """Return the ideal code lengths of the next frame by syntax element ("motion", "modes",
        "offsets", "levels of NAME"), in bits, in place of writing it; those that have no symbol are
        left out.
        """
        lengths: dict[str, CodeLength] = defaultdict(CodeLength)
        self.put(frame, lengths.__getitem__)
        return {element: length.bits for element, length in lengths.items() if length.bits}

    def vector_bits(self, vectors: NDArray[np.int32]) -> float:
        """Return the code length that a motion field would have in the next inter frame."""
        length = CodeLength()
        _put_vectors(length, self._planned().vectors.copy(), vectors)
        return length.bits

    def tensors_at(self, key: bool, qp: int) -> list[TensorContexts]:
        """Return the contexts of each tensor in the state in which the next frame will meet them,
        for an encoder to plan with.
        """
        contexts = FrameContexts(self._header, self._profile, qp) if key else self._planned()
        return contexts.tensors

    def _planned(self) -> FrameContexts:
        contexts = self._kept[self.predicted_from]
        if contexts is None:
            raise ValueError(f"nothing is kept in slot {self.predicted_from} to predict from")
        return contexts

    def changes_offsets(self, frame: FrameSymbols) -> bool:
        """Return whether offsets of the next frame are other than its decoder would have them."""
        return any(
            _changes_offsets(tensor, symbols)
            for tensor, symbols in zip(
                self.tensors_at(frame.key, frame.qp), frame.tensors, strict=True
            )
        )

    def block_bits(self, frame: FrameSymbols) -> float:
        """Return the code length that modes and offsets of the next frame would have."""
        length, offsets = CodeLength(), self.changes_offsets(frame)
        for met, symbols in zip(self.tensors_at(frame.key, frame.qp), frame.tensors, strict=True):
            tensor = met.copy()
            if not frame.key:
                _put_modes(length, tensor, symbols.modes)
            if offsets:
                _put_offsets(length, tensor, symbols)
        return length.bits

    def put(self, frame: FrameSymbols, sink_of: Callable[[str], Sink]) -> None:
        """Put the symbols of the next frame into the sinks of their syntax elements.

        Raises:
            CorruptBitstreamError: at a symbol that no decoder would take; those before it, and it
                itself, have been put.
        """
        contexts = self._contexts_of(frame)
        offsets = self.changes_offsets(frame)
        self._kept.keep(contexts, frame.slots, key=frame.key)
        if frame.repeat:
            return
        if frame.vectors is None:
            contexts.vectors.absent()
        else:
            _put_vectors(sink_of("motion"), contexts.vectors, frame.vectors)
        for name, tensor, symbols in zip(self._names, contexts.tensors, frame.tensors, strict=True):
            tensor.move_to(frame.qp)
            if not frame.key:
                _put_modes(sink_of("modes"), tensor, symbols.modes)
            elif (symbols.modes != tensor.all_intra()).any():
                raise ValueError("a key frame whose blocks are not all intra")
            if offsets:
                _put_offsets(sink_of("offsets"), tensor, symbols)
            _put_levels(sink_of(f"levels of {name}"), tensor, symbols)

    def _contexts_of(self, frame: FrameSymbols) -> FrameContexts:
        """Return what the symbols of a frame are written under, and what adapts to them."""
        if frame.key:
            return FrameContexts(self._header, self._profile, frame.qp)
        self.predicted_from = frame.slots[0] if frame.slots else 0
        stays = frame.slots is not None and frame.slots[0] != frame.slots[1]
        return self._planned().copy() if stays else self._planned()


def _put_vectors(sink: Sink, contexts: VectorContexts, vectors: NDArray[np.int32]) -> None:
    """Write a motion field, in the largest unit that all of it is a multiple of: FORMAT.md 7.3."""
    union = reduce(or_, vectors.ravel().tolist(), 0)
    precision = 0
    for flag in contexts.precision_flags:
        even = int(union & (1 << precision) == 0)
        _put_flag(sink, flag, even)
        if not even:
            break
        precision += 1
    for difference, number in contexts.met(vectors, precision):
        _put_value(sink, difference, number)


def _put_flag(sink: Sink, flag: Flag, value: int) -> None:
    """Write an adaptive flag: FORMAT.md 7.2."""
    sink.flag(value, flag.index)
    flag.update(value)


def _put_value(sink: Sink, value: int, number: int) -> None:
    """Write a value under class `number`: FORMAT.md 7.2."""
    if abs(value) <= MAX_DIRECT_LEVEL:
        sink.level(value + MAX_DIRECT_LEVEL, number)
    else:
        sink.level(ESCAPE, number)
        _put_escapes(sink, [value])


def _put_escapes(sink: Sink, values: list[int]) -> None:
    """Write values over the direct range, as `_read_escapes` reads them: FORMAT.md 7.2."""
    bits: list[int] = []
    for value in values:
        excess = abs(value) - MAX_DIRECT_LEVEL
        count = excess.bit_length() - 1  # its leading one is coded in unary
        bits.append(int(value < 0))
        if count > MAX_ESCAPE_BITS:
            sink.plain_bits([*bits, *[1] * (MAX_ESCAPE_BITS + 1)])
            raise CorruptBitstreamError(f"a level of {value}: no escape is so long")
        bits += [1] * count + [0]
        bits += [excess >> place & 1 for place in reversed(range(count))]
        if abs(value) > MAX_LEVEL:
            sink.plain_bits(bits)
            raise CorruptBitstreamError(f"a level of {value}: at most ±{MAX_LEVEL} is allowed")
    sink.plain_bits(bits)


def _put_modes(sink: Sink, tensor: TensorContexts, modes: NDArray[np.uint8]) -> None:
    """Write the block modes of an inter frame: FORMAT.md 7.5."""
    values = modes.tolist()

    def mode(block: int, skip_flag: Flag) -> int:
        value = int(values[block])
        _put_flag(sink, skip_flag, int(value == MODE_SKIP))
        if value != MODE_SKIP:
            _put_flag(sink, tensor.intra_flag, int(value == MODE_INTRA))
        return value

    tensor.walk_modes(mode)


def _changes_offsets(tensor: TensorContexts, symbols: TensorSymbols) -> bool:
    coded = symbols.modes != MODE_SKIP
    return bool((symbols.offsets != tensor.offsets)[coded].any())


def _put_offsets(sink: Sink, tensor: TensorContexts, symbols: TensorSymbols) -> None:
    """Write the offsets of a tensor's blocks, where they change: FORMAT.md 7.5."""
    changes = _changes_offsets(tensor, symbols)
    _put_flag(sink, tensor.offsets_flag, int(changes))
    if not changes:
        return
    offsets = symbols.offsets.tolist()

    def difference(block: int, prediction: int, number: int) -> int:
        value = int(offsets[block]) - prediction
        _put_value(sink, value, number)
        return value

    tensor.walk_offsets(difference)


def _put_levels(sink: Sink, tensor: TensorContexts, symbols: TensorSymbols) -> None:
    """Write the levels of the blocks that are not skipped: FORMAT.md 7.6."""
    shape = (tensor.positions, int((symbols.modes != MODE_SKIP).sum()))
    if symbols.levels.shape != shape:
        raise ValueError(f"levels of shape {symbols.levels.shape}, expected {shape}")
    symbols.classes = tensor.met(symbols.modes, symbols.levels)
    if not symbols.levels.size:
        return
    # the order of all passes in one go: by pass, then by class
    key = (symbols.classes + (tensor.pass_of[:, None] << CLASS_BITS).astype(np.uint16)).ravel()
    flat = symbols.levels.ravel()
    escaped = np.flatnonzero(np.abs(flat) > MAX_DIRECT_LEVEL)
    written = flat + MAX_DIRECT_LEVEL
    written[escaped] = ESCAPE
    written = written[np.argsort(key, kind="stable")]
    pass_of = tensor.pass_of[escaped // shape[1]]
    counts = np.bincount(key)
    runs, ends = np.flatnonzero(counts).tolist(), np.cumsum(counts).tolist()
    for number, classes in groupby(runs, lambda run: run >> CLASS_BITS):
        for run in classes:
            last = ends[run]
            sink.levels(written[last - counts[run] : last], run & ((1 << CLASS_BITS) - 1))
        if len(escaped):
            _put_escapes(sink, flat[escaped[pass_of == number]].tolist())
