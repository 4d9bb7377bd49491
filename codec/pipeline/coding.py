"""Both ends joined: video -> stream, stream -> tensors, stream -> task output.  Generators, one
frame at a time.

    video ─► edge sub-model ─► Encoder ─► packet          `VideoEncoder`
    packet ─► Decoder ─► cloud sub-model                  `decode_frames`, `TaskOutput`

Nothing here is normative, nothing prints; files other than the video are the caller's.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from codec.encoding.encoder import EncodedFrame, Encoder, EncoderConfig
from codec.encoding.motion_search import MotionSearch, field_of_blocks, luma
from codec.encoding.rate_control import LIMITS, TOLERANCE, BitrateControl, NrmseControl, RateControl
from codec.errors import CorruptBitstreamError, ModelError, VideoError
from codec.files.damage import DamagePolicy
from codec.files.streams import StreamReader
from codec.files.video import Frame, VideoReader
from codec.format.header import SequenceHeader
from codec.format.packets import FramePacket
from codec.format.profile import Profile, shipped_profile
from codec.models.preprocessing import default_preprocessing, normalise
from codec.models.sources import DEFAULT_MODEL, labels, load_model
from codec.models.submodels import SplitModel, split_model
from codec.models.weights import weights_hash
from codec.normative.decoder import DecodedFrame, Decoder
from codec.normative.reconstruction import md5_of
from codec.pipeline.metrics import FeatureNrmse, TaskFidelity
from codec.profiling.simple import measure_profile
from codec.profiling.weighted import channel_weights

__all__ = [
    "MOTION_SOURCES",
    "EncodeOptions",
    "FeatureReference",
    "TaskOutput",
    "VideoEncoder",
    "decode_frames",
]

DEFAULT_SPLIT = "blocks.7"
MOTION_SOURCES = ("search", "zero", "none", "bitstream")
CALIBRATION_FRAMES = 8
NRMSE_TOLERANCE = 0.1
"""Deviations from `target_nrmse` that are not worth a warning."""
WEIGHTED_PIXELS = 1 << 20
"""Largest frames whose gradients are taken: they need several times the memory of the features."""


@dataclass(frozen=True, slots=True)
class EncodeOptions:
    """What `lmc encode` is asked for; `frames` is half-open.

    `profile` is a file of `lmc calibrate`; without one, the shipped profile is used, or, where the
    model, the split or the weights are others, one measured on the first frames of the video.
    `bitrate` (kbit/s, of the whole file) or `target_nrmse` (of the whole clip) is kept by choosing
    the qp of every frame, in place of `config.qp`.  `damaged` is what becomes of a damaged video:
    "stop" at the first damage, "skip" to the next key frame and count what was lost, or "conceal":
    take what a lenient decoder makes of it.
    """

    model: str = DEFAULT_MODEL
    split: str = DEFAULT_SPLIT
    weights: str = "default"
    native: bool = False
    frames: tuple[int, int | None] | None = None
    damaged: DamagePolicy = "stop"
    motion: str = "search"
    grid: int = 32
    search_range: int = 16
    evaluate: bool = False
    device: str = "cpu"
    profile: Path | None = None
    config: EncoderConfig = field(default_factory=EncoderConfig)
    bitrate: float | None = None
    target_nrmse: float | None = None

    def __post_init__(self) -> None:
        """Refuse an unknown source of motion and targets that are none."""
        if self.motion not in MOTION_SOURCES:
            raise ValueError(f"motion {self.motion!r} is none of {', '.join(MOTION_SOURCES)}")
        if self.bitrate is not None and self.target_nrmse is not None:
            raise ValueError("bitrate and target_nrmse are both given; one of them can be kept")
        for name, (least, largest) in LIMITS.items():
            value = getattr(self, name)
            if value is not None and not least <= value <= largest:
                raise ValueError(f"{name} {value} is not from {least:g} to {largest:g}")


class VideoEncoder:
    """Encodes a video: iterate for packets, then ask for the report.

    Example:
        >>> encoder = codec.VideoEncoder("clip.mp4", codec.EncodeOptions(frames=(0, 2)))
        >>> with open("out.lmc", "wb") as file:
        ...     writer = codec.StreamWriter(file, encoder.header)
        ...     sizes = [writer.write(encoded.packet) for encoded in encoder]
        ...     writer.close()
        >>> len(sizes)
        2
    """

    def __init__(self, source: str | Path | BinaryIO, options: EncodeOptions) -> None:
        self._options = options
        self._seconds: dict[str, float] = defaultdict(float)
        self._bits: dict[str, float] = defaultdict(float)
        self._payload = 0
        self._key_frames = 0
        self._md5: list[str] = []
        self._preprocessing = default_preprocessing(options.model, options.native, options.weights)
        self._reader = VideoReader(
            source,
            self._preprocessing,
            frames=options.frames,
            export_motion=options.motion == "bitstream",
            damaged=options.damaged,
        )
        try:
            model = load_model(options.model, options.weights, device=options.device)
            self.split: SplitModel = split_model(
                model, options.split, (self._reader.height, self._reader.width), options.model
            )
            self._frames = self._read()
            first = list(islice(self._frames, CALIBRATION_FRAMES))
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
            digest = weights_hash(model)
            profile = _chosen_profile(options, digest)
            if profile is None:
                with torch.no_grad():
                    samples = [self._features(frame) for frame in first]
                try:
                    profile = measure_profile(
                        self.split.tensors, samples, weights=self._channel_weights(samples)
                    )
                except ValueError as error:
                    raise ModelError(f"{options.model} at {options.split}: {error}") from error
            embedded = shipped_profile(profile.hash.hex()) is None
            self.header = self._header(profile=profile, embedded=embedded, digest=digest)
            self._frames = chain(first, self._frames)
            try:
                self._encoder = Encoder(
                    self.header, options.config, cloud=self.split.cloud, device=options.device
                )
            except ValueError as error:
                raise ModelError(f"{options.model} at {options.split}: {error}") from error
        except BaseException:
            self._reader.close()
            raise
        self._nrmse = FeatureNrmse(len(self.split.tensors))
        self._fidelity = TaskFidelity() if options.evaluate else None
        self.frame_rate = self._reader.frame_rate
        self._control = self._rate_control()
        self._qps: list[int] = []
        self.frame_count_hint = self._reader.frame_count_hint

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

    def _channel_weights(self, samples: list[list[Tensor]]) -> list[NDArray[np.float64]] | None:
        """Ask the cloud which channels matter, where that is possible and not too much work."""
        if self._reader.height * self._reader.width > WEIGHTED_PIXELS:
            return None
        try:
            return channel_weights(self.split.tensors, samples, self.split.cloud)
        except ModelError:  # whatever it puts out, its features can be coded
            return None

    def _header(self, *, profile: Profile, embedded: bool, digest: bytes) -> SequenceHeader:
        options, reader = self._options, self._reader
        weights = options.weights
        if weights != "default" and not weights.startswith("random:"):
            # a hint, the hash decides; a stream has no business with the folders of its writer
            name = Path(weights).name.encode(errors="replace").decode()
            weights = "".join(letter if letter.isprintable() else "?" for letter in name)
        return SequenceHeader(
            tensors=self.split.tensors,
            input_height=reader.height,
            input_width=reader.width,
            profile_hash=profile.hash,
            profile=profile.to_bytes() if embedded else None,
            grid=options.grid,
            time_base=reader.time_base,
            frame_duration=max(round(1 / (reader.frame_rate * reader.time_base)), 1),
            model=options.model,
            split=options.split,
            weights=weights,
            weights_hash=digest,
            preprocessing=self._preprocessing,
        )

    @contextmanager
    def _clock(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self._seconds[stage] += time.perf_counter() - start

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
        search = MotionSearch(self.header, qp=options.config.qp, search_range=options.search_range)
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
                        if not encoded.packet.has_vectors:
                            search.forget()
                    with self._clock("measuring"):
                        self._measure(features, encoded)
                        if control is not None:
                            packet = encoded.packet
                            control.update(
                                packet_bytes=len(packet.to_bytes(previous)),
                                key=packet.key,
                                qp=packet.qp,
                                nrmse=self._nrmse.combined(),
                            )
                            previous = packet
                yield encoded
        finally:
            self._reader.close()

    def _vectors(self, search: MotionSearch, frame: Frame) -> NDArray[np.int32] | None:
        if self._options.motion == "search":
            return search.estimate(luma(frame.rgb))
        if self._options.motion == "bitstream":
            assert frame.motion is not None  # noqa: S101 - the reader was asked for it
            return field_of_blocks(frame.motion, self.header)
        return None

    def _measure(self, features: list[Tensor], encoded: EncodedFrame) -> None:
        self._key_frames += encoded.packet.key
        self._payload += len(encoded.packet.payload)
        self._qps.append(encoded.packet.qp)
        self._md5.append(md5_of(encoded.latents))
        for element, bits in encoded.bits.items():
            self._bits["levels" if element.startswith("levels") else element] += bits
        for number, (actual, recovered) in enumerate(zip(features, encoded.features, strict=True)):
            self._nrmse.update(number, actual.cpu().numpy(), recovered.cpu().numpy())
        if self._fidelity is not None:
            reference = self.split.cloud([tensor[None] for tensor in features])
            output = self.split.cloud([tensor[None] for tensor in encoded.features])
            try:
                self._fidelity.update(reference.cpu(), output.cpu())
            except ValueError as error:
                raise ModelError(f"--evaluate: output of {self._options.model}: {error}") from error

    def report(self, stream_bytes: int, header_bytes: int) -> dict[str, Any]:
        """Return what the encoding came to, flat.

        Rates count every byte of the file.  The payload is divided among motion, modes and levels
        in proportion to their code lengths.  `nrmse` is equation (13) of arXiv:2102.04018 (see
        `FeatureNrmse`).

        Args:
            stream_bytes: size of the whole stream.
            header_bytes: size of its sequence header.
        """
        frames = len(self._md5)
        elements = sum(spec.elements for spec in self.split.tensors)
        code_length = max(sum(self._bits.values()), 1e-9)
        embedded = self.header.profile is not None
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
            "bytes_header_profile": header_bytes - len(_without_profile(self.header))
            if embedded
            else 0,
            "bytes_framing": stream_bytes - header_bytes - self._payload,
        }
        for element in ("motion", "modes", "levels"):
            report[f"bytes_{element}"] = self._payload * self._bits[element] / code_length
        report["nrmse"] = self._nrmse.combined()
        if len(self.split.tensors) > 1:
            for spec, value in zip(self.split.tensors, self._nrmse.per_tensor(), strict=True):
                report[f"nrmse_{spec.name}"] = value
        if self._fidelity is not None:
            report["kl"] = self._fidelity.kl()
            report["top1_agreement"] = self._fidelity.top1_agreement()
        for stage in ("video", "edge", "motion", "coding", "measuring"):
            report[f"seconds_{stage}"] = self._seconds[stage]
        options = self._options
        report |= {
            "model": options.model,
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
            "frame_md5": self._md5,
        }
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


def _chosen_profile(options: EncodeOptions, digest: bytes) -> Profile | None:
    """Return the profile asked for or shipped for these very weights, or None."""
    if options.profile is None:
        profile = shipped_profile(f"{options.model}@{options.split}")
        # sensitivities are those of the weights: of others they say nothing
        fits = profile is not None and profile.provenance.get("weights_hash") == digest.hex()
        return profile if fits else None
    with options.profile.open("rb"):
        pass  # a file that is missing says so, rather than that it is no profile
    profile = Profile.load(options.profile)
    asked = {"model": options.model, "split": options.split, "weights_hash": digest.hex()}
    for key, expected in asked.items():
        found = profile.provenance.get(key, expected)
        if found != expected:
            raise ModelError(
                f"{options.profile}: measured for {key.replace('_', ' of the ')} {found}, "
                f"asked for {expected}; run lmc calibrate for it"
            )
    return profile


def _without_profile(header: SequenceHeader) -> bytes:
    return replace(header, profile=None).to_bytes()


def decode_frames(
    reader: StreamReader, *, frames: tuple[int, int | None] | None = None, device: str = "cpu"
) -> Iterator[tuple[int, DecodedFrame]]:
    """Yield (frame number, decoded frame) of a half-open range, starting at the key frame before
    it.

    A range that ends before the stream does leaves the rest unread, and so unchecked.
    """
    decoder = Decoder(reader.header, device=device, limits=reader.limits)
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
    header: SequenceHeader, *, weights: str | None, any_weights: bool, device: str
) -> SplitModel:
    """Return the sub-models that a stream was made with.

    Args:
        header: names model, split and the hash of the weights.
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
    wanted = weights or header.weights
    if weights is None and wanted != "default" and not wanted.startswith("random:"):
        raise ModelError(
            f"the stream was made with the weight file {wanted!r}; pass it with --weights FILE"
        )
    model = load_model(header.model, wanted, device=device)
    found = weights_hash(model)
    if found != header.weights_hash and not any_weights:
        raise ModelError(
            f"weights of hash {found.hex()}, the stream was made with "
            f"{header.weights_hash.hex()} ({header.weights}); "
            "pass the right file with --weights, or --any-weights to go on regardless"
        )
    split = split_model(
        model, header.split, (header.input_height, header.input_width), header.model
    )
    shapes = [spec.shape for spec in split.tensors]
    expected = [spec.shape for spec in header.tensors]
    if shapes != expected:
        raise ModelError(
            f"{header.model} at {header.split} gives tensors {shapes}, the stream has {expected}"
        )
    return split


