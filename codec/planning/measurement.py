"""The jobs of a plan: what its figures are measured by, none of which knows the link.

    CutJob       a clip coded at a cut: loss and bytes around the loss that is asked for
    RemoteJob    the pictures of a clip coded by x265, and the whole network on what comes back
    TimesJob     all stages of all options at what was found, and the whole network, in turns

Times are processor seconds of one thread, so that other work on the machine does not count, and of
inter frames.  They begin with the picture at the network's size: reading and resizing are the same
for all, and conversion between RGB and YCbCr is not counted at either end, since a camera has YCbCr
for x265 and cuts are given RGB.  What makes the network's input of a picture counts.  A clip is
known by its name and content: in another folder it is the same clip.
"""

from __future__ import annotations

import math
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from codec import __version__
from codec.encoding.config import DEFAULT_EFFORT, EncoderConfig
from codec.encoding.motion_search import luma, search_by
from codec.errors import FeatureCodecError, TaskError, VideoError
from codec.files.outputs import open_output
from codec.files.pictures import code_frames
from codec.files.video import Frame, VideoReader
from codec.files.video_coders import LOW_DELAY, X265_PLAIN, x265
from codec.format.constants import MAX_QP
from codec.format.header import Preprocessing
from codec.format.packets import FramePacket
from codec.format.profile import Profile
from codec.models.networks import Network, open_network
from codec.models.preprocessing import (
    default_preprocessing,
    normalise,
    normalise_float,
    read_preprocessing,
)
from codec.models.sources import model_name
from codec.models.submodels import split_model
from codec.normative.decoder import Decoder
from codec.pipeline.calibration import CalibrationOptions, calibrate
from codec.pipeline.edge import EdgeSource
from codec.pipeline.network_tasks import described, task_of
from codec.pipeline.options import VideoOptions
from codec.pipeline.profiles import shipped_for
from codec.planning.search import KEYINT, Point, search
from codec.running.keys import file_hash, key_of, weights_identity
from codec.tasks.task import Geometry, Task

__all__ = [
    "PIXEL_FORMATS",
    "TIMED_PIXELS",
    "TIMED_WHOLE",
    "X265",
    "CutJob",
    "RemoteJob",
    "Setting",
    "Shown",
    "TimesJob",
    "look",
]

TIMED_PIXELS, TIMED_WHOLE = "pixels", "whole"
"""Names of options that are no cut, among times."""
_FIRST_PIXELS = "the first picture"
"""What x265 takes for it is not what it takes for the others."""

PIXEL_FORMATS = ("yuv420p", "yuv444p")
"""That x265 is tried with, the better of which counts."""
X265 = f"{LOW_DELAY}:rc-lookahead=0:{X265_PLAIN}"
"""A picture comes out before the next goes in; what serves the eye is off."""
START_QP, START_CRF, MOST_CRF = 24, 26, 51
TIMED_FRAMES, REPEATS = 8, 3
"""Inter frames that are timed, behind a key frame, and how often each: the fastest counts."""
PAIRS, VIEWS = 12, 2
"""Of a video that a profile is measured on, pairs of frames; of a photograph, views."""

Result = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Setting:
    """What all jobs of a plan share; `weights`, `task` and `effort` as of `lmc encode`."""

    model: str
    weights: str
    preprocessing: Path | None
    task: str | None
    frames: int
    effort: int = DEFAULT_EFFORT

    def identity(self) -> dict[str, Any]:
        """Return all that a result depends on; files count by their content."""
        return {
            "version": __version__,
            "model": model_name(self.model),
            "weights": weights_identity(self.model, self.weights, self.preprocessing),
            "preprocessing": None if self.preprocessing is None else file_hash(self.preprocessing),
            "task": described(self.task),
            "frames": self.frames,
        }


@dataclass(frozen=True, slots=True)
class Shown:
    """A clip as the network sees it."""

    rgb: NDArray[np.uint8]
    preprocessing: Preprocessing

    @property
    def size(self) -> tuple[int, int]:
        """Return height and width."""
        return self.rgb.shape[1], self.rgb.shape[2]


@lru_cache(maxsize=1)
def look(setting: Setting, path: Path) -> Shown:
    """Read the first frames of a clip.

    Raises:
        VideoError: it is none, or has fewer than two frames.
    """
    preprocessing = (
        default_preprocessing(setting.model, native=False, weights=setting.weights)
        if setting.preprocessing is None
        else read_preprocessing(setting.preprocessing)
    )
    with VideoReader(path, preprocessing, frames=(0, setting.frames)) as reader:
        frames = [frame.rgb for frame in reader]
    if len(frames) < 2:
        raise VideoError(f"{path}: has {len(frames)} frames; a plan needs two, a key frame and one")
    return Shown(np.stack(frames), preprocessing)


