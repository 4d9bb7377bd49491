"""A stream as a sequence of frames: `codec.open`.

    with codec.open("clip.lmc") as clip:
        batch = clip[40:60]              Batch: features, pts, motion fields in input pixels
        for frame in clip: ...           DecodedFrame, one at a time, however long the stream

Frames are decoded when they are asked for.  Going on where the last access stopped decodes nothing
twice; going anywhere else starts at the key frame before.

But: nothing here knows models; `codec.split` gives the cloud that takes a batch.
"""

from __future__ import annotations

import operator
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from codec.errors import BitstreamError, CorruptBitstreamError
from codec.files.streams import StreamReader
from codec.format.constants import VECTOR_UNITS
from codec.format.header import SequenceHeader, TensorSpec
from codec.format.packets import EndPacket, FramePacket
from codec.format.profile import Profile
from codec.limits import DEFAULT_LIMITS, Limits
from codec.normative.decoder import DecodedFrame, Decoder

__all__ = ["Batch", "Clip", "open"]


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Batch:
    """Some frames of a clip.

    `features` is float32 (T, C, H, W), as the cloud of `codec.split` takes it; of a stream with
    several tensors, a dict of such by name.  The rest is NumPy, one entry per frame: `numbers` in
    the stream, `pts` in its time base, `times` in seconds, `key`, `qp`, and `motion`, float32
    (T, rows, columns, 2): (y, x) in pixels of the input frame, content at x came from x + v in the
    frame before, zero where the stream says nothing, as in key frames.  Node (i, j) sits at input
    pixel i · grid + (grid - 1) / 2 of the header's grid.
    """

    features: Tensor | dict[str, Tensor]
    numbers: NDArray[np.int64]
    pts: NDArray[np.int64]
    times: NDArray[np.float64]
    key: NDArray[np.bool_]
    qp: NDArray[np.int64]
    motion: NDArray[np.float32]

    @classmethod
    def of(
        cls, header: SequenceHeader, numbers: Sequence[int], frames: Sequence[DecodedFrame]
    ) -> Batch:
        """Put frames of one stream together."""
        tensors = {
            spec.name: torch.stack([frame.features[place] for frame in frames])
            if frames
            else torch.empty((0, *spec.shape))
            for place, spec in enumerate(header.tensors)
        }
        motion = np.zeros((len(frames), *header.field_shape, 2), np.float32)
        for field, frame in zip(motion, frames, strict=True):
            if frame.vectors is not None:
                field[...] = frame.vectors / VECTOR_UNITS  # exact
        return cls(
            features=next(iter(tensors.values())) if len(tensors) == 1 else tensors,
            numbers=np.array(numbers, np.int64),
            pts=np.array([frame.pts for frame in frames], np.int64),
            times=np.array([float(frame.pts * header.time_base) for frame in frames], np.float64),
            key=np.array([frame.key for frame in frames], np.bool_),
            qp=np.array([frame.qp for frame in frames], np.int64),
            motion=motion,
        )

    def numpy(self) -> NDArray[np.float32] | dict[str, NDArray[np.float32]]:
        """Return the features as NumPy arrays."""
        if isinstance(self.features, Tensor):
            return self.features.cpu().numpy()
        return {name: tensor.cpu().numpy() for name, tensor in self.features.items()}

    def __len__(self) -> int:
        return len(self.numbers)

    def __iter__(self) -> Iterator[Tensor | dict[str, Tensor]]:
        """Yield the features of one frame after the other, as `codec.encode` takes them."""
        if isinstance(self.features, Tensor):
            yield from self.features
            return
        for number in range(len(self)):
            yield {name: tensor[number] for name, tensor in self.features.items()}

    def __repr__(self) -> str:
        if isinstance(self.features, Tensor):
            shapes = str(tuple(self.features.shape))
        else:
            shapes = ", ".join(f"{name} {tuple(x.shape)}" for name, x in self.features.items())
        return f"<Batch of {len(self)} frames: features {shapes}, motion {self.motion.shape}>"


