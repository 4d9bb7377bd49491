"""Tensors -> a stream in a file: `codec.encode` for a whole clip, `codec.Writer` frame by frame.

    codec.encode(features, "clip.lmc", qp=24, stride=16, motion=frames)
    with codec.Writer("out.lmc", header, qp=24) as out:
        out.write(frame, vectors=field)

A file appears under its name when all of it is there, and not at all after an error.

But: videos are encoded by `VideoEncoder`, which also keeps a bitrate; nothing here runs a network.
"""

from __future__ import annotations

import inspect
import math
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from fractions import Fraction
from itertools import chain, islice, pairwise, zip_longest
from pathlib import Path
from typing import Any, BinaryIO, Final, TypeAlias, TypeGuard

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from codec.encoding.config import EncoderConfig
from codec.encoding.encoder import Encoder
from codec.encoding.importance import checked_pixels, pooled
from codec.encoding.motion_search import MotionSearch, luma, search_by
from codec.encoding.refinement import CloudFunction
from codec.errors import FeatureError
from codec.files.outputs import open_output
from codec.files.streams import StreamWriter
from codec.format.constants import HASH_BYTES, MAX_VECTOR, VECTOR_UNITS
from codec.format.header import SequenceHeader, TensorSpec
from codec.format.packets import FramePacket
from codec.format.profile import Profile
from codec.limits import DEFAULT_LIMITS, Limits
from codec.pipeline.halves import Edge, as_tensor, checked_size
from codec.pipeline.network_tasks import class_logits, described
from codec.pipeline.profiles import (
    MEASURED_FRAMES,
    check_limits,
    measured_for,
    naming,
    shipped_for,
)
from codec.profiling.simple import measure_profile

__all__ = ["EncodedClip", "Writer", "encode"]

Array: TypeAlias = Tensor | NDArray[Any]
FrameLike: TypeAlias = Array | Mapping[str, Array] | Sequence[Array]
Pair: TypeAlias = tuple[float, float]
PerTensor: TypeAlias = float | Pair | NDArray[Any] | Mapping[str, float | Pair | NDArray[Any]]

ONLY_NAME = "features"
"""Of a tensor that its owner gives no name."""
MAX_FPS_DENOMINATOR = 1001
_MISSING: Final = object()


# --- frame by frame -------------------------------------------------------------------------------