@lru_cache(maxsize=1)
def _network(setting: Setting) -> Network:
    return open_network(setting.model, setting.weights)


def _task(setting: Setting) -> Task:
    return task_of(described(setting.task), _network(setting).name)


@dataclass(frozen=True, slots=True)
class CutJob:
    """Code a clip at a cut, around a loss.

    `photographs`: what a profile is measured on where none is shipped; none: `clips`, those of the
    plan.  `profiles`: folder where measured ones are kept.
    """

    setting: Setting
    path: Path
    content: str
    split: str
    target: float
    photographs: tuple[Path, ...]
    clips: tuple[Path, ...]
    profiles: Path

    @property
    def key(self) -> str:
        """Return a name that only this measurement has."""
        return key_of("cut", f"cut {self.path.name} {self.split}", self._identity())

    def _identity(self) -> dict[str, Any]:
        return self._of_profile() | {
            "clip": self.content,
            "target": self.target,
            "effort": self.setting.effort,
        }

    def _of_profile(self) -> dict[str, Any]:
        shipped = self._shipped()
        profile: object = (
            shipped.hash.hex()
            if shipped is not None
            else [
                self._profile_from(),
                self._views,
                [file_hash(path) for path in self._sources],
            ]
        )
        return self.setting.identity() | {"split": self.split, "profile": profile}

    @property
    def _sources(self) -> tuple[Path, ...]:
        return self.photographs or self.clips

    @property
    def _views(self) -> int:
        return VIEWS if self.photographs else PAIRS

    @property
    def label(self) -> str:
        """Say which clip and cut."""
        return f"{self.path.name} at {self.split}"

    @property
    def group(self) -> str:
        """Return the kind."""
        return "cut"

    def run(self) -> Result:
        """Return the points and what they were coded with, or why the cut is refused."""
        try:
            return self._measured()
        except FeatureCodecError as error:
            return {"split": self.split, "refused": " ".join(str(error).split())}

    def _measured(self) -> Result:
        source = self.source()
        try:
            with torch.no_grad():
                frames = [(frame, source.features(frame)) for frame in source.frames]
                references = [source.split.cloud(_batched(each)) for _, each in frames]
                task, geometry = _task(self.setting), source.reader.geometry

                def measure(qp: int) -> Point:
                    config = replace(self.config, qp=qp)
                    return _coded(source, frames, references, (task, geometry), config)

                points = search(measure, self.target, start=START_QP, most=MAX_QP)
        finally:
            source.close()
        assert source.profile is not None  # noqa: S101 - the source has measured one if need be
        return {
            "split": self.split,
            "frames": len(frames),
            "tensors": [list(spec.shape) for spec in source.header.tensors],
            "elements": sum(spec.elements for spec in source.header.tensors),
            "profile": self._profile_from(),
            "profile_bytes": len(source.profile.to_bytes()),
            "points": [asdict(point) for point in points],
        }

    @property
    def config(self) -> EncoderConfig:
        """Return how to encode, but for the qp."""
        return EncoderConfig(keyint=KEYINT, effort=self.setting.effort)

    def source(self) -> EdgeSource:
        """Open the clip at the cut, with its profile."""
        options = VideoOptions(
            model=self.setting.model,
            split=self.split,
            weights=self.setting.weights,
            preprocessing=self.setting.preprocessing,
            task=self.setting.task,
            frames=(0, self.setting.frames),
            profile=None if self._shipped() is not None else self._calibrated(),
            config=self.config,
        )
        return EdgeSource(self.path, options)

    def _shipped(self) -> Profile | None:
        network = _network(self.setting)
        return shipped_for(network.name, self.split, network.hash)

    def _profile_from(self) -> str:
        if self._shipped() is not None:
            return "shipped"
        return "photographs" if self.photographs else "clips"

    def _calibrated(self) -> Path:
        """Measure the profile, unless it has been for another clip."""
        path = self.profiles / f"{key_of('profile', self.split, self._of_profile())}.safetensors"
        if path.exists():
            return path
        shown, network = look(self.setting, self.path), _network(self.setting)
        profile = calibrate(
            split_model(network.module, self.split, shown.size, network.name),
            self._sources,
            shown.preprocessing,
            CalibrationOptions(views=self._views),
            task=_task(self.setting),
            weights_hash=network.hash,
        )
        self.profiles.mkdir(parents=True, exist_ok=True)
        with open_output(str(path), force=True) as file:
            profile.to_file(file)
        return path


Compared = tuple[Task, Geometry]