class TaskOutput:
    """Finishes the task: decoded frame -> the most probable classes."""

    def __init__(self, header: SequenceHeader, split: SplitModel, *, count: int = 5) -> None:
        self._header, self._split, self._count = header, split, count
        self._labels: list[str] | None = None

    def __call__(self, number: int, frame: DecodedFrame) -> dict[str, Any]:
        """Return frame number, pts, time in seconds, and the top classes with probabilities."""
        with torch.no_grad():
            output = self._split.cloud([tensor[None] for tensor in frame.features])
        if output.ndim != 2:
            raise ModelError(
                f"the model's output has shape {tuple(output.shape)}; classes were expected"
            )
        if self._labels is None:
            self._labels = labels(self._header.model, output.shape[1])
        best = torch.softmax(output[0].double(), 0).topk(min(self._count, output.shape[1]))
        return {
            "frame": number,
            "pts": frame.pts,
            "time": float(frame.pts * self._header.time_base),
            "top5": [
                {
                    "class": int(index),
                    "label": self._labels[int(index)],
                    "probability": round(float(value), 6),
                }
                for value, index in zip(best.values, best.indices, strict=True)
            ],
        }


class FeatureReference:
    """Recomputes the features of the clip that a stream was made from, and measures NRMSE against
    them.
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
        self._time_base = header.time_base
        self._frames: Iterable[Frame] = iter(self._reader)
        self._nrmse = FeatureNrmse(len(header.tensors))

    def update(self, frame: DecodedFrame) -> None:
        """Compare the next frame of the clip with a decoded one."""
        reference = next(iter(self._frames), None)
        if reference is None:
            raise VideoError(
                "the reference clip ends before the stream does; is it the clip that was encoded?"
            )
        if reference.pts * self._reader.time_base != frame.pts * self._time_base:
            raise VideoError(
                f"pts {frame.pts} in the stream, {reference.pts} in the reference clip: not the "
                "same frame; if part of a clip was encoded, name it with --reference-frames"
            )
        with torch.no_grad():
            image = normalise(reference.rgb, self._preprocessing).to(self._device)
            features = self._split.edge(image)
        for number, (actual, recovered) in enumerate(zip(features, frame.features, strict=True)):
            try:
                self._nrmse.update(number, actual[0].cpu().numpy(), recovered.cpu().numpy())
            except ValueError as error:
                raise ModelError(f"the reference's features: {error}") from error

    def nrmse(self) -> float:
        """Return the NRMSE so far; over all frames it is the encoder's figure."""
        return self._nrmse.combined()

    def close(self) -> None:
        """Close the clip."""
        self._reader.close()