class Writer:
    """Writes a stream frame by frame; a context manager.

    Args:
        target: a path, or a binary file, which its owner closes.
        header: what the stream is; `simple_header` makes one for your own tensors.
        cloud: the cloud sub-model, which efforts from 5 on choose levels by.
        task: what the network's outputs stand for, put into the header: a name, or a TOML file,
            as of `lmc encode --task`; default: what the header says.
        device: where the arithmetic runs.
        limits: those of the decoders that the stream is for.
        profile: the one that the header names, where it does not carry it.
        force: the file may exist.
        config: fields of `EncoderConfig`: qp, keyint, scene_cut, effort.

    Raises:
        ValueError: no decoder would read the header; a configuration outside its ranges; entering a
            second time.
        TaskError: the task is none.
        TypeError: a configuration of other types, or an unknown keyword.
        FileExistsError: the file is there, and `force` is not set; on entering.

    Example:
        >>> features.shape
        torch.Size([8, 16, 28, 28])
        >>> spec = codec.TensorSpec("t", 16, 28, 28, stride_y=8, stride_x=8)
        >>> header = codec.simple_header([spec], [[frame] for frame in features], 224, 224)
        >>> with codec.Writer("out.lmc", header, qp=30) as out:
        ...     sizes = [out.write(frame) for frame in features]
        >>> codec.open("out.lmc")
        <Clip of 8 frames: t (16, 28, 28)>
    """

    def __init__(
        self,
        target: str | Path | BinaryIO,
        header: SequenceHeader,
        *,
        cloud: CloudFunction | None = None,
        task: str | Path | None = None,
        device: torch.device | str = "cpu",
        limits: Limits = DEFAULT_LIMITS,
        profile: Profile | None = None,
        force: bool = False,
        **config: Any,  # noqa: ANN401 - of `EncoderConfig`, which checks them
    ) -> None:
        if task is not None:
            header = replace(header, task=described(str(task)))
        self.config = _config(Writer, config)
        self._encoder = Encoder(
            header, self.config, cloud=cloud, device=device, limits=limits, profile=profile
        )
        self._context = _stream(target, header, limits, force=force)
        self._stream: StreamWriter | None = None
        self._entered = self._used = False
        self.header = header
        self.packet: FramePacket | None = None
        """The packet written last."""

    @property
    def bytes_written(self) -> int:
        """Size of the stream so far."""
        return 0 if self._stream is None else self._stream.bytes_written

    def write(
        self,
        frame: FrameLike,
        vectors: NDArray[np.int32] | None = None,
        *,
        pts: int | None = None,
        key: bool = False,
        importance: Array | None = None,
    ) -> int:
        """Encode and write one frame.

        Args:
            frame: one (C, H, W) tensor, torch or NumPy; of several tensors a dict by name, or a
                list in the header's order.
            vectors: its motion field as of `Encoder.encode`, (rows, columns, 2) int32 in quarter
                pixels; None: no motion.
            pts: in the header's time base; default: one frame duration after the last.
            key: make it a key frame.
            importance: (H, W), how many times as much as elsewhere an error costs at each pixel of
                the input; positive.  It is of this frame alone; None: the same everywhere.

        Returns:
            The size of its packet in bytes.

        Raises:
            FeatureError: tensors of other names or shapes, or values not finite or out of range.
            LimitExceededError: a packet larger than decoders take.
            ValueError: a field or importance of another shape or type; a writer that is not open.
        """
        if not self._entered or self._stream is None:
            raise ValueError(
                "the writer is not open; write inside `with codec.Writer(...) as out:`"
            )
        tensors = _tensors_of(frame, self.header.tensors)
        maps = None
        if importance is not None:
            size = self.header.input_height, self.header.input_width
            pixels = checked_pixels(importance, *size)
            maps = pooled(pixels, self.header.tensors, self._encoder.profile)
        encoded = self._encoder.encode(tensors, vectors, pts=pts, key=key, importance=maps)
        self.packet = encoded.packet
        return self._stream.write(encoded.packet)

    def __enter__(self) -> Writer:
        if self._used:
            raise ValueError("a writer writes one stream; make another codec.Writer")
        self._used = True
        self._stream = self._context.__enter__()
        self._entered = True
        return self

    def __exit__(self, *raised: Any) -> bool | None:  # noqa: ANN401 - what went wrong, if anything
        self._entered = False
        return self._context.__exit__(*raised)


@contextmanager
def _stream(
    target: str | Path | BinaryIO, header: SequenceHeader, limits: Limits, *, force: bool
) -> Iterator[StreamWriter]:
    """Give a stream that is ended if all goes well; of a path, nothing is left otherwise."""
    if isinstance(target, str | Path):
        _refuse_existing(target, force=force)
        with (
            open_output(str(target), force=force) as file,
            _stream(file, header, limits, force=force) as stream,
        ):
            yield stream
        return
    stream = StreamWriter(target, header, limits)
    yield stream
    stream.close()


def _config(caller: Callable[..., Any], given: Mapping[str, Any]) -> EncoderConfig:
    """Return the configuration that a caller's further keywords make."""
    known = [field.name for field in fields(EncoderConfig)]
    for name in given:
        if name not in known:
            own = inspect.signature(caller).parameters.values()
            known += [one.name for one in own if one.kind is one.KEYWORD_ONLY]
            raise TypeError(
                f"unexpected keyword argument {name!r}, expected one of {', '.join(known)}"
            )
    return EncoderConfig(**given)


