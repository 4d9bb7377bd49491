"""The anchor that sends the answer: the output of the whole model, and nothing to compute it from.

An encoder that runs the whole network, as our efforts from 5 on do, could as well send what the
network says.  This is what that costs: no features arrive, only an output to be judged.  The most
probable class is kept whatever the step.

    largest 5   the five largest probabilities and their classes; what is left of the mass is spread
                evenly over the other classes, so that the divergence does not vanish with the step
    all         square roots of all probabilities, in which equal errors cost equal divergence; what
                rounds to nothing shares, evenly, the mass of what does

    header   frames u32, classes u32, step f32, little-endian
    frame    for each rank that is sent, one of `all`: place of the class among the recent ones, or
             the class; then levels, in steps: log-ratios of the other ranks, and of all the rest,
             to the most probable; or square roots, of every class and of the rest

A clip is one message, every model adapts from the frames before, and no frame pays for framing,
which goes the anchor's way.

Not here: labels chosen otherwise than by size, or smoothed over time.
"""

import importlib.metadata
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import constriction
import numpy as np
from numpy.typing import NDArray

from tools.contenders.scene import Coded, Scene
from tools.contenders.unavailable import AnchorUnavailableError

__all__ = ["EVERYTHING", "LARGEST", "Labels", "Representation", "decode", "encode"]

HEADER = struct.Struct("<IIf")
WORD = np.dtype("<u4")
PLACES = 24
"""Recent classes that can be named by their place."""
FIRST_PLACES = 0.1
"""Count that every place begins with: small, so that one frame teaches most."""
FORGETTING = 0.7
LEAST_SPREAD = 0.1
TIE = 1e-3
"""Nats by which the most probable class leads, where the steps leave none."""

Levels = NDArray[np.int32]


class Representation(Protocol):
    """A way to say an output in whole steps: which classes by name, and levels."""

    @property
    def variant(self) -> str:
        """Name it."""

    @property
    def points(self) -> tuple[float, ...]:
        """Return steps to measure at, coarse to fine."""

    def named(self, classes: int) -> int:
        """Tell how many classes are named, the most probable first."""

    def levels(self, classes: int) -> int:
        """Tell how many levels a frame has."""

    def bound(self, step: float) -> int:
        """Return the largest magnitude of a level."""

    def quantise(self, logs: NDArray[np.float64], order: NDArray[np.int64], step: float) -> Levels:
        """Turn log-probabilities, whose classes fall in this order, into levels."""

    def dequantise(
        self, levels: Levels, names: list[int], classes: int, step: float
    ) -> NDArray[np.float64]:
        """Turn levels and named classes into logarithms, up to a constant, of probabilities."""


@dataclass(frozen=True, slots=True)
class _Largest:
    kept: int = 5
    largest: float = 30.0  # log-ratio, nats
    points: tuple[float, ...] = (2.0, 1.0, 0.5, 0.25)

    @property
    def variant(self) -> str:
        return f"largest {self.kept}"

    def named(self, classes: int) -> int:
        return min(self.kept, classes)

    def levels(self, classes: int) -> int:
        return min(self.kept, classes - 1)

    def bound(self, step: float) -> int:
        return int(np.ceil(self.largest / step))

    def quantise(self, logs: NDArray[np.float64], order: NDArray[np.int64], step: float) -> Levels:
        masses = list(logs[order[1 : self.kept]])
        if len(logs) > self.kept:
            masses.append(np.logaddexp.reduce(logs[order[self.kept :]]))
        ratios = np.clip(logs[order[0]] - np.array(masses), -self.largest, self.largest)
        return np.asarray(np.rint(ratios / step), np.int32)

    def dequantise(
        self, levels: Levels, names: list[int], classes: int, step: float
    ) -> NDArray[np.float64]:
        found = np.zeros(classes)
        if classes > len(names):
            found[:] = -levels[-1] * step - np.log(classes - len(names))
        found[names] = [0.0, *(-level * step for level in levels[: len(names) - 1])]
        return found


@dataclass(frozen=True, slots=True)
class _Everything:
    variant: str = "all"
    points: tuple[float, ...] = (0.2, 0.14, 0.1, 0.07, 0.05, 0.035, 0.025, 0.0125)

    def named(self, classes: int) -> int:
        return 1

    def levels(self, classes: int) -> int:
        return classes + 1

    def bound(self, step: float) -> int:
        return int(np.ceil(1 / step))

    def quantise(self, logs: NDArray[np.float64], order: NDArray[np.int64], step: float) -> Levels:
        masses = np.exp(logs)
        levels = np.rint(np.sqrt(masses) / step)
        rest = np.rint(np.sqrt(masses[levels == 0].sum()) / step)
        return np.append(levels, rest).astype(np.int32)

    def dequantise(
        self,
        levels: Levels,
        names: list[int],
        classes: int,
        step: float,
    ) -> NDArray[np.float64]:
        each, rest = levels[:-1], levels[-1]
        masses = np.square(each * step)
        # a rest of level 0 is some mass too: a quarter of a step
        masses[each == 0] = np.square(max(rest, 0.25) * step) / max((each == 0).sum(), 1)
        return np.asarray(np.log(masses), np.float64)


