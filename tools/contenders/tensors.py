"""Anchors on the tensors: as grey video, by NNCodec, by general compressors, as they are.

NNCodec is the package `nncodec` (ISO/IEC 15938-17), which the project does not depend on: it pins
old versions of what the codec uses, and works without those pins:

    pip install --no-deps nncodec opencv-python-headless && pip install h5py pandas scikit-learn
"""

import importlib.metadata
import math
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from codec.files.video_coders import VideoCoder, code_video, parameters_of
from tools.contenders.scene import Coded, Scene
from tools.contenders.unavailable import AnchorUnavailableError

__all__ = ["Lossless", "NnCodec", "Tiles", "Uncompressed", "tile", "tile_layout", "untile"]

TILE_MAX = 1023  # of a 10-bit sample
RANGE_BYTES = 8  # two float32: the extremes of a tensor over the clip


def tile_layout(channels: int) -> tuple[int, int]:
    """Choose rows and columns of tiles: the factors nearest to a square.

    A number without factors nearer than 1:4 (a prime, say) leaves some tiles empty.
    """
    rows = max(n for n in range(1, math.isqrt(channels) + 1) if channels % n == 0)
    if channels // rows <= 4 * rows:
        return rows, channels // rows
    columns = math.isqrt(channels - 1) + 1
    return -(-channels // columns), columns


def tile(samples: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """Lay the channels of each frame side by side: (N, C, H, W) -> (N, rows H, columns W)."""
    frames, channels, height, width = samples.shape
    rows, columns = tile_layout(channels)
    empty = ((0, 0), (0, rows * columns - channels), (0, 0), (0, 0))
    tiles = np.pad(samples, empty).reshape(frames, rows, columns, height, width)
    return np.ascontiguousarray(
        tiles.transpose(0, 1, 3, 2, 4).reshape(frames, rows * height, columns * width)
    )


def untile(pictures: NDArray[np.uint16], channels: int) -> NDArray[np.uint16]:
    """Undo `tile`: (N, rows H, columns W) -> (N, channels, H, W)."""
    rows, columns = tile_layout(channels)
    frames, height, width = pictures.shape
    tiles = pictures.reshape(frames, rows, height // rows, columns, width // columns)
    tiles = tiles.transpose(0, 1, 3, 2, 4).reshape(frames, rows * columns, *tiles.shape[2::2])
    return np.ascontiguousarray(tiles[:, :channels])


@dataclass(frozen=True, slots=True)
class Tiles:
    """The channels as 10-bit grey video; each tensor of a split in a stream of its own."""

    variant: str
    coder: VideoCoder
    points: tuple[float, ...]
    name: str = "tiles"
    needs_split: bool = True

    def code(self, scene: Scene, point: float) -> Coded:
        """Code the tensors at crf `point`; count their extremes as bytes."""
        sizes = np.zeros(scene.frames, np.int64)
        seconds, decoded = {"encode": 0.0, "decode": 0.0}, []
        for tensor in scene.features:
            low, high = float(tensor.min()), float(tensor.max())
            step = (high - low) / TILE_MAX
            samples = np.rint((tensor.astype(np.float64) - low) / (step or 1.0)).astype(np.uint16)
            pictures = [VideoFrame.from_ndarray(one, format="gray10le") for one in tile(samples)]
            coded = code_video(pictures, self.coder, point, "gray10le")
            received = np.stack([frame.to_ndarray() for frame in coded.frames]).astype(np.uint16)
            levels = untile(received, tensor.shape[1])
            decoded.append((levels * step + low).astype(np.float32))
            sizes += np.array(coded.frame_bytes)
            sizes[0] += RANGE_BYTES
            for stage in seconds:
                seconds[stage] += coded.seconds[stage]
        return Coded(
            int(sizes.sum()),
            features=tuple(decoded),
            frame_bytes=tuple(map(int, sizes)),
            seconds=seconds,
            parameters=parameters_of(self.coder, point, "gray10le"),
        )


@dataclass(frozen=True, slots=True)
class NnCodec:
    """NNCodec, frame by frame, by its defaults.

    These include trellis-coded quantisation, which beats its scalar quantiser at every rate.
    """

    points: tuple[float, ...]
    name: str = "nncodec"
    variant: str = ""
    needs_split: bool = True

    def code(self, scene: Scene, point: float) -> Coded:
        """Code every tensor at qp `point`.

        Raises:
            AnchorUnavailableError: the package is not installed, or lacks something that it needs.
        """
        try:
            from nncodec.tensor import decode, encode  # noqa: PLC0415 - optional, slow to import
        except ImportError as error:
            raise AnchorUnavailableError(
                f"needs the package nncodec ({error}); the top of tools/contenders/tensors.py "
                "says how to install it"
            ) from error
        with tempfile.TemporaryDirectory() as folder:  # it writes every stream to a file as well
            options = {"qp": int(point), "results": folder}
            start = time.perf_counter()
            streams = [
                [encode(frame, dict(options)) for frame in tensor] for tensor in scene.features
            ]
            seconds_encode = time.perf_counter() - start
        start = time.perf_counter()
        decoded = tuple(np.stack([decode(one) for one in tensor]) for tensor in streams)
        seconds_decode = time.perf_counter() - start
        sizes = tuple(sum(map(len, frame)) for frame in zip(*streams, strict=True))
        return Coded(
            sum(sizes),
            features=decoded,
            frame_bytes=sizes,
            seconds={"encode": seconds_encode, "decode": seconds_decode},
            parameters={
                "qp": int(point),
                "library": f"nncodec {importlib.metadata.version('nncodec')}",
            },
        )


@dataclass(frozen=True, slots=True)
class Lossless:
    """Uniform levels between a tensor's extremes, a byte each, and a general compressor.

    `by_frame`: each frame is packed by itself; else the clip at once, and what a frame takes is
    unknown.
    """

    variant: str
    pack: Callable[[bytes], bytes]
    unpack: Callable[[bytes], bytes]
    by_frame: bool
    points: tuple[float, ...] = (2, 3, 4, 5, 6, 7, 8)
    name: str = "lossless"
    needs_split: bool = True

    def code(self, scene: Scene, point: float) -> Coded:
        """Quantise to `point` bits."""
        steps = (1 << int(point)) - 1
        sizes = np.zeros(scene.frames if self.by_frame else 1, np.int64)
        decoded = []
        seconds = {"encode": 0.0, "decode": 0.0}
        for tensor in scene.features:
            low, high = float(tensor.min()), float(tensor.max())
            step = (high - low) / steps or 1.0
            start = time.perf_counter()
            levels = np.rint((tensor.astype(np.float64) - low) / step).astype(np.uint8)
            packed = [self.pack(part.tobytes()) for part in np.split(levels, len(sizes))]
            seconds["encode"] += time.perf_counter() - start
            start = time.perf_counter()
            restored = b"".join(self.unpack(part) for part in packed)
            levels = np.frombuffer(restored, np.uint8).reshape(tensor.shape)
            decoded.append((levels * step + low).astype(np.float32))
            seconds["decode"] += time.perf_counter() - start
            sizes += [len(part) for part in packed]
            sizes[0] += RANGE_BYTES
        return Coded(
            int(sizes.sum()),
            features=tuple(decoded),
            frame_bytes=tuple(map(int, sizes)) if self.by_frame else None,
            seconds=seconds,
            parameters={"bits": int(point), "compressor": self.variant, "level": 9},
        )


@dataclass(frozen=True, slots=True)
class Uncompressed:
    """The tensors as they are."""

    name: str = "uncompressed"
    variant: str = ""
    points: tuple[float, ...] = (32,)
    needs_split: bool = True

    def code(self, scene: Scene, point: float) -> Coded:
        """Count four bytes an element."""
        per_frame = sum(tensor[0].nbytes for tensor in scene.features)
        return Coded(
            per_frame * scene.frames,
            features=scene.features,
            frame_bytes=(per_frame,) * scene.frames,
            seconds={"encode": 0.0, "decode": 0.0},
            parameters={"bits": 32},
        )
