"""Streams -> tensors, and on to the task's output.  Generators, one frame at a time.

    packet ─► Decoder ─► cloud sub-model                  `decode_frames`, `TaskOutput`

Nothing here is normative, nothing prints; files other than a reference clip are the caller's.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from codec.errors import CorruptBitstreamError, ModelError, VideoError
from codec.files.damage import DamagePolicy
from codec.files.fitting import Fit, Orientation, check_preprocessing
from codec.files.streams import StreamReader
from codec.files.video import VideoReader
from codec.format.header import SequenceHeader
from codec.format.profile import Profile
from codec.metrics import FeatureNrmse
from codec.models.networks import open_network
from codec.models.preprocessing import normalise
from codec.models.sources import is_file
from codec.models.submodels import SplitModel, split_model
from codec.normative.decoder import DecodedFrame, Decoder
from codec.pipeline.network_tasks import labelled, task_of
from codec.tasks.drawing import DECODED, UNCODED
from codec.tasks.task import Geometry, Moment, Result, Task

__all__ = ["FeatureReference", "TaskOutput", "decode_frames", "geometry_of", "model_of"]


def decode_frames(
    reader: StreamReader,
    *,
    frames: tuple[int, int | None] | None = None,
    device: str = "cpu",
    profile: Profile | None = None,
) -> Generator[tuple[int, DecodedFrame], None, None]:
    """Yield (frame number, decoded frame) of a half-open range, starting at the key frame before
    it.

    A range that ends before the stream does leaves the rest unread, and so unchecked.

    Args:
        reader: of the stream.
        frames: first, and last + 1 or None.
        device: where features are made.
        profile: what the stream was written with, where its header only names it.

    Raises:
        BitstreamError: at once, the profile is missing, another one, damaged, or too large;
            later, the stream is cut or damaged.
    """
    decoder = Decoder(reader.header, profile=profile, device=device, limits=reader.limits)
    return _decoded(decoder, reader, frames)


def _decoded(
    decoder: Decoder, reader: StreamReader, frames: tuple[int, int | None] | None
) -> Generator[tuple[int, DecodedFrame], None, None]:
    start, stop = frames or (0, None)
    if start:
        reader.seek(start)
    if stop is not None and stop <= start:
        return
    with torch.no_grad():
        for packet in reader:
            number = reader.packet_number
            decoded = decoder.decode(packet)
            if number >= start:
                yield number, decoded
            if stop is not None and number + 1 >= stop:
                return


def model_of(
    header: SequenceHeader,
    *,
    model: str | None = None,
    weights: str | None,
    any_weights: bool,
    device: str,
) -> SplitModel:
    """Return the sub-models that a stream was made with.

    Args:
        header: names model, split and the hash of the weights.
        model: what to use in place of the name in the header; needed when that is a file's.
        weights: file to use in place of what the header names; needed when the weights were a local
            file.
        any_weights: accept weights of another hash.
        device: where to put the model.

    Raises:
        ModelError: no model in the header, or weights of another hash.
    """
    if not header.model:
        raise ModelError(
            "the stream was coded from its writer's own tensors and names no model; "
            "decode to features"
        )
    # only the user says which file is opened
    if model is None and ("@" in header.model or is_file(header.model)):
        raise ModelError(
            f"the stream was made with the network in a file {header.model!r}; pass it with "
            "--model FILE"
        )
    wanted = weights or header.weights
    if weights is None and wanted != "default" and not wanted.startswith("random:"):
        raise ModelError(
            f"the stream was made with the weight file {wanted!r}; pass it with --weights FILE"
        )
    network = open_network(model or header.model, wanted, device=device, named=header.model)
    if network.hash != header.weights_hash and not any_weights:
        raise ModelError(
            f"weights of hash {network.hash.hex()}, the stream was made with "
            f"{header.weights_hash.hex()} ({header.weights or header.model}); "
            "pass the right file, or --any-weights to go on regardless"
        )
    size = (header.input_height, header.input_width)
    split = split_model(network.module, header.split, size, network.name)
    shapes = [spec.shape for spec in split.tensors]
    expected = [spec.shape for spec in header.tensors]
    if shapes != expected:
        raise ModelError(
            f"{header.model} at {header.split} gives tensors {shapes}, the stream has {expected}"
        )
    return split


def geometry_of(header: SequenceHeader, size: tuple[int, int]) -> Geometry:
    """Return how upright frames of some size, (width, height), became a stream's input.

    Raises:
        ModelError: the stream does not say.
        VideoError: frames of that size would have become another input.
    """
    steps = header.preprocessing
    if steps is None:
        raise ModelError("the stream names no preprocessing; places in frames are not known")
    try:
        check_preprocessing(steps)
    except ValueError as error:  # the header may state steps that contradict each other
        raise CorruptBitstreamError(f"sequence header: {error}") from error
    fit = Fit.plan(size, Orientation(), steps, "the stream's clip")
    if fit.delivered != (header.input_width, header.input_height):
        width, height = fit.delivered
        raise VideoError(
            f"frames of {size[0]}x{size[1]} become an input of {width}x{height}, the stream was "
            f"made from {header.input_width}x{header.input_height}; is it the clip's size?"
        )
    return fit.geometry(size)


class TaskOutput:
    """Finishes the task: features -> outputs -> result -> rows, as they are written to JSON, or a
    picture.

    Args:
        header: of the stream.
        split: its sub-models.
        geometry: places are in pixels of its frame; None: of the network's input.
    """

    def __init__(
        self, header: SequenceHeader, split: SplitModel, geometry: Geometry | None = None
    ) -> None:
        self._header, self._split = header, split
        self.task: Task = task_of(header.task, header.model)
        self.geometry = geometry or Geometry.of_input(header.input_width, header.input_height)
        self._named = False

    def outputs(self, features: Sequence[Tensor]) -> object:
        """Return what the cloud makes of the features of a frame, (C, H, W) each."""
        with torch.no_grad():
            return self._split.cloud([tensor[None] for tensor in features])

    def result(self, outputs: object) -> Result:
        """Return what outputs say about a frame.

        Raises:
            ModelError: they are not what the task expects.
        """
        if not self._named:
            self.task, self._named = labelled(self.task, self._header.model, outputs), True
        return self.task.finish(outputs, self.geometry)

    def rows(self, number: int, frame: DecodedFrame, result: Result) -> list[dict[str, Any]]:
        """Return the rows of one frame; for classes one, for things found one each."""
        return result.rows(Moment(number, frame.pts, float(frame.pts * self._header.time_base)))

    def drawn(self, result: Result, uncoded: Result, rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Draw what the uncoded network finds, and over it what is found in a decoded frame.

        Args:
            result: of the decoded frame.
            uncoded: of the frame itself.
            rgb: the frame, (H, W, 3), as `geometry` states its size.
        """
        return self.task.draw(result, self.task.draw(uncoded, rgb, UNCODED), DECODED)


