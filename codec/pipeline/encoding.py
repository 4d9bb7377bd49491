"""Video -> edge sub-model -> packets: a generator, one frame at a time.

    video ─► edge sub-model ─► Encoder ─► packet          `VideoEncoder`

Nothing here prints; files other than the video and a profile are the caller's.
"""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from codec.encoding.config import EncoderConfig
from codec.encoding.encoder import EncodedFrame, Encoder
from codec.encoding.motion_search import MotionSearch, field_of_blocks, luma, search_by
from codec.encoding.rate_control import TOLERANCE, BitrateControl, NrmseControl, RateControl
from codec.encoding.refinement import CloudFunction
from codec.errors import LimitExceededError, ModelError, VideoError
from codec.files.video import Frame, VideoReader
from codec.format.constants import HASH_BYTES
from codec.format.header import Preprocessing, Resize, SequenceHeader
from codec.format.packets import FramePacket
from codec.format.profile import Profile, bytes_apart, travels
from codec.metrics import FeatureNrmse
from codec.models.networks import Network, open_network
from codec.models.preprocessing import default_preprocessing, normalise, read_preprocessing
from codec.models.submodels import SplitModel, split_model
from codec.pipeline.evaluation import Evaluation, refuse_lost
from codec.pipeline.metering import Meter
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
from codec.tasks.truth import Truth

__all__ = ["VideoEncoder"]

CONTROLLED_QP = 24
"""What the motion search goes by where the qp is the rate control's."""
NRMSE_TOLERANCE = 0.1
"""Deviations from `target_nrmse` that are not worth a warning."""