LARGEST, EVERYTHING = _Largest(), _Everything()

_Code = Callable[..., Any]
"""Codes symbols by a model and its parameters: a writer those given, a reader those found."""


class _Syntax:
    """Both directions of a frame, and what its models have learnt so far."""

    def __init__(self, representation: Representation, classes: int, step: float) -> None:
        self.classes = classes
        named, levels = representation.named(classes), representation.levels(classes)
        self._recent: list[int] = []
        self._places = np.full((named, PLACES + 1), FIRST_PLACES)
        bound = representation.bound(step)
        self._family = constriction.stream.model.QuantizedLaplace(-bound, bound)
        self._previous = np.zeros(levels)
        self._spread = np.full(levels, LEAST_SPREAD)

    def code(self, code: _Code, names: list[int], levels: Levels) -> tuple[list[int], Levels]:
        """Code the names of a frame, most probable first, and its levels."""
        found = self._code_names(code, names)
        levels = code(levels, self._family, self._previous, self._spread)
        error = np.abs(levels - self._previous)
        mixed = FORGETTING * self._spread + (1 - FORGETTING) * error
        self._spread, self._previous = np.maximum(mixed, LEAST_SPREAD), levels.astype(np.float64)
        return found, levels

    def _code_names(self, code: _Code, names: list[int]) -> list[int]:
        found: list[int] = []
        left = list(self._recent)
        for name, counts in zip(names, self._places, strict=True):
            known = left[:PLACES]
            model = constriction.stream.model.Categorical(
                (counts / counts.sum()).astype(np.float32), perfect=False
            )
            place = int(code(known.index(name) if name in known else PLACES, model))
            counts[place] += 1
            if place < len(known):
                found.append(known[place])
            else:
                found.append(int(code(name, constriction.stream.model.Uniform(self.classes))))
            if found[-1] in left:
                left.remove(found[-1])
        self._recent = [*found, *left]
        return found


def encode(
    log_probabilities: NDArray[np.float64], representation: Representation, step: float
) -> bytes:
    """Encode the output of a network, (N, classes) of at least two classes, for a clip."""
    frames, classes = log_probabilities.shape
    header = HEADER.pack(frames, classes, step)
    _, _, step = HEADER.unpack(header)  # as the decoder has it
    syntax = _Syntax(representation, classes, step)
    coder = constriction.stream.queue.RangeEncoder()

    def write(symbols: int | Levels, *model: Any) -> int | Levels:  # noqa: ANN401
        coder.encode(symbols, *model)
        return symbols

    for logs in log_probabilities:
        order = np.argsort(-logs, kind="stable")  # equal ones as argmax has them
        names = order[: representation.named(classes)].tolist()
        syntax.code(write, names, representation.quantise(logs, order, step))
    return header + bytes(coder.get_compressed().astype(WORD).tobytes())


def decode(content: bytes, representation: Representation) -> NDArray[np.float32]:
    """Decode log-probabilities, (N, classes)."""
    frames, classes, step = HEADER.unpack_from(content)
    syntax = _Syntax(representation, classes, step)
    words = np.frombuffer(content, WORD, offset=HEADER.size).astype(np.uint32)
    coder = constriction.stream.queue.RangeDecoder(words)

    def read(_: int | Levels, *model: Any) -> int | Levels:  # noqa: ANN401
        symbols: int | Levels = coder.decode(*model)
        return symbols

    unknown = [-1] * representation.named(classes), np.zeros(0, np.int32)
    found = np.empty((frames, classes))
    for logs in found:
        names, levels = syntax.code(read, *unknown)
        logs[:] = representation.dequantise(levels, names, classes, step)
        others = np.delete(logs, names[0])
        logs[names[0]] = max(logs[names[0]], others.max() + TIE)
    found -= np.logaddexp.reduce(found, axis=1, keepdims=True)
    return found.astype(np.float32)


@dataclass(frozen=True, slots=True)
class Labels:
    """The output of the uncompressed model; points are steps of its representation."""

    representation: Representation
    name: str = "labels"
    needs_split: bool = False

    @property
    def variant(self) -> str:
        """Tell what of the output is sent."""
        return self.representation.variant

    @property
    def points(self) -> tuple[float, ...]:
        """Return steps, coarse to fine."""
        return self.representation.points

    def code(self, scene: Scene, point: float) -> Coded:
        """Code the output in steps of `point`.

        Raises:
            AnchorUnavailableError: the output is no classes.
        """
        if not scene.classifies:
            raise AnchorUnavailableError(
                "sends the probabilities of classes, and the task is another than classification"
            )
        reference = scene.reference.double().log_softmax(-1).numpy()
        start = time.perf_counter()
        content = encode(reference, self.representation, point)
        seconds_encode = time.perf_counter() - start
        start = time.perf_counter()
        outputs = decode(content, self.representation)
        seconds_decode = time.perf_counter() - start
        return Coded(
            len(content),
            outputs=outputs,
            seconds={"encode": seconds_encode, "decode": seconds_decode},
            parameters={
                "sent": self.variant,
                "step": point,
                "library": f"constriction {importlib.metadata.version('constriction')}",
            },
        )