def _refuse_existing(target: str | Path | BinaryIO, *, force: bool) -> None:
    if not force and isinstance(target, str | Path) and Path(target).is_file():
        raise FileExistsError(f"{target}: exists; pass force=True to overwrite it")


def _tensors_of(frame: FrameLike, specs: Sequence[TensorSpec]) -> list[Tensor]:
    """Return the tensors of one frame in the order of their specs."""
    names = [spec.name for spec in specs]
    given: Iterable[Array]
    if isinstance(frame, Tensor | np.ndarray):
        given = [frame]
    elif isinstance(frame, Mapping):
        if set(frame) != set(names):
            raise FeatureError(f"features named {', '.join(frame)}, expected {', '.join(names)}")
        given = [frame[name] for name in names]
    else:
        given = frame
    try:
        return [as_tensor(each) for each in given]
    except TypeError as error:
        raise FeatureError(f"one frame is no tensors: {error}") from error


# --- a whole clip ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class EncodedClip:
    """What `encode` wrote; `elements` are those of all tensors of one frame."""

    frames: int
    key_frames: int
    bytes: int
    elements: int

    @property
    def bits_per_element(self) -> float:
        """Rate, of the whole file."""
        return self.bytes * 8 / (self.frames * self.elements)


def encode(
    features: Array | Mapping[str, Array] | Iterable[FrameLike],
    target: str | Path | BinaryIO,
    *,
    stride: PerTensor | None = None,
    offset: PerTensor | None = None,
    split: Edge | None = None,
    header: SequenceHeader | None = None,
    motion: Array | Iterable[Array] | None = None,
    size: tuple[int, int] | None = None,
    grid: int | None = None,
    fps: float | Fraction | None = None,
    pts: Sequence[int] | NDArray[np.int64] | None = None,
    importance: Array | Iterable[Array] | None = None,
    profile: Profile | None = None,
    profile_apart: bool = False,
    task: str | Path | None = None,
    device: torch.device | str | None = None,
    limits: Limits = DEFAULT_LIMITS,
    force: bool = False,
    **config: Any,  # noqa: ANN401 - of `EncoderConfig`, which checks them
) -> EncodedClip:
    """Encode the feature tensors of a clip into a file.

    What the tensors are is said by `stride` (and `offset`), by `split`, or by a whole `header`.

    Args:
        features: (T, C, H, W), torch or NumPy, of any real type; of several tensors a dict of such
            by name.  Or an iterable of frames, (C, H, W) or dicts of such, one in memory at a time.
        target: a path, or a binary file, which its owner closes.
        stride: input pixels from sample to sample (n^k): one number, a pair (y, x), or a dict of
            either by name.
        offset: input pixel on which the first sample is centred, in halves; as `stride`; default 0.
        split: the edge that made the features: it knows strides and offsets, the stream names its
            model, and its profile is used where one is shipped for its very weights.
        header: all that a stream says of itself, in place of all but motion and pts.
        motion: RGB frames, uint8 (T, H, W, 3), that motion is searched in; or a field (T, rows,
            columns, 2) of floats, (y, x) in input pixels, content at x came from x + v in the frame
            before, as `Batch.motion`; arrays or iterables of either.  None: no motion.
        size: height and width of the input frames; default: of the frames in `motion`, else
            stride times tensor.
        grid: of the motion field, pixels; default 32.
        fps: frames per second; the time base is its inverse; default 25.
        pts: presentation times in the time base, increasing; default: 0, 1, 2 ...
        importance: (H, W), how many times as much as elsewhere an error costs at each pixel of the
            input; positive; or one such map for each frame: (T, H, W), or an iterable.
        profile: how the tensors are transformed; default: measured on the clip, or where frames
            come one by one, on the first eight.  With a header: the one that it names.
        profile_apart: the stream has the profile's hash only, and decoders are given it, as
            `codec.open` is.
        task: what the network's outputs stand for, so that whoever decodes can finish it: a name,
            or a TOML file, as of `lmc encode --task`; known of named networks.
        device: where the arithmetic runs; default: where the edge runs, without one the CPU.
        limits: those of the decoders that the stream is for.
        force: the file may exist.
        config: fields of `EncoderConfig`: qp, keyint, scene_cut, effort.

    Raises:
        FeatureError: tensors of other shapes or lengths than stated, values not finite.
        LimitExceededError: larger than decoders take.
        TaskError: the task is none.
        ModelError: efforts from 5 on, and the task is not classification.
        ValueError: motion, pts or importance that do not fit the features; strides that contradict
            the size.
        TypeError: arguments of other types, or an unknown keyword.
        FileExistsError: the file is there, and `force` is not set.

    Example:
        >>> features.shape
        torch.Size([8, 16, 28, 28])
        >>> field = numpy.zeros((8, 7, 7, 2), numpy.float32)
        >>> field[..., 1] = -8  # content comes from 8 pixels to the left
        >>> still = codec.encode(features, "still.lmc", qp=24, stride=8)
        >>> moved = codec.encode(features, "moved.lmc", qp=24, stride=8, motion=field)
        >>> still.frames, still.bits_per_element > 2 * moved.bits_per_element
        (8, True)
    """
    _refuse_existing(target, force=force)  # before any work
    asked = _config(encode, config)
    if split is not None and not isinstance(split, Edge):
        raise TypeError(
            f"split is a {type(split).__name__}, expected the edge of edge, cloud = codec.split(…)"
        )
    if profile_apart and (profile is None or header is not None):
        raise ValueError(
            "profile_apart needs profile=, which decoders are given too, and no header, which says "
            "by itself whether it carries one"
        )
    frames = _frames_of(features)
    times = None if pts is None else _increasing(pts)
    given = {
        "features": frames,
        "motion": _motion_of(motion),
        "pts": times,
        "importance": _maps_of(importance),
    }
    one_map = importance if _is_map(importance) else None
    rows = _together({name: values for name, values in given.items() if values is not None})
    first = list(islice(rows, MEASURED_FRAMES))
    if not first:
        raise FeatureError("features of no frames, expected at least one")
    if header is None:
        samples = frames if isinstance(frames, Sequence) else [row["features"] for row in first]
        if split is not None:
            if any(each is not None for each in (stride, offset, size)):
                raise ValueError("a split knows stride, offset and size; leave them out")
            header = _header_of_split(split)
        elif stride is not None:
            specs = _specs(samples[0], stride, 0 if offset is None else offset)
            size = _picture_size(first[0].get("motion")) if size is None else checked_size(size)
            header = _header_of_tensors(specs, size)
        else:
            raise ValueError(
                "what the tensors are is unknown: pass stride=16 (input pixels from sample to "
                "sample), split=edge of codec.split, or header="
            )
        if grid is not None:
            header = replace(header, grid=grid)
        if fps is not None:
            header = replace(header, time_base=_time_base(fps))
        if profile is None and split is not None and split.split.name:
            profile = shipped_for(split.split.name, split.split.split, split.weights_hash)
        if profile is not None:
            header = naming(header, profile, apart=profile_apart)
        check_limits(header, profile, limits)
        if profile is None:
            profile = _measured(header.tensors, samples, split)
            header = naming(header, profile)
    elif any(each is not None for each in (stride, offset, split, size, grid, fps)):
        raise ValueError(
            "a header says all that stride, offset, split, size, grid and fps do; leave them out"
        )
    if task is not None:
        header = replace(header, task=described(str(task)))
    cloud: CloudFunction | None = None if split is None else split.split.cloud
    if cloud is not None and asked.decided_by().rounds and (header.task or header.model):
        cloud = class_logits(cloud, header.task, header.model)
    if device is None:
        device = "cpu" if split is None else split.device
    writer = Writer(
        target,
        header,
        cloud=cloud,
        device=device,
        limits=limits,
        profile=profile,
        force=force,
        **config,
    )
    search = search_by(header, asked)
    count = key_frames = 0
    with writer, torch.no_grad():
        for row in chain(first, rows):
            vectors = _vectors(row.get("motion"), search, header)
            weights = row.get("importance", one_map)
            writer.write(row["features"], vectors, pts=row.get("pts"), importance=weights)
            assert writer.packet is not None  # noqa: S101 - just written
            if search is not None and not writer.packet.has_vectors:
                search.forget()
            count += 1
            key_frames += writer.packet.key
    elements = sum(spec.elements for spec in header.tensors)
    return EncodedClip(count, key_frames, writer.bytes_written, elements)