def _coded(
    source: EdgeSource,
    frames: Sequence[tuple[Frame, list[Tensor]]],
    references: Sequence[Any],
    compared: Compared,
    config: EncoderConfig,
) -> Point:
    """Code the frames with one qp, as `lmc encode` does, and decode them."""
    coder = _Coder(source, config)
    sizes, outputs = [], []
    previous = None
    for frame, features in frames:
        packet = coder.encode(frame, features)
        sizes.append(len(packet.to_bytes(previous)))
        previous = packet
        outputs.append(source.split.cloud(_batched(coder.decode(packet))))
    return _point(config.qp, references, outputs, compared, sizes)


class _Coder:
    """Encoder and decoder of a stream, as `lmc encode` and `lmc decode` have them."""

    def __init__(self, source: EdgeSource, config: EncoderConfig) -> None:
        self._encoder = source.encoder(config)
        self._motion = search_by(source.header, config)
        self._decoder = Decoder(source.header, profile=source.profile)

    def encode(self, frame: Frame, features: list[Tensor]) -> FramePacket:
        motion = self._motion
        vectors = None if motion is None else motion.estimate(luma(frame.rgb))
        packet = self._encoder.encode(features, vectors, pts=frame.pts).packet
        if motion is not None and not packet.has_vectors:
            motion.forget()
        return packet

    def decode(self, packet: FramePacket) -> Sequence[Tensor]:
        return self._decoder.decode(packet).features


@dataclass(frozen=True, slots=True)
class RemoteJob:
    """Code the pictures of a clip, and let the whole network look at what comes back."""

    setting: Setting
    path: Path
    content: str
    pixel_format: str
    target: float

    @property
    def key(self) -> str:
        """Return a name that only this measurement has."""
        identity = self.setting.identity() | {
            "clip": self.content,
            "target": self.target,
            "format": self.pixel_format,
            "x265": X265,
        }
        return key_of("remote", f"remote {self.path.name} {self.pixel_format}", identity)

    @property
    def label(self) -> str:
        """Say which clip and format."""
        return f"{self.path.name} by x265, {self.pixel_format}"

    @property
    def group(self) -> str:
        """Return the kind."""
        return "remote"

    def run(self) -> Result:
        """Return the points, or why x265 does not take the pictures."""
        try:
            with torch.no_grad():
                points = self._points()
        except FeatureCodecError as error:
            return {"refused": " ".join(str(error).split())}
        return {"points": [asdict(point) for point in points]}

    def _points(self) -> list[Point]:
        shown, module = look(self.setting, self.path), _network(self.setting).module
        compared = _task(self.setting), Geometry.of_input(*shown.size[::-1])
        references = [module(normalise(rgb, shown.preprocessing)) for rgb in shown.rgb]
        coder, taken = x265(X265), self.pixel_format

        def measure(crf: int) -> Point:
            coded = code_frames(shown.rgb, coder, crf, taken)
            outputs = [
                module(normalise_float(image[None], shown.preprocessing)) for image in coded.images
            ]
            return _point(crf, references, outputs, compared, coded.frame_bytes)

        return search(measure, self.target, start=START_CRF, most=MOST_CRF)


@dataclass(frozen=True, slots=True)
class TimesJob:
    """Time everything that a frame passes, all options in turns, so that none meets a busier
    machine than another.

    `cuts`: those measured, each with the qp to time it at; `remote`: the format and crf likewise.
    """

    cuts: tuple[tuple[CutJob, int], ...]
    remote: tuple[RemoteJob, int] | None
    setting: Setting
    path: Path
    content: str

    @property
    def key(self) -> str:
        """Return a name that only these times have."""
        identity = {
            "cuts": [[job.key, qp] for job, qp in self.cuts],
            "remote": None if self.remote is None else [self.remote[0].key, self.remote[1]],
            "clip": self.content,
            "inter_frames": TIMED_FRAMES,
            "repeats": REPEATS,
            "machine": platform.node(),
            "torch": torch.__version__,
        }
        return key_of("times", f"times {self.path.name}", identity)

    @property
    def label(self) -> str:
        """Say what it is."""
        return "times"

    @property
    def group(self) -> str:
        """Return the kind."""
        return "times"

    def run(self) -> Result:
        """Return by option, a split, `TIMED_PIXELS` or `TIMED_WHOLE`, and by stage the seconds of
        every timed frame, each the least of all repeats; and how much longer a repeat took.

        The first frame of the clip is not among them.
        """
        with torch.no_grad(), ExitStack() as stack:
            options = {
                job.split: stack.enter_context(_Timed.open(job, qp)) for job, qp in self.cuts
            }
            shown, module = look(self.setting, self.path), _network(self.setting).module
            pictures = shown.rgb[: 1 + TIMED_FRAMES]

            def whole(rgb: NDArray[np.uint8]) -> Any:  # noqa: ANN401 - whatever the network gives
                return module(normalise(rgb, shown.preprocessing))

            whole(pictures[0])  # warms caches up
            passes: list[dict[str, dict[str, list[float]]]] = []
            for _ in range(REPEATS):
                passes.append({split: timed.once() for split, timed in options.items()})
                passes[-1][TIMED_WHOLE] = {
                    "cloud": [_clocked(lambda: whole(rgb))[1] for rgb in pictures[1:]]  # noqa: B023
                }
                if self.remote is not None:
                    passes[-1][_FIRST_PIXELS] = self._x265(pictures[:1], *self.remote)
                    passes[-1][TIMED_PIXELS] = self._x265(pictures, *self.remote)
        found = {
            name: {
                stage: [
                    min(each) for each in zip(*(one[name][stage] for one in passes), strict=True)
                ]
                for stage in stages
            }
            for name, stages in passes[0].items()
        }
        if self.remote is not None:
            first, count = found.pop(_FIRST_PIXELS), len(pictures) - 1
            found[TIMED_PIXELS] = {
                stage: [max(total - first[stage][0], 0.0) / count] * count
                for stage, (total,) in found[TIMED_PIXELS].items()
            }
        return {"seconds": found, "excess": _excess(passes)}

    @staticmethod
    def _x265(rgb: NDArray[np.uint8], job: RemoteJob, crf: int) -> dict[str, list[float]]:
        """Time all pictures together: x265 gives no times of each."""
        coded = code_frames(rgb, x265(X265), crf, job.pixel_format, clock=time.process_time)
        return {"encode": [coded.encode_seconds], "decode": [coded.decode_seconds]}