class VideoEncoder:
    """Encodes a video: iterate for packets, then ask for the report.

    Example:
        >>> encoder = codec.VideoEncoder("clip.mp4", codec.VideoOptions(frames=(0, 2)))
        >>> with open("out.lmc", "wb") as file:
        ...     writer = codec.StreamWriter(file, encoder.header)
        ...     sizes = [writer.write(encoded.packet) for encoded in encoder]
        ...     writer.close()
        >>> len(sizes)
        2
    """

    def __init__(self, source: str | Path | BinaryIO, options: VideoOptions) -> None:
        self._options = options
        self._seconds: dict[str, float] = defaultdict(float)
        self._payload = 0
        self._key_frames = 0
        self._preprocessing = _preprocessing_of(options)
        task = described(options.task)
        self._reader = VideoReader(
            source,
            self._preprocessing,
            frames=options.frames,
            export_motion=options.motion == "bitstream",
            damaged=options.damaged,
        )
        try:
            network = open_network(options.model, options.weights, device=options.device)
            self.split: SplitModel = split_model(
                network.module,
                options.split,
                (self._reader.height, self._reader.width),
                network.name,
            )
            self.header = self._header(network, task)
            profile = self._profile_at_hand(network)
            if profile is not None:
                self.header = naming(self.header, profile, apart=options.profile_apart)
            with self._blaming_the_split():
                check_limits(self.header, profile, options.limits)
            cloud: CloudFunction = self.split.cloud
            if options.config.decided_by().rounds:
                cloud = class_logits(cloud, task, network.name)
            evaluation = self._evaluation(task, network.name)
            self._frames = self._read()
            first = list(islice(self._frames, MEASURED_FRAMES))
            if not first:
                raise VideoError(  # noqa: TRY301 - the reader is closed on the way out
                    "no frame in the range asked for; the video is shorter than --frames starts"
                )
            # the first frame is a key frame, without vectors in any codec
            if options.motion == "bitstream" and len(first) > 1 and not self._reader.has_motion:
                raise VideoError(  # noqa: TRY301 - as above
                    f"the {self._reader.codec_name} stream gives no motion vectors "
                    "(H.264 and MPEG-4 do); use --motion search"
                )
            if profile is None:
                profile = self._measured_profile(first)
                self.header = naming(self.header, profile)
            if task:
                self._try_task(task, first[0])
            self._frames = chain(first, self._frames)
            with self._blaming_the_split():
                self._encoder = Encoder(
                    self.header,
                    _config_of(options),
                    cloud=cloud,
                    device=options.device,
                    limits=options.limits,
                    profile=profile,
                )
        except BaseException:
            self._reader.close()
            raise
        self.meter: Meter | None = None
        if options.measure or options.evaluate:
            self.meter = Meter(self.header, self.split.cloud, evaluation)
        self._nrmse = self.meter.nrmse if self.meter else None
        if options.target_nrmse is not None and self._nrmse is None:
            self._nrmse = FeatureNrmse(len(self.split.tensors))
        self.frame_rate = self._reader.frame_rate
        self._control = self._rate_control()
        self._qps: list[int] = []
        self.frame_count_hint = self._reader.frame_count_hint

    def _evaluation(self, task: str, model: str) -> Evaluation | None:
        options = self._options
        if not options.evaluate:
            return None
        start, stop = options.frames or (0, None)
        return Evaluation(
            task_of(task, model),
            self._reader.geometry,
            Truth.from_file(options.truth, options.truth_frames) if options.truth else None,
            first=start,
            to_the_end=stop is None,
        )

    def _rate_control(self) -> RateControl | None:
        options = self._options
        if options.target_nrmse is not None:
            return NrmseControl(options.target_nrmse, keyint=options.config.keyint)
        if options.bitrate is None:
            return None
        return BitrateControl(
            options.bitrate,
            float(self.frame_rate),
            keyint=options.config.keyint,
            key_offset=self._encoder.key_offset,
            header_bytes=len(self.header.to_bytes()),
            elements=sum(spec.elements for spec in self.split.tensors),
        )

    @contextmanager
    def _blaming_the_split(self) -> Iterator[None]:
        """Say of what model and split something is said."""
        place = f"{self._options.model} at {self._options.split}"
        try:
            yield
        except LimitExceededError as error:
            raise LimitExceededError(f"{place}: {error}") from error
        except ValueError as error:
            raise ModelError(f"{place}: {error}") from error

    def _header(self, network: Network, task: str) -> SequenceHeader:
        """Return the header but for the profile."""
        options, reader = self._options, self._reader
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
            task=task,
        )

    def _profile_at_hand(self, network: Network) -> Profile | None:
        options = self._options
        if options.profile is not None:
            return profile_of_file(options.profile, network.name, options.split, network.hash)
        return shipped_for(network.name, options.split, network.hash)

    def _measured_profile(self, first: list[Frame]) -> Profile:
        with torch.no_grad(), self._blaming_the_split():
            samples: Iterable[list[Tensor]] = (self._features(frame) for frame in first)
            if self._reader.height * self._reader.width > WEIGHTED_PIXELS:
                return measured_for(self.split, samples)  # of large frames one at a time is kept
            samples = list(samples)
            return measured_for(self.split, samples, weigh=samples)

    @contextmanager
    def _clock(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self._seconds[stage] += time.perf_counter() - start

    def _try_task(self, task: str, frame: Frame) -> None:
        """Finish the task of one frame: whether it fits the network is told before work is lost."""
        with torch.no_grad():
            outputs = self.split.cloud([tensor[None] for tensor in self._features(frame)])
            task_of(task, self._options.model).finish(outputs, self._reader.geometry)

    def _read(self) -> Iterator[Frame]:
        frames = iter(self._reader)
        while True:
            with self._clock("video"):
                frame = next(frames, None)
            if frame is None:
                return
            yield frame

    def _features(self, frame: Frame) -> list[Tensor]:
        image = normalise(frame.rgb, self._preprocessing).to(self._options.device)
        features = [tensor[0] for tensor in self.split.edge(image)]
        if not all(bool(torch.isfinite(tensor).all()) for tensor in features):
            raise ModelError(
                f"{self._options.model} with weights {self._options.weights!r} gives features at "
                f"{self._options.split} that are not finite"
            )
        return features

    def __iter__(self) -> Iterator[EncodedFrame]:
        """Yield encoded frames in presentation order."""
        options, control = self._options, self._control
        previous: FramePacket | None = None
        search = self._search()
        try:
            for frame in self._frames:
                with torch.no_grad():
                    with self._clock("edge"):
                        features = self._features(frame)
                    with self._clock("motion"):
                        vectors = self._vectors(search, frame)
                    with self._clock("coding"):
                        qp, most_bytes = (None, None) if control is None else control.next()
                        encoded = self._encoder.encode(
                            features,
                            vectors,
                            pts=frame.pts,
                            intra=options.motion == "none",
                            qp=qp,
                            most_bytes=most_bytes,
                        )
                        if search is not None and not encoded.packet.has_vectors:
                            search.forget()
                    self._qps.append(encoded.packet.qp)
                    self._key_frames += encoded.packet.key
                    self._payload += len(encoded.packet.payload)
                    with self._clock("measuring"):
                        self._measure(features, encoded)
                    if control is not None:
                        packet = encoded.packet
                        control.update(
                            packet_bytes=len(packet.to_bytes(previous)),
                            key=packet.key,
                            qp=packet.qp,
                            nrmse=math.nan if self._nrmse is None else self._nrmse.combined(),
                        )
                        previous = packet
                yield encoded
        finally:
            self._reader.close()

    def _search(self) -> MotionSearch | None:
        options = self._options
        if options.motion != "search":
            return None
        qp = None if self._control is None else CONTROLLED_QP
        return search_by(self.header, options.config, qp=qp, search_range=options.search_range)

    def _vectors(self, search: MotionSearch | None, frame: Frame) -> NDArray[np.int32] | None:
        if search is not None:
            return search.estimate(luma(frame.rgb))
        if self._options.motion == "bitstream":
            assert frame.motion is not None  # noqa: S101 - the reader was asked for it
            return field_of_blocks(frame.motion, self.header)
        return None

    def _measure(self, features: list[Tensor], encoded: EncodedFrame) -> None:
        if self._options.truth is not None:
            refuse_lost(self._reader.damage.frames)
        if self.meter is not None:
            try:
                self.meter.update(features, encoded)
            except ValueError as error:
                raise ModelError(f"{self._options.model}: {error}") from error
        elif self._nrmse is not None:
            self._nrmse.update_frame(features, encoded.features)

    def report(self, stream_bytes: int, header_bytes: int) -> dict[str, Any]:
        """Return what the encoding came to, flat.  Rates count every byte of the file.

        Args:
            stream_bytes: size of the whole stream.
            header_bytes: size of its sequence header.
        """
        options = self._options
        frames = len(self._qps)
        elements = sum(spec.elements for spec in self.split.tensors)
        plain = len(replace(self.header, profile=None).to_bytes())
        way = travels(self.header)
        report: dict[str, Any] = {
            "frames": frames,
            "key_frames": self._key_frames,
            "source_damage": self._reader.damage.places,
            "source_frames_lost": self._reader.damage.frames,
            "bytes": stream_bytes,
            "bytes_per_frame": stream_bytes / frames,
            "kbit_per_s": stream_bytes * 8 / 1000 * float(self.frame_rate) / frames,
            "bits_per_element": stream_bytes * 8 / (frames * elements),
            "bytes_header": header_bytes,
            "bytes_header_profile": 0 if self.header.profile is None else header_bytes - plain,
            "bytes_framing": stream_bytes - header_bytes - self._payload,
            "profile": f"{self.header.profile_hash.hex()}, {way}",
        }
        if way == "apart":  # no bytes of the stream
            report["profile_bytes_apart"] = bytes_apart(self.header, self._encoder.profile)
        measured = {} if self.meter is None else self.meter.report()
        frame_md5 = measured.pop("frame_md5", None)
        if self._nrmse is not None:
            report["nrmse"] = self._nrmse.combined()
        report |= measured
        for stage in ("video", "edge", "motion", "coding", "measuring"):
            report[f"seconds_{stage}"] = self._seconds[stage]
        report |= {
            "model": self.header.model,
            "split": options.split,
            "weights": self.header.weights,
            **self._report_control(report),
            "qp_min": min(self._qps),
            "qp_mean": sum(self._qps) / frames,
            "qp_max": max(self._qps),
            "keyint": options.config.keyint,
            "effort": options.config.effort,
            "motion": options.motion,
            "grid": options.grid,
            "frame_rate": float(self.frame_rate),
        }
        if frame_md5 is not None:
            report["frame_md5"] = frame_md5
        return report

    def _report_control(self, report: dict[str, Any]) -> dict[str, Any]:
        options = self._options
        if options.bitrate is not None:
            met = report["kbit_per_s"] <= TOLERANCE * options.bitrate
            return {"target_kbit_per_s": options.bitrate, "target_met": met}
        if options.target_nrmse is not None:
            met = abs(report["nrmse"] / options.target_nrmse - 1) <= NRMSE_TOLERANCE
            return {"target_nrmse": options.target_nrmse, "target_met": met}
        return {"qp": options.config.qp}


def _config_of(options: VideoOptions) -> EncoderConfig:
    """Return how to code: for an NRMSE, which counts an error everywhere alike, without importance
    by place.
    """
    config = options.config
    if options.target_nrmse is None:
        return config
    return replace(config, decisions=replace(config.decided_by(), importance=0))


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