# --- what comes in, frame by frame ---


def _frames_of(
    features: Array | Mapping[str, Array] | Iterable[FrameLike],
) -> Sequence[FrameLike] | Iterable[FrameLike]:
    """Return frames: views of a whole clip, or what comes one by one."""
    if isinstance(features, Tensor | np.ndarray):
        _check_clip("features", features)
        return list(features)
    if isinstance(features, str) or not isinstance(features, Iterable):
        raise FeatureError(
            f"features are a {type(features).__name__}, expected (T, C, H, W), a dict of such by "
            "name, or an iterable of frames"
        )
    if not isinstance(features, Mapping):
        return features
    for name, tensor in features.items():
        _check_clip(f"features of {name!r}", tensor)
    lengths = {name: len(tensor) for name, tensor in features.items()}
    if len(set(lengths.values())) > 1:
        found = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise FeatureError(f"tensors of different numbers of frames: {found}")
    count = next(iter(lengths.values()), 0)
    return [{name: features[name][number] for name in features} for number in range(count)]


def _check_clip(what: str, tensor: Array) -> None:
    if not isinstance(tensor, Tensor | np.ndarray):
        raise FeatureError(f"{what} are a {type(tensor).__name__}, expected a tensor or an array")
    if tensor.ndim != 4:
        raise FeatureError(
            f"{what} have shape {tuple(tensor.shape)}, expected (T, C, H, W); "
            "of one frame x, that is x[None]"
        )