class Clip:
    """A stream as a sequence: `clip[7]` is a `DecodedFrame`, `clip[40:60]` a `Batch`.

    The number of frames is unknown of a pipe, and of a stream whose end is missing: `len` and what
    counts from the end are refused then, and `clip[2:]` reads on to the end.  A pipe gives every
    frame once, in order.  What is cut or damaged raises when decoding gets there.

    Args:
        source: a path, or a binary file at the start of a stream, which its owner closes.
        limits: what to allocate for a stream at most.
        device: where features are made; their bits do not depend on it.
        profile: what the stream was written with, where it does not carry it.

    Raises:
        OSError: the file cannot be read.
        BitstreamError: it is no stream, or needs what this decoder lacks.

    Example:
        >>> clip = codec.open("clip.lmc")
        >>> clip
        <Clip of 8 frames: features (16, 28, 28)>
        >>> clip[-3:]
        <Batch of 3 frames: features (3, 16, 28, 28), motion (3, 7, 7, 2)>
        >>> [frame.key for frame in clip]
        [True, False, False, False, False, False, False, False]
        >>> clip.close()
    """

    _own: BinaryIO | None = None

    def __init__(
        self,
        source: str | Path | BinaryIO,
        *,
        limits: Limits = DEFAULT_LIMITS,
        device: torch.device | str = "cpu",
        profile: Profile | None = None,
    ) -> None:
        if isinstance(source, str | Path):
            source = self._own = Path(source).open("rb")  # noqa: SIM115 - `close` closes it
        try:
            self._reader = StreamReader(source, limits)
            self._decoder = Decoder(
                self._reader.header, profile=profile, device=device, limits=limits
            )
            self._seekable = source.seekable()
            self._end, self._no_end = self._find_end()
        except BaseException:
            self.close()
            raise
        self._packets: Iterator[FramePacket] | None = iter(self._reader)
        """None behind damage: from there on it takes a key frame."""
        self._last: tuple[int, DecodedFrame] | None = None

    def _find_end(self) -> tuple[EndPacket | None, str]:
        """Return the end packet, or why there is none."""
        try:
            return self._reader.index(), "it comes from a pipe"
        except BitstreamError as error:
            return None, str(error)

    # --- what it is ---

    @property
    def header(self) -> SequenceHeader:
        """The sequence header."""
        return self._reader.header

    @property
    def tensors(self) -> tuple[TensorSpec, ...]:
        """Name, shape, stride and offset of every tensor."""
        return self.header.tensors

    @property
    def fps(self) -> float | None:
        """Nominal frames per second, None if the stream names none; `Batch.times` is exact."""
        rate = self.header.frame_rate
        return None if rate is None else float(rate)

    def __len__(self) -> int:
        if self._end is None:
            raise TypeError(f"the number of frames of the stream is unknown: {self._no_end}")
        return self._end.frames

    def __repr__(self) -> str:
        count = "an unknown number of" if self._end is None else self._end.frames
        tensors = ", ".join(f"{spec.name} {spec.shape}" for spec in self.tensors)
        return f"<Clip of {count} frames: {tensors}>"

    # --- its frames ---

    @overload
    def __getitem__(self, index: int) -> DecodedFrame: ...

    @overload
    def __getitem__(self, index: slice) -> Batch: ...

    def __getitem__(self, index: int | slice) -> DecodedFrame | Batch:
        """Return one frame, or those of a slice together.

        Raises:
            IndexError: there is no such frame.
            ValueError: it counts from an end that is unknown, or lies behind in a pipe.
            BitstreamError: the stream is cut or damaged there.
        """
        if isinstance(index, slice):
            return self._batch(self._range(index))
        number = operator.index(index)
        if self._end is not None and -self._end.frames <= number < 0:
            number += self._end.frames
        if number < 0:
            if self._end is None:
                raise ValueError(self._counts_from_the_end(number))
            raise IndexError(f"frame {number} of a stream of {self._end.frames} frames")
        frame = None
        if self._end is None or number < self._end.frames:
            frame = self._frame(number)
        if frame is None:
            count = self._reader.frames_read if self._end is None else self._end.frames
            raise IndexError(f"frame {number} of a stream of {count} frames")
        return frame

    def _range(self, index: slice) -> range:
        if self._end is not None:
            return range(*index.indices(self._end.frames))
        start = 0 if index.start is None else operator.index(index.start)
        stop = sys.maxsize if index.stop is None else operator.index(index.stop)
        step = 1 if index.step is None else operator.index(index.step)
        if min(start, stop) < 0 or step < 1:
            raise ValueError(self._counts_from_the_end(index))
        return range(start, stop, step)

    def _counts_from_the_end(self, index: object) -> str:
        return (
            f"{index} counts from the end, which is unknown: {self._no_end}; "
            "count forwards from the first frame"
        )

    def _batch(self, numbers: range) -> Batch:
        frames: list[DecodedFrame] = []
        forwards = numbers.step > 0
        for number in numbers if forwards else reversed(numbers):
            frame = self._frame(number)
            if frame is None:  # the end was unknown
                break
            frames.append(replace(frame, latents=()))  # which are twice as large as features
        return Batch.of(self.header, numbers[: len(frames)], frames if forwards else frames[::-1])

    def __iter__(self) -> Iterator[DecodedFrame]:
        number = 0
        while (frame := self._frame(number)) is not None:
            yield frame
            number += 1

    def _frame(self, number: int) -> DecodedFrame | None:
        """Decode a frame, after what it depends on; None if the stream ends before it."""
        if self._last is not None and self._last[0] == number:
            return self._last[1]
        packets, self._packets = self._packets_to(number), None  # until all has gone well
        for packet in packets:
            self._last = (self._reader.packet_number, self._decoder.decode(packet))
            if self._last[0] == number:
                self._packets = packets
                return self._last[1]
        self._packets = packets
        if self._end is not None and number < self._end.frames:
            raise CorruptBitstreamError(
                f"the index announces {self._end.frames} frames, {self._reader.frames_read} found"
            )
        return None

    def _packets_to(self, number: int) -> Iterator[FramePacket]:
        """Return the packets from the next one on, or from the last key frame before a frame,
        whichever is less work.
        """
        reader = self._reader
        if self._packets is not None and number >= reader.frames_read:
            skipped = () if self._end is None else self._end.key_frames
            if number == reader.frames_read or not any(
                reader.frames_read < key <= number for key, _ in skipped
            ):
                return self._packets
        if not self._seekable:
            place = "behind damage" if self._packets is None else f"at frame {reader.frames_read}"
            raise ValueError(
                f"frame {number}: the stream comes from a pipe, and is {place} already"
            )
        self._last = None
        reader.seek(number)
        return iter(reader)

    # --- its file ---

    def close(self) -> None:
        """Close the file, if a path was given."""
        if self._own is not None:
            self._own.close()

    def __del__(self) -> None:
        self.close()  # in a notebook nobody else will

    def __enter__(self) -> Clip:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open(  # noqa: A001 - of this package: codec.open
    source: str | Path | BinaryIO,
    *,
    limits: Limits = DEFAULT_LIMITS,
    device: torch.device | str = "cpu",
    profile: Profile | None = None,
) -> Clip:
    """Open a stream as a sequence of frames; arguments, errors and examples as of `Clip`."""
    return Clip(source, limits=limits, device=device, profile=profile)
