"""A video opened and its network cut: frames in, features out, and the header of their stream.

video ─► EdgeSource ─► frames ─► features              what files and the live link both encode
"""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from itertools import chain, islice
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

from codec.encoding.config import EncoderConfig
from codec.encoding.encoder import Encoder
from codec.encoding.refinement import CloudFunction
from codec.errors import LimitExceededError, ModelError, VideoError
from codec.files.video import Frame, VideoReader
from codec.format.constants import HASH_BYTES
from codec.format.header import Preprocessing, Resize, SequenceHeader
from codec.format.profile import Profile
from codec.models.networks import Network, open_network
from codec.models.one_call import in_one_call
from codec.models.preprocessing import default_preprocessing, normalise, read_preprocessing
from codec.models.submodels import EdgeSubmodel, SplitModel, split_model
from codec.pipeline.network_tasks import class_logits, described, task_of
from codec.pipeline.options import VideoOptions
from codec.pipeline.profiles import (
    MEASURED_FRAMES,
    WEIGHTED_PIXELS,
    check_limits,
    measured_for,
    naming,
    profile_of_file,
    shipped_for,
)
from codec.pipeline.stages import ahead

__all__ = ["EdgeSource"]


class EdgeSource:
    """What is to be encoded: `frames`, once; `features` of each; `header` and `profile`.

    `seconds` tells what reading and the edge sub-model took so far.

    Args:
        source: a file name, "-" for standard input, or a binary file object.
        options: what `lmc encode` is asked for.
        live: the name may be a URL or a device too.
        references: how many frames the stream keeps.

    Raises:
        FeatureCodecError: the video, the network, the split or the task are none, or do not fit.
    """

    def __init__(
        self,
        source: str | Path | BinaryIO,
        options: VideoOptions,
        *,
        live: bool = False,
        references: int = 1,
    ) -> None:
        self._options, self._references = options, references
        self.seconds: dict[str, float] = defaultdict(float)
        self._preprocessing = _preprocessing_of(options)
        self.task = described(options.task)
        self.reader = VideoReader(
            source,
            self._preprocessing,
            frames=options.frames,
            export_motion=options.motion == "bitstream",
            damaged=options.damaged,
            live=live,
        )
        try:
            network = open_network(options.model, options.weights, device=options.device)
            self.model_name = network.name
            self.split: SplitModel = split_model(
                network.module,
                options.split,
                (self.reader.height, self.reader.width),
                network.name,
            )
            self._edge = self.split.edge
            self.header = self._header(network)
            profile = self._profile_at_hand(network)
            if profile is not None:
                self.header = naming(self.header, profile, apart=options.profile_apart)
            with self.blaming_the_split():
                check_limits(self.header, profile, options.limits)
            self._cloud: CloudFunction = self.split.cloud
            if options.config.decided_by().rounds:  # told before anything is computed
                self._cloud = class_logits(self._cloud, self.task, network.name)
            self.frames = self._read()
            first = list(islice(self.frames, MEASURED_FRAMES))
            if not first:
                raise VideoError(  # noqa: TRY301 - the reader is closed on the way out
                    "no frame in the range asked for; the video is shorter than --frames starts"
                )
            # the first frame is a key frame, without vectors in any codec
            if options.motion == "bitstream" and len(first) > 1 and not self.reader.has_motion:
                raise VideoError(  # noqa: TRY301 - as above
                    f"the {self.reader.codec_name} stream gives no motion vectors "
                    "(H.264 and MPEG-4 do); use --motion search"
                )
            if profile is None:
                profile = self._measured_profile(first)
                self.header = naming(self.header, profile)
            self.profile = profile
            if self.task:
                self._try_task(first[0])
            self.frames = chain(first, self.frames)
        except BaseException:
            self.reader.close()
            raise

    @contextmanager
    def blaming_the_split(self) -> Iterator[None]:
        """Say of what model and split something is said."""
        place = f"{self._options.model} at {self._options.split}"
        try:
            yield
        except LimitExceededError as error:
            raise LimitExceededError(f"{place}: {error}") from error
        except ValueError as error:
            raise ModelError(f"{place}: {error}") from error

    @contextmanager
    def clock(self, stage: str) -> Iterator[None]:
        """Add what is done meanwhile to the seconds of a stage."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] += time.perf_counter() - start

    def _header(self, network: Network) -> SequenceHeader:
        """Return the header but for the profile."""
        options, reader = self._options, self.reader
        return SequenceHeader(
            tensors=self.split.tensors,
            input_height=reader.height,
            input_width=reader.width,
            profile_hash=bytes(HASH_BYTES),
            grid=options.grid,
            time_base=reader.time_base,
            frame_duration=max(round(1 / (reader.frame_rate * reader.time_base)), 1),
            model=network.name,
            split=options.split,
            weights=network.weights,
            weights_hash=network.hash,
            preprocessing=self._preprocessing,
            task=self.task,
            references=self._references,
        )

    def _profile_at_hand(self, network: Network) -> Profile | None:
        options = self._options
        if options.profile is not None:
            return profile_of_file(options.profile, network.name, options.split, network.hash)
        return shipped_for(network.name, options.split, network.hash)

    def _measured_profile(self, first: list[Frame]) -> Profile:
        with torch.no_grad(), self.blaming_the_split():
            samples: Iterable[list[Tensor]] = (self.features(frame) for frame in first)
            if self.reader.height * self.reader.width > WEIGHTED_PIXELS:
                return measured_for(self.split, samples)  # of large frames one at a time is kept
            samples = list(samples)
            return measured_for(self.split, samples, weigh=samples)

    def _try_task(self, frame: Frame) -> None:
        """Finish the task of one frame: whether it fits the network is told before work is lost."""
        with torch.no_grad():
            outputs = self.split.cloud([tensor[None] for tensor in self.features(frame)])
            task_of(self.task, self._options.model).finish(outputs, self.reader.geometry)

    def _read(self) -> Iterator[Frame]:
        frames = iter(self.reader)
        while True:
            with self.clock("video"):
                frame = next(frames, None)
            if frame is None:
                return
            yield frame

    def with_features(
        self, *, reading_ahead: bool = False
    ) -> Generator[tuple[Frame, list[Tensor]], None, None]:
        """Yield the frames with their features, and close the video; for a thread of its own.

        Args:
            reading_ahead: read the video in another one, as `stages.ahead` does.
        """
        read = (frame for frame in self.frames)
        try:
            with ahead(read) if reading_ahead else nullcontext(read) as frames:
                for batch, error in _batches(frames, self._options.batch):
                    with torch.no_grad(), self.clock("edge"):
                        features = self._features_of(batch)
                    yield from zip(batch, features, strict=True)
                    if error is not None:
                        raise error
        finally:
            self.close()

    def compute_in_one_call(self) -> None:
        """Let other threads run Python while the edge computes, from now on; to be asked for where
        some do, and before they are begun.
        """
        edge, shape = self.split.edge, (self.reader.height, self.reader.width)
        if torch.device(self._options.device).type == "cpu":
            shown = (edge.batch or self._options.batch, 3, *shape)
            # no random numbers, which would be the caller's
            batch = torch.linspace(-2.0, 2.0, math.prod(shown)).reshape(shown)
            self._edge = EdgeSubmodel(in_one_call(edge.module, batch), edge.batch)

    def features(self, frame: Frame) -> list[Tensor]:
        """Return what the edge sub-model makes of a frame, (C, H, W) each.

        Raises:
            ModelError: values that are not finite.
        """
        return self._features_of([frame])[0]

    def _features_of(self, frames: Sequence[Frame]) -> list[list[Tensor]]:
        pictures = np.stack([frame.rgb for frame in frames])
        images = normalise(pictures, self._preprocessing).to(self._options.device)
        tensors = self._edge(images)
        if not all(bool(torch.isfinite(tensor).all()) for tensor in tensors):
            raise ModelError(
                f"{self._options.model} with weights {self._options.weights!r} gives features at "
                f"{self._options.split} that are not finite"
            )
        return [[tensor[number] for tensor in tensors] for number in range(len(frames))]

    def encoder(self, config: EncoderConfig) -> Encoder:
        """Return an encoder for the features, of the effort that the options say."""
        with self.blaming_the_split():
            return Encoder(
                self.header,
                config,
                cloud=self._cloud,
                device=self._options.device,
                limits=self._options.limits,
                profile=self.profile,
            )

    def close(self) -> None:
        """Close the video."""
        self.reader.close()


def _batches(frames: Iterator[Frame], count: int) -> Iterator[tuple[list[Frame], Exception | None]]:
    """Yield so many frames at a time, and behind the last ones what ended them, if they are fewer:
    what was read before an error is not lost.
    """
    while True:
        batch: list[Frame] = []
        try:
            for frame in islice(frames, count):
                batch.append(frame)  # noqa: PERF402 - what came before an error stays
        except Exception as error:
            if not batch:
                raise
            yield batch, error
            return
        if not batch:
            return
        yield batch, None


def _preprocessing_of(options: VideoOptions) -> Preprocessing:
    if options.preprocessing is None:
        return default_preprocessing(options.model, options.native, options.weights)
    found = read_preprocessing(options.preprocessing)
    resized = found.short_side or found.crop or found.resize is not Resize.SHORT_SIDE
    if options.native and resized:
        raise ModelError(
            f"{options.preprocessing} says how frames are resized, so there is no native size; "
            'leave --native out, or let the file say resize = "none" and crop = 0'
        )
    return found