def _increasing(pts: Iterable[int]) -> list[int]:
    """Return presentation times, each after the one before."""
    times = [operator.index(time) for time in pts]
    for number, (before, time) in enumerate(pairwise(times), 1):
        if time <= before:
            raise ValueError(
                f"pts {time} of frame {number} behind {before}, expected presentation times that "
                "increase"
            )
    return times


def _motion_of(motion: Array | Iterable[Array] | None) -> Iterable[NDArray[Any]] | None:
    """Return pictures or fields, one a frame."""
    if motion is None:
        return None
    found = _one_a_frame(
        "motion",
        _as_array(motion) if isinstance(motion, Tensor) else motion,
        "frames (T, H, W, 3) uint8 or a field (T, rows, columns, 2) of floats",
        4,
        "frames or fields; codec.VideoReader gives the frames of a video",
    )
    return found if isinstance(motion, Tensor | np.ndarray) else map(_as_array, found)


def _is_map(importance: object) -> TypeGuard[Array]:
    return isinstance(importance, Tensor | np.ndarray) and importance.ndim == 2


def _maps_of(importance: Array | Iterable[Array] | None) -> Iterable[Array] | None:
    """Return maps, one a frame; None of one for all."""
    if importance is None or _is_map(importance):
        return None
    return _one_a_frame(
        "importance",
        importance,
        "(H, W), the input's pixels, or (T, H, W)",
        3,
        "an array (H, W) of the input's pixels, or one for each frame",
    )