class FeatureReference:
    """Recomputes the features of the clip that a stream was made from, and measures NRMSE against
    them.

    `geometry` says where pixels of its upright frames lie in the network's input.
    """

    def __init__(
        self,
        source: str,
        header: SequenceHeader,
        split: SplitModel,
        frames: tuple[int, int | None] | None,
        device: str,
        damaged: DamagePolicy = "skip",
    ) -> None:
        if header.preprocessing is None:
            raise ModelError(
                "the stream names no preprocessing; its features cannot be recomputed from a clip"
            )
        self._preprocessing = header.preprocessing
        self._split, self._device = split, device
        try:
            self._reader = VideoReader(source, header.preprocessing, frames=frames, damaged=damaged)
        except ValueError as error:  # the header may state steps that contradict each other
            raise CorruptBitstreamError(f"sequence header: {error}") from error
        size = (self._reader.width, self._reader.height)
        if size != (header.input_width, header.input_height):
            self._reader.close()
            raise VideoError(
                f"the reference clip gives frames of {size[0]}x{size[1]}, the stream was made from "
                f"{header.input_width}x{header.input_height}; is it the clip that was encoded?"
            )
        self.geometry = self._reader.geometry
        self._time_base = header.time_base
        self._frames = self._reader.decoded()
        self._picture: Callable[[], NDArray[np.uint8]] | None = None
        self._nrmse = FeatureNrmse(len(header.tensors))

    def update(self, frame: DecodedFrame) -> list[Tensor]:
        """Compare the next frame of the clip with a decoded one; return its features."""
        decoded = next(self._frames, None)
        if decoded is None:
            raise VideoError(
                "the reference clip ends before the stream does; is it the clip that was encoded?"
            )
        self._picture = partial(self._reader.picture, decoded[0])
        reference = self._reader.deliver(*decoded)
        if reference.pts * self._reader.time_base != frame.pts * self._time_base:
            raise VideoError(
                f"pts {frame.pts} in the stream, {reference.pts} in the reference clip: not the "
                "same frame; if part of a clip was encoded, name it with --reference-frames"
            )
        with torch.no_grad():
            image = normalise(reference.rgb, self._preprocessing).to(self._device)
            features = self._split.edge(image)
        actual = [tensor[0] for tensor in features]
        try:
            self._nrmse.update_frame(actual, frame.features)
        except ValueError as error:
            raise ModelError(f"the reference's features: {error}") from error
        return actual

    @property
    def frames_lost(self) -> int:
        """How many frames of the clip were lost to damage so far."""
        return self._reader.damage.frames

    def picture(self) -> NDArray[np.uint8]:
        """Return the frame compared last, whole and upright: (H, W, 3)."""
        if self._picture is None:
            raise ValueError("no frame has been compared yet")
        return self._picture()

    def nrmse(self) -> float:
        """Return the NRMSE so far; over all frames it is the encoder's figure."""
        return self._nrmse.combined()

    def close(self) -> None:
        """Close the clip."""
        self._reader.close()
