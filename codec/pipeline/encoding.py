"""Video -> edge sub-model -> packets: a generator, one frame at a time.

    video ─► edge sub-model ─► Encoder ─► packet          `VideoEncoder`

Nothing here prints; files other than the video and a profile are the caller's.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from codec.encoding.arithmetic import autocasts
from codec.encoding.config import EncoderConfig
from codec.encoding.encoder import EncodedFrame
from codec.encoding.motion_search import MotionSearch, field_of_blocks, luma, search_by
from codec.encoding.rate_control import TOLERANCE, BitrateControl, NrmseControl, RateControl
from codec.errors import ModelError
from codec.files.video import Frame
from codec.format.packets import FramePacket
from codec.format.profile import bytes_apart, travels
from codec.metrics import FeatureNrmse
from codec.models.submodels import SplitModel
from codec.pipeline.edge import EdgeSource
from codec.pipeline.evaluation import Evaluation, refuse_lost
from codec.pipeline.metering import Meter
from codec.pipeline.network_tasks import task_of
from codec.pipeline.options import VideoOptions
from codec.pipeline.stages import ahead
from codec.tasks.truth import Truth

__all__ = ["VideoEncoder"]

CONTROLLED_QP = 24
"""What the motion search goes by where the qp is the rate control's."""
MANY_FRAMES = 64
"""From which on it pays to prepare the network for them."""
FrameFeatures: TypeAlias = tuple[Frame, list[Tensor]]
NRMSE_TOLERANCE = 0.1
"""Deviations from `target_nrmse` that are not worth a warning."""


class VideoEncoder:
    """Encodes a video: iterate for packets, then ask for the report.

    While a file is iterated over, video and edge sub-model are ahead in threads of their own, and
    Python's switch interval is shorter: exhaust the iterator, or close it.

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
        self._ahead = (
            isinstance(source, str | Path)
            and Path(source).is_file()
            and torch.device(options.device).type == "cpu"
        )
        self._payload = 0
        self._key_frames = 0
        self._source = EdgeSource(source, options)
        self.split: SplitModel = self._source.split
        self.header = self._source.header
        self._reader = self._source.reader
        try:
            evaluation = self._evaluation()
            self._encoder = self._source.encoder(_config_of(options))
        except BaseException:
            self._source.close()
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

    def _evaluation(self) -> Evaluation | None:
        options = self._options
        if not options.evaluate:
            return None
        start, stop = options.frames or (0, None)
        return Evaluation(
            task_of(self._source.task, self._source.model_name),
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

    def __iter__(self) -> Iterator[EncodedFrame]:
        """Yield encoded frames in presentation order."""
        options, control = self._options, self._control
        previous: FramePacket | None = None
        search = self._search()
        with self._side_by_side() as frames:
            for frame, features in frames:
                with torch.no_grad():
                    with self._source.clock("motion"):
                        vectors = self._vectors(search, frame)
                    with self._source.clock("coding"):
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
                    with self._source.clock("measuring"):
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

    def _side_by_side(self) -> AbstractContextManager[Iterator[FrameFeatures]]:
        # what is no file may wait for ever; autocast and the current GPU are those of a thread
        if self._ahead and not autocasts():
            if self.frame_count_hint is None or self.frame_count_hint >= MANY_FRAMES:
                self._source.compute_in_one_call()
            return ahead(self._source.with_features(reading_ahead=True))
        return closing(self._source.with_features())

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
            report[f"seconds_{stage}"] = self._source.seconds[stage]
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