def _one_a_frame(
    what: str, given: Array | Iterable[Array], shapes: str, dimensions: int, kinds: str
) -> Iterable[Any]:
    """Return an array cut into frames, or what comes frame by frame as it is."""
    if isinstance(given, Tensor | np.ndarray):
        if given.ndim != dimensions:
            raise ValueError(f"{what} of shape {tuple(given.shape)}, expected {shapes}")
        return list(given)
    if isinstance(given, str | Mapping) or not isinstance(given, Iterable):
        raise TypeError(f"{what} is a {type(given).__name__}, expected {kinds}")
    return given


def _as_array(value: Array) -> NDArray[Any]:
    if not isinstance(value, Tensor):
        return np.asarray(value)
    if value.dtype == torch.bfloat16:  # which NumPy has not
        value = value.float()
    return value.detach().cpu().numpy()


def _together(given: Mapping[str, Iterable[Any]]) -> Iterator[dict[str, Any]]:
    """Yield the features, motion and pts of one frame after the other.

    Raises:
        ValueError: there are more of one than of another; at once where lengths are known.
    """
    lengths = {name: len(v) for name, v in given.items() if isinstance(v, Sized)}
    if len(set(lengths.values())) > 1:
        found = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise ValueError(f"different numbers of frames: {found}; expected one of each a frame")
    return _rows(given)


def _rows(given: Mapping[str, Iterable[Any]]) -> Iterator[dict[str, Any]]:
    for number, values in enumerate(zip_longest(*given.values(), fillvalue=_MISSING)):
        row = dict(zip(given, values, strict=True))
        ended = [name for name, value in row.items() if value is _MISSING]
        if ended:
            going_on = " and ".join(name for name in row if name not in ended)
            raise ValueError(
                f"{' and '.join(ended)} of {number} frames, and more of {going_on}; "
                "expected one of each a frame"
            )
        yield row


def _is_picture(motion: NDArray[Any]) -> bool:
    return motion.ndim == 3 and motion.shape[2] == 3 and motion.dtype == np.uint8


def _picture_size(motion: NDArray[Any] | None) -> tuple[int, int] | None:
    if motion is None or not _is_picture(motion):
        return None
    return motion.shape[0], motion.shape[1]


def _vectors(
    motion: NDArray[Any] | None, search: MotionSearch | None, header: SequenceHeader
) -> NDArray[np.int32] | None:
    """Return the field of one frame as the encoder takes it, in quarter pixels."""
    if motion is None:
        return None
    if _is_picture(motion):
        size = (header.input_height, header.input_width)
        if motion.shape[:2] != size:
            raise ValueError(
                f"motion: picture of shape {motion.shape[:2]}, expected {size}, height and width "
                "of the input that the features were made from"
            )
        return None if search is None else search.estimate(luma(motion))
    rows, columns = header.field_shape
    if motion.shape != (rows, columns, 2) or motion.dtype.kind != "f":
        raise ValueError(
            f"motion of {motion.dtype} {motion.shape} a frame, expected a picture uint8 "
            f"({header.input_height}, {header.input_width}, 3), or a field of floats "
            f"({rows}, {columns}, 2) in input pixels for the grid of {header.grid} pixels"
        )
    if not np.isfinite(motion).all():
        raise ValueError("the motion field holds values that are not finite, expected pixels")
    quarters = np.round(motion.astype(np.float64) * VECTOR_UNITS)
    return np.clip(quarters, -MAX_VECTOR, MAX_VECTOR).astype(np.int32)


# --- what the header says ---


def _header_of_split(edge: Edge) -> SequenceHeader:
    """Name the model; all but the profile."""
    split = edge.split
    height, width = split.input_size
    return SequenceHeader(
        tensors=split.tensors,
        input_height=height,
        input_width=width,
        profile_hash=bytes(HASH_BYTES),
        model=split.name,
        split=split.split if split.name else "",
        weights=edge.weights,
        weights_hash=edge.weights_hash,
        preprocessing=edge.preprocessing,
    )


