"""Symbols <-> payload: the syntax of a frame, the contexts, the range coder.  FORMAT.md 7.

The syntax is written once.  A *coder* either writes the symbols that it is given (`SymbolWriter`)
or reads them into their place (`SymbolReader`); everything else, the adaptation of the contexts
above all, is the same code for both.

Invariants:
  * contexts depend only on symbols coded before, in this frame or back to the last key frame;
  * all of them are int64 with stated bounds; divisions floor;
  * a frame's statistics are updated after its last symbol, from the levels alone.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any, Protocol

import constriction
import numpy as np
from numpy.typing import NDArray

from codec.errors import CorruptBitstreamError
from codec.format.constants import MAX_LEVEL, MAX_VECTOR
from codec.format.header import SequenceHeader, TensorSpec
from codec.format.packets import FramePacket
from codec.format.profile import INTER, INTRA, Profile, TensorProfile
from codec.format.tables import (
    BINARY_TABLES,
    ESCAPE,
    MAX_DIRECT_LEVEL,
    MEAN_BITS,
    PROBABILITY_BITS,
    binary_weights,
    classify,
    expected_level,
    tables,
)

__all__ = [
    "MODE_INTER",
    "MODE_INTRA",
    "MODE_SKIP",
    "FrameSymbols",
    "FrameSyntax",
    "SymbolReader",
    "SymbolWriter",
    "TensorSymbols",
]

MODE_SKIP, MODE_INTER, MODE_INTRA = 0, 1, 2

WORD_BYTES = 4
STATE_BITS = 64
TAIL_BYTES = 8
"""How much of the end of a payload is searched for a shorter form: the state of the coder."""
MAX_ESCAPE_BITS = 14
"""Longest prefix of an escape: magnitudes up to 31 + 2^15 - 1."""

# adaptation: part of the format
PRIOR_COUNT = 8
"""Blocks' worth of trust in the initial means."""
COUNT_LIMIT = 256
"""Blocks over which means are taken."""
LEVEL_CAP = 64
"""Magnitudes count up to this in the means."""
RATIO_BITS = 8
RATIO_LOW, RATIO_HIGH = 1 << 5, 1 << 12
ACTIVITY_PRIOR = 2 << MEAN_BITS
"""Weight of the assumption that a block is as active as expected, in summed magnitudes."""
MODE_RATE = 4
VECTOR_RATE = 4
VECTOR_MEAN = 1 << (MEAN_BITS - 1)
VECTOR_CONTEXTS = 4
MAX_PRECISION_SHIFT = 3
"""A field may be coded in quarter, half, whole or double pixels."""


@dataclass(slots=True)
class TensorSymbols:
    """The symbols of one tensor in one frame.

    `modes`: (N,) uint8, N blocks in raster order.  `levels`: (P, M) int32, positions in scan order,
    the M blocks that are not skipped in raster order.  `classes`: (P, M) uint8, the scale class
    that each level was coded under.
    """

    modes: NDArray[np.uint8]
    levels: NDArray[np.int32]
    classes: NDArray[np.uint8]


@dataclass(slots=True)
class FrameSymbols:
    """The symbols of one frame.  `vectors`: (rows, columns, 2) int32 in (y, x) quarter pixels, None
    when absent.
    """

    key: bool
    qp: int
    vectors: NDArray[np.int32] | None
    tensors: list[TensorSymbols]


# --- the coders --------------------------------------------------------------------------------


@cache
def _level_models() -> list[Any]:
    # The weights of a table sum to 2^24 - 64, so that constriction's fast quantisation leaves them
    # as they are and adds one to each: FORMAT.md 7.1.  float32 holds them exactly.
    return [_categorical(weights) for weights in tables().levels]


@cache
def _binary_models() -> list[Any]:
    return [_categorical(np.array(binary_weights(index))) for index in range(BINARY_TABLES)]


@cache
def _bit_model() -> Any:  # noqa: ANN401
    half = (1 << (PROBABILITY_BITS - 1)) - 1
    return _categorical(np.array([half, half]))


def _categorical(weights: NDArray[np.int64]) -> Any:  # noqa: ANN401
    return constriction.stream.model.Categorical(weights.astype(np.float32), perfect=False)


class SymbolCoder(Protocol):
    """Codes symbols under a model, in one direction or the other."""

    def array(self, symbols: NDArray[np.int32], model: Any) -> NDArray[np.int32]:  # noqa: ANN401
        """Code an array of symbols; return what the decoder has for them."""

    def scalar(self, symbol: int, model: Any) -> int:  # noqa: ANN401
        """Code one symbol."""