def _excess(passes: Sequence[dict[str, dict[str, list[float]]]]) -> float:
    """Return by what share the middle repeat took longer than the fastest, of the option where that
    is the middle one.
    """
    totals = [sorted(sum(map(sum, one[name].values())) for one in passes) for name in passes[0]]
    return statistics.median(each[len(each) // 2] / max(each[0], 1e-9) - 1 for each in totals)


@dataclass(frozen=True, slots=True)
class _Timed:
    """A cut with its encoder, and the first frames of its clip."""

    source: EdgeSource
    frames: list[Frame]
    config: EncoderConfig

    @classmethod
    @contextmanager
    def open(cls, job: CutJob, qp: int) -> Iterator[_Timed]:
        source = job.source()
        try:
            frames = list(islice(source.frames, 1 + TIMED_FRAMES))
            yield cls(source, frames, replace(job.config, qp=qp))
        finally:
            source.close()

    def once(self) -> dict[str, list[float]]:
        """Take the frames through all stages: seconds of each inter frame by stage."""
        source = self.source
        coder = _Coder(source, self.config)
        seconds: dict[str, list[float]] = {
            stage: [] for stage in ("edge", "encode", "decode", "cloud")
        }
        for frame in self.frames:
            features, taken = _clocked(lambda: source.features(frame))  # noqa: B023
            seconds["edge"].append(taken)
            packet, taken = _clocked(lambda: coder.encode(frame, features))  # noqa: B023
            seconds["encode"].append(taken)
            decoded, taken = _clocked(lambda: coder.decode(packet))  # noqa: B023
            seconds["decode"].append(taken)
            seconds["cloud"].append(_clocked(lambda: source.split.cloud(_batched(decoded)))[1])  # noqa: B023
        return {stage: taken[1:] for stage, taken in seconds.items()}


def _point(
    parameter: int,
    references: Sequence[Any],
    outputs: Sequence[Any],
    compared: Compared,
    sizes: Sequence[int],
) -> Point:
    """Compare the outputs, and put together what a clip came to."""
    task, geometry = compared
    pairs = list(zip(references, outputs, strict=True))
    losses = tuple(task.lost(*pair) for pair in pairs)
    if not all(map(math.isfinite, losses)):
        raise VideoError(f"the loss of the task is not finite at {parameter}")
    figures: dict[str, float] = {}
    try:
        comparison = task.comparison()
    except TaskError:  # what judges is in an extra; the loss is known without it
        comparison = None
    if comparison is not None:
        for reference, found in pairs:
            comparison.update(reference, found, geometry)
        figures = {
            name: float(value)
            for name, value in comparison.figures().items()
            if math.isfinite(value)
        }
    return Point(parameter, losses, tuple(sizes), figures)


def _clocked(work: Callable[[], Any]) -> tuple[Any, float]:
    """Return what work makes, and the processor seconds that it took."""
    start = time.process_time()
    made = work()
    return made, time.process_time() - start


def _batched(features: Sequence[Tensor]) -> list[Tensor]:
    return [tensor[None] for tensor in features]