def _header_of_tensors(specs: Sequence[TensorSpec], size: tuple[int, int] | None) -> SequenceHeader:
    """Say where tensors lie; all but the profile."""
    height, width = size or (
        max(spec.height * spec.stride_y for spec in specs),
        max(spec.width * spec.stride_x for spec in specs),
    )
    for spec in specs:
        bottom, right = (spec.height - 2) * spec.stride_y, (spec.width - 2) * spec.stride_x
        if bottom >= height or right >= width:
            raise ValueError(
                f"tensor {spec.name!r} of {spec.height}x{spec.width} samples {spec.stride_y} and "
                f"{spec.stride_x} pixels apart reaches far beyond the input of {height}x{width} "
                "pixels; is the stride right?"
            )
    return SequenceHeader(
        tensors=tuple(specs),
        input_height=height,
        input_width=width,
        profile_hash=bytes(HASH_BYTES),
    )


def _measured(
    specs: Sequence[TensorSpec], samples: Sequence[FrameLike], edge: Edge | None
) -> Profile:
    """Measure a profile; where the cloud is known, as it takes the first frames."""
    features = [_tensors_of(frame, specs) for frame in samples]
    if edge is None:
        return measure_profile(specs, features)
    some = [
        [tensor.to(edge.device, torch.float32) for tensor in frame]
        for frame in features[:MEASURED_FRAMES]
    ]
    return measured_for(edge.split, features, weigh=some)


def _specs(frame: FrameLike, stride: PerTensor, offset: PerTensor) -> tuple[TensorSpec, ...]:
    """Describe the tensors of a frame."""
    if isinstance(frame, Tensor | np.ndarray):
        frame = {ONLY_NAME: frame}
    if not isinstance(frame, Mapping):
        raise FeatureError(
            f"one frame is a {type(frame).__name__}, expected (C, H, W) or a dict of such by name"
        )
    specs = []
    for name, tensor in frame.items():
        shape = tuple(tensor.shape)
        if len(shape) != 3:
            raise FeatureError(
                f"features of {name!r} have shape {shape} a frame, expected (C, H, W)"
            )
        strides = _whole_numbers("stride", name, _pair("stride", name, stride), 1)
        halves = _whole_numbers("offset", name, _pair("offset", name, offset), 2)
        specs.append(TensorSpec(name, *shape, *strides, *halves))
    return tuple(specs)


def _pair(what: str, name: str, given: PerTensor) -> Pair:
    if isinstance(given, Mapping):
        if name not in given:
            found = ", ".join(map(str, given)) or "no tensors"
            raise ValueError(f"{what} for {found}, and none for tensor {name!r}")
        given = given[name]
    pair: float | Sequence[float] = given.tolist() if isinstance(given, np.ndarray) else given
    if not isinstance(pair, Sequence):
        return pair, pair
    if len(pair) != 2:
        raise ValueError(f"{what} {pair!r} of tensor {name!r}, expected one number or (y, x)")
    return pair[0], pair[1]


def _whole_numbers(what: str, name: str, pair: Pair, parts: int) -> tuple[int, int]:
    """Return a pair in whole units of which `parts` are a pixel."""
    unit = "whole" if parts == 1 else "half"
    try:
        down, across = (float(value) * parts for value in pair)
        exact = down.is_integer() and across.is_integer()  # neither NaN nor infinity is
    except (TypeError, ValueError, OverflowError):
        exact = False
    if not exact:
        raise ValueError(f"{what} {pair} of tensor {name!r}, expected {unit} pixels")
    return int(down), int(across)


def _time_base(fps: float | Fraction) -> Fraction:
    exact = fps if isinstance(fps, Fraction) else float(fps)  # a scalar of NumPy's too
    rate = Fraction(exact if math.isfinite(exact) else 0).limit_denominator(MAX_FPS_DENOMINATOR)
    if rate <= 0:
        raise ValueError(f"fps {fps}, expected frames per second above 0")
    return 1 / rate