class SymbolWriter:
    """Writes symbols with a range encoder."""

    def __init__(self) -> None:
        self._encoder = constriction.stream.queue.RangeEncoder()

    def array(self, symbols: NDArray[np.int32], model: Any) -> NDArray[np.int32]:  # noqa: ANN401
        """Encode `symbols`."""
        self._encoder.encode(np.ascontiguousarray(symbols, np.int32), model)
        return symbols

    def scalar(self, symbol: int, model: Any) -> int:  # noqa: ANN401
        """Encode `symbol`."""
        self._encoder.encode(symbol, model)
        return symbol

    def finish(self) -> bytes:
        """Return the shortest payload that decodes to the symbols: FORMAT.md 7.1.

        The decoder reads zero bytes beyond the end of a payload, so any number inside the final
        interval [lower, lower + range) of the coder will do; the one with the most trailing zero
        bytes is written.
        """
        words, (lower, width) = self._encoder.pos()
        # The words that are out may still change by a carry.  The sealed form settles it: its
        # number lies in the interval, at a distance from the lower end that the lowest 64 bits
        # tell.
        sealed: bytes = (
            np.asarray(self._encoder.get_compressed(), np.uint32).astype(">u4").tobytes()
        )
        full = words * WORD_BYTES + STATE_BITS // 8
        sealed = sealed.ljust(full, b"\0")
        settled, tail = sealed[: full - TAIL_BYTES], int.from_bytes(sealed[-TAIL_BYTES:], "big")
        low = tail - ((tail - lower) & ((1 << STATE_BITS) - 1))
        for size in range(TAIL_BYTES + 1):
            unit = 1 << (8 * (TAIL_BYTES - size))
            candidate = -(-low // unit) * unit
            if low <= candidate < min(low + width, 1 << (8 * TAIL_BYTES)):
                payload: bytes = settled + candidate.to_bytes(TAIL_BYTES, "big")
                return payload.rstrip(b"\0")
        raise AssertionError("the interval of a range coder is never empty")


class SymbolReader:
    """Reads symbols with a range decoder."""

    def __init__(self, payload: bytes) -> None:
        padded = payload + bytes(-len(payload) % WORD_BYTES + 2 * WORD_BYTES)
        self._decoder = constriction.stream.queue.RangeDecoder(
            np.frombuffer(padded, ">u4").astype(np.uint32)
        )

    def array(self, symbols: NDArray[np.int32], model: Any) -> NDArray[np.int32]:  # noqa: ANN401
        """Decode as many symbols as `symbols` has."""
        try:
            decoded: NDArray[np.int32] = self._decoder.decode(model, len(symbols))
        except AssertionError as error:  # constriction's word for a payload that no encoder wrote
            raise CorruptBitstreamError(f"payload: {error}") from error
        return decoded

    def scalar(self, symbol: int, model: Any) -> int:  # noqa: ANN401
        """Decode one symbol."""
        try:
            return int(self._decoder.decode(model))
        except AssertionError as error:
            raise CorruptBitstreamError(f"payload: {error}") from error


Chooser = Callable[[int, int, NDArray[np.intp]], NDArray[np.int32]]
"""(first, last, classes) of a pass -> its levels: what walks through the passes of a tensor."""


class _NoCoder:
    """Codes nothing: for code lengths alone."""

    def array(self, symbols: NDArray[np.int32], model: Any) -> NDArray[np.int32]:  # noqa: ANN401
        return symbols

    def scalar(self, symbol: int, model: Any) -> int:  # noqa: ANN401
        return symbol


# --- the syntax --------------------------------------------------------------------------------


class FrameSyntax:
    """The syntax of frames and its adaptive state, for one stream and one direction.

    Call `code` once a frame, in order.  `bits` accumulates ideal code lengths by syntax element
    ("motion", "modes", "levels of NAME"), for reports.
    """

    def __init__(self, header: SequenceHeader, profile: Profile) -> None:
        self.bits: dict[str, float] = defaultdict(float)
        self._header = header
        self._profile = profile
        self._reset(0)

    def _reset(self, qp: int) -> None:
        """Forget everything: at key frames."""
        self._vectors = _VectorSyntax(self.bits)
        self._tensors = self._fresh(qp)

    def _fresh(self, qp: int) -> list[TensorSyntax]:
        return [
            TensorSyntax(tensor, spec, qp, self.bits)
            for tensor, spec in zip(self._profile.tensors, self._header.tensors, strict=True)
        ]

    def vector_bits(self, vectors: NDArray[np.int32]) -> float:
        """Return the code length that a motion field would have in the next inter frame."""
        syntax = copy.deepcopy(self._vectors)
        before = sum(syntax.bits.values())
        syntax.code(_NoCoder(), vectors.copy())
        return sum(syntax.bits.values()) - before

    def tensors_at(self, key: bool, qp: int) -> list[TensorSyntax]:
        """Return the syntax of each tensor in the state in which the next frame will meet it, for
        an encoder to plan with.
        """
        return self._fresh(qp) if key else self._tensors

    def code(self, coder: SymbolCoder, frame: FrameSymbols) -> None:
        """Code one frame; when reading, `frame` comes with arrays of the right shapes, whose
        content is replaced.
        """
        if frame.key:
            self._reset(frame.qp)
        if frame.vectors is None:
            self._vectors.absent()
        else:
            self._vectors.code(coder, frame.vectors)
        for syntax, symbols in zip(self._tensors, frame.tensors, strict=True):
            syntax.code(coder, symbols, key=frame.key, qp=frame.qp)

    def parse(self, packet: FramePacket) -> FrameSymbols:
        """Read the payload of a packet."""
        vectors = np.zeros((*self._header.field_shape, 2), np.int32) if packet.has_vectors else None
        nothing = np.zeros((0, 0), np.int32)
        tensors = [
            TensorSymbols(np.zeros(tensor.count, np.uint8), nothing, nothing.astype(np.uint8))
            for tensor in self._tensors
        ]
        frame = FrameSymbols(packet.key, packet.qp, vectors, tensors)
        self.code(SymbolReader(packet.payload), frame)
        return frame


class _Flag:
    """An adaptive flag: P(1) in 1/65536, moved a sixteenth of the way towards each value."""

    def __init__(self, bits: dict[str, float], element: str) -> None:
        self._bits, self._element = bits, element
        self._one = 1 << 15

    def code(self, coder: SymbolCoder, value: int) -> int:
        index = self._one * BINARY_TABLES >> 16
        value = coder.scalar(value, _binary_models()[index])
        self._bits[self._element] += _FLAG_BITS[index][value]
        self._one += (((value << 16) - value) - self._one) >> MODE_RATE
        return value


_FLAG_BITS = [
    [PROBABILITY_BITS - float(np.log2(weight + 1)) for weight in binary_weights(index)]
    for index in range(BINARY_TABLES)
]


class _VectorSyntax:
    """Vectors: the difference to a median of three neighbours, its class from the differences
    around it.
    """

    def __init__(self, bits: dict[str, float]) -> None:
        self.bits = bits
        self._previous: NDArray[np.int32] | None = None
        self._means = [VECTOR_MEAN] * (3 * VECTOR_CONTEXTS)
        self._precision_flags = [_Flag(bits, "motion") for _ in range(MAX_PRECISION_SHIFT)]

    def absent(self) -> None:
        self._previous = None

    def code(self, coder: SymbolCoder, vectors: NDArray[np.int32]) -> None:
        rows, columns, _ = vectors.shape
        shift = self._code_precision(coder, vectors)
        previous = np.zeros_like(vectors) if self._previous is None else self._previous
        earlier = (previous >> shift).tolist()
        field = (vectors >> shift).tolist()
        limit = MAX_VECTOR >> shift
        size = [[0] * columns for _ in range(rows)]
        for i in range(rows):
            for j in range(columns):
                colocated = earlier[i][j]
                left = field[i][j - 1] if j else colocated
                above = field[i - 1][j] if i else colocated
                around = (size[i][j - 1] if j else 0) + (size[i - 1][j] if i else 0)
                context = 0 if around == 0 else 1 if around < 4 else 2 if around < 16 else 3
                for axis in (0, 1):
                    median = sorted((left[axis], above[axis], colocated[axis]))[1]
                    # the second component goes by what the first one was
                    kind = 0 if axis == 0 else 2 if size[i][j] else 1
                    difference = self._difference(
                        coder, field[i][j][axis] - median, 3 * context + kind
                    )
                    value = median + difference
                    if abs(value) > limit:
                        raise CorruptBitstreamError(
                            f"motion vector component {value} exceeds ±{limit}"
                        )
                    field[i][j][axis] = value
                    size[i][j] += abs(difference)
        vectors[...] = np.array(field, np.int32) << shift
        self._previous = vectors.copy()

    def _code_precision(self, coder: SymbolCoder, vectors: NDArray[np.int32]) -> int:
        """Code, in unary, how many low bits are zero in every vector of the field."""
        union = int(np.bitwise_or.reduce(vectors.ravel()))
        shift = 0
        for flag in self._precision_flags:
            if not flag.code(coder, int(union & (1 << shift) == 0)):
                break
            shift += 1
        return shift

    def _difference(self, coder: SymbolCoder, value: int, context: int) -> int:
        mean = self._means[context]
        value = _code_level(coder, value, int(classify(np.int64(mean))), self.bits, "motion")  # type: ignore[arg-type]
        target = min(abs(value), LEVEL_CAP) << MEAN_BITS
        self._means[context] = max(mean + ((target - mean) >> VECTOR_RATE), 1)
        return value


def _code_level(
    coder: SymbolCoder, value: int, number: int, bits: dict[str, float], element: str
) -> int:
    """Code one level under class `number`."""
    symbol = value + MAX_DIRECT_LEVEL if abs(value) <= MAX_DIRECT_LEVEL else ESCAPE
    symbol = coder.scalar(symbol, _level_models()[number])
    bits[element] += float(tables().bits[number, symbol])
    return (
        _code_escape(coder, value, bits, element) if symbol == ESCAPE else symbol - MAX_DIRECT_LEVEL
    )


def _code_escape(coder: SymbolCoder, value: int, bits: dict[str, float], element: str) -> int:
    """Code a value over the direct range: sign, then the excess in Exp-Golomb code."""
    model = _bit_model()
    negative = coder.scalar(int(value < 0), model)
    excess = abs(value) - MAX_DIRECT_LEVEL  # 1 … 2^15 - 32; its leading one is coded in unary
    length = max(excess.bit_length() - 1, 0)
    count = 0
    while coder.scalar(int(count < length), model):
        count += 1
        if count > MAX_ESCAPE_BITS:
            raise CorruptBitstreamError("escape of over 2^15")
    result = 1
    for place in reversed(range(count)):
        result = 2 * result + coder.scalar(excess >> place & 1, model)
    bits[element] += 2 + 2 * count
    magnitude = result + MAX_DIRECT_LEVEL
    if magnitude > MAX_LEVEL:
        raise CorruptBitstreamError(
            f"level of magnitude {magnitude}, at most {MAX_LEVEL} is allowed"
        )
    return -magnitude if negative else magnitude


class TensorSyntax:
    """Modes and levels of one tensor."""

    def __init__(
        self, profile: TensorProfile, spec: TensorSpec, qp: int, bits: dict[str, float]
    ) -> None:
        rows, self._columns = profile.blocks(spec.height, spec.width)
        self.count = rows * self._columns
        self._bits, self._levels_element = bits, f"levels of {spec.name}"
        self._scan = profile.scan
        self._qp = qp
        self._means = expected_level(self._scan.scale, qp)
        self._counts = [PRIOR_COUNT, PRIOR_COUNT]
        self._modes = np.full(self.count, MODE_INTRA, np.uint8)
        self._skip_flags = [_Flag(bits, "modes") for _ in range(6)]
        self._intra_flag = _Flag(bits, "modes")
        # per block, what its levels summed to in the frames before and what had been expected
        self._activity = np.zeros((2, self.count), np.int64)

    def means_at(self, qp: int) -> NDArray[np.int64]:
        """Return the (2, P) mean magnitudes, moved to another qp by way of the table of expected
        levels.
        """
        if qp == self._qp:
            return self._means
        frozen = tables()
        scale = np.searchsorted(frozen.expected, self._means) + frozen.expected_low + self._qp
        return expected_level(scale, qp)

    def code(self, coder: SymbolCoder, symbols: TensorSymbols, *, key: bool, qp: int) -> None:
        if qp != self._qp:
            self._means, self._qp = self.means_at(qp), qp
        if key:
            symbols.modes[...] = MODE_INTRA
        else:
            self._code_modes(coder, symbols.modes)
        coded = np.flatnonzero(symbols.modes != MODE_SKIP)
        shape = (len(self._scan.position), len(coded))
        if symbols.levels.size == 0:  # reading, or nothing to write
            symbols.levels = np.zeros(shape, np.int32)
        if symbols.levels.shape != shape:
            raise ValueError(f"levels of shape {symbols.levels.shape}, expected {shape}")
        symbols.classes = np.zeros(shape, np.uint8)
        self._modes = symbols.modes.copy()
        if len(coded):
            kinds = np.where(symbols.modes[coded] == MODE_INTRA, INTRA, INTER)
            self._code_levels(coder, symbols, coded, kinds)
            self._update(symbols.levels, kinds)

    def plan(self, kind: int, qp: int, choose: Chooser) -> None:
        """Walk through the passes as `code` would if all blocks were coded and of one kind, for an
        encoder that chooses levels on the way; the state stays as it is.
        """
        self._walk(np.arange(self.count), np.full(self.count, kind), self.means_at(qp), choose)

    def _code_modes(self, coder: SymbolCoder, modes: NDArray[np.uint8]) -> None:
        columns, before = self._columns, self._modes.tolist()
        values = modes.tolist()
        for n in range(self.count):
            left = n % columns > 0 and values[n - 1] == MODE_SKIP
            above = n >= columns and values[n - columns] == MODE_SKIP
            context = 3 * (before[n] == MODE_SKIP) + left + above
            if self._skip_flags[context].code(coder, int(values[n] == MODE_SKIP)):
                values[n] = MODE_SKIP
            else:
                intra = self._intra_flag.code(coder, int(values[n] == MODE_INTRA))
                values[n] = MODE_INTRA if intra else MODE_INTER
        modes[...] = values

    def _code_levels(
        self,
        coder: SymbolCoder,
        symbols: TensorSymbols,
        coded: NDArray[np.intp],
        kinds: NDArray[np.intp],
    ) -> None:
        def code(first: int, last: int, classes: NDArray[np.intp]) -> NDArray[np.int32]:
            symbols.classes[first:last] = classes
            levels = symbols.levels[first:last]
            self._code_pass(coder, levels, classes)
            return levels

        found, expected = self._walk(coded, kinds, self._means, code)
        self._activity[:, coded] = np.stack([found, expected]) >> 1

    def _walk(
        self,
        coded: NDArray[np.intp],
        kinds: NDArray[np.intp],
        means: NDArray[np.int64],
        visit: Chooser,
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Go through the levels pass by pass: a block that turns out more active than expected
        raises its later means.  `visit` is told the scale classes of a pass and returns its levels.
        """
        found, expected = self._activity[:, coded]
        for first, last in pairwise(self._scan.bounds):
            if first == last:
                continue
            base = means[:, first:last].T[:, kinds]
            ratio = ((found + ACTIVITY_PRIOR) << RATIO_BITS) // (expected + ACTIVITY_PRIOR)
            ratio = np.clip(ratio, RATIO_LOW, RATIO_HIGH)
            levels = visit(first, last, classify(base * ratio >> RATIO_BITS))
            found = found + (
                np.minimum(np.abs(levels), LEVEL_CAP).sum(0, dtype=np.int64) << MEAN_BITS
            )
            expected = expected + base.sum(0)
        return found, expected

    def _code_pass(
        self, coder: SymbolCoder, levels: NDArray[np.int32], classes: NDArray[np.intp]
    ) -> None:
        """Code the levels of one pass, all of one class together, and then what escaped."""
        flat, number = levels.ravel(), classes.ravel()
        order = np.argsort(number, kind="stable")
        ends = np.cumsum(np.bincount(number, minlength=1))
        symbols = np.where(np.abs(flat) > MAX_DIRECT_LEVEL, ESCAPE, flat + MAX_DIRECT_LEVEL).astype(
            np.int32
        )[order]
        models = _level_models()
        start = 0
        for index, end in enumerate(ends.tolist()):
            if end > start:
                symbols[start:end] = coder.array(symbols[start:end], models[index])
                start = end
        self._bits[self._levels_element] += float(
            tables().bits[number[order], symbols].sum(dtype=np.float64)
        )
        decoded = np.empty_like(flat)
        decoded[order] = symbols - MAX_DIRECT_LEVEL
        for index in np.flatnonzero(decoded == ESCAPE - MAX_DIRECT_LEVEL).tolist():
            decoded[index] = _code_escape(coder, int(flat[index]), self._bits, self._levels_element)
        levels[...] = decoded.reshape(levels.shape)

    def _update(self, levels: NDArray[np.int32], kinds: NDArray[np.intp]) -> None:
        """Move the means towards the magnitudes of this frame's levels."""
        magnitude = np.minimum(np.abs(levels), LEVEL_CAP)
        for kind in (INTRA, INTER):
            chosen = kinds == kind
            blocks = int(chosen.sum())
            if not blocks:
                continue
            self._counts[kind] = min(self._counts[kind] + blocks, max(COUNT_LIMIT, blocks))
            total = magnitude[:, chosen].sum(1, dtype=np.int64) << MEAN_BITS
            self._means[kind] += (total - blocks * self._means[kind]) // self._counts[kind]
